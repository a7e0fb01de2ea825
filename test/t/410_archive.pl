# The worker makes an archive's partitions ahead and drops old ones whole, while
# acks are open, and waits for no lock.  The archive in a crash, with PREPARE
# TRANSACTION, and in a dump.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use IPC::Run;
use Test::More;

my $node = mq_node('main');

# The worker looks once a minute, and when it starts.
sub new_worker
{
	my $pid = $node->safe_psql('postgres', q{
SELECT pid FROM pg_stat_activity WHERE backend_type = 'mq worker' AND datname = 'postgres'});
	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	wait_gone($node, $pid);
	wait_for_worker($node);
	return;
}

# A partition of the far past with a row in it, dated back.
sub add_old
{
	my ($queue) = @_;
	$node->safe_psql('postgres', qq{
CREATE TABLE mq."a_$queue\$old" (LIKE mq.a_$queue);
ALTER TABLE mq."a_$queue\$old" OWNER TO app;
ALTER TABLE mq.a_$queue ATTACH PARTITION mq."a_$queue\$old" FOR VALUES FROM ('2020-01-01') TO ('2020-02-01');
INSERT INTO mq.a_$queue (id, enqueued_at, attempts, priority, acked_at) VALUES (1000, now(), 0, 0, '2020-01-02')});
	return;
}

$node->safe_psql('postgres', q{
CREATE ROLE app;
GRANT EXECUTE ON FUNCTION mq.create_queue TO app;
SET ROLE app;
SELECT mq.create_queue('q', dead_letter => '', retain => '1 hour', lease => '1 hour');
SELECT mq.create_queue('fast', dead_letter => '', retain => '1 hour', unlogged => true);
SELECT mq.enqueue(q, to_jsonb(n)) FROM unnest('{q,fast}'::text[]) q, generate_series(1, 4) n;
SELECT count(*) FROM mq.dequeue('q', auto_ack => true);
SELECT count(*) FROM mq.dequeue('fast', auto_ack => true)});
wait_for_worker($node);

# Old partitions go, though an ack is open; what is young stays.
my $s = session($node);
$s->query_safe(q{BEGIN; SELECT count(*) FROM mq.dequeue('q', auto_ack => true)});
add_old('q');
new_worker();
wait_until($node, q{SELECT to_regclass('mq."a_q$old"') IS NULL}, 'an old partition is dropped while an ack is open');
is($node->safe_psql('postgres', 'SELECT string_agg(id::text, $$ $$) FROM mq.a_q'), '1', 'young messages stay');
$s->query_safe('COMMIT');

# New ones are made, though an ack is open; with none left and rows in the default
# partition they begin behind those.
$s->query_safe(q{
SELECT format('DROP TABLE %s', leaf) FROM mq.archive_parts$('mq.a_q') WHERE NOT other AND hi <> (SELECT max(hi) FROM mq.archive_parts$('mq.a_q')) \gexec});
$s->query_safe(q{BEGIN; SELECT count(*) FROM mq.dequeue('q', auto_ack => true)});
is($s->query_safe('SELECT DISTINCT tableoid::regclass FROM mq.a_q'), 'mq."a_q$d"', 'the default partition takes what no other does');
$s->query_safe('COMMIT');
$s->query_safe(q{
SELECT format('DROP TABLE %s', leaf) FROM mq.archive_parts$('mq.a_q') WHERE NOT other \gexec});
new_worker();
wait_until($node, q{
SELECT count(*) >= 3 AND min(lo) BETWEEN now() AND now() + interval '15 min' AND max(hi) > now() + interval '30 min'
FROM mq.archive_parts$('mq.a_q') WHERE NOT other}, 'partitions are made ahead, behind what the default one holds');
is($node->safe_psql('postgres', q{
SELECT count(*) FROM pg_partition_tree('mq.a_q') t JOIN pg_class c ON c.oid = t.relid WHERE c.relowner <> 'app'::regrole}),
	0, 'all belong to the owner');

# A default partition that holds nothing but what is old is replaced.
$node->safe_psql('postgres', q{UPDATE mq."a_q$d" SET acked_at = acked_at - interval '3 hours'});
new_worker();
wait_until($node, q{SELECT count(*) = 0 FROM mq.a_q}, 'an old default partition is replaced');
$node->safe_psql('postgres', q{SELECT count(*) FROM mq.dequeue('q', auto_ack => true)});
is($node->safe_psql('postgres', 'SELECT tableoid::regclass, body FROM mq.a_q'), 'mq."a_q$d"|4', 'and takes acks again');

# A reader keeps the old partition, not the worker.
$s->query_safe('BEGIN; SELECT count(*) FROM mq.a_q');
$node->safe_psql('postgres', 'ALTER TABLE mq.q_fast OWNER TO postgres');
$s->query_safe('COMMIT');
add_old('q');
add_old('fast');
$s->query_safe('BEGIN; SELECT count(*) FROM mq.a_fast');
new_worker();
wait_until($node, q{SELECT to_regclass('mq."a_q$old"') IS NULL}, 'a reader of one archive does not keep the worker from another');
isnt($node->safe_psql('postgres', q{SELECT to_regclass('mq."a_fast$old"')}), '', 'what is read stays');
$s->query_safe('COMMIT');
wait_until($node, q{SELECT to_regclass('mq."a_fast$old"') IS NULL}, 'until it is no longer');
is($node->safe_psql('postgres', q{
SELECT count(*) FROM pg_partition_tree('mq.a_fast') t JOIN pg_class c ON c.oid = t.relid WHERE c.relowner <> 'postgres'::regrole}),
	0, 'an archive follows its queue to another owner');
$s->quit;

# Dropped by its owner, it is made again.
$node->safe_psql('postgres', 'DROP TABLE mq.a_q');
new_worker();
wait_until($node, q{SELECT to_regclass('mq.a_q') IS NOT NULL}, 'an archive that was dropped is made again');

# What the owner hangs on it runs as the owner, not as the worker, also while
# partitions are made.
$node->safe_psql('postgres', q{
CREATE SCHEMA app AUTHORIZATION app;
SET ROLE app;
SELECT mq.create_queue('own', dead_letter => '', retain => '1 hour');
CREATE FUNCTION app.who(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RAISE LOG 'run by %', current_user; RETURN $1; END $$;
ALTER TABLE mq.a_own ADD CONSTRAINT own CHECK (app.who(1) = 1 AND id > 0);
SELECT format('DROP TABLE %s', t.relid::regclass) FROM pg_partition_tree('mq.a_own') t WHERE t.level = 1 \gexec
});
my $offset = -s $node->logfile;
new_worker();
wait_until($node, q{SELECT count(*) = 5 FROM pg_inherits WHERE inhparent = 'mq.a_own'::regclass}, 'partitions with a CHECK are made');
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile, $offset);
like($log, qr/run by app/, 'the CHECK is run by the owner');
unlike($log, qr/run by postgres/, '… never by the worker');
$node->safe_psql('postgres', q{SELECT mq.enqueue('own', '1'); SELECT count(*) FROM mq.dequeue('own', auto_ack => true)});
is($node->safe_psql('postgres', 'SELECT body FROM mq.a_own'), '1', 'acks go on');
$node->safe_psql('postgres', q{SELECT mq.drop_queue('own'); DROP SCHEMA app CASCADE});

# Prepared acks, and a crash.
$node->safe_psql('postgres', q{
SELECT mq.enqueue('q', to_jsonb(n)) FROM generate_series(11, 13) n;
BEGIN; SELECT count(*) FROM mq.dequeue('q', auto_ack => true); PREPARE TRANSACTION 'commit';
BEGIN; SELECT count(*) FROM mq.dequeue('q', auto_ack => true); PREPARE TRANSACTION 'rollback';
SELECT count(*) FROM mq.dequeue('q', auto_ack => true)});
stop_and_start($node, 'immediate');
is($node->safe_psql('postgres', 'SELECT body FROM mq.a_q'), '13', 'what was acknowledged is archived over a crash');
is($node->safe_psql('postgres', 'SELECT count(*) FROM mq.a_fast'), 0, 'an unlogged archive is empty after it');
$node->safe_psql('postgres', q{COMMIT PREPARED 'commit'});
$node->safe_psql('postgres', q{ROLLBACK PREPARED 'rollback'});
is($node->safe_psql('postgres', 'SELECT string_agg(body::text, $$ $$ ORDER BY id) FROM mq.a_q'), '11 13', 'COMMIT PREPARED archives');
is($node->safe_psql('postgres', 'SELECT body FROM mq.q_q'), '12', 'ROLLBACK PREPARED does not');

# A dump.
my %compare = (
	rows => 'SELECT a FROM mq.a_q a ORDER BY id',
	partitions => q{SELECT leaf, lo, hi, other FROM mq.archive_parts$('mq.a_q')},
	owners => q{SELECT relname, relowner::regrole FROM pg_class WHERE relname LIKE 'a\_%' ORDER BY relname COLLATE "C"});
my %before = map { $_ => $node->safe_psql('postgres', $compare{$_}) } keys %compare;
$node->safe_psql('postgres', 'CREATE DATABASE copy');
my @tell = ('--host', $node->host, '--port', $node->port);
my $stderr = '';
ok( IPC::Run::run(
		[ 'pg_dump', @tell, 'postgres' ], '2>', \$stderr, '|',
		[ 'psql', @tell, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', 'copy' ],
		'2>', \$stderr),
	'pg_dump | psql');
is($stderr, '', 'without a word');
is($node->safe_psql('copy', $compare{$_}), $before{$_}, "copied: $_") for sort keys %compare;
is($node->safe_psql('copy', q{
SELECT mq.replay('q', '-infinity');
SELECT count(*) FROM mq.dequeue('q', 10, auto_ack => true);
SELECT count(*) FROM mq.a_q}), "2\n3\n5", 'the copy works');

$node->stop;
done_testing();
