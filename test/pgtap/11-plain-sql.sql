-- Plain SQL on a queue's table: INSERT and COPY enqueue, DELETE cancels, UPDATE takes effect, TRUNCATE empties.
\ir setup.psql
SELECT mq.create_queue('ps', dead_letter => '', backoff => '0', lease => '1 h');
CREATE FUNCTION pg_temp.bodies(n int DEFAULT 100) RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(body #>> '{}', ',' ORDER BY o), '') FROM mq.dequeue('ps', n, auto_ack => true) WITH ORDINALITY
        AS m(queue, id, receipt, attempt, enqueued_at, lease_until, priority, key, headers, body, data, dedup_id, expires_at, last_error, o) $$;

SELECT is(pg_temp.bodies(), '', 'empty, and known to be');
INSERT INTO mq.q_ps (body) VALUES ('"a"'), ('"b"');
SELECT is(pg_temp.bodies(), 'a,b', 'INSERT enqueues');
INSERT INTO mq.q_ps (body, priority, headers, key) VALUES ('"low"', 1, NULL, NULL), ('"high"', 8, '{"x": 1}', 'k');
SELECT results_eq($$ SELECT body, priority, headers, key, attempt FROM mq.dequeue('ps', 2, auto_ack => true) $$,
    $$ VALUES ('"high"'::jsonb, 8::smallint, '{"x": 1}'::jsonb, 'k', 1), ('"low"', 1::smallint, NULL, NULL, 1) $$, '... with its columns');
INSERT INTO mq.q_ps (body) SELECT to_jsonb(i) FROM generate_series(1, 1000) i;
SELECT is(pg_temp.bodies(2000), (SELECT string_agg(i::text, ',' ORDER BY i) FROM generate_series(1, 1000) i), '... a thousand');
COPY mq.q_ps (body, priority, ready_at) FROM stdin;
"c1"	0	\N
"c2"	5	\N
"c3"	0	3000-01-01
\.
SELECT is(pg_temp.bodies(), 'c2,c1', 'COPY enqueues');
SELECT is(mq.purge('ps'), 1::bigint, '... the delayed one too');
BEGIN;
INSERT INTO mq.q_ps (body) VALUES ('"no"');
ROLLBACK;
BEGIN;
INSERT INTO mq.q_ps (body) VALUES ('"yes"');
SAVEPOINT s;
INSERT INTO mq.q_ps (body) VALUES ('"no"');
ROLLBACK TO s;
COMMIT;
SELECT is(pg_temp.bodies(), 'yes', 'only what commits');
INSERT INTO mq.q_ps (body) VALUES ('"returned"') RETURNING id, enqueued_at IS NOT NULL AS stamped, attempts \gset r_
SELECT is(mq.status('ps', :r_id) || :'r_stamped' || :'r_attempts', 'readyt0', 'RETURNING gives the id');
SELECT is(pg_temp.bodies(), 'returned', '... of what arrives');

-- The table's checks.
CREATE TEMP TABLE bad (sql text, state text);
INSERT INTO bad VALUES
    ($$INSERT INTO mq.q_ps (body, priority) VALUES ('1', 10)$$, '23514'), ($$INSERT INTO mq.q_ps (body, headers) VALUES ('1', '[]')$$, '23514'),
    ($$INSERT INTO mq.q_ps (body, data) VALUES ('1', '\x00')$$, '23514'), ($$INSERT INTO mq.q_ps (body, key) VALUES ('1', repeat('k', 1001))$$, '23514'),
    ($$INSERT INTO mq.q_ps (body, attempts) VALUES ('1', -1)$$, '23514'), ($$INSERT INTO mq.q_ps (id, body) VALUES (1, '1')$$, '428C9'),
    ($$INSERT INTO mq.q_ps (body, dedup_id) VALUES ('1', 'd')$$, '0A000');
SELECT is(pg_temp.state(sql), state, sql) FROM bad;
SELECT is((SELECT count(*) FROM mq.q_ps), 0::bigint, 'nothing of it stays');

-- DELETE cancels.
SELECT mq.enqueue_batch('ps', '{1,2,3,4}');
DELETE FROM mq.q_ps WHERE body = '2';
SELECT is(pg_temp.bodies(), '1,3,4', 'DELETE cancels');
SELECT mq.enqueue_batch('ps', '{1,2}');
SELECT id, receipt FROM mq.dequeue('ps') \gset m_
DELETE FROM mq.q_ps WHERE id = :m_id;
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'ps'), 0::bigint, 'deleting a leased one takes its lease along');
SELECT is(mq.ack('ps', :m_id, :m_receipt), false, '... so that it cannot be acknowledged');
SELECT is(mq.status('ps', :m_id), NULL, '... and it is gone');
SELECT is(pg_temp.bodies(), '2', '... the other is not');
SELECT mq.enqueue_batch('ps', '{1,2}');
SELECT id, receipt FROM mq.dequeue('ps') \gset m_
BEGIN;
DELETE FROM mq.q_ps;
ROLLBACK;
SELECT is(mq.status('ps', :m_id), 'leased', 'a rolled-back DELETE leaves the lease');
SELECT is(pg_temp.bodies(), '2', '... and the ready one ready');
SELECT is(mq.ack('ps', :m_id, :m_receipt), true, '... and current');

-- UPDATE takes effect at commit.
SELECT mq.enqueue_batch('ps', '{1,2,3}');
UPDATE mq.q_ps SET priority = 5 WHERE body = '3';
UPDATE mq.q_ps SET body = '"two"', headers = '{"u": true}' WHERE body = '2';
UPDATE mq.q_ps SET ready_at = clock_timestamp() + '1 h' WHERE body = '1';
SELECT results_eq($$ SELECT body, headers FROM mq.dequeue('ps', 10, auto_ack => true) $$, $$ VALUES ('3'::jsonb, NULL::jsonb), ('"two"', '{"u": true}') $$,
    'priority, ready_at, body and headers are as updated');
SELECT is((SELECT state FROM mq.browse('ps')), 'delayed', 'what got a time is delayed');
UPDATE mq.q_ps SET ready_at = NULL;
SELECT is(pg_temp.bodies(), '1', '... and ready when the time is taken away');
SELECT mq.enqueue('ps', '1', delay => '1 h');
UPDATE mq.q_ps SET ready_at = clock_timestamp() + '100 ms';
SELECT is((SELECT body FROM mq.dequeue('ps', wait => '10 s', auto_ack => true)), '1'::jsonb, 'an earlier time counts');
SELECT mq.enqueue_batch('ps', '{1,2}', priority => 9);
UPDATE mq.q_ps SET priority = 0;
SELECT mq.enqueue('ps', '3');
SELECT is(pg_temp.bodies(), '1,2,3', 'a priority taken away');
SELECT mq.enqueue_batch('ps', '{1,2}');
BEGIN;
UPDATE mq.q_ps SET priority = 9, body = '"no"' WHERE body = '2';
ROLLBACK;
SELECT is(pg_temp.bodies(), '1,2', 'a rolled-back UPDATE has none');
-- an UPDATE moves the row: leases and receipts follow
SELECT mq.enqueue_batch('ps', '{1,2}');
SELECT id, receipt FROM mq.dequeue('ps') \gset m_
UPDATE mq.q_ps SET body = '"moved"', priority = 3;
UPDATE mq.q_ps SET body = '"moved again"' WHERE id = :m_id;
VACUUM mq.q_ps;
SELECT is(mq.status('ps', :m_id), 'leased', 'an updated row stays leased');
SELECT is(pg_temp.bodies(), 'moved', '... only the other is delivered');
SELECT is(mq.nack('ps', :m_id, :m_receipt), true, '... and is settled by its receipt');
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('ps', wait => '10 s', auto_ack => true) $$, $$ VALUES ('"moved again"'::jsonb, 2) $$, '... as it is now');

-- Vacuum and reused line pointers never confuse a lease with another row.
SELECT mq.enqueue_batch('ps', '{1,2,3}');
SELECT id, receipt FROM mq.dequeue('ps') \gset m_
BEGIN;
UPDATE mq.q_ps SET body = '"elsewhere"' WHERE id = :m_id;
COMMIT;
VACUUM mq.q_ps;
INSERT INTO mq.q_ps (body) SELECT to_jsonb('new ' || i) FROM generate_series(1, 20) i;
SELECT is(mq.ack('ps', :m_id, :m_receipt), true, 'acknowledged by id after UPDATE, VACUUM and reuse of its place');
SELECT is((SELECT count(*) FROM mq.q_ps), 22::bigint, '... one row');
SELECT is((SELECT count(*) FROM mq.q_ps WHERE body = '"elsewhere"'), 0::bigint, '... the right one');
SELECT is((SELECT count(*) FROM mq.dequeue('ps', 100, auto_ack => true)), 22::bigint, '... and the others arrive');

-- TRUNCATE empties, and what comes after it is delivered.
SELECT mq.enqueue_batch('ps', '{1,2,3}');
SELECT id, receipt FROM mq.dequeue('ps') \gset m_
TRUNCATE mq.q_ps;
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'ps'), 0::bigint, 'TRUNCATE drops leases');
SELECT is(mq.ack('ps', :m_id, :m_receipt), false, '... there is nothing to acknowledge');
SELECT is(pg_temp.bodies(), '', '... nothing to deliver');
SELECT mq.enqueue('ps', '"after"');
SELECT is(pg_temp.bodies(), 'after', 'what comes after it is delivered');
SELECT mq.enqueue_batch('ps', '{1,2}');
SELECT id, receipt FROM mq.dequeue('ps') \gset m_
BEGIN;
TRUNCATE mq.q_ps;
SELECT mq.enqueue('ps', '"never"');
ROLLBACK;
SELECT is(mq.ack('ps', :m_id, :m_receipt), true, 'a rolled-back TRUNCATE leaves lease and row');
SELECT is(pg_temp.bodies(), '2', '... and what was ready');
BEGIN;
SELECT mq.enqueue('ps', '"before"');
TRUNCATE mq.q_ps;
SELECT mq.enqueue('ps', '"after"');
COMMIT;
SELECT is(pg_temp.bodies(), 'after', 'enqueue, TRUNCATE, enqueue in one transaction');

-- SELECT, foreign writes in one statement with verbs, MERGE.
SELECT mq.enqueue_batch('ps', '{1,2,3}');
WITH gone AS (DELETE FROM mq.q_ps WHERE body IN ('1', '3') RETURNING body) SELECT count(*) AS n FROM gone \gset
SELECT is(pg_temp.bodies(), '2', 'DELETE in a CTE');
MERGE INTO mq.q_ps q USING (VALUES ('"m1"'::jsonb), ('"m2"')) v(body) ON q.body = v.body WHEN NOT MATCHED THEN INSERT (body) VALUES (v.body);
SELECT is(pg_temp.bodies(), 'm1,m2', 'MERGE inserts');
SET session_replication_role = replica;
INSERT INTO mq.q_ps (body) VALUES ('"replica"');
RESET session_replication_role;
SELECT is(pg_temp.bodies(), 'replica', 'session_replication_role = replica is noticed too');
SELECT mq.drop_queue('ps');
SELECT * FROM finish();
