# pg_dump | psql, and pg_dump -Fc with pg_restore -j, keep queues, options,
# messages, delays, sequences, owners and grants; the copy works.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use IPC::Run;
use Test::More;

my $node = mq_node('main', extension => 0);

$node->safe_psql('postgres', 'CREATE DATABASE src');
$node->safe_psql('src', <<'SQL');
CREATE ROLE app; CREATE ROLE sender; CREATE ROLE receiver; CREATE ROLE reader;
CREATE EXTENSION mq;
GRANT EXECUTE ON FUNCTION mq.create_queue TO app;
SET ROLE app;
SELECT mq.create_queue('orders', lease => '1 hour', max_attempts => 7, backoff => '3 seconds',
                       backoff_limit => '10 minutes');
SELECT mq.create_queue('We.ird-Name', dead_letter => '');
SELECT mq.create_queue('fast', unlogged => true);
SELECT mq.create_queue('halted', dead_letter => 'orders_dead');
SELECT mq.alter_queue('orders', max_attempts => 8);
SELECT mq.pause('halted');
SELECT mq.grant('orders', 'sender', 'send');
SELECT mq.grant('orders', 'receiver', 'receive');
SELECT mq.grant('We.ird-Name', 'reader', 'browse');

SELECT mq.enqueue('orders', '{"n": 1}', headers => '{"h": "x"}');
SELECT mq.enqueue('orders', '{"n": 2}', priority => 9, key => 'k');
SELECT mq.enqueue('orders', deliver_at => '2099-01-01 00:00:00+00', data => '\x00ff');
SELECT mq.enqueue('orders', '{"n": 4}');
SELECT mq.enqueue('We.ird-Name', to_jsonb(n)) FROM generate_series(1, 500) n;
SELECT mq.enqueue('fast', '"quick"');
SELECT mq.enqueue('halted', '"stop"');
-- ids that were used and are gone must not come again
SELECT mq.enqueue('orders', '"gone"', priority => 9) FROM generate_series(1, 5);
DELETE FROM mq.q_orders WHERE body = '"gone"';
SQL

# One message fails and one is in flight while the dump is made.
is( $node->safe_psql('src', q{
SELECT mq.nack('orders', id, receipt, delay => '1000 days', reason => 'broken')
FROM mq.dequeue('orders')}), 't', 'one message was nacked');
my ($held, $receipt) = split /\|/,
  $node->safe_psql('src', q{SELECT id, receipt FROM mq.dequeue('orders')});
ok($receipt, 'one message is in flight');

my %compare = (
	'queues and options' => q{
SELECT to_jsonb(q) - 'relation' FROM mq.queues q ORDER BY name},
	'the catalog' => q{SELECT to_jsonb(q) FROM mq.queue$ q ORDER BY name},
	'messages of orders' => q{SELECT m FROM mq.q_orders m ORDER BY id},
	'messages of We.ird-Name' => q{SELECT m FROM mq."q_We.ird-Name" m ORDER BY id},
	'messages of halted' => q{SELECT m FROM mq.q_halted m ORDER BY id},
	'messages of fast' => q{SELECT m FROM mq.q_fast m ORDER BY id},
	'sequences' => q{
SELECT sequencename, max_value, increment_by, last_value
FROM pg_sequences WHERE schemaname = 'mq' ORDER BY 1},
	'kinds, owners and grants' => q{
SELECT relname, relkind, relpersistence, relowner::regrole,
       (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(relacl) a)
FROM pg_class WHERE relnamespace = 'mq'::regnamespace AND relkind IN ('r', 'S', 'v')
ORDER BY relname COLLATE "C"},
	'indexes' => q{
SELECT indexdef FROM pg_indexes WHERE schemaname = 'mq' ORDER BY indexname COLLATE "C"},
	'constraints' => q{
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'mq'::regnamespace ORDER BY 1, 2},
	'triggers' => q{
SELECT tgrelid::regclass::text, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger
WHERE NOT tgisinternal ORDER BY 1, 2},
	'members of the extension' => q{
SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'mq')
ORDER BY 1},
	'grants on functions' => q{
SELECT has_function_privilege('app', oid, 'EXECUTE'),
       has_function_privilege('sender', oid, 'EXECUTE')
FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue'});
my %before = map { $_ => $node->safe_psql('src', $compare{$_}) } keys %compare;
is($before{'grants on functions'}, 't|f', 'grants are there to be dumped');
is(scalar(lines($before{'messages of orders'})), 4, 'messages are there to be dumped');

my ($stderr, $dump_stderr) = ('', '');
$node->safe_psql('postgres', "CREATE DATABASE plain; CREATE DATABASE custom");

my $dump = $node->basedir . '/src.dump';
my @tell = ('--host', $node->host, '--port', $node->port);
ok( IPC::Run::run(
		[ 'pg_dump', @tell, 'src' ], '2>', \$dump_stderr, '|',
		[ 'psql', @tell, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', 'plain' ],
		'2>', \$stderr),
	'pg_dump | psql');
is($dump_stderr . $stderr, '', 'without a word');
ok( IPC::Run::run([ 'pg_dump', @tell, '-Fc', '-f', $dump, 'src' ], '2>', \$stderr),
	'pg_dump -Fc');
is($stderr, '', 'without a word');
ok( IPC::Run::run(
		[ 'pg_restore', @tell, '--exit-on-error', '-j', '2', '-d', 'custom', $dump ],
		'2>', \$stderr),
	'pg_restore -j');
is($stderr, '', 'without a word');

for my $db ('plain', 'custom')
{
	for my $what (sort keys %compare)
	{
		is($node->safe_psql($db, $compare{$what}), $before{$what}, "$db: $what");
	}
	wait_for_worker($node, $db);
	wait_until($node, q{SELECT exact AND ready = 2 AND delayed = 2 FROM mq.stats WHERE queue = 'orders'},
		"$db: messages are counted", $db);

	# The copy works: leases were not copied, delays and pauses were.
	my @got = lines($node->safe_psql($db, q{
SET ROLE receiver;
SELECT id, receipt FROM mq.dequeue('orders', 10) ORDER BY id}));
	is( join(' ', map { (split /\|/)[0] } @got),
		$node->safe_psql('src', q{
SELECT string_agg(id::text, ' ' ORDER BY id) FROM mq.q_orders WHERE ready_at IS NULL}),
		"$db: what was ready or in flight is delivered to who may receive");
	cmp_ok((split /\|/, $got[0])[1], '>', $receipt, "$db: receipts grow");
	is($node->safe_psql($db, "SELECT mq.ack('orders', $held, $receipt)"),
		'f', "$db: a receipt of the original is stale");
	is( $node->safe_psql($db,
			q{SELECT count(*) FROM mq.dequeue('We.ird-Name', 1000, auto_ack => true)}),
		500, "$db: a whole queue is consumed");
	is($node->safe_psql($db, q{SELECT count(*) FROM mq.dequeue('halted')}),
		0, "$db: a paused queue is paused");
	is($node->safe_psql($db, q{SELECT mq.resume('halted'); SELECT body FROM mq.dequeue('halted')}),
		qq{\n"stop"}, "$db: and resumes");
	cmp_ok($node->safe_psql($db, q{SET ROLE sender; SELECT mq.enqueue('orders', '"new"')}),
		'>', 9, "$db: ids go on");
	is(error_of($node, q{SET ROLE sender; SELECT mq.dequeue('orders')}, $db),
		'42501', "$db: a sender does not receive");
	is(error_of($node, q{SET ROLE app; SELECT mq.create_queue('mine')}, $db),
		'', "$db: who could create queues still can");
	is(error_of($node, q{SET ROLE app; SELECT mq.drop_queue('halted')}, $db),
		'', "$db: owners still own");
	is(error_of($node, 'DROP EXTENSION mq', $db),
		'2BP01', "$db: DROP EXTENSION still refuses");
}

# The original has lost nothing.
is($node->safe_psql('src', "SELECT mq.ack('orders', $held, $receipt)"),
	't', 'the original lease is as it was');

$node->stop;
done_testing();
