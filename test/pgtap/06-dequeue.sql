-- Consuming: order, lease mode, transactional mode, savepoints, cursors, what it writes.
\ir setup.psql
SELECT mq.create_queue('dq', dead_letter => '', backoff => '0');

-- Order.
SELECT mq.enqueue('dq', '"fresh 1"');
SELECT mq.enqueue('dq', '"fresh 2"');
SELECT mq.enqueue('dq', '"due later"', deliver_at => '2020-01-02');
SELECT mq.enqueue('dq', '"due first"', deliver_at => '2020-01-01');
SELECT mq.enqueue('dq', '"high"', priority => 9);
SELECT mq.enqueue('dq', '"middle 1"', priority => 5);
SELECT mq.enqueue('dq', '"middle 2"', priority => 5);
SELECT mq.enqueue('dq', '"middle due"', priority => 5, deliver_at => '2020-01-01');
SELECT mq.enqueue('dq', '"not due"', priority => 9, delay => '1 h');
SELECT results_eq($$ SELECT body FROM mq.dequeue('dq', 100, auto_ack => true) $$,
    $$ VALUES ('"high"'::jsonb), ('"middle due"'), ('"middle 1"'), ('"middle 2"'), ('"due first"'), ('"due later"'), ('"fresh 1"'), ('"fresh 2"') $$,
    'higher priority first; in one priority what came due by time, then fresh by id');
SELECT is(mq.purge('dq'), 1::bigint, 'the delayed one was left');
SELECT mq.enqueue('dq', '"low"', priority => 1);
SELECT mq.enqueue('dq', '"none"');
SELECT mq.enqueue('dq', '"top"', priority => 9);
SELECT is((SELECT array_agg(body #>> '{}') FROM (SELECT (SELECT body FROM mq.dequeue('dq', i - i + 1, auto_ack => true)) AS body FROM generate_series(1, 3) i) s),
    '{top,low,none}', 'the same order one at a time');

-- Lease mode.
SELECT mq.enqueue_batch('dq', '{1,2,3}');
SET application_name = 'tester';
SELECT clock_timestamp() AS t0 \gset
CREATE TEMP TABLE one AS SELECT * FROM mq.dequeue('dq', 2);
CREATE TEMP TABLE two AS SELECT * FROM mq.dequeue('dq', 5, lease => '1 h', consumer => 'me');
SELECT is((SELECT count(*) FROM one), 2::bigint, 'max at most');
SELECT is((SELECT count(*) FROM two), 1::bigint, 'fewer when there are fewer');
SELECT is((SELECT count(DISTINCT receipt) FROM one), 1::bigint, 'messages of one dequeue share one receipt');
SELECT cmp_ok((SELECT max(receipt) FROM two), '>', (SELECT max(receipt) FROM one), 'receipts grow');
SELECT ok(receipt >= floor(extract(epoch FROM :'t0'::timestamptz) * 1e6), 'a receipt is not behind the clock') FROM one LIMIT 1;
SELECT ok(lease_until BETWEEN :'t0'::timestamptz + '29 s' AND clock_timestamp() + '30 s', 'the queue''s lease') FROM one LIMIT 1;
SELECT ok(lease_until BETWEEN :'t0'::timestamptz + '59 min' AND clock_timestamp() + '1 h', 'the caller''s lease') FROM two;
SELECT results_eq($$ SELECT id, receipt, consumer, pid, attempt FROM mq.in_flight WHERE queue = 'dq' ORDER BY id $$,
    $$ SELECT id, receipt, 'tester', pg_backend_pid(), 1 FROM one UNION ALL SELECT id, receipt, 'me', pg_backend_pid(), 1 FROM two ORDER BY 1 $$,
    'mq.in_flight shows who has what');
SELECT ok(bool_and(leased_at BETWEEN :'t0' AND clock_timestamp() AND lease_until > clock_timestamp()), '... since when and until when') FROM mq.in_flight WHERE queue = 'dq';
SELECT is((SELECT count(*) FROM mq.dequeue('dq', 10)), 0::bigint, 'leased is invisible');
SELECT is((SELECT count(*) FROM mq.q_dq), 3::bigint, 'and still there');
SELECT is((SELECT sum(attempts) FROM mq.q_dq), 0::bigint, 'nothing was written');
SELECT is((SELECT count(*) FROM one WHERE mq.ack('dq', id, receipt)) + (SELECT count(*) FROM two WHERE mq.ack('dq', id, receipt)), 3::bigint, 'all acknowledged');
SELECT is((SELECT count(*) FROM mq.q_dq), 0::bigint, 'an ack is a delete');
SELECT is((SELECT count(*) FROM mq.in_flight), 0::bigint, 'nothing in flight');
DROP TABLE one, two;
-- a lease that ends
SELECT mq.enqueue('dq', '"slow"');
SELECT id, receipt, attempt FROM mq.dequeue('dq', lease => '50 ms') \gset a_
SELECT id, receipt, attempt, coalesce(last_error, '') AS last_error FROM mq.dequeue('dq', wait => '10 s') \gset b_
SELECT is(:b_id, :a_id, 'an ended lease is delivered again');
SELECT is(:b_attempt, 2, '... as the second attempt');
SELECT isnt(:'b_last_error'::text, '', '... saying why the first ended');
SELECT cmp_ok(:b_receipt::bigint, '>', :a_receipt::bigint, '... under a new receipt');
SELECT is(mq.ack('dq', :a_id, :a_receipt), false, 'the old receipt acknowledges nothing');
SELECT is(mq.nack('dq', :a_id, :a_receipt), false, '... nacks nothing');
SELECT is(mq.reject('dq', :a_id, :a_receipt), false, '... rejects nothing');
SELECT is(mq.release('dq', :a_id, :a_receipt), false, '... releases nothing');
SELECT is(mq.extend('dq', :a_id, :a_receipt, '1 h'), false, '... extends nothing');
SELECT is(mq.status('dq', :a_id), 'leased', 'the message is with its second consumer');
SELECT is(mq.ack('dq', :b_id, :b_receipt), true, 'whose receipt is the current one');
SELECT is(mq.status('dq', :a_id), NULL, 'gone');

-- Transactional mode.
SELECT mq.enqueue('dq', '"job"');
BEGIN;
SELECT id, receipt, attempt FROM mq.dequeue('dq', lease => '1 ms') \gset m_
SELECT lease_until IS NULL AS open FROM mq.in_flight WHERE queue = 'dq' \gset m_
SELECT count(*) AS again FROM mq.dequeue('dq', wait => '100 ms') \gset m_
SELECT mq.ack('dq', :m_id, :m_receipt) AS acked \gset m_
SELECT mq.ack('dq', :m_id, :m_receipt) AS twice \gset m_
COMMIT;
SELECT is(:'m_open'::boolean, true, 'a lease of an open transaction has no end');
SELECT is(:m_again, 0, '... even when its time is over');
SELECT is(:'m_acked'::boolean, true, 'acknowledged in the same transaction');
SELECT is(:'m_twice'::boolean, false, '... only once');
SELECT is((SELECT count(*) FROM mq.q_dq), 0::bigint, 'consumed');
SELECT mq.enqueue('dq', '"job"');
BEGIN;
SELECT id, receipt, attempt FROM mq.dequeue('dq') \gset m_
SELECT mq.ack('dq', :m_id, :m_receipt);
ROLLBACK;
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('dq', wait => '10 s', auto_ack => true) $$, $$ VALUES ('"job"'::jsonb, 2) $$,
    'a rollback gives it back and counts the attempt');
SELECT mq.enqueue('dq', '"job"');
BEGIN;
SELECT count(*) AS taken FROM mq.dequeue('dq', auto_ack => true) \gset m_
SELECT count(*) AS left FROM mq.q_dq \gset m_
ROLLBACK;
SELECT is(:m_taken, 1, 'auto_ack delivers');
SELECT is(:m_left, 0, '... and deletes in the transaction');
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('dq', wait => '10 s', auto_ack => true) $$, $$ VALUES ('"job"'::jsonb, 2) $$,
    'rolled back it is there again, an attempt later');
SELECT is((SELECT count(*) FROM mq.q_dq), 0::bigint, 'gone for good');
SELECT mq.enqueue('dq', '"div"');
SELECT is(pg_temp.state($$ SELECT 1 / (id - id) FROM mq.dequeue('dq') $$), '22012', 'a statement that fails after its dequeue');
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('dq', wait => '10 s', auto_ack => true) $$, $$ VALUES ('"div"'::jsonb, 2) $$,
    '... gives back and counts');

-- An ack that rolls back leaves the lease as before.
SELECT mq.enqueue('dq', '"ack me"');
SELECT id, receipt FROM mq.dequeue('dq', lease => '1 h') \gset m_
BEGIN;
SELECT mq.ack('dq', :m_id, :m_receipt) AS ok \gset
ROLLBACK;
SELECT is(:'ok'::boolean, true, 'an ack');
SELECT is(mq.status('dq', :m_id), 'leased', '... that rolled back: leased as before');
SELECT ok(lease_until > clock_timestamp() + '50 min', '... until when it was') FROM mq.in_flight WHERE queue = 'dq';
BEGIN;
SAVEPOINT s;
SELECT mq.ack('dq', :m_id, :m_receipt) AS first \gset
ROLLBACK TO s;
SELECT mq.ack('dq', :m_id, :m_receipt) AS second \gset
COMMIT;
SELECT is(:'first'::boolean AND :'second'::boolean, true, 'under a rolled-back savepoint, and then again');
SELECT is((SELECT count(*) FROM mq.q_dq), 0::bigint, '... is done');

-- Savepoints give back exactly what was dequeued under them.
SELECT mq.enqueue_batch('dq', '{1,2,3,4}');
BEGIN;
CREATE TEMP TABLE kept AS SELECT * FROM mq.dequeue('dq', 1);
SAVEPOINT a;
SELECT body FROM mq.dequeue('dq', 1);
SAVEPOINT b;
SELECT body FROM mq.dequeue('dq', 1);
RELEASE b;
ROLLBACK TO a;
SELECT array_agg(body ORDER BY id) AS bodies FROM mq.q_dq q JOIN mq.in_flight f USING (id) WHERE queue = 'dq' \gset held_
COMMIT;
SELECT is(:'held_bodies'::text, '{1}', 'what was dequeued before a savepoint stays');
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('dq', 10, auto_ack => true) ORDER BY id $$, $$ VALUES ('2'::jsonb, 2), ('3', 2), ('4', 1) $$,
    '... what was dequeued under it is back at once');
SELECT is((SELECT mq.ack('dq', id, receipt) FROM kept), true, 'the lease from before is current');
DROP TABLE kept;
SELECT mq.enqueue_batch('dq', '{1,2}');
DO $$
DECLARE
    m mq.message;
BEGIN
    FOR i IN 1..2 LOOP
        BEGIN
            SELECT * INTO m FROM mq.dequeue('dq');
            PERFORM mq.ack(m);
            IF i = 1 THEN RAISE EXCEPTION 'no'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL;
        END;
    END LOOP;
END $$;
SELECT is((SELECT count(*) FROM mq.q_dq), 1::bigint, 'an exception block takes back dequeue and ack');
SELECT is((SELECT count(*) FROM mq.in_flight), 0::bigint, '... and leaves no lease');
SELECT is((SELECT count(*) FROM mq.dequeue('dq', 10, wait => '10 s', auto_ack => true)), 1::bigint, '... the other was consumed');

-- Two dequeues in one statement, cursors, LIMIT.
SELECT mq.enqueue_batch('dq', '{1,2,3,4,5,6}');
CREATE TEMP TABLE pair AS SELECT a.id AS a, b.id AS b, a.receipt AS ra, b.receipt AS rb FROM mq.dequeue('dq', 2) a, mq.dequeue('dq', 2) b;
SELECT is((SELECT count(*) FROM pair), 4::bigint, 'two dequeues in one statement: two by two');
SELECT is((SELECT count(DISTINCT x) FROM pair, unnest(ARRAY[a, b]) x), 4::bigint, '... four different messages');
SELECT is((SELECT count(*) FROM pair WHERE ra = rb), 0::bigint, '... under two receipts');
CREATE TEMP TABLE unions AS SELECT * FROM mq.dequeue('dq') UNION ALL SELECT * FROM mq.dequeue('dq');
SELECT is((SELECT count(DISTINCT id) FROM unions WHERE id NOT IN (SELECT a FROM pair UNION SELECT b FROM pair)), 2::bigint, 'and with UNION ALL');
SELECT is(mq.delete('dq', ARRAY(SELECT id FROM mq.q_dq)), 6, 'cleared');
SELECT mq.enqueue_batch('dq', '{1,2,3,4,5,6}');
CREATE TEMP TABLE limited AS SELECT * FROM mq.dequeue('dq', 4) LIMIT 2;
SELECT results_eq('SELECT body FROM limited', $$ VALUES ('1'::jsonb), ('2') $$, 'LIMIT shows two');
SELECT is((SELECT count(*) FROM mq.browse('dq')), 6::bigint, '... and loses none');
SELECT is((SELECT count(*) FROM mq.browse('dq') WHERE state NOT IN ('ready', 'leased')), 0::bigint, '... each is ready or leased');
SELECT is((SELECT count(*) FROM limited l JOIN mq.in_flight f USING (id, receipt)), 2::bigint, '... those shown are leased');
SELECT is(mq.delete('dq', ARRAY(SELECT id FROM mq.q_dq)), 6, 'cleared');
SELECT mq.enqueue_batch('dq', '{1,2,3,4,5,6}');
BEGIN;
DECLARE c CURSOR FOR SELECT body FROM mq.dequeue('dq', 4);
FETCH 2 FROM c;
CLOSE c;
COMMIT;
SELECT is((SELECT count(*) FROM mq.browse('dq')), 6::bigint, 'a cursor closed early loses none');
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.browse('dq') WHERE state = 'leased')::text[] @> '{1,2}', true, '... what it showed is leased');
BEGIN;
DECLARE d CURSOR FOR SELECT id FROM mq.dequeue('dq', 2);
SAVEPOINT s;
SELECT count(*) AS before FROM mq.in_flight WHERE queue = 'dq' \gset cur_
FETCH 2 FROM d;
SELECT count(*) AS within FROM mq.in_flight WHERE queue = 'dq' \gset cur_
ROLLBACK TO s;
SELECT count(*) AS after FROM mq.in_flight WHERE queue = 'dq' \gset cur_
COMMIT;
SELECT is(:cur_within - :cur_before, 2, 'a cursor fetched under a savepoint takes two');
SELECT is(:cur_after, :cur_before, '... which its rollback gives back');
SELECT is(mq.delete('dq', ARRAY(SELECT id FROM mq.q_dq)), 6, 'cleared');
SELECT mq.enqueue_batch('dq', '{1,2,3}');
BEGIN;
DECLARE h CURSOR WITH HOLD FOR SELECT * FROM mq.dequeue('dq', 3);
COMMIT;
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'dq'), 3::bigint, 'a cursor WITH HOLD leases at its commit');
CLOSE h;
SELECT is(mq.delete('dq', ARRAY(SELECT id FROM mq.q_dq)), 3, 'cleared');
SELECT mq.enqueue_batch('dq', '{1,2,3}');
DO $$
DECLARE
    m mq.message; n int := 0;
BEGIN
    FOR m IN SELECT * FROM mq.dequeue('dq', 10) LOOP
        n := n + 1;
        ASSERT m.body = to_jsonb(n), 'order';
        ASSERT mq.ack(m), 'ack';
    END LOOP;
    ASSERT n = 3, 'count';
END $$;
SELECT is((SELECT count(*) FROM mq.q_dq), 0::bigint, 'a loop over a dequeue, acknowledging each');
PREPARE take(int) AS SELECT count(*) FROM mq.dequeue('dq', $1, auto_ack => true);
SELECT mq.enqueue_batch('dq', '{1,2,3,4,5,6,7}');
EXECUTE take(1);
EXECUTE take(1);
EXECUTE take(1);
EXECUTE take(1);
EXECUTE take(1);
EXECUTE take(1);
EXECUTE take(1);
SELECT is((SELECT count(*) FROM mq.q_dq), 0::bigint, 'a prepared dequeue dequeues each time');
-- what is dequeued can be joined, and the select-list of a row expands once from FROM
SELECT mq.enqueue_batch('dq', '{7,8}');
SELECT results_eq($$ SELECT (m).body, mq.ack(m) FROM mq.dequeue('dq', 2) m $$, $$ VALUES ('7'::jsonb, true), ('8', true) $$, 'select mq.ack(m) from mq.dequeue() m');

-- No transaction id, no WAL.
SELECT mq.enqueue_batch('dq', '{1,2,3,4,5}');
CHECKPOINT;
BEGIN;
SELECT id FROM mq.dequeue('dq');
SELECT pg_current_xact_id_if_assigned() IS NULL AS none \gset xid_
COMMIT;
SELECT is(:'xid_none'::boolean, true, 'a dequeue assigns no transaction id');
BEGIN;
SELECT id, receipt FROM mq.dequeue('dq') \gset m_
SELECT mq.extend('dq', :m_id, :m_receipt, '1 h') AS extended \gset
SELECT pg_current_xact_id_if_assigned() IS NULL AS none \gset xid_
COMMIT;
SELECT is(:'xid_none'::boolean, true, 'nor does extend');
BEGIN;
SELECT id FROM mq.dequeue('dq');
SELECT pg_current_xact_id_if_assigned() IS NULL AS none \gset xid_
ROLLBACK;
SELECT is(:'xid_none'::boolean, true, 'nor a dequeue that rolls back');
CREATE FUNCTION pg_temp.wal(sql text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
    EXECUTE 'EXPLAIN (ANALYZE, WAL, FORMAT json) ' || sql INTO plan;
    RETURN (plan -> 0 -> 'Plan')::jsonb;
END $$;
SELECT pg_temp.wal($$ SELECT * FROM mq.dequeue('dq') $$) -> 'WAL Records' AS first \gset
SELECT pg_temp.wal($$ SELECT * FROM mq.dequeue('dq') $$) AS second \gset
SELECT is((:'second'::jsonb ->> 'Actual Rows')::numeric, 1::numeric, 'the second dequeue delivers');
SELECT ok((:'second'::jsonb ->> 'WAL Records')::int <= (:'second'::jsonb ->> 'WAL FPI')::int, '... and logs nothing but page images');
SELECT is(mq.delete('dq', ARRAY(SELECT id FROM mq.q_dq)), 5, 'cleared');

-- REPEATABLE READ and SERIALIZABLE see the latest committed state.
SELECT mq.enqueue_batch('dq', '{1,2}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT body FROM mq.dequeue('dq', auto_ack => true) \gset rr1_
SELECT body FROM mq.dequeue('dq', auto_ack => true) \gset rr2_
SELECT count(*) FROM mq.dequeue('dq', 10, auto_ack => true) \gset rr3_
COMMIT;
SELECT is(:'rr1_body' || :'rr2_body' || :'rr3_count', '120', 'at REPEATABLE READ');
SELECT mq.enqueue_batch('dq', '{1,2}');
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT id, receipt, body FROM mq.dequeue('dq') \gset se_
SELECT count(*) AS locks FROM pg_locks WHERE pid = pg_backend_pid() AND mode = 'SIReadLock' AND relation = 'mq.q_dq'::regclass \gset se_
SELECT mq.ack('dq', :se_id, :se_receipt) AS acked \gset se_
COMMIT;
SELECT is(:'se_body' || :'se_acked', '1t', 'at SERIALIZABLE');
SELECT is(:se_locks, 0, '... reading takes no SIREAD locks');
SELECT is(mq.purge('dq'), 1::bigint, 'one was left');

-- Empty queues and waiting without an event.
SELECT is((SELECT count(*) FROM mq.dequeue('dq', 10)), 0::bigint, 'nothing from an empty queue');
SELECT clock_timestamp() AS t0 \gset
SELECT is((SELECT count(*) FROM mq.dequeue('dq', wait => '200 ms')), 0::bigint, 'nothing after a wait');
SELECT ok(clock_timestamp() - :'t0'::timestamptz BETWEEN '200 ms' AND '5 s', '... which took as long as asked');
SET statement_timeout = '200 ms';
\set ON_ERROR_STOP off
\o /dev/null
SELECT * FROM mq.dequeue('dq', wait => '1 h');
\set timeout :SQLSTATE
\o
\set ON_ERROR_STOP on
RESET statement_timeout;
SELECT is(:'timeout'::text, '57014', 'statement_timeout ends a wait');
SELECT is((SELECT consumers_waiting FROM mq.stats WHERE queue = 'dq'), 0::bigint, 'and nobody is left waiting');

SELECT mq.drop_queue('dq');
SELECT * FROM finish();
