-- Producing: what a message is, batches, delays, savepoints, and the exact rows.
\ir setup.psql
SELECT mq.create_queue('en', dead_letter => '', backoff => '0');

SELECT clock_timestamp() AS t0 \gset
SELECT mq.enqueue('en', '{"a": [1, "zwei"]}', '{"h": "v"}', priority => 3, key => 'k1') AS id \gset a_
SELECT results_eq('SELECT attempts, priority, ready_at, expires_at, key, dedup_id, headers, body, data, last_error FROM mq.q_en',
    $$ VALUES (0, 3::smallint, NULL::timestamptz, NULL::timestamptz, 'k1', NULL::text, '{"h": "v"}'::jsonb, '{"a": [1, "zwei"]}'::jsonb, NULL::bytea, NULL::text) $$,
    'the row of a message');
SELECT ok(enqueued_at BETWEEN :'t0' AND clock_timestamp(), 'enqueued_at is the clock''s time') FROM mq.q_en;
SELECT is((SELECT id FROM mq.q_en), :a_id::bigint, 'enqueue returns the id');
CREATE TEMP TABLE got AS SELECT * FROM mq.dequeue('en');
SELECT results_eq('SELECT queue, id, attempt, priority, key, headers, body, data, dedup_id, expires_at, last_error FROM got',
    format($$ VALUES ('en', %s::bigint, 1, 3::smallint, 'k1', '{"h": "v"}'::jsonb, '{"a": [1, "zwei"]}'::jsonb, NULL::bytea, NULL::text, NULL::timestamptz, NULL::text) $$, :a_id),
    'the message that comes of it');
SELECT ok(receipt > 0 AND receipt < 2^53, 'a receipt fits into a double') FROM got;
SELECT is(mq.ack(g::mq.message), true, 'the composite is acknowledged') FROM (SELECT * FROM got) g;
DROP TABLE got;

SELECT mq.enqueue('en', data => '\x00ff00');
SELECT results_eq($$ SELECT body, data FROM mq.dequeue('en', auto_ack => true) $$, $$ VALUES (NULL::jsonb, '\x00ff00'::bytea) $$, 'a body that is not JSON');
SELECT mq.enqueue('en', 'null');
SELECT results_eq($$ SELECT body FROM mq.dequeue('en', auto_ack => true) $$, $$ VALUES ('null'::jsonb) $$, 'JSON''s null is a body');
SELECT mq.enqueue('en', '""', key => repeat('k', 1000));
SELECT is((SELECT octet_length(key) FROM mq.dequeue('en', auto_ack => true)), 1000, 'a key of 1,000 bytes');
SELECT mq.enqueue('en', '1', key => '');
SELECT is((SELECT key FROM mq.dequeue('en', auto_ack => true)), '', 'an empty key is a key');
SELECT mq.enqueue('en', NULL, NULL, NULL, 5, NULL, NULL, NULL, NULL, '\x61');
SELECT results_eq($$ SELECT priority, data FROM mq.dequeue('en', auto_ack => true) $$, $$ VALUES (5::smallint, '\x61'::bytea) $$, 'arguments by position');

-- Batches.
CREATE TEMP TABLE ids AS SELECT id, n FROM mq.enqueue_batch('en', '{10,20,30}', ARRAY['{"n": 1}', NULL, '{"n": 3}']::jsonb[], keys => '{a,NULL,c}') WITH ORDINALITY AS t(id, n);
SELECT results_eq('SELECT body, headers, key FROM ids JOIN mq.q_en USING (id) ORDER BY n',
    $$ VALUES ('10'::jsonb, '{"n": 1}'::jsonb, 'a'), ('20', NULL, NULL), ('30', '{"n": 3}', 'c') $$, 'a batch returns its ids in order');
SELECT results_eq('SELECT n FROM ids ORDER BY id', 'SELECT n FROM ids ORDER BY n', '... and ids grow');
SELECT results_eq($$ SELECT body FROM mq.dequeue('en', 10, auto_ack => true) $$, $$ VALUES ('10'::jsonb), ('20'), ('30') $$, 'delivered in this order');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('en', '{}')), 0::bigint, 'an empty batch');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('en', datas => ARRAY['\x01', '\x02']::bytea[])), 2::bigint, 'a batch of data');
SELECT results_eq($$ SELECT data, body FROM mq.dequeue('en', 10, auto_ack => true) $$, $$ VALUES ('\x01'::bytea, NULL::jsonb), ('\x02', NULL) $$, '... arrives');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('en', ARRAY['1', NULL]::jsonb[], datas => ARRAY[NULL, '\x02']::bytea[])), 2::bigint, 'a mixed one');
SELECT results_eq($$ SELECT body, data FROM mq.dequeue('en', 10, auto_ack => true) $$, $$ VALUES ('1'::jsonb, NULL::bytea), (NULL, '\x02') $$, '... arrives');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('en', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 5000) i), priority => 2)), 5000::bigint, 'a batch of 5,000');
SELECT results_eq($$ SELECT body, priority FROM mq.dequeue('en', 5000, auto_ack => true) $$,
    $$ SELECT to_jsonb(i), 2::smallint FROM generate_series(1, 5000) i $$, '... arrives whole and in order');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('en', '[5:6]={1,2}'::jsonb[])), 2::bigint, 'array bounds do not matter');
SELECT is((SELECT count(*) FROM mq.dequeue('en', 5000, auto_ack => true)), 2::bigint, '... to what arrives');

-- Exactly if the transaction commits.
BEGIN;
SELECT mq.enqueue('en', '"lost"');
SELECT count(*) AS own FROM mq.dequeue('en', 10) \gset
ROLLBACK;
SELECT is(:own, 0, 'a transaction does not receive what it enqueued itself');
SELECT is((SELECT count(*) FROM mq.dequeue('en', 10)), 0::bigint, 'rolled back is not delivered');
BEGIN;
SELECT mq.enqueue('en', '"kept 1"');
SAVEPOINT a;
SELECT mq.enqueue('en', '"lost 1"');
SAVEPOINT b;
SELECT mq.enqueue_batch('en', '{"\"lost 2\"","\"lost 3\""}');
RELEASE b;
ROLLBACK TO a;
SELECT mq.enqueue('en', '"kept 2"');
RELEASE a;
SAVEPOINT c;
SELECT mq.enqueue('en', '"kept 3"');
COMMIT;
SELECT results_eq($$ SELECT body FROM mq.dequeue('en', 10, auto_ack => true) $$, $$ VALUES ('"kept 1"'::jsonb), ('"kept 2"'), ('"kept 3"') $$,
    'savepoints roll back exactly their own');
DO $$
BEGIN
    FOR i IN 1..4 LOOP
        BEGIN
            PERFORM mq.enqueue('en', to_jsonb(i));
            IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
SELECT results_eq($$ SELECT body FROM mq.dequeue('en', 10, auto_ack => true) $$, $$ VALUES ('1'::jsonb), ('3') $$, 'so do exception blocks');
DO $$
BEGIN
    FOR i IN 1..4 LOOP
        PERFORM mq.enqueue('en', to_jsonb(i));
        IF i % 2 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
    END LOOP;
END $$;
SELECT results_eq($$ SELECT body FROM mq.dequeue('en', 10, auto_ack => true) $$, $$ VALUES ('1'::jsonb), ('3') $$, 'and transactions of a DO block');

-- Delays.
SELECT mq.enqueue('en', '"later"', delay => '1 h') AS id \gset d_
SELECT ok(extract(epoch FROM ready_at - clock_timestamp()) BETWEEN 3590 AND 3600, 'a delay counts from now') FROM mq.q_en WHERE id = :d_id;
SELECT is((SELECT count(*) FROM mq.dequeue('en', 10)), 0::bigint, 'a delayed message is not delivered');
SELECT is(mq.status('en', :d_id), 'delayed', 'its status');
SELECT is(mq.delete('en', ARRAY[:d_id]), 1, 'deleted');
SELECT mq.enqueue('en', '"at"', deliver_at => clock_timestamp() + '300 ms') AS id, clock_timestamp() AS t \gset d_
SELECT is((SELECT count(*) FROM mq.dequeue('en')), 0::bigint, 'not before deliver_at');
CREATE TEMP TABLE at AS SELECT body, clock_timestamp() AS t FROM mq.dequeue('en', wait => '10 s', auto_ack => true);
SELECT results_eq('SELECT body FROM at', $$ VALUES ('"at"'::jsonb) $$, 'a waiting dequeue gets it when it comes due');
SELECT ok(t >= :'d_t'::timestamptz + '290 ms', '... not before') FROM at;
SELECT ok(t < :'d_t'::timestamptz + '5 s', '... and not much after') FROM at;
SELECT mq.enqueue('en', '"past"', deliver_at => '2001-01-01');
SELECT mq.enqueue('en', '"zero"', delay => '0');
SELECT is((SELECT count(*) FROM mq.dequeue('en', 10, auto_ack => true)), 2::bigint, 'times in the past are due');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('en', '1', deliver_at => 'infinity') $$), '22023', 'infinity is no time to deliver at');
SELECT is((SELECT count(*) FROM mq.q_en), 0::bigint, '... and nothing is enqueued');

-- Ids are never used again.
SELECT mq.enqueue('en', '1') AS id \gset x_
SELECT mq.purge('en');
SELECT cmp_ok(mq.enqueue('en', '1'), '>', :x_id::bigint, 'ids grow over a purge');
TRUNCATE mq.q_en;
SELECT cmp_ok(mq.enqueue('en', '1'), '>', :x_id::bigint + 1, 'and over TRUNCATE');
SELECT mq.drop_queue('en');

-- Other callers than a client: SQL and PL/pgSQL functions, triggers, CTEs, SELECT over many rows.
SELECT mq.create_queue('en2', dead_letter => '');
CREATE TABLE orders (id int PRIMARY KEY, total numeric);
CREATE FUNCTION orders_queued() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM mq.enqueue('en2', to_jsonb(NEW)); RETURN NULL; END $$;
CREATE TRIGGER queued AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION orders_queued();
INSERT INTO orders VALUES (1, 9.5), (2, 3);
SELECT results_eq($$ SELECT (body->>'id')::int FROM mq.dequeue('en2', 10, auto_ack => true) $$, 'VALUES (1), (2)', 'enqueued by a trigger');
SELECT pg_temp.state('INSERT INTO orders VALUES (3, 1), (3, 1)') \gset
SELECT is((SELECT count(*) FROM mq.dequeue('en2', 10)), 0::bigint, 'a failing statement enqueues nothing');
WITH moved AS (DELETE FROM orders RETURNING id) SELECT mq.enqueue('en2', to_jsonb(id)) FROM moved;
SELECT is((SELECT count(*) FROM mq.dequeue('en2', 10, auto_ack => true)), 2::bigint, 'enqueued out of a CTE');
SELECT count(mq.enqueue('en2', to_jsonb(i))) FROM generate_series(1, 1000) i;
SELECT is((SELECT count(*) FROM mq.dequeue('en2', 2000, auto_ack => true)), 1000::bigint, 'a thousand by one SELECT');
DROP TABLE orders;
DROP FUNCTION orders_queued();
SELECT mq.drop_queue('en2');
SELECT * FROM finish();
