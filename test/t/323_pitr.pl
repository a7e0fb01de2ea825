# Point-in-time recovery into the middle of a burst: what was committed before
# the target and not acked before it is delivered, nothing else.  Deliveries from
# before are not remembered, whatever lies in the backup.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Failover;
use File::Copy qw(copy);
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $main = mq_node('main', streaming => 1, start => 0);
$main->enable_archiving;
$main->start;
$main->safe_psql('postgres', 'CREATE EXTENSION mq');
address($dir, $main);
schema($main);

# One message in flight, in the state that a clean shutdown saves.  The cold
# copy has it by itself, the other backup gets it put in.
$main->safe_psql('postgres', q{
SELECT mq.create_queue('h', lease => '1 hour', backoff => '0');
SELECT mq.enqueue('h', '1'), mq.enqueue('h', '2')});
my ($id, $receipt) = split /\|/, $main->safe_psql('postgres', q{SELECT id, receipt FROM mq.dequeue('h')});
$main->stop('fast');
$main->backup_fs_cold('cold');
my $state = $main->backup_dir . '/cold/pg_stat/mq.state';
ok(-s $state, 'a cold copy has the saved state');
$main->start;
is( $main->safe_psql('postgres', q{SELECT body FROM mq.browse('h') WHERE state = 'leased'}),
	'1', 'where it belongs it is used');
$main->backup('hot');
ok(!-e $main->backup_dir . '/hot/pg_stat/mq.state', 'a backup of a running server has none');
copy($state, $main->backup_dir . '/hot/pg_stat/mq.state') or die $!;

# The burst, with the target in its middle.
my $start = $main->lsn('insert');
my @load = load_start($dir, producer => 3, consumer => 2, known => 1);
wait_until($main, q{
SELECT (SELECT count(*) > 100 FROM witness) AND (SELECT count(*) FROM mq.q_a) + (SELECT count(*) FROM mq.q_b) > 40},
	'the load is on, and something is left to do');
my $target = lsn_number($main->safe_psql('postgres', q{SELECT pg_create_restore_point('middle')}));
my $seen = $main->safe_psql('postgres', 'SELECT count(*) FROM witness');
wait_until($main, "SELECT count(*) > $seen + 100 FROM witness", 'the load goes on');
load_stop($dir, @load);
my $last = $main->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())');
wait_until($main, "SELECT last_archived_wal >= '$last' FROM pg_stat_archiver", 'all is archived');
my $commits = commits($main, $start);
my @old = receipts($dir, $main);
my ($old_max) = sort { $b <=> $a } map { $_->[2] } @old;
$main->stop('immediate');

# Restores, drains, and holds what came against the WAL before $switch.
sub restored
{
	my ($name, $backup, $switch, $conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init_from_backup($main, $backup, has_restoring => 1, standby => 0);
	$node->append_conf('postgresql.conf', "archive_mode = off\nrecovery_target_action = promote\n$conf");
	$node->start;
	wait_until($node, 'SELECT NOT pg_is_in_recovery()', "$name: recovered");
	is(join(' ', lines($node->safe_psql('postgres', q{SELECT body, attempt FROM mq.dequeue('h', 10)}))),
		'1|1 2|1', "$name: what was in flight at the time of the backup is delivered as if it never had been");
	is($node->safe_psql('postgres', "SELECT mq.ack('h', $id, $receipt)"), 'f', "$name: its receipt is stale");
	for my $q (qw(a b))
	{
		my @of = grep { $_->[0] eq $q } @old;
		my $lists = 'ARRAY[' . join(',', map { $_->[1] } @of) . '], ARRAY[' . join(',', map { $_->[2] } @of) . ']';
		is($node->safe_psql('postgres', "SELECT count(*) FROM mq.dequeue('$q', 20); SELECT mq.ack_batch('$q', $lists)") =~ s/.*\n//r,
			'0', "$name: receipts from before and after the target are stale: $q");
		# give back what this took
		$node->safe_psql('postgres', "SELECT mq.release(queue, id, receipt) FROM mq.in_flight WHERE queue = '$q'");
	}
	address($dir, $node);
	drain($dir);
	is_deeply(final($dir, $node)->{stats}, [], "$name: the counters are right and exact");
	my ($wrong, $n) = accounted($dir, $main, $node, $commits, $switch);
	is($wrong, '', "$name: exactly what was there at the target is delivered");
	note(join ', ', map { "$_ $n->{$_}" } sort keys %$n);
	my ($new_min) = sort { $a <=> $b } map { $_->[2] } receipts($dir, $node);
	cmp_ok($new_min, '>', $old_max, "$name: receipts are greater than all before");
	return ($node, $n);
}

my ($node, $n) = restored('named', 'cold', $target, "recovery_target_name = 'middle'");
is(switch_point($node), $target, 'the new timeline begins at the restore point');
cmp_ok($n->{$_}, '>', 5, "the burst went on both before and after: $_") for qw(lost again acked survived);

# Ids: none of what is restored is met again; what came after the target is not
# known here, so its ids are given once more.  Receipts tell the two apart.
my %was = map { $_->[1] => $_->[2] } grep { $_->[0] eq 'a' } @old;
my ($known) = sort { $b <=> $a } map { $_->[1] } grep { $_->[0] eq 'a' } receipts($dir, $node);
my @ids = lines($node->safe_psql('postgres', q{SELECT mq.enqueue('a', '{}') FROM generate_series(1, 200)}));
cmp_ok($ids[0], '>', $known, 'ids of what is restored are not given again');
my ($twice) = grep { $was{$_} } @ids;
ok($twice, 'an id from after the target is');
my ($now) = lines($node->safe_psql('postgres', qq{SELECT receipt FROM mq.dequeue('a', 200) WHERE id = $twice}));
is($node->safe_psql('postgres', "SELECT mq.ack('a', $twice, $was{$twice})"), 'f', 'the receipt of the other message of this id is stale');
is($node->safe_psql('postgres', "SELECT mq.ack('a', $twice, $now)"), 't', 'that of this one is not');
$node->stop;

# To either side of one commit.
my ($tx) = grep { $_->{tx} =~ /^p/ && $_->{o} eq 'committed' && $commits->{ $_->{xid} } > $target }
  transactions($dir, $main);
my $at = $commits->{ $tx->{xid} };
my $lsn = sprintf '%X/%X', $at >> 32, $at & 0xffffffff;
for my $inclusive (0, 1)
{
	my ($n) = restored($inclusive ? 'with' : 'without', 'hot', $at + $inclusive,
		"recovery_target_lsn = '$lsn'\nrecovery_target_inclusive = $inclusive");
	is($n->safe_psql('postgres', "SELECT count(*) FROM witness WHERE tx = '$tx->{tx}'"),
		$inclusive, ($inclusive ? 'with' : 'without') . ' the transaction at the target');
	$n->stop;
}
done_testing();
