# LISTEN: one notification soon after the commit, not by the producer's own
# transaction, repeated while messages stay ready.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;
use Time::HiRes qw(usleep);

my $node = mq_node('main', conf => 'autovacuum = off');
wait_for_worker($node);
$node->safe_psql('postgres', q{
SELECT mq.create_queue('n'); SELECT mq.create_queue('other');
SELECT mq.create_queue('Odd-Na.me')});

my $s = session($node);
my @heard;

# psql tells of notifications after a command.
sub hear
{
	my $out = $s->query_safe('SELECT 1');
	while ($out =~
		/notification "([^"]*)" (with payload "[^"]*" )?received from server process with PID (\d+)/g)
	{
		push @heard, { channel => $1, payload => $2, pid => $3 };
	}
	return;
}

sub heard_on
{
	my ($channel) = @_;
	return scalar grep { $_->{channel} eq $channel } @heard;
}

# Listens until the channel was heard so often.
sub hear_until
{
	my ($channel, $count, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	for (1 .. 600)
	{
		hear();
		last if heard_on($channel) >= $count;
		usleep(50_000);
	}
	return cmp_ok(heard_on($channel), '>=', $count, $name);
}

is($node->safe_psql('postgres', q{SELECT channel FROM mq.queues WHERE name = 'n'}),
	'mq_n', 'the channel stands in mq.queues');
$s->query_safe(q{LISTEN mq_n});
$s->query_safe(q{SELECT mq.listen('other'); SELECT mq.listen('Odd-Na.me')});
is( $s->query_safe(q{SELECT string_agg(c, ' ' ORDER BY c COLLATE "C") FROM pg_listening_channels() c}),
	'mq_Odd-Na.me mq_n mq_other', 'mq.listen listens');

# Uncommitted, rolled back: nothing.  "other" shows that time has passed.
$node->safe_psql('postgres', q{BEGIN; SELECT mq.enqueue('n', '0'); ROLLBACK});
my $producer = session($node);
my $producer_pid = backend_pid($producer);
$producer->query_safe(q{BEGIN; SELECT mq.enqueue('n', '1')});
$node->safe_psql('postgres', q{SELECT mq.enqueue('other', '1')});
hear_until('mq_other', 1, 'a notification comes');
is(heard_on('mq_n'), 0, 'none for an uncommitted or rolled-back message');

my $took = elapsed
{
	$producer->query_safe('COMMIT');
	hear_until('mq_n', 1, 'a notification comes after the commit');
};
cmp_ok($took, '<', 10, 'soon');
is(heard_on('mq_n'), 1, 'one');
my ($first) = grep { $_->{channel} eq 'mq_n' } @heard;
isnt($first->{pid}, $producer_pid, 'not sent by the producer');
is($first->{payload}, undef, 'the payload is empty');

# A transaction with a pending NOTIFY of its own could not be prepared.
is( error_of($node,
		q{BEGIN; SELECT mq.enqueue('n', '2'); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'}),
	'', 'a producer has no NOTIFY pending');

# Many messages, few notifications; and again while they stay.
$node->safe_psql('postgres', join ';', map { "SELECT mq.enqueue('n', '$_')" } 1 .. 100);
hear_until('mq_n', 2, 'repeated while messages stay ready');
cmp_ok(heard_on('mq_n'), '<=', 4, 'coalesced');

# Consumed: no more, but perhaps one that was on its way.  Three rounds on the other
# channel are time enough.
$node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('n', 1000, auto_ack => true)});
hear();
my $until_now = heard_on('mq_n');
hear_until('mq_other', heard_on('mq_other') + 3, 'the other queue is still told of');
cmp_ok(heard_on('mq_n') - $until_now, '<=', 1, 'an empty queue is not told of');
$until_now = heard_on('mq_n');

# Anew after it was empty, for a delay that comes due, for a quoted name.
$node->safe_psql('postgres', q{SELECT mq.enqueue('n', '3', delay => '500 ms')});
hear_until('mq_n', $until_now + 1, 'a delay that comes due is told of');
$node->safe_psql('postgres', q{SELECT mq.enqueue('Odd-Na.me', '1')});
hear_until('mq_Odd-Na.me', 1, 'a name that needs quotes');

$s->query_safe(q{SELECT mq.unlisten('n')});
is( $s->query_safe(q{SELECT string_agg(c, ' ' ORDER BY c COLLATE "C") FROM pg_listening_channels() c}),
	'mq_Odd-Na.me mq_other', 'mq.unlisten ends it');
$_->quit for $s, $producer;

# Nobody listens: the worker sends nothing, which would take a transaction id.  UNLISTEN of
# the last channel counts when it commits, and only then.
sub next_xid { return $node->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())') }
sub sends
{
	my ($name, $yes, @sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $l = session($node);

	$l->query_safe($_) for @sql;
	$node->safe_psql('postgres', q{SELECT mq.delete('n', ARRAY(SELECT id FROM mq.q_n)); SELECT mq.enqueue('n', '5')});
	my $xid = next_xid();
	if ($yes)
	{
		wait_until($node, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint > $xid", $name);
	}
	else
	{
		# the worker goes round: it has written a failure that came after the message
		$node->safe_psql('postgres', q{SELECT mq.enqueue('other', '6', priority => 9)});
		$node->safe_psql('postgres', q{BEGIN; SELECT mq.dequeue('other'); ROLLBACK});
		$node->poll_query_until('postgres', q{SELECT attempts = 1 FROM mq.q_other WHERE priority = 9}) or die 'no worker';
		is(next_xid(), $xid + 3, $name);	# its, and the worker's two
	}
	$node->safe_psql('postgres', q{SELECT mq.delete('other', ARRAY(SELECT id FROM mq.q_other))});
	$l->quit;
	return;
}
$node->safe_psql('postgres', q{SELECT mq.purge(name) FROM mq.queues});
sends('a session listens', 1, 'LISTEN mq_n; LISTEN x');
sends('... and unlistens', 0, 'LISTEN mq_n; LISTEN x', 'UNLISTEN mq_n', 'BEGIN; UNLISTEN x; COMMIT');
sends('... from one of two channels', 1, 'LISTEN mq_n; LISTEN x', 'UNLISTEN x');
sends('... by a transaction that rolls back', 1, 'LISTEN mq_n', 'BEGIN; UNLISTEN mq_n; ROLLBACK');
sends('... from all, by one that rolls back', 1, 'LISTEN mq_n', 'BEGIN; UNLISTEN *; ROLLBACK');
sends('... from all', 0, 'LISTEN mq_n', 'BEGIN; UNLISTEN *; COMMIT');
sends('... and listens again in the same one', 1, 'LISTEN mq_n', 'BEGIN; UNLISTEN mq_n; LISTEN mq_n; COMMIT');
sends('... within a savepoint', 1, 'LISTEN mq_n', 'BEGIN; SAVEPOINT s; UNLISTEN mq_n; ROLLBACK TO s; COMMIT');

# What was ready before a restart is told of too, though nobody has touched its
# queue since.
for my $mode ('fast', 'immediate')
{
	$node->safe_psql('postgres', q{
SELECT mq.delete('n', ARRAY(SELECT id FROM mq.q_n)); SELECT mq.enqueue('n', '4')});
	stop_and_start($node, $mode);
	$s = session($node);
	@heard = ();
	$s->query_safe('LISTEN mq_n');
	hear_until('mq_n', 1, "what is ready after a restart is told of ($mode)");
	$s->quit;
}

$node->stop;
done_testing();
