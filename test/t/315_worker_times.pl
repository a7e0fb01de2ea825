# What the worker has to do for one queue does not make it forget when another's
# leases end.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('times', conf => 'log_statement = none');
wait_for_worker($node);

sub sql { return $node->safe_psql('postgres', $_[0]) }

# Whatever the order in which it looks at them, one of these comes before one of those.
my $n = 6;
sql(join ';', map { "SELECT mq.create_queue('$_', backoff => '0', dead_letter => '')" } map { ("lease$_", "fail$_") } 1 .. $n);
sql("SELECT mq.enqueue('lease' || i, '1'), mq.enqueue('fail' || i, '1') FROM generate_series(1, $n) i");
is(sql("SELECT count(*) FROM generate_series(1, $n) i, mq.dequeue('lease' || i, lease => '2 seconds')"), $n, 'leases that will end');
is(sql("BEGIN; SELECT count(*) FROM generate_series(1, $n) i, mq.dequeue('fail' || i); ROLLBACK"), $n, 'failures to be written');
for my $kind ('fail', 'lease')
{
	wait_until($node, 'SELECT ' . join(' AND ', map { "(SELECT attempts = 1 FROM mq.\"q_$kind$_\")" } 1 .. $n),
		$kind eq 'fail' ? 'they are written' : 'the worker notices the end of each lease');
}
$node->stop;
done_testing();
