# Rows that other transactions hold: whatever they hold, the rest is delivered,
# and what they held comes back, wherever an UPDATE has put it meanwhile.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');
my $db = 'postgres';

sub sql { return $node->safe_psql($db, shift) }

# 1. one transaction holds more rows of a priority than the blocked list has entries
sql(q{
SELECT mq.create_queue('held');
SELECT count(*) FROM mq.enqueue_batch('held', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 300) i), priority => 5);
SELECT count(*) FROM mq.enqueue_batch('held', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 20) i));
});
my $one = session($node);
my $two = session($node);
$one->query_safe('BEGIN; SELECT count(*) FROM (SELECT 1 FROM mq.q_held WHERE priority = 5 AND id % 3 = 0 FOR UPDATE) h');
$two->query_safe('BEGIN; SELECT count(*) FROM (SELECT 1 FROM mq.q_held WHERE priority = 0 ORDER BY id LIMIT 1 FOR UPDATE) h');
is(sql(q{SELECT count(*) FROM mq.dequeue('held', 1000, auto_ack => true)}), 219, 'all that nobody holds is delivered');
$one->query_safe('COMMIT');
is(sql(q{SELECT count(*) FROM mq.dequeue('held', 1000, auto_ack => true, wait => '10 s')}), 100, 'then what one held');
$two->query_safe('ROLLBACK');
is(sql(q{SELECT count(*) FROM mq.dequeue('held', 1000, auto_ack => true, wait => '10 s')}), 1, '… and the other');

# 2. UPDATEs that move rows between lanes while consumers look at them
sql(q{
SELECT mq.create_queue('moved', backoff => '0', max_attempts => 0);
CREATE TABLE got (id bigint);
SELECT count(*) FROM mq.enqueue_batch('moved', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 6000) i));
});
my $dir = $node->basedir;
PostgreSQL::Test::Utils::append_to_file("$dir/move.sql", q{
\set p random(0, 9)
\set at random(1, 5900)
BEGIN;
UPDATE mq.q_moved SET priority = :p, ready_at = CASE WHEN random() < 0.3 THEN now() + random() * '20 ms'::interval END
 WHERE id IN (SELECT id FROM mq.q_moved WHERE id >= :at ORDER BY id LIMIT 15 FOR UPDATE SKIP LOCKED);
COMMIT;
});
PostgreSQL::Test::Utils::append_to_file("$dir/take.sql", q{
\set n random(1, 12)
\set r random(1, 10)
BEGIN;
INSERT INTO got SELECT id FROM mq.dequeue('moved', :n, auto_ack => true);
\if :r > 8
ROLLBACK;
\else
COMMIT;
\endif
});
$node->command_ok(['pgbench', '-n', '-c', 6, '-j', 2, '-t', 200, '-f', "$dir/move.sql\@1", '-f', "$dir/take.sql\@1",
	'-h', $node->host, '-p', $node->port, $db], 'rows are moved and taken at once');
wait_until($node, q{WITH m AS (INSERT INTO got SELECT id FROM mq.dequeue('moved', 500, auto_ack => true) RETURNING 1)
	SELECT count(*) = 0 AND NOT EXISTS (SELECT FROM mq.q_moved) FROM m});
is(sql('SELECT count(*), count(DISTINCT id) FROM got'), '6000|6000', 'each is delivered once');

# 3. a lane that somebody scans is not empty for the others
sql(q{
SELECT mq.create_queue('due');
SELECT count(*) FROM mq.enqueue_batch('due', (SELECT array_agg(to_jsonb(i)) FROM generate_series(1, 20000) i), deliver_at => now() - interval '1 minute');
CREATE TABLE empty (n int);
});
PostgreSQL::Test::Utils::append_to_file("$dir/due.sql", q{
INSERT INTO empty SELECT 1 FROM (SELECT count(*) AS n FROM mq.dequeue('due', auto_ack => true)) d WHERE n = 0;
});
$node->command_ok(['pgbench', '-n', '-c', 6, '-j', 2, '-t', 1000, '-f', "$dir/due.sql",
	'-h', $node->host, '-p', $node->port, $db], 'six consumers share a lane of due messages');
is(sql('SELECT count(*) FROM empty'), 0, '… and none is told that it is empty');

# 4. a failure that can't be written yet does not keep the worker busy
sql(q{SELECT mq.create_queue('busy', backoff => '0'); SELECT mq.enqueue('busy', '1'); SELECT mq.enqueue('busy', '2')});
$one->query_safe(q{SELECT count(*) FROM mq.dequeue('busy', lease => '1 hour')});
$one->query_safe(q{BEGIN; SELECT count(*) FROM mq.dequeue('busy'); ROLLBACK});
$two->query_safe('BEGIN; SELECT count(*) FROM (SELECT 1 FROM mq.q_busy FOR UPDATE) h');
my $ticks = q{SELECT split_part(regexp_replace(pg_read_file('/proc/' || pid || '/stat'), '^.*\) ', ''), ' ', 12)::bigint
	FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = current_database()};
my $before = sql($ticks);
sql('SELECT pg_sleep(2)');      # what is measured is the time itself
cmp_ok(sql($ticks) - $before, '<', 50, 'the worker used less than half a second of two');
$two->query_safe('ROLLBACK');

$_->quit for $one, $two;
$node->stop;
done_testing();
