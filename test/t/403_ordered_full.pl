# Keys that wait, with messages behind them, take room.  With none left a
# dequeue returns what fits, 53400 if that is nothing, and the keys that are
# kept track of go on and make room.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main', conf => "mq.max_in_flight = 128\n");

$node->safe_psql('postgres', q{
SELECT mq.create_queue('o', ordered => true, lease => '1 hour');
SELECT mq.enqueue('o', to_jsonb(j), key => 'k' || i) FROM generate_series(1, 200) i, generate_series(1, 2) j ORDER BY i, j;
-- The first of each key fails and has to wait; the second is met, and waits behind it.
CREATE PROCEDURE fail_all(INOUT n integer DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
	m mq.message[];
BEGIN
	LOOP
		m := ARRAY(SELECT d FROM mq.dequeue('o', 20) d);
		EXIT WHEN cardinality(m) = 0;
		COMMIT;
		PERFORM mq.nack('o', d.id, d.receipt, delay => '1 hour') FROM unnest(m) d;
		n := n + cardinality(m);
		COMMIT;
	END LOOP;
END $$;
});
my ($rc, $out, $err) = $node->psql('postgres', q{\set VERBOSITY sqlstate
CALL fail_all()});
like($err, qr/53400/, 'a dequeue that finds no room for a key raises 53400');
my $failed = $node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_o WHERE attempts = 1});
cmp_ok($failed, '>=', 100, 'after many keys');
cmp_ok($failed, '<=', 128, '... but not after all');
is(error_of($node, q{SELECT mq.dequeue('o', 10)}), '53400', 'again');

# A key that is kept track of is still served, and its end makes room.
$node->safe_psql('postgres', q{UPDATE mq.q_o SET ready_at = NULL WHERE key IN ('k1', 'k2')});
is($node->safe_psql('postgres', q{SELECT string_agg(key || body, ' ' ORDER BY id) FROM mq.dequeue('o', 2, auto_ack => true)}),
	'k11 k21', 'keys that are known are served');
is($node->safe_psql('postgres', q{SELECT string_agg(key || body, ' ' ORDER BY id) FROM mq.dequeue('o', 2, auto_ack => true)}),
	'k12 k22', '... to their end');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('o', 1)}), 1, 'which makes room for another');

# Nothing is lost: with the waiting called back, all is consumed in order.
$node->safe_psql('postgres', q{
UPDATE mq.q_o SET ready_at = NULL WHERE ready_at IS NOT NULL;
SELECT mq.release('o', id, receipt) FROM mq.in_flight WHERE queue = 'o';
CREATE TABLE got (n bigserial, id bigint, key text);
DO $$
DECLARE
	n integer;
BEGIN
	LOOP
		INSERT INTO got (id, key) SELECT m.id, m.key FROM mq.dequeue('o', 10, auto_ack => true) m;
		GET DIAGNOSTICS n = ROW_COUNT;
		EXIT WHEN n = 0;
		COMMIT;
	END LOOP;
END $$});
is($node->safe_psql('postgres', q{SELECT count(*), (SELECT count(*) FROM mq.q_o) FROM got}), '396|0', 'all are consumed');
is( $node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT id < lag(id) OVER (PARTITION BY key ORDER BY n) AS wrong FROM got) g WHERE wrong}),
	0, '... in order');

# Long keys take more of the room and give all of it back.
for my $round (1 .. 5)
{
	$node->safe_psql('postgres', q{SELECT mq.enqueue('o', '1', key => repeat('x', 990) || i) FROM generate_series(1, 12) i});
	is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('o', 12, auto_ack => true)}), 12, "long keys, round $round");
}

$node->stop;
done_testing();
