-- PREPARE TRANSACTION after every verb, with savepoints in between, committed and rolled back.
\ir setup.psql
SELECT mq.create_queue('tp', max_attempts => 9, backoff => '0', lease => '1 h');
CREATE TABLE g (id bigint, receipt bigint, body jsonb);
CREATE FUNCTION pg_temp.shown() RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(format('%s:%s:%s', body, attempts, mq.status('tp', id)), ' ' ORDER BY body::int) FROM mq.q_tp $$;
SELECT mq.enqueue_batch('tp', '{1,2,3,4,5,6}');
INSERT INTO g SELECT id, receipt, body FROM mq.dequeue('tp', 5);

\set verbs 'SELECT mq.nack(''tp'', id, receipt, ''1 h'', ''why'') FROM g WHERE body = ''2''; SELECT mq.reject(''tp'', id, receipt) FROM g WHERE body = ''3''; SELECT mq.release(''tp'', id, receipt) FROM g WHERE body = ''4''; SELECT mq.ack(''tp'', id, receipt) FROM g WHERE body = ''5''; SELECT body FROM mq.dequeue(''tp''); SELECT mq.enqueue(''tp'', ''7'', priority => 3); SELECT mq.enqueue(''tp'', ''8'', delay => ''1 h'');'

BEGIN;
SAVEPOINT s;
SELECT mq.ack('tp', id, receipt) FROM g WHERE body = '1';
SELECT mq.enqueue('tp', '99');
ROLLBACK TO s;
:verbs
PREPARE TRANSACTION 'mqt_tp1';
SELECT is((SELECT string_agg(body || ':' || state, ' ' ORDER BY body) FROM (SELECT body #>> '{}' AS body, state FROM mq.browse('tp')) b),
    '1:leased 2:leased 3:leased 4:leased 5:leased 6:leased', 'prepared: each is still leased, nothing new is seen');
SELECT is((SELECT ready || ' ' || in_flight FROM mq.stats WHERE queue = 'tp'), '0 6', '... and counted so');
SELECT results_eq($$ SELECT body, mq.release('tp', id, receipt) FROM g WHERE body IN ('2', '3', '4', '5') ORDER BY body $$,
    $$ VALUES ('2'::jsonb, false), ('3', false), ('4', false), ('5', false) $$, '... what it settles cannot be settled again');
SELECT is((SELECT mq.extend('tp', id, receipt, '2 h') FROM g WHERE body = '1'), true, '... what its savepoint gave up can');
SELECT is((SELECT count(*) FROM mq.dequeue('tp', 10)), 0::bigint, '... and nothing of it is delivered');
ROLLBACK PREPARED 'mqt_tp1';
SELECT ok(pg_temp.until($$ (SELECT in_flight = 5 FROM mq.stats WHERE queue = 'tp') $$), 'rolled back, what it had dequeued comes back');
SELECT ok(pg_temp.until($$ pg_temp.shown() = '1:0:leased 2:0:leased 3:0:leased 4:0:leased 5:0:leased 6:1:ready' $$), '... counted; the others are leased as before');
SELECT is((SELECT count(*) FROM mq.q_tp_dead), 0::bigint, '... none is dead');

BEGIN;
SAVEPOINT s;
SELECT mq.ack('tp', id, receipt) FROM g WHERE body = '1';
SELECT mq.enqueue('tp', '99');
ROLLBACK TO s;
:verbs
PREPARE TRANSACTION 'mqt_tp2';
COMMIT PREPARED 'mqt_tp2';
SELECT ok(pg_temp.until($$ pg_temp.shown() = '1:0:leased 2:1:delayed 4:0:ready 6:1:leased 7:0:ready 8:0:delayed' $$), 'committed, every verb has acted');
SELECT ok(pg_temp.until($$ (SELECT ready = 2 AND delayed = 2 AND in_flight = 2 FROM mq.stats WHERE queue = 'tp') $$), '... counted so');
SELECT results_eq($$ SELECT body FROM mq.q_tp_dead $$, $$ VALUES ('3'::jsonb) $$, '... the rejected one is dead');
SELECT results_eq($$ SELECT body, attempt FROM mq.dequeue('tp', 10, wait => '10 s', auto_ack => true) $$, $$ VALUES ('7'::jsonb, 1), ('4', 1) $$, '... what is ready is delivered, in order');
SELECT is((SELECT mq.ack('tp', id, receipt) FROM g WHERE body = '1'), true, '... what its savepoint gave up is settled');
SELECT is(mq.ack('tp', id, receipt), true, '... and what it dequeued, from this session') FROM mq.in_flight WHERE queue = 'tp';

-- Administration.
BEGIN;
SELECT mq.pause('tp');
PREPARE TRANSACTION 'mqt_tp3';
SELECT is((SELECT paused FROM mq.queues WHERE name = 'tp'), false, 'a prepared pause pauses nothing');
COMMIT PREPARED 'mqt_tp3';
SELECT mq.enqueue('tp', '9');
SELECT is((SELECT count(*) FROM mq.dequeue('tp', 10)), 0::bigint, '... a committed one does');
SELECT mq.resume('tp');
BEGIN;
SELECT mq.create_queue('tp_new', dead_letter => '');
SELECT mq.enqueue('tp_new', '1');
PREPARE TRANSACTION 'mqt_tp4';
COMMIT PREPARED 'mqt_tp4';
SELECT is((SELECT body FROM mq.dequeue('tp_new', wait => '10 s', lease => '1 h')), '1'::jsonb, 'a queue made and filled in a prepared transaction');
BEGIN;
SELECT mq.drop_queue('tp_new');
PREPARE TRANSACTION 'mqt_tp5';
ROLLBACK PREPARED 'mqt_tp5';
SELECT is((SELECT mq.ack('tp_new', id, receipt) FROM mq.in_flight WHERE queue = 'tp_new'), true, 'a drop that is rolled back leaves lease and receipt');
SELECT mq.enqueue('tp_new', '2');
SELECT count(*) FROM mq.dequeue('tp_new', lease => '1 h') \gset
BEGIN;
TRUNCATE mq.q_tp_new;
PREPARE TRANSACTION 'mqt_tp6';
COMMIT PREPARED 'mqt_tp6';
SELECT ok(pg_temp.until($$ NOT EXISTS (SELECT FROM mq.in_flight WHERE queue = 'tp_new') $$), 'a prepared TRUNCATE drops the leases when it commits');
SELECT mq.enqueue('tp_new', '3');
SELECT is((SELECT body FROM mq.dequeue('tp_new', wait => '10 s', auto_ack => true)), '3'::jsonb, '... and what comes after it is delivered');

-- A leased message deleted by a prepared transaction; a rejected one.
SELECT mq.enqueue('tp_new', '4'), mq.enqueue('tp_new', '5') \g /dev/null
SELECT count(*) FROM mq.dequeue('tp_new', 2, lease => '1 h') \gset
BEGIN;
DELETE FROM mq.q_tp_new WHERE body = '4';
PREPARE TRANSACTION 'mqt_tp7';
ROLLBACK PREPARED 'mqt_tp7';
BEGIN;
DELETE FROM mq.q_tp_new WHERE body = '5';
SELECT mq.reject('tp_new', id, receipt) FROM mq.in_flight WHERE queue = 'tp_new' ORDER BY id LIMIT 1;
PREPARE TRANSACTION 'mqt_tp8';
SELECT dead AS dead_before FROM mq.stats WHERE queue = 'tp_new' \gset
COMMIT PREPARED 'mqt_tp8';
SELECT ok(pg_temp.until($$ NOT EXISTS (SELECT FROM mq.in_flight WHERE queue = 'tp_new') $$), 'a prepared DELETE and a prepared reject end the leases when they commit');
SELECT ok(pg_temp.until($$ (SELECT in_flight = 0 AND ready = 0 AND exact FROM mq.stats WHERE queue = 'tp_new') $$), '... counted so');
SELECT is((SELECT dead FROM mq.stats WHERE queue = 'tp_new'), (:dead_before + 1)::bigint, '... the dead one too');

DROP TABLE g;
SELECT mq.drop_queue(q) FROM unnest('{tp,tp_dead,tp_new}'::text[]) q;
SELECT * FROM finish();
