-- retain: what is acknowledged goes to the archive, with the ack; mq.status and mq.replay; what the owner hangs on it.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqa_owner,mqa_user,mqa_next}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION mq.create_queue TO mqa_owner;
SET ROLE mqa_owner;
SELECT mq.create_queue('ar', retain => '1 hour', backoff => '0', max_attempts => 3);
SELECT mq.grant('ar', 'mqa_user', 'receive');
RESET ROLE;
SELECT is((SELECT retain FROM mq.queues WHERE name = 'ar'), '1 hour'::interval, 'the option');
SELECT is((SELECT array_agg(DISTINCT pg_get_userbyid(c.relowner)) FROM pg_partition_tree('mq.a_ar') t JOIN pg_class c ON c.oid = t.relid), '{mqa_owner}', 'the archive belongs to the queue''s owner');
SELECT is((SELECT array_agg(attname::text || ' ' || atttypid::regtype ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'mq.a_ar'::regclass AND attnum > 0),
    (SELECT array_agg(attname::text || ' ' || atttypid::regtype ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'mq.q_ar'::regclass AND attnum > 0)
    || '{"acked_at timestamp with time zone","consumer text"}'::text[], 'its columns');
SELECT is((SELECT relkind::text || ' ' || pg_get_partkeydef(oid) FROM pg_class WHERE oid = 'mq.a_ar'::regclass), 'p RANGE (acked_at)', 'partitioned by the time of the ack');
SELECT ok((SELECT max(hi) - clock_timestamp() BETWEEN '40 min' AND '61 min' AND min(lo) BETWEEN clock_timestamp() - interval '16 min' AND clock_timestamp()
           AND count(*) = 4 AND bool_and(hi - lo = '15 min') FROM mq.archive_parts$('mq.a_ar') WHERE NOT other), 'partitions of a quarter of retain, some ahead');
SELECT ok((SELECT count(*) = 1 FROM mq.archive_parts$('mq.a_ar') WHERE other), '... and a default one');
SELECT is(mq.archive_width$(r), w, 'width of ' || r) FROM (VALUES ('1 s'::interval, '1 min'::interval), ('10 min', '3 min'), ('1 day', '06:00'), ('30 days', '24:00'), ('400 days', '96:00')) v(r, w);
SELECT is(count(*), 5::bigint, 'the names of partitions differ') FROM (SELECT DISTINCT mq.archive_leaf_name$('ar', t) FROM unnest('{2026-11-21 05:00+00,2026-11-21 05:01+00,2026-11-22 05:00+00,2080-01-01 00:00+00,NULL}'::timestamptz[]) t) x;
SELECT ok(length(mq.archive_leaf_name$(repeat('n', 54), '2080-01-01')) <= 63, '... and fit');

-- The row.
SELECT mq.enqueue('ar', '{"a": 1}', '{"h": 2}', priority => 3, key => 'k', dedup_id => 'd') AS id \gset
CREATE TEMP TABLE was AS SELECT * FROM mq.q_ar;
SELECT is(mq.status('ar', :id), 'ready', 'ready');
SELECT clock_timestamp() AS t0 \gset
SELECT is(mq.ack(m), true, 'acknowledged') FROM mq.dequeue('ar', consumer => 'me') m;
SELECT results_eq('SELECT id, enqueued_at, attempts, priority, ready_at, expires_at, key, dedup_id, headers, body, data, last_error FROM mq.a_ar', 'TABLE was', 'it stands in the archive as it was');
SELECT ok(acked_at BETWEEN :'t0' AND clock_timestamp() AND consumer = 'me', '... with time and consumer') FROM mq.a_ar;
SELECT is((SELECT count(*) FROM ONLY mq.q_ar), 0::bigint, 'and no longer in the queue');
SELECT is(mq.status('ar', :id), 'archived', 'archived');
SELECT is(mq.status('ar', 999), NULL, 'not what never was');
SELECT is((SELECT tableoid FROM mq.a_ar), (SELECT leaf::oid FROM mq.archive_parts$('mq.a_ar') WHERE lo <= clock_timestamp() AND hi > clock_timestamp()), 'in the partition of its time');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('ar', ARRAY(SELECT to_jsonb(n) FROM generate_series(1, 6) n))), 6::bigint, 'a batch');
SET ROLE mqa_user;
SELECT is((SELECT count(*) FROM mq.dequeue('ar', 2, auto_ack => true, consumer => 'au')), 2::bigint, 'auto_ack');
SELECT is((SELECT mq.ack_batch('ar', array_agg(id), array_agg(receipt)) FROM mq.dequeue('ar', 2, consumer => 'ba')), 2, 'ack_batch');
SELECT array_agg(id) AS ids, array_agg(receipt) AS receipts FROM mq.dequeue('ar', 1, consumer => 'ad') \gset
SELECT is((SELECT count(*) FROM mq.ack_dequeue('ar', :'ids', :'receipts', 1)), 1::bigint, 'ack_dequeue');
SELECT is(pg_temp.state('SELECT * FROM mq.a_ar'), '42501', 'who may receive need not see the archive');
SELECT is(mq.status('ar', :id), 'archived', '... but the state of a message');
SELECT is(pg_temp.state($$ SELECT mq.replay('ar', '-infinity') $$), '42501', 'nor replay');
RESET ROLE;
SELECT results_eq('SELECT body::int, consumer FROM mq.a_ar WHERE consumer <> $$me$$ ORDER BY id', $$ VALUES (1, 'au'), (2, 'au'), (3, 'ba'), (4, 'ba'), (5, 'ad') $$, 'each way archives');
SELECT is((SELECT mq.ack_batch('ar', array_agg(id), array_agg(receipt)) FROM mq.in_flight WHERE queue = 'ar'), 1, 'the last');
TRUNCATE mq.a_ar;

-- With the ack or not at all.
SELECT count(*) FROM mq.enqueue_batch('ar', '{1,2,3}') \g /dev/null
BEGIN;
SELECT count(*) FROM mq.dequeue('ar', 1, auto_ack => true) \g /dev/null
SAVEPOINT s;
SELECT count(*) FROM mq.dequeue('ar', 1, auto_ack => true) \g /dev/null
ROLLBACK TO s;
COMMIT;
SELECT is((SELECT array_agg(body) FROM mq.a_ar), '{1}'::jsonb[], 'a savepoint''s acks are rolled back with it');
BEGIN;
SELECT count(*) FROM mq.dequeue('ar', 5, auto_ack => true) \g /dev/null
ROLLBACK;
SELECT is((SELECT count(*) FROM mq.a_ar), 1::bigint, 'a transaction''s too');

-- What is not acknowledged is not archived.
SELECT count(mq.reject('ar', id, receipt)) FROM mq.dequeue('ar') \g /dev/null
SELECT mq.delete('ar', array(SELECT min(id) FROM mq.q_ar)) \g /dev/null
SELECT mq.enqueue('ar', '4') \g /dev/null
SELECT mq.purge('ar') \g /dev/null
SELECT mq.enqueue('ar', '5') \g /dev/null
DELETE FROM mq.q_ar;
SELECT is((SELECT count(*) FROM mq.a_ar), 1::bigint, 'rejected, deleted, purged ones are not');
SELECT mq.redrive('ar_dead') \g /dev/null
SELECT mq.purge('ar') \g /dev/null

-- Large messages come whole.
SELECT mq.enqueue('ar', to_jsonb((SELECT string_agg(md5(n::text), '') FROM generate_series(1, 5000) n)), '{"big": true}') \g /dev/null
SELECT mq.enqueue('ar', data => decode(repeat('00ff', 100000), 'hex'), headers => '{"big": true}') \g /dev/null
CREATE TEMP TABLE big AS SELECT id, md5(body::text || coalesce(data::text, '')) m, length(body::text) l, length(data) d FROM mq.q_ar;
SELECT is((SELECT count(*) FROM mq.dequeue('ar', 5, auto_ack => true)), 2::bigint, 'large ones');
VACUUM mq.q_ar;
SELECT results_eq($$ SELECT id, md5(body::text || coalesce(data::text, '')), length(body::text), length(data) FROM mq.a_ar WHERE headers ? 'big' ORDER BY id $$, 'TABLE big ORDER BY id', '... are the archive''s own');
TRUNCATE mq.a_ar;

-- Replay.
SELECT count(*) FROM mq.enqueue_batch('ar', '{1,2,3}', headers => '{"{}","{}","{}"}', priority => 4, keys => '{a,b,c}', dedup_ids => '{r1,r2,r3}') \g /dev/null
SELECT count(*) FROM mq.dequeue('ar', 1, auto_ack => true) \g /dev/null
SELECT clock_timestamp() AS t1 \gset
SELECT mq.nack('ar', id, receipt, delay => '0') FROM mq.dequeue('ar', 1) \g /dev/null
SELECT count(*) FROM mq.dequeue('ar', 2, auto_ack => true, wait => '10 s') \g /dev/null
SELECT is((SELECT count(*) FROM mq.q_ar), 0::bigint, 'all consumed');
SELECT is(mq.replay('ar', :'t1'), 2::bigint, 'replay says how many');
SELECT results_eq('SELECT body::int, headers, attempts, priority, key, dedup_id, ready_at, last_error FROM mq.q_ar ORDER BY body',
    $$ VALUES (2, '{}'::jsonb, 0, 4::smallint, 'b', NULL::text, NULL::timestamptz, NULL::text), (3, '{}', 0, 4::smallint, 'c', NULL, NULL, NULL) $$, 'they are new messages');
SELECT is((SELECT count(*) FROM mq.q_ar q JOIN mq.a_ar a USING (id)), 0::bigint, '... with ids of their own');
SELECT is(mq.replay('ar', '-infinity', :'t1'), 1::bigint, 'until');
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.dequeue('ar', 10, auto_ack => true)), '{2,3,1}'::jsonb[], 'delivered');
SELECT is((SELECT count(*) FROM mq.a_ar), 6::bigint, '... and archived once more');
SELECT is(mq.replay('ar', clock_timestamp()), 0::bigint, 'nothing');
SELECT is(pg_temp.state($$ SELECT mq.replay('ar', NULL) $$), '22023', 'since NULL');
SELECT is(pg_temp.state($$ SELECT mq.replay('ar_dead', now()) $$), '42704', 'a queue without archive');
SELECT is(pg_temp.state($$ SELECT mq.replay('nope', now()) $$), '42704', 'no queue');

-- What the owner hangs on it: the executor's way.
CREATE TABLE public.acked (id bigint, who text);
GRANT INSERT ON public.acked TO mqa_owner;
GRANT CREATE, USAGE ON SCHEMA public TO mqa_owner;
SET ROLE mqa_owner;
CREATE FUNCTION public.note_ack() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.acked VALUES (NEW.id, current_user); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT ON mq.a_ar FOR EACH ROW EXECUTE FUNCTION public.note_ack();
RESET ROLE;
SELECT mq.enqueue('ar', '"trigger"') AS id \gset
SET ROLE mqa_user;
SELECT is((SELECT count(*) FROM mq.dequeue('ar', auto_ack => true)), 1::bigint, 'acknowledged by another role');
RESET ROLE;
SELECT results_eq('TABLE public.acked', format($$ VALUES (%s::bigint, 'mqa_owner') $$, :id), 'the owner''s trigger ran as the owner');
SELECT is(mq.status('ar', :id), 'archived', '... and the message is archived');
DROP TRIGGER note ON mq.a_ar;
ALTER TABLE mq.a_ar ADD COLUMN tenant text DEFAULT 'none', ADD CONSTRAINT small CHECK (body <> '"large"');
SELECT mq.enqueue('ar', '"column"') AS id \gset
SELECT count(*) FROM mq.dequeue('ar', auto_ack => true) \g /dev/null
SELECT results_eq(format('SELECT tenant, body FROM mq.a_ar WHERE id = %s', :id), $$ VALUES ('none', '"column"'::jsonb) $$, 'further columns have their defaults');
SELECT mq.enqueue('ar', '"large"') \g /dev/null
SELECT is(pg_temp.state($$ SELECT * FROM mq.dequeue('ar', auto_ack => true) $$), '23514', 'a CHECK of the owner''s keeps the ack from happening');
SELECT mq.purge('ar') \g /dev/null
ALTER TABLE mq.a_ar DROP COLUMN tenant, DROP CONSTRAINT small;

-- Without partition, without archive an ack goes on.
SELECT mq.enqueue('ar', '"default"') AS id \gset
BEGIN;
SELECT format('DROP TABLE %s', leaf) FROM mq.archive_parts$('mq.a_ar') WHERE NOT other \gexec
SELECT is((SELECT count(*) FROM mq.dequeue('ar', auto_ack => true)), 1::bigint, 'no partition for the present');
SELECT is((SELECT tableoid::regclass::text FROM mq.a_ar WHERE id = :id), 'mq."a_ar$d"', '... it stands in the default one');
COMMIT;
SELECT mq.enqueue('ar', '"nowhere"') AS id \gset
BEGIN;
DROP TABLE mq."a_ar$d";
SET LOCAL client_min_messages = error;
SELECT is((SELECT count(*) FROM mq.dequeue('ar', auto_ack => true)), 1::bigint, 'not even a default one');
SELECT is(mq.status('ar', :id), NULL, '... nothing is kept');
COMMIT;
SELECT mq.enqueue('ar', '"nowhere"') AS id \gset
BEGIN;
DROP TABLE mq.a_ar;
SELECT is((SELECT count(*) FROM mq.dequeue('ar', auto_ack => true)), 1::bigint, 'an archive its owner dropped');
SELECT is(mq.status('ar', :id), NULL, '... keeps nothing');
COMMIT;

-- Set and unset on a queue with messages.
SELECT mq.create_queue('se', dead_letter => '');
SELECT count(*) FROM mq.enqueue_batch('se', '{1,2,3,4}') \g /dev/null
SELECT count(*) FROM mq.dequeue('se', auto_ack => true) \g /dev/null
SELECT is(to_regclass('mq.a_se'), NULL, 'no archive without retain');
SELECT count(*) FROM mq.dequeue('se') \g /dev/null
SELECT lives_ok($$ SELECT mq.alter_queue('se', retain => '10 s') $$, 'set');
SELECT is((SELECT mq.ack_batch('se', array_agg(id), array_agg(receipt)) FROM mq.in_flight WHERE queue = 'se'), 1, 'leased before');
SELECT is((SELECT array_agg(body) FROM mq.a_se), '{2}'::jsonb[], 'archived after');
SELECT mq.alter_queue('se', unset => '{retain}');
SELECT count(*) FROM mq.dequeue('se', auto_ack => true) \g /dev/null
SELECT is((SELECT array_agg(body) FROM mq.a_se), '{2}'::jsonb[], 'unset: what is there stays, nothing is added');
SELECT mq.alter_queue('se', retain => '2 days');
SELECT count(*) FROM mq.dequeue('se', auto_ack => true) \g /dev/null
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.a_se), '{2,4}'::jsonb[], 'set again: it goes on');
SELECT is(pg_temp.state($$ SELECT mq.alter_queue('se', retain => '0') $$), '22023', 'retain 0');
SELECT is(pg_temp.state($$ SELECT mq.create_queue('bad', retain => '-1 s') $$), '22023', 'a negative one');

-- Unlogged queues; dropping.
SELECT mq.create_queue('un', dead_letter => '', unlogged => true, retain => '1 h');
SELECT mq.enqueue('un', '1') \g /dev/null
SELECT count(*) FROM mq.dequeue('un', auto_ack => true) \g /dev/null
SELECT is((SELECT array_agg(DISTINCT c.relpersistence) FROM mq.archive_parts$('mq.a_un') p JOIN pg_class c ON c.oid = p.leaf), '{u}'::"char"[], 'an unlogged queue''s archive is unlogged');
SELECT is((SELECT count(*) FROM mq.a_un), 1::bigint, '... and filled');
SELECT mq.drop_queue(q) FROM unnest('{un,se}'::text[]) q \g /dev/null
SELECT is_empty($$ SELECT relname FROM pg_class WHERE relname ~ '^a_(un|se)' $$, 'drop_queue drops the archive');
SELECT mq.create_queue(repeat('N', 54), dead_letter => '', retain => '400 days');
SELECT mq.enqueue(repeat('N', 54), '1') \g /dev/null
SELECT count(*) FROM mq.dequeue(repeat('N', 54), auto_ack => true) \g /dev/null
SELECT is(mq.status(repeat('N', 54), 1), 'archived', 'the longest name');
SELECT mq.drop_queue(repeat('N', 54)) \g /dev/null
SELECT is_empty($$ SELECT relname FROM pg_class WHERE relname ~ '^a_NN' $$, '... dropped');
SELECT mq.create_queue('left', dead_letter => '', retain => '1 h');
DROP TABLE mq.q_left;
SELECT mq.create_queue('left', dead_letter => '');
SELECT is(to_regclass('mq.a_left'), NULL, 'a new queue of the name has nothing of the old one''s archive');
SELECT * FROM finish();
