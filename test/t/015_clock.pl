# Somebody sets the clock by an hour, forwards and back: leases and waits last
# as long as they were meant to, delays follow the wall clock, nothing is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');

$node->safe_psql('postgres', q{
SELECT mq.create_queue('orders', lease => '5 minutes', backoff => '30 minutes');
SELECT mq.create_queue('empty');
SELECT mq.enqueue('orders', to_jsonb(n)) FROM generate_series(1, 3) n;
SELECT mq.enqueue('orders', '"later"', delay => '30 minutes');
});
wait_for_worker($node);

sub set_clock
{
	my ($by) = @_;
	$node->safe_psql('postgres', "ALTER SYSTEM SET mq.test_clock_offset = '$by'");
	$node->reload;
	my $shown = $by eq '-1h' ? -3600_000 : $by;
	return wait_until($node, "SELECT current_setting('mq.test_clock_offset') = '$shown'", "the clock is off by $by");
}

my $receipt = $node->safe_psql('postgres', q{SELECT max(receipt) FROM mq.dequeue('orders', 3)});
my $deadline = $node->safe_psql('postgres', q{SELECT min(lease_until) FROM mq.in_flight});

is($node->safe_psql('postgres', q{SELECT delayed FROM mq.stats WHERE queue = 'orders'}), 1, 'one is delayed');
set_clock('1h');
is($node->safe_psql('postgres', q{SELECT ready, delayed FROM mq.stats WHERE queue = 'orders'}), '1|0', 'forwards: it is counted as ready');
is($node->safe_psql('postgres', q{SELECT id, attempt FROM mq.dequeue('orders', 10)}),
	'4|1', 'forwards: no lease ends, a delay does');
is($node->safe_psql('postgres', qq{
		SELECT min(lease_until) - '$deadline' BETWEEN '59 minutes' AND '61 minutes' FROM mq.in_flight}),
	't', 'the leases are shown as they will end by the new clock');
is($node->safe_psql('postgres', qq{SELECT mq.ack('orders', 1, $receipt)}), 't', 'and can be settled');
$node->restart;
is($node->safe_psql('postgres', qq{
		SELECT count(*), min(lease_until) - '$deadline' BETWEEN '59 minutes' AND '61 minutes' FROM mq.in_flight}),
	'3|t', 'a clean restart keeps them so');

my $waiter = session($node);
my $pid = backend_pid($waiter);
start_query($waiter, q{SELECT id FROM mq.dequeue('empty', wait => '2 seconds')});
wait_asleep($node, $pid);
set_clock('-1h');
is(finish_query($waiter), '', 'backwards: a wait under way ends');
is($node->safe_psql('postgres', q{SELECT id FROM mq.dequeue('empty', wait => '0.1 seconds')}),
	'', 'so does a new one');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('orders', 10)}), 0, 'the leases stay');
is($node->safe_psql('postgres', qq{SELECT mq.extend('orders', 2, $receipt, '0.2 seconds')}), 't', 'one gets little time');
wait_until($node, q{SELECT attempts = 1 FROM mq.q_orders WHERE id = 2}, 'it ends in spite of the clock');
is($node->safe_psql('postgres', q{
		SELECT ready_at BETWEEN now() - '35 minutes'::interval AND now() - '25 minutes'::interval
		FROM mq.q_orders WHERE id = 2}), 't', 'its retry is due in half an hour of that clock');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('orders', 10)}), 0, 'not before');

set_clock('0');
$node->safe_psql('postgres', q{SELECT mq.enqueue('empty', delay => '30 minutes')});
set_clock('1h');
is($node->safe_psql('postgres', q{SELECT ready, delayed FROM mq.stats WHERE queue = 'empty'}), '1|0', 'counted by the clock');
set_clock('0');
wait_until($node, q{SELECT ready = 0 AND delayed = 1 AND exact FROM mq.stats WHERE queue = 'empty'}, 'and back: counted again');
is($node->safe_psql('postgres', q{SELECT id, attempt FROM mq.dequeue('orders', 10)}), '2|2', 'the clock is right: due');
is($node->safe_psql('postgres', qq{SELECT mq.ack('orders', 3, $receipt)}), 't', 'the lease of before is still good');
is($node->safe_psql('postgres', q{SELECT string_agg(id::text, ' ' ORDER BY id) FROM mq.q_orders}), '2 4', 'nothing is lost');
# Set while the server is down: the machine was not started anew.
$receipt = $node->safe_psql('postgres', q{
SELECT mq.purge('empty') \g /dev/null
SELECT mq.enqueue('empty') \g /dev/null
SELECT receipt FROM mq.dequeue('empty', lease => '10 minutes')});
$node->safe_psql('postgres', q{ALTER SYSTEM SET mq.test_clock_offset = '1h'});
$node->restart;
is($node->safe_psql('postgres', q{SELECT lease_until - clock_timestamp() BETWEEN '69 minutes' AND '71 minutes' FROM mq.in_flight WHERE queue = 'empty'}),
	't', 'a clock set while the server is down changes no lease');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('empty')}), 0, 'the message is not delivered');
is($node->safe_psql('postgres', qq{SELECT mq.ack('empty', id, receipt) FROM mq.in_flight WHERE queue = 'empty' AND receipt = $receipt}),
	't', 'and can be acknowledged');
$node->stop;

done_testing();
