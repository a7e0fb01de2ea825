# Request and reply over one shared reply queue, by many clients at once; that waiting matchers keep no wake from others nor others from
# them; that dead rows, long queues and other consumers do not lead a match astray.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');
my $sql = sub { $node->safe_psql('postgres', $_[0]) };

# Six clients and two servers; each client checks that the reply is its own. Some wait for a reply that nobody sends, with the replies of
# those who gave up lying about.
$sql->(q{
SELECT mq.create_queue('requests', dead_letter => '');
SELECT mq.create_queue('replies', dead_letter => '');
CREATE TABLE outcome (client text, answer text);
SELECT FROM mq.enqueue_batch('replies', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 400) i),
    headers => ARRAY(SELECT jsonb_build_object('correlation_id', 'orphan ' || i) FROM generate_series(1, 400) i))});
my %script = (
	client => q{\set n random(1, 1000000000)
SELECT mq.enqueue('requests', to_jsonb(:n), headers => jsonb_build_object('reply_to', 'replies', 'correlation_id', :client_id || '-' || :n));
INSERT INTO outcome SELECT :client_id || '-' || :n, (SELECT headers->>'correlation_id' || '=' || body FROM mq.dequeue('replies', wait => '20 s', auto_ack => true,
  match => jsonb_build_object('correlation_id', :client_id || '-' || :n)));
},
	server => q{WITH m AS (SELECT * FROM mq.dequeue('requests', 5, wait => '500 ms', auto_ack => true))
SELECT mq.enqueue(headers->>'reply_to', to_jsonb((body::text::bigint) * 2), headers => jsonb_build_object('correlation_id', headers->'correlation_id')) FROM m;
});
my @run;
my %load = (client => [ 6, '-t', 60 ], server => [ 2, '-T', 4 ]);
for my $name ('server', 'client')
{
	my $file = $node->basedir . "/$name.pgbench";
	my ($n, @length) = @{ $load{$name} };
	PostgreSQL::Test::Utils::append_to_file($file, $script{$name});
	my ($out, $err) = ('', '');
	push @run, [ $name, \$out, \$err, IPC::Run::start(
		[ 'pgbench', '-n', '-c', $n, @length, '-f', $file, '-h', $node->host, '-p', $node->port, 'postgres' ], '>', \$out, '2>', \$err) ];
}
for my $run (reverse @run)
{
	my ($name, $out, $err, $handle) = @$run;
	ok(IPC::Run::finish($handle), "${name}s") or diag($$err);
}
is($sql->(q{SELECT count(*) FROM outcome WHERE answer = client || '=' || split_part(client, '-', 2)::bigint * 2}), 360, 'each client got the reply to its own request');
is($sql->(q{SELECT count(*) FROM mq.q_replies}), 400, 'and the orphans are still there');
is($sql->(q{SELECT count(*) FROM mq.dequeue('replies', 1000, auto_ack => true)}), 400, 'for whoever takes what comes');

# Who waits for something else neither takes a wake from others nor misses his own.
$sql->(q{SELECT mq.create_queue('q', dead_letter => '', lease => '1 h')});
my @s = map { session($node) } 1 .. 4;
my @pid = map { backend_pid($_) } @s;
my $put = sub { $sql->(qq{SELECT mq.enqueue('q', '"$_[0]"', headers => '{"to": "$_[0]"}')}) };
my $took = 0;
for my $round (1 .. 6)
{
	start_query($s[$_], qq{SELECT body FROM mq.dequeue('q', wait => '1 minute', auto_ack => true, match => '{"to": "$_"}')}) for 0, 1;
	wait_asleep($node, $pid[$_]) for 0, 1;
	start_query($s[2], q{SELECT body FROM mq.dequeue('q', wait => '1 minute', auto_ack => true)});
	wait_asleep($node, $pid[2]);
	$took += elapsed
	{
		$put->('x');
		is(scalar finish_query($s[2]), '"x"', "round $round: the one who takes whatever comes is woken");
		$put->('1');
		is(scalar finish_query($s[1]), '"1"', "round $round: the one it is for");
	};
	$put->('0');
	finish_query($s[0]);
}
cmp_ok($took, '<', 4, 'at once, twelve times');
is($sql->(q{SELECT consumers_waiting FROM mq.stats WHERE queue = 'q'}), 0, 'nobody waits any more');

# Two queues, a cancelled and a killed matcher.
$sql->(q{SELECT mq.create_queue('q2', dead_letter => '')});
for my $how ('cancel', 'terminate')
{
	start_query($s[3], q{SELECT body FROM mq.dequeue_any('{q,q2}', wait => '1 minute', match => '{"to": "3"}')});
	wait_asleep($node, $pid[3]);
	$sql->("SELECT pg_${how}_backend($pid[3])");
	$how eq 'cancel' ? finish_query($s[3]) : dead_session($s[3]);
	wait_until($node, q{SELECT sum(consumers_waiting) = 0 FROM mq.stats}, "$how: it is in no list any more");
}
$put->('0');
is($s[0]->query_safe(q{SELECT body FROM mq.dequeue_any('{q2,q}', wait => '1 minute', auto_ack => true, match => '{"to": "0"}')}), '"0"', 'of several queues');

# At a limit: the one slot that becomes free is for the matcher, if the message is.
$sql->(q{SELECT mq.create_queue('l', dead_letter => '', lease => '1 h', max_in_flight => 1);
SELECT mq.enqueue('l', '1'); SELECT mq.enqueue('l', '2', headers => '{"to": "me"}'); SELECT FROM mq.dequeue('l')});
start_query($s[0], q{SELECT body FROM mq.dequeue('l', wait => '1 minute', match => '{"to": "me"}')});
wait_asleep($node, $pid[0]);
$took = elapsed
{
	$sql->(q{SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'l'});
	is(scalar finish_query($s[0]), 2, 'a free slot wakes a matcher');
};
cmp_ok($took, '<', 0.9, 'at once');
$_->quit for @s[0 .. 2];

# Behind dead rows that vacuum may not remove.
my $old = session($node);
$sql->(q{SELECT mq.create_queue('bloat', dead_letter => '')});
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
for (1 .. 3)
{
	$sql->(q{SELECT FROM mq.enqueue_batch('bloat', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 5000) i), headers => ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 5000) i));
SELECT FROM mq.dequeue('bloat', 4990, auto_ack => true, match => '{}');
SELECT FROM mq.dequeue('bloat', 10, auto_ack => true, match => '{}')});
}
$sql->(q{SELECT mq.enqueue('bloat', '"mine"', headers => '{"n": "mine"}')});
is($sql->(q{SELECT body FROM mq.dequeue('bloat', auto_ack => true, match => '{"n": "mine"}')}), '"mine"', 'behind 15,000 dead rows');
$old->quit;

# The queue becomes ordered in the middle of a search, which takes its time over long headers. What it leases holds its key, and lets go of it.
$sql->(q{SELECT mq.create_queue('turn', dead_letter => '', lease => '1 h');
SELECT count(mq.enqueue('turn', '0', headers => jsonb_build_object('n', 0, 'long', repeat('x', 300000)))) FROM generate_series(1, 3000);
SELECT FROM mq.enqueue_batch('turn', '{1,2}', headers => '{"{\"n\": 1}", "{\"n\": 1}"}', keys => '{a,a}')});
for my $round (1 .. 3)
{
	my $pid = backend_pid($s[0]);
	start_query($s[0], q{SELECT body FROM mq.dequeue('turn', match => '{"n": 1}')});
	wait_until($node, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $pid", 'it searches');
	$sql->(q{SELECT mq.alter_queue('turn', ordered => true)});
	is(finish_query($s[0]), '1', 'the first that fits');
	is($sql->(q{SELECT count(*) FROM mq.dequeue('turn', match => '{"n": 1}')}), 0, 'the next waits behind it');
	$sql->(q{SELECT mq.release(queue, id, receipt) FROM mq.in_flight WHERE queue = 'turn'});
	is($sql->(q{SELECT body FROM mq.dequeue('turn', match => '{"n": 1}')}), '1', 'it comes again');
	$sql->(q{SELECT mq.release(queue, id, receipt) FROM mq.in_flight WHERE queue = 'turn'});
	$sql->(q{SELECT mq.alter_queue('turn', ordered => false)});
}
my $searcher = backend_pid($s[0]);
start_query($s[0], q{SELECT body FROM mq.dequeue('turn', match => '{"n": 1}')});
wait_until($node, "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $searcher", 'it searches');
$sql->(q{SELECT mq.alter_queue('turn', ordered => true)});
finish_query($s[0]);
$sql->(q{DELETE FROM mq.q_turn WHERE body = '0'});
$sql->(q{SELECT FROM mq.dequeue('turn')});
is($sql->(q{SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'turn'}), 't', 'acknowledged');
is($sql->(q{SELECT body FROM mq.dequeue('turn')}), '2', 'the next of its key comes');

# After a crash and a restart what was leased by match is there again, once.
$sql->(q{SELECT mq.create_queue('r', dead_letter => '', backoff => '0', lease => '1 h');
SELECT mq.enqueue('r', to_jsonb(i), headers => jsonb_build_object('n', i % 2)) FROM generate_series(1, 6) i});
is($sql->(q{SELECT count(*) FROM mq.dequeue('r', 2, match => '{"n": 0}')}), 2, 'two leased');
stop_and_start($node, 'fast');
is($sql->(q{SELECT string_agg(body::text, ' ') FROM mq.dequeue('r', 5, match => '{"n": 0}')}), '6', 'a restart keeps the leases');
stop_and_start($node, 'immediate');
is($sql->(q{SELECT string_agg(body::text, ' ' ORDER BY id) FROM mq.dequeue('r', 5, auto_ack => true, match => '{"n": 0}')}), '2 4 6', 'a crash ends them');
is($sql->(q{SELECT string_agg(body::text, ' ' ORDER BY id) FROM mq.dequeue('r', 5, auto_ack => true)}), '1 3 5', 'the others were never touched');
$node->stop;
done_testing();
