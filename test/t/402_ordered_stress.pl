# Four sessions at random on an ordered queue: each enqueues, dequeues one or
# several, acknowledges, fails, releases, rolls back, locks and deletes rows.
# Each delivery checks that no other message of its key is in flight and that
# no earlier one is there; at the end everything must be consumable.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use IPC::Run;
use MqTest;
use Test::More;

my $seed = $ENV{MQ_SEED} // time;
note "MQ_SEED=$seed";

my $node = mq_node('main');
$node->safe_psql('postgres', q{
SELECT mq.create_queue('s', ordered => true, lease => '1 hour', backoff => '20 ms', max_attempts => 4);
CREATE TABLE held (key text PRIMARY KEY, id bigint NOT NULL);
CREATE TABLE done (what text NOT NULL, n bigint NOT NULL);

-- One delivery: whoever gets it must be the only one of its key, and the first.
CREATE FUNCTION delivered(m mq.message) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    before bigint;
BEGIN
    IF m.key IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO held VALUES (m.key, m.id)
    ON CONFLICT (key) DO UPDATE SET id = excluded.id WHERE NOT EXISTS (SELECT FROM mq.q_s WHERE id = held.id);
    IF NOT FOUND THEN
        -- or it was deleted since, which frees its key at once
        IF NOT EXISTS (SELECT FROM mq.q_s WHERE id = m.id) THEN
            RETURN;
        END IF;
        RAISE EXCEPTION 'two at once of key %: % and %', m.key, m.id, (SELECT id FROM held WHERE key = m.key);
    END IF;
    -- keys that end in "m" have several producers at a time: their ids may commit out of order
    SELECT id INTO before FROM mq.q_s WHERE key = m.key AND id < m.id ORDER BY key, id LIMIT 1;
    IF before IS NOT NULL AND m.key NOT LIKE '%m' THEN
        RAISE EXCEPTION 'key %: % delivered before %', m.key, m.id, before;
    END IF;
END $$;

CREATE PROCEDURE play(until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
    dice   float;
    mine   mq.message[] := '{}';
    m      mq.message;
    k      text;
    made   bigint := 0;
    acked  bigint := 0;
    killed bigint := 0;
    n      bigint;
BEGIN
    WHILE clock_timestamp() < until LOOP
        dice := random();
        k := 'k' || floor(random() * 12) || CASE WHEN random() < 0.3 THEN 'm' ELSE '' END;
        IF dice < 0.13 THEN
            IF k NOT LIKE '%m' THEN
                PERFORM pg_advisory_xact_lock(hashtext(k));
            END IF;
            SELECT count(mq.enqueue('s', to_jsonb(i), key => CASE WHEN random() < 0.05 THEN NULL ELSE k END)) INTO n
            FROM generate_series(1, 1 + floor(random() * 3)::int) i;
            IF random() < 0.3 THEN
                PERFORM pg_sleep(random() * 0.003);
            END IF;
            IF random() < 0.1 THEN
                ROLLBACK;
            ELSE
                COMMIT;
                made := made + n;
            END IF;
        ELSIF dice < 0.5 THEN
            -- lease mode
            FOR m IN SELECT * FROM mq.dequeue('s', 1 + floor(random() * 4)::int) LOOP
                PERFORM delivered(m);
                mine := mine || m;
            END LOOP;
            COMMIT;
        ELSIF dice < 0.7 THEN
            -- transactional mode
            n := 0;
            FOR m IN SELECT * FROM mq.dequeue('s', 1 + floor(random() * 2)::int, auto_ack => true) LOOP
                IF m.key IS NOT NULL THEN
                    INSERT INTO held VALUES (m.key, m.id)
                    ON CONFLICT (key) DO UPDATE SET id = excluded.id WHERE NOT EXISTS (SELECT FROM mq.q_s WHERE id = held.id);
                    IF NOT FOUND THEN
                        RAISE EXCEPTION 'two at once of key %', m.key;
                    END IF;
                    DELETE FROM held WHERE key = m.key;
                END IF;
                n := n + 1;
            END LOOP;
            IF random() < 0.2 THEN
                ROLLBACK;
            ELSE
                COMMIT;
                acked := acked + n;
            END IF;
        ELSIF dice < 0.73 THEN
            -- somebody locks a message for a while
            PERFORM FROM mq.q_s WHERE key = k ORDER BY key, id LIMIT 1 FOR UPDATE SKIP LOCKED;
            PERFORM pg_sleep(random() * 0.002);
            ROLLBACK;
        ELSIF dice < 0.745 THEN
            -- an operator deletes the first or any message of a key, if it is not leased
            DELETE FROM mq.q_s WHERE id = (SELECT id FROM mq.q_s WHERE key = k AND mq.status('s', id) IS DISTINCT FROM 'leased'
                                           ORDER BY key, id OFFSET floor(random() * 3)::int LIMIT 1 FOR UPDATE SKIP LOCKED);
            GET DIAGNOSTICS n = ROW_COUNT;
            IF random() < 0.2 THEN
                ROLLBACK;
            ELSE
                COMMIT;
                killed := killed + n;
            END IF;
        ELSIF cardinality(mine) > 0 THEN
            m := mine[1];
            mine := mine[2:];
            DELETE FROM held WHERE key = m.key AND id = m.id;
            dice := random();
            IF dice < 0.6 THEN
                n := mq.ack('s', m.id, m.receipt)::int;
            ELSIF dice < 0.8 THEN
                n := 0 * mq.nack('s', m.id, m.receipt, delay => random() * interval '20 ms')::int;
            ELSE
                n := 0 * mq.release('s', m.id, m.receipt)::int;
            END IF;
            IF random() < 0.1 THEN
                ROLLBACK;
                mine := mine || m;
            ELSE
                COMMIT;
                acked := acked + n;
            END IF;
        END IF;
    END LOOP;
    FOREACH m IN ARRAY mine LOOP
        DELETE FROM held WHERE key = m.key AND id = m.id;
        PERFORM mq.release('s', m.id, m.receipt);
        COMMIT;
    END LOOP;
    INSERT INTO done VALUES ('made', made), ('gone', acked + killed);
END $$;
});

my @run;
for my $i (1 .. 4)
{
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start(
		[
			'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'),
			'-c', "SELECT setseed((($seed + $i) % 1000) / 1000.0)",
			'-c', "CALL play(clock_timestamp() + interval '4 s')"
		],
		'<', \undef, '>', \$out, '2>', \$err);
	push @run, [ $h, \$err ];
}
for (@run)
{
	IPC::Run::finish($_->[0]);
	is(${ $_->[1] }, '', 'a session met no two at once, and none out of order');
}

# What is left can be consumed, in order, by one session.
my $left = $node->safe_psql('postgres', 'SELECT count(*) FROM mq.q_s');
note "$left left of "
  . $node->safe_psql('postgres', q{SELECT sum(n) FROM done WHERE what = 'made'});
$node->safe_psql('postgres', q{
TRUNCATE held;
DO $$
DECLARE
    m mq.message;
    n bigint := 0;
    r bigint;
BEGIN
    LOOP
        r := 0;
        FOR m IN SELECT * FROM mq.dequeue('s', 20, wait => '1 s') LOOP
            PERFORM delivered(m);
            r := r + mq.ack('s', m.id, m.receipt)::int;
        END LOOP;
        EXIT WHEN r = 0;
        DELETE FROM held;
        n := n + r;
        COMMIT;
    END LOOP;
    INSERT INTO done VALUES ('gone', n);
END $$;
});
is($node->safe_psql('postgres', 'SELECT count(*) FROM mq.q_s'), 0, 'no message is left behind its key');
is( $node->safe_psql('postgres', q{
SELECT sum(n) FILTER (WHERE what = 'made') = sum(n) FILTER (WHERE what = 'gone') + (SELECT count(*) FROM mq.q_s_dead) FROM done}),
	't', 'each message was consumed or died once');
cmp_ok($node->safe_psql('postgres', q{SELECT sum(n) FROM done WHERE what = 'gone'}), '>', 500, 'there was something to do');

$node->stop;
done_testing();
