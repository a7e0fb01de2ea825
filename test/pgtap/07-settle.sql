-- Settling: ack, nack, reject, release, extend, their batches, ack_dequeue, delete, last attempts.
\ir setup.psql
SELECT mq.create_queue('st', max_attempts => 5, backoff => '0', lease => '1 h');

-- ack
SELECT mq.enqueue('st', '1');
SELECT id, receipt FROM mq.dequeue('st') \gset m_
SELECT is(mq.ack('st', :m_id, :m_receipt + 1), false, 'ack with another receipt');
SELECT is(mq.ack('st', :m_id + 1, :m_receipt), false, 'ack of another id');
SELECT is(mq.status('st', :m_id), 'leased', 'neither settles');
SELECT is(mq.ack('st', :m_id, :m_receipt), true, 'ack');
SELECT is(mq.ack('st', :m_id, :m_receipt), false, 'ack again');
SELECT is(mq.nack('st', :m_id, :m_receipt), false, 'nack after ack');
SELECT is(mq.status('st', :m_id), NULL, 'consumed is gone');
SELECT mq.enqueue('st', '1');
SELECT is((SELECT mq.ack(m, strict => true) FROM mq.dequeue('st') m), true, 'ack of the composite, strict');

-- batches
SELECT mq.enqueue_batch('st', '{1,2,3,4,5,6}');
SELECT array_agg(id) AS ids, max(receipt) AS receipt FROM mq.dequeue('st', 3) \gset a_
SELECT array_agg(id) AS ids, max(receipt) AS receipt FROM mq.dequeue('st', 3) \gset b_
SELECT is(mq.ack_batch('st', :'a_ids'::bigint[], ARRAY[:b_receipt]), 0, 'ids of one delivery with the receipt of another');
SELECT is(mq.ack_batch('st', :'a_ids'::bigint[] || :'b_ids'::bigint[], ARRAY[:a_receipt]), 3, 'one receipt for all: only its own');
SELECT is(mq.ack_batch('st', :'b_ids'::bigint[] || :'b_ids'::bigint[], ARRAY[:b_receipt]), 3, 'an id twice counts once');
SELECT is((SELECT count(*) FROM mq.q_st), 0::bigint, 'all gone');
SELECT mq.enqueue_batch('st', '{1,2,3,4}');
SELECT array_agg(id) AS ids, array_agg(receipt) AS receipts FROM
    (SELECT * FROM mq.dequeue('st', 2) UNION ALL SELECT * FROM mq.dequeue('st', 2)) s \gset c_
SELECT is(mq.ack_batch('st', :'c_ids', :'c_receipts'), 4, 'a receipt each');
SELECT mq.enqueue('st', '1');
SELECT id, receipt FROM mq.dequeue('st') \gset m_
SELECT is(mq.ack_batch('st', ARRAY[NULL, :m_id, NULL]::bigint[], ARRAY[:m_receipt]), 1, 'NULL ids are left out');

-- nack
SELECT mq.enqueue('st', '"n"') AS id \gset
SELECT id, receipt FROM mq.dequeue('st') \gset m_
SELECT is(mq.nack('st', :m_id, :m_receipt, reason => 'no paper'), true, 'nack');
SELECT id, receipt, attempt, last_error FROM mq.dequeue('st', wait => '10 s') \gset n_
SELECT is(:n_id, :id, 'comes again');
SELECT is(:n_attempt, 2, '... as attempt 2');
SELECT is(:'n_last_error'::text, 'no paper', '... with the reason');
SELECT is((SELECT attempts FROM mq.q_st WHERE id = :id), 1, 'the row counts one failed delivery');
SELECT is((SELECT last_error FROM mq.q_st WHERE id = :id), 'no paper', 'the row has the reason');
SELECT is(mq.nack('st', :n_id, :m_receipt), false, 'the first receipt is stale');
SELECT is(mq.nack('st', :n_id, :n_receipt, '1 h'), true, 'nack with a delay');
SELECT is(mq.status('st', :id), 'delayed', '... is delayed');
SELECT ok(extract(epoch FROM ready_at - clock_timestamp()) BETWEEN 3580 AND 3600, '... by that long, without jitter') FROM mq.q_st WHERE id = :id;
SELECT is((SELECT count(*) FROM mq.dequeue('st')), 0::bigint, '... and not delivered');
SELECT is(mq.purge('st'), 1::bigint, 'purged');
-- nack acts at COMMIT
SELECT mq.enqueue('st', '"n"');
SELECT id, receipt FROM mq.dequeue('st') \gset m_
BEGIN;
SELECT mq.nack('st', :m_id, :m_receipt) AS first \gset
SELECT mq.nack('st', :m_id, :m_receipt) AS second \gset
SELECT mq.ack('st', :m_id, :m_receipt) AS third \gset
SELECT count(*) AS again FROM mq.dequeue('st') \gset
ROLLBACK;
SELECT is(:'first' || :'second' || :'third', 'tff', 'a delivery is settled once');
SELECT is(:again, 0, '... and a nack acts at COMMIT');
SELECT is((SELECT count(*) FROM mq.dequeue('st')), 0::bigint, '... not after a ROLLBACK');
SELECT is(mq.ack('st', :m_id, :m_receipt), true, '... which leaves it leased');
-- nack in the transaction of the dequeue
SELECT mq.enqueue('st', '"n"');
BEGIN;
SELECT id, receipt FROM mq.dequeue('st') \gset m_
SELECT mq.nack('st', :m_id, :m_receipt, reason => 'within') AS ok \gset
COMMIT;
SELECT results_eq($$ SELECT attempt, last_error FROM mq.dequeue('st', wait => '10 s', auto_ack => true) $$, $$ VALUES (2, 'within') $$, 'nack in the transaction of the dequeue');
SELECT mq.enqueue_batch('st', '{1,2,3}');
SELECT array_agg(id) AS ids, max(receipt) AS receipt FROM mq.dequeue('st', 3) \gset a_
SELECT is(mq.nack_batch('st', :'a_ids', ARRAY[:a_receipt], reason => 'all'), 3, 'nack_batch');
SELECT results_eq($$ SELECT body, attempt, last_error FROM mq.dequeue('st', 10, wait => '10 s', auto_ack => true) $$,
    $$ VALUES ('1'::jsonb, 2, 'all'), ('2', 2, 'all'), ('3', 2, 'all') $$, '... brings all three again');

-- backoff: doubles, is limited, jitters by a tenth
SELECT mq.alter_queue('st', backoff => '100 s', backoff_limit => '350 s', max_attempts => 20);
SELECT mq.enqueue('st', '"b"') AS id \gset
CREATE TEMP TABLE waits (attempt int, seconds numeric);
DO $$
DECLARE
    m mq.message;
BEGIN
    FOR i IN 1..5 LOOP
        SELECT * INTO STRICT m FROM mq.dequeue('st');
        ASSERT m.attempt = i, 'attempt';
        PERFORM mq.nack('st', m.id, m.receipt);
        COMMIT;
        INSERT INTO waits SELECT i, extract(epoch FROM ready_at - clock_timestamp()) FROM mq.q_st WHERE id = m.id;
        UPDATE mq.q_st SET ready_at = NULL WHERE id = m.id;
        COMMIT;
    END LOOP;
END $$;
SELECT ok(seconds BETWEEN 0.9 * least(100 * 2 ^ (attempt - 1), 350) - 5 AND 1.1 * least(100 * 2 ^ (attempt - 1), 350),
    format('after failure %s it waits about %s s', attempt, least(100 * 2 ^ (attempt - 1), 350))) FROM waits ORDER BY attempt;
SELECT is(mq.purge('st'), 1::bigint, 'purged');
SELECT mq.alter_queue('st', backoff => '100 s', backoff_limit => '1 h');
SELECT count(*) FROM mq.enqueue_batch('st', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 100) i)) \gset
SELECT array_agg(id) AS ids, max(receipt) AS receipt FROM mq.dequeue('st', 100) \gset a_
SELECT mq.nack_batch('st', :'a_ids', ARRAY[:a_receipt]);
SELECT ok(max(ready_at) - min(ready_at) > '2 s', 'a hundred failed together do not come back together') FROM mq.q_st;
SELECT ok(min(ready_at) > clock_timestamp() + '85 s' AND max(ready_at) < clock_timestamp() + '110 s', '... but within a tenth') FROM mq.q_st;
SELECT is(mq.purge('st'), 100::bigint, 'purged');
SELECT mq.alter_queue('st', backoff => '0', max_attempts => 5);

-- release: back to its place, no attempt counted
SELECT mq.enqueue_batch('st', '{1,2,3}');
SELECT id, receipt FROM mq.dequeue('st') \gset m_
SELECT is(mq.release('st', :m_id, :m_receipt), true, 'release');
SELECT is(mq.release('st', :m_id, :m_receipt), false, '... once');
SELECT is(mq.status('st', :m_id), 'ready', '... is ready at once');
SELECT results_eq($$ SELECT body, attempt, last_error FROM mq.dequeue('st', 3) $$, $$ VALUES ('1'::jsonb, 1, NULL), ('2', 1, NULL), ('3', 1, NULL) $$,
    '... at its old place, and no attempt is counted');
SELECT is(mq.release_batch('st', array_agg(id), array_agg(receipt)), 3, 'release_batch') FROM mq.in_flight WHERE queue = 'st';
BEGIN;
SELECT id, receipt FROM mq.dequeue('st') \gset m_
SELECT mq.release('st', :m_id, :m_receipt) AS ok \gset
COMMIT;
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('st', 3, auto_ack => true) $$, $$ VALUES ('1'::jsonb, 1), ('2', 1), ('3', 1) $$,
    'released in the transaction of the dequeue');

-- extend
SELECT mq.enqueue('st', '"e"');
SELECT id, receipt FROM mq.dequeue('st', lease => '1 min') \gset m_
BEGIN;
SELECT mq.extend('st', :m_id, :m_receipt, '2 h') AS ok \gset
ROLLBACK;
SELECT is(:'ok'::boolean, true, 'extend');
SELECT ok(lease_until BETWEEN clock_timestamp() + '119 min' AND clock_timestamp() + '2 h', '... acts at once, whatever the transaction does')
  FROM mq.in_flight WHERE queue = 'st';
SELECT is(mq.extend_batch('st', ARRAY[:m_id, :m_id], ARRAY[:m_receipt], '10 ms'), 1, 'extend_batch, an id twice');
SELECT results_eq($$ SELECT attempt FROM mq.dequeue('st', wait => '10 s') $$, 'VALUES (2)', 'shortened, it comes again soon');
SELECT is(mq.extend('st', :m_id, :m_receipt, '1 h'), false, 'what ended cannot be extended');
SELECT is(mq.delete('st', ARRAY[:m_id, :m_id, NULL]), 1, 'delete: the operator''s, whoever holds it');
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'st'), 0::bigint, '... takes the lease along');
SELECT mq.enqueue('st', '"e"', delay => '1 h') AS id \gset
SELECT is(mq.delete('st', ARRAY[:id, :id + 1]), 1, 'delete of a delayed one');

-- ack_dequeue
SELECT mq.enqueue_batch('st', '{1,2,3,4,5}');
SELECT array_agg(id) AS ids, array_agg(receipt) AS receipts FROM mq.ack_dequeue('st', '{}', '{}', 2) \gset a_
SELECT array_agg(id) AS ids, array_agg(receipt) AS receipts, array_agg(body ORDER BY id) AS bodies FROM mq.ack_dequeue('st', :'a_ids', :'a_receipts', 2) \gset b_
SELECT is(:'b_bodies'::text, '{3,4}', 'ack_dequeue gives the next batch');
SELECT is((SELECT count(*) FROM mq.q_st), 3::bigint, '... and acknowledged the last');
SELECT array_agg(body) AS bodies FROM mq.ack_dequeue('st', :'b_ids', :'b_receipts', 2, auto_ack => true) \gset c_
SELECT is(:'c_bodies'::text, '{5}', '... with auto_ack');
SELECT is((SELECT count(*) FROM mq.q_st), 0::bigint, '... leaves nothing');
SELECT is((SELECT count(*) FROM mq.ack_dequeue('st', NULL, NULL)), 0::bigint, 'and NULL acknowledges nothing');
SELECT mq.enqueue_batch('st', '{1,2}');
SELECT id, receipt FROM mq.dequeue('st') \gset m_
BEGIN;
SELECT count(*) AS n FROM mq.ack_dequeue('st', ARRAY[:m_id], ARRAY[:m_receipt]) \gset
ROLLBACK;
SELECT is(mq.status('st', :m_id), 'leased', 'rolled back, the first is leased as before');
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('st', wait => '10 s') $$, $$ VALUES ('2'::jsonb, 2) $$, '... and the next has failed once');
SELECT mq.delete('st', ARRAY(SELECT id FROM mq.q_st));

-- strict
SELECT mq.create_queue('st_work', dead_letter => '');
SELECT mq.enqueue('st', '1');
SELECT id, receipt FROM mq.dequeue('st') \gset m_
SELECT mq.nack('st', :m_id, :m_receipt);
\set ON_ERROR_STOP off
\o /dev/null
BEGIN;
SELECT mq.enqueue('st_work', '"effect"');
SELECT mq.ack('st', :m_id, :m_receipt, strict => true);
\set strict :SQLSTATE
\o
COMMIT;
\set ON_ERROR_STOP on
SELECT is(:'strict'::text, '55000', 'a strict ack of a stale delivery');
SELECT is((SELECT count(*) FROM mq.q_st_work), 0::bigint, '... takes the work back with it');
SELECT mq.purge('st');

-- A message on its last attempt is delivered alone.
SELECT mq.enqueue_batch('st', '{1,2,3}');
UPDATE mq.q_st SET attempts = 4 WHERE body = '2';
CREATE TEMP TABLE batches (n int, bodies text);
DO $$
DECLARE
    b text;
BEGIN
    FOR i IN 1..5 LOOP
        SELECT string_agg(body::text, ',' ORDER BY id) INTO b FROM mq.dequeue('st', 10, auto_ack => true);
        INSERT INTO batches VALUES (i, b);
        COMMIT;
    END LOOP;
END $$;
SELECT is((SELECT bodies FROM batches WHERE bodies LIKE '%2%'), '2', 'a message on its last attempt is delivered alone');
SELECT is((SELECT string_agg(bodies, ',' ORDER BY bodies) FROM batches WHERE bodies NOT LIKE '%2%') ~ '^1,3$', true, '... the others as usual');
SELECT is((SELECT count(*) FROM mq.q_st), 0::bigint, '... and all are delivered');
SELECT mq.alter_queue('st', max_attempts => 1);
SELECT mq.enqueue_batch('st', '{1,2,3}');
SELECT is((SELECT count(*) FROM mq.dequeue('st', 10)), 1::bigint, 'with max_attempts 1 every message is alone');
SELECT mq.delete('st', ARRAY(SELECT id FROM mq.q_st));
SELECT mq.drop_queue(q) FROM unnest('{st,st_dead,st_work}'::text[]) q;
SELECT * FROM finish();
