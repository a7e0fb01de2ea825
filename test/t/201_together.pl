# What happens to consumers while others pause the queue, change its table, drop
# it, or fail beside them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main');
wait_for_worker($node);
my $db = 'postgres';

sub sql { return $node->safe_psql($db, shift) }

# A long wait, paused and resumed meanwhile.
sql(q{SELECT mq.create_queue('w', dead_letter => '', lease => '1 h')});
my $c = session($node);
my $pid = backend_pid($c);
start_query($c, q{SELECT body, attempt FROM mq.dequeue('w', wait => '10 minutes')});
wait_asleep($node, $pid);
sql(q{SELECT mq.pause('w')});
sql(q{SELECT mq.enqueue('w', '"while paused"')});
sql(q{INSERT INTO mq.q_w (body, priority) VALUES ('"while paused, first"', 9)});
sql(q{SELECT mq.resume('w'), mq.pause('w')});
is(sql(qq{SELECT count(*) FROM mq.in_flight}), 0, 'a paused queue gives a waiting consumer nothing');
is(sql(qq{SELECT state || consumers_waiting FROM pg_stat_activity, mq.stats WHERE pid = $pid AND queue = 'w'}),
	'active1', '… who goes on waiting');
sql(q{SELECT mq.resume('w')});
is(scalar finish_query($c), '"while paused, first"|1', '… until it is resumed');
is(sql(q{SELECT consumers_waiting FROM mq.stats WHERE queue = 'w'}), 0, '… and then waits no more');

# A paused queue's leases end as others do; what comes back waits for the resume.
sql(q{SELECT mq.pause('w')});
sql(q{SELECT mq.extend('w', id, receipt, '1 ms') FROM mq.in_flight});
wait_until($node, q{SELECT in_flight = 0 AND expired = 1 FROM mq.stats WHERE queue = 'w'}, 'a lease of a paused queue ends');
is(sql(q{SELECT count(*) FROM mq.dequeue('w', 10)}), 0, '… and is not delivered again');
sql(q{TRUNCATE mq.q_w; SELECT mq.resume('w')});

# statement_timeout while waiting: the message that comes at that moment is not lost, and the session goes on.
$c->query_safe(q{SET statement_timeout = '300ms'});
is(session_error($c, q{SELECT * FROM mq.dequeue('w', wait => '1 h');}), '57014', 'statement_timeout ends a wait');
$c->query_safe(q{RESET statement_timeout; SELECT mq.enqueue('w', '"after"')});
is($c->query_safe(q{SELECT body, attempt FROM mq.dequeue('w', wait => '1 h')}), '"after"|1', '… the session goes on, nothing was counted');

# Leases out: what an owner does to the table from another session.
for my $ddl ('VACUUM FULL mq.q_w', 'CLUSTER mq.q_w USING q_w$pkey', 'REINDEX TABLE mq.q_w', 'ALTER TABLE mq.q_w SET (fillfactor = 50)',
	'VACUUM (FREEZE) mq.q_w', 'ALTER TABLE mq.q_w ADD COLUMN c text DEFAULT clock_timestamp()', 'ALTER TABLE mq.q_w DROP COLUMN c',
	'ALTER TABLE mq.q_w SET UNLOGGED', 'ALTER TABLE mq.q_w SET LOGGED')
{
	sql(q{DELETE FROM mq.q_w; SELECT count(*) FROM mq.enqueue_batch('w', '{1,2,3,4,5}'); DELETE FROM mq.q_w WHERE body = '1'});
	$c->query_safe(q{CREATE TEMP TABLE mine AS SELECT * FROM mq.dequeue('w', 2)});
	sql($ddl);
	is( $c->query_safe(q{SELECT string_agg(mq.status('w', id), ',') FROM mine}), 'leased,leased', "$ddl: leases stay");
	is( $c->query_safe(q{SELECT mq.ack('w', id, receipt) FROM mine WHERE body = '2'; SELECT mq.nack('w', id, receipt, '0') FROM mine WHERE body = '3'}),
		"t\nt", "$ddl: what was delivered before is settled after");
	is( sql(q{SELECT string_agg(format('%s:%s', body, attempt), ' ' ORDER BY id) FROM mq.dequeue('w', 10, auto_ack => true)}),
		'3:2 4:1 5:1', "$ddl: the right rows remain and are delivered");
	$c->query_safe('DROP TABLE mine');
}

# An owner's DELETE, DROP and OWNER TO while a lease is held in an open transaction wait for it, or skip.
sql(q{TRUNCATE mq.q_w; SELECT mq.enqueue('w', '"held"'); CREATE ROLE other_owner});
$c->query_safe(q{BEGIN; CREATE TEMP TABLE mine AS SELECT * FROM mq.dequeue('w')});
is(sql(q{SELECT mq.purge('w')}), 0, 'purge leaves what an open transaction holds');
is(sql(q{SELECT mq.delete('w', ARRAY(SELECT id FROM mq.q_w))}), 1, 'mq.delete takes it, whoever holds it');
is($c->query_safe(q{SELECT mq.ack('w', id, receipt) FROM mine}), 'f', '… and the holder\'s ack is false');
$c->query_safe(q{COMMIT; DROP TABLE mine});
is(sql(q{SELECT count(*) FROM mq.in_flight WHERE queue = 'w'}), 0, '… no lease is left');
sql(q{SELECT mq.enqueue('w', '"held"')});
$c->query_safe(q{CREATE TEMP TABLE mine AS SELECT * FROM mq.dequeue('w')});
sql(q{ALTER TABLE mq.q_w OWNER TO other_owner});
is($c->query_safe(q{SELECT mq.nack('w', id, receipt, '0', 'new owner') FROM mine}), 't', 'OWNER TO with a lease out: it is settled');
is(sql(q{SELECT attempt, last_error FROM mq.dequeue('w', auto_ack => true)}), '2|new owner', '… and delivered again');
$c->query_safe(q{DROP TABLE mine});
sql(q{SELECT mq.enqueue('w', '"held"')});
$c->query_safe(q{CREATE TEMP TABLE mine AS SELECT * FROM mq.dequeue('w')});
sql(q{DROP TABLE mq.q_w});
is(session_error($c, q{SELECT mq.ack('w', id, receipt) FROM mine;}), '42704', 'DROP TABLE with a lease out: an ack says that there is no queue');
is(sql(q{SELECT count(*) FROM mq.in_flight}), 0, '… no lease is left');
sql(q{SELECT mq.drop_queue('w', if_exists => true); SELECT mq.create_queue('w', dead_letter => ''); SELECT mq.enqueue('w', '"new"')});
is($c->query_safe(q{SELECT count(*) FILTER (WHERE mq.ack('w', id, receipt)) FROM mine}), 0, 'a receipt of a dropped queue is nothing in one made again');
is(sql(q{SELECT body FROM mq.dequeue('w', auto_ack => true)}), '"new"', '… whose messages are delivered');
$c->query_safe(q{DROP TABLE mine});

# Two transactional consumers side by side, one message each on its last attempt: each is delivered alone.
sql(q{
SELECT mq.create_queue('last', max_attempts => 2, backoff => '0');
SELECT count(*) FROM mq.enqueue_batch('last', '{1,2,3,4}');
UPDATE mq.q_last SET attempts = 1 WHERE body IN ('1', '2')});
my $d = session($node);
$_->query_safe('BEGIN') for $c, $d;
is($c->query_safe(q{SELECT body, attempt FROM mq.dequeue('last', 10)}), '1|2', 'a message on its last attempt is alone');
is($d->query_safe(q{SELECT body, attempt FROM mq.dequeue('last', 10)}), '2|2', '… so is the next, with the other consumer');
is($c->query_safe(q{SELECT body, attempt FROM mq.dequeue('last', 10)}), "3|1\n4|1", '… the others come together');
$d->query_safe('ROLLBACK');
wait_until($node, q{SELECT count(*) = 1 FROM mq.q_last_dead WHERE body = '2'}, 'poison goes to the dead letters');
is(sql(q{SELECT string_agg(body::text, ',' ORDER BY id) FROM mq.q_last}), '1,3,4', '… and takes nobody along');
$c->query_safe('COMMIT');
is(sql(q{SELECT string_agg(mq.ack(q, id, receipt)::text, ',') FROM (SELECT queue AS q, id, receipt FROM mq.in_flight WHERE queue = 'last') s}),
	'true,true,true', 'what the other consumer committed is its own');

# A lost connection counts.
sql(q{SELECT mq.enqueue('last', '"lost"')});
$d->query_safe(q{BEGIN; SELECT * FROM mq.dequeue('last')});
sql('SELECT pg_terminate_backend(' . backend_pid($d) . ')');
is(sql(q{SELECT body, attempt FROM mq.dequeue('last', wait => '30 s')}), '"lost"|2', 'a lost connection gives back and counts');
dead_session($d);

$node->stop;
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|TRAP|terminated by signal/, 'the server was well all along');
done_testing();
