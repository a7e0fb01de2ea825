# The extension in several databases of one server, and a server without the
# library preloaded.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');

# Databases do not meet, though queues have the same name and even, by cloning,
# the same relation number.
$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour');
SELECT mq.enqueue('q', '"postgres"')});
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', q{
CREATE EXTENSION mq;
SELECT mq.create_queue('q', lease => '1 hour');
SELECT mq.enqueue('q', '"second"')});
is(error_of($node, 'CREATE DATABASE clone TEMPLATE second'), '', 'a clone is made');
is( $node->safe_psql('clone', q{SELECT 'mq.q_q'::regclass::oid}),
	$node->safe_psql('second', q{SELECT 'mq.q_q'::regclass::oid}),
	'with the same relation number');
my %receipt;
for my $db ('postgres', 'second', 'clone')
{
	wait_until($node, q{SELECT exact AND ready = 1 FROM mq.stats WHERE queue = 'q'},
		"$db: one message", $db);
	my ($body, $receipt) = split /\|/,
	  $node->safe_psql($db, q{SELECT body, receipt FROM mq.dequeue('q', 10)});
	is($body, $db eq 'postgres' ? '"postgres"' : '"second"', "$db: its own message");
	$receipt{$db} = $receipt;
	is($node->safe_psql($db, q{SELECT count(*) FROM mq.in_flight}), 1, "$db: its own lease");
}
isnt($receipt{clone}, $receipt{second}, 'receipts differ');
is($node->safe_psql('clone', "SELECT mq.ack('q', 1, $receipt{second})"),
	'f', 'a receipt of another database is nothing here');

# A consumer is woken by its own database only.
my $s = session($node, 'second');
my $pid = backend_pid($s);
start_query($s, q{SELECT body FROM mq.dequeue('q', wait => '1 minute')});
wait_asleep($node, $pid);
$node->safe_psql('clone', q{SELECT mq.enqueue('q', '"of the clone"')});
$node->safe_psql('second', q{SELECT mq.enqueue('q', '"of the second"')});
is(finish_query($s), '"of the second"', 'woken with a message of its own database');
$s->quit;

# A database dropped with leases leaves the others alone.
$node->safe_psql('postgres', 'DROP DATABASE clone');
is($node->safe_psql('second', "SELECT mq.ack('q', 1, $receipt{second})"),
	't', 'leases of the others stay');

# Without the library.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
my @without = (
	q{SELECT mq.enqueue('q', '1')},
	q{SELECT mq.dequeue('q')},
	q{SELECT mq.ack('q', 1, 1)},
	q{INSERT INTO mq.q_q (body) VALUES ('1')},
	q{CALL mq.wait('q', '1 second')},
	q{SELECT * FROM mq.stats},
	q{SELECT mq.create_queue('r')});
for my $sql (@without)
{
	my ($state, $text) = error_of($node, $sql);
	is($state, '55000', "not preloaded: $sql");
	like($text, qr/HINT:.*shared_preload_libraries.*mq/, 'with the line to add');
}
is($node->safe_psql('postgres', q{SELECT body FROM mq.q_q}),
	'"postgres"', 'messages can be read without the library');
$node->safe_psql('postgres', 'CREATE DATABASE third');
my ($state, $text) = error_of($node,
	q{CREATE EXTENSION mq; SELECT mq.create_queue('q'); SELECT mq.enqueue('q', '1')}, 'third');
is($state, '55000', 'not preloaded: a new database');
like($text, qr/HINT:.*shared_preload_libraries.*mq/, 'with the line to add');

# And back again: nothing was lost.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'mq'");
$node->restart;
is( $node->safe_psql('postgres',
		q{SELECT count(*) FROM mq.q_q WHERE body = '"postgres"'}),
	1, 'the message is still there');
$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"again"')});
is( $node->safe_psql('postgres',
		q{SELECT body FROM mq.dequeue('q', 10) WHERE body = '"again"'}),
	'"again"', 'and the queue works');

$node->stop;
done_testing();
