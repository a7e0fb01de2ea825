# max_length: never exceeded by producers, whatever they do at once; over
# restarts, crashes, lost counters and prepared transactions; cheap while far.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../perl";
use MqTest;
use Test::More;

my $node = mq_node('main', conf => "mq.max_queues = 16\n");

$node->safe_psql('postgres', q{
SELECT mq.create_queue('rej', max_length => 20, backoff => '0');
SELECT mq.create_queue('drp', max_length => 20, overflow => 'drop_head', backoff => '0');
CREATE TABLE result (queue text, what text, n bigint);

-- n transactions of all kinds, after each of which the rows are counted.
CREATE PROCEDURE produce(queue text, n int, most bigint) LANGUAGE plpgsql AS $$
DECLARE
	seen bigint;
	full_ bigint := 0;
	done bigint := 0;
	kind int;
	undo boolean;
BEGIN
	FOR i IN 1 .. n LOOP
		kind := floor(random() * 6);
		undo := random() < 0.25;
		BEGIN
			IF kind = 0 THEN
				PERFORM count(*) FROM mq.enqueue_batch(queue, '{1,2,3}');
			ELSIF kind = 1 THEN
				EXECUTE format('INSERT INTO mq.%I (body) VALUES (''4''), (''5'')', 'q_' || queue);
			ELSIF kind = 2 THEN
				BEGIN
					PERFORM mq.enqueue(queue, '6'), mq.enqueue(queue, '7', delay => '1 ms');
					RAISE EXCEPTION SQLSTATE 'UNDO1';
				EXCEPTION WHEN SQLSTATE 'UNDO1' THEN NULL;
				END;
				PERFORM mq.enqueue(queue, '8', priority => 3);
			ELSE
				PERFORM mq.enqueue(queue, '9');
			END IF;
			done := done + (NOT undo)::int;
		EXCEPTION WHEN SQLSTATE '53400' THEN
			full_ := full_ + 1;
		END;
		IF undo THEN ROLLBACK; ELSE COMMIT; END IF;
		EXECUTE format('SELECT count(*) FROM mq.%I', 'q_' || queue) INTO seen;
		IF seen > most THEN
			INSERT INTO result VALUES (queue, 'over', seen);
		END IF;
		COMMIT;
	END LOOP;
	INSERT INTO result VALUES (queue, 'full', full_), (queue, 'done', done);
	COMMIT;
END $$;
CREATE PROCEDURE consume(queue text, n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		PERFORM FROM mq.dequeue(queue, 1 + (i % 3), auto_ack => true);
		IF i % 5 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
		IF i % 7 = 0 THEN
			CALL mq.wait(queue, '1 ms');
			COMMIT;
		END IF;
	END LOOP;
END $$});
wait_for_worker($node);

for my $queue ('rej', 'drp')
{
	my @producers = map { session($node) } 1 .. 8;
	my @consumers = map { session($node) } 1 .. 2;
	start_query($_, "CALL produce('$queue', 500, 20)") for @producers;
	start_query($_, "CALL consume('$queue', 300)") for @consumers;
	my @errors;
	for my $s (@producers, @consumers)
	{
		my ($out, $err) = finish_query($s);
		push @errors, $err if $err =~ /ERROR/;
		$s->quit;
	}
	is("@errors", '', "$queue: no errors in the stress");
	is($node->safe_psql('postgres', "SELECT count(*) FROM result WHERE queue = '$queue' AND what = 'over'"),
		0, "$queue: after no commit there are more rows than max_length");
	my $n = $node->safe_psql('postgres', "SELECT sum(n) FROM result WHERE queue = '$queue' AND what = 'done'");
	cmp_ok($n, '>', 100, "$queue: and $n transactions enqueued");
	$n = $node->safe_psql('postgres', "SELECT sum(n) FROM result WHERE queue = '$queue' AND what = 'full'");
	cmp_ok($n, '>', 0, "$queue: $n were refused") if $queue eq 'rej';
	# what is left of reservations would show now
	$node->safe_psql('postgres', "TRUNCATE mq.q_$queue");
	is($node->safe_psql('postgres', "SELECT count(*) FROM mq.enqueue_batch('$queue', array_fill('1'::jsonb, '{20}'))"),
		20, "$queue: all places are free again");
}
is($node->safe_psql('postgres', q{
SELECT count(*) = 0 FROM mq.q_drp_dead WHERE headers -> 'x-death' -> 0 ->> 'reason' <> 'maxlen'}),
	't', 'dropped ones died of maxlen');

# Restart, crash, and a slot that went to others: the count is true again.
$node->safe_psql('postgres', q{SELECT mq.enqueue('drp', '"x"'); SELECT mq.purge('rej');
SELECT count(*) FROM mq.enqueue_batch('rej', array_fill('1'::jsonb, '{19}'))});
for my $how ('fast', 'immediate', 'evict')
{
	if ($how eq 'evict')
	{
		$node->safe_psql('postgres', q{
SELECT mq.create_queue('other' || n, dead_letter => '') FROM generate_series(1, 20) n});
		$node->safe_psql('postgres', "SELECT mq.enqueue('other$_', '1')") for 1 .. 20;
	}
	else
	{
		stop_and_start($node, $how);
	}
	is(error_of($node, q{SELECT mq.enqueue_batch('rej', '{1,2}')}), '53400', "$how: two are too many");
	is(error_of($node, q{SELECT mq.enqueue('rej', '1')}), '', '... one is not');
	is(error_of($node, q{SELECT mq.enqueue('rej', '1')}), '53400', '... then it is full');
	is($node->safe_psql('postgres', q{SELECT mq.delete('rej', ARRAY(SELECT max(id) FROM mq.q_rej))}), 1, '... one goes');
}

# The first to count is in the middle of its own transaction.
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', q{BEGIN; DELETE FROM mq.q_rej WHERE id = (SELECT min(id) FROM mq.q_rej);
SELECT mq.enqueue('rej', '1') > 0; SAVEPOINT s; SELECT mq.enqueue('drp', '1') > 0; ROLLBACK TO s; COMMIT;
SELECT count(*) FROM mq.q_rej}), "t\nt\n19", 'a count in the middle of a transaction');
is(error_of($node, q{SELECT mq.enqueue_batch('rej', '{1,2}')}), '53400', '... is true');
is(error_of($node, q{SELECT mq.enqueue('rej', '1')}), '', '... to the row');

# Prepared producers keep their places, also over a restart.
for my $restart (0, 1)
{
	$node->safe_psql('postgres', q{SELECT mq.purge('rej')});
	$node->safe_psql('postgres', q{BEGIN; SELECT count(*) FROM mq.enqueue_batch('rej', array_fill('1'::jsonb, '{9}'));
SAVEPOINT s; SELECT mq.enqueue('rej', '1'); RELEASE s; PREPARE TRANSACTION 'kept'});
	$node->safe_psql('postgres', q{BEGIN; SELECT count(*) FROM mq.enqueue_batch('rej', array_fill('1'::jsonb, '{6}'));
PREPARE TRANSACTION 'undone'});
	$node->restart if $restart;
	is(error_of($node, q{SELECT mq.enqueue_batch('rej', '{1,2,3,4,5}')}), '53400', "restart $restart: prepared rows count");
	is(error_of($node, q{SELECT mq.enqueue_batch('rej', '{1,2,3}')}), '', '... exactly');
	$node->safe_psql('postgres', q{COMMIT PREPARED 'kept'});
	$node->safe_psql('postgres', q{ROLLBACK PREPARED 'undone'});
	wait_until($node, q{SELECT EXISTS (SELECT FROM mq.stats WHERE queue = 'rej' AND exact AND ready = 13)}, '... when they have ended');
	is(error_of($node, q{SELECT mq.enqueue_batch('rej', array_fill('1'::jsonb, '{8}'))}), '53400', '... those committed do');
	is(error_of($node, q{SELECT mq.enqueue_batch('rej', array_fill('1'::jsonb, '{7}'))}), '', '... those rolled back do not');
}
$node->safe_psql('postgres', q{SELECT mq.purge('drp'); SELECT count(*) FROM mq.enqueue_batch('drp', array_fill('"old"'::jsonb, '{20}'));
BEGIN; SELECT mq.enqueue('drp', '"new"'); PREPARE TRANSACTION 'drop'});
is($node->safe_psql('postgres', q{SELECT mq.enqueue('drp', '"other"') > 0; SELECT count(*) FROM mq.q_drp}),
	"t\n20", 'a prepared producer that dropped one');
$node->safe_psql('postgres', q{COMMIT PREPARED 'drop'});
is($node->safe_psql('postgres', q{SELECT count(*), count(*) FILTER (WHERE body = '"old"') FROM mq.q_drp}), '20|18', '... has done so when it commits');
$node->stop;

done_testing();
