# Order with many producers: one consumer gets the messages of each producer, and
# so those of each transaction, in the order in which they were enqueued.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');
my $db = 'postgres';

sub sql { return $node->safe_psql($db, shift) }

sql(q{
SELECT mq.create_queue('fifo', dead_letter => '');
CREATE TABLE got (n serial, id bigint, producer int, seq bigint);
CREATE SEQUENCE s1; CREATE SEQUENCE s2; CREATE SEQUENCE s3; CREATE SEQUENCE s4;
});
my $script = $node->basedir . '/produce.sql';
PostgreSQL::Test::Utils::append_to_file($script, q{
\set me :client_id + 1
BEGIN;
SELECT mq.enqueue('fifo', jsonb_build_object('p', :me, 's', nextval('s' || :me)));
SELECT count(*) FROM mq.enqueue_batch('fifo', ARRAY[jsonb_build_object('p', :me, 's', nextval('s' || :me)), jsonb_build_object('p', :me, 's', nextval('s' || :me))]);
COMMIT;
});
my $consumer = session($node);
start_query($consumer, q{
DO $$
DECLARE n int; total int := 0;
BEGIN
	WHILE total < 4800 LOOP
		INSERT INTO got (id, producer, seq)
		SELECT id, (body ->> 'p')::int, (body ->> 's')::bigint FROM mq.dequeue('fifo', 7, auto_ack => true, wait => '20 s');
		GET DIAGNOSTICS n = ROW_COUNT;
		EXIT WHEN n = 0;
		total := total + n;
		COMMIT;
	END LOOP;
END $$});
$node->command_ok(['pgbench', '-n', '-c', 4, '-j', 2, '-t', 400, '-f', $script, '-h', $node->host, '-p', $node->port, $db],
	'four producers at once');
finish_query($consumer);
is(sql('SELECT count(*), count(DISTINCT (producer, seq)) FROM got'), '4800|4800', 'one consumer gets every message once');
is(sql('SELECT count(*) FROM (SELECT seq, lag(seq) OVER (PARTITION BY producer ORDER BY n) AS before FROM got) s WHERE seq < before'),
	0, '… those of each producer in its order');


$node->stop;
done_testing();
