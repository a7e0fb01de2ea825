# A backend killed hard takes the server through crash recovery: committed
# messages are delivered again, uncommitted ones never, the workers come back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');

$node->safe_psql('postgres', q{
SELECT mq.create_queue('orders', lease => '1 hour', backoff => '0');
SELECT mq.create_queue('fast', unlogged => true);
SELECT mq.enqueue('orders', to_jsonb(n)) FROM generate_series(1, 4) n;
SELECT mq.enqueue('fast', '1');
});
wait_for_worker($node);

# id 1 leased, 2 in an open transaction, 3 acknowledged in an open transaction,
# 4 ready, 5 enqueued in an open transaction, 6 acknowledged and committed
my $receipt = $node->safe_psql('postgres', q{SELECT receipt FROM mq.dequeue('orders')});
my $victim = session($node);
is($victim->query_safe(q{BEGIN; SELECT id FROM mq.dequeue('orders')}), 2, 'open dequeue');
is( $victim->query_safe(q{SELECT id FROM mq.dequeue('orders', auto_ack => true)}),
	3, 'open ack');
is($victim->query_safe(q{SELECT mq.enqueue('orders', '"uncommitted"')}), 5, 'open enqueue');
is($node->safe_psql('postgres', q{SELECT mq.enqueue('orders', '"urgent"', priority => 9)}),
	6, 'committed enqueue');
is( $node->safe_psql('postgres', q{SELECT id FROM mq.dequeue('orders', auto_ack => true)}),
	6, 'committed ack');

my $waiter = session($node);
my $waiter_pid = backend_pid($waiter);
start_query($waiter, q{SELECT id FROM mq.dequeue('fast_dead', wait => '10 minutes')});
wait_asleep($node, $waiter_pid);

my $offset = -s $node->logfile;
kill 'KILL', backend_pid($victim);
wait_for_recovery($node, $offset);
dead_session($victim);
like(dead_session($waiter), qr/terminating connection|server closed/,
	'a waiting session ends with the server');

my @got = lines($node->safe_psql('postgres',
		q{SELECT id, receipt FROM mq.dequeue('orders', 10) ORDER BY id}));
is(join(' ', map { (split /\|/)[0] } @got), '1 2 3 4',
	'everything committed and not acknowledged is delivered at once');
cmp_ok((split /\|/, $got[0])[1], '>', $receipt, 'receipts grow');
is($node->safe_psql('postgres', "SELECT mq.ack('orders', 1, $receipt)"),
	'f', 'the old receipt is stale');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_fast}),
	0, 'the unlogged queue is empty');
cmp_ok($node->safe_psql('postgres', q{SELECT mq.enqueue('fast', '1')}),
	'>', 1, 'its ids are not used again');
wait_for_worker($node, 'postgres', 'the worker is back');

# The dead processes left nothing behind in the waiters' list.
$waiter = session($node);
$waiter_pid = backend_pid($waiter);
start_query($waiter, q{SELECT body FROM mq.dequeue('orders', wait => '1 minute')});
wait_asleep($node, $waiter_pid);
$node->safe_psql('postgres', q{SELECT mq.enqueue('orders', '"after"')});
is(finish_query($waiter), '"after"', 'waiting works after a crash');
$waiter->quit;

$node->stop;
done_testing();
