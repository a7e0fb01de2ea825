-- mq.dequeue_any: the order of the queues, max over all, one receipt, each queue's own lease and limits, all or nothing when one is wrong.
\ir setup.psql
SELECT mq.create_queue('a', dead_letter => '', lease => '1 min', backoff => '0', max_attempts => 2);
SELECT mq.create_queue('b', dead_letter => '', lease => '1 h', backoff => '0');
SELECT mq.create_queue('c', dead_letter => '', max_in_flight => 1);
SELECT mq.enqueue_batch('a', '{1,2}'); SELECT mq.enqueue_batch('b', '{11,12,13}'); SELECT mq.enqueue_batch('c', '{21,22}');

SELECT results_eq($$ SELECT queue, body FROM mq.dequeue_any('{b,a}', 4) $$,
    $$ VALUES ('b', '11'::jsonb), ('b', '12'), ('b', '13'), ('a', '1') $$, 'the first queue first, max over all');
SELECT is((SELECT count(DISTINCT receipt) FROM mq.in_flight), 1::bigint, 'one receipt for all');
SELECT ok(bool_and(lease_until - clock_timestamp() BETWEEN '59 min' AND '1 h') FILTER (WHERE queue = 'b')
    AND bool_and(lease_until - clock_timestamp() BETWEEN '59 s' AND '1 min') FILTER (WHERE queue = 'a'), 'each queue''s own lease') FROM mq.in_flight;
SELECT is((SELECT array_agg(mq.ack(f.queue, f.id, f.receipt)) FROM mq.in_flight f), '{t,t,t,t}', 'each is settled in its queue');
SELECT results_eq($$ SELECT queue, body FROM mq.dequeue_any('{b,c,c,b,a,c}', 10, lease => '2 min') $$,
    $$ VALUES ('c', '21'::jsonb), ('a', '2') $$, 'a queue named twice counts once, one at its limit is passed by');
SELECT ok(bool_and(lease_until - clock_timestamp() BETWEEN '119 s' AND '2 min'), 'the caller''s lease for all') FROM mq.in_flight;
SELECT is((SELECT count(*) FROM mq.dequeue_any('{a,b,c}', 10)), 0::bigint, 'nothing left');
SELECT is((SELECT count(*) FROM mq.dequeue_any('{a,b,c}', 10, wait => '30 ms')), 0::bigint, 'nothing after a wait');
SELECT mq.nack(f.queue, f.id, f.receipt) FROM mq.in_flight f WHERE queue = 'a';
SELECT mq.ack(f.queue, f.id, f.receipt) FROM mq.in_flight f WHERE queue = 'c';

-- A message on its last attempt comes alone, also over several queues.
SELECT results_eq($$ SELECT queue, body FROM mq.dequeue_any('{c,a}', 10) $$, $$ VALUES ('c', '22'::jsonb) $$, 'the batch ends before a last attempt');
SELECT results_eq($$ SELECT queue, body, attempt FROM mq.dequeue_any('{c,a,b}', 10) $$, $$ VALUES ('a', '2'::jsonb, 2) $$, '... which comes alone');
SELECT mq.ack(f.queue, f.id, f.receipt) FROM mq.in_flight f;

-- auto_ack, savepoints, session leases, errors.
SELECT mq.enqueue('a', '3'); SELECT mq.enqueue('b', '14');
BEGIN;
SAVEPOINT s;
SELECT count(*) AS n FROM mq.dequeue_any('{a,b}', 10, auto_ack => true) \gset x_
ROLLBACK TO s;
SELECT count(*) AS n FROM mq.dequeue_any('{b}', 10, auto_ack => true) \gset y_
COMMIT;
SELECT is(ARRAY[:x_n, :y_n], '{2,1}', 'a rolled-back savepoint gives all back');
SELECT is((SELECT count(*) FROM mq.q_a) + (SELECT count(*) FROM mq.q_b), 1::bigint, 'auto_ack deletes');
SELECT results_eq($$ SELECT queue, attempt FROM mq.dequeue_any('{b,a}', 10, session => true) $$, $$ VALUES ('a', 2) $$, 'the attempt was counted');
SELECT is((SELECT lease_until FROM mq.in_flight), NULL, 'a session lease has no end');
SELECT mq.ack(f.queue, f.id, f.receipt) FROM mq.in_flight f;
SELECT mq.enqueue('a', '4');
SELECT is(pg_temp.state(sql), state, sql) FROM (VALUES
    ($$ SELECT * FROM mq.dequeue_any('{a,nothing}') $$, '42704'), ($$ SELECT * FROM mq.dequeue_any('{a,nothing}', wait => '1 h') $$, '42704'),
    ($$ SELECT * FROM mq.dequeue_any('{}') $$, '22023'), ($$ SELECT * FROM mq.dequeue_any(NULL) $$, '22023'),
    ($$ SELECT * FROM mq.dequeue_any('{a,NULL}') $$, '22023'), ($$ SELECT * FROM mq.dequeue_any('{{a},{b}}') $$, '22023'),
    ($$ SELECT * FROM mq.dequeue_any('{a}', 0) $$, '22023'), ($$ SELECT * FROM mq.dequeue_any('{a}', session => true, auto_ack => true) $$, '22023'),
    ($$ SELECT * FROM mq.dequeue_any(ARRAY(SELECT 'q' || i FROM generate_series(1, 65) i)) $$, '22023'),
    ($$ SELECT * FROM mq.dequeue_any(ARRAY(SELECT 'a' FROM generate_series(1, 65) i), auto_ack => true) $$, '00000')) v (sql, state);
SELECT is((SELECT delivered FROM mq.stats WHERE queue = 'a'), 6::bigint, 'an error takes nothing from the queues before');

-- Privileges for each queue.
SELECT mq.enqueue('a', '5');
CREATE ROLE mqany_user;
SELECT mq.grant('a', 'mqany_user', 'receive');
SELECT is(pg_temp.state_as('mqany_user', $$ SELECT * FROM mq.dequeue_any('{a,b}') $$), '42501', 'rights on each of them are needed');
SELECT mq.grant('b', 'mqany_user', 'receive');
SELECT is(pg_temp.state_as('mqany_user', $$ SELECT * FROM mq.dequeue_any('{a,b}', auto_ack => true) $$), '00000', '... and enough');
SELECT is((SELECT count(*) FROM mq.q_a), 0::bigint, 'and then it is delivered');
SELECT mq.drop_queue(q) FROM unnest('{a,b,c}'::text[]) q;
DROP ROLE mqany_user;
SELECT * FROM finish();
