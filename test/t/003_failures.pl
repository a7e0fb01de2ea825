# Messages come back when whoever holds them goes: session leases with their
# session, transactional ones with the transaction, leases by the clock.  Failed
# deliveries are counted, and a poison message ends among the dead letters.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');
wait_for_worker($node);

# Session leases.  The queue's own lease is far too long to explain a redelivery.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('sess', lease => '1 hour', backoff => '0', max_attempts => 0);
SELECT mq.enqueue('sess', '1')});
my %ends = (
	'quit' => sub { $_[0]->quit },
	'DISCARD ALL' => sub { $_[0]->query_safe('DISCARD ALL'); $_[0] },
	'pg_terminate_backend' => sub {
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($_[1])");
	},
	'a killed client' => sub { kill_client($_[0]) });
for my $end (sort keys %ends)
{
	my $s = session($node);
	my $pid = backend_pid($s);
	my $receipt = $s->query_safe(q{SELECT receipt FROM mq.dequeue('sess', session => true)});
	like($receipt, qr/^\d+$/, "$end: the session has the message");
	is( $node->safe_psql('postgres', qq{SELECT count(*) FROM mq.dequeue('sess')}),
		0, "$end: nobody else gets it");
	is( $node->safe_psql('postgres',
			q{SELECT pid FROM mq.in_flight WHERE queue = 'sess'}),
		$pid, "$end: mq.in_flight names the backend");
	$ends{$end}->($s, $pid);
	my ($id, $next) = split /\|/, $node->safe_psql('postgres',
		q{SELECT id, receipt FROM mq.dequeue('sess', wait => '20 seconds')});
	is($id, 1, "$end gives the message back");
	is($node->safe_psql('postgres', "SELECT mq.ack('sess', 1, $receipt)"),
		'f', "$end: the session's receipt is stale");
	is($node->safe_psql('postgres', "SELECT mq.release('sess', 1, $next)"),
		't', "$end: released for the next round");
	$s->quit if $end eq 'DISCARD ALL';
	dead_session($s) if $end eq 'pg_terminate_backend';
}

# A session lease settled by its session is settled.
my $s = session($node);
$s->query_safe(q{SELECT id FROM mq.dequeue('sess', session => true)});
is( $s->query_safe(q{SELECT mq.ack('sess', i.id, i.receipt) FROM mq.in_flight i
                     WHERE queue = 'sess'}),
	't', 'a session acknowledges its session lease');
$s->quit;
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_sess}), 0, 'it is gone');

# A lost connection counts, and says so in the row.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('lost', lease => '1 hour', backoff => '0');
SELECT mq.enqueue('lost', '1')});
$s = session($node);
is( $s->query_safe(q{BEGIN; SELECT attempt FROM mq.dequeue('lost', auto_ack => true)}),
	1, 'first attempt in an open transaction');
kill_client($s);
wait_until($node, q{SELECT attempts = 1 AND last_error <> '' FROM mq.q_lost},
	'the worker counts the attempt of a lost connection');
is( $node->safe_psql('postgres',
		q{SELECT attempt FROM mq.dequeue('lost', wait => '20 seconds')}),
	2, 'a lost connection gives the message back as the second attempt');
is( $node->safe_psql('postgres',
		q{SELECT redelivered FROM mq.stats WHERE queue = 'lost'}),
	1, 'the redelivery is counted');

# Poison.  Each kind of failure in its turn; exactly max_attempts deliveries.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('poison', lease => '1 hour', backoff => '0', max_attempts => 4);
SELECT mq.enqueue('poison', '"bad"', headers => '{"tenant": 7}')});
my @failures = (
	sub { $_[0]->query('SELECT 1/0'); $_[0]->query('COMMIT'); $_[0]->quit },
	sub { $_[0]->query_safe('ROLLBACK'); $_[0]->quit },
	sub { kill_client($_[0]) },
	sub {
		$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $_[1] . ')');
		dead_session($_[0]);
	});
my @attempts;
for my $n (1 .. 8)
{
	$s = session($node);
	my $pid = backend_pid($s);
	my $wait = $n <= 4 ? '20 seconds' : '100 ms';
	my $got = $s->query_safe(
		qq{BEGIN; SELECT attempt FROM mq.dequeue('poison', auto_ack => true, wait => '$wait')});
	push @attempts, $got if $got ne '';
	$failures[ ($n - 1) % 4 ]->($s, $pid);
}
is("@attempts", '1 2 3 4', 'a poison message is delivered exactly max_attempts times');
wait_until($node, q{SELECT count(*) = 1 FROM mq.q_poison_dead},
	'then it is among the dead letters');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_poison}),
	0, 'and not in its queue any more');
is( $node->safe_psql('postgres', q{
SELECT body, headers->>'tenant', jsonb_array_length(headers->'x-death'),
       headers #>> '{x-death,0,queue}', headers #>> '{x-death,0,id}',
       headers #>> '{x-death,0,reason}', headers #>> '{x-death,0,attempts}'
FROM mq.q_poison_dead}),
	'"bad"|7|1|poison|1|attempts|4', 'the dead letter says where and why it died');
wait_until($node, q{SELECT dead = 1 AND ready = 0 AND in_flight = 0
                    FROM mq.stats WHERE queue = 'poison'}, 'the death is counted');

# A lease ends by the clock: the worker counts it with nobody dequeuing …
$node->safe_psql('postgres', q{
SELECT mq.create_queue('short', lease => '300 ms', backoff => '0', max_attempts => 3);
SELECT mq.enqueue('short', '1')});
my $receipt = $node->safe_psql('postgres', q{SELECT receipt FROM mq.dequeue('short')});
wait_until($node, q{SELECT attempts = 1 AND last_error <> '' FROM mq.q_short},
	'the worker counts an ended lease');
is( $node->safe_psql('postgres', "SELECT mq.ack('short', 1, $receipt)"),
	'f', 'the receipt of an ended lease is stale');
is($node->safe_psql('postgres', q{SELECT expired FROM mq.stats WHERE queue = 'short'}),
	1, 'the ended lease is counted');
# … and it is delivered until it is dead.
is( $node->safe_psql('postgres',
		q{SELECT attempt FROM mq.dequeue('short', wait => '20 seconds')}),
	2, 'redelivered after its lease');
is( $node->safe_psql('postgres',
		q{SELECT attempt FROM mq.dequeue('short', wait => '20 seconds')}),
	3, 'and again, to a consumer that waited');
wait_until($node, q{SELECT count(*) = 1 FROM mq.q_short_dead},
	'after max_attempts ended leases it is dead');

# A transaction that stays open longer than the lease keeps the message.
$node->safe_psql('postgres', q{SELECT mq.create_queue('open', lease => '200 ms', backoff => '0');
SELECT mq.enqueue('open', '1')});
$s = session($node);
$receipt = $s->query_safe(q{BEGIN; SELECT receipt FROM mq.dequeue('open')});
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM mq.dequeue('open', wait => '1500 ms')}),
	0, 'a lease does not end while its transaction is open');
is($s->query_safe("SELECT mq.ack('open', 1, $receipt)"), 't', 'and can be acknowledged');
$s->query_safe('COMMIT');
$s->quit;
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_open}), 0, 'consumed');

# A queue that has yet to be committed is not taken for one that is gone.
$s = session($node);
$s->query_safe(q{BEGIN; SELECT mq.create_queue('late'); SELECT mq.enqueue('late', '1')});
$node->safe_psql('postgres', q{
SELECT mq.create_queue('other', lease => '200 ms', backoff => '0');
SELECT mq.enqueue('other', '1'); SELECT mq.dequeue('other')});
wait_until($node, q{SELECT attempts >= 1 FROM mq.q_other}, 'the worker has looked around');
$s->query_safe('COMMIT');
$s->quit;
is( $node->safe_psql('postgres',
		q{SELECT ready, enqueued, exact FROM mq.stats WHERE queue = 'late'}),
	'1|1|t', 'a queue made meanwhile has its counters');

$node->stop;
done_testing();
