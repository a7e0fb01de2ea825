-- max_in_flight and rate_limit: what they count, what frees a slot, what gives a token back, and that ALTER holds at once.
\ir setup.psql

-- Slots.
SELECT mq.create_queue('ml', max_in_flight => 3, dead_letter => '', backoff => '0', max_attempts => 0);
SELECT is((SELECT max_in_flight FROM mq.queues WHERE name = 'ml'), 3::bigint, 'mq.queues shows it');
SELECT mq.enqueue_batch('ml', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 30) i));
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 3::bigint, 'max => 10 with 3 slots gives 3');
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 0::bigint, 'then nothing');
SELECT is((SELECT ready FROM mq.stats WHERE queue = 'ml'), 27::bigint, 'mq.stats counts as ready what waits for a slot');
CREATE FUNCTION pg_temp.one(OUT id bigint, OUT receipt bigint) LANGUAGE sql AS
    $$ SELECT f.id, f.receipt FROM mq.in_flight f WHERE f.queue = 'ml' ORDER BY 1 LIMIT 1 $$;
SELECT mq.ack('ml', id, receipt) FROM pg_temp.one();
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 1::bigint, 'an ack frees one');
SELECT mq.nack('ml', id, receipt, '1 h') FROM pg_temp.one();
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 1::bigint, 'a nack');
SELECT mq.reject('ml', id, receipt) FROM pg_temp.one();
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 1::bigint, 'a reject');
SELECT mq.release('ml', id, receipt) FROM pg_temp.one();
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 1::bigint, 'a release');
SELECT mq.delete('ml', ARRAY[id]) FROM pg_temp.one();
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 1::bigint, 'a DELETE by the operator');
SELECT mq.extend('ml', id, receipt, '20 ms') FROM pg_temp.one();
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10, wait => '10 s')), 1::bigint, 'an ended lease');
SELECT mq.ack_batch('ml', array_agg(id), array_agg(receipt)) FROM mq.in_flight WHERE queue = 'ml';
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10, session => true)), 3::bigint, 'three for the session');
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 0::bigint, 'session leases count');
SELECT count(*) FROM mq.in_flight f, mq.ack('ml', f.id, f.receipt) WHERE f.queue = 'ml' \g /dev/null

-- Transactions: open ones count, rolled-back ones do not.
BEGIN;
SELECT count(*) AS n FROM mq.dequeue('ml', 2, auto_ack => true) \gset a_
SAVEPOINT s;
SELECT count(*) AS n FROM mq.dequeue('ml', 5) \gset b_
SELECT count(*) AS n FROM mq.dequeue('ml', 5) \gset c_
ROLLBACK TO s;
SELECT count(*) AS n FROM mq.dequeue('ml', 5) \gset d_
COMMIT;
SELECT is(ARRAY[:a_n, :b_n, :c_n, :d_n], '{2,1,0,1}', 'auto_ack counts while its transaction is open; a rolled-back savepoint frees its slots');
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 2::bigint, 'and after COMMIT what was acknowledged is free');
TRUNCATE mq.q_ml;
SELECT mq.enqueue_batch('ml', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 30) i));
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 3::bigint, 'TRUNCATE frees all');

-- Rows that turn out not to be deliverable take no slot.
SELECT mq.ack_batch('ml', array_agg(id), array_agg(receipt)) FROM mq.in_flight WHERE queue = 'ml';
BEGIN;
DELETE FROM mq.q_ml WHERE id < (SELECT min(id) + 5 FROM mq.q_ml);
SELECT count(*) AS n FROM mq.dequeue('ml', 10) \gset e_
COMMIT;
SELECT is(:e_n, 3, 'rows deleted here take no slot');

-- ALTER.
SELECT mq.alter_queue('ml', max_in_flight => 5);
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 2::bigint, 'a higher limit holds at once');
SELECT mq.alter_queue('ml', max_in_flight => 2);
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'ml'), 5::bigint, 'a lower one takes nothing away');
SELECT mq.ack_batch('ml', (array_agg(id))[:3], (array_agg(receipt))[:3]) FROM mq.in_flight WHERE queue = 'ml';
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 0::bigint, '... and gives nothing until enough have ended');
BEGIN;
SELECT mq.alter_queue('ml', max_in_flight => 4);
ROLLBACK;
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 0::bigint, 'a rolled-back ALTER changes nothing');
SELECT mq.alter_queue('ml', unset => '{max_in_flight}');
SELECT is((SELECT count(*) FROM mq.dequeue('ml', 10)), 10::bigint, 'unset: no limit');
SELECT mq.drop_queue('ml');

-- A message on its last attempt comes alone; what it had kept company gives its slot back.
SELECT mq.create_queue('la', max_in_flight => 3, dead_letter => '', backoff => '0', max_attempts => 2);
SELECT mq.enqueue_batch('la', '{1,2,3,4}');
UPDATE mq.q_la SET attempts = 1 WHERE body = '2';
SELECT is((SELECT array_agg(body) FROM mq.dequeue('la', 10)), '{1}'::jsonb[], 'the batch ends before the last attempt');
SELECT is((SELECT array_agg(body) FROM mq.dequeue('la', 10)), '{2}'::jsonb[], '... which comes alone');
SELECT is((SELECT array_agg(body) FROM mq.dequeue('la', 10)), '{3}'::jsonb[], 'one slot is left');
SELECT mq.drop_queue('la');

-- Tokens: a burst of one second, then one at a time.
SELECT mq.create_queue('rl', rate_limit => 5, dead_letter => '', backoff => '0', max_attempts => 2);
SELECT is((SELECT rate_limit FROM mq.queues WHERE name = 'rl'), 5::float8, 'mq.queues shows it');
SELECT mq.enqueue_batch('rl', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 100) i));
CREATE TEMP TABLE got AS SELECT clock_timestamp() AS at, m.id FROM mq.dequeue('rl', 20) m;
SELECT is((SELECT count(*) FROM got), 5::bigint, 'one second''s burst');
SELECT is((SELECT count(*) FROM mq.dequeue('rl', 20)), 0::bigint, 'and no more');
INSERT INTO got SELECT clock_timestamp(), m.id FROM mq.dequeue('rl', 20, wait => '10 s') m;
SELECT is((SELECT count(*) FROM got), 6::bigint, 'the next token brings one');
SELECT ok(max(at) - min(at) >= '190 ms', '... not before it is there') FROM got;
SELECT ok(pg_temp.until($$ (SELECT count(*) FROM mq.dequeue('rl', 20, auto_ack => true)) > 0 $$), 'later there are some again');
-- what is looked at and not delivered costs no token
SELECT mq.alter_queue('rl', rate_limit => 0.001);
SELECT mq.purge('rl') \g /dev/null
SELECT mq.enqueue_batch('rl', '{1,2,3}');
UPDATE mq.q_rl SET attempts = 1 WHERE body <> '1';
SELECT mq.alter_queue('rl', unset => '{rate_limit}');
SELECT mq.create_queue('rl2', rate_limit => 0.001, dead_letter => '', max_attempts => 0);
SELECT mq.enqueue_batch('rl2', '{1,2,3}');
BEGIN;
SELECT body FROM mq.q_rl2 WHERE body = '1' FOR UPDATE \g /dev/null
DELETE FROM mq.q_rl2 WHERE body = '1';
SELECT array_agg(body) AS got FROM mq.dequeue('rl2', 1) \gset f_
COMMIT;
SELECT is(:'f_got'::jsonb[], '{2}'::jsonb[], 'below one a second the burst is one; a row that was skipped gives its token back');
SELECT is((SELECT count(*) FROM mq.dequeue('rl2', 1)), 0::bigint, 'the token is used');
SELECT is((SELECT count(*) FROM mq.dequeue('rl2', 1, wait => '50 ms')), 0::bigint, '... and the next far away');
SELECT mq.release('rl2', id, receipt) FROM mq.in_flight WHERE queue = 'rl2';
SELECT is((SELECT count(*) FROM mq.dequeue('rl2', 1)), 0::bigint, 'a release was a delivery and gives none back');
CALL mq.wait('rl2', '50 ms');
SELECT is((SELECT delivered FROM mq.stats WHERE queue = 'rl2'), 1::bigint, 'one delivery in all');
SELECT mq.alter_queue('rl2', rate_limit => 1000);
SELECT is((SELECT count(*) FROM mq.dequeue('rl2', 5, wait => '10 s')) > 0, true, 'a higher rate holds at once: an empty bucket fills by it');
SELECT mq.create_queue('rl3', rate_limit => 3, dead_letter => '');
SELECT mq.enqueue_batch('rl3', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 10) i));
CALL mq.wait('rl3', '10 s');
SELECT is((SELECT count(*) FROM mq.dequeue('rl3', 10)), 3::bigint, 'mq.wait takes no token');
CREATE FUNCTION pg_temp.fails() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM m.id / 0 FROM mq.dequeue('rl4', 1) m;
    RETURN 'no error';
EXCEPTION WHEN division_by_zero THEN
    RETURN 'error';
END $$;
SELECT mq.create_queue('rl4', rate_limit => 0.001, dead_letter => '', backoff => '0');
SELECT mq.enqueue('rl4', '1');
SELECT is(pg_temp.fails(), 'error', 'a delivery that fails with its transaction');
SELECT is((SELECT count(*) FROM mq.dequeue('rl4', 1)), 0::bigint, '... was one');

-- Extremes.
SELECT mq.create_queue('ex1', rate_limit => 1e308, max_in_flight => 9223372036854775807, dead_letter => '');
SELECT mq.enqueue_batch('ex1', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 1000) i));
SELECT is((SELECT count(*) FROM mq.dequeue('ex1', 2000)), 1000::bigint, 'a limit beyond reach is none');
SELECT mq.create_queue('ex2', rate_limit => 1e-300, dead_letter => '');
SELECT mq.enqueue_batch('ex2', '{1,2}');
SELECT is((SELECT count(*) FROM mq.dequeue('ex2', 2)) + (SELECT count(*) FROM mq.dequeue('ex2', 2)), 1::bigint, 'the slowest rate gives one');
SELECT is((SELECT count(*) FROM mq.dequeue('ex2', 2, wait => '20 ms')), 0::bigint, '... and waits');
SELECT mq.alter_queue('ex2', rate_limit => 1);
SELECT is((SELECT count(*) FROM mq.dequeue('ex2', 2, wait => '10 s')), 1::bigint, 'until it is altered');
SELECT is(mq.drop_queue('ex2'), true, 'a queue with an empty bucket can be dropped');
SELECT is(pg_temp.state(format('SELECT mq.create_queue(''ex3'', %s)', o)), '22023', o) FROM unnest('{max_in_flight => 0,max_in_flight => -1,rate_limit => 0,rate_limit => -1,rate_limit => ''NaN'',rate_limit => ''Infinity''}'::text[]) o;


-- Another rate does not fill the bucket.
SELECT mq.create_queue('re', dead_letter => '', rate_limit => 0.001);
SELECT mq.enqueue_batch('re', '{1,2,3}') \g /dev/null
SELECT is((SELECT count(*) FROM mq.dequeue('re', 3)), 1::bigint, 'the burst of a slow queue');
SELECT mq.alter_queue('re', rate_limit => 0.002);
SELECT is((SELECT count(*) FROM mq.dequeue('re', 3)), 0::bigint, 'an empty bucket stays empty when the rate is changed');
SELECT mq.drop_queue('re');
SELECT * FROM finish();
