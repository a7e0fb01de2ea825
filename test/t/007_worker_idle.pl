# An idle worker writes nothing, takes no transaction id and wakes at most about
# once a second.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main', conf => "autovacuum = off\n");

wait_for_worker($node);
$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour');
SELECT mq.create_queue('empty');
SELECT mq.enqueue('q', to_jsonb(n)) FROM generate_series(1, 5) n;
SELECT mq.enqueue('q', '1', delay => '1 hour');
SELECT mq.dequeue('q', 5)});
# What reading would prune is gone before, and no page is new since a checkpoint.
$node->safe_psql('postgres', 'VACUUM');
$node->safe_psql('postgres', 'CHECKPOINT');

my $s = session($node);
my $pid = $node->safe_psql('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker'});

sub switches
{
	open my $fh, '<', "/proc/$pid/status" or return;
	my ($line) = grep { /^voluntary_ctxt_switches/ } <$fh>;
	return $line =~ /(\d+)/ ? $1 : undef;
}

my $state = q{SELECT pg_current_wal_insert_lsn(), pg_snapshot_xmax(pg_current_snapshot())};

# Time passes in the wait for a queue that stays empty.
is($s->query_safe(q{SELECT count(*) FROM mq.dequeue('empty', wait => '2 seconds')}),
	0, 'the worker has become idle');
my ($before, $switches) = ($s->query_safe($state), switches());
my $seconds = elapsed { $s->query_safe(q{CALL mq.wait('empty', '5 seconds')}) };
my ($after, $switched) = ($s->query_safe($state), switches());

cmp_ok($seconds, '>=', 4.9, 'the wait took its time');
is($after, $before, 'five idle seconds write no WAL and take no transaction id');
SKIP:
{
	skip 'no /proc', 1 unless defined $switches;
	cmp_ok($switched - $switches, '<=', 4 * $seconds, 'the worker sleeps');
}
is( $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker'}),
	$pid, 'by the same worker all the time');
$s->quit;

$node->stop;
done_testing();
