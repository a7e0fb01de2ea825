-- Savepoints within savepoints, exception blocks within exception blocks, cursors: every verb is undone exactly.
\ir setup.psql
SELECT mq.create_queue('ne', max_attempts => 9, backoff => '0', lease => '1 h');
CREATE FUNCTION pg_temp.table_state() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s:%s:%s', body, attempts, mq.status('ne', id)), ' ' ORDER BY body::int) FROM mq.q_ne $$;

-- Enqueues: inner released and outer rolled back, and the other way round.
BEGIN;
SAVEPOINT x; SELECT mq.enqueue('ne', '1'); SAVEPOINT y; SELECT mq.enqueue('ne', '2'); RELEASE y; RELEASE x;
COMMIT;
BEGIN;
SAVEPOINT x; SELECT mq.enqueue('ne', '90'); SAVEPOINT y; SELECT mq.enqueue('ne', '91'); RELEASE y; ROLLBACK TO x;
SELECT mq.enqueue('ne', '92'); ROLLBACK TO x; SELECT mq.enqueue('ne', '3'); RELEASE x;
COMMIT;
BEGIN;
SAVEPOINT x; SELECT mq.enqueue('ne', '4'); SAVEPOINT y; SELECT mq.enqueue('ne', '93'); ROLLBACK TO y; RELEASE y; RELEASE x;
COMMIT;
BEGIN;
SAVEPOINT x; SELECT mq.enqueue('ne', '94'); RELEASE x;
ROLLBACK;
SELECT is(pg_temp.table_state(), '1:0:ready 2:0:ready 3:0:ready 4:0:ready', 'enqueues under nested savepoints');
SELECT results_eq($$ SELECT body FROM mq.dequeue('ne', 10, auto_ack => true) $$, $$ VALUES ('1'::jsonb), ('2'), ('3'), ('4') $$, '... are what is delivered');

-- Settlings.
CREATE TEMP TABLE g (id bigint, receipt bigint, body jsonb);
SELECT mq.enqueue_batch('ne', '{1,2,3,4,5,6}');
INSERT INTO g SELECT id, receipt, body FROM mq.dequeue('ne', 6);
BEGIN;
SAVEPOINT x;
SELECT mq.ack('ne', id, receipt) FROM g WHERE body = '1';
SAVEPOINT y;
SELECT mq.nack('ne', id, receipt) FROM g WHERE body = '2';
SELECT mq.reject('ne', id, receipt) FROM g WHERE body = '3';
SELECT mq.release('ne', id, receipt) FROM g WHERE body = '4';
SELECT mq.extend('ne', id, receipt, '5 h') FROM g WHERE body = '5';
RELEASE y;
ROLLBACK TO x;
SELECT pg_temp.table_state() AS undone \gset
SAVEPOINT y;
SELECT mq.nack('ne', id, receipt, '1 h', 'second thought') AS ok FROM g WHERE body = '1' \gset s1_
SAVEPOINT z;
SELECT mq.ack('ne', id, receipt) AS ok FROM g WHERE body = '2' \gset s2_
ROLLBACK TO z;
SELECT mq.reject('ne', id, receipt, 'because') AS ok FROM g WHERE body = '2' \gset s3_
RELEASE y;
RELEASE x;
SELECT mq.release('ne', id, receipt) AS ok FROM g WHERE body = '3' \gset s4_
SELECT mq.ack('ne', id, receipt) AS ok FROM g WHERE body = '4' \gset s5_
COMMIT;
SELECT is(:'undone'::text, '1:0:leased 2:0:leased 3:0:leased 4:0:leased 5:0:leased 6:0:leased', 'settlings under a savepoint that is rolled back, some in an inner one that was released');
SELECT is(:'s1_ok' || :'s2_ok' || :'s3_ok' || :'s4_ok' || :'s5_ok', 'ttttt', '... leave each delivery current, to be settled otherwise');
SELECT is(pg_temp.table_state(), '1:1:delayed 3:0:ready 5:0:leased 6:0:leased', '... which is what counts');
SELECT is((SELECT string_agg(body || ' ' || (headers -> 'x-death' -> 0 ->> 'error'), ',') FROM (SELECT body #>> '{}' AS body, headers FROM mq.q_ne_dead) d), '2 because', '... the rejected one is dead once');
SELECT is((SELECT lease_until > now() + '4 h' FROM mq.in_flight JOIN g USING (id) WHERE g.body = '5'), true, 'extend acts at once, also under a savepoint that is rolled back');
SELECT is(mq.ack_batch('ne', array_agg(id), array_agg(receipt)), 2, 'the others are current') FROM g WHERE body IN ('5', '6');
DELETE FROM mq.q_ne;
TRUNCATE g;

-- Dequeues.
SELECT mq.enqueue_batch('ne', '{1,2,3,4}');
BEGIN;
SAVEPOINT x;
INSERT INTO g SELECT id, receipt, body FROM mq.dequeue('ne');
SAVEPOINT y;
INSERT INTO g SELECT id, receipt, body FROM mq.dequeue('ne');
RELEASE y;
SAVEPOINT z;
SELECT body FROM mq.dequeue('ne');
ROLLBACK TO z;
RELEASE x;
COMMIT;
SELECT is((SELECT string_agg(format('%s:%s', g.body, f.attempt), ' ' ORDER BY id) FROM mq.in_flight f JOIN g USING (id, receipt) WHERE f.queue = 'ne'), '1:1 2:1', 'dequeues under released savepoints are kept');
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('ne', 10, wait => '10 s', auto_ack => true) ORDER BY id $$, $$ VALUES ('3'::jsonb, 2), ('4', 1) $$, '... under a rolled-back one given back and counted');
SELECT is(mq.nack_batch('ne', array_agg(id), array_agg(receipt), '0'), 2, '... the kept ones are settled later') FROM g;
DELETE FROM mq.q_ne;
TRUNCATE g;

-- auto_ack.
SELECT mq.enqueue_batch('ne', '{1,2,3}');
BEGIN;
SELECT body FROM mq.dequeue('ne', auto_ack => true);
SAVEPOINT x;
SELECT body FROM mq.dequeue('ne', auto_ack => true);
ROLLBACK TO x;
COMMIT;
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('ne', 10, wait => '10 s', auto_ack => true) ORDER BY id $$, $$ VALUES ('2'::jsonb, 2), ('3', 1) $$, 'auto_ack under a rolled-back savepoint');

-- A message taken before a savepoint and settled under it is leased again after its rollback, and fails with the whole.
SELECT mq.enqueue('ne', '1');
BEGIN;
SELECT id, receipt FROM mq.dequeue('ne') \gset m_
SAVEPOINT x;
SELECT mq.ack('ne', :m_id, :m_receipt) AS ok \gset a_
ROLLBACK TO x;
SELECT mq.status('ne', :m_id) AS status \gset a_
SAVEPOINT y;
SELECT mq.nack('ne', :m_id, :m_receipt, '1 h', 'inner') AS ok \gset b_
ROLLBACK TO y;
SELECT mq.ack('ne', :m_id, :m_receipt) AS ok \gset c_
ROLLBACK;
SELECT is(:'a_ok' || ' ' || :'a_status' || ' ' || :'b_ok' || :'c_ok', 't leased tt', 'ack, nack, ack of one delivery, two of them taken back');
SELECT results_eq($$ SELECT attempt FROM mq.dequeue('ne', wait => '10 s', auto_ack => true) $$, 'VALUES (2)', '... and the whole rolled back counts one attempt, once');

-- Exception blocks within exception blocks.
SELECT mq.enqueue_batch('ne', '{1,2,3}');
DO $$
DECLARE
    m mq.message;
BEGIN
    BEGIN
        SELECT * INTO m FROM mq.dequeue('ne');
        PERFORM mq.ack(m);
        BEGIN
            SELECT * INTO m FROM mq.dequeue('ne');
            PERFORM mq.ack(m);
            PERFORM mq.enqueue('ne', '99');
            RAISE EXCEPTION 'inner';
        EXCEPTION WHEN raise_exception THEN
            PERFORM mq.enqueue('ne', '4');
        END;
    EXCEPTION WHEN raise_exception THEN
        ASSERT false, 'not reached';
    END;
END $$;
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('ne', 10, wait => '10 s', auto_ack => true) ORDER BY body $$, $$ VALUES ('2'::jsonb, 2), ('3', 1), ('4', 1) $$,
    'an inner exception block takes back its own ack, dequeue and enqueue only');

-- Cursors.
SELECT mq.enqueue_batch('ne', '{1,2,3}');
BEGIN;
DECLARE c CURSOR FOR SELECT id, body FROM mq.dequeue('ne', 2);
FETCH 1 FROM c;
CLOSE c;
ROLLBACK;
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('ne', 10, wait => '10 s', auto_ack => true) ORDER BY body $$, $$ VALUES ('1'::jsonb, 2), ('2', 2), ('3', 1) $$,
    'a cursor''s dequeue, closed half way and rolled back, gives back all it had leased');
SELECT mq.enqueue_batch('ne', '{1,2,3}');
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT id, receipt, body FROM mq.dequeue('ne', 3);
FETCH 1 FROM h \gset h1_
COMMIT;
FETCH 1 FROM h \gset h2_
SELECT is(:'h1_body' || :'h2_body', '12', 'a cursor WITH HOLD goes on after its transaction');
SELECT is(mq.ack('ne', :h1_id, :h1_receipt) AND mq.ack('ne', :h2_id, :h2_receipt), true, '... with current receipts');
CLOSE h;
SELECT is(pg_temp.table_state(), '3:0:leased', '... the one not fetched is leased as well');
DELETE FROM mq.q_ne;
BEGIN;
SELECT mq.enqueue('ne', '1');
COMMIT;
SELECT mq.enqueue_batch('ne', '{2,3,4,5}');
SELECT is((SELECT count(*) FROM (SELECT * FROM mq.dequeue('ne', 4, auto_ack => true) LIMIT 2) s), 2::bigint, 'LIMIT over auto_ack');
SELECT is((SELECT count(*) FROM mq.q_ne), 1::bigint,
    '... acknowledges what it was asked for, as any function in FROM');

SELECT mq.drop_queue(q) FROM unnest('{ne,ne_dead}'::text[]) q;
SELECT * FROM finish();
