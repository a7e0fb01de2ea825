# With no process slot for launcher or worker, dequeue, ack and wake-ups work,
# ended leases are found by consumers, and the log says what is missing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

# The logical replication launcher takes one of the slots.
for my $slots (1, 2)
{
	my $node = mq_node("slots$slots", conf => "max_worker_processes = $slots\nmq.max_in_flight = 128");

	$node->safe_psql('postgres', q{
SELECT mq.create_queue('q', lease => '1 hour', backoff => '0', max_attempts => 3);
SELECT mq.enqueue('q', '1')});

	like($node->wait_for_log(qr/max_worker_processes/), qr/^\d+$/,
		"$slots: the log names the setting");
	is( $node->safe_psql('postgres', q{
SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'mq worker'}),
		0, "$slots: there is no worker");

	is($node->safe_psql('postgres', q{SELECT mq.ack(m) FROM mq.dequeue('q') m}),
		't', "$slots: dequeue and ack");

	my $s = session($node);
	my $pid = backend_pid($s);
	start_query($s, q{SELECT body FROM mq.dequeue('q', wait => '1 minute', auto_ack => true)});
	wait_asleep($node, $pid);
	$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"wake"')});
	is(finish_query($s), '"wake"', "$slots: a commit wakes a consumer");

	start_query($s, q{SELECT body FROM mq.dequeue('q', wait => '1 minute', auto_ack => true)});
	wait_asleep($node, $pid);
	$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"due"', delay => '700 ms')});
	is(finish_query($s), '"due"', "$slots: a delay that comes due wakes a consumer");

	$node->safe_psql('postgres', q{SELECT mq.enqueue('q', '"lease"')});
	my $receipt = $node->safe_psql('postgres',
		q{SELECT receipt FROM mq.dequeue('q', lease => '700 ms')});
	start_query($s, q{SELECT attempt, body FROM mq.dequeue('q', wait => '1 minute')});
	is(finish_query($s), '2|"lease"', "$slots: an ended lease is found by a waiting consumer");
	is( $s->query_safe(q{SELECT mq.release('q', id, receipt) FROM mq.in_flight WHERE queue = 'q'}),
		't', "$slots: released");

	# A failure that nobody writes into its row is looked up in the lease table.
	$s->query_safe(q{SELECT mq.create_queue('slow', backoff => '1 hour'); SELECT mq.enqueue('slow')});
	$s->query_safe(q{BEGIN; SELECT mq.dequeue('slow'); ROLLBACK});
	is($s->query_safe(q{SELECT mq.status('slow', id), state, ready_at IS NULL FROM mq.browse('slow') JOIN mq.q_slow USING (id)}),
		'delayed|delayed|t', "$slots: what has failed is delayed, though its row does not say so");

	# The next failure is the second one, the one after it the last.
	$s->query_safe(q{BEGIN; SELECT mq.dequeue('q'); ROLLBACK});
	is($s->query_safe(q{SELECT attempt FROM mq.dequeue('q', lease => '200 ms')}),
		3, "$slots: a rollback counts an attempt");
	is( $s->query_safe(q{SELECT count(*) FROM mq.dequeue('q', wait => '1500 ms')}),
		0, "$slots: after max_attempts it is not delivered again");

	# Rolled-back consumers undo what those before them did; half of the lease
	# table is spent failures in the end.
	$s->query_safe(q{SELECT mq.create_queue('spent', max_attempts => 1, backoff => '0')});
	$s->query_safe(q{SELECT count(mq.enqueue('spent')) FROM generate_series(1, 70)});
	$s->query_safe(q{BEGIN; SELECT count(*) FROM mq.dequeue('spent', 10); ROLLBACK}) for 1 .. 64;
	is($s->query_safe(q{SELECT count(*) FROM mq.dequeue('spent', 10, wait => '10 s')}), 0,
		"$slots: a dequeue without room buries them");
	is($s->query_safe(q{SELECT count(*) FROM mq.q_spent_dead}), 64, "$slots: all of them");
	is($s->query_safe(q{SELECT count(*) FROM mq.dequeue('spent', 10)}), 1, "$slots: and the next one delivers");
	$s->quit;
	$node->stop;
}

done_testing();
