# Failover to a synchronous standby in the middle of a load: nothing is lost,
# whatever was heard of a COMMIT.  What waits for the standby is not there yet.

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
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$primary->reload;
$primary->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'})
  or die 'the standby is not synchronous';
address($dir, $primary);
schema($primary);

sub receiver
{
	return $standby->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
}

# ------------------------------------------------------------- on the standby

# Those that 012_standby leaves out.
$primary->safe_psql('postgres', q{SELECT mq.create_queue('refused'); SELECT mq.enqueue('refused', '1')});
my $lists = q{ARRAY[1]::bigint[], ARRAY[1]::bigint[]};
$primary->wait_for_catchup('standby', 'replay', $primary->lsn('insert'));
for my $sql (
	q{CALL mq.wait('refused', '1 minute')},
	q{SELECT mq.dequeue('refused', session => true)},
	qq{SELECT mq.ack_dequeue('refused', $lists)},
	q{SELECT mq.ack('refused', 1, 1, strict => true)},
	q{SELECT mq.reject('refused', 1, 1)},
	q{SELECT mq.release('refused', 1, 1)},
	q{SELECT mq.extend('refused', 1, 1, '1 minute')},
	(map { "SELECT mq.${_}_batch('refused', $lists)" } qw(ack nack reject release)),
	qq{SELECT mq.extend_batch('refused', $lists, '1 minute')},
	q{SELECT mq.enqueue_batch('refused', ARRAY['1']::jsonb[])},
	q{INSERT INTO mq.q_refused (body) VALUES ('1')},
	q{DELETE FROM mq.q_refused},
	q{SELECT mq.delete('refused', ARRAY[1])},
	q{SELECT mq.purge('refused')},
	q{SELECT mq.pause('refused')},
	q{SELECT mq.resume('refused')},
	q{SELECT mq.redrive('refused_dead')},
	q{SELECT mq.alter_queue('refused', lease => '1 minute')},
	q{SELECT mq.drop_queue('refused')})
{
	is(error_of($standby, $sql), '25006', "refused: $sql");
}
is($standby->safe_psql('postgres', q{SELECT body FROM mq.browse('refused')}), '1', 'browsing is not');
is($standby->safe_psql('postgres', q{SELECT mq.status('refused', 1)}), 'ready', 'nor is asking for one message');

# ------------------------------------------- while a COMMIT waits for the standby

$primary->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0');
SELECT mq.create_queue('many', lease => '1 hour', backoff => '0');
SELECT mq.create_queue('fails', backoff => '1 hour');
SELECT mq.enqueue('fails', '1');
SELECT mq.enqueue('q', '"leased"');
BEGIN; SELECT mq.enqueue('q', '"prepared"'); PREPARE TRANSACTION 'p'});
my ($id, $receipt) = split /\|/,
  $primary->safe_psql('postgres', q{SELECT id, receipt FROM mq.dequeue('q')});

my $waiter = session($primary);
my $waiter_pid = backend_pid($waiter);
my @commits = map { session($primary) } 1 .. 4;
start_query($waiter, q{SELECT body FROM mq.dequeue('q', wait => '1 minute', max => 10)});
wait_asleep($primary, $waiter_pid);

my $receiver = stop_process(receiver());
start_query($commits[0], q{SELECT mq.enqueue('q', '"waits"')});
start_query($commits[1], qq{SELECT mq.ack('q', $id, $receipt)});
start_query($commits[2], q{COMMIT PREPARED 'p'});
start_query($commits[3], q{SELECT count(*) FROM mq.enqueue_batch('many', ARRAY['1', '2', '3']::jsonb[])});
ok(await(10, sub { sync_waiting($primary) == 4 }), 'four COMMITs wait for the standby');

is($primary->safe_psql('postgres', q{SELECT body FROM mq.dequeue('q', 10) UNION ALL SELECT body FROM mq.dequeue('many', 10)}),
	'', 'what waits for the standby is not delivered');
is($primary->safe_psql('postgres', qq{SELECT mq.ack('q', $id, $receipt)}),
	'f', 'what is being acked there is not acked twice');
is( $primary->safe_psql('postgres',
		q{SELECT ready, in_flight, acked FROM mq.stats WHERE queue = 'q'}),
	'0|1|0', 'nor is it counted');
is( $primary->safe_psql('postgres',
		qq{SELECT wait_event_type FROM pg_stat_activity WHERE pid = $waiter_pid}),
	'Extension', 'nor does it wake anybody');
$primary->safe_psql('postgres', q{BEGIN; SELECT mq.dequeue('fails'); ROLLBACK});
wait_until($primary, 'SELECT attempts = 1 FROM mq.q_fails', 'the worker does not wait for the standby');

# A cancelled wait: committed here, and maybe nowhere else.
$primary->safe_psql('postgres', q{
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query ~ 'many'});
my ($out, $err) = finish_query($commits[3]);
like($err, qr/canceling wait for synchronous replication/, 'a cancelled wait says that the standby may not have it');
is($primary->safe_psql('postgres', q{SELECT body FROM mq.dequeue('many', 10)}),
	"1\n2\n3", 'its messages are delivered, in order');

continue_process($receiver);
is(finish_query($commits[1]), 't', 'the standby goes on: the ack is done');
finish_query($commits[$_]) for 0, 2;
my @woken = lines(scalar finish_query($waiter));
ok(@woken > 0, 'the waiting dequeue is woken');
is( join(' ', sort @woken, lines($primary->safe_psql('postgres', q{SELECT body FROM mq.dequeue('q', 10)}))),
	'"prepared" "waits"', 'each message is delivered, once');
$_->quit for $waiter, @commits;

# ------------------------------------------------------- a failover under load

my $start = $primary->lsn('insert');
my @load = load_start($dir, producer => 3, consumer => 4);
wait_until($primary, 'SELECT count(*) > 150 FROM witness', 'the load is on');

# The standby does not answer.  Producers use a queue of their own from here, so
# that nobody consumes what the standby may never get.
ok(quiet($dir, $primary), 'producers keep to one queue');
stop_process($receiver = receiver());
ok(await(10, sub { sync_waiting($primary) >= 5 }), 'the clients wait for the standby');

# Twice: first the WAL still gets on its way, then it does not.
my $cancel = sub {
	my ($n) = @_;
	return $primary->poll_query_until('postgres', qq{
WITH c AS (SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep')
SELECT (SELECT count(*) FROM c) >= 0 AND (SELECT count(*) FROM witness) >= $n});
};
my $seen = $primary->safe_psql('postgres', 'SELECT count(*) FROM witness');
ok($cancel->($seen + 20), 'COMMITs that wait are cancelled');
my $sender = stop_process($primary->safe_psql('postgres', 'SELECT pid FROM pg_stat_replication'));
my $cut = $primary->lsn('insert');
ok($cancel->($seen + 40), 'and more, of which the standby gets nothing');

note_down($dir, 'crash');
kill_server($primary, $sender);
continue_process($receiver);
unlink "$dir/quiet";
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->promote;
note_down($dir, 'up');
address($dir, $standby);
wait_for_worker($standby, 'postgres', 'the new primary has a worker');

# Receipts of the old primary, while the new one delivers the same messages.
my @old = receipts($dir, $primary);
for my $q (qw(a b))
{
	my @of = grep { $_->[0] eq $q } @old;
	my $lists = 'ARRAY[' . join(',', map { $_->[1] } @of) . '], ARRAY[' . join(',', map { $_->[2] } @of) . ']';
	is( $standby->safe_psql('postgres', qq{
SELECT mq.ack_batch('$q', $lists), mq.nack_batch('$q', $lists), mq.reject_batch('$q', $lists),
       mq.release_batch('$q', $lists), mq.extend_batch('$q', $lists, lease => '1 second')}),
		'0|0|0|0|0', "receipts of the old primary are stale: $q");
	is(error_of($standby, qq{SELECT mq.ack('$q', $of[-1][1], $of[-1][2], strict => true)}),
		'55000', "and an error if that is asked for: $q");
}

my $witnesses = $standby->safe_psql('postgres', 'SELECT count(*) FROM witness');
wait_until($standby, "SELECT count(*) > $witnesses + 100 FROM witness", 'the load goes on');
load_stop($dir, @load);
drain($dir);
final($dir, $standby);
my $n = judged($dir, 'the judge finds nothing lost, doubled, or come from nowhere');
cmp_ok($n->{acked}, '>', 200, 'there was something to judge');

my ($old_max) = sort { $b <=> $a } map { $_->[2] } @old;
my ($new_min) = sort { $a <=> $b } map { $_->[2] } receipts($dir, $standby);
cmp_ok($new_min, '>', $old_max, 'receipts of the new primary are greater than all of the old one');

# The same once more, from the WAL: what was said to be committed had come over.
my $commits = commits($primary, $start);
my $switch = switch_point($standby);
cmp_ok($switch, '<=', lsn_number($cut), 'the standby got nothing after the cut');
my %class;
for my $tx (transactions($dir, $primary))
{
	my $at = $commits->{ $tx->{xid} } or next;
	$class{ $tx->{o} . ($at < $switch ? ' arrived' : ' missing') }++;
}
note(join ', ', map { "$_ $class{$_}" } sort keys %class);
is($class{'committed missing'} // 0, 0, 'each COMMIT that was not cancelled had reached the standby');
is($class{'rolledback arrived'} // 0, 0, 'none that was rolled back had');
cmp_ok($class{'unknown missing'} // 0, '>', 5, 'of the cancelled ones some had not');
cmp_ok($class{'unknown arrived'} // 0, '>', 5, 'and some had');

$standby->stop;
done_testing();
