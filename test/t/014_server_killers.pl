# A message whose consumer takes the server down with it reaches the dead
# letters: what was in flight at a crash counts one attempt, whoever died.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main', streaming => 1);
my $mirror = $node->data_dir . '/pg_stat_tmp/mq.leases';

$node->safe_psql('postgres', q{
SELECT mq.create_queue('jobs', max_attempts => 3, lease => '1 hour', backoff => '1 hour');
SELECT mq.enqueue('jobs', '"poison"', priority => 5);
SELECT mq.enqueue('jobs', '"harmless"');
});
wait_for_worker($node);

# Each consumer that gets the poison kills its own backend.
for my $attempt (1 .. 3)
{
	my $consumer = session($node);
	is($consumer->query_safe(q{SELECT id, attempt FROM mq.dequeue('jobs')}),
		"1|$attempt", "delivery $attempt of the poison");
	my $offset = -s $node->logfile;
	kill 'KILL', backend_pid($consumer);
	wait_for_recovery($node, $offset);
	dead_session($consumer);
}
is($node->safe_psql('postgres', q{SELECT id, attempt FROM mq.dequeue('jobs', 10)}),
	'2|1', 'the other message was not in flight');
wait_until($node, q{SELECT count(*) = 1 FROM mq.q_jobs_dead}, 'the poison is a dead letter');
is($node->safe_psql('postgres', q{
		SELECT body, h->>'queue', h->>'id', h->>'reason', h->>'attempts', h->>'error'
		FROM mq.q_jobs_dead, jsonb_path_query(headers, '$."x-death"[0]') h}),
	'"poison"|jobs|1|attempts|3|the server crashed during the delivery', 'and says why');

# Message 2 is leased; kill all of the server at once.
sub kill_server
{
	my @pids = lines($node->safe_psql('postgres', 'SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()'));
	$node->kill9;
	kill 'KILL', @pids;
	my $started;
	for (1 .. 300)
	{
		last if $started = $node->start(fail_ok => 1);
		$node->stop('immediate', fail_ok => 1);    # takes the stale pid file for a server
		select(undef, undef, undef, 0.1);          # some are still dying
	}
	die "the server does not start" unless $started;
}
kill_server();
is($node->safe_psql('postgres', q{SELECT id, attempt, last_error FROM mq.dequeue('jobs')}),
	'2|2|the server crashed during the delivery', 'a lease outlives no crash, and counts, the postmaster killed');
$node->stop('immediate');
$node->start;
my $receipt = $node->safe_psql('postgres', q{SELECT receipt FROM mq.dequeue('jobs')});
isnt($receipt, '', 'an immediate stop');
is($node->safe_psql('postgres', qq{SELECT mq.release('jobs', 2, $receipt)}), 't', 'released');

# Neither a clean restart nor what was settled before a crash counts.
sub attempts
{
	return $node->safe_psql('postgres', qq{
		SELECT string_agg(format('%s:%s', id, attempt), ' ' ORDER BY id) FROM mq.dequeue('$_[0]', 100)});
}
$node->safe_psql('postgres', q{SELECT mq.create_queue('calm', lease => '1 hour', backoff => '1 hour', max_attempts => 9)});
$node->safe_psql('postgres', q{SELECT mq.enqueue('calm') FROM generate_series(1, 8)});
$receipt = $node->safe_psql('postgres', q{SELECT max(receipt) FROM mq.dequeue('calm', 8)});
$node->safe_psql('postgres', qq{
SELECT mq.ack('calm', 1, $receipt), mq.release('calm', 2, $receipt), mq.nack('calm', 3, $receipt, delay => '0'),
	mq.nack('calm', 4, $receipt, delay => '1 day')});
$node->stop('fast');
ok(!-e $mirror, 'nothing is in flight after a clean shutdown');
$node->start;
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.in_flight WHERE queue = 'calm'}), 4, 'the leases are back');
kill_server();
is(attempts('calm'), '2:1 3:2 5:2 6:2 7:2 8:2', 'what was in flight at the crash counts, nothing else does');

# A failure whose backoff the worker has not written keeps both over a crash.
$node->safe_psql('postgres', q{SELECT mq.create_queue('held', backoff => '1 hour'), mq.enqueue('held')});
my $holder = session($node);
my $consumer = session($node);
is($consumer->query_safe(q{BEGIN; SELECT id FROM mq.dequeue('held')}), 1, 'taken');
$holder->query_safe(q{BEGIN; SELECT FROM mq.q_held FOR KEY SHARE});
$consumer->query_safe('ROLLBACK');
is($node->safe_psql('postgres', q{SELECT attempts FROM mq.q_held}), 0, 'the failure is not in the row');
kill_server();
dead_session($holder);
dead_session($consumer);
is(attempts('held'), '', 'it waits for its backoff after the crash');
wait_until($node, q{SELECT attempts = 1 AND ready_at > now() + '50 minutes' FROM mq.q_held}, 'and gets into the row');

# What a row says that was written at the time of the crash stands, its delay too.
$node->safe_psql('postgres', q{SELECT mq.create_queue('said'), mq.enqueue('said')});
$node->safe_psql('postgres', q{
BEGIN;
SELECT mq.nack('said', id, receipt, delay => '1 day', reason => 'bad input') FROM mq.dequeue('said');
PREPARE TRANSACTION 'nack'});
kill_server();
$node->safe_psql('postgres', q{COMMIT PREPARED 'nack'});
wait_until($node, q{SELECT state = 'delayed' FROM mq.browse('said')}, 'a prepared nack, committed after the crash');
is(attempts('said'), '', 'its message is not delivered before its time');
wait_until($node, q{SELECT mq.lease_state$('mq.q_said', 1) IS NULL}, 'what the crash made of it is forgotten');
is($node->safe_psql('postgres', q{SELECT attempts, last_error, ready_at > now() + '23 hours' FROM mq.q_said}),
	'1|bad input|t', 'and the row is as it was');

# An unlogged queue begins anew: nothing is known of its new messages.
$node->safe_psql('postgres', q{SELECT mq.create_queue('fast', unlogged => true), mq.enqueue('fast')});
is(attempts('fast'), '1:1', 'an unlogged queue');
$node->restart;
kill_server();
my $id = $node->safe_psql('postgres', q{SELECT mq.enqueue('fast')});
is(attempts('fast'), "$id:1", 'a new message of it is new');

# Receipts grow, also with the clock set back and two crashes in a row.
sub receipt
{
	return $node->safe_psql('postgres', q{
		SELECT mq.enqueue('said') AS id \gset
		SELECT receipt FROM mq.dequeue('said', auto_ack => true)});
}
my $last = receipt();
$node->safe_psql('postgres', q{ALTER SYSTEM SET mq.test_clock_offset = '-1h'});
kill_server();
kill_server();
cmp_ok(receipt(), '>', $last, 'receipts grow over crashes, the clock set back');
$last = receipt();
$node->restart;
kill_server();
cmp_ok(receipt(), '>', $last, 'and over a clean restart between');
$node->safe_psql('postgres', q{ALTER SYSTEM RESET mq.test_clock_offset});
$node->restart;

# A start that fails between a clean stop and the next is no crash.
$node->safe_psql('postgres', q{SELECT mq.create_queue('once', max_attempts => 1), mq.enqueue('once')});
$receipt = $node->safe_psql('postgres', q{SELECT receipt FROM mq.dequeue('once')});
$node->stop('fast');
$node->append_conf('pg_hba.conf', 'rubbish');
ok(!$node->start(fail_ok => 1), 'a start that fails');
{
	my $hba = PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/pg_hba.conf');
	$hba =~ s/^rubbish$//m;
	open(my $f, '>', $node->data_dir . '/pg_hba.conf') or die $!;
	print $f $hba;
	close $f;
}
$node->{_pid} = undef;
$node->start;
is($node->safe_psql('postgres', qq{SELECT mq.ack('once', 1, $receipt)}), 't', 'leaves the leases as they were');

# A standby's start, and a restored backup, know nothing of it; nor does rubbish.
$node->safe_psql('postgres', q{SELECT mq.create_queue('new'), mq.enqueue('new'), mq.enqueue('new')});
is(attempts('new'), '1:1 2:1', 'delivered');
$node->backup('base');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'base');
ok(!-e $copy->data_dir . '/pg_stat_tmp/mq.leases', 'a base backup has no such file');
$node->stop('immediate');
{
	open(my $f, '+<', $mirror) or die "$mirror: $!";
	binmode $f;
	seek($f, 40, 0);
	read($f, my $entries, 40 * 1000);
	$entries =~ s/[^\0]/\xff/g;
	seek($f, 40, 0);
	print $f $entries;
	close $f;
}
$node->start;
is(attempts('new'), '1:1 2:1', 'an entry that fails its check is ignored');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|mq\.leases/, 'no complaint');
$node->stop('immediate');
unlink $mirror;
mkdir $mirror;
$node->start;
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/LOG: .*could not create file "pg_stat_tmp\/mq\.leases"/,
	'without the file the server starts and says so');
is(attempts('new'), '1:1 2:1', 'and delivers, uncounted');
$node->stop('fast');
rmdir $mirror;

done_testing();
