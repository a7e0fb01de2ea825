# The worker's dead letters through an exchange: ended leases, poison by rollback,
# expired messages; what the log says; a queue that is locked or refuses keeps
# nobody else waiting; prepared transactions, restart and crash.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;

my $node = mq_node('main');

$node->safe_psql('postgres', q{
SELECT mq.create_exchange('dlx'), mq.create_exchange('all', 'fanout');
SELECT mq.bind_exchange('dlx', 'all', 'dead.*');
SELECT mq.create_queue('sink', dead_letter => ''), mq.create_queue('sink2', dead_letter => '');
SELECT mq.bind('all', 'sink'), mq.bind('all', 'sink2');
SELECT mq.create_queue('s', max_attempts => 1, backoff => '0', dead_letter => '', dead_letter_exchange => 'dlx', dead_letter_key => 'dead.s')});
wait_for_worker($node);

my $deaths = q{(SELECT string_agg(concat_ws(' ', d.v ->> 'queue', d.v ->> 'reason', d.v ->> 'attempts'), ', ' ORDER BY d.n)
FROM jsonb_array_elements(headers -> 'x-death') WITH ORDINALITY d (v, n))};

# What has arrived, in both queues; taken away.
sub arrived
{
	my ($n, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;

	wait_until($node, "SELECT (SELECT count(*) FROM mq.q_sink) = $n AND (SELECT count(*) FROM mq.q_sink2) = $n", $name);
	my ($one, $two) = map { $node->safe_psql('postgres', "SELECT body, headers ->> 'x-routing-key', $deaths FROM mq.q_$_ ORDER BY id") } 'sink', 'sink2';
	is($two, $one, '... the same in each queue');
	$node->safe_psql('postgres', 'TRUNCATE mq.q_sink, mq.q_sink2');
	return $one;
}

# Each way to die without anybody calling a verb.
$node->safe_psql('postgres', q{SELECT mq.enqueue('s', '"lease"'); SELECT count(*) FROM mq.dequeue('s', lease => '10 ms')});
is(arrived(1, 'a lease that ended'), '"lease"|dead.s|s attempts 1', 'x-death');
$node->safe_psql('postgres', q{SELECT mq.enqueue('s', '"poison"'); BEGIN; SELECT count(*) FROM mq.dequeue('s'); ROLLBACK});
is(arrived(1, 'a rollback'), '"poison"|dead.s|s attempts 1', 'x-death');
$node->psql('postgres', q{SELECT mq.enqueue('s', '"error"'); SELECT 1 / (body IS NULL)::int FROM mq.dequeue('s')});
is(arrived(1, 'an error'), '"error"|dead.s|s attempts 1', 'x-death');
my $s = session($node);
$s->query_safe(q{SELECT mq.enqueue('s', '"gone"')});
$s->query_safe(q{SELECT count(*) FROM mq.dequeue('s', session => true)});
kill_client($s);
is(arrived(1, 'a session that ended'), '"gone"|dead.s|s attempts 1', 'x-death');
$node->safe_psql('postgres', q{SELECT count(*) FROM mq.enqueue_batch('s', array_fill('"ttl"'::jsonb, '{1000}'), ttl => '1 ms')});
is(join(',', keys %{ { map { $_ => 1 } lines(arrived(1000, 'a thousand that expired')) } }), '"ttl"|dead.s|s expired 0', 'x-death');
$node->safe_psql('postgres', q{SELECT mq.publish('', 's', '"by publish"', ttl => '1 ms')});
is(arrived(1, 'a message that was published'), '"by publish"|dead.s|s expired 0', 'its exchange is now this one');

# Over a restart and a crash: nobody touches the queue.
for my $mode ('fast', 'immediate')
{
	$node->safe_psql('postgres', q{
SELECT mq.enqueue('s', '"expires"', ttl => '500 ms');
SELECT mq.enqueue('s', '"leased"', priority => 1); SELECT count(*) FROM mq.dequeue('s', lease => '300 ms')});
	stop_and_start($node, $mode);
	is(arrived(2, "after a $mode shutdown") =~ tr/|//, 4, '... two dead letters');
}

# A prepared reject: dead when it commits, leased as before when it does not.
for my $end ('COMMIT', 'ROLLBACK')
{
	$node->safe_psql('postgres', qq{
SELECT mq.enqueue('s', '"prepared"');
BEGIN; SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s', lease => '10 ms') m; PREPARE TRANSACTION 'r'});
	is($node->safe_psql('postgres', 'SELECT count(*) FROM mq.q_sink'), 0, "$end PREPARED: not yet");
	$node->safe_psql('postgres', "$end PREPARED 'r'");
	is(arrived(1, "$end PREPARED"), $end eq 'COMMIT' ? '"prepared"|dead.s|s rejected 1' : '"prepared"|dead.s|s attempts 1', 'x-death');
}

# What the exchange leads nowhere: to the dead-letter queue, or dropped and logged.
my $offset = -s $node->logfile;
$node->safe_psql('postgres', q{SELECT mq.alter_queue('s', dead_letter_key => 'nowhere'); SELECT mq.enqueue('s', '"lost"', ttl => '1 ms')});
$node->wait_for_log(qr/queue "s" dropped message \d+ after 0 attempts \(expired\): no queue is bound for them to exchange "dlx", and it has no dead-letter queue/, $offset);
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{SELECT mq.enqueue_batch('s', '{1,2,3}', ttl => '1 ms')});
$node->wait_for_log(qr/queue "s" dropped 3 messages \(expired\): no queue is bound/, $offset);
$node->safe_psql('postgres', q{SELECT mq.create_queue('last', dead_letter => ''); SELECT mq.alter_queue('s', dead_letter => 'last'); SELECT mq.enqueue('s', '"last"', ttl => '1 ms')});
wait_until($node, q{SELECT array_agg(body) = '{"\"last\""}' FROM mq.q_last}, 'to the dead-letter queue, if there is one');
$node->safe_psql('postgres', q{SELECT mq.alter_queue('s', dead_letter_key => 'dead.s', dead_letter => '')});

# A circle without a rejection: one line, the queue it would come back to not reached.
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{
SELECT mq.create_queue('r' || n, dead_letter => '', ttl => '1 ms', dead_letter_exchange => '', dead_letter_key => 'r' || (n % 3 + 1)) FROM generate_series(1, 3) n;
SELECT mq.enqueue('r2', '"round"')});
$node->wait_for_log(qr/queue "r1" dropped message \d+ after 0 attempts \(expired\): exchange "" leads back where it has died, and it was rejected nowhere/, $offset);
is($node->safe_psql('postgres', q{SELECT string_agg(enqueued || '/' || dead, ' ' ORDER BY queue) FROM mq.stats WHERE queue ~ '^r\d'}), '1/1 1/1 1/1', 'once through each');
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{BEGIN; SELECT mq.enqueue_batch('r2', '{1,2,3,4}'); COMMIT});
$node->wait_for_log(qr/queue "r1" dropped \d+ messages? .*leads back where/, $offset);
wait_until($node, q{SELECT NOT EXISTS (SELECT FROM mq.q_r1 UNION ALL SELECT FROM mq.q_r2 UNION ALL SELECT FROM mq.q_r3)}, 'all of a batch');

# A locked table among the targets: the worker goes on with other queues, and
# nothing is half-routed; freed, it arrives.
$node->safe_psql('postgres', q{SELECT mq.create_queue('other', ttl => '1 ms'), mq.create_queue('o2', max_attempts => 1, backoff => '0')});
my $lock = session($node);
$offset = -s $node->logfile;
$lock->query_safe($_) for 'BEGIN', 'LOCK TABLE mq.q_sink2';
$node->safe_psql('postgres', q{
SELECT mq.enqueue('s', '"stuck"', ttl => '1 ms'); SELECT mq.enqueue('s', '"stuck too"', priority => 1); SELECT count(*) FROM mq.dequeue('s', lease => '1 ms');
SELECT mq.enqueue('other', '1'); SELECT mq.enqueue('o2', '2'); BEGIN; SELECT count(*) FROM mq.dequeue('o2'); ROLLBACK});
wait_until($node, q{SELECT (SELECT count(*) FROM mq.q_other_dead) + (SELECT count(*) FROM mq.q_o2_dead) = 2}, 'the worker does not wait for a locked target');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_sink}), 0, 'nothing half-routed');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.backend_type = 'mq worker'}), 0, 'it waits for no lock');
$node->wait_for_log(qr/queue "s": could not move expired messages to the dead letters: dead-letter queue "sink2" is locked/, $offset);
$node->wait_for_log(qr/queue "s": could not write the failed delivery of message \d+: dead-letter queue "sink2" is locked/, $offset);
unlike(slurp_file($node->logfile, $offset), qr/lock timeout/, 'nor has it');
# a consumer who rejects does wait, as for any table
$s = session($node);
my $pid = backend_pid($s);
$s->query_safe(q{SELECT mq.enqueue('s', '"rejected"', priority => 9)});
start_query($s, q{SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m});
wait_until($node, qq{SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid}, 'a consumer who rejects waits for it');
$lock->query_safe('COMMIT');
is(finish_query($s), 't', '... and goes on');
like(arrived(3, 'freed, all arrive'), qr/"stuck"\|dead\.s\|s expired/, '... by what they died of');
$_->quit for $s, $lock;

# A target that refuses holds up its own messages only, and what is mended goes on.
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{
ALTER TABLE mq.q_sink2 ADD CONSTRAINT refuses CHECK (body <> '"refused"');
SELECT mq.enqueue('s', '"refused"', ttl => '1 ms'); SELECT mq.enqueue('s', '"fine"', ttl => '1 ms'); SELECT mq.enqueue('other', '3')});
wait_until($node, q{SELECT (SELECT count(*) FROM mq.q_sink2) = 1 AND (SELECT count(*) FROM mq.q_other_dead) = 2}, 'a row that is refused is isolated from its batch');
is($node->safe_psql('postgres', q{SELECT array_agg(body) FROM mq.q_sink}), '{"\"fine\""}', '... and half-routed nowhere');
is($node->safe_psql('postgres', q{SELECT array_agg(body) FROM mq.q_s}), '{"\"refused\""}', '... but kept');
$node->safe_psql('postgres', 'ALTER TABLE mq.q_sink2 DROP CONSTRAINT refuses');
$node->restart;    # the pause after a failure can be long
arrived(2, 'mended, it arrives');

# So does an owner who may not publish to the exchange any more.
$offset = -s $node->logfile;
$node->safe_psql('postgres', q{
CREATE ROLE app; SELECT mq.grant_exchange('dlx', 'app'); ALTER TABLE mq.q_s OWNER TO app; SELECT mq.revoke_exchange('dlx', 'app');
SELECT mq.enqueue('s', '"no right"', ttl => '1 ms')});
$node->wait_for_log(qr/permission denied for exchange "dlx"/, $offset);
is($node->safe_psql('postgres', q{SELECT array_agg(body) FROM mq.q_s}), '{"\"no right\""}', 'it is kept');
$node->safe_psql('postgres', q{SELECT mq.grant_exchange('dlx', 'app')});
$node->restart;
arrived(1, 'given back, it arrives');

# The worker goes by the latest bindings.
for my $n (1 .. 5)
{
	$node->safe_psql('postgres', q{SELECT mq.unbind('all', 'sink2'), mq.create_queue('new', dead_letter => ''), mq.bind('all', 'new')});
	$node->safe_psql('postgres', qq{SELECT mq.enqueue('s', '$n', ttl => '1 ms')});
	wait_until($node, q{SELECT (SELECT count(*) FROM mq.q_sink) = 1 AND (SELECT count(*) FROM mq.q_new) = 1}, "by the bindings as they are, $n");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_sink2}), 0, '... not as they were');
	$node->safe_psql('postgres', q{SELECT mq.unbind('all', 'new'), mq.drop_queue('new'), mq.bind('all', 'sink2')});
	$node->safe_psql('postgres', qq{SELECT mq.enqueue('s', '$n', ttl => '1 ms')});
	wait_until($node, q{SELECT (SELECT count(*) FROM mq.q_sink) = 2 AND (SELECT count(*) FROM mq.q_sink2) = 1}, '... and back');
	$node->safe_psql('postgres', 'TRUNCATE mq.q_sink, mq.q_sink2');
}

$node->stop;
done_testing();
