# Routing: a fan-out to 1,000 queues, savepoints, prepared transactions, restart
# and crash, dump and restore, upgrade from 0.9, standby; bindings that change
# under many publishers.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use IPC::Run;
use Test::More;

my $node = mq_node('main', streaming => 1, conf => "log_statement = none\n");

sub all_of
{
	my ($db) = @_;
	return $node->safe_psql($db // 'postgres', q{
SELECT sum(ready), sum(enqueued), min(ready), max(ready) FROM mq.stats WHERE queue LIKE 'fan%'});
}

# One publish, 1,000 queues.
$node->safe_psql('postgres', q{
SELECT mq.create_exchange('fan', 'fanout');
DO $$ BEGIN
    FOR n IN 1..1000 LOOP
        PERFORM mq.create_queue('fan' || n, dead_letter => '', lease => '1 hour', max_attempts => 0, backoff => '0');
        PERFORM mq.bind('fan', 'fan' || n);
        IF n % 100 = 0 THEN COMMIT; END IF;
    END LOOP;
END $$});
my @waiting;
for my $n (1, 500, 1000)
{
	my $s = session($node);
	my $pid = backend_pid($s);
	start_query($s, "SELECT body, headers ->> 'x-routing-key' FROM mq.dequeue('fan$n', wait => '1 minute', auto_ack => true)");
	wait_asleep($node, $pid);
	push @waiting, $s;
}
is($node->safe_psql('postgres', q{SELECT mq.publish('fan', 'first', '"to all"')}), 1000, 'a publish to 1,000 queues');
for my $s (@waiting)
{
	is(finish_query($s), '"to all"|first', 'a consumer who waits for one of them is woken');
	$s->quit;
}
is(all_of(), '997|1000|0|1', 'all of them have it');

# All or nothing: savepoints, a queue that refuses, the connection lost.
is($node->safe_psql('postgres', q{
BEGIN;
SELECT mq.publish('fan', 'kept', '1');
SAVEPOINT s;
SELECT mq.publish('fan', 'undone', '2');
SELECT sum(p) FROM mq.publish_batch('fan', '{undone,undone}') p;
ROLLBACK TO s;
SELECT mq.publish('fan', 'kept', '3');
COMMIT}), "1000\n1000\n2000\n1000", 'publish in savepoints');
is(all_of(), '2997|3000|2|3', 'each queue has what was kept');
is($node->safe_psql('postgres', q{SELECT array_agg(headers ->> 'x-routing-key' ORDER BY id) FROM mq.q_fan777}), '{first,kept,kept}', '... that');
is($node->safe_psql('postgres', q{SELECT array_agg(body) FROM mq.dequeue('fan777', 10)}), '{"\"to all\"",1,3}', '... which is delivered');
is(error_of($node, q{SELECT mq.alter_queue('fan900', max_length => 3); SELECT mq.publish('fan', 'refused')}), '53400', 'one of 1,000 refuses');
is(all_of(), '2994|3000|0|3', 'none has it');
$node->safe_psql('postgres', q{SELECT mq.alter_queue('fan900', unset => '{max_length}')});
my $lost = session($node);
$lost->query_safe(q{BEGIN; SELECT mq.publish('fan', 'lost')});
my $pid = backend_pid($lost);
kill_client($lost);
wait_gone($node, $pid);
is(all_of(), '2994|3000|0|3', 'a publisher who goes without a COMMIT leaves nothing');

# PREPARE TRANSACTION: through an exchange to some, with a binding of its own.
$node->safe_psql('postgres', q{
SELECT mq.create_exchange('some'), mq.bind_exchange('some', 'alias', 'never') FROM mq.create_exchange('alias', 'fanout');
SELECT mq.create_queue('p' || n, dead_letter => ''), mq.bind('alias', 'p' || n) FROM generate_series(1, 20) n});
for my $how ('at once', 'over a restart', 'over a crash')
{
	for my $end ('COMMIT', 'ROLLBACK')
	{
		$node->safe_psql('postgres', qq{
BEGIN; SELECT mq.bind_exchange('some', 'alias', '$end.*'), mq.publish('some', '$end.x', '"prepared"'); PREPARE TRANSACTION '$end'});
		is($node->safe_psql('postgres', "SELECT mq.publish('some', '$end.x')"), 0, "$how: its binding is nobody else's yet");
	}
	stop_and_start($node, $how =~ /crash/ ? 'immediate' : 'fast') if $how ne 'at once';
	my $s = session($node);
	$pid = backend_pid($s);
	start_query($s, q{SELECT body FROM mq.dequeue('p7', wait => '1 minute', auto_ack => true)});
	wait_asleep($node, $pid);
	$node->safe_psql('postgres', "$_ PREPARED '$_'") for 'ROLLBACK', 'COMMIT';
	is(finish_query($s), '"prepared"', "$how: COMMIT PREPARED brings it");
	$s->quit;
	is($node->safe_psql('postgres', q{SELECT mq.publish('some', 'COMMIT.x'), mq.publish('some', 'ROLLBACK.x')}), '20|0', "$how: ... and its binding, ROLLBACK PREPARED none");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('p8', 10, auto_ack => true, wait => '10 s')}), 2, "$how: in the other queues too");
	$node->safe_psql('postgres', q{SELECT mq.unbind_exchange('some', 'alias', 'COMMIT.*'); SELECT mq.purge('p' || n) FROM generate_series(1, 20) n});
}
is($node->safe_psql('postgres', q{SELECT mq.publish('fan', 'after all that')}), 1000, 'exchanges and bindings stand');

# A dump has exchanges, bindings and grants; in each way of restoring.
$node->safe_psql('postgres', 'CREATE ROLE app; CREATE ROLE sender; CREATE ROLE stranger');
$node->safe_psql('postgres', "CREATE DATABASE $_") for 'src', 'plain', 'custom', 'parts', 'old';
$node->safe_psql('src', <<'SQL');
CREATE EXTENSION mq;
GRANT EXECUTE ON FUNCTION mq.create_queue, mq.create_exchange TO app;
SET ROLE app;
-- names so that no order of theirs happens to be right
SELECT mq.create_exchange('z_base', 'fanout'), mq.create_exchange('m_direct', 'direct', alternate => 'z_base'), mq.create_exchange('a_top', alternate => 'm_direct');
SELECT mq.create_exchange('heads', 'headers', alternate => 'a_top');
SELECT mq.create_queue('We.ird-Q', dead_letter_exchange => 'a_top', dead_letter_key => 'dead.letter'), mq.create_queue('plain', dead_letter => '', dead_letter_exchange => '', dead_letter_key => 'We.ird-Q');
SELECT mq.bind('a_top', 'We.ird-Q', 'a.*.#'), mq.bind('a_top', 'plain', 'dead.letter'), mq.bind('m_direct', 'plain', E'odd''\\"\t\nkey'), mq.bind('z_base', 'We.ird-Q'), mq.bind('heads', 'plain', match => '{"x-match": "any", "a": null, "b": {"c": [1, "x"]}}');
SELECT mq.bind_exchange('a_top', 'heads', 'to.heads'), mq.bind_exchange('heads', 'a_top', match => '{"up": true}'), mq.bind_exchange('z_base', 'z_base');
SELECT mq.grant_exchange('a_top', 'sender'), mq.grant_exchange('z_base', 'public'), mq.grant_exchange('heads', 'sender'), mq.revoke_exchange('heads', 'sender');
SELECT mq.publish('a_top', 'a.b', '"in the dump"');
SQL
my %compare = (
	exchanges => 'SELECT e FROM mq.exchange$ e ORDER BY name',
	grants => 'SELECT g FROM mq.exchange_grant$ g ORDER BY exchange, role',
	bindings => 'SELECT b FROM mq.binding$ b ORDER BY id',
	'their numbers' => 'SELECT last_value, is_called FROM mq.binding$id',
	messages => 'SELECT id, body, headers FROM mq."q_We.ird-Q"',
	options => 'SELECT to_jsonb(q) FROM mq.queue$ q ORDER BY name',
	triggers => q{SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE tgname = 'mq$changed' AND tgrelid::regclass::text ~ 'exchange|binding' ORDER BY 1::text});
my %before = map { $_ => $node->safe_psql('src', $compare{$_}) } keys %compare;
my @tell = ('--host', $node->host, '--port', $node->port);

sub restore
{
	my ($db, $name, @options) = @_;
	my ($dump_stderr, $stderr) = ('', '');
	ok( IPC::Run::run([ 'pg_dump', @tell, @options, 'src' ], '2>', \$dump_stderr, '|',
			[ 'psql', @tell, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', $db ], '2>', \$stderr),
		"$db: $name");
	is($dump_stderr . $stderr, '', "$db: ... without a word");
}
restore('plain', 'pg_dump | psql');
my $file = $node->basedir . '/src.dump';
my $stderr = '';
ok(IPC::Run::run([ 'pg_dump', @tell, '-Fc', '-f', $file, 'src' ], '2>', \$stderr)
	  && IPC::Run::run([ 'pg_restore', @tell, '--exit-on-error', '-j', '2', '-d', 'custom', $file ], '2>', \$stderr), 'custom: pg_restore -j');
is($stderr, '', 'custom: ... without a word');
restore('parts', 'the schema', '--schema-only');
is($node->safe_psql('parts', 'SELECT count(*) FROM mq.exchange$'), 0, 'parts: no data yet');
# a session that has looked in between
my $between = session($node, 'parts');
$between->query(q{SELECT mq.publish('a_top', 'a.b')});
$between->{stderr} = '';
restore('parts', 'the catalog alone', '--data-only', '-t', 'mq.*$*');
is($between->query_safe(q{SELECT mq.publish('a_top', 'a.b', '"in the dump"', mandatory => true)}), 1, 'parts: it sees what was restored');
$between->quit;

for my $db ('plain', 'custom', 'parts')
{
	for my $what (sort keys %compare)
	{
		is($node->safe_psql($db, $compare{$what}), $before{$what}, "$db: $what");
	}
	my %publish = (
		q{'a_top', 'a.b'} => 1, q{'a_top', 'dead.letter'} => 1, q{'a_top', 'none'} => 1, q{'heads', 'x'} => 1, q{'m_direct', E'odd''\\\\"\\t\\nkey'} => 1,
		q{'a_top', 'to.heads', headers => '{"b": {"c": [1, "x"]}}'} => 1);
	is($node->safe_psql($db, "SELECT mq.publish($_)"), $publish{$_}, "$db: publish($_)") for sort keys %publish;
	is($node->safe_psql($db, q{SET ROLE sender; SELECT mq.publish('a_top', 'a.b')}), 1, "$db: who was granted may");
	is(error_of($node, q{SET ROLE sender; SELECT mq.publish('heads', 'a.b')}, $db), '42501', "$db: who was not may not");
	is($node->safe_psql($db, q{SET ROLE stranger; SELECT mq.publish('z_base', 'a.b')}), 1, "$db: public is everybody");
	is(error_of($node, q{SET ROLE app; SELECT mq.bind('a_top', 'plain', 'new'); SELECT mq.bind('a_top', 'plain', 'new')}, $db), '', "$db: the owner binds");
	is(error_of($node, q{SET ROLE stranger; SELECT mq.bind('a_top', 'plain', 'newer')}, $db), '42501', "$db: nobody else");
	is(error_of($node, q{SELECT mq.drop_exchange('a_top')}, $db), '2BP01', "$db: what is referred to stays");
	like($node->safe_psql($db, q{
SELECT mq.purge('plain'); SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('We.ird-Q') m; SELECT headers ->> 'x-routing-key' FROM mq.q_plain}),
		qr/t\ndead\.letter$/, "$db: dead letters go their way");
}

# The library with the objects of 0.9, then updated with a queue there.
$node->safe_psql('old', q{CREATE EXTENSION mq VERSION '0.9'; SELECT mq.create_queue('q'); SELECT mq.enqueue('q', '"old"')});
is(error_of($node, q{SELECT mq.create_exchange('x')}, 'old'), '0A000', '0.9 has no exchanges');
my $open = session($node, 'old');
$open->query_safe(q{SELECT mq.enqueue('q', '"kept open"')});
$node->safe_psql('old', 'ALTER EXTENSION mq UPDATE');
$open->query_safe($_)
  for q{SELECT mq.create_exchange('x')}, q{SELECT mq.bind('x', 'q', 'k.*')}, q{SELECT mq.create_exchange('y')}, q{SELECT mq.bind_exchange('y', 'x')};
is($open->query_safe(q{SELECT mq.publish('y', 'k.k', '"new"')}), 1, '1.0: a session that was open makes them and publishes');
$open->quit;
is($node->safe_psql('old', q{SELECT array_agg(body) FROM mq.dequeue('q', 10, auto_ack => true)}), '{"\"old\"","\"kept open\"","\"new\""}', '1.0: into the queue that was there');
is(error_of($node, q{DROP EXTENSION mq CASCADE; CREATE EXTENSION mq; SELECT mq.publish('y', 'k.k')}, 'old'), '42704', 'an extension made anew has none');

# Publishers while bindings come and go: each message that was counted is there.
$node->safe_psql('postgres', q{
SELECT mq.create_exchange('churn'), mq.create_exchange('c2', 'direct'), mq.create_exchange('c3', 'headers', alternate => 'fan2') FROM mq.create_exchange('fan2', 'fanout');
SELECT mq.bind_exchange('churn', 'c2', '#'), mq.bind_exchange('c2', 'c3', 'k.k'), mq.bind_exchange('c3', 'churn', match => '{"a": 1}');
SELECT mq.create_queue('ch' || n, dead_letter => '') FROM generate_series(0, 4) n;
SELECT mq.bind('churn', 'ch0', 'k.*'), mq.bind('fan2', 'ch1');
CREATE TABLE counted (n bigint)});
$node->pgbench('-n -c 6 -t 150', 0, [qr{processed: 900/900}], [qr/^$/], 'publishers beside changes', {
		'publish@4' => q{
BEGIN;
INSERT INTO counted SELECT mq.publish('churn', 'k.k', '1', '{"a": 1}');
INSERT INTO counted SELECT sum(p) FROM mq.publish_batch('churn', '{k.k,k.k,x}', headers => ARRAY['{"a": 1}', NULL, '{}']::jsonb[]) p;
SAVEPOINT s;
SELECT mq.bind('c2', 'ch4', 'k.k');
SELECT mq.publish('churn', 'k.k');
ROLLBACK TO s;
END;
},
		'change@4' => q{
\set q random(2, 3)
\set n random(1, 1000)
SELECT mq.bind('churn', 'ch' || :q, 'k.' || :n), mq.bind('churn', 'ch' || :q, '#.k'), mq.bind('c3', 'ch' || :q, match => '{"a": 1}');
SELECT mq.unbind('churn', 'ch' || :q, '#.k'), mq.unbind('c3', 'ch' || :q, match => '{"a": 1}');
},
		'make@1' => q{
SELECT mq.create_exchange('x' || :client_id), mq.create_queue('xq' || :client_id, dead_letter => '');
SELECT mq.bind_exchange('churn', 'x' || :client_id), mq.bind('x' || :client_id, 'xq' || :client_id);
BEGIN;
SELECT mq.unbind('x' || :client_id, 'xq' || :client_id);
-- what was published there is counted as lost, since it goes with the queue
LOCK TABLE mq.q_xq:client_id;
INSERT INTO counted SELECT -count(*) FROM mq.q_xq:client_id;
SELECT mq.drop_queue('xq' || :client_id), mq.drop_exchange('x' || :client_id);
END;
} });
is($node->safe_psql('postgres', q{
SELECT (SELECT sum(n) FROM counted) = (SELECT count(*) FROM (SELECT FROM mq.q_ch0 UNION ALL SELECT FROM mq.q_ch1 UNION ALL SELECT FROM mq.q_ch2 UNION ALL SELECT FROM mq.q_ch3 UNION ALL SELECT FROM mq.q_ch4) m),
       (SELECT count(*) FROM mq.q_ch4)}), 't|0', 'what was counted arrived, what was rolled back did not');

# A standby has the exchanges and publishes nothing; promoted, it does.
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup('standby', 'replay', $node->lsn('insert'));
is(error_of($standby, "SELECT $_"), '25006', "on a standby: $_")
  for q{mq.publish('some', 'k')}, q{mq.publish('', 'fan1')}, q{mq.publish_batch('some', '{}')}, q{mq.bind('some', 'p1')}, q{mq.create_exchange('sb')}, q{mq.drop_exchange('some')};
is($standby->safe_psql('postgres', q{SELECT count(*) FROM mq.bindings WHERE exchange = 'alias'}), 20, 'the views work there');
my $follower = session($standby);
is(session_error($follower, q{SELECT mq.publish('fan', 'k')}), '25006', 'a session on the standby');
$node->safe_psql('postgres', q{SELECT mq.unbind('fan', 'fan1')});
$node->wait_for_catchup('standby', 'replay', $node->lsn('insert'));
$node->stop('immediate');
$standby->promote;
is($follower->query_safe(q{SELECT mq.publish('fan', 'k')}), 999, '... publishes after the promotion, by the latest bindings');
$follower->quit;

$standby->stop;
done_testing();
