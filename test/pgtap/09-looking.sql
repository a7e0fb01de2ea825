-- mq.queues, mq.stats, mq.in_flight, browse, status: what they show is what is there.
\ir setup.psql
SELECT mq.create_queue('lk', backoff => '0', max_attempts => 2);
CREATE FUNCTION pg_temp.numbers(q text) RETURNS text LANGUAGE sql AS $$
    SELECT format('ready %s, delayed %s, in flight %s', ready, delayed, in_flight) FROM mq.stats WHERE queue = q $$;

SELECT is(pg_temp.numbers('lk'), 'ready 0, delayed 0, in flight 0', 'a new queue is empty');
SELECT is((SELECT oldest_ready_age FROM mq.stats WHERE queue = 'lk'), NULL, '... and has no oldest message');
SELECT mq.enqueue_batch('lk', '{1,2,3,4,5}');
SELECT mq.enqueue('lk', '6', delay => '1 h') AS delayed \gset
SELECT is(pg_temp.numbers('lk'), 'ready 5, delayed 1, in flight 0', 'five ready and one delayed');
SELECT id, receipt FROM mq.dequeue('lk') \gset a_
SELECT id, receipt FROM mq.dequeue('lk') \gset b_
SELECT id, receipt FROM mq.dequeue('lk') \gset c_
SELECT is(pg_temp.numbers('lk'), 'ready 2, delayed 1, in flight 3', 'three taken');
SELECT results_eq($$ SELECT body, state, receipt IS NOT NULL FROM mq.browse('lk') ORDER BY id $$,
    $$ VALUES ('1'::jsonb, 'leased', true), ('2', 'leased', true), ('3', 'leased', true), ('4', 'ready', false), ('5', 'ready', false), ('6', 'delayed', false) $$,
    'browse shows them all with their states');
SELECT is((SELECT count(*) FROM mq.browse('lk', 2)), 2::bigint, '... or as many as asked for');
SELECT is(pg_temp.numbers('lk'), 'ready 2, delayed 1, in flight 3', 'browsing takes nothing');
SELECT mq.create_queue('lk2', dead_letter => '');
SELECT mq.enqueue_batch('lk2', '{1,2,3}') \g /dev/null
SELECT mq.enqueue('lk2', to_jsonb(i), priority => 5) FROM generate_series(4, 6) i \g /dev/null
SELECT is((SELECT array_agg(body::int) FROM mq.browse('lk2', 4)), '{4,5,6,1}', 'of those with a priority and those without the first ones, as many as asked for');
SELECT mq.drop_queue('lk2');
SELECT is(mq.status('lk', :a_id) || ' ' || mq.status('lk', :delayed) || ' ' || mq.status('lk', :c_id + 1), 'leased delayed ready', 'status');
SELECT mq.ack('lk', :a_id, :a_receipt);
SELECT is(pg_temp.numbers('lk'), 'ready 2, delayed 1, in flight 2', 'one acknowledged');
SELECT mq.nack('lk', :b_id, :b_receipt, '1 h');
SELECT ok(pg_temp.until($$ pg_temp.numbers('lk') = 'ready 2, delayed 2, in flight 1' $$), 'one nacked for later');
SELECT mq.release('lk', :c_id, :c_receipt);
SELECT is(pg_temp.numbers('lk'), 'ready 3, delayed 2, in flight 0', 'one released');
SELECT results_eq($$ SELECT enqueued, delivered, acked, nacked, expired, redelivered, dead FROM mq.stats WHERE queue = 'lk' $$,
    $$ VALUES (6::bigint, 3::bigint, 1::bigint, 1::bigint, 0::bigint, 0::bigint, 0::bigint) $$, 'the counters');
SELECT ok(oldest_ready_age BETWEEN '0' AND '1 min', 'the oldest ready one is young') FROM mq.stats WHERE queue = 'lk';
SELECT ok(exact AND since <= clock_timestamp() AND since > clock_timestamp() - interval '1 day', 'the counters are exact since a while ago') FROM mq.stats WHERE queue = 'lk';
BEGIN;
SELECT mq.enqueue_batch('lk', '{1,2,3}');
SELECT mq.delete('lk', ARRAY[:delayed]);
ROLLBACK;
SELECT is(pg_temp.numbers('lk'), 'ready 3, delayed 2, in flight 0', 'what rolls back is not counted');
BEGIN;
SELECT mq.enqueue('lk', '1');
SAVEPOINT s;
SELECT mq.enqueue('lk', '1');
ROLLBACK TO s;
COMMIT;
SELECT is(pg_temp.numbers('lk'), 'ready 4, delayed 2, in flight 0', 'what a savepoint rolls back neither');
UPDATE mq.q_lk SET ready_at = NULL WHERE id = :delayed;
SELECT is(pg_temp.numbers('lk'), 'ready 5, delayed 1, in flight 0', 'an UPDATE counts');
DELETE FROM mq.q_lk WHERE id = :delayed;
SELECT is(pg_temp.numbers('lk'), 'ready 4, delayed 1, in flight 0', 'a DELETE counts');
INSERT INTO mq.q_lk (body) VALUES ('7'), ('8');
SELECT is(pg_temp.numbers('lk'), 'ready 6, delayed 1, in flight 0', 'an INSERT counts');
SELECT count(*) FROM mq.dequeue('lk', 2, lease => '1 ms') \gset
SELECT ok(pg_temp.until($$ (SELECT expired = 2 FROM mq.stats WHERE queue = 'lk') $$), 'ended leases are counted');
SELECT count(*) AS again FROM mq.dequeue('lk', auto_ack => true) \gset
SELECT ok((SELECT redelivered >= 1 FROM mq.stats WHERE queue = 'lk'), '... and the redeliveries');
SELECT is((SELECT ready + delayed + in_flight FROM mq.stats WHERE queue = 'lk'), (SELECT count(*) FROM mq.q_lk), 'together they are what the table has');
SELECT is(mq.purge('lk'), (SELECT count(*) FROM mq.q_lk), 'purged');
SELECT is(pg_temp.numbers('lk'), 'ready 0, delayed 0, in flight 0', 'nothing left');
INSERT INTO mq.q_lk (body) SELECT to_jsonb(i) FROM generate_series(1, 100) i;
TRUNCATE mq.q_lk;
SELECT is(pg_temp.numbers('lk'), 'ready 0, delayed 0, in flight 0', 'nor after TRUNCATE');

-- A delay that passes is ready.
SELECT mq.enqueue('lk', '1', delay => '100 ms') AS id \gset
SELECT ok(pg_temp.until(format($$ mq.status('lk', %s) = 'ready' AND pg_temp.numbers('lk') = 'ready 1, delayed 0, in flight 0' $$, :id)), 'a delay that passed is ready');
SELECT mq.purge('lk');

-- In flight within an open transaction.
SELECT mq.enqueue('lk', '1');
BEGIN;
SELECT id FROM mq.dequeue('lk', consumer => 'open') \gset
SELECT format('%s %s %s', queue, consumer, coalesce(lease_until::text, 'open')) AS f, pid = pg_backend_pid() AS mine FROM mq.in_flight \gset f_
ROLLBACK;
SELECT is(:'f_f' || :'f_mine', 'lk open opent', 'mq.in_flight of an open transaction has no lease_until');
SELECT is((SELECT count(*) FROM mq.in_flight), 0::bigint, '... and nothing after it');
SELECT mq.drop_queue(q) FROM unnest('{lk,lk_dead}'::text[]) q;
SELECT * FROM finish();
