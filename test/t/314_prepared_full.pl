# Prepared transactions times the queues they touched are limited (1024): PREPARE is
# refused beyond.  A restart can bring back more, since any transaction that has
# locked a queue's table counts then: no message may be missed for that.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $nqueues = 30;
my $fit = int(1024 / $nqueues);
my $node = mq_node('prepared', conf => "max_prepared_transactions = 45\nautovacuum = off\nlog_statement = none");

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub enqueue_all
{
	return "SELECT count(mq.enqueue('p' || i, to_jsonb('$_[0]'::text))) FROM generate_series(1, $nqueues) i";
}

# The bodies that all queues deliver.
sub delivered
{
	my %got;
	$got{$_}++ for lines(sql(qq{
SELECT body #>> '{}' FROM generate_series(1, $nqueues) i, mq.dequeue('p' || i, 1000, auto_ack => true)}));
	return join ' ', sort map { "$_:$got{$_}" } keys %got;
}

sql(join ';', map { "SELECT mq.create_queue('p$_', lease => '1 hour', backoff => '0', dead_letter => '')" } 1 .. $nqueues);
sql(join ';', map { "BEGIN; " . enqueue_all("t$_") . "; PREPARE TRANSACTION 't$_'" } 1 .. $fit);
my ($state, $text) = error_of($node, "BEGIN; " . enqueue_all('more') . "; PREPARE TRANSACTION 'more'");
is($state, '53400', 'one too many is refused');
like($text, qr/HINT:.*pg_prepared_xacts/s, '... with a hint');
is(sql(q{SELECT count(*) FROM pg_prepared_xacts}), $fit, '... and is not prepared');
is(error_of($node, enqueue_all('plain')), '', 'other transactions go on');
is(delivered(), "plain:$nqueues", '... and deliver, nothing else does');
is(error_of($node, q{BEGIN; SELECT mq.enqueue('p1', '"small"'); PREPARE TRANSACTION 'small'}), '', 'what fits is prepared');

sql("COMMIT PREPARED 't1'; ROLLBACK PREPARED 't2'");
ok($node->poll_query_until('postgres', qq{SELECT sum(ready) = $nqueues FROM mq.stats}), 'one is committed, one rolled back');
is(error_of($node, "BEGIN; " . enqueue_all('more') . "; PREPARE TRANSACTION 'more'"), '', 'that makes room for another');
sql(join ';', "COMMIT PREPARED 'more'", "COMMIT PREPARED 'small'", map { "COMMIT PREPARED 't$_'" } 3 .. $fit);
my $all = $nqueues * $fit + 1;
ok($node->poll_query_until('postgres', qq{SELECT sum(ready) = $all FROM mq.stats}), 'all are committed');
is(delivered(), join(' ', sort "more:$nqueues", 'small:1', map { "t$_:$nqueues" } 1, 3 .. $fit), 'all they enqueued is delivered');

# More than that, as seen after a restart.
my $tables = join ', ', map { "mq.q_p$_" } 1 .. $nqueues;
my $readers = $fit + 3;
sql(join ';', map { "BEGIN; LOCK TABLE $tables IN ACCESS SHARE MODE; PREPARE TRANSACTION 'r$_'" } 1 .. $readers);
sql(join ';', map { "BEGIN; " . enqueue_all($_) . "; PREPARE TRANSACTION '$_'" } 'kept', 'undone');
stop_and_start($node, 'fast');
# Each queue is looked at while nothing of them is to be seen.
for my $i (1 .. $nqueues)
{
	my ($state, $text) = error_of($node, "SELECT * FROM mq.dequeue('p$i')");
	next if $state eq '' || $state eq '53400';
	fail("dequeue from p$i: $text");
}
sql("COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'undone'");
sql(join ';', map { "ROLLBACK PREPARED 'r$_'" } 1 .. $readers);
is(sql(qq{SELECT string_agg(i::text, ' ') FROM generate_series(1, $nqueues) i
	WHERE NOT EXISTS (SELECT FROM mq.dequeue('p' || i, wait => '3 seconds', auto_ack => true) m WHERE m.body = '"kept"')}),
	'', 'after a restart with more of them no queue misses its message');
is(delivered(), '', '... and nothing else comes');
$node->stop;
done_testing();
