# Disks that are full.  That of a queue's table: writes are refused, deliveries and
# acks go on, and so does all the rest once there is room, without a restart.  That
# of the saved state: a line in the log.  That of the WAL: PostgreSQL itself gives
# up (PANIC); what was committed is there when there is room, nothing else is.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $disk;
BEGIN { $disk = small_disk(80) }

my $node = mq_node('full', start => 0, conf => q{
autovacuum = off
log_statement = none
min_wal_size = 32MB
max_wal_size = 1GB});

# A folder of the server's moves to the small disk.
sub move_there
{
	my ($name) = @_;
	my $from = $node->data_dir . "/$name";

	system('cp', '-a', $from, "$disk/$name") == 0
	  && system('rm', '-r', $from) == 0
	  && symlink("$disk/$name", $from)
	  or die "could not move $name";
	return;
}

sub sql { return $node->safe_psql('postgres', $_[0]) }

# What the servers said since then, or how many lines of it.
sub log_since
{
	my ($offset, $pattern) = @_;
	my @found = grep { /$pattern/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset);
	return scalar @found;
}

move_there('pg_stat');
mkdir "$disk/space" or die;
$node->start;
sql('CREATE EXTENSION mq');
wait_for_worker($node);

# ----------------------------------------------------------- a table's disk

sql("CREATE TABLESPACE small LOCATION '$disk/space'");
sql(q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 3);
DO $$ DECLARE r record; BEGIN
	FOR r IN SELECT oid::regclass AS name, relkind FROM pg_class
			 WHERE relnamespace = 'mq'::regnamespace AND relname ~ '^q_q' AND relkind IN ('r', 'i') LOOP
		EXECUTE format('ALTER %s %s SET TABLESPACE small', CASE r.relkind WHEN 'r' THEN 'TABLE' ELSE 'INDEX' END, r.name);
	END LOOP;
END $$;
SELECT mq.create_queue('other', lease => '1 hour', backoff => '0', max_attempts => 0);
SELECT count(*) FROM mq.enqueue_batch('q', ARRAY(SELECT to_jsonb(repeat('x', 1000) || i) FROM generate_series(1, 400) i));
SELECT mq.enqueue('other', '1')});
sql('VACUUM mq.q_q');    # its maps need blocks of their own
my $worker = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker'});
my $started = sql('SELECT pg_postmaster_start_time()');
my $offset = -s $node->logfile;
my $in = 400;

fill_disk($disk, 262144);
my ($state, $text);
for (1 .. 1000)
{
	($state, $text) = error_of($node, q{
SELECT count(*) FROM mq.enqueue_batch('q', ARRAY(SELECT to_jsonb(repeat('y', 1000)) FROM generate_series(1, 20)))});
	last if $state ne '';
	$in += 20;
}
is($state, '53100', 'a batch for a queue whose disk is full is refused');
like($text, qr/HINT:  Check free disk space/, '... with a hint');
fill_disk($disk);
for (1 .. 1000)
{
	$state = error_of($node, q{SELECT mq.enqueue('q', to_jsonb(repeat('z', 1000)))});
	last if $state ne '';
	$in++;
}
is($state, '53100', 'so is a message');
is(error_of($node, q{INSERT INTO mq.q_q (body) SELECT to_jsonb(repeat('z', 1000)) FROM generate_series(1, 10)}),
	'53100', '... and a plain INSERT');
is(sql('SELECT count(*) FROM mq.q_q'), $in, 'what was refused is not there, what was committed is');
is(sql(q{SELECT ready FROM mq.stats WHERE queue = 'q' AND exact}), $in, '... and so it is counted');

# Deliveries and acks need no room.
is(sql(q{SELECT sum(mq.ack(m)::int) FROM mq.dequeue('q', 10) m}), 10, 'dequeue and ack go on');
is(sql(q{SELECT count(*) FROM mq.dequeue('q', 10, auto_ack => true)}), 10, '... with auto_ack, too');
is(sql(q{SELECT body FROM mq.dequeue('other', auto_ack => true); SELECT mq.enqueue('other', '2') > 0}), "1\nt",
	'a queue on another disk is not concerned');

# Settling verbs that write a row are refused, and the delivery stays what it was.
my $at = join ', ', split /\|/, sql(q{SELECT id, receipt FROM mq.dequeue('q')});
is(error_of($node, "SELECT mq.nack('q', $at, reason => repeat('why', 300))"), '53100', 'nack is refused');
is(error_of($node, "SELECT mq.reject('q', $at, reason => repeat('why', 300))"), '53100', '... and reject');
is(sql(q{SELECT count(*) FROM mq.in_flight WHERE queue = 'q'}), 1, 'the delivery is as before');
is(sql("SELECT mq.extend('q', $at, '2 hours'); SELECT mq.ack('q', $at)"), "t\nt", '... and can be extended and acknowledged');
$in -= 21;
is(sql('SELECT count(*) FROM mq.q_q'), $in, 'the rest stands');

# The worker has failures to write that it cannot write.
is(sql(q{BEGIN; SELECT count(*) FROM mq.dequeue('q', 250); ROLLBACK}), 250, 'a consumer of 250 rolls back');
ok($node->wait_for_log(qr/could not write the failed deliver/, $offset), 'the worker says that it cannot write');
is(sql(q{BEGIN; SELECT count(*) FROM mq.dequeue('other'); ROLLBACK}), 1, 'another queue has failures as well');
wait_until($node, 'SELECT attempts = 1 FROM mq.q_other', '... and they are written');
is(sql(q{SELECT count(*) FROM mq.dequeue('q', 50) WHERE attempt = 2}), 50, 'what is not written is delivered again, the attempt counted');
is(sql(q{SELECT sum(mq.ack(f.queue, f.id, f.receipt)::int) FROM mq.in_flight f WHERE queue = 'q'}), 50, '... and acknowledged');
$in -= 50;
is(sql(q{BEGIN; SELECT count(*) FROM mq.dequeue('other'); ROLLBACK}), 1, 'once more');
wait_until($node, 'SELECT attempts = 2 FROM mq.q_other', 'the worker goes on with others');
cmp_ok(log_since($offset, 'could not write|could not extend'), '<=', 60, 'the log is not flooded');

is(sql(q{SELECT count(*) FROM mq.q_q WHERE attempts > 0}), 0, 'no failure has been written');

# Deletes make room; VACUUM is what gives it back, as for any table.
sql(q{SELECT mq.delete('q', ARRAY(SELECT id FROM mq.q_q ORDER BY id DESC LIMIT 40))});
$in -= 40;
sql('VACUUM mq.q_q');
is(error_of($node, q{SELECT mq.enqueue('q', to_jsonb(repeat('z', 1000)))}), '', 'deletes make room for messages');
$in++;

# And so does whoever filled the disk.
free_disk($disk);
is(error_of($node, q{SELECT mq.enqueue_batch('q', ARRAY(SELECT to_jsonb(repeat('z', 1000)) FROM generate_series(1, 300)))}),
	'', 'with room again a batch is taken');
$in += 300;
wait_until($node, q{SELECT count(*) = 200 FROM mq.q_q WHERE attempts = 1}, 'the worker writes what it has kept');
is(sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker'}), $worker, 'it is the same worker');
is(sql('SELECT pg_postmaster_start_time()'), $started, '... and the same server');
is(log_since($offset, 'PANIC|FATAL|terminated|exited'), 0, 'nothing has crashed');
is(sql(q{SELECT count(*), count(DISTINCT id) FROM mq.dequeue('q', 10000, auto_ack => true)}), "$in|$in",
	'each message comes once');
is(sql(q{SELECT count(*) FROM mq.q_q}), 0, '... and none is left');
is(sql(q{SELECT count(*) FROM mq.q_q_dead}), 0, 'nor dead');

# ------------------------------------------------------- the state's disk

sql(q{SELECT mq.delete('other', ARRAY(SELECT id FROM mq.q_other));
SELECT count(*) FROM mq.enqueue_batch('other', ARRAY['1', '2', '3']::jsonb[])});
$at = join ', ', split /\|/, sql(q{SELECT id, receipt FROM mq.dequeue('other')});
fill_disk($disk);
$offset = -s $node->logfile;
$node->stop('fast');
is(log_since($offset, 'LOG: .*could not write file "pg_stat/mq\.state\.tmp": No space left on device'), 1,
	'at a shutdown with a full disk one line says that the state was not saved');
is(join(' ', glob("$disk/pg_stat/mq.state*")), '', '... and no half of it is left');
$node->start;
is(sql("SELECT mq.ack('other', $at)"), 'f', 'the server starts; receipts from before are stale');
is(sql(q{SELECT string_agg(body::text, ' ' ORDER BY id) FROM mq.dequeue('other', 10)}), '1 2 3',
	'what was leased is delivered again');
free_disk($disk);

# --------------------------------------------------------- the WAL's disk

sql(q{SELECT mq.create_queue('w', lease => '1 hour', dead_letter => '');
SELECT count(*) FROM mq.enqueue_batch('w', ARRAY(SELECT to_jsonb('acked'::text) FROM generate_series(1, 20)));
SELECT count(*) FROM mq.dequeue('w', 20, auto_ack => true)});
$node->stop('fast');
move_there('pg_wal');
$node->start;
is(sql('SELECT count(*) FROM mq.in_flight'), 3, 'with room the state is saved again');

my $open = session($node);
$open->query_safe(q{BEGIN; SELECT count(*) FROM mq.enqueue_batch('w', ARRAY(SELECT to_jsonb('open'::text) FROM generate_series(1, 20)))});
fill_disk($disk);
$offset = -s $node->logfile;
my ($committed, $rc) = (0, 0);
for my $batch (1 .. 200)
{
	my ($out, $err);
	$rc = $node->psql('postgres', qq{SELECT count(*) FROM mq.enqueue_batch('w',
	                  ARRAY(SELECT to_jsonb('$batch/' || i || '/' || repeat('x', 1800)) FROM generate_series(1, 300) i))},
		stdout => \$out, stderr => \$err);
	last if $rc != 0;
	$committed = $batch;
}
isnt($rc, 0, "with the WAL's disk full the server gives up");
ok($node->wait_for_log(qr/PANIC: .*pg_wal.*No space left on device/, $offset), '... since PostgreSQL has no room for WAL');
cmp_ok($committed, '>', 0, "$committed batches were committed before");
eval { $open->{run}->finish };
is(log_since($offset, 'TRAP:|signal 11'), 0, 'nothing else has crashed');

free_disk($disk);
$node->stop('immediate', fail_ok => 1);
$node->start;
wait_for_worker($node, 'postgres', 'with room the server starts');
my %got;
$got{$_}++ for lines(sql(q{SELECT split_part(body #>> '{}', '/', 1) FROM mq.dequeue('w', 100000, auto_ack => true)}));
is(join(' ', grep { ($got{$_} // 0) != 300 } 1 .. $committed), '', 'each committed batch is delivered, whole');
is($got{open} // 0, 0, 'an uncommitted one is not');
is($got{acked} // 0, 0, 'nor what had been acknowledged');
delete @got{ 1 .. $committed };
is(join(' ', map { "$_: $got{$_}" } grep { $_ != $committed + 1 || $got{$_} != 300 } keys %got), '',
	'nor anything but, perhaps, the batch that ended without an answer');
is(sql(q{SELECT count(*) FROM mq.dequeue('other', 10)}), 3, 'after the crash leased messages are there');
is(sql(q{SELECT mq.enqueue('w', '1') > 0; SELECT mq.ack(m) FROM mq.dequeue('w') m}), "t\nt", 'and all goes on');
$node->stop;
done_testing();
