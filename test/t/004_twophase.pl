# PREPARE TRANSACTION after enqueue, dequeue and ack, with COMMIT and ROLLBACK
# PREPARED from another session: at once, after a restart, after a crash.  What
# the end makes deliverable is delivered within a second.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

# The promised second.
my $bound = 1;

my $node = mq_node('main');

sub count_ready
{
	my ($queue) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM mq.dequeue('$queue', 10)");
}

sub deliver
{
	my ($queue) = @_;
	return $node->safe_psql('postgres',
		"SELECT attempt FROM mq.dequeue('$queue', 10, wait => '$bound seconds')");
}

for my $when ('now', 'restart', 'crash')
{
	my %receipt;
	my $ack = sub {
		my ($q) = @_;
		return $node->safe_psql('postgres', "SELECT mq.ack('$q', 1, $receipt{$q})");
	};

	for my $op ('enqueue', 'take', 'autoack', 'ack')
	{
		for my $end ('commit', 'rollback')
		{
			my $q = "${op}_${end}_$when";

			$node->safe_psql('postgres',
				"SELECT mq.create_queue('$q', lease => '1 hour', backoff => '0')");
			$node->safe_psql('postgres', "SELECT mq.enqueue('$q', '1')")
			  if $op ne 'enqueue';
			$receipt{$q} = $node->safe_psql('postgres',
				"SELECT receipt FROM mq.dequeue('$q')")
			  if $op eq 'ack';
			my $work = {
				enqueue => "SELECT mq.enqueue('$q', '2')",
				take => "SELECT receipt FROM mq.dequeue('$q')",
				autoack => "SELECT receipt FROM mq.dequeue('$q', auto_ack => true)",
				ack => "SELECT mq.ack('$q', 1, " . ($receipt{$q} // 0) . ")"
			}->{$op};
			my $out = $node->safe_psql('postgres',
				"BEGIN; $work; PREPARE TRANSACTION '$q'");
			like($out, $op eq 'ack' ? qr/^t$/ : qr/^\d+$/, "$q: prepared");
			$receipt{$q} = $out if $op eq 'take';
		}
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'),
		8, "$when: transactions are prepared");

	stop_and_start($node, 'fast') if $when eq 'restart';
	stop_and_start($node, 'immediate') if $when eq 'crash';

	# While prepared, nothing of it shows.  A crash forgets a lease that has
	# written nothing, so "take" is left alone there.
	for my $op ('enqueue', 'take', 'autoack', 'ack')
	{
		next if $op eq 'take' && $when eq 'crash';
		for my $end ('commit', 'rollback')
		{
			is(count_ready("${op}_${end}_$when"), 0,
				"${op}_${end}_$when: nothing is delivered while prepared");
		}
	}

	my $end_all = sub {
		my ($op) = @_;
		$node->safe_psql('postgres', "COMMIT PREPARED '${op}_commit_$when'");
		$node->safe_psql('postgres', "ROLLBACK PREPARED '${op}_rollback_$when'");
	};

	$end_all->('enqueue');
	is(deliver("enqueue_commit_$when"), 1,
		"$when: a prepared enqueue is delivered when committed");
	is(count_ready("enqueue_rollback_$when"), 0,
		"$when: a prepared enqueue is not delivered when rolled back");

	$end_all->('take');
	if ($when eq 'crash')
	{
		like(deliver("take_${_}_$when"), qr/^\d+$/,
			"$when: a prepared dequeue ($_) is forgotten by a crash")
		  for 'commit', 'rollback';
		is( $ack->("take_commit_$when"),
			'f', "$when: and its receipt is stale");
	}
	else
	{
		is(count_ready("take_commit_$when"), 0,
			"$when: a prepared dequeue is a lease when committed");
		is( $ack->("take_commit_$when"),
			't', "$when: with its receipt");
		is( $node->safe_psql('postgres',
				"SELECT count(*) FROM mq.q_take_commit_$when"),
			0, "$when: acknowledged");
		my $attempt = deliver("take_rollback_$when");
		$when eq 'now'
		  ? is($attempt, 2, "$when: a prepared dequeue rolled back counts an attempt")
		  : like($attempt, qr/^\d+$/, "$when: a prepared dequeue rolled back comes again");
		is( $ack->("take_rollback_$when"),
			'f', "$when: and its receipt is stale");
	}

	$end_all->('autoack');
	is($node->safe_psql('postgres', "SELECT count(*) FROM mq.q_autoack_commit_$when"),
		0, "$when: a prepared dequeue with auto_ack consumes when committed");
	is(count_ready("autoack_commit_$when"), 0, "$when: nothing comes again");
	my $attempt = deliver("autoack_rollback_$when");
	$when eq 'now'
	  ? is($attempt, 2, "$when: a prepared auto_ack rolled back counts an attempt")
	  : like($attempt, qr/^\d+$/, "$when: a prepared auto_ack rolled back comes again");

	$end_all->('ack');
	is($node->safe_psql('postgres', "SELECT count(*) FROM mq.q_ack_commit_$when"),
		0, "$when: a prepared ack consumes when committed");
	is(count_ready("ack_commit_$when"), 0, "$when: nothing comes again");
	if ($when eq 'crash')
	{
		like(deliver("ack_rollback_$when"), qr/^\d+$/,
			"$when: a prepared ack rolled back comes again");
	}
	else
	{
		is(count_ready("ack_rollback_$when"), 0,
			"$when: a prepared ack rolled back leaves the message leased");
		is( $ack->("ack_rollback_$when"),
			't', "$when: with the same receipt");
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'),
		0, "$when: no prepared transaction is left");
}

# A consumer that waits already is woken in time by either end.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('woken', lease => '1 hour', backoff => '0');
BEGIN; SELECT mq.enqueue('woken', '1'); PREPARE TRANSACTION 'w'});
my $s = session($node);
my $pid = backend_pid($s);
for my $end ('COMMIT', 'ROLLBACK')
{
	start_query($s, q{SELECT extract(epoch FROM clock_timestamp())
	                  FROM mq.dequeue('woken', wait => '1 minute', auto_ack => true)});
	wait_asleep($node, $pid);
	my $ended = (lines($node->safe_psql('postgres',
		"$end PREPARED 'w'; SELECT extract(epoch FROM clock_timestamp())")))[-1];
	my $got = finish_query($s);
	like($got, qr/^[\d.]+$/, "$end PREPARED wakes a waiting consumer");
	cmp_ok($got - $ended, '<', $bound, '… within a second');
	$node->safe_psql('postgres', q{SELECT mq.enqueue('woken', '2');
BEGIN; SELECT mq.dequeue('woken', auto_ack => true); PREPARE TRANSACTION 'w'})
	  if $end eq 'COMMIT';
}
$s->quit;

# Savepoints inside a prepared transaction.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('sub', lease => '1 hour', backoff => '0');
BEGIN;
SELECT mq.enqueue('sub', '"kept"');
SAVEPOINT s; SELECT mq.enqueue('sub', '"undone"'); ROLLBACK TO s;
SAVEPOINT t; SELECT mq.enqueue('sub', '"kept too"'); RELEASE t;
PREPARE TRANSACTION 'sub'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'sub'});
is( join(' ', lines($node->safe_psql('postgres',
			qq{SELECT body FROM mq.dequeue('sub', 10, wait => '$bound seconds')}))),
	'"kept" "kept too"', 'savepoints inside a prepared transaction');

# Prepared, crashed, recovered, crashed again: it is still there to be ended.
$node->safe_psql('postgres', q{BEGIN; SELECT mq.enqueue('woken', '3'); PREPARE TRANSACTION 'x'});
stop_and_start($node, 'immediate');
stop_and_start($node, 'immediate');
$node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('woken', 10, auto_ack => true)});
$node->safe_psql('postgres', q{COMMIT PREPARED 'x'});
is( $node->safe_psql('postgres',
		qq{SELECT body FROM mq.dequeue('woken', 10, wait => '$bound seconds')}),
	'3', 'a prepared enqueue survives two crashes');

# A clean restart between, and the end before anybody looks at the queue.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('counted'), mq.enqueue('counted'), mq.enqueue('counted');
BEGIN; DELETE FROM mq.q_counted WHERE id = 1; PREPARE TRANSACTION 'y'});
wait_until($node, q{SELECT exact AND ready = 2 FROM mq.stats WHERE queue = 'counted'}, 'two are counted');
stop_and_start($node, 'fast');
$node->safe_psql('postgres', q{COMMIT PREPARED 'y'});
wait_until($node, q{SELECT exact AND ready = 1 FROM mq.stats WHERE queue = 'counted'}, 'a prepared DELETE over a clean restart is counted');

# A prepared ack of a message that had come due, but not been counted as such.
my $timed = $node->safe_psql('postgres', q{
SELECT mq.create_queue('timed'), mq.enqueue('timed', delay => '1 day'), (SELECT count(*) FROM mq.stats) \g /dev/null
SELECT mq.enqueue('timed', deliver_at => now()) \g /dev/null
SELECT receipt FROM mq.dequeue('timed')});
$node->safe_psql('postgres', qq{BEGIN; SELECT mq.ack('timed', 2, $timed); PREPARE TRANSACTION 'z'});
$node->safe_psql('postgres', q{COMMIT PREPARED 'z'});
wait_until($node, q{SELECT exact AND ready = 0 AND delayed = 1 AND in_flight = 0 FROM mq.stats WHERE queue = 'timed'}, 'a prepared ack is counted');

# A prepared UPDATE of a leased message: its lease knows of it when the rows have been
# counted anew; with a trigger on the table they are deleted by the executor.
$node->safe_psql('postgres', q{CREATE FUNCTION looks_on() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'});
for my $q ('led', 'led_by_owner')
{
	my $counted = sub { return "SELECT exact AND (ready, delayed, in_flight) = ($_[0]) FROM mq.stats WHERE queue = '$q'" };
	my $receipt = $node->safe_psql('postgres',
		"SELECT mq.create_queue('$q', lease => '1 hour'), mq.enqueue('$q'), mq.enqueue('$q') \\g /dev/null\nSELECT receipt FROM mq.dequeue('$q')");
	$node->safe_psql('postgres', "CREATE TRIGGER looks_on AFTER DELETE ON mq.q_$q FOR EACH ROW EXECUTE FUNCTION looks_on()") if $q ne 'led';
	$node->safe_psql('postgres', qq{BEGIN; UPDATE mq.q_$q SET ready_at = now() + '1 hour' WHERE id = 1; PREPARE TRANSACTION '$q'});
	# whoever looks meets the end of the prepared transaction
	$node->safe_psql('postgres', qq{COMMIT PREPARED '$q'; SELECT exact FROM mq.stats WHERE queue = '$q'});
	wait_until($node, $counted->('1, 0, 1'), "$q: the message is leased, not delayed");
	$node->safe_psql('postgres', "SELECT mq.release('$q', 1, $receipt)");
	is($node->safe_psql('postgres', $counted->('1, 1, 0')), 't', "$q: it is delayed when it is released");
	$receipt = $node->safe_psql('postgres', "UPDATE mq.q_$q SET ready_at = now() - interval '1 s' WHERE id = 1;
		SELECT receipt FROM mq.dequeue('$q')");
	$node->safe_psql('postgres', qq{BEGIN; UPDATE mq.q_$q SET ready_at = now() + '1 hour' WHERE id = 1; PREPARE TRANSACTION '$q'});
	$node->safe_psql('postgres', qq{COMMIT PREPARED '$q'});
	$node->safe_psql('postgres', "SELECT mq.ack('$q', 1, $receipt)");
	wait_until($node, $counted->('1, 0, 0'), "$q: and gone when it is acked");
}

# A prepared UPDATE puts a message off; what failed meanwhile, known to memory only,
# follows it: for who dequeues at once, and for the worker that writes the failure.
for my $q ('off', 'off_too')
{
	my $receipt = $node->safe_psql('postgres',
		"SELECT mq.create_queue('$q', backoff => '0', lease => '1 hour'), mq.enqueue('$q') \\g /dev/null\nSELECT receipt FROM mq.dequeue('$q')");
	$node->safe_psql('postgres', qq{
BEGIN; UPDATE mq.q_$q SET ready_at = now() + '1 hour'; PREPARE TRANSACTION '$q';
SELECT mq.extend('$q', 1, $receipt, '1 ms')});
	wait_until($node, qq{SELECT count(*) = 0 FROM mq.in_flight WHERE queue = '$q'}, "$q: the lease has ended");
	is($node->safe_psql('postgres', qq{COMMIT PREPARED '$q'} . ($q eq 'off' ? qq{; SELECT id FROM mq.dequeue('$q')} : '')),
		'', "$q: put off");
	wait_until($node, qq{SELECT attempts = 1 FROM mq.q_$q}, "$q: the failure is written");
	is($node->safe_psql('postgres', qq{SELECT ready_at > now() + interval '50 min' FROM mq.q_$q}), 't', "$q: for later");
}

$node->stop;
done_testing();
