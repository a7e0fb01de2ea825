-- dedup_id: within the window the first enqueue wins; batches, transactions, window '0', the owner's triggers, cleaning.
\ir setup.psql
SELECT mq.create_queue('de', backoff => '0');
SELECT is((SELECT dedup_window FROM mq.queues WHERE name = 'de'), '5 minutes'::interval, 'remembered for five minutes by default');
SELECT is(mq.enqueue('de', '"first"', dedup_id => 'x'), 1::bigint, 'the first');
SELECT is(mq.enqueue('de', '"second"', dedup_id => 'x'), 1::bigint, 'the second returns its id');
SELECT results_eq('SELECT id, dedup_id, body FROM mq.q_de', $$ VALUES (1::bigint, 'x', '"first"'::jsonb) $$, '... and adds nothing');
SELECT isnt(mq.enqueue('de', '"other"', dedup_id => 'y'), 1::bigint, 'another dedup_id is another message');
SELECT isnt(mq.enqueue('de', '"none"'), 1::bigint, 'none is none');
SELECT isnt(mq.enqueue('de', '"empty"', dedup_id => ''), 1::bigint, 'an empty one is one');
SELECT is(mq.enqueue('de', '"empty"', dedup_id => ''), (SELECT id FROM mq.q_de WHERE dedup_id = ''), '... like others');
SELECT is(mq.enqueue('de_dead', '1', dedup_id => 'x'), 1::bigint, 'each queue has its own');
SELECT is((SELECT array_agg(dedup_id) FROM mq.dequeue('de', auto_ack => true)), '{x}', 'it comes with the message');
SELECT is(mq.enqueue('de', '"late"', dedup_id => 'x'), 1::bigint, 'remembered also after the ack');
SELECT count(mq.reject(m.queue, m.id, m.receipt)) FROM mq.dequeue('de') m;
SELECT is((SELECT array_agg(dedup_id ORDER BY id) FROM mq.q_de_dead), '{x,y}', 'a dead message keeps it');
SELECT ok(mq.enqueue('de', '"again"', dedup_id => 'y') < 5, 'remembered also after its death');
SELECT mq.purge('de');
SELECT ok(mq.enqueue('de', '"again"', dedup_id => '') < 10, '... and after purge');
SELECT is((SELECT count(*) FROM mq.q_de), 0::bigint, 'nothing was added');
SELECT lives_ok($$ SELECT mq.enqueue('de', '1', dedup_id => repeat('d', 1000)) $$, '1000 bytes');
SELECT is(mq.enqueue('de', '1', dedup_id => repeat('d', 1000)), (SELECT max(id) FROM mq.q_de), '... are remembered');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('de', '1', dedup_id => repeat('d', 1001)) $$), '22023', 'not 1001');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('de', '1', dedup_id => repeat('ß', 501)) $$), '22023', 'bytes count');
SELECT is(pg_temp.state($$ SELECT mq.enqueue_batch('de', '{1}', dedup_ids => ARRAY[repeat('d', 1001)]) $$), '22023', '... in a batch');
SELECT is(pg_temp.state($$ SELECT mq.enqueue_batch('de', '{1,2}', dedup_ids => '{a}') $$), '22023', 'arrays of one length');
SELECT is(pg_temp.state($$ UPDATE mq.q_de SET dedup_id = 'other' $$), '0A000', 'an UPDATE cannot give another one');
SELECT is(pg_temp.state($$ UPDATE mq.q_de SET dedup_id = dedup_id, headers = '{}' $$), '00000', '... the same is none');
SELECT mq.purge('de');

-- Batches.
CREATE TEMP TABLE b AS SELECT o, i FROM mq.enqueue_batch('de', '{1,2,3,4,5,6}', dedup_ids => '{b,a,b,NULL,x,a}') WITH ORDINALITY e(i, o);
SELECT is((SELECT array_agg(i = 1 ORDER BY o) FROM b), '{f,f,f,f,t,f}', 'one of a batch was remembered');
SELECT ok((SELECT i FROM b WHERE o = 1) = (SELECT i FROM b WHERE o = 3) AND (SELECT i FROM b WHERE o = 2) = (SELECT i FROM b WHERE o = 6), 'the first of a batch wins');
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_de), '{1,2,4}'::jsonb[], 'the others are added in their order');
SELECT is((SELECT array_agg(i ORDER BY o) FROM mq.enqueue_batch('de', '{1,2,3,4,5}', dedup_ids => '{b,a,b,x,a}') WITH ORDINALITY e(i, o)),
    (SELECT array_agg(i ORDER BY o) FROM b WHERE o <> 4), 'a batch again is the same ids');
SELECT is((SELECT count(*) FROM mq.q_de), 3::bigint, '... and no message');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('de', '{}', dedup_ids => '{}')), 0::bigint, 'an empty batch');
SELECT is((SELECT count(DISTINCT i) FROM mq.enqueue_batch('de', dedup_ids => ARRAY(SELECT 'n' || n % 7000 FROM generate_series(1, 10000) n)) i), 7000::bigint, 'a large one');
SELECT is((SELECT count(DISTINCT dedup_id) FROM mq.dequeue('de', 20000, auto_ack => true)), 7002::bigint, '... is delivered');

-- Transactions and savepoints.
BEGIN;
SELECT mq.enqueue('de', '"lost"', dedup_id => 't') AS lost \gset
SELECT is(mq.enqueue('de', '"lost"', dedup_id => 't'), :lost::bigint, 'remembered within the transaction');
ROLLBACK;
SELECT isnt(mq.enqueue('de', '"kept"', dedup_id => 't'), :lost::bigint, 'forgotten with it');
BEGIN;
SAVEPOINT s;
SELECT mq.enqueue('de', '"lost"', dedup_id => 's') AS lost \gset
ROLLBACK TO s;
SELECT isnt(mq.enqueue('de', '"kept"', dedup_id => 's'), :lost::bigint, 'forgotten with its savepoint');
COMMIT;
SELECT is((SELECT count(DISTINCT e) FROM (SELECT mq.enqueue('de', '1', dedup_id => 'stmt') e FROM generate_series(1, 5)) x), 1::bigint, 'one statement, one message');
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.dequeue('de', 10, auto_ack => true)), '{"\"kept\"","\"kept\"",1}'::jsonb[], 'what came of it');

-- The window, over and again.
SELECT lives_ok($$ SELECT mq.alter_queue('de', dedup_window => '1 microsecond') $$, 'alter_queue takes a window');
SELECT is((SELECT count(DISTINCT e) FROM (SELECT mq.enqueue('de', '1', dedup_id => 'w') e FROM generate_series(1, 5)) x), 5::bigint, 'over');
SELECT mq.alter_queue('de', dedup_window => '1 hour');
SELECT mq.enqueue('de', '1', dedup_id => 'w') AS w \gset
SELECT is(mq.enqueue('de', '1', dedup_id => 'w'), :w::bigint, '... and again');
SELECT is((SELECT count(*) FROM mq.dedup$ WHERE queue = 'de' AND dedup_id = 'w'), 1::bigint, 'one record an id');
SELECT is(mq.enqueue('de', '1', dedup_id => 'x'), 1::bigint, 'what was remembered keeps its time');
SELECT is(pg_temp.state($$ SELECT mq.alter_queue('de', dedup_window => '-1 s') $$), '22023', 'no negative window');
SELECT lives_ok($$ SELECT mq.alter_queue('de', dedup_window => '1000 years') $$, 'a long one');
SELECT is(mq.enqueue('de', '1', dedup_id => 'long'), mq.enqueue('de', '1', dedup_id => 'long'), '... works');
SELECT mq.purge('de');

-- While the message exists.
SELECT mq.create_queue('zero', dedup_window => '0', backoff => '0', max_attempts => 3);
SELECT is((SELECT count(DISTINCT e) FROM (SELECT mq.enqueue('zero', '1', dedup_id => 'z') e FROM generate_series(1, 5)) x), 1::bigint, 'one while it exists');
SELECT id, receipt FROM mq.dequeue('zero') \gset z_
SELECT is(mq.enqueue('zero', '2', dedup_id => 'z'), :z_id::bigint, '... leased too');
SELECT mq.nack('zero', :z_id, :z_receipt, delay => '1 h');
SELECT is(mq.enqueue('zero', '2', dedup_id => 'z'), :z_id::bigint, '... delayed too');
UPDATE mq.q_zero SET ready_at = NULL;
BEGIN;
SELECT count(*) FROM mq.dequeue('zero', auto_ack => true) \g /dev/null
SELECT mq.enqueue('zero', '"mine"', dedup_id => 'z') AS mine \gset
SELECT isnt(:mine::bigint, :z_id::bigint, 'not after our own ack');
SELECT is(mq.enqueue('zero', '"mine"', dedup_id => 'z'), :mine::bigint, '... but then the new one');
ROLLBACK;
SELECT is((SELECT array_agg(id) FROM mq.q_zero), ARRAY[:z_id::bigint], 'all taken back');
SELECT is((SELECT count(*) FROM mq.dequeue('zero', auto_ack => true, wait => '10 s')), 1::bigint, 'consumed');
SELECT isnt(mq.enqueue('zero', '3', dedup_id => 'z'), :z_id::bigint, 'not remembered after the ack');
SELECT count(mq.reject(m.queue, m.id, m.receipt)) FROM mq.dequeue('zero') m \g /dev/null
SELECT mq.enqueue('zero', '4', dedup_id => 'z') \g /dev/null
SELECT is((SELECT array_agg(body) FROM mq.q_zero), '{4}'::jsonb[], '... nor after its death');
SELECT count(*) FROM mq.enqueue_batch('zero', '{5,6,7,8}', dedup_ids => '{z,q,q,NULL}') \g /dev/null
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_zero), '{4,6,8}'::jsonb[], 'a batch');
UPDATE mq.q_zero SET headers = '{"a": 1}', priority = 5 WHERE dedup_id = 'z';
SELECT mq.enqueue('zero', '9', dedup_id => 'z') \g /dev/null
DELETE FROM mq.q_zero WHERE dedup_id = 'q';
SELECT mq.enqueue('zero', '9', dedup_id => 'q') \g /dev/null
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_zero), '{4,8,9}'::jsonb[], 'updated it exists, deleted not');
TRUNCATE mq.q_zero;
SELECT mq.enqueue('zero', '10', dedup_id => 'z') \g /dev/null
SELECT is((SELECT array_agg(body) FROM mq.q_zero), '{10}'::jsonb[], 'nor after TRUNCATE');

-- The owner's triggers: the executor's way.
CREATE TABLE audit (body jsonb);
CREATE FUNCTION pg_temp.watch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.body = '"unwanted"' THEN RETURN NULL; END IF;
    INSERT INTO public.audit VALUES (NEW.body);
    RETURN NEW;
END $$;
CREATE TRIGGER watch BEFORE INSERT ON mq.q_de FOR EACH ROW EXECUTE FUNCTION pg_temp.watch();
CREATE TRIGGER watch BEFORE INSERT ON mq.q_zero FOR EACH ROW EXECUTE FUNCTION pg_temp.watch();
SELECT is((SELECT count(DISTINCT e) FROM (SELECT mq.enqueue(q, '"seen"', dedup_id => 'tr') e FROM generate_series(1, 5)) x), 1::bigint, q || ': one with triggers') FROM unnest('{de,zero}'::text[]) q;
SELECT is((SELECT count(*) FROM audit), 2::bigint, 'a remembered one fires none');
SELECT is(mq.enqueue(q, '"unwanted"', dedup_id => 'un'), NULL, q || ': a trigger keeps one out') FROM unnest('{de,zero}'::text[]) q;
SELECT isnt(mq.enqueue(q, '"wanted"', dedup_id => 'un'), NULL, q || ': ... which is not remembered') FROM unnest('{de,zero}'::text[]) q;
SELECT is((SELECT array_agg(i IS NULL ORDER BY o) FROM mq.enqueue_batch('de', ARRAY['"unwanted"', '"a"', '"unwanted"', '"b"']::jsonb[], dedup_ids => '{u1,u2,u1,u2}') WITH ORDINALITY e(i, o)),
    '{t,f,t,f}', '... in a batch');
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_de), '{"\"seen\"","\"wanted\"","\"a\""}'::jsonb[], 'what came of it');
DROP TRIGGER watch ON mq.q_de;
DROP TRIGGER watch ON mq.q_zero;
DROP INDEX mq."q_zero$dedup";
SELECT is(pg_temp.state($$ SELECT mq.enqueue('zero', '1', dedup_id => 'i') $$), '0A000', 'without the index window 0 cannot be kept');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('zero', '1') $$), '00000', '... others go on');

-- Unlogged queues have a memory that a crash takes too.
SELECT mq.create_queue('un', dead_letter => '', unlogged => true);
SELECT is(mq.enqueue('un', '1', dedup_id => 'u'), mq.enqueue('un', '2', dedup_id => 'u'), 'an unlogged queue remembers');
SELECT is((SELECT relpersistence FROM pg_class c WHERE c.oid = 'mq.dedup_unlogged$'::regclass), 'u', '... as unlogged as its messages');
SELECT is((SELECT count(*) FROM mq.dedup_unlogged$), 1::bigint, '... there');

-- A queue's memory goes with it.
SELECT mq.drop_queue('un');
SELECT mq.drop_queue('de');
SELECT is((SELECT count(*) FROM mq.dedup$ WHERE queue = 'de') + (SELECT count(*) FROM mq.dedup_unlogged$ WHERE queue = 'un'), 0::bigint, 'dropped with the queue');
SELECT mq.create_queue('de');
SELECT is(mq.enqueue('de', '1', dedup_id => 'x'), 1::bigint, 'a new queue of the name remembers nothing');
DROP TABLE mq.q_de;
SELECT mq.create_queue('de', dedup_window => '1 hour');
SELECT mq.enqueue('de', '"new"', dedup_id => 'x') \g /dev/null
SELECT is((SELECT array_agg(body) FROM mq.q_de), '{"\"new\""}'::jsonb[], '... also if its owner dropped the table');

-- The worker cleans up what has expired, and nothing else.
SELECT mq.create_queue('short', dead_letter => '', dedup_window => '1 ms');
SELECT count(*) FROM mq.enqueue_batch('short', dedup_ids => ARRAY(SELECT 'n' || n FROM generate_series(1, 2500) n)) \g /dev/null
SELECT ok(pg_temp.until($$NOT EXISTS (SELECT FROM mq.dedup$ WHERE queue = 'short')$$), 'expired ids are removed');
SELECT is((SELECT count(*) FROM mq.dedup$ WHERE queue = 'de'), 1::bigint, 'not the others');
SELECT * FROM finish();
