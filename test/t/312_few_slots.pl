# Tables in shared memory that are full: PostgreSQL's locks, its background workers,
# and mq's own queues and leases.  What does not fit is refused whole, the rest goes
# on, and so does all when there is room.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sub worker_pid
{
	return sql(q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'mq worker'});
}

sub has_crashed
{
	return scalar grep { /PANIC|TRAP|was terminated by signal|exited with exit code/ }
	  split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
}

# ------------------------------------------------------------------ locks

$node = mq_node('locks', conf => q{
max_locks_per_transaction = 10
max_connections = 10
max_prepared_transactions = 2
max_worker_processes = 3
autovacuum = off
log_statement = none});
wait_for_worker($node);
my $worker = worker_pid();

my ($state, $text) = error_of($node, q{SELECT mq.create_queue('many' || i, dead_letter => '') FROM generate_series(1, 1000) i});
is($state, '53200', 'a thousand queues made in one transaction are too many locks');
like($text, qr/HINT:.*max_locks_per_transaction/s, '... with a hint');
is(sql('SELECT count(*) FROM mq.queues'), 0, '... and none is made');

my $nq = 60;
sql(join ';', map { "SELECT mq.create_queue('q$_', lease => '1 hour', backoff => '0', dead_letter => '')" } 1 .. $nq);
sub enqueue { return "SELECT count(mq.enqueue('q' || i, '$_[0]')) FROM generate_series(1, $nq) i" }
sub take { return "SELECT count(*) FROM generate_series(1, $nq) i, mq.dequeue('q' || i) m" }
sql(join ';', map { "SELECT mq.enqueue('q$_', '0')" } 1 .. $nq);

# Somebody takes all that are left: an error gives back the others, but not these.
# Then not even a connection can be made.
my $s = session($node);
$s->query_safe(q{SELECT body FROM mq.dequeue('q2', auto_ack => true)});
my $hog = session($node);
is(session_error($hog, 'SELECT pg_advisory_lock(i) FROM generate_series(1, 100000) i'), '53200', 'no lock is left');

# A dequeue takes no transaction id, and few locks.
my $at = join ', ', split /\|/, $s->query_safe(q{SELECT id, receipt FROM mq.dequeue('q1')});
like($at, qr/^\d+, \d+$/, 'a message can be taken');
is(session_error($s, "SELECT mq.ack('q1', $at)"), '53200', 'an ack is refused');
is(session_error($s, "SELECT mq.nack('q1', $at)"), '53200', '... and a nack');
is(session_error($s, "SELECT mq.enqueue('q2', '1')"), '53200', '... and an enqueue');
is(session_error($s, take()), '53200', '... and deliveries from many queues');
is($s->query_safe("SELECT mq.extend('q1', $at, '2 hours')"), 't', 'the delivery stays');
$s->query_safe(qq{BEGIN; SELECT * FROM mq.dequeue('q$nq'); ROLLBACK});
is($s->query_safe(qq{SELECT attempt FROM mq.dequeue('q$nq')}), 2, 'a rollback is counted');

# A few.
$hog->query_safe('SELECT count(pg_advisory_unlock(i)) FROM generate_series(1, 30) i');
is(sql('SELECT count(*) FROM mq.in_flight'), 2, 'with a few locks: of what was refused nothing is left');
is(sql("SELECT mq.ack('q1', $at)"), 't', 'an ack is possible');
is(error_of($node, q{SELECT mq.enqueue('q1', '0')}), '', '... and an enqueue');
is(error_of($node, enqueue('1')), '53200', '... but not into many queues at once');
is(sql('SELECT sum(ready + delayed) FROM mq.stats'), $nq - 2, 'of which nothing is left');
$s->query_safe(q{BEGIN; SELECT mq.enqueue('q1', '"kept"'); SAVEPOINT s});
is(session_error($s, enqueue('2')), '53200', 'so it is under a savepoint');
$s->query_safe('ROLLBACK TO s; COMMIT');
$s->quit;
is(sql(q{SELECT count(*) FROM mq.dequeue('q1', 10, auto_ack => true) WHERE body IN ('0', '"kept"')}), 2, '... which undoes what was done under it');

# All.
$hog->query_safe('SELECT pg_advisory_unlock_all()');
$hog->quit;
is(sql(enqueue('3')), $nq, 'with room again many queues are fed at once');
is(sql(q{SELECT count(mq.ack(queue, id, receipt)) FROM mq.in_flight}), 1, 'what was held is acknowledged');
is(sql("SELECT count(*) FROM generate_series(1, $nq) i, mq.dequeue('q' || i, 10, auto_ack => true) m"), 2 * $nq - 3,
	'... all is delivered');
sql(q{SELECT mq.enqueue('q5', '4'); BEGIN; SELECT * FROM mq.dequeue('q5'); ROLLBACK});
wait_until($node, 'SELECT attempts = 1 FROM mq.q_q5', 'the worker works');
is(worker_pid(), $worker, '... the same as before');
is(has_crashed(), 0, 'nothing has crashed');
$node->stop;

# ------------------------------------- no worker at all, few queues, few leases

$node = mq_node('slots', conf => q{
max_worker_processes = 0
mq.max_queues = 8
mq.max_in_flight = 128
autovacuum = off
log_statement = none});

is(sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'mq %'}), 0, 'neither launcher nor worker');
like(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/too many background workers.*max_worker_processes/s, '... and the log says why');
sql(q{SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 2)});
is(sql(q{SELECT mq.enqueue('q', '1') > 0; SELECT mq.ack(m) FROM mq.dequeue('q') m}), "t\nt", 'messages come and go');
$s = session($node);
$s->query_safe(q{SELECT mq.listen('q')});
my $pid = backend_pid($s);
start_query($s, q{SELECT body FROM mq.dequeue('q', wait => '1 minute', auto_ack => true)});
wait_asleep($node, $pid);
is(error_of($node, q{SELECT mq.enqueue('q', '2')}), '', 'a commit');
is(finish_query($s), '2', '... wakes a consumer');
sql(q{SELECT mq.enqueue('q', '3'); BEGIN; SELECT * FROM mq.dequeue('q'); ROLLBACK; BEGIN; SELECT * FROM mq.dequeue('q'); ROLLBACK});
is(sql(q{SELECT count(*) FROM mq.dequeue('q'); SELECT body, headers #>> '{x-death,0,attempts}' FROM mq.q_q_dead}), "0\n3|2",
	'without attempts left a message is taken to the dead letters by who asks for it');
is(error_of($node, 'CREATE DATABASE brief'), '', 'databases are made');
is(error_of($node, 'DROP DATABASE brief'), '', '... and dropped');
sql(q{SELECT mq.drop_queue('q'); SELECT mq.drop_queue('q_dead')});

# Busy queues: seven with a lease, one with somebody waiting.
sql(join ';', map { "SELECT mq.create_queue('b$_', lease => '1 hour', dead_letter => '')" } 1 .. 10);
sql(join ';', map { "SELECT mq.enqueue('b$_', '$_')" } 1 .. 7, 9);
sql(join ';', map { "SELECT * FROM mq.dequeue('b$_')" } 1 .. 7);
start_query($s, q{SELECT body FROM mq.dequeue('b8', wait => '1 minute', auto_ack => true)});
wait_asleep($node, $pid);
for my $try (
	q{SELECT * FROM mq.dequeue('b9')},
	q{SELECT * FROM mq.dequeue('b9', wait => '1 minute')},
	q{SELECT * FROM mq.dequeue('b9', auto_ack => true)},
	q{CALL mq.wait('b9', '1 minute')},
	q{BEGIN; SELECT mq.enqueue('b9', '"p"'); PREPARE TRANSACTION 'p'})
{
	($state, $text) = error_of($node, $try);
	is($state, '53400', "with all slots busy: $try");
	like($text, qr/HINT:.*mq\.max_queues/s, '... with a hint');
}
is(error_of($node, q{SELECT mq.enqueue('b9', '10'); SELECT mq.enqueue('b8', '8');
SELECT * FROM mq.stats; SELECT * FROM mq.browse('b9'); SELECT mq.pause('b10')}),
	'', 'to enqueue, to pause and to look needs no slot');
is(finish_query($s), '8', '... and wakes who waits');
is(sql(q{SELECT body FROM mq.dequeue('b9', 10)}), "9\n10", 'with one slot free the next queue has it, and all its messages');
is(error_of($node, q{SELECT * FROM mq.dequeue('b10')}), '53400', '... and the one after has none');
is(sql(q{SELECT sum(mq.ack(f.queue, f.id, f.receipt)::int) FROM mq.in_flight f WHERE queue <> 'b1'}), 8, 'acknowledged');
sql(q{SELECT mq.resume('b10'); SELECT mq.enqueue('b10', '11')});
is(sql(q{SELECT body FROM mq.dequeue('b10', auto_ack => true)}), '11', '... they make room');

# Half of the leases are one queue's, and it has more messages.
sql(q{SELECT count(*) FROM mq.enqueue_batch('b2', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 66) i))});
is(sql(q{SELECT count(*) FROM mq.dequeue('b2', 100)}), 64, 'half of the leases');
is(error_of($node, q{SELECT * FROM mq.dequeue('b2', wait => '1 minute')}), '53400', 'a dequeue that may wait is refused at once');
my $took = elapsed { error_of($node, q{CALL mq.wait('b2', '4 seconds')}) };
cmp_ok($took, '<', 4, 'mq.wait does not wait for what is there already');
is(sql(q{SELECT sum(mq.ack(f.queue, f.id, f.receipt)::int) FROM mq.in_flight f WHERE queue = 'b2'}), 64, 'acknowledged');
is(sql(q{SELECT count(*) FROM mq.dequeue('b2', 100)}), 2, 'the rest is delivered');
$s->quit;
is(has_crashed(), 0, 'nothing has crashed');
$node->stop;
done_testing();
