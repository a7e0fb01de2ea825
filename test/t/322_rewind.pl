# There and back, all under load: failover, the old primary is rewound and
# follows the new one, switchover back to it, the other follows without being
# rewound, and a second failover.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Failover;
use File::Copy qw(copy);
use Test::More;

# Makes a node the synchronous standby of another that runs.
sub follows
{
	my ($standby, $primary, $name) = @_;

	$primary->append_conf('postgresql.conf', "synchronous_standby_names = '" . $standby->name . "'");
	$primary->reload;
	return wait_until($primary, q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'}, $name)
	  || die;
}

sub alone
{
	my ($node) = @_;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload if $node->{_pid};
	return;
}

sub goes_on
{
	my ($node, $name) = @_;
	my $seen = $node->safe_psql('postgres', 'SELECT count(*) FROM witness');
	return wait_until($node, "SELECT count(*) > $seen + 60 FROM witness", $name) || die;
}

# The receipts and bodies of what queue h has to give.
sub h
{
	my ($node) = @_;
	return map { [ split /\|/ ] } lines($node->safe_psql('postgres', q{SELECT body, id, receipt FROM mq.dequeue('h', 10)}));
}

sub settled
{
	my ($node, $m) = @_;
	return $node->safe_psql('postgres', "SELECT mq.ack('h', $m->[1], $m->[2])");
}

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $one = mq_node('a', streaming => 1, conf => "wal_log_hints = on\nwal_keep_size = 256MB\n");
$one->backup('base');
my $two = PostgreSQL::Test::Cluster->new('b');
$two->init_from_backup($one, 'base', has_streaming => 1);
$two->start;
follows($two, $one, 'b follows a');
address($dir, $one);
schema($one);
$one->safe_psql('postgres', q{
SELECT mq.create_queue('h', lease => '1 hour', backoff => '0');
SELECT mq.enqueue('h', to_jsonb(n)) FROM generate_series(1, 3) n});
my @first = h($one);
is(settled($one, $first[1]), 't', 'a message is acked on a, and b knows');

my @load = load_start($dir, producer => 2, consumer => 3);
goes_on($one, 'the load is on');

# a goes its own way: b gets none of this, and no client waits for b to have it.
my $sender = stop_process($one->safe_psql('postgres', 'SELECT pid FROM pg_stat_replication'));
$one->safe_psql('postgres', qq{
SET synchronous_commit = local;
SELECT mq.ack('h', $first[0][1], $first[0][2]);
SELECT mq.enqueue('h', '"only on a"')});
ok(await(10, sub { sync_waiting($one) >= 2 }), 'clients wait for b');

note_down($dir, 'crash');
kill_server($one, $sender);
alone($two);
$two->promote;
note_down($dir, 'up');
address($dir, $two);
goes_on($two, 'b takes over');

# ------------------------------------------------------------------ rewind

$two->safe_psql('postgres', 'CHECKPOINT');
my $conf = $one->data_dir . '/postgresql.conf';
copy($conf, "$dir/postgresql.conf") or die $!;
my @rewind = ('pg_rewind', '--target-pgdata', $one->data_dir, '--source-server', $two->connstr('postgres'));
ok(PostgreSQL::Test::Utils::run_log(\@rewind), 'a is rewound') or die;
copy("$dir/postgresql.conf", $conf) or die $!;
alone($one);
$one->enable_streaming($two);
$one->start;
follows($one, $two, 'a follows b');
goes_on($two, 'the load goes on');

my @second = h($two);
is(join(' ', map { $_->[0] } @second), '1 3', 'what only a knew is gone, the rest is there');
is(join(' ', map { settled($two, $_) } @first), 'f f f', 'receipts of a are stale on b');
is($one->safe_psql('postgres', q{SELECT count(*) FROM mq.q_h}), 2, 'also on a itself, rewound');
is(error_of($one, q{SELECT mq.dequeue('h')}), '25006', 'a is a standby');

# -------------------------------------------------------------- fail back

note_down($dir, 'crash');
$two->stop('fast');
ok(-e $two->data_dir . '/pg_stat/mq.state', 'b has saved what is in flight');
$one->promote;
note_down($dir, 'up');
address($dir, $one);
wait_for_worker($one, 'postgres', 'a has a worker again');
goes_on($one, 'a takes over');
$two->enable_streaming($one);
$two->start;
ok(!-e $two->data_dir . '/pg_stat/mq.state', 'as a standby b forgets it');
follows($two, $one, 'b follows a, without rewinding');

my @third = h($one);
is(join(' ', map { $_->[0] } @third), '1 3', 'the same messages on a');
is(join(' ', map { settled($one, $_) } @first, @second), 'f f f f f', 'receipts of a from before, and of b, are stale');
wait_until($one, q{SELECT bool_and(exact) FROM mq.stats WHERE queue IN ('a', 'b', 'h')}, 'the counters of a are exact');
goes_on($one, 'the load goes on');

# Once more, with a killed while b answers: b must not wake up to what it had in
# flight when it was stopped.
note_down($dir, 'crash');
kill_server($one);
alone($two);
$two->promote;
note_down($dir, 'up');
address($dir, $two);
goes_on($two, 'b takes over again');
load_stop($dir, @load);
drain($dir);
is_deeply(final($dir, $two)->{stats}, [], 'the counters of b are right and exact');
my $n = judged($dir, 'the judge finds nothing lost over all of this');
cmp_ok($n->{acked}, '>', 200, 'there was something to judge');
my @fourth = h($two);
is(join(' ', map { $_->[0] } @fourth), '1 3', 'the same messages on b');
is(join(' ', map { settled($two, $_) } @second, @third), 'f f f f', 'with none of the receipts before');
is(join(' ', map { settled($two, $_) } @fourth), 't t', 'but those of now');
my @receipts = map { $_->[0][2] } \@first, \@second, \@third, \@fourth;
is_deeply(\@receipts, [ sort { $a <=> $b } @receipts ], 'receipts have grown all the way');
wait_until($two, q{SELECT exact AND ready + delayed + in_flight = 0 FROM mq.stats WHERE queue = 'h'}, 'and the counters say so');
$two->stop;
done_testing();
