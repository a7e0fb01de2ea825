# What becomes of a lease over a stop: after a clean one it ends when it would have
# ended, after a crash it has failed; what was settled before either is settled.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');

# id:attempt of all that is delivered now, or after a wait.
sub delivered
{
	my ($q, $wait) = @_;
	return $node->safe_psql('postgres', qq{
		SELECT string_agg(format('%s:%s', id, attempt), ' ' ORDER BY id) FROM mq.dequeue('$q', 100, wait => '$wait')});
}

$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0');
SELECT mq.create_queue('short', lease => '3 seconds', backoff => '0');
SELECT mq.enqueue('short', '1')});
is(delivered('short', '0'), '1:1', 'a short lease');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.in_flight}), 1, '... that has not ended');
stop_and_start($node, 'fast');
is(delivered('short', '20 seconds'), '1:2', '... ends after a clean restart');

# Nothing but a crash between what is settled and what is looked at.
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', to_jsonb(n)) FROM generate_series(1, 5) n});
is(delivered('q', '0'), '1:1 2:1 3:1 4:1 5:1', 'five messages are delivered');
$node->safe_psql('postgres', q{
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'q' AND id = 1;
SELECT mq.release(queue, id, receipt) FROM mq.in_flight WHERE queue = 'q' AND id = 2;
SELECT mq.nack(queue, id, receipt, '0') FROM mq.in_flight WHERE queue = 'q' AND id = 3;
SELECT mq.reject(queue, id, receipt) FROM mq.in_flight WHERE queue = 'q' AND id = 4});
stop_and_start($node, 'immediate');
is(delivered('q', '20 seconds'), '2:1 3:2 5:2', 'after a crash only what was in flight has failed');
is($node->safe_psql('postgres', q{SELECT string_agg(body::text, ' ') FROM mq.q_q_dead}), '4', 'a dead letter is one');

$node->stop;
done_testing();
