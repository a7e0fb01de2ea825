# What only the lease table knows, with no worker to write it into rows: failures are
# delivered again from memory, also to those who do not wait, and stay counted
# whatever becomes of the next delivery; a lease that nobody saw end has ended; and
# receipts grow, whatever the clock does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

# The logical replication launcher takes the slot.
my $node = mq_node('main', conf => "max_worker_processes = 1\nmq.max_in_flight = 128");
my $s = session($node);

sub sql { return $s->query_safe(shift) }

sql(q{SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 9)});
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker'}), 0, 'there is no worker');

sql(q{SELECT mq.enqueue('q', '1')});
is(sql(q{SELECT attempt FROM mq.dequeue('q')}), 1, 'the only message is delivered');
is(sql(q{SELECT count(*) FROM mq.dequeue('q')}), 0, '... and the queue is empty');
is(sql(q{SELECT mq.release('q', id, receipt) FROM mq.in_flight}), 't', 'released');
is(sql(q{BEGIN; SELECT attempt FROM mq.dequeue('q'); ROLLBACK}), 1, 'delivered, and rolled back');
is(sql(q{SELECT attempts FROM mq.q_q}), 0, '... which no row says');
is(sql(q{SELECT attempt FROM mq.dequeue('q')}), 2, '... is found at once by who does not wait');
is(sql(q{SELECT mq.release('q', id, receipt) FROM mq.in_flight}), 't', 'a release');
is(sql(q{SELECT attempt FROM mq.dequeue('q')}), 2, '... forgets no failure before it');
is(sql(q{BEGIN; SELECT mq.ack('q', id, receipt) FROM mq.in_flight; ROLLBACK; SELECT mq.release('q', id, receipt) FROM mq.in_flight}), "t\nt",
	'an ack that rolls back, a release');
is(sql(q{SELECT attempt FROM mq.dequeue('q')}), 2, '... neither');
is(sql(q{SELECT mq.nack('q', id, receipt, '0', 'mine') FROM mq.in_flight}), 't', 'a nack');
is(sql(q{SELECT attempts FROM mq.q_q}), 2, '... writes both into the row');
is(sql(q{SELECT attempt, last_error FROM mq.dequeue('q')}), '3|mine', '... as the next delivery says');
is(sql(q{SELECT mq.ack('q', id, receipt) FROM mq.in_flight}), 't', 'acknowledged');

# It comes in its place: before what has not failed, behind what has a higher priority.
sql(q{SELECT mq.enqueue('q', to_jsonb(n)) FROM generate_series(1, 3) n});
is(sql(q{BEGIN; SELECT body FROM mq.dequeue('q'); ROLLBACK}), 1, 'the first of three is rolled back');
sql(q{SELECT mq.enqueue('q', '"high"', priority => 9)});
is(join(' ', lines(sql(q{SELECT body, attempt FROM mq.dequeue('q', 10, auto_ack => true)}))), '"high"|1 1|2 2|1 3|1', '... and comes before the others');

# Among themselves by priority, then by the time they came due; so too among the rows of
# that priority which have a time.
sub drain { return join ' ', map { s/\|/:/r } lines(sql(q{SELECT body #>> '{}', attempt FROM mq.dequeue('q', 100, auto_ack => true)})) }
sub rolled_back { sql("BEGIN; SELECT count(*) FROM mq.dequeue('q', $_[0]); ROLLBACK") }

sql(q{SELECT mq.enqueue('q', '"low"')});
rolled_back(1);
sql(q{SELECT mq.enqueue('q', '"high"', priority => 9), mq.enqueue('q', '"high too"', priority => 9)});
rolled_back(2);
is(drain(), 'high:2 high too:2 low:2', 'failed later, but of a higher priority');
sql(q{SELECT mq.enqueue('q', '"failed"', priority => 5)});
rolled_back(1);
sql(q{SELECT mq.enqueue('q', '"before"', priority => 5, deliver_at => now() - interval '1 hour'),
	mq.enqueue('q', '"nacked"', priority => 7), mq.enqueue('q', '"fresh"', priority => 5)});
sql(q{SELECT mq.nack('q', id, receipt, '0') FROM mq.dequeue('q')});
sql(q{UPDATE mq.q_q SET priority = 5 WHERE body = '"nacked"'});
is(drain(), 'before:1 failed:2 nacked:2 fresh:1', '... between those that came due before and after');
sql(q{SELECT mq.enqueue('q', '"failed"', priority => 5, headers => '{"a": 1}')});
rolled_back(1);
sql(q{SELECT mq.enqueue('q', '"before"', priority => 5, headers => '{"a": 1}', deliver_at => now() - interval '1 hour')});
is(join(' ', lines(sql(q{SELECT body FROM mq.dequeue('q', 2, match => '{"a": 1}', auto_ack => true)}))), '"before" "failed"', '... with match');
sql(q{SELECT mq.enqueue('q', to_jsonb(n), deliver_at => now() - n * interval '1 hour') FROM generate_series(1, 4) n});
rolled_back(4);
is(drain(), '4:2 3:2 2:2 1:2', 'failed together, they come in the order they came in');

# What is released goes back to its place; what is moved, to where it was moved.
sql(q{SELECT mq.enqueue_batch('q', '{1,2,3}')});
rolled_back(3);
sql(q{SELECT * FROM mq.dequeue('q', 2)});
sql(q{SELECT mq.release('q', id, receipt) FROM mq.in_flight ORDER BY id DESC});
is(sql(q{SELECT body FROM mq.dequeue('q', auto_ack => true)}), 1, 'released, a failed message is the first again');
sql(q{UPDATE mq.q_q SET priority = 3 WHERE body = '3'});
is(sql(q{SELECT body FROM mq.dequeue('q', auto_ack => true)}), 3, 'its priority raised, another one is');
sql(q{SELECT mq.enqueue('q', '"b"', deliver_at => now() - interval '1 hour')});
sql(q{UPDATE mq.q_q SET ready_at = now() - interval '2 hours' WHERE body = '2'});
is(drain(), '2:2 b:1', 'made due before others, it comes before them');

# What the same transaction has deleted or changed is not gone: its failures are not forgotten.
for my $how (q{DELETE FROM mq.q_q}, q{UPDATE mq.q_q SET headers = '{}'})
{
	sql(q{SELECT mq.enqueue('q', '"f"')});
	rolled_back(1);
	is(sql("BEGIN; $how; SELECT count(*) FROM mq.dequeue('q'); ROLLBACK"), 0, "not delivered to who has it in hand: $how");
	is(sql(q{SELECT attempt FROM mq.dequeue('q', auto_ack => true)}), 2, '... the failure before is still counted, and it comes at once');
}
sql(q{SELECT mq.enqueue('q', '"f"')});
rolled_back(1);
sql(q{BEGIN; UPDATE mq.q_q SET headers = '{}'; SELECT count(*) FROM mq.dequeue('q'); COMMIT});
is(drain(), 'f:2', '... also if it commits');
my $deleter = session($node);
sql(q{SELECT mq.enqueue('q', '"f"')});
rolled_back(1);
$deleter->query_safe(q{BEGIN; DELETE FROM mq.q_q});
is(drain(), '', 'another deletes it: not delivered');
$deleter->query_safe('ROLLBACK');
$deleter->quit;
is(drain(), 'f:2', '... delivered as soon as he has not');

# Room is made by dropping the oldest of the lowest priority, failed ones too.
sql(q{SELECT mq.create_queue('l', max_length => 3, overflow => 'drop_head', backoff => '0')});
sql(q{SELECT mq.enqueue_batch('l', '{1,2}')});
sql(q{BEGIN; SELECT count(*) FROM mq.dequeue('l'); ROLLBACK});
sql(q{SELECT mq.enqueue('l', '3', priority => 5)});
sql(q{SELECT mq.enqueue('l', '4')});
is(sql(q{SELECT string_agg(body::text, ' ' ORDER BY id) FROM mq.q_l}), '2 3 4', 'the failed one is dropped first');

# A retry that meets a row somebody holds comes when that one has ended.
sql(q{SELECT mq.enqueue('q', '"held"')});
my $holder = session($node);
is(sql(q{BEGIN; SELECT attempt FROM mq.dequeue('q'); ROLLBACK}), 1, 'delivered, and rolled back');
$holder->query_safe(q{BEGIN; SELECT FROM mq.q_q FOR UPDATE});
is(sql(q{SELECT count(*) FROM mq.dequeue('q')}), 0, '... while somebody holds the row it is not delivered');
$holder->query_safe('COMMIT');
$holder->quit;
is(sql(q{SELECT attempt FROM mq.dequeue('q', wait => '20 s', auto_ack => true)}), 2, '... then it is, counted');

# Each verb is too late for a lease whose time is over, though nobody has looked.
for my $verb ("ack('q', %s)", "nack('q', %s)", "reject('q', %s)", "release('q', %s)", "extend('q', %s, '1 hour')")
{
	sql(q{SELECT mq.enqueue('q', '1')});
	my $args = sql(q{SELECT concat_ws(', ', id, receipt) FROM mq.dequeue('q', lease => '50 ms')});
	sql('SELECT pg_sleep(0.1)');      # the time itself is what ends it
	my $call = sprintf $verb, $args;
	is(sql("SELECT mq.$call"), 'f', "too late: $verb");
	is(sql(q{SELECT attempt FROM mq.dequeue('q', auto_ack => true)}), 2, '... the message comes again');
}

# One queue has at most half of the table.
sql(q{SELECT mq.create_queue('many', dead_letter => '', lease => '1 hour');
SELECT count(mq.enqueue('many')) FROM generate_series(1, 100)});
is(sql(q{SELECT count(*) FROM mq.dequeue('many', 100)}), 64, 'half of the lease table for one queue');
is(sql(q{SELECT mq.ack_batch('many', array_agg(id), array_agg(receipt)) FROM mq.in_flight}), 64, 'acknowledged');

# Receipts grow though the clock goes back.
sql(q{SELECT mq.enqueue_batch('q', '{1,2,3}')});
my $before = sql(q{SELECT receipt FROM mq.dequeue('q')});
$node->safe_psql('postgres', q{ALTER SYSTEM SET mq.test_clock_offset = '-1h'});
$node->reload;
wait_until($node, q{SELECT current_setting('mq.test_clock_offset') <> '0'}, 'the clock goes back');
for (1 .. 100)
{
	last if sql(q{SELECT current_setting('mq.test_clock_offset')}) ne '0';
	select(undef, undef, undef, 0.1);
}
isnt(sql(q{SHOW mq.test_clock_offset}), '0', '... for this session');
cmp_ok(sql(q{SELECT receipt FROM mq.dequeue('q')}), '>', $before, 'receipts grow');
is(sql(q{SELECT count(DISTINCT receipt) FROM mq.in_flight}), 2, '... and are different');
my $last = sql(q{SELECT max(receipt) FROM mq.in_flight});
$s->quit;
for my $mode ('fast', 'immediate')
{
	stop_and_start($node, $mode);
	my $next = $node->safe_psql('postgres', q{
		SELECT mq.enqueue('q', '1'); SELECT receipt FROM mq.dequeue('q', wait => '10 s')});
	$next = (lines($next))[-1];
	cmp_ok($next, '>', $last, "... over a stop ($mode), too");
	$last = $next;
}

$node->stop;
done_testing();
