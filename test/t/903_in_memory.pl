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
