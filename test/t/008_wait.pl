# Waiting consumers: what wakes them, what ends their wait, what they hold.
# Waits are a minute long, so whatever comes within twenty seconds was a wake-up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $soon = 20;
my $node = mq_node('main');

$node->safe_psql('postgres',
	q{SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 0)});

my %wait = (
	'dequeue' => q{SELECT body FROM mq.dequeue('q', wait => '1 minute', auto_ack => true)},
	'mq.wait' => q{CALL mq.wait('q', '1 minute')});

my $s = session($node);
my $pid = backend_pid($s);
my $other = session($node);

# Starts a wait, does the work, ends the wait; returns the output.
sub woken
{
	my ($how, $name, $work) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($out, $err);

	start_query($s, $wait{$how});
	wait_asleep($node, $pid);
	my $took = elapsed
	{
		$work->();
		($out, $err) = finish_query($s);
	};
	is($err, '', "$how, $name: no error");
	cmp_ok($took, '<', $soon, "$how, $name: woken");
	$out = $s->query_safe(q{SELECT body FROM mq.dequeue('q', auto_ack => true)})
	  if $how eq 'mq.wait';
	return $out;
}

for my $how ('dequeue', 'mq.wait')
{
	# Not by an uncommitted message, but by its commit.
	$other->query_safe(q{BEGIN; SELECT mq.enqueue('q', '"commit"')});
	is( woken($how, 'commit', sub {
				wait_asleep($node, $pid);
				$other->query_safe('COMMIT');
			}),
		'"commit"', "$how: a commit wakes");

	is( woken($how, 'batch', sub {
				$node->safe_psql('postgres',
					q{SELECT mq.enqueue_batch('q', ARRAY['"batch"']::jsonb[])});
			}),
		'"batch"', "$how: a batch wakes");

	is( woken($how, 'INSERT', sub {
				$node->safe_psql('postgres', q{INSERT INTO mq.q_q (body) VALUES ('"plain"')});
			}),
		'"plain"', "$how: a plain INSERT wakes");

	my $due;
	is( woken($how, 'delay', sub {
				$due = $node->safe_psql('postgres', q{
SELECT mq.enqueue('q', '"delay"', delay => '800 ms');
SELECT extract(epoch FROM ready_at) FROM mq.q_q});
				$due = (lines($due))[-1];
			}),
		'"delay"', "$how: a delay that comes due wakes");
	is($s->query_safe("SELECT extract(epoch FROM clock_timestamp()) >= $due"),
		't', "$how: not before");

	$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"lease"')});
	$node->safe_psql('postgres', q{SELECT mq.dequeue('q', lease => '1500 ms')});
	my $took = elapsed { is($s->query_safe($wait{$how}), $how eq 'dequeue' ? '"lease"' : '',
			"$how: an ended lease wakes") };
	cmp_ok($took, '<', $soon, "$how, lease: woken");
	is($s->query_safe(q{SELECT body FROM mq.dequeue('q', auto_ack => true)}),
		'"lease"', "$how, lease: ready")
	  if $how eq 'mq.wait';

	for my $verb ('nack', 'release')
	{
		$node->safe_psql('postgres', qq{SELECT mq.enqueue('q', '"$verb"')});
		my $args = $node->safe_psql('postgres',
			q{SELECT concat_ws(',', id, receipt) FROM mq.dequeue('q')});
		is( woken($how, $verb, sub {
					$node->safe_psql('postgres', "SELECT mq.$verb('q', $args)");
				}),
			qq{"$verb"}, "$how: $verb wakes");
	}

	$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"rollback"')});
	$other->query_safe(q{BEGIN; SELECT id FROM mq.dequeue('q')});
	is(woken($how, 'rollback', sub { $other->query_safe('ROLLBACK') }),
		'"rollback"', "$how: a rolled-back dequeue wakes");

	$node->safe_psql('postgres', q{SELECT mq.pause('q'); SELECT mq.enqueue('q', '"resume"')});
	is( woken($how, 'resume', sub {
				$node->safe_psql('postgres', q{SELECT mq.resume('q')});
			}),
		'"resume"', "$how: resume wakes");

	# Nothing comes: the wait takes as long as it was told, and no error.
	my $sql = $wait{$how};
	$sql =~ s/1 minute/400 ms/;
	$took = elapsed { is($s->query_safe($sql), '', "$how: nothing comes") };
	cmp_ok($took, '>=', 0.39, "$how: it has waited");

	# Cancel, statement_timeout.
	start_query($s, $wait{$how});
	wait_asleep($node, $pid);
	my $err;
	$took = elapsed
	{
		$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
		(undef, $err) = finish_query($s);
	};
	like($err, qr/ERROR:  57014:/, "$how: cancelled");
	cmp_ok($took, '<', $soon, "$how: cancelled at once");
	$took = elapsed
	{
		start_query($s, "SET statement_timeout = '300ms'; $wait{$how}");
		(undef, $err) = finish_query($s);
	};
	like($err, qr/ERROR:  57014:.*statement timeout/, "$how: statement_timeout");
	cmp_ok($took, '<', $soon, "$how: at once");
	$s->query_safe('RESET statement_timeout');

	# After all that nobody is thought to wait, and no message was lost on the way.
	is($node->safe_psql('postgres',
			q{SELECT consumers_waiting FROM mq.stats WHERE queue = 'q'}),
		0, "$how: nobody waits any more");

	# Terminate; a client that has vanished.
	my $t = session($node);
	my $t_pid = backend_pid($t);
	start_query($t, $wait{$how});
	wait_asleep($node, $t_pid);
	is( $node->safe_psql('postgres',
			"SELECT pg_terminate_backend($t_pid, $soon * 1000)"),
		't', "$how: terminated at once");
	like(dead_session($t), qr/57P01/, "$how: with the usual error");

	$t = session($node);
	$t_pid = backend_pid($t);
	$t->query_safe(q{SET client_connection_check_interval = '100ms'});
	start_query($t, $wait{$how});
	wait_asleep($node, $t_pid);
	$took = elapsed
	{
		kill_client($t);
		wait_gone($node, $t_pid, "$how: a vanished client ends the wait");
	};
	cmp_ok($took, '<', $soon, "$how: at once");
}

# A client that has vanished unnoticed does not take the message with it.
my $t = session($node);
my $t_pid = backend_pid($t);
$t->query_safe(q{SET client_connection_check_interval = 0});
start_query($t, q{SELECT body FROM mq.dequeue('q', wait => '1 minute')});
wait_asleep($node, $t_pid);
kill_client($t);
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"kept"')});
is( $node->safe_psql('postgres',
		qq{SELECT body FROM mq.dequeue('q', wait => '$soon seconds', auto_ack => true)}),
	'"kept"', 'a vanished client does not take a message with it');

# Two waiters, one message: one gets it and the other goes on waiting.
my $other_pid = backend_pid($other);
start_query($s, $wait{dequeue});
start_query($other, $wait{dequeue});
wait_asleep($node, $_) for $pid, $other_pid;
wait_until($node, q{SELECT consumers_waiting = 2 FROM mq.stats WHERE queue = 'q'},
	'both are shown as waiting');
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"first"')});
wait_until($node, qq{
SELECT count(*) = 1 FROM pg_stat_activity
WHERE pid IN ($pid, $other_pid) AND state = 'active'}, 'one of two waiters is served');
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"second"')});
is( join(' ', sort map { scalar finish_query($_) } $s, $other),
	'"first" "second"', 'each gets one message');

# The wake of a cancelled waiter is not lost for the others.
for my $round (1 .. 5)
{
	start_query($s, $wait{dequeue});
	start_query($other, $wait{dequeue});
	wait_asleep($node, $_) for $pid, $other_pid;
	$node->safe_psql('postgres',
		qq{SELECT mq.enqueue('q', '$round'); SELECT pg_cancel_backend($pid)});
	my ($mine) = finish_query($s);
	if ($mine ne '')
	{
		$node->safe_psql('postgres', qq{SELECT mq.enqueue('q', '$round')});
	}
	my $took = elapsed { is(scalar finish_query($other), $round, "cancelled wake, round $round") };
	cmp_ok($took, '<', $soon, 'passed on at once');
}

# What a waiter holds: CALL mq.wait no snapshot and no lock, neither alone nor in a
# transaction block; a waiting dequeue no lock on the queue.
for my $begin ('', 'BEGIN; SELECT 1; ')
{
	my $where = $begin ? 'in a block' : 'alone';
	$s->query_safe($begin) if $begin;
	start_query($s, $wait{'mq.wait'});
	wait_asleep($node, $pid);
	is( $node->safe_psql('postgres',
			"SELECT backend_xmin IS NULL AND backend_xid IS NULL FROM pg_stat_activity WHERE pid = $pid"),
		't', "CALL mq.wait $where holds no snapshot");
	is( $node->safe_psql('postgres',
			"SELECT count(*) FROM pg_locks WHERE pid = $pid AND locktype <> 'virtualxid'"),
		0, "CALL mq.wait $where holds no lock");
	start_query($other, $wait{dequeue});
	wait_asleep($node, $other_pid);
	is( $node->safe_psql('postgres', qq{
SELECT count(*) FROM pg_locks
WHERE pid = $other_pid AND relation IN (SELECT 'mq.q_q'::regclass UNION ALL
      SELECT indexrelid FROM pg_index WHERE indrelid = 'mq.q_q'::regclass)}),
		0, 'a waiting dequeue holds no lock on the queue');
	my $col = $begin ? 'extra' : 'more';
	is( error_of($node, qq{
SET lock_timeout = '10s';
ALTER TABLE mq.q_q ADD COLUMN $col integer DEFAULT 0;
REINDEX TABLE mq.q_q;
VACUUM FULL mq.q_q}),
		'', "DDL is not blocked by waiters ($where)");
	$node->safe_psql('postgres', qq{SELECT mq.enqueue_batch('q', ARRAY['"a"', '"b"']::jsonb[])});
	my (undef, $err) = finish_query($s);
	is($err, '', "CALL mq.wait $where returns after DDL");
	my ($got, $other_err) = finish_query($other);
	is($other_err, '', "a waiting dequeue goes on after DDL");
	is($got, '"a"', "and gets its message");
	is($s->query_safe(q{SELECT body FROM mq.dequeue('q', auto_ack => true)}),
		'"b"', 'what woke mq.wait is there to be taken');
	$s->query_safe('COMMIT') if $begin;
}

# A transaction with work done waits without a snapshot, too.
$s->query_safe('CREATE TABLE work (n integer); BEGIN; INSERT INTO work VALUES (1)');
start_query($s, $wait{'mq.wait'});
wait_asleep($node, $pid);
is( $node->safe_psql('postgres',
		"SELECT backend_xmin IS NULL FROM pg_stat_activity WHERE pid = $pid"),
	't', 'CALL mq.wait after a write holds no snapshot');
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '1')});
is((finish_query($s))[1], '', 'and is woken');
$s->query_safe(q{COMMIT; SELECT mq.dequeue('q', auto_ack => true)});

# Refused where a snapshot cannot be given up.
for my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	is(session_error($s, "BEGIN ISOLATION LEVEL $level; CALL mq.wait('q', '10 ms')"),
		'25001', "mq.wait at $level");
	$s->query('ROLLBACK');
}
$s->query_safe(q{CREATE FUNCTION waits() RETURNS void LANGUAGE plpgsql
AS $$ BEGIN CALL mq.wait('q', '10 ms'); END $$});
is(session_error($s, 'SELECT waits()'), '25001', 'mq.wait inside a function');
is( session_error($s, q{DO $$ BEGIN
CALL mq.wait('q', '10 ms');
EXCEPTION WHEN division_by_zero THEN NULL; END $$}),
	'25001', 'mq.wait inside an exception block');
is(session_error($s, q{CALL mq.wait('q', '10 ms')}), '', 'mq.wait at top level');
is(session_error($s, q{CALL mq.wait('nothing', '10 ms')}), '42704', 'mq.wait without a queue');

# A queue dropped under its waiters lets them go.
start_query($s, $wait{'mq.wait'});
start_query($other, $wait{dequeue});
wait_asleep($node, $_) for $pid, $other_pid;
is(error_of($node, q{SET lock_timeout = '10s'; SELECT mq.drop_queue('q')}),
	'', 'drop_queue is not blocked by waiters');
my $took = elapsed { finish_query($_) for $s, $other };
cmp_ok($took, '<', $soon, 'waiters do not wait for a dropped queue');
$_->quit for $s, $other;

$node->stop;
done_testing();
