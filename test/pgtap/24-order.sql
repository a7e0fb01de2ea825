-- The order of deliveries: priorities, what came due before what is fresh, by time, by id; one by one and in batches.
\ir setup.psql
SELECT mq.create_queue('od', dead_letter => '', max_attempts => 0, backoff => '0', lease => '1 h');
CREATE FUNCTION pg_temp.drain(max int) RETURNS TABLE (n bigint, body text, priority int, id bigint) LANGUAGE sql AS $$
    SELECT ordinality, d.body #>> '{}', d.priority::int, d.id FROM mq.dequeue('od', max, auto_ack => true)
        WITH ORDINALITY AS d(queue, id, receipt, attempt, enqueued_at, lease_until, priority, key, headers, body, data, dedup_id, expires_at, last_error) $$;

SELECT mq.enqueue('od', '"5 fresh 1"');
SELECT mq.enqueue('od', '"2 later"', priority => 5, deliver_at => now() - interval '1 min');
SELECT mq.enqueue('od', '"1 sooner"', priority => 5, deliver_at => now() - interval '1 h');
SELECT mq.enqueue('od', '"3 fresh of 5"', priority => 5);
SELECT mq.enqueue('od', '"not yet"', priority => 9, delay => '1 h');
SELECT mq.enqueue('od', '"0 of 9"', priority => 9);
SELECT mq.enqueue('od', '"4 came due"', deliver_at => now() - interval '2 h');
SELECT mq.enqueue('od', '"6 fresh 2"');
SELECT results_eq('SELECT body FROM pg_temp.drain(100)',
    $$ VALUES ('0 of 9'), ('1 sooner'), ('2 later'), ('3 fresh of 5'), ('4 came due'), ('5 fresh 1'), ('6 fresh 2') $$,
    'higher priority first, in each what came due before what is fresh, by time, then by id');
DELETE FROM mq.q_od;

-- A thousand, all priorities mixed, in one batch and one by one.
SELECT count(mq.enqueue('od', to_jsonb(i), priority => i * 7 % 10)) FROM generate_series(1, 1000) i \gset
CREATE TEMP TABLE want AS SELECT row_number() OVER (ORDER BY priority DESC, id) AS n, id FROM mq.q_od;
SELECT results_eq('SELECT n, id FROM pg_temp.drain(1000)', 'SELECT n, id FROM want ORDER BY n', 'a thousand of ten priorities in one batch');
DROP TABLE want;
SELECT count(mq.enqueue('od', to_jsonb(i), priority => i * 7 % 10, deliver_at => CASE WHEN i % 3 = 0 THEN now() - i * interval '1 s' END)) FROM generate_series(1, 1000) i \gset
CREATE TEMP TABLE want AS SELECT row_number() OVER (ORDER BY priority DESC, ready_at NULLS LAST, id) AS n, id FROM mq.q_od;
CREATE TEMP TABLE got (n bigserial, id bigint);
DO $$
BEGIN
    FOR i IN 1..1000 LOOP
        INSERT INTO got (id) SELECT id FROM mq.dequeue('od', auto_ack => true);
        COMMIT;
    END LOOP;
END $$;
SELECT results_eq('SELECT n, id FROM got ORDER BY n', 'SELECT n, id FROM want ORDER BY n', 'a thousand of ten priorities, a third of them with a time, one by one');

-- Released messages go back to their place; retried ones come before fresh ones.
SELECT mq.enqueue_batch('od', '{1,2,3,4,5,6}');
CREATE TEMP TABLE g AS SELECT * FROM mq.dequeue('od', 4);
SELECT mq.release('od', id, receipt) FROM g WHERE body = '3';
SELECT mq.release('od', id, receipt) FROM g WHERE body = '1';
SELECT mq.release_batch('od', array_agg(id ORDER BY id DESC), array_agg(receipt)) FROM g WHERE body IN ('2', '4');
SELECT results_eq('SELECT body FROM pg_temp.drain(100)', $$ SELECT i::text FROM generate_series(1, 6) i $$, 'released in another order, delivered in theirs');
DROP TABLE g;
SELECT mq.enqueue_batch('od', '{1,2,3,4}');
CREATE TEMP TABLE g AS SELECT * FROM mq.dequeue('od', 3);
SELECT mq.nack('od', id, receipt) FROM g WHERE body = '3';
SELECT mq.nack('od', id, receipt) FROM g WHERE body = '1';
SELECT mq.release('od', id, receipt) FROM g WHERE body = '2';
SELECT results_eq('SELECT body FROM pg_temp.drain(100)', $$ VALUES ('3'), ('1'), ('2'), ('4') $$, 'retried by the time they came due, before fresh ones');
DROP TABLE g;

-- What an UPDATE does to a leased message shows when it comes back.
SELECT mq.enqueue_batch('od', '{1,2,3,4}');
CREATE TEMP TABLE g AS SELECT * FROM mq.dequeue('od', 3);
UPDATE mq.q_od SET priority = 7 WHERE body = '3';
UPDATE mq.q_od SET ready_at = now() + '1 h' WHERE body = '2';
SELECT is(mq.release_batch('od', array_agg(id), array_agg(receipt)), 3, 'updated while leased, and released') FROM g;
SELECT results_eq('SELECT body FROM pg_temp.drain(100)', $$ VALUES ('3'), ('1'), ('4') $$, '... with the new priority and the new time');
SELECT is((SELECT ready || ' ' || delayed FROM mq.stats WHERE queue = 'od'), '0 1', '... counted so');
DELETE FROM mq.q_od;

-- An UPDATE of what has been read ahead.
SELECT mq.enqueue('od', '"first"', priority => 5), mq.enqueue('od', '"low"', priority => 5), mq.enqueue('od', '"middle"', priority => 3) \g /dev/null
SELECT is((SELECT body FROM mq.dequeue('od', auto_ack => true)), '"first"'::jsonb, 'the next one is read ahead');
UPDATE mq.q_od SET priority = 0 WHERE body = '"low"';
SELECT results_eq('SELECT body FROM pg_temp.drain(100)', $$ VALUES ('middle'), ('low') $$, '... and loses its place when its priority is lowered');
SELECT mq.enqueue('od', '"a"', delay => '0'), mq.enqueue('od', '"b"'), mq.enqueue('od', '"c"') \g /dev/null
SELECT is((SELECT body FROM mq.dequeue('od', auto_ack => true)), '"a"'::jsonb, 'the next ones are read ahead');
UPDATE mq.q_od SET ready_at = now() - interval '1 minute' WHERE body = '"c"';
SELECT results_eq('SELECT body FROM pg_temp.drain(100)', $$ VALUES ('c'), ('b') $$, '... one of them becomes due before the others');

SELECT mq.enqueue('od', '"lowered"', priority => 9), mq.enqueue('od', '"middle"', priority => 5) \g /dev/null
SELECT mq.enqueue_batch('od', '{1,2,3}');
CREATE TEMP TABLE ahead AS SELECT * FROM mq.dequeue('od', 3);
SELECT mq.release('od', id, receipt) FROM ahead WHERE body = '"lowered"';
SELECT is(mq.ack_batch('od', array_agg(id), array_agg(receipt)), 2, 'all lanes are read ahead') FROM ahead WHERE body <> '"lowered"';
UPDATE mq.q_od SET priority = 5 WHERE body = '"lowered"';
SELECT results_eq('SELECT body FROM pg_temp.drain(100)', $$ VALUES ('lowered'), ('2'), ('3') $$, '... one whose priority is lowered comes before what follows it in the same batch');
DROP TABLE ahead;
-- A retry whose time is taken away takes its place by id, also when others have been read ahead.
SELECT mq.enqueue('od', '1', deliver_at => now() - interval '1 minute') \g /dev/null
SELECT count(*) FROM mq.enqueue_batch('od', '{2,3,4}') \g /dev/null
SELECT mq.release('od', id, receipt) FROM mq.dequeue('od', 2) WHERE body = '1' \g /dev/null
UPDATE mq.q_od SET ready_at = NULL WHERE body = '1';
SELECT is((SELECT array_agg(body) FROM mq.dequeue('od', 3)), '{1,3,4}', 'an UPDATE to no time: by id again');
DELETE FROM mq.q_od;

-- A hundred thousand in one batch, drained in order.
SELECT is((SELECT count(*) FROM mq.enqueue_batch('od', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 100000) i))), 100000::bigint, 'a batch of 100,000');
SELECT is((SELECT count(*) FROM pg_temp.drain(50000) WHERE body = n::text), 50000::bigint, 'half of them in order');
SELECT is((SELECT count(*) FROM pg_temp.drain(2147483647) WHERE body = (n + 50000)::text), 50000::bigint, '... and the rest with the largest maximum');
SELECT is((SELECT ready || ' ' || delayed || ' ' || in_flight FROM mq.stats WHERE queue = 'od'), '0 0 0', 'nothing is left');

SELECT mq.drop_queue('od');
SELECT * FROM finish();
