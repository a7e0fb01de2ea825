-- Dead letters: who gets there, x-death, redrive.
\ir setup.psql
SELECT mq.create_queue('dl', max_attempts => 3, backoff => '0');

-- By nack.
SELECT mq.enqueue('dl', '{"n": 1}', '{"trace": "t1"}', priority => 4, key => 'kk') AS id \gset
CREATE TEMP TABLE deliveries (attempt int);
DO $$
DECLARE
    m mq.message;
BEGIN
    LOOP
        SELECT * INTO m FROM mq.dequeue('dl');
        EXIT WHEN m IS NULL OR m.id IS NULL;
        INSERT INTO deliveries VALUES (m.attempt);
        PERFORM mq.nack('dl', m.id, m.receipt, reason => 'broken ' || m.attempt);
        COMMIT;
    END LOOP;
END $$;
SELECT results_eq('SELECT attempt FROM deliveries ORDER BY attempt', 'VALUES (1), (2), (3)', 'exactly max_attempts deliveries');
SELECT ok(pg_temp.until($$ (SELECT count(*) = 1 FROM mq.q_dl_dead) AND (SELECT count(*) = 0 FROM mq.q_dl) $$), 'then it moves to the dead letters');
SELECT results_eq($$ SELECT body, headers - 'x-death', key, attempts FROM mq.q_dl_dead $$,
    $$ VALUES ('{"n": 1}'::jsonb, '{"trace": "t1"}'::jsonb, 'kk', 0) $$, 'body, headers and key are kept');
SELECT is(jsonb_array_length(headers -> 'x-death'), 1, 'x-death has one entry') FROM mq.q_dl_dead;
SELECT is(headers -> 'x-death' -> 0 ->> 'queue', 'dl', 'x-death: queue') FROM mq.q_dl_dead;
SELECT is((headers -> 'x-death' -> 0 ->> 'id')::bigint, :id::bigint, 'x-death: id') FROM mq.q_dl_dead;
SELECT is(headers -> 'x-death' -> 0 ->> 'reason', 'attempts', 'x-death: reason') FROM mq.q_dl_dead;
SELECT is((headers -> 'x-death' -> 0 ->> 'attempts')::int, 3, 'x-death: attempts') FROM mq.q_dl_dead;
SELECT is(headers -> 'x-death' -> 0 ->> 'error', 'broken 3', 'x-death: error') FROM mq.q_dl_dead;
SELECT ok((headers -> 'x-death' -> 0 ->> 'at')::timestamptz BETWEEN clock_timestamp() - interval '1 min' AND clock_timestamp(), 'x-death: at') FROM mq.q_dl_dead;
SELECT set_eq($$ SELECT k FROM mq.q_dl_dead, jsonb_object_keys(headers -> 'x-death' -> 0) k $$, '{queue,id,reason,attempts,at,error}'::text[], 'x-death: nothing else');
SELECT is((SELECT dead FROM mq.stats WHERE queue = 'dl'), 1::bigint, 'counted');

-- Redrive.
SELECT is(mq.redrive('dl_dead'), 1::bigint, 'redrive');
SELECT is((SELECT count(*) FROM mq.q_dl_dead), 0::bigint, '... takes it out of the dead letters');
SELECT results_eq('SELECT body, attempts, ready_at <= clock_timestamp() OR ready_at IS NULL, expires_at FROM mq.q_dl',
    $$ VALUES ('{"n": 1}'::jsonb, 0, true, NULL::timestamptz) $$, '... back to where it died: attempts 0, due now, no expiry');
SELECT is((SELECT attempt FROM mq.dequeue('dl')), 1, '... and is delivered anew');
-- a second death: newest first
SELECT is(mq.reject('dl', id, receipt, 'never again'), true, 'reject') FROM mq.in_flight WHERE queue = 'dl';
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_dl_dead)'), '... goes straight to the dead letters');
SELECT is((SELECT count(*) FROM mq.q_dl), 0::bigint, '... in one step');
SELECT results_eq($$ SELECT d.value ->> 'reason', d.value ->> 'error' FROM mq.q_dl_dead, jsonb_array_elements(headers -> 'x-death') WITH ORDINALITY d(value, n) ORDER BY n $$,
    $$ VALUES ('rejected', 'never again'), ('attempts', 'broken 3') $$, 'x-death is newest first');
SELECT is(mq.redrive('dl_dead', 5), 1::bigint, 'redrive with a maximum');
SELECT mq.purge('dl');
SELECT is(mq.redrive('dl_dead'), 0::bigint, 'nothing to redrive');

-- Rejecting many; redrive by max and to a target.
SELECT mq.enqueue_batch('dl', '{1,2,3,4,5}');
SELECT array_agg(id) AS ids, max(receipt) AS receipt FROM mq.dequeue('dl', 5) \gset a_
SELECT is(mq.reject_batch('dl', :'a_ids'::bigint[] || :'a_ids'::bigint[], ARRAY[:a_receipt], 'batch'), 5, 'reject_batch');
SELECT ok(pg_temp.until('(SELECT count(*) = 5 FROM mq.q_dl_dead)'), 'five dead letters');
SELECT is(mq.redrive('dl_dead', 2), 2::bigint, 'two of them');
SELECT is((SELECT count(*) FROM mq.q_dl), 2::bigint, '... are back');
SELECT is((SELECT count(*) FROM mq.q_dl_dead), 3::bigint, '... three are dead');
SELECT mq.create_queue('dl_other', dead_letter => '');
SELECT is(mq.redrive('dl_dead', target => 'dl_other'), 3::bigint, 'the others somewhere else');
SELECT is((SELECT count(*) FROM mq.dequeue('dl_other', 10, auto_ack => true)), 3::bigint, '... where they are delivered');
SELECT mq.purge('dl');
SELECT is(pg_temp.state($$ SELECT mq.redrive('dl_dead', target => 'nope') $$), '42704', 'redrive to no queue');
-- back to where each died
SELECT mq.create_queue('dl2', dead_letter => 'dl_dead', backoff => '0');
SELECT mq.enqueue('dl', '"from dl"');
SELECT mq.enqueue('dl2', '"from dl2"');
SELECT mq.reject(queue, id, receipt) FROM (SELECT * FROM mq.dequeue('dl') UNION ALL SELECT * FROM mq.dequeue('dl2')) m;
SELECT ok(pg_temp.until('(SELECT count(*) = 2 FROM mq.q_dl_dead)'), 'dead letters of two queues in one');
SELECT is(mq.redrive('dl_dead'), 2::bigint, 'redriven');
SELECT results_eq($$ SELECT queue, body FROM mq.dequeue('dl', auto_ack => true) UNION ALL SELECT queue, body FROM mq.dequeue('dl2', auto_ack => true) $$,
    $$ VALUES ('dl', '"from dl"'::jsonb), ('dl2', '"from dl2"') $$, '... each to its own');

-- By ended leases.
SELECT mq.enqueue('dl', '"slow"');
SELECT attempt FROM mq.dequeue('dl', lease => '1 ms', wait => '10 s') \gset x1_
SELECT attempt FROM mq.dequeue('dl', lease => '1 ms', wait => '10 s') \gset x2_
SELECT attempt FROM mq.dequeue('dl', lease => '1 ms', wait => '10 s') \gset x3_
SELECT is(:'x1_attempt' || :'x2_attempt' || :'x3_attempt', '123', 'three leases that ended');
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_dl_dead)'), '... and it is dead');
SELECT is(headers -> 'x-death' -> 0 ->> 'reason', 'attempts', '... for its attempts') FROM mq.q_dl_dead;
SELECT is(headers -> 'x-death' -> 0 ->> 'attempts', '3', '... three') FROM mq.q_dl_dead;
SELECT ok(headers -> 'x-death' -> 0 ->> 'error' <> '', '... with a reason') FROM mq.q_dl_dead;
SELECT mq.purge('dl_dead');

-- By rollback: the poison message of a transactional consumer.
SELECT mq.enqueue_batch('dl', '{"\"poison\"","\"good\""}');
CREATE TEMP TABLE tries (body text);
CREATE SEQUENCE poison_deliveries;
DO $$
DECLARE
    m mq.message; idle int := 0;
BEGIN
    WHILE idle < 2 LOOP
        BEGIN
            SELECT * INTO m FROM mq.dequeue('dl', auto_ack => true, wait => '200 ms');
            IF m.id IS NULL THEN
                idle := idle + 1;
            ELSIF m.body = '"poison"' THEN
                PERFORM nextval('poison_deliveries');
                RAISE EXCEPTION 'the job failed';
            ELSE
                INSERT INTO tries VALUES (m.body #>> '{}');
            END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
        COMMIT;
    END LOOP;
END $$;
SELECT is((SELECT last_value FROM poison_deliveries), 3::bigint, 'poison is delivered exactly max_attempts times');
SELECT is((SELECT string_agg(body, ',') FROM tries), 'good', 'the good message once');
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_dl_dead)'), 'poison is dead');
SELECT is((SELECT body FROM mq.q_dl_dead), '"poison"'::jsonb, '... itself');
SELECT is((SELECT count(*) FROM mq.q_dl), 0::bigint, 'and nothing is left');
DROP SEQUENCE poison_deliveries;
SELECT mq.purge('dl_dead');

-- reject that rolls back does not reject
SELECT mq.enqueue('dl', '1');
SELECT id, receipt FROM mq.dequeue('dl') \gset m_
BEGIN;
SELECT mq.reject('dl', :m_id, :m_receipt) AS ok \gset
ROLLBACK;
SELECT is((SELECT count(*) FROM mq.q_dl_dead), 0::bigint, 'a rolled-back reject rejects nothing');
SELECT is(mq.reject('dl', :m_id, :m_receipt, strict => true), true, '... and can be done again');
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_dl_dead)'), '... for good');

-- Without dead letters they are dropped and counted; 0 attempts means for ever.
SELECT mq.create_queue('dl_none', dead_letter => '', max_attempts => 1, backoff => '0');
SELECT mq.enqueue('dl_none', '1');
SELECT mq.nack('dl_none', id, receipt) FROM mq.dequeue('dl_none') m;
SELECT ok(pg_temp.until('(SELECT count(*) = 0 FROM mq.q_dl_none)'), 'dropped');
SELECT is((SELECT dead FROM mq.stats WHERE queue = 'dl_none'), 1::bigint, '... and counted');
SELECT mq.enqueue('dl_none', '2');
BEGIN;
SELECT body FROM mq.dequeue('dl_none');
ROLLBACK;
SELECT is((SELECT count(*) FROM mq.dequeue('dl_none')), 0::bigint, 'what a rollback has used up is not delivered again');
SELECT mq.create_queue('dl_ever', max_attempts => 0, backoff => '0');
SELECT mq.enqueue('dl_ever', '1');
DO $$
BEGIN
    FOR i IN 1..30 LOOP
        ASSERT (SELECT mq.nack('dl_ever', id, receipt) FROM mq.dequeue('dl_ever') m), 'delivered';
        COMMIT;
    END LOOP;
END $$;
SELECT is((SELECT attempt FROM mq.dequeue('dl_ever', 10, auto_ack => true)), 31, 'max_attempts 0 never gives up');
SELECT is((SELECT count(*) FROM mq.q_dl_ever_dead), 0::bigint, '... and nothing is dead');
-- backoff does not overflow however often it failed
SELECT mq.alter_queue('dl_ever', backoff => '1 s', backoff_limit => '1 h');
SELECT mq.enqueue('dl_ever', '1');
UPDATE mq.q_dl_ever SET attempts = 100000;
SELECT mq.nack('dl_ever', id, receipt) FROM mq.dequeue('dl_ever') m;
SELECT ok(ready_at - clock_timestamp() BETWEEN '53 min' AND '66 min', 'after 100,000 failures it waits backoff_limit') FROM mq.q_dl_ever;

SELECT mq.drop_queue(q) FROM unnest('{dl,dl2,dl_other,dl_dead,dl_none,dl_ever,dl_ever_dead}'::text[]) q;
SELECT * FROM finish();
