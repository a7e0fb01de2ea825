# Whoever takes messages to the dead letters for others waits for nobody's lock
# on what they go to: one locked target keeps its own messages, no others.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('locks');
$node->safe_psql('postgres', q{
	SELECT mq.create_exchange('dlx', 'direct');
	SELECT mq.create_queue('held', dead_letter => ''), mq.create_queue('free', dead_letter => ''), mq.create_queue('plain', dead_letter => '');
	SELECT mq.bind('dlx', 'held', 'one'), mq.bind('dlx', 'free', 'two');
	SELECT mq.create_queue('one', dead_letter_exchange => 'dlx', dead_letter_key => 'one', ttl => '200 ms');
	SELECT mq.create_queue('two', dead_letter_exchange => 'dlx', dead_letter_key => 'two', ttl => '200 ms');
	SELECT mq.create_queue('three', dead_letter => 'held', ttl => '200 ms');
	SELECT mq.create_queue('four', dead_letter => 'plain', ttl => '200 ms');
});

# The worker knows nothing of the locked table yet, or no more: what it looks up
# must not wait either.
my $locker = session($node);
$locker->query_safe('BEGIN; LOCK TABLE mq.q_held IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', q{SELECT mq.create_queue('other')});
$node->safe_psql('postgres', "SELECT mq.enqueue('$_', '1')") for qw(one three two four);
wait_until($node, q{SELECT count(*) = 1 FROM mq.q_free}, 'a free target of the exchange gets its message');
wait_until($node, q{SELECT count(*) = 1 FROM mq.q_plain}, 'so does a free dead-letter queue');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted}), 0, 'nobody waits for the locked one');
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM mq.q_one) + (SELECT count(*) FROM mq.q_three)}), 2, 'what would go there stays');
$locker->query_safe('COMMIT');
wait_until($node, q{SELECT count(*) = 2 FROM mq.q_held}, 'and comes when the lock is gone');

# The same with the bindings locked.
$locker->query_safe('BEGIN; LOCK TABLE mq.binding$ IN ACCESS EXCLUSIVE MODE');
$node->safe_psql('postgres', q{SELECT mq.enqueue('two', '2'), mq.enqueue('four', '2')});
wait_until($node, q{SELECT count(*) = 2 FROM mq.q_plain}, 'who needs no bindings goes on');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE NOT granted}), 0, 'nobody waits for the bindings');
$locker->query_safe('COMMIT');
wait_until($node, q{SELECT count(*) = 2 FROM mq.q_free}, 'the other one comes when they are free');
$locker->quit;

$node->stop;
done_testing();
