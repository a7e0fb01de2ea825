# 250 sessions wait at once: each gets one message when messages come, on one queue
# as on many, all of them can be cancelled, and nobody else is kept from anything.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use IPC::Run ();
use Test::More;

my $n = 250;
my $node = mq_node('crowd', conf => "max_connections = 300\nautovacuum = off\nlog_statement = none");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(q{
SELECT mq.create_queue(name, lease => '1 hour', backoff => '0', dead_letter => '')
	FROM unnest(ARRAY['one', 'calm']) name;
CREATE TABLE got (client integer, queue text, id bigint)});
sql(join ';', map { "SELECT mq.create_queue('w$_', dead_letter => '')" } 0 .. 49);

# pgbench is one process with as many connections as one likes.
sub start_crowd
{
	my ($script) = @_;
	my %crowd = (out => '', err => '');
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script';

	PostgreSQL::Test::Utils::append_to_file($file, $script);
	$crowd{run} = IPC::Run::start(
		[ 'pgbench', '-n', '-c', $n, '-j', 2, '-t', 1, '-f', $file, $node->connstr('postgres') ],
		'<', \undef, '>', \$crowd{out}, '2>', \$crowd{err}, IPC::Run::timeout(60));
	return \%crowd;
}

sub all_wait
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_until($node, "SELECT sum(consumers_waiting) = $n FROM mq.stats", $_[0]);
}

sub finish_crowd
{
	my ($crowd, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	$crowd->{run}->finish;
	return ok($crowd->{run}->full_result == 0, "$name: no session has failed") || diag($crowd->{err});
}

# One queue: half of the messages in one commit, the others each in its own.
my $crowd = start_crowd(q{
INSERT INTO got SELECT :client_id, queue, id FROM mq.dequeue('one', wait => '1 minute', auto_ack => true);});
all_wait("$n sessions wait on one queue");
is(sql(q{SELECT mq.enqueue('calm', '1') > 0; SELECT mq.ack(m) FROM mq.dequeue('calm', wait => '10 s') m}), "t\nt",
	'... and keep nobody from another');
sql("SELECT count(*) FROM mq.enqueue_batch('one', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, $n / 2) i))");
sql(join ';', map { "SELECT mq.enqueue('one', '$_')" } 1 .. $n - $n / 2);
finish_crowd($crowd, 'one queue');
is(sql('SELECT count(*), count(DISTINCT client), count(DISTINCT id) FROM got'), "$n|$n|$n",
	'each session got one message, each message went to one');
is(sql(q{SELECT consumers_waiting, ready FROM mq.stats WHERE queue = 'one'}), '0|0', 'nobody waits, nothing is left');

# Many queues, five sessions each.
sql('TRUNCATE got');
$crowd = start_crowd(q{\set q mod(:client_id, 50)
INSERT INTO got SELECT :client_id, queue, id FROM mq.dequeue('w' || :q, wait => '1 minute', auto_ack => true);});
all_wait("$n sessions wait on 50 queues");
sql("SELECT count(mq.enqueue('w' || i % 50, '1')) FROM generate_series(1, $n) i");
finish_crowd($crowd, '50 queues');
is(sql('SELECT count(*), count(DISTINCT client), count(DISTINCT (queue, id)) FROM got'), "$n|$n|$n",
	'each session got one message, each message went to one');
is(sql(q{SELECT count(*) FROM got WHERE queue <> 'w' || client % 50}), 0, '... of its queue');

# All wait for one message without taking it: it is passed on to each.
$crowd = start_crowd(q{CALL mq.wait('one', '1 minute');});
all_wait("$n sessions in mq.wait");
is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()}),
	0, 'none of them holds a snapshot');
my $took = elapsed
{
	sql(q{SELECT mq.enqueue('one', '"for all"')});
	finish_crowd($crowd, 'mq.wait');
};
cmp_ok($took, '<', 50, 'one message ends the wait of all');
is(sql(q{SELECT body, attempt FROM mq.dequeue('one', auto_ack => true)}), '"for all"|1', '... and is still there');

# All cancelled at once.
$crowd = start_crowd(q{\set wait mod(:client_id, 2)
\if :wait
CALL mq.wait('one', '1 minute');
\else
SELECT * FROM mq.dequeue('one', wait => '1 minute');
\endif});
all_wait("$n sessions in both");
is(sql(q{SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()}), $n, 'all are cancelled');
$crowd->{run}->finish;
my @cancelled = $crowd->{err} =~ /ERROR:  (canceling statement due to user request)/g;
is(scalar @cancelled, $n, '... and say so');
wait_until($node, q{SELECT consumers_waiting = 0 FROM mq.stats WHERE queue = 'one'}, 'nobody waits any more');
is(sql(q{SELECT mq.enqueue('one', '2') > 0; SELECT body, attempt FROM mq.dequeue('one')}), "t\n2|1",
	'a message is not lost on them');
$node->stop;
done_testing();
