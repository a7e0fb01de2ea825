# Producers and consumers race; each records what it did in the transaction in
# which it did it.  Every message that was committed has its effect exactly once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use IPC::Run;
use Test::More;

my $node = mq_node('main', conf => "log_statement = none\n");

$node->safe_psql('postgres', q{
CREATE TABLE sent (id bigint, n integer);
CREATE TABLE done (id bigint)});

# Eight clients, weights four to four; some of either roll back.
sub scripts
{
	my ($run) = @_;
	my $take = q{INSERT INTO done SELECT id FROM mq.dequeue('q', 3, auto_ack => true);};
	return {
		"${run}_produce\@3" => q{
\set n random(1, 1000000)
BEGIN;
INSERT INTO sent SELECT mq.enqueue('q', to_jsonb(:n::integer)), :n::integer;
END;
},
		"${run}_produce_batch\@1" => q{
BEGIN;
INSERT INTO sent SELECT id, 0 FROM mq.enqueue_batch('q', ARRAY['0', '0', '0']::jsonb[], priority => 5) id;
SAVEPOINT s;
SELECT mq.enqueue('q', '"undone"');
ROLLBACK TO s;
END;
},
		"${run}_produce_undo\@1" => q{
BEGIN;
SELECT mq.enqueue('q', '"undone"');
ROLLBACK;
},
		"${run}_consume\@3" => "BEGIN;\n$take\nEND;\n",
		"${run}_consume_undo\@1" => "BEGIN;\n$take\nROLLBACK;\n",
		# lease mode: the effect and the strict ack are one transaction
		"${run}_consume_lease\@1" => q{
SELECT '''' || coalesce(array_agg(id), '{}')::text || '''::bigint[]' AS ids,
       coalesce(max(receipt), 0) AS receipt FROM mq.dequeue('q', 3) \gset
BEGIN;
INSERT INTO done SELECT unnest(:ids);
SELECT mq.ack_batch('q', :ids, ARRAY[:receipt]::bigint[], strict => true);
END;
} };
}

sub drain
{
	for (1 .. 200)
	{
		return if $node->safe_psql('postgres', q{
INSERT INTO done SELECT id FROM mq.dequeue('q', 1000, wait => '200 ms', auto_ack => true);
SELECT count(*) FROM mq.q_q}) eq '0';
	}
	die 'the queue does not become empty';
}

# Empty when the books are right.
my $books = q{
SELECT 'lost', count(*) FROM sent WHERE id NOT IN (SELECT id FROM done) HAVING count(*) > 0
UNION ALL
SELECT 'doubled', count(*) - count(DISTINCT id) FROM done HAVING count(*) <> count(DISTINCT id)
UNION ALL
SELECT 'from nowhere', count(*) FROM done WHERE id NOT IN (SELECT id FROM sent) HAVING count(*) > 0};

for my $level ('read committed', 'repeatable read', 'serializable')
{
	(my $run = $level) =~ s/ /_/;
	$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 0);
TRUNCATE sent, done});
	$node->safe_psql('postgres',
		"ALTER DATABASE postgres SET default_transaction_isolation = '$level'");
	$node->pgbench(
		'--no-vacuum --client=8 --jobs=2 --transactions=60 --protocol=simple',
		0,
		[ qr{processed: 480/480}, qr{number of failed transactions: 0 } ],
		[qr{^$}],
		"$level: race",
		scripts($run));
	drain();
	cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM sent'),
		'>', 100, "$level: there was something to count");
	is($node->safe_psql('postgres', $books), '', "$level: every message exactly once");
	wait_until($node, q{
SELECT ready = 0 AND delayed = 0 AND in_flight = 0
   AND enqueued = (SELECT count(*) FROM sent) AND acked = (SELECT count(*) FROM done)
FROM mq.stats WHERE queue = 'q'}, "$level: the counters say the same");
	$node->safe_psql('postgres', q{SELECT mq.drop_queue('q'); SELECT mq.drop_queue('q_dead')});
}

# The same with a crash in the middle.
$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET default_transaction_isolation');
$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 0);
TRUNCATE sent, done});
my @files = $node->_pgbench_make_files(scripts('crash'));
my ($out, $err) = ('', '');
my $run = IPC::Run::start(
	[ 'pgbench', '--host', $node->host, '--port', $node->port, '--no-vacuum',
		'--client=8', '--jobs=2', '--time=120', @files, 'postgres' ],
	'>', \$out, '2>', \$err);
wait_until($node, 'SELECT count(*) > 200 FROM done', 'the race is on');
$node->stop('immediate');
eval { $run->finish };
$node->start;
drain();
is($node->safe_psql('postgres', $books), '', 'a crash: every message exactly once');

$node->stop;
done_testing();
