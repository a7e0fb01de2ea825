-- No queue of others is read, fed, drained, settled or shown, by whatever trick.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY ARRAY['mqo_eve', 'mqo_vic', 'mqo_guest', E'mqo_"odd\n\\''role; DROP'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO mqo_eve, mqo_vic, %I',
                   (SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue'), E'mqo_"odd\n\\''role; DROP');
END $$;
CREATE SCHEMA evil AUTHORIZATION mqo_eve;
SET ROLE mqo_vic;
SELECT mq.create_queue('vic', backoff => '0', lease => '1 h') \g /dev/null
SELECT mq.enqueue_batch('vic', '{1,2,3,4}') \g /dev/null
RESET ROLE;
SELECT id, receipt FROM mq.dequeue('vic') \gset
SET ROLE mqo_eve;
SELECT mq.create_queue('eve', backoff => '0', lease => '1 h') \g /dev/null
SELECT mq.enqueue_batch('eve', '{1,2,3,4}') \g /dev/null
RESET ROLE;
SELECT receipt AS eve_receipt FROM mq.dequeue('eve', 4) LIMIT 1 \gset

-- Receipts and ids that are right, and messages made up: 42501 by privilege, whatever is known of the delivery.
SELECT is(pg_temp.state_as('mqo_eve', format(sql, :id, :receipt)), '42501', format(sql, :id, :receipt)) FROM unnest(ARRAY[
    $$SELECT mq.ack('vic', %s, %s)$$, $$SELECT mq.ack_batch('vic', '{%s}', '{%s}')$$, $$SELECT mq.nack('vic', %s, %s)$$, $$SELECT mq.nack_batch('vic', '{%s}', '{%s}')$$,
    $$SELECT mq.reject('vic', %s, %s)$$, $$SELECT mq.reject_batch('vic', '{%s}', '{%s}')$$, $$SELECT mq.release('vic', %s, %s)$$, $$SELECT mq.release_batch('vic', '{%s}', '{%s}')$$,
    $$SELECT mq.extend('vic', %s, %s, '1 us')$$, $$SELECT mq.extend_batch('vic', '{%s}', '{%s}', '1 us')$$, $$SELECT * FROM mq.ack_dequeue('vic', '{%s}', '{%s}')$$,
    $$SELECT mq.ack(ROW('vic', %s, %s, 1, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::mq.message)$$,
    $$SELECT mq.delete('vic', '{%s,%s}')$$, $$SELECT mq.status('vic', %s)$$, $$SELECT mq.delete$('vic', '{%s}')$$, $$SELECT mq.purge$('vic')$$, $$SELECT * FROM mq.browse$('vic', %s)$$,
    $$SELECT mq.redrive$('vic', 1, 'eve')$$, $$SELECT mq.redrive('vic')$$, $$SELECT * FROM mq.q_vic$$, $$SELECT nextval('mq."q_vic$id"')$$, $$SELECT setval('mq."q_vic$id"', %s)$$,
    $$LOCK TABLE mq.q_vic IN ACCESS SHARE MODE$$, $$SELECT mq.create_queue('eve3', dead_letter => 'vic')$$, $$SELECT mq.alter_queue('eve', dead_letter => 'vic')$$]) sql;
SELECT is(pg_temp.state_as('mqo_eve', $$CALL mq.wait('vic', '1 ms')$$) IN ('42501', '25001'), true, 'mq.wait');
SELECT ok(pg_temp.value_as('mqo_eve', format($$SELECT mq.ack('eve', %s, %s)$$, :id, :receipt)) = 'false', 'the receipt of another queue settles nothing in one''s own');
SELECT is(pg_temp.value_as('mqo_eve', format($$SELECT mq.ack_batch('eve', ARRAY(SELECT generate_series(1, 10)), ARRAY[%s])$$, :eve_receipt)), '4', '... one''s own does');
SELECT results_eq('SELECT id, attempts FROM mq.q_vic ORDER BY id', 'SELECT i::bigint, 0 FROM generate_series(1, 4) i', 'the other''s messages are there');
SELECT is((SELECT lease_until > now() + interval '50 min' FROM mq.in_flight WHERE queue = 'vic'), true, '... and the lease');
-- INSERT alone neither settles nor reads; SELECT alone does not settle.
SELECT mq.grant('vic', 'mqo_guest', 'send') \g /dev/null
SELECT is(pg_temp.state_as('mqo_guest', format(sql, :id, :receipt)), '42501', 'a sender: ' || format(sql, :id, :receipt)) FROM unnest(ARRAY[$$SELECT mq.ack('vic', %s, %s)$$,
    $$SELECT mq.status('vic', %s)$$, $$SELECT * FROM mq.browse('vic')$$, $$SELECT * FROM mq.dequeue('vic')$$, $$SELECT mq.delete('vic', '{%s}')$$]) sql;
SELECT mq.revoke('vic', 'mqo_guest', 'send'), mq.grant('vic', 'mqo_guest', 'browse') \g /dev/null
SELECT is(pg_temp.state_as('mqo_guest', format(sql, :id, :receipt)), '42501', 'a browser: ' || format(sql, :id, :receipt)) FROM unnest(ARRAY[$$SELECT mq.ack('vic', %s, %s)$$,
    $$SELECT mq.extend('vic', %s, %s, '1 us')$$, $$SELECT mq.enqueue('vic', '1')$$, $$SELECT * FROM mq.dequeue('vic')$$, $$SELECT mq.release('vic', %s, %s)$$]) sql;
SELECT mq.revoke('vic', 'mqo_guest', 'browse') \g /dev/null
GRANT SELECT (id), INSERT (body) ON mq.q_vic TO mqo_guest;
SELECT is(pg_temp.state_as('mqo_guest', sql), '42501', 'rights on columns: ' || sql) FROM unnest(ARRAY[$$SELECT mq.enqueue('vic', '1')$$, $$SELECT * FROM mq.browse('vic')$$]) sql;
REVOKE ALL ON mq.q_vic FROM mqo_guest;
REVOKE SELECT (id), INSERT (body) ON mq.q_vic FROM mqo_guest;

-- Nothing of it is shown.
SELECT is(pg_temp.value_as('mqo_eve', sql), expected, sql) FROM (VALUES
    ($$SELECT string_agg(name, ',' ORDER BY name) FROM mq.queues$$, 'eve,eve_dead'), ($$SELECT string_agg(queue, ',' ORDER BY queue) FROM mq.stats$$, 'eve,eve_dead'),
    ($$SELECT count(*) FROM mq.in_flight WHERE queue = 'vic'$$, '0'), ($$SELECT count(*) FROM mq.leases$('mq.q_vic')$$, '0'),
    ($$SELECT coalesce(mq.lease_state$('mq.q_vic', 1), 'none')$$, 'none'), ($$SELECT coalesce(ready::text, 'none') FROM mq.stats$('mq.q_vic'::regclass)$$, 'none'),
    ($$SELECT coalesce(ready::text, 'none') FROM mq.stats$('pg_class'::regclass)$$, 'none'), ($$SELECT coalesce(ready::text, 'none') FROM mq.stats$(0)$$, 'none'),
    ($$SELECT coalesce(ready::text, 'none') FROM mq.stats$('mq."q_eve$pkey"'::regclass)$$, 'none')) AS v (sql, expected);
-- ... nor to a function of hers in the view's condition
SET ROLE mqo_eve;
CREATE TABLE evil.seen (what text);
CREATE FUNCTION evil.peek(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN INSERT INTO evil.seen VALUES ($1); RETURN true; END $$;
SELECT count(*) FROM mq.queues WHERE evil.peek(name) \g /dev/null
SELECT count(*) FROM mq.stats WHERE evil.peek(queue) \g /dev/null
SELECT count(*) FROM mq.in_flight WHERE evil.peek(queue) \g /dev/null
RESET ROLE;
SELECT is_empty($$SELECT * FROM evil.seen WHERE what NOT LIKE 'eve%'$$, 'not even to a function in the condition');

-- The catalog and what belongs to the extension.
SELECT is(pg_temp.state_as('mqo_eve', sql), '42501', sql) FROM unnest(ARRAY['TABLE mq.queue$', 'TABLE mq.dedup$', 'TABLE mq.dedup_unlogged$', $$SELECT mq.dedup_forget$('vic')$$, $$SELECT mq.archive_make$('vic')$$, $$SELECT mq.archive_own$('vic')$$, $$SELECT mq.archive_leaf$('vic', NULL)$$,
    $$SELECT mq.archive_plan$('vic')$$, $$SELECT mq.archive_newest$('mq.q_vic')$$, 'TABLE mq.binding$', 'TABLE mq.exchange$', 'TABLE mq.exchange_grant$',
    $$UPDATE mq.queue$ SET dead_letter = 'eve'$$, $$INSERT INTO mq.queue$ (name) VALUES ('x')$$, $$SELECT mq.make_table$(0, 'x', false)$$, $$SELECT mq.forget$('vic')$$,
    $$SELECT mq.require_owner$('mqo_vic'::regrole, 'vic')$$, $$SELECT mq.pause$('mqo_vic'::regrole, 'vic')$$, $$SELECT mq.drop_queue$('mqo_vic'::regrole, 'vic', false)$$,
    $$SELECT mq.grant$('mqo_vic'::regrole, 'vic', 'mqo_eve', 'receive')$$, $$SELECT mq.revoke$('mqo_vic'::regrole, 'vic', 'mqo_vic', 'receive')$$, 'SELECT mq.worker_start$()',
    'SELECT mq.defaults$()', $$SELECT mq.rights$('x', 'send')$$, $$SELECT mq.check_name$('x')$$,
    'CREATE TABLE mq.q_vic2 (i int)', 'CREATE VIEW mq.q_vic2 AS SELECT 1', 'CREATE FUNCTION mq.enqueue(text) RETURNS int LANGUAGE sql AS $f$ SELECT 1 $f$', 'DROP FUNCTION mq.status(text, bigint)',
    'CREATE TRIGGER t BEFORE INSERT ON mq.q_vic FOR EACH ROW EXECUTE FUNCTION mq.queue_before$()', 'CREATE TRIGGER t BEFORE INSERT ON mq.q_eve FOR EACH ROW EXECUTE FUNCTION mq.queue_before$()',
    'CREATE INDEX ON mq.q_eve (key)', 'CREATE SEQUENCE mq.s', 'ALTER TYPE mq.message ADD ATTRIBUTE x int', 'DROP TYPE mq.message CASCADE', 'DROP EXTENSION mq', 'ALTER SCHEMA mq OWNER TO mqo_eve']) sql;

-- Her own table under another's name, in another's place, or another's under hers.
SELECT is(pg_temp.state_as('mqo_eve', sql), state, sql) FROM (VALUES ('ALTER TABLE mq.q_eve RENAME TO q_vic', '42501'), ('ALTER TABLE mq.q_eve RENAME TO q_new', '42501'),
    ('ALTER TABLE mq.q_eve OWNER TO mqo_vic', '42501'), ('ALTER TABLE mq.q_vic RENAME TO q_eve2', '42501'), ('ALTER TABLE mq.q_vic SET SCHEMA evil', '42501'),
    ('ALTER TABLE mq.q_eve INHERIT mq.q_vic', '42501'), ('ALTER TABLE mq.q_vic INHERIT mq.q_eve', '42501'), ('CREATE TABLE evil.kid () INHERITS (mq.q_vic)', '42501'),
    ('ALTER TABLE mq.q_eve ADD FOREIGN KEY (id) REFERENCES mq.q_vic', '42501'), ('CREATE TABLE evil.r (i bigint REFERENCES mq.q_vic ON DELETE CASCADE)', '42501'),
    ('ALTER SEQUENCE mq."q_eve$id" OWNED BY mq.q_vic.id', '55000'), ('ALTER INDEX mq."q_eve$key" RENAME TO "q_eve$ready2"', '42501')) AS t (sql, state);
SET ROLE mqo_eve;
CREATE TABLE evil.parent (LIKE mq.q_eve);
CREATE TABLE evil.parted (LIKE mq.q_eve) PARTITION BY LIST (id);
RESET ROLE;
CREATE FUNCTION pg_temp.after_ddl(ddl text, undo text) RETURNS SETOF text LANGUAGE sql AS $$ VALUES (ddl), ('SELECT * FROM pg_temp.eve_broken(' || quote_literal(ddl) || ')'), (undo), ('SELECT * FROM pg_temp.eve_works(' || quote_literal(ddl) || ')') $$;
-- All refused or all as it should be, nothing of others touched; and back.
CREATE FUNCTION pg_temp.eve_broken(what text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE v text;
BEGIN
    FOREACH v IN ARRAY ARRAY[$v$SELECT mq.enqueue('eve', '1')$v$, $v$SELECT * FROM mq.dequeue('eve')$v$, $v$SELECT * FROM mq.dequeue('eve', auto_ack => true)$v$] LOOP
        RETURN NEXT matches(pg_temp.state(v), '^(0A000|42704)$', v || ' after ' || what);
    END LOOP;
    RETURN NEXT is(pg_temp.state_as('mqo_vic', $v$SELECT mq.enqueue('vic', '9'), mq.status('vic', 1)$v$), '00000', '... while the others go on');
END $$;
CREATE FUNCTION pg_temp.eve_works(what text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
    RETURN NEXT is(pg_temp.state_as('mqo_eve', $v$SELECT mq.enqueue('eve', '1')$v$), '00000', '... as does hers with it undone');
END $$;
GRANT mqo_eve TO CURRENT_USER;
SELECT s FROM (VALUES (1, 'ALTER TABLE mq.q_eve INHERIT evil.parent', 'ALTER TABLE mq.q_eve NO INHERIT evil.parent'),
        (2, 'ALTER TABLE evil.parted ATTACH PARTITION mq.q_eve DEFAULT', 'ALTER TABLE evil.parted DETACH PARTITION mq.q_eve'),
        (3, 'ALTER TABLE mq.q_eve RENAME COLUMN body TO corpse', 'ALTER TABLE mq.q_eve RENAME COLUMN corpse TO body'),
        (4, 'ALTER TABLE mq.q_eve ALTER last_error TYPE varchar', 'ALTER TABLE mq.q_eve ALTER last_error TYPE text'),
        (5, 'ALTER TABLE mq.q_eve ALTER attempts TYPE bigint', 'ALTER TABLE mq.q_eve ALTER attempts TYPE int'),
        (6, 'ALTER TABLE mq.q_eve ALTER id DROP IDENTITY', NULL), (7, 'ALTER TABLE mq.q_eve SET SCHEMA evil', NULL)) AS t (n, ddl, undo),
    LATERAL pg_temp.after_ddl(ddl, coalesce(undo, 'SELECT 1 WHERE false')) WITH ORDINALITY a (s, o)
    WHERE undo IS NOT NULL OR o <= 2 ORDER BY n, o \gexec
SELECT is(pg_temp.state_as('mqo_eve', 'ALTER TABLE evil.q_eve SET SCHEMA mq'), '42501', 'once out, a table does not come back');
SELECT is(pg_temp.state_as('mqo_eve', 'INSERT INTO evil.q_eve (id, body) OVERRIDING SYSTEM VALUE VALUES (1, ''1'')'), '55000', '... nor can it be written as a queue');
SELECT is(pg_temp.state_as('mqo_eve', 'ALTER TABLE evil.q_eve RENAME TO q_vic'), '00000', 'there it may have any name');
SELECT is(pg_temp.state_as('mqo_eve', 'DELETE FROM evil.q_vic'), '55000', '... but is no queue');
SELECT is(pg_temp.value_as('mqo_vic', $$SELECT count(*) FROM mq.browse('vic')$$), '11', '... and the other''s is as it was');
SELECT is(pg_temp.state_as('mqo_vic', $$SELECT mq.create_queue('eve', dead_letter => '')$$), '00000', 'its name is free again');
SELECT is(pg_temp.state_as('mqo_eve', $$SELECT * FROM mq.dequeue('eve')$$), '42501', '... for its new owner alone');
SELECT is(pg_temp.value_as('mqo_vic', $$SELECT count(*) FROM mq.dequeue('eve')$$), '0', '... who inherits nothing');

-- mq's triggers dropped, disabled or followed by her own: it is her queue that suffers.
SET ROLE mqo_eve;
SELECT mq.create_queue(q, dead_letter => '', backoff => '0', lease => '1 h') FROM unnest('{eve1,eve2,eve3,eve4}'::text[]) q \g /dev/null
ALTER TABLE mq.q_eve1 DISABLE TRIGGER ALL;
DROP TRIGGER mq$after ON mq.q_eve2;
DROP TRIGGER mq$before ON mq.q_eve2;
INSERT INTO mq.q_eve1 (body) VALUES ('1');
INSERT INTO mq.q_eve2 (id, attempts, priority, dedup_id, headers, body) OVERRIDING SYSTEM VALUE VALUES (-5, 0, 9, 'd', '{}', '1'), (0, 5, 0, NULL, NULL, '2'), (9223372036854775807, 0, 0, NULL, NULL, '3');
CREATE FUNCTION evil.twist() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := -NEW.id; NEW.priority := 9; NEW.ready_at := NULL; RETURN NEW; END $$;
CREATE TRIGGER zz_twist BEFORE INSERT OR UPDATE ON mq.q_eve3 FOR EACH ROW EXECUTE FUNCTION evil.twist();
ALTER TABLE mq.q_eve4 ALTER id SET MAXVALUE 9223372036854775807 SET MINVALUE -9223372036854775808 RESTART WITH 9223372036854775806;
RESET ROLE;
SELECT ok(pg_temp.state(sql) = ANY ('{00000,23505,22023,0A000,2200H}'), sql) FROM unnest(ARRAY[$$SELECT mq.enqueue('eve3', '1')$$, $$SELECT mq.enqueue('eve3', '1')$$, $$SELECT * FROM mq.dequeue('eve1', 10)$$,
    $$SELECT mq.nack(m.queue, m.id, m.receipt) FROM mq.dequeue('eve2', 10) m$$, $$SELECT * FROM mq.stats$$, $$SELECT mq.enqueue_batch('eve4', '{1}')$$, $$SELECT mq.enqueue_batch('eve4', '{1,2,3}')$$]) sql;
SELECT ok(pg_temp.state(sql) = ANY ('{00000,23505,22023,0A000}'), sql) FROM unnest(ARRAY[$$SELECT mq.nack(m.queue, m.id, m.receipt) FROM mq.dequeue('eve3', 10) m$$, $$SELECT * FROM mq.browse('eve2')$$,
    $$SELECT * FROM mq.dequeue('eve4', 10)$$, $$SELECT * FROM mq.dequeue('eve2', 10)$$, $$SELECT mq.ack_batch('eve2', '{-5,0,9223372036854775807}', '{1}')$$]) sql;
SELECT is(pg_temp.state_as('mqo_eve', 'ALTER TABLE mq.q_eve4 ALTER id SET INCREMENT BY -1 RESTART WITH 1'), '00000', 'a sequence that counts down');
SELECT results_eq($$SELECT * FROM mq.enqueue_batch('eve4', '{1,2,3}')$$, 'VALUES (1::bigint), (0), (-1)', '... gives the ids it gives');
SELECT is((SELECT count(*) FROM mq.dequeue('eve4', 10)), 3::bigint, '... and they are delivered');
SELECT is(pg_temp.value_as('mqo_vic', $$SELECT string_agg(body::text, ',') FROM mq.dequeue('vic', 3, auto_ack => true)$$), '2,3,4', 'the other''s queue goes on');

-- Dead letters. What its sender says about a message's past does not send it where he may not.
SELECT mq.create_queue('lib', dead_letter => 'lib_dead') \g /dev/null
SELECT mq.grant('lib_dead', 'mqo_eve', 'send') \g /dev/null
SELECT is(pg_temp.state_as('mqo_eve', $$SELECT mq.enqueue('vic', '"forged"')$$), '42501', 'she may not send to the other''s queue');
SELECT is(pg_temp.state_as('mqo_eve', $$SELECT mq.enqueue('lib_dead', '"forged"', '{"x-death": [{"queue": "vic"}]}')$$), '00000', 'but to dead letters of a superuser, as if they had died in the other''s');
SELECT is(pg_temp.state_as('mqo_eve', format($$SELECT mq.enqueue('lib_dead', '"odd"', %L)$$, h)), '00000', 'odd pasts: ' || left(h::text, 60)) FROM unnest(ARRAY[
    '{"x-death": {}}', '{"x-death": []}', '{"x-death": [1]}', '{"x-death": "vic"}', '{"x-death": [{"queue": {"a": 1}}]}', '{"x-death": [{"queue": "queue$"}]}', '{"x-death": [{"queue": "vic\"; --"}]}',
    '{"x-death": [{"queue": "lib_dead"}]}', '{"x-death": [{"queue": null}]}', '{"x-death": [{"queue": ""}]}']::jsonb[] || jsonb_build_object('x-death', jsonb_build_array(jsonb_build_object('queue', repeat('vic', 3333))))) h;
SELECT mq.redrive('lib_dead') \g /dev/null
SELECT is_empty($$SELECT * FROM mq.q_vic WHERE body = '"forged"'$$, 'a redrive does not believe it');
SELECT is((SELECT count(*) FROM mq.q_lib_dead WHERE body = '"odd"'), 11::bigint, '... and leaves what it does not understand');
-- A name taken beforehand does not catch another's dead letters.
SET ROLE mqo_eve;
SELECT mq.create_queue('pay_dead', dead_letter => ''), mq.grant('pay_dead', 'public', 'send') \g /dev/null
RESET ROLE;
SELECT is(pg_temp.state($$SELECT mq.create_queue('pay')$$), '42501', 'the default dead-letter queue is not a stranger''s');
SELECT is(pg_temp.state_as('mqo_vic', $$SELECT mq.create_queue('pay')$$), '42501', '... nor for an unprivileged role');
SELECT is(pg_temp.state($$SELECT mq.create_queue('bill', dead_letter => 'pay_dead')$$), '00000', '... unless it is named');
SELECT mq.drop_queue(q) FROM unnest('{bill,lib,lib_dead}'::text[]) q \g /dev/null

-- Roles whose names are SQL.
SELECT E'mqo_"odd\n\\''role; DROP' AS odd \gset
SELECT is(pg_temp.state_as(:'odd', $$SELECT mq.create_queue('odd')$$), '00000', 'a role with an odd name makes a queue');
SELECT is((SELECT owner FROM mq.queues WHERE name = 'odd'), :'odd'::name, '... and owns it');
SELECT is(pg_temp.state_as('mqo_vic', format('SELECT mq.grant(''vic'', %L, ''send'')', :'odd')), '00000', 'it is granted');
SELECT is(pg_temp.state_as(:'odd', $$SELECT mq.enqueue('vic', '1')$$), '00000', '... and may');
SELECT is(pg_temp.state_as('mqo_vic', format('SELECT mq.revoke(''vic'', %L, ''send'')', :'odd')), '00000', '... and revoked');
SELECT is(pg_temp.state_as(:'odd', $$SELECT mq.enqueue('vic', '1')$$), '42501', '... and may not');
SELECT is(pg_temp.state(format('SELECT mq.grant(''vic'', %L, ''send'')', r)), '42704', 'no such role: ' || r) FROM unnest('{PUBLIC,current_user,session_user,"mqo_eve, mqo_guest",mqo_eve WITH GRANT OPTION}'::text[]) r;
SELECT is(pg_temp.state(format('SELECT mq.grant(''vic'', ''mqo_eve'', %L)', p)), '22023', 'no such privilege: ' || p) FROM unnest('{ALL,"INSERT ON mq.q_vic TO mqo_eve; --",Send,""}'::text[]) p;

SET client_min_messages = error;
DROP OWNED BY mqo_eve, mqo_vic, mqo_guest CASCADE;
SELECT format('DROP OWNED BY %I CASCADE', :'odd') \gexec
SELECT mq.drop_queue(q, true) FROM unnest('{pay,pay_dead,eve,eve_dead,eve1,eve2,eve3,eve4,vic,vic_dead,odd,odd_dead}'::text[]) q \g /dev/null
SELECT format('DROP ROLE mqo_eve, mqo_vic, mqo_guest, %I', :'odd') \gexec
SELECT * FROM finish();
