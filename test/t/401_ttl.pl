# Messages expire by themselves: with nobody dequeuing, after a restart and a
# crash, with the vacuum horizon pinned, without a worker, when prepared
# transactions end, and when the clock is set.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = mq_node('main', conf => "autovacuum = off\n");

$node->safe_psql('postgres', q{SELECT mq.create_queue('q', ttl => '1 hour')});
wait_for_worker($node);

sub dead
{
	my ($queue, $more) = @_;
	return "SELECT count(*) $more FROM mq.q_${queue}_dead";
}

# Seconds from a row's time to its dead letter's, the greatest of all.
sub lag
{
	my ($queue) = @_;
	return $node->safe_psql('postgres', qq{
SELECT round(extract(epoch FROM max(d.enqueued_at - e.at)) * 1000)
FROM mq.q_${queue}_dead d JOIN expiring e ON e.id = (d.headers -> 'x-death' -> 0 ->> 'id')::bigint});
}

# Within a second, with nobody about.
$node->safe_psql('postgres', q{
CREATE TABLE expiring (id bigint, at timestamptz);
SELECT mq.enqueue('q', to_jsonb(n), ttl => n * interval '150 ms') FROM generate_series(1, 10) n;
INSERT INTO expiring SELECT id, expires_at FROM mq.q_q});
wait_until($node, dead('q', '= 10'), 'expired messages are moved with nobody dequeuing');
cmp_ok(lag('q'), '<', 1000, 'each within a second');
is($node->safe_psql('postgres', dead('q', q{FILTER (WHERE headers -> 'x-death' -> 0 ->> 'reason' = 'expired')})),
	10, 'as expired');

# Restart and crash: nobody has touched the queue since.
for my $mode ('fast', 'immediate')
{
	$node->safe_psql('postgres', q{TRUNCATE mq.q_q_dead;
SELECT mq.enqueue('q', to_jsonb(n), ttl => '1 ms') FROM generate_series(1, 5) n;
SELECT mq.enqueue('q', '"later"', ttl => '1 second')});
	stop_and_start($node, $mode);
	wait_until($node, dead('q', '= 6'), "after a $mode shutdown they are moved");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_q}), 0, 'all of them');
}

# Prepared transactions: their rows expire before and after they end, also when
# a restart lies between.
for my $restart (0, 1)
{
	$node->safe_psql('postgres', q{TRUNCATE mq.q_q_dead;
SELECT mq.enqueue('q', '"locked"', ttl => '400 ms');
BEGIN; SELECT mq.enqueue('q', to_jsonb(n), ttl => '1 ms') FROM generate_series(1, 3) n;
PREPARE TRANSACTION 'rows';
BEGIN; SELECT mq.enqueue('q', '"never"', ttl => '1 ms'); PREPARE TRANSACTION 'undone';
BEGIN; DELETE FROM mq.q_q WHERE body = '"locked"'; PREPARE TRANSACTION 'delete';
SELECT mq.enqueue('q', '"mark"', ttl => '500 ms')});
	wait_until($node, dead('q', '= 1'), 'others are moved while rows are in prepared transactions');
	$node->restart if $restart;
	$node->safe_psql('postgres', q{COMMIT PREPARED 'rows'});
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'undone'});
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'delete'});
	wait_until($node, dead('q', '= 5'), 'their rows are moved when they have ended' . ($restart ? ', over a restart' : ''));
	is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_q}), 0, 'none is left');
}

# The horizon pinned, 100,000 in all, in portions: each look begins where the
# one before it ended, not at the dead entries.
my $pin = session($node);
$pin->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM mq.q_q');
$node->safe_psql('postgres', q{SELECT mq.create_queue('pinned', dead_letter => '')});
for my $portion (1 .. 5)
{
	$node->safe_psql('postgres', q{
SELECT count(*) FROM mq.enqueue_batch('pinned', array_fill('1'::jsonb, '{20000}'), ttl => '1 ms')});
	wait_until($node, q{SELECT NOT EXISTS (SELECT FROM mq.q_pinned)}, "portion $portion");
}
my ($examined, $dead) = split /\|/,
  $node->safe_psql('postgres', q{SELECT rows_examined, dead FROM mq.stats WHERE queue = 'pinned'});
is($dead, 100_000, 'all of them moved, or dropped here');
cmp_ok($examined, '<', 500_000, 'at most five rows examined for each, with the horizon pinned');

# The same time for all.
$node->safe_psql('postgres', q{SELECT mq.create_queue('same', dead_letter => '');
INSERT INTO mq.q_same (body, expires_at) SELECT '1', '2000-01-01' FROM generate_series(1, 30000)});
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM mq.q_same)}, 'many of one time');
is($node->safe_psql('postgres', q{SELECT dead, rows_examined < 150000 FROM mq.stats WHERE queue = 'same'}),
	'30000|t', 'are each examined a few times');

# A locked one in front of them, and leased ones among them, keep none.
$node->safe_psql('postgres', q{SELECT mq.create_queue('mixed');
SELECT count(*) FROM mq.enqueue_batch('mixed', array_fill('1'::jsonb, '{2000}'), ttl => '1 second')});
my $locker = session($node);
$locker->query_safe('BEGIN; SELECT count(*) FROM (SELECT FROM mq.q_mixed WHERE id <= 300 FOR UPDATE) s');
my $receipt = $node->safe_psql('postgres', q{SELECT min(receipt) FROM mq.dequeue('mixed', 100, lease => '1 hour')});
wait_until($node, dead('mixed', '= 1600'), 'neither locked nor leased ones keep the others');
is($node->safe_psql('postgres', qq{
SELECT mq.ack_batch('mixed', array_agg(id), '{$receipt}') FROM mq.in_flight WHERE queue = 'mixed'}),
	100, 'leased ones are acknowledged');
$locker->query_safe('ROLLBACK');
wait_until($node, dead('mixed', '= 1900'), 'the locked ones follow');
is($node->safe_psql('postgres', q{SELECT ready, delayed, in_flight, exact FROM mq.stats WHERE queue = 'mixed'}),
	'0|0|0|t', 'the counters say so');
$_->quit for $pin, $locker;

# A dead-letter queue that cannot be written: nothing is lost, and it is tried again.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('odd', dead_letter => 'odd_dead');
ALTER TABLE mq.q_odd_dead ADD CONSTRAINT no CHECK (body <> '2')});
my $offset = -s $node->logfile;
$node->safe_psql('postgres', q{
SELECT count(*) FROM mq.enqueue_batch('odd', '{1,2,3,4}', ttl => '1 ms')});
wait_until($node, dead('odd', '= 3'), 'one that the dead-letter queue refuses does not keep the others');
$node->wait_for_log(qr/queue "odd": could not move expired messages to the dead letters/, $offset);
is($node->safe_psql('postgres', q{SELECT body FROM mq.q_odd}), '2', 'and stays');

# All at once: each message is consumed or dead, one of them, and none is
# delivered when its time is over.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('busy', backoff => '5 ms', max_attempts => 4, lease => '30 ms');
CREATE TABLE consumed (n bigint);
CREATE TABLE too_late (n bigint, expired timestamptz, at timestamptz);
CREATE SEQUENCE number;
CREATE PROCEDURE produce(transactions int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. transactions LOOP
		PERFORM mq.enqueue('busy', to_jsonb(nextval('number')), ttl => random() * interval '200 ms',
			delay => CASE WHEN random() < 0.2 THEN interval '20 ms' END, priority => (random() * 2)::int) FROM generate_series(1, 5);
		IF random() < 0.1 THEN
			PERFORM pg_sleep(0.05);		-- some have expired when they commit
		END IF;
		COMMIT;
	END LOOP;
END $$;
CREATE PROCEDURE consume(until timestamptz) LANGUAGE plpgsql AS $$
DECLARE
	start timestamptz;
	kind int;
	m mq.message;
BEGIN
	WHILE clock_timestamp() < until LOOP
		start := clock_timestamp();
		kind := floor(random() * 8);
		FOR m IN SELECT * FROM mq.dequeue('busy', 3, auto_ack => kind < 3) LOOP
			IF m.expires_at <= start THEN
				INSERT INTO too_late VALUES ((m.body)::bigint, m.expires_at, start);
			END IF;
			IF kind < 3 THEN
				INSERT INTO consumed VALUES ((m.body)::bigint);
			ELSIF kind = 3 THEN
				PERFORM mq.nack('busy', m.id, m.receipt);
			ELSIF kind = 4 THEN
				PERFORM mq.release('busy', m.id, m.receipt);
			END IF;
		END LOOP;
		IF kind IN (2, 5) THEN ROLLBACK; ELSE COMMIT; END IF;
		PERFORM FROM mq.q_busy WHERE random() < 0.05 LIMIT 3 FOR UPDATE SKIP LOCKED;
		COMMIT;
	END LOOP;
END $$});
my @sessions = map { session($node) } 1 .. 5;
start_query($sessions[$_], 'CALL produce(300)') for 0, 1;
start_query($sessions[$_], q{CALL consume(clock_timestamp() + '2 seconds')}) for 2 .. 4;
my $errors = join '', map { my (undef, $err) = finish_query($_); $_->quit; $err =~ /ERROR/ ? $err : '' } @sessions;
is($errors, '', 'producers and consumers');
wait_until($node, 'SELECT NOT EXISTS (SELECT FROM mq.q_busy)', 'in the end the queue is empty');
is($node->safe_psql('postgres', q{
WITH ended AS (SELECT n FROM consumed UNION ALL SELECT body::bigint FROM mq.q_busy_dead)
SELECT count(*), count(DISTINCT n) FROM ended}), '3000|3000', 'each message was consumed or died, once');
is($node->safe_psql('postgres', 'SELECT count(*) FROM too_late'), 0, 'none was delivered after its time');
is($node->safe_psql('postgres', q{SELECT ready, delayed, in_flight FROM mq.stats WHERE queue = 'busy'}), '0|0|0', 'and none is counted any more');

# The clock: forwards they expire, backwards they don't, and new ones do.
$node->safe_psql('postgres', q{SELECT mq.create_queue('clock');
SELECT mq.enqueue('clock', '"a"', ttl => '30 minutes')});
sub set_clock
{
	my ($by) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET mq.test_clock_offset = '$by'");
	$node->reload;
	return wait_until($node, qq{SELECT (current_setting('mq.test_clock_offset') ||
		CASE WHEN current_setting('mq.test_clock_offset') ~ '^-' THEN 'ms' ELSE '' END)::interval = '$by'}, "the clock is off by $by");
}
set_clock('1h');
$node->safe_psql('postgres', q{SELECT mq.enqueue('clock', '"wake"', ttl => '1 ms')});
wait_until($node, dead('clock', '= 2'), 'forwards: expired');
set_clock('0');
$node->safe_psql('postgres', q{SELECT mq.enqueue('clock', '"b"', ttl => '1 second');
SELECT mq.enqueue('clock', '"c"', ttl => '10 minutes')});
wait_until($node, dead('clock', '= 3'), 'backwards: new ones expire in their time');
is($node->safe_psql('postgres', q{SELECT body FROM mq.dequeue('clock', 5)}), '"c"', 'and not before');
$node->stop;

# Without a worker whoever dequeues does it.
$node = mq_node('alone', conf => "max_worker_processes = 1\nautovacuum = off\n");
$node->safe_psql('postgres', q{SELECT mq.create_queue('q');
SELECT count(*) FROM mq.enqueue_batch('q', array_fill('"old"'::jsonb, '{250}'), ttl => '1 ms');
SELECT mq.enqueue('q', '"new"')});
my @got = map { $node->safe_psql('postgres', q{SELECT body FROM mq.dequeue('q')}) } 1 .. 4;
is("@got", '"new"   ', 'without a worker expired ones are not delivered');
is($node->safe_psql('postgres', 'SELECT count(*) FROM mq.q_q_dead'), 250, 'and moved by those who dequeue');
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"lost"', ttl => '1 ms')});
usleep(200_000);				# they do not look more often than ten times a second
is($node->safe_psql('postgres', q{BEGIN; SELECT mq.dequeue('q'); SELECT count(*) FROM mq.q_q WHERE body = '"lost"'; ROLLBACK}),
	0, 'one of them rolls back');
wait_until($node, q{SELECT 251 = (SELECT count(*) FROM mq.q_q_dead) + 0 * (SELECT count(*) FROM mq.dequeue('q'))},
	'the next one does it again');

# A transaction that has deleted or changed an expired message looks for such ones, and rolls back.
for my $own (q{DELETE FROM mq.q_q}, q{UPDATE mq.q_q SET headers = '{}'})
{
	$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"own"', ttl => '1 ms')});
	usleep(200_000);
	$node->safe_psql('postgres', qq{BEGIN; $own; SELECT mq.dequeue('q'); ROLLBACK});
	wait_until($node, q{SELECT 0 = (SELECT count(*) FROM mq.q_q WHERE body = '"own"') + 0 * (SELECT count(*) FROM mq.dequeue('q'))},
		'it is moved by the next one');
}

# In a queue of limited length those who enqueue do it, too: what has expired makes room, before what has not.
for my $overflow ('reject', 'drop_head')
{
	$node->safe_psql('postgres', qq{SELECT mq.create_queue('full', max_length => 4, overflow => '$overflow');
SELECT mq.enqueue('full', '"live"');
SELECT count(*) FROM mq.enqueue_batch('full', '{1,2,3}', ttl => '1 ms')});
	is($node->safe_psql('postgres', q{BEGIN; SELECT mq.enqueue('full', '"a"') > 0; ROLLBACK; SELECT count(*) FROM mq.q_full}),
		"t\n4", "$overflow: what a rollback brings back is there");
	usleep(200_000);
	is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('full', 9)}), 1, '... and not delivered');
	$node->safe_psql('postgres', q{SELECT mq.release('full', id, receipt) FROM mq.in_flight WHERE queue = 'full'});
	wait_until($node, q{SELECT 3 = (SELECT count(*) FROM mq.q_full_dead) + 0 * (SELECT count(mq.release(queue, id, receipt)) FROM mq.dequeue('full'))},
		'... but moved') if $overflow eq 'drop_head';
	$node->safe_psql('postgres', q{TRUNCATE mq.q_full, mq.q_full_dead; SELECT mq.enqueue('full', '"live"');
SELECT count(*) FROM mq.enqueue_batch('full', '{1,2,3}', ttl => '1 ms')});
	is($node->safe_psql('postgres', q{BEGIN; SELECT mq.enqueue('full', '"b"') > 0; SELECT count(*) FROM mq.enqueue_batch('full', '{8,9}'); COMMIT}),
		"t\n2", "$overflow: three for three that have expired");
	is($node->safe_psql('postgres', q{SELECT string_agg(body::text, ' ' ORDER BY id) FROM mq.q_full;
SELECT DISTINCT headers -> 'x-death' -> 0 ->> 'reason' FROM mq.q_full_dead}), qq{"live" "b" 8 9\nexpired}, '... and the live one stays');
	$node->safe_psql('postgres', q{SELECT mq.drop_queue('full'); SELECT mq.drop_queue('full_dead')});
}

# Who moves expired rows says up to what time, and who has a clock that is behind
# goes by that: a row that is about to be moved is not delivered. The mover is
# held at the row before it.
$node->safe_psql('postgres', q{SELECT mq.create_queue('behind');
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.body = '1' THEN
		PERFORM pg_advisory_xact_lock(7);
	END IF;
	RETURN OLD;
END $$;
CREATE TRIGGER hold BEFORE DELETE ON mq.q_behind FOR EACH ROW EXECUTE FUNCTION hold();
SELECT mq.enqueue('behind', to_jsonb(n), ttl => '1 ms') FROM generate_series(1, 2) n;
SELECT mq.enqueue('behind', '3', ttl => '1 day')});
my ($holder, $mover) = map { session($node) } 1 .. 2;
$holder->query_safe('SELECT pg_advisory_lock(7)');
start_query($mover, q{SELECT body FROM mq.dequeue('behind')});
wait_until($node, q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)}, 'the mover is held');
set_clock('-1h');
is($node->safe_psql('postgres', q{SELECT body FROM mq.dequeue('behind', 5)}), '3', 'what somebody is moving is not delivered');
$holder->query_safe('SELECT pg_advisory_unlock(7)');
finish_query($mover);
wait_until($node, dead('behind', '= 2'), 'but moved');
$_->quit for $holder, $mover;
$node->stop;

done_testing();
