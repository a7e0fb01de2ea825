-- mq.stats after each operation, one by one, and the state that browse and status give the message.
\ir setup.psql
SELECT mq.create_queue('sn', max_attempts => 3, backoff => '1 h', lease => '1 h');
CREATE FUNCTION pg_temp.now_is() RETURNS text LANGUAGE sql AS $$
    SELECT format('%s/%s/%s e%s d%s a%s n%s x%s r%s †%s', ready, delayed, in_flight, enqueued, delivered, acked, nacked, expired, redelivered, dead)
      FROM mq.stats WHERE queue = 'sn' $$;
CREATE FUNCTION pg_temp.states() RETURNS text LANGUAGE sql AS $$
    SELECT coalesce(string_agg(state, ',' ORDER BY id), '')
           || CASE WHEN count(*) FILTER (WHERE state IS DISTINCT FROM mq.status('sn', id)) > 0 THEN ' (status differs)' ELSE '' END FROM mq.browse('sn') $$;

SELECT is(pg_temp.now_is(), '0/0/0 e0 d0 a0 n0 x0 r0 †0', 'a new queue');
SELECT mq.enqueue('sn', '1') AS id \gset
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '1/0/0 e1 d0 a0 n0 x0 r0 †0 ready', 'enqueue');
BEGIN;
SELECT id, receipt FROM mq.dequeue('sn') \gset
SELECT pg_temp.now_is() || ' ' || pg_temp.states() AS open \gset
SELECT oldest_ready_age IS NULL AS none FROM mq.stats WHERE queue = 'sn' \gset
COMMIT;
SELECT is(:'open'::text, '0/0/1 e1 d1 a0 n0 x0 r0 †0 leased', 'dequeue, within its transaction');
SELECT is(:'none'::boolean, true, '... nothing ready has no age');
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '0/0/1 e1 d1 a0 n0 x0 r0 †0 leased', '... and after');
BEGIN;
SELECT mq.ack('sn', :id, :receipt);
ROLLBACK;
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '0/0/1 e1 d1 a0 n0 x0 r0 †0 leased', 'an ack that rolls back');
SELECT mq.release('sn', :id, :receipt);
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '1/0/0 e1 d1 a0 n0 x0 r0 †0 ready', 'release');
SELECT id, receipt FROM mq.dequeue('sn') \gset
SELECT is(pg_temp.now_is(), '0/0/1 e1 d2 a0 n0 x0 r0 †0', 'a released message is delivered, not redelivered: nothing failed');
SELECT mq.nack('sn', :id, :receipt);
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '0/1/0 e1 d2 a0 n1 x0 r0 †0 delayed', 'nack');
UPDATE mq.q_sn SET ready_at = NULL;
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '1/0/0 e1 d2 a0 n1 x0 r0 †0 ready', 'an UPDATE makes it ready');
BEGIN;
SELECT id FROM mq.dequeue('sn') \gset
ROLLBACK;
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '0/1/0 e1 d3 a0 n1 x0 r1 †0 delayed', 'redelivered, and rolled back: waiting for its backoff');
SELECT ok(pg_temp.until('(SELECT attempts = 2 FROM mq.q_sn)'), '... the worker writes it');
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '0/1/0 e1 d3 a0 n1 x0 r1 †0 delayed', '... which changes no number');
UPDATE mq.q_sn SET ready_at = NULL;
SELECT count(*) FROM mq.dequeue('sn', lease => '1 ms') \gset
SELECT ok(pg_temp.until($$ (SELECT dead = 1 FROM mq.stats WHERE queue = 'sn') AND (SELECT count(*) = 1 FROM mq.q_sn_dead) $$), 'the third lease ends');
SELECT is(pg_temp.now_is() || pg_temp.states(), '0/0/0 e1 d4 a0 n1 x1 r2 †1', '... and it is dead');
SELECT ok(pg_temp.until($$ (SELECT ready = 1 AND enqueued = 1 FROM mq.stats WHERE queue = 'sn_dead') $$), '... and ready among the dead');
SELECT mq.redrive('sn_dead');
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '1/0/0 e2 d4 a0 n1 x1 r2 †1 ready', 'redrive enqueues it');
SELECT is((SELECT ready FROM mq.stats WHERE queue = 'sn_dead'), 0::bigint, '... from there');
SELECT count(*) FROM mq.dequeue('sn', auto_ack => true) \gset
SELECT is(pg_temp.now_is() || pg_temp.states(), '0/0/0 e2 d5 a1 n1 x1 r2 †1', 'auto_ack');
SELECT mq.enqueue_batch('sn', '{1,2,3}', delay => '1 h');
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '0/3/0 e5 d5 a1 n1 x1 r2 †1 delayed,delayed,delayed', 'a delayed batch');
SELECT is((SELECT oldest_ready_age FROM mq.stats WHERE queue = 'sn'), NULL, '... has no age yet');
SELECT mq.purge('sn');
SELECT is(pg_temp.now_is() || pg_temp.states(), '0/0/0 e5 d5 a1 n1 x1 r2 †1', 'purge');
SELECT mq.enqueue('sn', '1', deliver_at => now() - interval '1 h');
SELECT is((SELECT oldest_ready_age < '1 min' OR oldest_ready_age BETWEEN '1 h' AND '61 min' FROM mq.stats WHERE queue = 'sn'), true, 'the age of a ready one');
SELECT mq.pause('sn');
SELECT is(pg_temp.now_is() || ' ' || pg_temp.states(), '1/0/0 e6 d5 a1 n1 x1 r2 †1 ready', 'pause changes no number');
SELECT mq.resume('sn');
SELECT id, receipt FROM mq.dequeue('sn') \gset
SELECT mq.delete('sn', ARRAY[:id]);
SELECT is(pg_temp.now_is() || pg_temp.states(), '0/0/0 e6 d6 a1 n1 x1 r2 †1', 'mq.delete of a leased one');
SELECT mq.enqueue('sn', '1') \gset
SELECT id, receipt FROM mq.dequeue('sn') \gset
SELECT mq.reject('sn', :id, :receipt);
SELECT is(split_part(pg_temp.now_is(), ' ', 1) || pg_temp.states() || right(pg_temp.now_is(), 2), '0/0/0†2', 'reject');
SELECT ok(pg_temp.until($$ (SELECT exact AND consumers_waiting = 0 FROM mq.stats WHERE queue = 'sn') $$), 'the numbers are exact');

-- A row put off and gone in one transaction was never delayed, whoever has it.
CREATE FUNCTION pg_temp.three() RETURNS text LANGUAGE sql AS $$ SELECT split_part(pg_temp.now_is(), ' ', 1) $$;
SELECT mq.enqueue('sn', '1');
SELECT id, receipt FROM mq.dequeue('sn') \gset
BEGIN;
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
SELECT mq.ack('sn', :id, :receipt);
COMMIT;
SELECT is(pg_temp.three(), '0/0/0', 'leased, put off, then ack');
SELECT mq.enqueue('sn', '1');
SELECT id, receipt FROM mq.dequeue('sn') \gset
BEGIN;
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
SELECT mq.reject('sn', :id, :receipt);
COMMIT;
SELECT is(pg_temp.three(), '0/0/0', 'leased, put off, then reject');
SELECT mq.enqueue('sn', '1');
SELECT id, receipt FROM mq.dequeue('sn') \gset
BEGIN;
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
DELETE FROM mq.q_sn;
COMMIT;
SELECT is(pg_temp.three(), '0/0/0', 'leased, put off, then delete');
SELECT mq.enqueue('sn', '1');
BEGIN;
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
UPDATE mq.q_sn SET ready_at = now() + interval '2 h';
DELETE FROM mq.q_sn;
COMMIT;
SELECT is(pg_temp.three(), '0/0/0', 'free, put off twice, then deleted');
SELECT mq.enqueue('sn', '1', delay => '1 h');
BEGIN;
UPDATE mq.q_sn SET ready_at = NULL;
DELETE FROM mq.q_sn;
COMMIT;
SELECT is(pg_temp.three(), '0/0/0', 'delayed, then brought forward and deleted');
BEGIN;
SELECT mq.enqueue('sn', '1');
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
DELETE FROM mq.q_sn;
COMMIT;
SELECT is(pg_temp.three(), '0/0/0', 'new, put off, then deleted');
SELECT mq.enqueue('sn', '1') AS id \gset
BEGIN;
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
DELETE FROM mq.q_sn;
INSERT INTO mq.q_sn (id, body, priority) OVERRIDING SYSTEM VALUE VALUES (:id, '2', 5);
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
COMMIT;
SELECT is(pg_temp.three(), '0/1/0', 'put off, deleted, and a new one of its id put off');
BEGIN;
UPDATE mq.q_sn SET ready_at = NULL;
DELETE FROM mq.q_sn;
INSERT INTO mq.q_sn (id, body, priority) OVERRIDING SYSTEM VALUE VALUES (:id, '3', 5);
COMMIT;
SELECT is(pg_temp.three(), '1/0/0', '... again, ready');
SELECT is((SELECT body FROM mq.dequeue('sn', auto_ack => true)), '3'::jsonb, '... and it is found');
BEGIN;
SELECT mq.enqueue('sn', '1', priority => 2);
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
SAVEPOINT s;
DELETE FROM mq.q_sn;
ROLLBACK TO s;
COMMIT;
SELECT is(pg_temp.three(), '0/1/0', 'new, put off, and its deletion undone');
BEGIN;
UPDATE mq.q_sn SET ready_at = NULL;
SAVEPOINT s;
UPDATE mq.q_sn SET ready_at = now() + interval '2 h';
DELETE FROM mq.q_sn;
ROLLBACK TO s;
COMMIT;
SELECT is(pg_temp.three(), '1/0/0', 'brought forward, the rest undone');
SELECT id, receipt FROM mq.dequeue('sn') \gset
BEGIN;
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
SELECT mq.nack('sn', :id, :receipt, delay => '0');
COMMIT;
SELECT is(pg_temp.three(), '1/0/0', 'put off, then nacked for now');
SELECT id, receipt FROM mq.dequeue('sn') \gset
BEGIN;
UPDATE mq.q_sn SET ready_at = now() + interval '1 h';
SELECT mq.release('sn', :id, :receipt);
COMMIT;
SELECT is(pg_temp.three(), '0/1/0', 'put off, then released');
SELECT mq.purge('sn');
-- A trigger that writes the row once more does so within the statement that fired it.
SET client_min_messages = error;
CREATE FUNCTION public.once_more() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE mq.q_sn SET priority = 3 WHERE id = NEW.id AND priority <> 3;
    RETURN NULL;
END $$;
CREATE TRIGGER a_first AFTER UPDATE ON mq.q_sn FOR EACH ROW EXECUTE FUNCTION public.once_more();
SELECT mq.enqueue('sn', '"far"', delay => '1 day', priority => 3), mq.enqueue('sn', '"moved"', delay => '1 h');
SELECT is(pg_temp.three(), '0/2/0', 'two are delayed');
BEGIN;
UPDATE mq.q_sn SET ready_at = now() - interval '1 h' WHERE body = '"moved"';
DELETE FROM mq.q_sn WHERE body = '"moved"';
COMMIT;
SELECT is(pg_temp.three(), '0/1/0', 'moved, moved by a trigger, and deleted');
SELECT mq.enqueue('sn', '"moved"');
SELECT id, receipt FROM mq.dequeue('sn') \gset
UPDATE mq.q_sn SET ready_at = now() + interval '1 h' WHERE body = '"moved"';
UPDATE mq.q_sn SET ready_at = now() WHERE body = '"moved"';
SELECT is(pg_temp.three(), '0/1/1', 'leased, moved and moved by a trigger');
SELECT mq.release('sn', :id, :receipt);
SELECT is(pg_temp.three(), '1/1/0', '... released');
SELECT is((SELECT body FROM mq.dequeue('sn', auto_ack => true)), '"moved"'::jsonb, '... and found');
CREATE TRIGGER a_first_too AFTER INSERT ON mq.q_sn FOR EACH ROW EXECUTE FUNCTION public.once_more();
BEGIN;
SELECT mq.enqueue('sn', '"new"', priority => 1);
DELETE FROM mq.q_sn WHERE body = '"new"';
COMMIT;
SELECT is(pg_temp.three(), '0/1/0', 'new, moved by a trigger, and deleted');
SELECT mq.enqueue('sn', '"new"', priority => 1);
SELECT is(pg_temp.three(), '1/1/0', '... and not deleted');
DROP TRIGGER a_first_too ON mq.q_sn;
DROP TRIGGER a_first ON mq.q_sn;
DROP FUNCTION public.once_more();
RESET client_min_messages;
SELECT mq.purge('sn');

-- mq.in_flight's columns.
SELECT mq.enqueue('sn', '1') AS id \gset
SET application_name = 'the app';
SELECT clock_timestamp() AS t0 \gset
SELECT receipt, lease_until FROM mq.dequeue('sn', lease => '10 min') \gset m_
SELECT results_eq($$ SELECT queue COLLATE "default", id, receipt, consumer COLLATE "default", pid, attempt FROM mq.in_flight $$,
    format($$ VALUES ('sn', %s::bigint, %s::bigint, 'the app', pg_backend_pid(), 1) $$, :id, :m_receipt), 'mq.in_flight: whose it is; the consumer is application_name');
SELECT ok(leased_at BETWEEN :'t0' AND clock_timestamp(), '... since when') FROM mq.in_flight;
SELECT ok(lease_until - :'t0'::timestamptz BETWEEN '10 min' AND '10 min 10 s', '... until when') FROM mq.in_flight;
SELECT ok(abs(extract(epoch FROM lease_until - :'m_lease_until'::timestamptz)) < 5, '... about as the message said') FROM mq.in_flight;
SELECT mq.drop_queue(q) FROM unnest('{sn,sn_dead}'::text[]) q;
SELECT * FROM finish();
