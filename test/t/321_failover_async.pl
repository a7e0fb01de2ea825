# Failover to an asynchronous standby: what it had not received is lost, and
# nothing else.  The WAL of the old primary says what that is.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Failover;
use Test::More;

my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $primary = mq_node('primary', streaming => 1);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
address($dir, $primary);
schema($primary);
$primary->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'})
  or die 'the standby does not follow';

my $start = $primary->lsn('insert');
my @load = load_start($dir, producer => 3, consumer => 2, known => 1);
wait_until($primary, q{
SELECT (SELECT count(*) > 150 FROM witness) AND (SELECT count(*) FROM mq.q_a) + (SELECT count(*) FROM mq.q_b) > 40},
	'the load is on, and something is left to do');

# From here nothing is sent; clients are told that their COMMITs are done.
my $sender = stop_process($primary->safe_psql('postgres', 'SELECT pid FROM pg_stat_replication'));
my $cut = $primary->lsn('insert');
my $seen = $primary->safe_psql('postgres', 'SELECT count(*) FROM witness');
wait_until($primary, "SELECT count(*) > $seen + 100 FROM witness", 'the load goes on without the standby');

note_down($dir, 'crash');
kill_server($primary, $sender);
$standby->poll_query_until('postgres', 'SELECT count(*) = 0 FROM pg_stat_wal_receiver')
  or die 'the receiver does not notice';
my $received = $standby->safe_psql('postgres', 'SELECT pg_last_wal_receive_lsn()');
$standby->promote;
note_down($dir, 'up');
address($dir, $standby);
$seen = $standby->safe_psql('postgres', 'SELECT count(*) FROM witness');
wait_until($standby, "SELECT count(*) > $seen + 100 FROM witness", 'the load goes on');

my @old = receipts($dir, $primary);
load_stop($dir, @load);
drain($dir);
my $final = final($dir, $standby);
is_deeply($final->{stats}, [], 'the counters of the new primary are right');

my $switch = switch_point($standby);
cmp_ok($switch, '<=', lsn_number($received), 'it has what it received');
cmp_ok($switch, '<=', lsn_number($cut), 'and received nothing after the cut');

# By the WAL, message by message.
my $commits = commits($primary, $start);
my ($wrong, $n) = accounted($dir, $primary, $standby, $commits, $switch);
is($wrong, '', 'exactly what the standby had received and nobody had acked there is delivered');
note(join ', ', map { "$_ $n->{$_}" } sort keys %$n);
cmp_ok($n->{lost}, '>', 10, 'messages were lost with what the standby did not get');
cmp_ok($n->{again}, '>', 5, 'acks were lost with it');
cmp_ok($n->{acked}, '>', 50, 'others were not');
cmp_ok($n->{survived}, '>', 5, 'what was not acked came over');
($wrong) = accounted($dir, $primary, $standby, $commits, $switch + 2**20);
isnt($wrong, '', 'with another end of the WAL the account is wrong: too much');
($wrong) = accounted($dir, $primary, $standby, $commits, $switch - 5000);
isnt($wrong, '', 'and too little');

# The same for what the transactions did besides.
my %there = map { $_ => 1 } @{ $final->{witness} };
my @odd = grep { ($there{ $_->{tx} } // 0) != (($commits->{ $_->{xid} } // 9**99) < $switch) }
  transactions($dir, $primary);
is(join(' ', map { $_->{tx} } @odd), '', 'transactions are there as a whole or not at all');
my %effects;
$effects{ $_->[0] }++ for @{ $final->{effects} };
is(join(' ', grep { $effects{$_} > 1 } sort keys %effects), '', 'no effect is doubled on the new primary');

my ($old_max) = sort { $b <=> $a } map { $_->[2] } @old;
my ($new_min) = sort { $a <=> $b } map { $_->[2] } receipts($dir, $standby);
cmp_ok($new_min, '>', $old_max, 'receipts grow, also over those that are lost');

$standby->stop;
done_testing();
