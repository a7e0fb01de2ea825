# dedup_ids over a restart, a crash, PREPARE TRANSACTION, and in a dump; what an
# unlogged queue remembers goes with its messages.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use IPC::Run;
use Test::More;

my $node = mq_node('main');

sub enqueue
{
	my ($queue, $dedup_id, $db) = @_;
	return $node->safe_psql($db // 'postgres',
		"SELECT mq.enqueue('$queue', '1', dedup_id => '$dedup_id')");
}

$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', dead_letter => '', dedup_window => '1 hour');
SELECT mq.create_queue('zero', dead_letter => '', dedup_window => '0');
SELECT mq.create_queue('fast', dead_letter => '', dedup_window => '1 hour', unlogged => true)});
my %first = map { $_ => enqueue($_, 'x') } 'q', 'zero', 'fast';
is(enqueue($_, 'x'), $first{$_}, "$_: remembered") for sort keys %first;
$node->safe_psql('postgres', q{
SELECT count(*) FROM mq.dequeue('q', auto_ack => true)});

# Many at once with the same ids: each is taken once, and nobody gets an error.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('race', dead_letter => '');
SELECT mq.create_queue('race_zero', dead_letter => '', dedup_window => '0')});
$node->pgbench('-n -c 8 -t 300 -D n=0', 0, [qr{processed: 2400/2400}], [qr/^$/], 'eight race',
	{ race => q{
\set n :n + 1
SELECT mq.enqueue('race', '1', dedup_id => 'r' || :n);
SELECT mq.enqueue('race_zero', '1', dedup_id => 'r' || :n);
} });
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT dedup_id) FROM mq.q_$_"),
	'300|300', "$_: one message an id")
  for 'race', 'race_zero';

# In a dump: the ids remembered are there, also of a message that is consumed.
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my @tell = ('--host', $node->host, '--port', $node->port);
my $stderr = '';
ok( IPC::Run::run(
		[ 'pg_dump', @tell, 'postgres' ], '2>', \$stderr, '|',
		[ 'psql', @tell, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', 'copy' ],
		'2>', \$stderr),
	'pg_dump | psql');
is($stderr, '', 'without a word');
is(enqueue($_, 'x', 'copy'), $first{$_}, "$_: remembered in the copy") for sort keys %first;

# A prepared transaction: whoever comes next waits for its end, over restarts too.
my $s;
for my $when ('now', 'restart', 'crash')
{
	for my $end ('COMMIT', 'ROLLBACK')
	{
		$node->safe_psql('postgres', qq{
BEGIN; SELECT mq.enqueue('q', '"prepared"', dedup_id => '$when $end'); PREPARE TRANSACTION '$end'});
	}
	stop_and_start($node, 'fast') if $when eq 'restart';
	stop_and_start($node, 'immediate') if $when eq 'crash';
	$s = session($node);
	my $pid = backend_pid($s);
	for my $end ('COMMIT', 'ROLLBACK')
	{
		start_query($s, "SELECT mq.enqueue('q', '\"after\"', dedup_id => '$when $end')");
		wait_until($node, qq{SELECT wait_event = 'transactionid' FROM pg_stat_activity WHERE pid = $pid},
			"$when: waits for the prepared transaction");
		$node->safe_psql('postgres', "$end PREPARED '$end'");
		finish_query($s);
		is( $node->safe_psql('postgres', qq{
SELECT body FROM mq.q_q WHERE dedup_id = '$when $end'}),
			$end eq 'COMMIT' ? '"prepared"' : '"after"', "$when: $end PREPARED decides");
	}
	$s->quit;
}

# The library with the objects of 0.9, until they are updated.
$node->safe_psql('postgres', 'CREATE DATABASE old');
$node->safe_psql('old', q{
CREATE EXTENSION mq VERSION '0.9';
SELECT mq.create_queue('q', dead_letter => '');
SELECT mq.create_queue('fast', dead_letter => '', unlogged => true)});
wait_for_worker($node, 'old');
my $old = enqueue('q', 'x', 'old');
is(enqueue('q', 'x', 'old'), $old, '0.9: remembered');
is(error_of($node, q{SELECT mq.enqueue('fast', '1', dedup_id => 'x')}, 'old'), '55000', '0.9: an unlogged queue cannot');
$node->safe_psql('old', 'ALTER EXTENSION mq UPDATE');
is(enqueue('q', 'x', 'old'), $old, '1.0: still remembered');
is(enqueue('fast', 'x', 'old'), enqueue('fast', 'x', 'old'), '1.0: an unlogged queue can');
is($node->safe_psql('old', q{SELECT mq.alter_queue('q', retain => '1 hour', dedup_window => '0');
SELECT count(*) FROM mq.dequeue('q', auto_ack => true); SELECT body FROM mq.a_q}), "\n1\n1", '1.0: options can be altered');

# What a crash leaves.
is(enqueue('q', 'x'), $first{q}, 'remembered after a crash');
is(enqueue('zero', 'x'), $first{zero}, 'while the message exists: too');
isnt(enqueue('fast', 'x'), $first{fast}, 'an unlogged queue has forgotten, its messages being gone');
is($node->safe_psql('postgres', 'SELECT body FROM mq.q_fast'), '1', '… so it takes it again');

# What expired before a crash is found by the worker that comes after it.
$node->safe_psql('postgres', q{
UPDATE mq.dedup$ SET until = until - interval '2 hours' WHERE queue = 'q'});
stop_and_start($node, 'immediate');
wait_for_worker($node);
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM mq.dedup$ WHERE queue = 'q')},
	'the worker removes what has expired');

$node->stop;
done_testing();
