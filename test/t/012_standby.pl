# A standby delivers nothing; promoted, it delivers everything.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $primary = mq_node('primary', streaming => 1);

$primary->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0');
SELECT mq.create_queue('fast', unlogged => true);
SELECT mq.enqueue('q', to_jsonb(n)) FROM generate_series(1, 5) n});

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;

my ($receipt) = lines($primary->safe_psql('postgres',
		q{SELECT DISTINCT receipt FROM mq.dequeue('q', 2)}));
$primary->safe_psql('postgres', q{
SELECT mq.ack(m) FROM mq.dequeue('q') m;
SELECT mq.enqueue('q', '6');
SELECT mq.enqueue('q', '7', delay => '1 hour');
BEGIN; SELECT mq.enqueue('q', '8'); PREPARE TRANSACTION 'p'});
my $max = $primary->safe_psql('postgres', q{SELECT last_value FROM mq."q_q$id"});
$primary->wait_for_catchup('standby', 'replay', $primary->lsn('insert'));

for my $sql (
	q{SELECT mq.dequeue('q')},
	q{SELECT mq.dequeue('q', wait => '1 minute')},
	q{SELECT mq.dequeue('q', auto_ack => true)},
	q{SELECT mq.enqueue('q', '1')},
	q{SELECT mq.ack('q', 1, 1)},
	q{SELECT mq.nack('q', 1, 1)},
	q{SELECT mq.create_queue('r')})
{
	is(error_of($standby, $sql), '25006', "on a standby: $sql");
}
is($standby->safe_psql('postgres', q{SELECT count(*) FROM mq.q_q}),
	6, 'messages can be read on a standby');
is($standby->safe_psql('postgres', q{SELECT name FROM mq.queues WHERE name = 'q'}),
	'q', 'queues can be read on a standby');
is( $standby->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker'}),
	0, 'no worker on a standby');

# A read-only transaction of the primary.
is(error_of($primary, q{BEGIN READ ONLY; SELECT mq.enqueue('q', '1')}),
	'25006', 'enqueue in a read-only transaction');
is(error_of($primary, q{BEGIN READ ONLY; SELECT mq.dequeue('q', auto_ack => true)}),
	'25006', 'dequeue with auto_ack in a read-only transaction');

my $sleeper = session($standby);
$primary->stop('immediate');
$standby->promote;
wait_for_worker($standby, 'postgres', 'after promotion there is a worker');

my @got = lines($standby->safe_psql('postgres',
		q{SELECT body, receipt FROM mq.dequeue('q', 10)}));
is(join(' ', map { (split /\|/)[0] } @got), '1 2 4 5 6',
	'promoted, it delivers all, also what was in flight');
cmp_ok((split /\|/, $got[0])[1], '>', $receipt, 'receipts grow over a failover');
is($standby->safe_psql('postgres', "SELECT mq.ack('q', 1, $receipt)"),
	'f', 'a receipt of the old primary is stale');
cmp_ok($standby->safe_psql('postgres', q{SELECT mq.enqueue('q', '9')}),
	'>', $max, 'ids go on');
is($sleeper->query_safe(q{SELECT body FROM mq.dequeue('q')}),
	'9', 'a session from before the promotion receives');
$sleeper->quit;
$standby->safe_psql('postgres', q{COMMIT PREPARED 'p'});
is($standby->safe_psql('postgres', q{SELECT body FROM mq.dequeue('q', wait => '2 seconds')}),
	'8', 'a transaction prepared on the old primary is committed on the new one');

# Unlogged queues are empty there, and usable.
is( $standby->safe_psql('postgres',
		q{SELECT mq.enqueue('fast', '1') > 0; SELECT body FROM mq.dequeue('fast', 10)}),
	"t\n1", 'an unlogged queue works after promotion');
wait_until($standby, q{SELECT exact AND delayed = 1 FROM mq.stats WHERE queue = 'q'},
	'the counters become exact');

$standby->stop;
done_testing();
