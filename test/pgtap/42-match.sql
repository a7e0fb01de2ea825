-- match: which messages, in which order, that the others stay where they are, in every way to consume, and how far it looks.
\ir setup.psql
SELECT mq.create_queue('m', dead_letter => '', backoff => '0', max_attempts => 3);
CREATE FUNCTION pg_temp.put(n int, k text, priority int DEFAULT 0, delay interval DEFAULT NULL) RETURNS bigint LANGUAGE sql AS
    $$ SELECT mq.enqueue('m', to_jsonb(n), headers => jsonb_build_object('k', k, 'n', n), priority => priority, delay => delay) $$;
CREATE FUNCTION pg_temp.take(match jsonb, most int DEFAULT 100) RETURNS int[] LANGUAGE sql AS
    $$ SELECT array_agg(body::int) FROM mq.dequeue('m', most, auto_ack => true, match => match) $$;
SELECT pg_temp.put(i, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END) FROM generate_series(1, 10) i;
SELECT mq.enqueue('m', '100');                          -- without headers
SELECT mq.enqueue('m', '101', headers => '{}');

SELECT is(pg_temp.take('{"k": "even"}', 2), '{2,4}', 'only those whose headers contain it, in order, at most max');
SELECT is(pg_temp.take('{"k": "even", "n": 8}'), '{8}', 'all of it');
SELECT is(pg_temp.take('{"k": "none"}'), NULL, 'nothing fits');
SELECT is(pg_temp.take('{"k": ["even"]}'), NULL, 'as @> has it');
SELECT is((SELECT array_agg(body::int) FROM mq.dequeue('m', 3, auto_ack => true)), '{1,3,5}', 'the others are where they were, in order');
SELECT pg_temp.put(21, 'even', 5); SELECT pg_temp.put(22, 'odd', 7); SELECT pg_temp.put(23, 'even', 9); SELECT pg_temp.put(24, 'even', 0, '1 h');
SELECT pg_temp.put(25, 'even', 5, '1 microsecond'); SELECT pg_temp.put(26, 'even', 0, '1 microsecond');
SELECT is(pg_temp.take('{"k": "even"}'), '{23,25,21,26,6,10}', 'higher priority first, then what came due; not what is not due');
SELECT is((SELECT array_agg(body::int) FROM mq.dequeue('m', 2, auto_ack => true)), '{22,7}', 'the others in their order');
SELECT is(pg_temp.take('{}'), '{9,101}', 'an empty object fits all that have headers');
SELECT is(pg_temp.state(sql), state, sql) FROM (VALUES ($$ SELECT * FROM mq.dequeue('m', match => '[]') $$, '22023'), ($$ SELECT * FROM mq.dequeue('m', match => '1') $$, '22023'),
    ($$ SELECT * FROM mq.dequeue('m', match => 'null') $$, '22023'), ($$ SELECT * FROM mq.dequeue('nothing', match => '{}') $$, '42704')) v (sql, state);
SELECT is((SELECT count(*) FROM mq.dequeue('m', 10, match => NULL)), 1::bigint, 'NULL: whatever comes');
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight;

-- Leases, failures, retries known to memory only.
TRUNCATE mq.q_m;
SELECT pg_temp.put(i, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END) FROM generate_series(1, 6) i;
SELECT count(*) FROM mq.dequeue('m', 1, lease => '1 h', match => '{"k": "even"}') \g /dev/null
SELECT is(pg_temp.take('{"k": "even"}', 1), '{4}', 'what is leased is passed by');
SELECT mq.release(queue, id, receipt) FROM mq.in_flight;
SELECT is((SELECT array_agg(body::int) FROM mq.dequeue('m', 3, auto_ack => true)), '{1,2,3}', 'what was released is back in its place');
SELECT pg_temp.put(12, 'even'); SELECT pg_temp.put(13, 'odd');
BEGIN;
SELECT count(*) FROM mq.dequeue('m', 10) \g /dev/null
ROLLBACK;
SELECT results_eq($$ SELECT body::int, attempt FROM mq.dequeue('m', 10, auto_ack => true, match => '{"k": "even"}') ORDER BY 1 $$, $$ VALUES (6, 2), (12, 2) $$, 'a failed delivery is found');
BEGIN;
SELECT body::int AS a FROM mq.dequeue('m', 1, match => '{"n": 13}') \gset x_
ROLLBACK;
SELECT results_eq($$ SELECT body::int, attempt FROM mq.dequeue('m', 1, match => '{"n": 13}') $$, $$ VALUES (13, 3) $$, 'its attempts go on');
SELECT is(mq.nack(queue, id, receipt), true, 'and end') FROM mq.in_flight;
SELECT is((SELECT dead FROM mq.stats WHERE queue = 'm'), 1::bigint, 'with its last one it is dead');
SELECT results_eq($$ SELECT body::int FROM mq.dequeue('m', 10, auto_ack => true) $$, $$ VALUES (5) $$, 'the other is still there');

-- Batches, limits, several queues, session leases, savepoints, ack_dequeue.
SELECT mq.create_queue('m2', dead_letter => '', max_in_flight => 2);
SELECT pg_temp.put(i, 'x') FROM generate_series(1, 4) i;
SELECT mq.enqueue('m2', to_jsonb(i), headers => '{"k": "x"}') FROM generate_series(11, 14) i;
SELECT mq.enqueue('m2', '15', headers => '{"k": "y"}');
SELECT is((SELECT array_agg(body::int) FROM mq.dequeue_any('{m2,m}', 4, session => true, match => '{"k": "x"}')), '{11,12,1,2}', 'several queues, the limit of one');
SELECT is((SELECT count(*) FROM mq.dequeue('m2', 4, match => '{"k": "x"}')), 0::bigint, 'at its limit nothing fits');
SELECT mq.alter_queue('m2', max_in_flight => 3);
SELECT is((SELECT array_agg(m.body::int) FROM (SELECT array_agg(id) ids, array_agg(receipt) rs FROM mq.in_flight WHERE queue = 'm2') f, mq.ack_dequeue('m2', f.ids, f.rs, 4, match => '{"k": "y"}') m),
    '{15}', 'ack_dequeue');
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight;
BEGIN;
SAVEPOINT s;
SELECT count(*) AS n FROM mq.dequeue('m', 10, match => '{"k": "x"}') \gset s_
ROLLBACK TO s;
SELECT count(*) AS n FROM mq.dequeue('m', 10, match => '{"k": "x"}') \gset t_
COMMIT;
SELECT is(ARRAY[:s_n, :t_n], '{2,2}', 'a rolled-back savepoint gives back');
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight;
BEGIN;
SELECT pg_temp.put(31, 'own') \g /dev/null
SELECT count(*) AS n FROM mq.dequeue('m', 10, match => '{"k": "own"}') \gset o_
COMMIT;
SELECT is(:o_n, 0, 'own rows are not received');
UPDATE mq.q_m SET headers = '{"k": "new"}';
SELECT is(pg_temp.take('{"k": "own"}'), NULL, 'an UPDATE of headers counts');
SELECT is(pg_temp.take('{"k": "new"}'), '{31}', 'at once');

-- A message on its last attempt comes alone.
SELECT pg_temp.put(i, 'l') FROM generate_series(1, 3) i;
UPDATE mq.q_m SET attempts = 2 WHERE body = '2';
SELECT is(pg_temp.take('{"k": "l"}'), '{1}', 'the batch ends before it');
SELECT is(pg_temp.take('{"k": "l"}'), '{2}', 'alone');
SELECT is(pg_temp.take('{"k": "l"}'), '{3}', 'and the rest');

-- What was leased while it stood on a list and has failed stands elsewhere now; the list keeps nobody from it, or from what is behind.
SELECT mq.create_queue('again', dead_letter => '', max_attempts => 0);
SELECT mq.enqueue('again', to_jsonb(i), headers => '{"k": "x"}') FROM generate_series(1, 4) i;
SELECT count(*) FROM mq.dequeue('again', 10) \g /dev/null
SELECT mq.nack(queue, id, receipt, delay => '0') FROM mq.in_flight;
SELECT count(*) FROM mq.dequeue('again', 10) \g /dev/null
SELECT mq.release(queue, id, receipt) FROM mq.in_flight;
SELECT is((SELECT body::int FROM mq.dequeue('again', match => '{"k": "x"}')), 1, 'the first of a list');
SELECT mq.nack(queue, id, receipt, delay => '0') FROM mq.in_flight;
SELECT is((SELECT array_agg(body::int) FROM mq.dequeue('again', match => '{"k": "x"}')), '{2}', 'then the next, as the first came due later');
SELECT is((SELECT array_agg(body::int) FROM mq.dequeue('again', 10, match => '{"k": "x"}')), '{3,4,1}', 'then the others');
SELECT cmp_ok((SELECT rows_examined FROM mq.stats WHERE queue = 'again'), '<', 100::bigint, 'without much looking');
SELECT mq.drop_queue('again');

-- A message that was tried again stands elsewhere than the lists say.
SELECT mq.create_queue('again', dead_letter => '');
SELECT count(*) FROM mq.enqueue_batch('again', '{1,2,3}', headers => '{"{}","{\"k\": 1}","{}"}', deliver_at => now() - interval '1 hour') \g /dev/null
SELECT mq.nack('again', id, receipt, delay => '0') FROM mq.dequeue('again', 3, match => '{"k": 1}') \g /dev/null
SELECT is((SELECT array_agg(id) FROM mq.dequeue('again', 3, match => '{"k": 1}')), '{2}', 'a retry is found where it stands now');
SELECT mq.drop_queue('again');

-- Listed where it was and where it is: given back unseen behind a message on its
-- last attempt, it is found where it is.
SELECT mq.create_queue('again', dead_letter => '', max_attempts => 2);
SELECT count(*) FROM mq.enqueue_batch('again', '{1,2,3}', headers => '{NULL,"{\"k\": 1}",NULL}', deliver_at => now() - interval '1 hour') \g /dev/null
UPDATE mq.q_again SET ready_at = now() - interval '1 min' WHERE id = 3;
SELECT count(mq.release('again', id, receipt)) FROM mq.dequeue('again', 3) \g /dev/null
UPDATE mq.q_again SET ready_at = now() - interval '2 min' WHERE id = 2;
UPDATE mq.q_again SET attempts = 1 WHERE id = 1;
SELECT is((SELECT array_agg(id) FROM mq.dequeue('again', 3)), '{1}', 'the last attempt comes alone');
SELECT is((SELECT array_agg(id) FROM mq.dequeue('again', 3, match => '{"k": 1}')), '{2}', '... and nobody loses sight of what was with it');
SELECT mq.drop_queue('again');

-- How far it looks, and that the others' cursor is not set back by it.
SELECT mq.create_queue('far', dead_letter => '');
SELECT mq.enqueue_batch('far', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 10100) i), headers => ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 10100) i)) \g /dev/null
SELECT is((SELECT body::int FROM mq.dequeue('far', auto_ack => true, match => '{"n": 9900}')), 9900, 'within the first 10,000');
SELECT is((SELECT count(*) FROM mq.dequeue('far', auto_ack => true, match => '{"n": 10050}')), 0::bigint, 'not behind');
SELECT is((SELECT count(*) FROM mq.dequeue('far', 200, auto_ack => true)), 200::bigint, 'others take from the front');
SELECT is((SELECT body::int FROM mq.dequeue('far', auto_ack => true, match => '{"n": 10050}')), 10050, 'then it is near enough');
SELECT rows_examined AS before FROM mq.stats WHERE queue = 'far' \gset
SELECT is((SELECT array_agg(body::int) FROM mq.dequeue('far', 100)), ARRAY(SELECT generate_series(201, 300)), 'the front is where it was');
SELECT cmp_ok((SELECT rows_examined FROM mq.stats WHERE queue = 'far') - :before, '<', 1000::bigint, '... and found as cheaply as ever');
SELECT mq.drop_queue(q) FROM unnest('{m,m2,far}'::text[]) q;

-- Request and reply, as the README has it.
SELECT mq.create_queue('requests', dead_letter => ''); SELECT mq.create_queue('replies', dead_letter => '');
SELECT mq.enqueue('requests', '{"add": [1, 2]}', headers => '{"reply_to": "replies", "correlation_id": "c1"}');
SELECT mq.enqueue('requests', '{"add": [3, 4]}', headers => '{"reply_to": "replies", "correlation_id": "c2"}');
SELECT count(*) FROM (SELECT mq.enqueue(m.headers->>'reply_to', to_jsonb((m.body->'add'->>0)::int + (m.body->'add'->>1)::int),
    headers => jsonb_build_object('correlation_id', m.headers->'correlation_id')) FROM mq.dequeue('requests', 10, auto_ack => true) m) r \g /dev/null
SELECT is((SELECT body FROM mq.dequeue('replies', wait => '10 s', auto_ack => true, match => '{"correlation_id": "c2"}')), '7'::jsonb, 'each client gets its own reply');
SELECT is((SELECT body FROM mq.dequeue('replies', wait => '10 s', auto_ack => true, match => '{"correlation_id": "c1"}')), '3'::jsonb, '... in any order');
SELECT * FROM finish();
