# mq.dequeue_any under load: several consumers over several queues lose nothing and take nothing twice; a wake is not lost when its waiter
# takes from another queue, is cancelled or dies; a waiter is in no list any more afterwards.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');
my $sql = sub { $node->safe_psql('postgres', $_[0]) };
my $waiting = sub { $sql->(q{SELECT string_agg(queue || consumers_waiting, ' ' ORDER BY queue) FROM mq.stats WHERE queue IN ('a', 'b', 'c')}) };

$sql->(q{SELECT mq.create_queue(q, dead_letter => '', max_attempts => 0, backoff => '0', lease => '1 h') FROM unnest('{a,b,c}'::text[]) q;
CREATE TABLE done (queue text, id bigint)});
my @load = (
	put => q{\set n random(1, 3)
SELECT mq.enqueue((ARRAY['a', 'b', 'c'])[:n], '1');
},
	take => q{\set n random(1, 5)
BEGIN;
INSERT INTO done SELECT queue, id FROM mq.dequeue_any(CASE :n % 2 WHEN 0 THEN '{a,b,c}' ELSE '{c,b}' END::text[], :n, wait => '200 ms', auto_ack => true);
COMMIT;
},
	undo => q{BEGIN;
SELECT count(*) FROM mq.dequeue_any('{b,a}', 2, wait => '50 ms');
ROLLBACK;
});
my @files;
while (my ($name, $text) = splice @load, 0, 2)
{
	my $file = $node->basedir . "/$name.pgbench";
	PostgreSQL::Test::Utils::append_to_file($file, $text);
	push @files, '-f', $file . ($name eq 'put' ? '@3' : '@1');
}
$node->command_ok([ 'pgbench', '-n', '-c', 6, '-T', 3, @files, 'postgres' ], 'six sessions over three queues');
is($waiting->(), 'a0 b0 c0', 'nobody waits any more');
$sql->(q{INSERT INTO done SELECT queue, id FROM mq.dequeue_any('{a,b,c}', 1000000, auto_ack => true)});
my ($all, $distinct, $enqueued) = split /\|/,
  $sql->(q{SELECT count(*), count(DISTINCT (queue, id)), (SELECT sum(enqueued) FROM mq.stats WHERE queue IN ('a', 'b', 'c')) FROM done});
cmp_ok($enqueued, '>', 100, 'there was something to do');
is($all, $enqueued, 'nothing was lost');
is($distinct, $all, 'nothing came twice');

# Each wait is long, so what comes soon was a wake-up.
my @s = map { session($node) } 1 .. 3;
my @pid = map { backend_pid($_) } @s;
my $wait = sub { "SELECT queue FROM mq.dequeue_any('{$_[0]}', wait => '1 minute', auto_ack => true)" };
my $took = 0;
for my $round (1 .. 10)
{
	my $queue = (qw(a b c))[ $round % 3 ];
	start_query($s[0], $wait->('a,b,c'));
	wait_asleep($node, $pid[0]);
	$took += elapsed
	{
		$sql->("SELECT mq.enqueue('$queue', '1')");
		is(scalar finish_query($s[0]), $queue, "woken by queue $queue");
	};
}
cmp_ok($took, '<', 4, 'ten times at once');

# One transaction fills two queues; the first waiter takes from one of them, the second gets the other.
for my $round (1 .. 5)
{
	start_query($s[0], $wait->('a,b'));
	wait_asleep($node, $pid[0]);
	start_query($s[1], $wait->('a,b'));
	wait_asleep($node, $pid[1]);
	$took = elapsed
	{
		$sql->(q{BEGIN; SELECT mq.enqueue('b', '1'); SELECT mq.enqueue('a', '1'); COMMIT});
		is(join(' ', sort map { scalar finish_query($_) } @s[0, 1]), 'a b', "each takes one, round $round");
	};
	cmp_ok($took, '<', 10, 'soon');
}

# The wake of one who is cancelled or terminated goes on to the next.
for my $how ('cancel', 'terminate')
{
	start_query($s[0], $wait->('a,b'));
	wait_asleep($node, $pid[0]);
	start_query($s[1], $wait->('b'));
	wait_asleep($node, $pid[1]);
	$sql->("SELECT mq.enqueue('b', '1'); SELECT pg_${how}_backend($pid[0])");
	$how eq 'cancel' ? finish_query($s[0]) : dead_session($s[0]);
	wait_until($node, 'SELECT count(*) = 0 FROM mq.q_b', "$how: the message was taken");
	# by the first after all, if the other still waits
	$sql->(q{SELECT mq.enqueue('b', '1') FROM mq.stats WHERE queue = 'b' AND consumers_waiting = 1});
	$took = elapsed { is(scalar finish_query($s[1]), 'b', "$how: the other is woken") };
	cmp_ok($took, '<', 10, 'soon');
	is($waiting->(), 'a0 b0 c0', 'and nobody waits any more');
}

# 64 queues.
$sql->(q{SELECT mq.create_queue('q' || i, dead_letter => '') FROM generate_series(1, 64) i});
my $many = join ',', map { "q$_" } 1 .. 64;
start_query($s[1], $wait->($many));
wait_asleep($node, $pid[1]);
is($sql->(q{SELECT sum(consumers_waiting) FROM mq.stats}), 64, 'one consumer waits in 64 queues');
$sql->(q{SELECT mq.enqueue('q64', '1')});
is(scalar finish_query($s[1]), 'q64', 'woken by the last of them');
is($sql->(q{SELECT sum(consumers_waiting) FROM mq.stats}), 0, 'and waits in none');
# asleep it holds no lock on any of them
start_query($s[1], $wait->($many));
wait_asleep($node, $pid[1]);
is($sql->(qq{SELECT count(*) FROM pg_locks WHERE pid = $pid[1] AND locktype = 'relation'
AND relation IN (SELECT relation FROM mq.queues)}), 0, 'a waiting one holds no lock on the queues');
$sql->(q{SELECT mq.enqueue('q1', '1')});
finish_query($s[1]);
$_->quit for @s[1, 2];
$node->stop;
done_testing();
