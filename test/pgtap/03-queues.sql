-- create_queue, alter_queue, drop_queue, pause, resume, and what is not built yet.
\ir setup.psql

SELECT mq.create_queue('qd');
SELECT results_eq(
    $$ SELECT lease, max_attempts, backoff, backoff_limit, dead_letter COLLATE "default", ttl, max_length::bigint, overflow COLLATE "default", ordered, dedup_window,
              retain, unlogged, max_in_flight::bigint, rate_limit, dead_letter_exchange COLLATE "default", dead_letter_key COLLATE "default", paused,
              relation, owner::text COLLATE "default", channel::text COLLATE "default" FROM mq.queues WHERE name = 'qd' $$,
    $$ VALUES ('30 s'::interval, 20, '1 s'::interval, '1 h'::interval, 'qd_dead', NULL::interval, NULL::bigint, 'reject', false,
              '5 min'::interval, NULL::interval, false, NULL::bigint, NULL::double precision, NULL::text, NULL::text, false,
              'mq.q_qd'::regclass, current_user::text COLLATE "default", 'mq_qd') $$,
    'every option has its default');
SELECT results_eq($$ SELECT coalesce(dead_letter, '') COLLATE "default", max_attempts FROM mq.queues WHERE name = 'qd_dead' $$,
    $$ VALUES ('', 0) $$, 'the dead-letter queue was made, without dead letters, trying for ever');
SELECT is((SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'mq.q_qd_dead'::regclass), current_user, 'and is the creator''s');

SELECT mq.create_queue('qo', '1 min', 3, '2 s', '20 s', 'qo_bin', unlogged => true);
SELECT results_eq(
    $$ SELECT lease, max_attempts, backoff, backoff_limit, dead_letter COLLATE "default", unlogged FROM mq.queues WHERE name = 'qo' $$,
    $$ VALUES ('1 min'::interval, 3, '2 s'::interval, '20 s'::interval, 'qo_bin', true) $$, 'options by position');
SELECT is((SELECT relpersistence::text FROM pg_class WHERE oid = 'mq.q_qo'::regclass), 'u', 'an unlogged queue');
SELECT is((SELECT relpersistence::text FROM pg_class WHERE oid = 'mq.q_qo$id'::regclass), 'p', 'keeps its ids over a crash');

SELECT mq.create_queue('qn', lease => NULL, max_attempts => NULL, backoff => NULL, backoff_limit => NULL, dead_letter => NULL,
    ttl => NULL, max_length => NULL, overflow => NULL, ordered => NULL, dedup_window => NULL, retain => NULL, unlogged => NULL,
    max_in_flight => NULL, rate_limit => NULL, dead_letter_exchange => NULL, dead_letter_key => NULL, if_not_exists => NULL);
SELECT results_eq($$ SELECT lease, max_attempts, backoff, backoff_limit, dead_letter COLLATE "default", overflow COLLATE "default", dedup_window FROM mq.queues WHERE name = 'qn' $$,
    $$ VALUES ('30 s'::interval, 20, '1 s'::interval, '1 h'::interval, 'qn_dead', 'reject', '5 min'::interval) $$,
    'NULL means the default');

-- It exists already.
SELECT is(pg_temp.state($$ SELECT mq.create_queue('qd') $$), '42710', 'a second queue of the name');
SELECT is(pg_temp.state($$ SELECT mq.create_queue('qd', if_not_exists => true) $$), '00000', 'unless if_not_exists');
SELECT is(pg_temp.state($$ SELECT mq.create_queue('qd', lease => '7 s', if_not_exists => true) $$), '00000', '... with other options');
SELECT is((SELECT lease FROM mq.queues WHERE name = 'qd'), '30 s'::interval, '... which change nothing');
SELECT is(pg_temp.state($$ SELECT mq.create_queue('qx', dead_letter => 'qo') $$), '00000', 'dead letters into a queue that exists');
SELECT is((SELECT max_attempts FROM mq.queues WHERE name = 'qo'), 3, '... leave that queue as it was');
SELECT is((SELECT dead_letter FROM mq.queues WHERE name = 'qx'), 'qo', '... and are resolved');

-- Dropping.
SELECT is(pg_temp.state($$ SELECT mq.drop_queue('qo') $$), '2BP01', 'no drop of a queue that is another''s dead-letter queue');
SELECT isnt(to_regclass('mq.q_qo'), NULL, '... and nothing half-done');
SELECT is(mq.drop_queue('qx'), true, 'drop_queue says true');
SELECT is(mq.drop_queue('qo'), true, 'unreferenced it goes');
SELECT isnt(to_regclass('mq.q_qo_bin'), NULL, 'a dead-letter queue stays');
SELECT is(mq.drop_queue('qo', if_exists => true), false, 'false with if_exists when there is none');
SELECT is(pg_temp.state($$ SELECT mq.drop_queue('qo') $$), '42704', 'an error without');
SELECT mq.drop_queue('qo_bin');
SELECT is((SELECT count(*) FROM mq.in_flight), 0::bigint, 'nothing in flight so far');
SELECT mq.create_queue('qgone', dead_letter => '');
SELECT mq.enqueue('qgone', '1');
SELECT count(*) FROM mq.dequeue('qgone') \gset g_
SELECT mq.drop_queue('qgone');
SELECT is((SELECT count(*) FROM mq.in_flight), 0::bigint, 'a dropped queue''s leases are gone');
SELECT mq.create_queue('qgone', dead_letter => '');
SELECT is((SELECT count(*) FROM mq.dequeue('qgone')), 0::bigint, 'a new queue of the name has nothing of the old one');
SELECT mq.enqueue('qgone', '2');
SELECT is((SELECT body FROM mq.dequeue('qgone', auto_ack => true)), '2'::jsonb, '... and works');
BEGIN;
SELECT mq.drop_queue('qgone');
ROLLBACK;
SELECT mq.enqueue('qgone', '3');
SELECT is((SELECT body FROM mq.dequeue('qgone', auto_ack => true)), '3'::jsonb, 'a rolled-back drop leaves the queue working');
SELECT mq.drop_queue('qgone');
BEGIN;
SELECT mq.create_queue('qroll');
SELECT mq.enqueue('qroll', '1');
ROLLBACK;
SELECT is(pg_temp.state($$ SELECT mq.enqueue('qroll', '1') $$), '42704', 'a rolled-back create leaves no queue');
BEGIN;
SELECT mq.create_queue('qone', dead_letter => '');
SELECT mq.enqueue('qone', '"made together"');
COMMIT;
SELECT is((SELECT body FROM mq.dequeue('qone', auto_ack => true)), '"made together"'::jsonb, 'create and enqueue in one transaction');
SELECT mq.drop_queue('qone');

-- Altering.
SELECT mq.alter_queue('qd', lease => '10 s', max_attempts => 5, backoff => '0', backoff_limit => '5 s');
SELECT results_eq($$ SELECT lease, max_attempts, backoff, backoff_limit, dead_letter COLLATE "default" FROM mq.queues WHERE name = 'qd' $$,
    $$ VALUES ('10 s'::interval, 5, '0'::interval, '5 s'::interval, 'qd_dead') $$, 'alter_queue changes what is given');
SELECT mq.enqueue('qd', '1');
SELECT ok(extract(epoch FROM lease_until - clock_timestamp()) BETWEEN 5 AND 11, 'the altered lease holds at once') FROM mq.dequeue('qd', auto_ack => false);
SELECT mq.alter_queue('qd', dead_letter => '');
SELECT is((SELECT coalesce(dead_letter, '') FROM mq.queues WHERE name = 'qd'), '', 'the dead-letter queue can be taken away');
SELECT is(mq.drop_queue('qd_dead'), true, '... and be dropped then');
SELECT mq.alter_queue('qd', dead_letter => '%_dead');
SELECT is((SELECT dead_letter FROM mq.queues WHERE name = 'qd'), 'qd_dead', '% stands for the name here too');
SELECT isnt(to_regclass('mq.q_qd_dead'), NULL, '... and the queue is made');
SELECT is(pg_temp.state($$ SELECT mq.alter_queue('qd', lease => '-1 s') $$), '22023', 'alter checks as create does');
SELECT is(pg_temp.state($$ SELECT mq.alter_queue('qd', unset => '{nonsense}') $$), '22023', 'unset names options');
SELECT is(pg_temp.state($$ SELECT mq.alter_queue('qd', unset => '{ttl,max_length}') $$), '00000', 'unset puts them back to NULL');
SELECT is((SELECT lease FROM mq.queues WHERE name = 'qd'), '10 s'::interval, 'the rest stays');

-- Bad options, each with nothing half-done.
CREATE TEMP TABLE bad (options text);
INSERT INTO bad VALUES ($$lease => '-1 s'$$), ($$max_attempts => -1$$), ($$backoff => '-1 s'$$), ($$backoff_limit => '-1 s'$$),
    ($$overflow => 'sometimes'$$), ($$dead_letter => 'not a name'$$);
SELECT is(pg_temp.state(format('SELECT mq.create_queue(''qbad'', %s)', options)), '22023', options) FROM bad;
SELECT is(pg_temp.state(format('SELECT mq.%s(''%s'', %s)', verb, queue, options)), state, format('%s: %s', verb, options))
    FROM (VALUES ('create_queue', 'qbad'), ('alter_queue', 'qd')) v (verb, queue),
         (VALUES ($$dead_letter_exchange => 'none'$$, '42704'), ($$dead_letter_exchange => 'not a name'$$, '22023'), ($$dead_letter_key => 'x'$$, '22023'),
                 ($$dead_letter_exchange => '', dead_letter_key => repeat('x', 1001)$$, '22023')) o (options, state);
SELECT is(to_regclass('mq.q_qbad'), NULL, 'no table came of it');
SELECT is(to_regclass('mq.q_qbad_dead'), NULL, 'no dead-letter table either');
SELECT is((SELECT count(*) FROM mq.queues WHERE name LIKE 'qbad%'), 0::bigint, 'and no entry');

-- Not built yet: refused, never accepted and ignored.
CREATE TEMP TABLE notyet (sql text);
INSERT INTO notyet VALUES ($$INSERT INTO mq.q_qd (body, dedup_id) VALUES ('1', 'a')$$);
SELECT is(pg_temp.state(sql), '0A000', 'not yet: ' || sql) FROM notyet;
SELECT is((SELECT count(*) FROM mq.q_qd), 1::bigint, 'and nothing was enqueued');

-- Pausing.
SELECT mq.create_queue('qp', dead_letter => '');
SELECT mq.enqueue('qp', '1');
SELECT mq.pause('qp');
SELECT is((SELECT paused FROM mq.queues WHERE name = 'qp'), true, 'mq.queues says paused');
SELECT is((SELECT count(*) FROM mq.dequeue('qp', 10)), 0::bigint, 'a paused queue delivers nothing');
SELECT mq.enqueue('qp', '2');
SELECT is((SELECT count(*) FROM mq.browse('qp')), 2::bigint, 'enqueueing goes on');
SELECT mq.pause('qp');
SELECT mq.resume('qp');
SELECT is((SELECT paused FROM mq.queues WHERE name = 'qp'), false, 'resumed once is resumed');
SELECT is((SELECT count(*) FROM mq.dequeue('qp', 10, auto_ack => true)), 2::bigint, 'a resumed one everything');
BEGIN;
SELECT mq.pause('qp');
ROLLBACK;
SELECT mq.enqueue('qp', '3');
SELECT is((SELECT count(*) FROM mq.dequeue('qp', auto_ack => true)), 1::bigint, 'a rolled-back pause pauses nothing');
SELECT mq.enqueue('qp', '4');
SELECT id, receipt FROM mq.dequeue('qp') \gset m_
SELECT mq.pause('qp');
SELECT is(mq.ack('qp', :m_id, :m_receipt), true, 'what was delivered before the pause can be settled');

-- Purging.
SELECT mq.create_queue('qu', dead_letter => '');
SELECT mq.enqueue_batch('qu', '{1,2,3}');
SELECT mq.enqueue('qu', '4', delay => '1 h');
SELECT id, receipt FROM mq.dequeue('qu') \gset m_
SELECT is(mq.purge('qu'), 3::bigint, 'purge deletes the ready and the delayed');
SELECT is((SELECT count(*) FROM mq.q_qu), 1::bigint, '... not the leased');
SELECT is(mq.ack('qu', :m_id, :m_receipt), true, '... which can be settled still');
SELECT is(mq.purge('qu'), 0::bigint, 'nothing left to purge');

SELECT mq.drop_queue(q) FROM unnest('{qd,qd_dead,qn,qn_dead,qp,qu}'::text[]) q;
SELECT * FROM finish();
