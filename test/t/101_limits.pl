# The two settings that bound shared memory: what happens when it is full, and
# that nothing is half-done then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('limits', conf => "mq.max_queues = 8\nmq.max_in_flight = 128");

$node->safe_psql('postgres', qq{
	SELECT mq.create_queue('q' || i, dead_letter => '', lease => '1 h', backoff => '0') FROM generate_series(1, 40) i;
	SELECT mq.enqueue('q' || i, to_jsonb(i)) FROM generate_series(1, 40) i;});

# Far more queues than have room at once: idle ones make room for others.
is( $node->safe_psql('postgres',
		q{SELECT sum(n) FROM generate_series(1, 40) i, LATERAL (SELECT count(*) AS n FROM mq.browse('q' || i)) b}),
	40, '40 queues where 8 have state at once');
my $ok = 0;
for my $i (1 .. 40)
{
	$ok++ if $node->safe_psql('postgres', qq{SELECT body FROM mq.dequeue('q$i', auto_ack => true)}) eq "$i";
}
is($ok, 40, 'each delivers its message');
$ok = 0;
for my $round (1 .. 2)
{
	$node->safe_psql('postgres', "SELECT mq.enqueue('q' || i, to_jsonb($round)) FROM generate_series(1, 40) i");
	for my $i (1 .. 40)
	{
		$ok++ if $node->safe_psql('postgres', qq{SELECT body FROM mq.dequeue('q$i', auto_ack => true)}) eq "$round";
	}
}
is($ok, 80, '... and again, having made room in between');

# Queues with leases cannot make room.
$node->safe_psql('postgres', q{SELECT mq.enqueue('q' || i, to_jsonb(i)) FROM generate_series(1, 40) i});
my ($held, $refused, $text) = (0, 0, '');
for my $i (1 .. 12)
{
	my ($state, $message) = error_of($node, "SELECT body FROM mq.dequeue('q$i')");
	if ($state eq '') { $held++ }
	elsif ($state eq '53400') { $refused++; $text = $message }
	else { fail("dequeue from q$i: $message") }
}
cmp_ok($held, '>=', 1, 'some queues hold a lease');
cmp_ok($held, '<=', 8, '... no more than mq.max_queues');
is($held + $refused, 12, 'the others are refused: 53400');
like($text, qr/HINT:.*mq\.max_queues/s, '... with a hint that names the setting');
is($node->safe_psql('postgres', 'SELECT count(*) FROM mq.in_flight'), $held, 'nothing is half-done');
# With no room left an enqueue either succeeds whole or is refused whole.
my ($state) = error_of($node, q{SELECT mq.enqueue('q30', '"more"')});
is( $node->safe_psql('postgres', 'SELECT count(*) FROM mq.q_q30'),
	$state eq '' ? 2 : 1, "an enqueue without room is whole or not at all ($state)");
is($node->safe_psql('postgres', 'SELECT count(*) FROM mq.in_flight f WHERE mq.ack(f.queue, f.id, f.receipt)'),
	$held, 'what is held can be acknowledged');
is($node->safe_psql('postgres', q{SELECT body FROM mq.dequeue('q30', auto_ack => true)}), '30', '... and then there is room');

# The lease table: half of it for one queue, what fits is returned, 53400 only for nothing.
$node->safe_psql('postgres', qq{
	SELECT mq.purge('q' || i) FROM generate_series(1, 40) i;
	SELECT count(*) FROM mq.enqueue_batch('q1', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 100) i));
	SELECT count(*) FROM mq.enqueue_batch('q2', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 100) i));
	SELECT count(*) FROM mq.enqueue_batch('q3', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 100) i));});
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('q1', 100)}), 64, 'half of the lease table for one queue');
my ($full, $message) = error_of($node, q{SELECT * FROM mq.dequeue('q1')});
is($full, '53400', 'then nothing');
like($message, qr/HINT:.*mq\.max_in_flight/s, '... with a hint that names the setting');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('q2', 100)}), 64, 'half for another');
($full, $message) = error_of($node, q{SELECT * FROM mq.dequeue('q3')});
is($full, '53400', 'then it is full for all');
like($message, qr/HINT:.*mq\.max_in_flight/s, '... with the same hint');
is(error_of($node, q{SELECT * FROM mq.dequeue('q3', auto_ack => true)}), '53400', '... for auto_ack too');
is($node->safe_psql('postgres', 'SELECT count(*) FROM mq.q_q3'), 100, '... which deletes nothing');
isnt($node->safe_psql('postgres', q{SELECT mq.enqueue('q3', '"more"')}), '', 'producers go on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT * FROM mq.in_flight WHERE queue = 'q1' LIMIT 10) f WHERE mq.release(queue, id, receipt)}),
	10, 'ten released');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('q3', 100)}), 10, '... are room for ten');
is($node->safe_psql('postgres', q{SELECT queue || ' ' || count(*) FROM mq.in_flight GROUP BY queue ORDER BY queue}),
	"q1 54\nq2 64\nq3 10", 'together the whole table');

# A rollback gives its places back; so does a batch of acks.
my $s = session($node);
$node->safe_psql('postgres', q{SELECT mq.ack_batch('q2', array_agg(id), array_agg(receipt)) FROM mq.in_flight WHERE queue = 'q2'});
$s->query_safe('BEGIN');
is($s->query_safe(q{SELECT count(*) FROM mq.dequeue('q2', 100)}), 36, 'the rest of a queue in an open transaction');
is(error_of($node, q{SELECT mq.delete('q3', ARRAY(SELECT id FROM mq.q_q3))}), '', 'a queue emptied');
$s->query_safe('ROLLBACK');
ok($node->poll_query_until('postgres', q{SELECT in_flight = 0 AND ready = 36 FROM mq.stats WHERE queue = 'q2'}), 'given back');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('q2', 100)}), 36, 'and taken again');
$s->quit;
$node->stop;
done_testing();
