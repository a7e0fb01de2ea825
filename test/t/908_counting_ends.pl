# Whoever counts the rows that came due may be cancelled or terminated in the middle:
# others count them then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main', conf => "autovacuum = off\n");
my $other = session($node);

# Rows that are nothing, whose index entries have to be walked all the same.
sub dead_rows
{
	my ($q) = @_;
	$node->safe_psql('postgres', "BEGIN; INSERT INTO mq.q_$q (body, ready_at) SELECT NULL, now() FROM generate_series(1, 300000); ROLLBACK");
	return;
}

my $n = 0;
for my $how (qw(cancel terminate))
{
	my $hit;

	for (1 .. 5)
	{
		my $q = 'q' . ++$n;
		my $reader = session($node);
		my $pid = backend_pid($reader);

		$node->safe_psql('postgres', "SELECT mq.create_queue('$q'), mq.enqueue('$q', delay => '1 day'), mq.enqueue('$q', deliver_at => now())");
		dead_rows($q);
		start_query($reader, "SELECT ready, delayed, exact FROM mq.stats WHERE queue = '$q'");
		for (1 .. 1000)
		{
			last if $other->query_safe("SELECT state = 'active' AND query LIKE '%mq.stats%$q%' FROM pg_stat_activity WHERE pid = $pid") eq 't';
		}
		$other->query_safe("SELECT pg_${how}_backend($pid)");
		if ($how eq 'cancel')
		{
			(undef, my $err) = finish_query($reader);
			$hit = $err =~ /57014/;
			$reader->quit;
		}
		else
		{
			wait_gone($node, $pid);
			$hit = dead_session($reader) =~ /57P01|terminating connection/;
		}
		wait_until($node, "SELECT exact AND (ready, delayed) = (1, 1) FROM mq.stats WHERE queue = '$q'", "$how: others count the rows then");
		last if $hit;
	}
	ok($hit, "... of one who was counting ($how)");
}

$other->quit;
$node->stop;
done_testing();
