# max_in_flight and rate_limit with eight consumers at once, by the database's own records; how soon a free slot or token wakes; LISTEN;
# what a restart, a crash and another database make of them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;
use Time::HiRes qw(time);

my $node = mq_node('main');
my $sql = sub { $node->safe_psql('postgres', $_[0]) };

# Never one more than the limit: eight sessions take, hold, acknowledge, give back, roll back; each looks after each claim.
$sql->(q{
SELECT mq.create_queue('ml', max_in_flight => 5, dead_letter => '', max_attempts => 0, backoff => '0', lease => '100 ms');
SELECT count(*) FROM mq.enqueue_batch('ml', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 3000) i));
CREATE TABLE seen (n bigint);
CREATE FUNCTION look() RETURNS void LANGUAGE sql AS $$ INSERT INTO seen SELECT count(*) FROM mq.in_flight WHERE queue = 'ml' $$});
my %script = (
	batch => q{\set n random(1, 8)
BEGIN;
SELECT count(*) FROM mq.dequeue('ml', :n, wait => '1 s', auto_ack => true);
SELECT look();
COMMIT;
},
	lease => q{\set n random(1, 4)
SELECT count(*) FROM mq.dequeue('ml', :n, wait => '1 s');
SELECT look();
SELECT count(*) FROM mq.in_flight f, mq.ack(f.queue, f.id, f.receipt) WHERE f.pid = pg_backend_pid() AND f.id % 3 > 0;
},
	back => q{BEGIN;
SELECT count(*) FROM mq.dequeue('ml', 3);
SAVEPOINT s;
SELECT count(*) FROM mq.dequeue('ml', 3);
ROLLBACK TO s;
SELECT mq.release(f.queue, f.id, f.receipt) FROM mq.in_flight f WHERE f.pid = pg_backend_pid() LIMIT 1;
SELECT look();
ROLLBACK;
});
my @files;
for my $name (sort keys %script)
{
	my $file = $node->basedir . "/$name.pgbench";
	PostgreSQL::Test::Utils::append_to_file($file, $script{$name});
	push @files, '-f', $file;
}
$node->command_ok([ 'pgbench', '-n', '-c', 8, '-T', 4, @files, 'postgres' ], 'eight consumers at the limit');
my ($max, $looks) = split /\|/, $sql->('SELECT max(n), count(*) FROM seen');
is($max, 5, "never more than the limit in flight ($looks looks)");
cmp_ok($looks, '>', 100, 'there was something to see');
wait_until($node, q{SELECT in_flight = 0 FROM mq.stats WHERE queue = 'ml'}, 'all leases ended');
is($sql->(q{SELECT count(*) FROM mq.dequeue('ml', 100)}), 5, 'and all slots are free again');

# Not more in any second than rate and burst, and not much less.
$sql->(q{
SELECT mq.create_queue('rl', rate_limit => 40, dead_letter => '', lease => '1 h');
SELECT count(*) FROM mq.enqueue_batch('rl', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 2000) i))});
my $take = $node->basedir . '/take.pgbench';
PostgreSQL::Test::Utils::append_to_file($take, "\\set n random(1, 5)\nSELECT id FROM mq.dequeue('rl', :n, wait => '300 ms');\n");
$node->command_ok([ 'pgbench', '-n', '-c', 8, '-T', 4, '-f', $take, 'postgres' ], 'eight consumers under a rate limit');
my ($worst, $all, $span) = split /\|/, $sql->(q{
WITH f AS MATERIALIZED (SELECT leased_at AS at FROM mq.in_flight WHERE queue = 'rl')
SELECT max((SELECT count(*) FROM f b WHERE b.at >= a.at AND b.at < a.at + interval '1 s')),
       count(*), extract(epoch FROM max(at) - min(at))
FROM f a});
cmp_ok($worst, '<=', 80, "at most rate and burst in any second (most: $worst)");
cmp_ok($all, '<=', 40 * $span + 41, "and in all: $all in $span s");
cmp_ok($all, '>=', 0.7 * 40 * $span, 'waiting consumers take the tokens as they come');

# Tokens that come back late: a dequeue takes all, hangs in a trigger until the bucket has filled up and been emptied again, and fails. What it
# gives back was there already.
$sql->(q{
SELECT mq.create_queue('late', rate_limit => 10, dead_letter => '', max_attempts => 0, lease => '1 h');
SELECT FROM mq.enqueue_batch('late', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 60) i));
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); RAISE 'refused'; END $$;
CREATE TRIGGER hang BEFORE DELETE ON mq.q_late FOR EACH ROW WHEN (old.id <= 10) EXECUTE FUNCTION hang()});
my ($holder, $slow) = map { session($node) } 1 .. 2;
$holder->query_safe('SELECT pg_advisory_lock(1)');
start_query($slow, q{SELECT count(*) FROM mq.dequeue('late', 10, auto_ack => true)});
wait_until($node, q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 'one hangs with all tokens');
wait_until($node, q{SELECT sum(n) >= 10 FROM (SELECT count(*) AS n FROM mq.dequeue('late', 10) UNION ALL SELECT count(*) FROM mq.in_flight WHERE queue = 'late' AND id > 10) d},
	'there are new ones, and taken');
$holder->query_safe('SELECT pg_advisory_unlock(1)');
like((finish_query($slow))[1], qr/refused/, 'it fails');
$sql->(q{SELECT count(*) FROM mq.dequeue('late', 10)}) for 1 .. 30;
$worst = $sql->(q{
WITH f AS MATERIALIZED (SELECT leased_at AS at FROM mq.in_flight WHERE queue = 'late')
SELECT max((SELECT count(*) FROM f b WHERE b.at >= a.at AND b.at < a.at + interval '1 s')) FROM f a});
cmp_ok($worst, '<=', 20, "at most rate and burst in any second (most: $worst)");

# How soon: a waiter looks around once a second by itself, so ten wakes by that would take five seconds.
$sql->(q{
SELECT mq.create_queue('w', max_in_flight => 1, dead_letter => '', lease => '1 h');
SELECT count(*) FROM mq.enqueue_batch('w', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 60) i));
SELECT mq.create_queue('t', rate_limit => 5, dead_letter => '', lease => '1 h');
SELECT count(*) FROM mq.enqueue_batch('t', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 100) i))});
my @s = map { session($node) } 1 .. 3;
my @pid = map { backend_pid($_) } @s;
$sql->(q{SELECT FROM mq.dequeue('w')});
my $took = 0;
for my $round (1 .. 10)
{
	my $waits = $round % 2 ? q{SELECT id FROM mq.dequeue('w', wait => '20 s')} : q{CALL mq.wait('w', '20 s')};
	start_query($s[0], $waits);
	wait_asleep($node, $pid[0]);
	$took += elapsed
	{
		$s[1]->query_safe(q{SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'w'});
		finish_query($s[0]);
	};
	$sql->(q{SELECT FROM mq.dequeue('w')}) unless $round % 2;
}
cmp_ok($took, '<', 3, 'a free slot wakes at once: ten times');

# Three waiters, slots free one after the other; one of those who are woken is cancelled.
for my $round (1 .. 3)
{
	start_query($_, q{SELECT id FROM mq.dequeue('w', wait => '20 s')}) for @s;
	wait_until($node, q{SELECT consumers_waiting = 3 FROM mq.stats WHERE queue = 'w'}, 'three wait at the limit');
	$sql->(qq{SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'w'; SELECT pg_cancel_backend($pid[0])});
	for (1 .. 3)
	{
		$node->poll_query_until('postgres', q{SELECT in_flight = 1 OR consumers_waiting = 0 FROM mq.stats WHERE queue = 'w'});
		last if $sql->(q{SELECT consumers_waiting FROM mq.stats WHERE queue = 'w'}) == 0;
		$sql->(q{SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'w'});
	}
	my @got = grep { $_ ne '' } map { scalar finish_query($_) } @s;
	cmp_ok(scalar @got, '>=', 2, 'the others got one each');
	$sql->(q{SELECT FROM mq.dequeue('w')});
	is($sql->(q{SELECT in_flight FROM mq.stats WHERE queue = 'w'}), 1, 'never two');
}

# Tokens wake one waiter after the other, each when its own is there.
$sql->(q{SELECT FROM mq.dequeue('t', 5)});
start_query($_, q{SELECT id FROM mq.dequeue('t', wait => '20 s')}) for @s;
$took = elapsed { finish_query($_) for @s };
cmp_ok($took, '<', 1.6, 'three tokens at five a second wake three waiters');
is($sql->(q{SELECT count(*) FROM mq.in_flight WHERE queue = 't'}), 8, 'and no more were given');

# LISTEN: a queue at its limit is not ready; a free slot is told, and so is a token.
my $l = session($node);
$sql->(q{
SELECT mq.create_queue('n', max_in_flight => 1, dead_letter => '', lease => '1 h');
SELECT mq.create_queue('nt', rate_limit => 0.7, dead_letter => '', lease => '1 h');
SELECT FROM mq.enqueue_batch('n', '{1,2,3}'); SELECT FROM mq.enqueue_batch('nt', '{1,2,3}');
SELECT FROM mq.dequeue('n'); SELECT FROM mq.dequeue('nt')});
$l->query_safe(q{SELECT mq.listen('n'), mq.listen('nt')});
my $heard = sub {
	my ($channel, $seconds) = @_;
	my $end = time + $seconds;
	do
	{
		return 1 if $l->query('SELECT pg_sleep(0.02)') =~ /notification "mq_$channel"/;
	} while (time < $end);
	return 0;
};
$sql->(q{SELECT mq.enqueue('n', '4')});
ok(!$heard->('n', 0.5), 'no notification of a queue at its limit');
is($sql->(q{SELECT count(*) FROM mq.dequeue('n')}), 0, 'which gives nothing');
$took = elapsed
{
	$sql->(q{SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'n'});
	ok($heard->('n', 10), 'a free slot is told');
};
cmp_ok($took, '<', 2, 'soon');
$sql->(q{SELECT FROM mq.dequeue('nt', 5)});
ok($heard->('nt', 10), 'a token too');
$l->quit;

# A clean restart brings leases back, and they count; tokens begin anew.
$sql->(q{SELECT FROM mq.dequeue('n')});
$_->quit for @s;
$sql->(q{
SELECT mq.create_queue('r', max_in_flight => 4, rate_limit => 0.001, dead_letter => '', lease => '1 h', backoff => '0', max_attempts => 0);
SELECT mq.alter_queue('r', max_in_flight => 2);
SELECT FROM mq.enqueue_batch('r', '{1,2,3,4,5}')});
is($sql->(q{SELECT count(*) FROM mq.dequeue('r', 5)}), 1, 'one token');
stop_and_start($node, 'fast');
is($sql->(q{SELECT count(*) FROM mq.dequeue('r', 5)}), 1, 'another after the restart');
stop_and_start($node, 'fast');
is($sql->(q{SELECT count(*) FROM mq.dequeue('r', 5)}), 0, 'two leases came back: at the limit');

# After a crash what was in flight has failed, and is in flight no more.
stop_and_start($node, 'immediate');
is($sql->(q{SELECT count(*) FROM mq.in_flight WHERE queue = 'r'}), 0, 'nothing is in flight after a crash');
is($sql->(q{SELECT count(*) FROM mq.dequeue('r', 5)}), 1, 'slots and token are there');

# Another database's queue of that name has limits of its own.
$sql->('CREATE DATABASE other');
$node->safe_psql('other', q{CREATE EXTENSION mq; SELECT mq.create_queue('r', max_in_flight => 3, dead_letter => '')});
$node->safe_psql('other', q{SELECT FROM mq.enqueue_batch('r', '{1,2,3,4,5}')});
is($node->safe_psql('other', q{SELECT count(*) FROM mq.dequeue('r', 5)}), 3, 'two databases: each its own limit');

# A prepared transaction that alters.
$sql->(q{
SELECT mq.create_queue('p', max_in_flight => 1, dead_letter => '', lease => '1 h');
SELECT FROM mq.enqueue_batch('p', '{1,2,3,4,5}');
SELECT FROM mq.dequeue('p');
BEGIN; SELECT mq.alter_queue('p', max_in_flight => 3); PREPARE TRANSACTION 'a'});
is($sql->(q{SELECT count(*) FROM mq.dequeue('p', 5)}), 0, 'a prepared ALTER does not hold yet');
$sql->(q{COMMIT PREPARED 'a'});
is($sql->(q{SELECT count(*) FROM mq.dequeue('p', 5, wait => '5 s')}), 2, 'it does when it is committed');

$node->stop;
done_testing();
