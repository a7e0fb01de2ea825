# One role that takes all it can get: leases, and messages of a gigabyte. The
# others go on, or are told cleanly what is full.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('hostile', conf => "mq.max_in_flight = 128\nmq.max_queues = 16");
my $as_eve = "SET ROLE eve;";

$node->safe_psql('postgres', q{
	CREATE ROLE eve;
	CREATE ROLE vic;
	SELECT mq.create_queue(q, dead_letter => '', lease => '1 h', backoff => '0') FROM unnest('{e1,e2,e3,v1,v2}'::text[]) q;
	SELECT mq.grant(q, 'eve', p) FROM unnest('{e1,e2,e3}'::text[]) q, unnest('{send,receive}'::text[]) p;
	SELECT mq.grant(q, 'vic', p) FROM unnest('{v1,v2}'::text[]) q, unnest('{send,receive}'::text[]) p;
	SELECT count(*) FROM unnest('{e1,e2,e3,v1,v2}'::text[]) q,
		mq.enqueue_batch(q, ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 200) i));});

# One queue: half of the table, for ever, by each kind of lease.
is($node->safe_psql('postgres', qq{$as_eve SELECT count(*) FROM mq.dequeue('e1', 1000, lease => '1000 years')}),
	64, 'one queue takes half of the lease table, whatever it asks for');
my ($state, $message) = error_of($node, qq{$as_eve SELECT * FROM mq.dequeue('e1')});
is($state, '53400', 'more is refused');
like($message, qr/HINT:.*mq\.max_in_flight/s, '... with a hint that names the setting');
is(error_of($node, qq{$as_eve SELECT * FROM mq.dequeue('e1', session => true)}), '53400', '... as a session lease');
is(error_of($node, qq{$as_eve SELECT * FROM mq.dequeue('e1', auto_ack => true)}), '53400', '... with auto_ack');
is($node->safe_psql('postgres', q{SET ROLE vic; SELECT count(*) FROM mq.dequeue('v1', 10)}), 10, 'the others go on');
is($node->safe_psql('postgres', q{SET ROLE vic; SELECT count(*) FROM mq.dequeue('v1', 200, auto_ack => true) m}), 54, '... with what there is');
is($node->safe_psql('postgres', q{SELECT mq.ack_batch('v1', array_agg(id), array_agg(receipt)) FROM mq.in_flight WHERE queue = 'v1'}),
	10, '... and acknowledge');

# Two queues: all of it. Nothing breaks, nothing is lost, and it ends with her session.
my $eve = session($node);
$eve->query_safe('SET ROLE eve');
is($eve->query_safe(q{SELECT count(*) FROM mq.dequeue('e2', 1000, session => true)}), 64, 'with a second queue the rest');
($state, $message) = error_of($node, q{SET ROLE vic; SELECT * FROM mq.dequeue('v1')});
is($state, '53400', 'then the others are refused');
like($message, qr/HINT:.*mq\.max_in_flight/s, '... with the hint');
is(error_of($node, q{SET ROLE vic; SELECT * FROM mq.dequeue('v2', 5, wait => '10 ms')}), '53400', '... also when they would wait');
is(error_of($node, q{SET ROLE vic; SELECT mq.enqueue('v2', '"more"')}), '', 'producers go on');
is(error_of($node, q{SELECT mq.purge('e3'), count(*) FROM mq.browse('v2'), mq.stats, mq.in_flight GROUP BY 1}), '', 'administration goes on');
is(error_of($node, q{SELECT mq.create_queue('v3', dead_letter => ''), mq.drop_queue('v3')}), '', '... and making queues');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.in_flight}), 128, 'nothing is half-done');
is($node->safe_psql('postgres', q{SELECT (SELECT count(*) FROM mq.q_v1), (SELECT count(*) FROM mq.q_v2)}), '136|201', '... nothing lost');
$eve->quit;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 64 FROM mq.in_flight}), 'her session ended, its leases go');
ok($node->poll_query_until('postgres', q{SELECT in_flight = 0 AND ready = 200 FROM mq.stats WHERE queue = 'e2'}), '... and her messages are ready');
is($node->safe_psql('postgres', q{SET ROLE vic; SELECT count(*) FROM mq.dequeue('v2', 20, auto_ack => true)}), 20, 'the others go on');
# An owner has a way out without a restart: the operator's verbs.
is($node->safe_psql('postgres', q{SELECT mq.delete('e1', ARRAY(SELECT id FROM mq.in_flight WHERE queue = 'e1'))}), 64, 'leases for ever are deleted with their messages');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.in_flight}), 0, '... and give their room back');

# As many queues with leases as there is room for.
$node->safe_psql('postgres', q{
	SELECT mq.create_queue('m' || i, dead_letter => '', lease => '1 h') FROM generate_series(1, 24) i;
	SELECT mq.grant('m' || i, 'eve', 'receive'), mq.enqueue('m' || i, '1') FROM generate_series(1, 24) i;});
my %states;
$states{ (error_of($node, qq{$as_eve SELECT * FROM mq.dequeue('m$_')}))[0] }++ for 1 .. 24;
is(join(',', sort keys %states), ',53400', 'a lease in each of more queues than have room: taken or refused');
($state, $message) = error_of($node, q{SET ROLE vic; SELECT * FROM mq.dequeue('v1')});
ok($state eq '' || ($state eq '53400' && $message =~ /HINT:.*mq\.max_queues/s), 'the others are served or told which setting');
is(error_of($node, q{SET ROLE vic; INSERT INTO mq.q_v1 (body) VALUES ('1')}), '', '... and send');
$node->safe_psql('postgres', q{SELECT mq.delete('m' || i, '{1}') FROM generate_series(1, 24) i});
is($node->safe_psql('postgres', q{SET ROLE vic; SELECT count(*) FROM mq.dequeue('v1', 5, auto_ack => true)}), 5, 'with the messages gone all go on');

# A gigabyte: what is taken in can be delivered or dies; what cannot is refused.
SKIP:
{
	open my $fh, '<', '/proc/meminfo' or skip 'no way to know the memory', 3;
	my ($free) = map { /^MemAvailable:\s+(\d+)/ ? $1 : () } <$fh>;
	close $fh;
	skip 'less than 8 GB of memory to spare', 3 if !$free || $free < 8 * 1024 * 1024;

	$node->safe_psql('postgres', q{
		SELECT mq.create_queue('gb', backoff => '0', max_attempts => 2); SELECT mq.grant('gb', 'eve', 'send')});
	($state) = error_of($node, qq{$as_eve SELECT mq.enqueue('gb', data => string_agg(b, '')) FROM (SELECT decode(repeat('78', 1048576), 'hex') b FROM generate_series(1, 1023)) s});
	like($state, qr/^(|54000|XX000|53200|22023)$/, "a body of 1 GB but 1 MB is taken or refused: '$state'");
	$node->safe_psql('postgres', q{SELECT mq.enqueue('gb', '"small"')});
	# not to the client: as text it would be twice as long
	error_of($node, q{SELECT mq.ack(queue, id, receipt) FROM mq.dequeue('gb')}) for 1 .. 3;
	is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_gb}), 0, 'it does not keep what comes behind it, and is delivered or dead itself');
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/was terminated by signal|PANIC|TRAP/, 'nothing crashed');
}
$node->stop;
done_testing();
