# An owner whose trigger sleeps keeps the worker from other queues for a few
# seconds at most, and one who locks his table keeps nobody from mq.stats.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');

$node->safe_psql('postgres', q{
CREATE ROLE eve LOGIN;
GRANT EXECUTE ON FUNCTION mq.create_queue TO eve;
CREATE SCHEMA eve AUTHORIZATION eve;
SET ROLE eve;
SELECT mq.create_queue('slow', backoff => '0', max_attempts => 1);
CREATE FUNCTION eve.sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3600); RETURN OLD; END $$;
CREATE TRIGGER sleep BEFORE DELETE ON mq.q_slow FOR EACH ROW EXECUTE FUNCTION eve.sleep();
RESET ROLE;
SELECT mq.create_queue('other', max_attempts => 1);
SELECT mq.enqueue('slow'), mq.enqueue('slow'), mq.enqueue('other');
});
wait_for_worker($node);

$node->safe_psql('postgres', q{BEGIN; SELECT mq.dequeue('slow', 2); ROLLBACK}) for 1 .. 2;
ok($node->poll_query_until('postgres', q{
		SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'mq worker' AND wait_event = 'PgSleep')}),
	'the worker sleeps in the trigger');
$node->safe_psql('postgres', q{BEGIN; SELECT mq.dequeue('other'); ROLLBACK});
wait_until($node, q{SELECT count(*) = 1 FROM mq.q_other_dead}, 'another queue\'s dead letter is written');
like($node->wait_for_log(qr/queue "slow": could not write the failed deliveries: canceling/), qr/^\d+$/, 'the log says why');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_slow}), 2, 'no message of the slow queue is lost');

my $locker = session($node);
$locker->query_safe(q{SET ROLE eve; BEGIN; LOCK TABLE mq.q_slow});
is($node->safe_psql('postgres', q{SET statement_timeout = '20 s'; SELECT dead FROM mq.stats WHERE queue = 'other'}),
	1, 'mq.stats with a table locked');
is($node->safe_psql('postgres', q{SET statement_timeout = '20 s'; SELECT count(*) FROM mq.stats}), 4, 'all of it');
$locker->query_safe('ROLLBACK');
$locker->quit;

# The same by messages that expire: the first that is cancelled is enough.
$node->safe_psql('postgres', q{
SET ROLE eve;
SELECT mq.create_queue('stale', ttl => '1 ms');
CREATE TRIGGER sleep BEFORE DELETE ON mq.q_stale FOR EACH ROW EXECUTE FUNCTION eve.sleep();
SELECT count(mq.enqueue('stale')) FROM generate_series(1, 20)});
ok($node->poll_query_until('postgres', q{
		SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'mq worker' AND wait_event = 'PgSleep')}),
	'the worker sleeps over expired messages');
$node->safe_psql('postgres', q{SELECT mq.enqueue('other'); BEGIN; SELECT mq.dequeue('other'); ROLLBACK});
wait_until($node, q{SELECT count(*) = 2 FROM mq.q_other_dead}, 'another queue has its turn');
like($node->wait_for_log(qr/queue "stale": could not move expired messages to the dead letters: canceling/), qr/^\d+$/,
	'the log says why');
is($node->safe_psql('postgres', q{SELECT count(*) FROM mq.q_stale}), 20, 'no expired message is lost');
$node->stop;

done_testing();
