# LISTEN: an ordered queue with nothing but messages that wait behind their keys
# has nothing ready; the end of a key's message is worth a notification.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = mq_node('main');
wait_for_worker($node);
$node->safe_psql('postgres', q{
SELECT mq.create_queue('o', ordered => true, lease => '1 hour'); SELECT mq.create_queue('other')});

my $s = session($node);
my %heard = (mq_o => 0, mq_other => 0);

sub hear_until
{
	my ($channel, $count, $name) = @_;
	for (1 .. 600)
	{
		my $out = $s->query_safe('SELECT 1');
		$heard{$1}++ while $out =~ /notification "([^"]*)" received/g;
		last if $heard{$channel} >= $count;
		usleep(50_000);
	}
	return cmp_ok($heard{$channel}, '>=', $count, $name);
}

$s->query_safe(q{LISTEN mq_o; LISTEN mq_other});
$node->safe_psql('postgres', q{SELECT mq.enqueue_batch('o', '{1,2}', keys => '{a,a}')});
hear_until('mq_o', 1, 'two messages of a key: something is ready');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('o', 10)}), 1, 'one is delivered');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('o', 10)}), 0, 'the other waits behind it');

# "other" stays ready and is repeated, which shows that time has passed
$node->safe_psql('postgres', q{SELECT mq.enqueue('other', '1')});
hear_until('mq_other', 1, 'another queue is heard');
my $before = $heard{mq_o};
hear_until('mq_other', 3, '... again and again');
is($heard{mq_o}, $before, 'a queue with nothing but parked messages is silent');
$node->safe_psql('postgres', q{SELECT mq.enqueue('o', '3', key => 'b')});
hear_until('mq_o', $before + 1, 'a message of another key is told');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('o', 10)}), 1, '... and delivered');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('o', 10)}), 0, '... alone');
$before = $heard{mq_o};
$node->safe_psql('postgres', q{SELECT mq.ack('o', f.id, f.receipt) FROM mq.in_flight f JOIN mq.q_o q USING (id) WHERE q.key = 'a'});
hear_until('mq_o', $before + 1, 'so is a key that goes on');

$s->quit;
$node->stop;
done_testing();
