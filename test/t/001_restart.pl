# A clean restart keeps leases, receipts, counters and delays.  A crash restart
# redelivers at once what was in flight, makes old receipts stale and empties
# unlogged queues, whose ids go on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');

my $counters = q{
SELECT queue, ready, delayed, in_flight, enqueued, delivered, acked, nacked,
       expired, redelivered, dead, since
FROM mq.stats WHERE queue = 'orders'};
my $in_flight = q{
SELECT queue, id, receipt, consumer, attempt, leased_at, lease_until
FROM mq.in_flight ORDER BY id};

$node->safe_psql('postgres', q{
SELECT mq.create_queue('orders', lease => '1 hour', backoff => '0');
SELECT mq.create_queue('fast', lease => '1 hour', unlogged => true);
SELECT mq.create_queue('soon');
SELECT mq.enqueue('orders', to_jsonb(n)) FROM generate_series(1, 6) n;
SELECT mq.enqueue('orders', '"later"', delay => '1 hour');
SELECT mq.enqueue('fast', to_jsonb(n)) FROM generate_series(1, 10) n;
});

# ids 1 and 2 stay leased, 3 is acknowledged, 4 is nacked into the far future,
# 5 and 6 stay ready
my ($receipt) = lines($node->safe_psql('postgres', q{
SELECT DISTINCT receipt FROM mq.dequeue('orders', 2, consumer => 'alpha')}));
$node->safe_psql('postgres', q{SELECT mq.ack(m) FROM mq.dequeue('orders') m});
is( $node->safe_psql('postgres', q{
SELECT mq.nack('orders', m.id, m.receipt, delay => '1 hour', reason => 'no stock')
FROM mq.dequeue('orders') m}),
	't', 'one message is nacked');
is( $node->safe_psql('postgres', "SELECT mq.extend('orders', 1, $receipt, '2 hours')"),
	't', 'one lease is extended');

my @before = map { $node->safe_psql('postgres', $_) } $counters, $in_flight;
like($before[0], qr/^orders\|2\|2\|2\|7\|4\|1\|1\|0\|/,
	'counters before the restart');
is(scalar(lines($before[1])), 2, 'leases before the restart');

$node->safe_psql('postgres', q{SELECT mq.enqueue('soon', '1', delay => '3 seconds')});
stop_and_start($node, 'fast');

is($node->safe_psql('postgres', $counters), $before[0],
	'clean restart keeps the counters');
is($node->safe_psql('postgres', $in_flight), $before[1],
	'clean restart keeps the leases');
is( $node->safe_psql('postgres', q{SELECT exact FROM mq.stats WHERE queue = 'orders'}),
	't', 'counters are exact after a clean restart');
my @got = lines($node->safe_psql('postgres', q{
SELECT id, receipt FROM mq.dequeue('orders', 100)}));
is(join(' ', map { (split /\|/)[0] } @got), '5 6',
	'only the ready messages are delivered after a clean restart');
cmp_ok((split /\|/, $got[0])[1], '>', $receipt, 'receipts grow over a clean restart');
is( $node->safe_psql('postgres', "SELECT mq.ack('orders', 1, $receipt)"),
	't', 'a receipt from before a clean restart acknowledges');
is( $node->safe_psql('postgres',
		"SELECT mq.extend('orders', 2, $receipt, '1 hour')"),
	't', 'a receipt from before a clean restart extends');
is( $node->safe_psql('postgres', q{
SELECT attempts, last_error, ready_at > now() + interval '50 minutes'
FROM mq.q_orders WHERE id = 4}),
	'1|no stock|t', 'a nacked message keeps attempt, reason and delay');

# A delay that had not ended does end, and not before its time.
is( $node->safe_psql('postgres', q{
SELECT q.ready_at <= clock_timestamp()
FROM mq.dequeue('soon', wait => '30 seconds') JOIN mq.q_soon q USING (id)}),
	't', 'a delay ends after a clean restart');

# Session leases end with their sessions, whatever ends those.
$node->safe_psql('postgres', q{SELECT mq.create_queue('sess', lease => '1 hour', backoff => '0');
SELECT mq.enqueue('sess', '1')});
my $s = session($node);
is($s->query_safe(q{SELECT id FROM mq.dequeue('sess', session => true)}),
	1, 'a session lease');
stop_and_start($node, 'fast');
dead_session($s);
is( $node->safe_psql('postgres', q{SELECT id FROM mq.dequeue('sess', wait => '10 seconds')}),
	1, 'a restart gives a session lease back');

# Crash.
my @held = lines($node->safe_psql('postgres',
		q{SELECT id, receipt FROM mq.in_flight WHERE queue = 'orders' ORDER BY id}));
cmp_ok(scalar @held, '>=', 3, 'messages are in flight before the crash');
my $last = $node->safe_psql('postgres', q{SELECT max(id) FROM mq.q_fast});
is($last, 10, 'the unlogged queue is filled');
$node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('fast', 3)});

stop_and_start($node, 'immediate');

@got = lines($node->safe_psql('postgres', q{
SELECT id, receipt FROM mq.dequeue('orders', 100) ORDER BY id}));
is( join(' ', map { (split /\|/)[0] } @got),
	join(' ', map { (split /\|/)[0] } @held),
	'a crash redelivers at once what was in flight, and nothing else');
my ($id, $old) = split /\|/, $held[0];
my ($again, $new) = split /\|/, $got[0];
cmp_ok($new, '>', (sort { $b <=> $a } map { (split /\|/)[1] } @held)[0],
	'receipts grow over a crash');
for my $verb ("ack('orders', $id, $old)", "nack('orders', $id, $old)",
	"reject('orders', $id, $old)", "release('orders', $id, $old)",
	"extend('orders', $id, $old, '1 hour')")
{
	is($node->safe_psql('postgres', "SELECT mq.$verb"), 'f',
		"stale after a crash: $verb");
}
is( error_of($node, "SELECT mq.ack('orders', $id, $old, strict => true)"),
	'55000', 'strict ack with a stale receipt');
is( $node->safe_psql('postgres', "SELECT mq.ack('orders', $again, $new)"),
	't', 'the new receipt acknowledges');

is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_fast}),
	0, 'a crash empties an unlogged queue');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('fast', 10)}),
	0, 'an emptied queue delivers nothing');
$id = $node->safe_psql('postgres', q{SELECT mq.enqueue('fast', '1')});
cmp_ok($id, '>', $last, 'an unlogged queue does not use ids again');
is($node->safe_psql('postgres', q{SELECT id FROM mq.dequeue('fast', 10)}),
	$id, 'an emptied queue goes on');

wait_until($node, q{
SELECT exact AND ready = (SELECT count(*) FROM mq.q_orders
                          WHERE coalesce(ready_at <= now(), true))
             - (SELECT count(*) FROM mq.in_flight WHERE queue = 'orders')
FROM mq.stats WHERE queue = 'orders'}, 'a recount makes the counters exact again');

$node->stop;
done_testing();
