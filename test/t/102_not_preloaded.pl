# A server without the library in shared_preload_libraries: every way in says
# what to add, and nothing is changed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('bare', preload => 0);
my ($state, $text) = error_of($node, 'CREATE EXTENSION mq');

is($state, '55000', 'CREATE EXTENSION is refused');
like($text, qr/HINT:.*shared_preload_libraries/s, '... with the line to add');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'mq'}), 0, '... and nothing is half-done');

# The extension is there and the library is taken away.
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'mq'");
$node->restart;
$node->safe_psql('postgres', q{
	CREATE EXTENSION mq;
	SELECT mq.create_queue('q');
	SELECT mq.enqueue('q', '1');});
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
for my $sql (q{SELECT mq.enqueue('q', '2')}, q{SELECT mq.enqueue_batch('q', '{2}')}, q{SELECT * FROM mq.dequeue('q')},
	q{SELECT mq.ack('q', 1, 1)}, q{SELECT mq.create_queue('r')}, q{SELECT mq.drop_queue('q')}, q{SELECT mq.purge('q')},
	q{INSERT INTO mq.q_q (body) VALUES ('2')}, q{DELETE FROM mq.q_q}, q{CALL mq.wait('q', '1 s')})
{
	($state, $text) = error_of($node, $sql);
	is($state, '55000', "$sql: 55000");
	like($text, qr/HINT:.*shared_preload_libraries = '?mq/s, '... with the line to add');
}
is($node->safe_psql('postgres', 'SELECT body FROM mq.q_q'), '1', 'messages can be read, and none is changed');

$node->append_conf('postgresql.conf', "shared_preload_libraries = 'mq'");
$node->restart;
is($node->safe_psql('postgres', q{SELECT body FROM mq.dequeue('q', auto_ack => true)}), '1', 'with it all goes on');
$node->stop;
done_testing();
