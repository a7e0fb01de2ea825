-- What an owner hangs on his queue to catch others: it never has more than his rights, whoever calls mq and whatever the worker does.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqe_eve,mqe_boss,mqe_user}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
    ALTER ROLE mqe_boss CREATEROLE;
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO mqe_eve',
                   (SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue'));
END $$;
CREATE SCHEMA evil AUTHORIZATION mqe_eve;
CREATE TABLE public.secret (s text);
INSERT INTO public.secret VALUES ('top');
GRANT ALL ON public.secret TO mqe_boss, mqe_user;
SELECT mq.create_queue('treasure', dead_letter => '');
SELECT mq.enqueue('treasure', '"gold"') \g /dev/null
SELECT mq.grant('treasure', r, p) FROM unnest('{mqe_boss,mqe_user}'::name[]) r, unnest('{send,receive}'::text[]) p \g /dev/null

-- What is planted notes where it ran, tries what only others may, or what would outlive the owner's rights, and raises EV777 if any of it went.
SET ROLE mqe_eve;
SELECT mq.create_queue(q, backoff => '0', max_attempts => 3, lease => '1 h') FROM unnest('{at,at2}'::text[]) q \g /dev/null
SELECT mq.grant(q, r, p) FROM unnest('{at,at2,at_dead}'::text[]) q, unnest('{mqe_boss,mqe_user}'::name[]) r, unnest('{send,receive,browse}'::text[]) p \g /dev/null
CREATE TABLE evil.log (what text, pid int DEFAULT pg_backend_pid());
CREATE TABLE evil.armed (yes boolean);
INSERT INTO evil.armed VALUES (false);
CREATE SEQUENCE evil.gains;
CREATE FUNCTION evil.attack(what text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    attempt text;
    gained  text := '';
BEGIN
    IF current_user <> 'mqe_eve' THEN
        gained := 'ran as ' || current_user;
    ELSIF (SELECT yes FROM evil.armed) THEN
        INSERT INTO evil.log VALUES (what);
    ELSE
        RETURN;
    END IF;
    FOREACH attempt IN ARRAY ARRAY['ALTER ROLE mqe_eve SUPERUSER', 'ALTER ROLE mqe_eve CREATEROLE', 'SET ROLE mqe_boss', 'RESET ROLE',
        'SET SESSION AUTHORIZATION DEFAULT', 'SELECT * FROM public.secret', 'DELETE FROM public.secret', $a$SELECT mq.enqueue('treasure', '1')$a$,
        $a$SELECT * FROM mq.dequeue('treasure')$a$, $a$SELECT * FROM mq.browse('treasure')$a$, $a$SELECT mq.purge('treasure')$a$,
        $a$SELECT mq.grant('treasure', 'mqe_eve', 'receive')$a$, 'UPDATE mq.queue$ SET paused = true', 'CREATE TEMP TABLE left_behind (i int)',
        'LISTEN left_behind', 'PREPARE left_behind AS SELECT 1', 'DECLARE left_behind CURSOR WITH HOLD FOR SELECT 1',
        'CREATE TABLE mq.q_mine (i int)', $a$DO 'BEGIN SET ROLE mqe_boss; END'$a$, 'DISCARD TEMP'] LOOP
        BEGIN
            EXECUTE attempt;
            gained := gained || ', ' || attempt;
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END LOOP;
    IF gained <> '' THEN
        PERFORM nextval('evil.gains');
        RAISE EXCEPTION '%: %', what, gained USING ERRCODE = 'EV777';
    END IF;
END $$;
CREATE FUNCTION evil.steady(what text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.attack(what); RETURN 1; END $$;
CREATE FUNCTION evil.indexed(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.attack('index'); RETURN $1; END $$;
CREATE FUNCTION evil.kept(what text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.attack(what); RETURN true; END $$;
CREATE FUNCTION evil.fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.attack(TG_NAME || ' ' || TG_OP); RETURN coalesce(NEW, OLD); END $$;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA evil TO PUBLIC;
GRANT ALL ON SEQUENCE evil.gains TO PUBLIC;

-- The control: plain SQL runs it with the caller's rights, and that is noticed.
CREATE TABLE evil.bait (i int);
CREATE TRIGGER bait BEFORE INSERT ON evil.bait FOR EACH ROW EXECUTE FUNCTION evil.fired();
GRANT INSERT ON evil.bait TO PUBLIC;
RESET ROLE;
SELECT is(pg_temp.state('INSERT INTO evil.bait VALUES (1)'), 'EV777', 'what is planted does harm to a superuser');
SELECT is(pg_temp.state_as('mqe_user', 'INSERT INTO evil.bait VALUES (1)'), 'EV777', '... and to others');
SELECT is(pg_temp.state_as('mqe_boss', 'INSERT INTO evil.bait VALUES (1)'), 'EV777', '... who may more');
SELECT is((SELECT is_called FROM evil.gains), true, '... and that is noticed after the rollback');
SELECT setval('evil.gains', 1, false) \g /dev/null
UPDATE evil.armed SET yes = true;
SELECT is(pg_temp.state_as('mqe_eve', 'INSERT INTO evil.bait VALUES (1)'), 'EV777', 'unrestricted it leaves something behind even as the owner');
UPDATE evil.armed SET yes = false;
SELECT setval('evil.gains', 1, false) \g /dev/null

-- Planted: triggers, CHECKs of table and domain, a default, a generated column, a foreign key, statistics; and by an unsuspecting administrator an index.
SET ROLE mqe_eve;
CREATE DOMAIN evil.dom AS int DEFAULT 1 CHECK (evil.kept('domain') OR VALUE > 0);
CREATE TABLE evil.parent (i int PRIMARY KEY);
INSERT INTO evil.parent VALUES (1);
CREATE TRIGGER parent AFTER INSERT OR UPDATE ON evil.parent FOR EACH ROW EXECUTE FUNCTION evil.fired();
CREATE FUNCTION evil.plant(q text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format($q$ALTER TABLE mq.%1$I ADD COLUMN dom evil.dom, ADD COLUMN def int DEFAULT evil.steady('default') REFERENCES evil.parent,
        ADD COLUMN gen int GENERATED ALWAYS AS (evil.steady('generated') + attempts) STORED, ADD CONSTRAINT kept CHECK (evil.kept('check'))$q$, q);
    EXECUTE format('CREATE TRIGGER a_before BEFORE INSERT OR UPDATE OR DELETE ON mq.%I FOR EACH ROW EXECUTE FUNCTION evil.fired()', q);
    EXECUTE format('CREATE TRIGGER z_after AFTER INSERT OR UPDATE OR DELETE ON mq.%I FOR EACH ROW EXECUTE FUNCTION evil.fired()', q);
    EXECUTE format('CREATE TRIGGER s_before BEFORE INSERT OR UPDATE OR DELETE ON mq.%I FOR EACH STATEMENT EXECUTE FUNCTION evil.fired()', q);
    EXECUTE format('CREATE TRIGGER s_after AFTER INSERT OR UPDATE OR DELETE ON mq.%I FOR EACH STATEMENT EXECUTE FUNCTION evil.fired()', q);
    EXECUTE format('CREATE TRIGGER w_when BEFORE INSERT OR UPDATE ON mq.%I FOR EACH ROW WHEN (evil.kept(''when'')) EXECUTE FUNCTION evil.fired()', q);
    EXECUTE format('CREATE TABLE evil.%I (message bigint REFERENCES mq.%I ON DELETE CASCADE)', 'child_' || q, q);
    EXECUTE format('CREATE TRIGGER child BEFORE DELETE ON evil.%I FOR EACH ROW EXECUTE FUNCTION evil.fired()', 'child_' || q);
    EXECUTE format('CREATE FUNCTION evil.%I() RETURNS trigger LANGUAGE plpgsql AS %L', 'adopt_' || q, format('BEGIN INSERT INTO evil.%I VALUES (NEW.id); RETURN NULL; END', 'child_' || q));
    EXECUTE format('CREATE TRIGGER y_adopt AFTER INSERT ON mq.%I FOR EACH ROW EXECUTE FUNCTION evil.%I()', q, 'adopt_' || q);
END $$;
SELECT evil.plant(q) FROM unnest('{q_at,q_at_dead}'::text[]) q \g /dev/null
RESET ROLE;
CREATE INDEX at_expression ON mq.q_at (evil.indexed(attempts)) WHERE evil.steady('index predicate') = 1;
UPDATE evil.armed SET yes = true;

-- A superuser's queue whose dead letters go to the owner's, which he was asked for.
SELECT mq.create_queue('su', backoff => '0', max_attempts => 2, dead_letter => 'at', lease => '1 h');
SELECT mq.grant('su', r, p) FROM unnest('{mqe_boss,mqe_user}'::name[]) r, unnest('{send,receive}'::text[]) p \g /dev/null
CREATE TEMP TABLE verbs (n int GENERATED ALWAYS AS IDENTITY, sql text, runs text);
INSERT INTO verbs (sql, runs) VALUES
    ($$SELECT mq.enqueue('at', '1')$$, 'INSERT'), ($$SELECT mq.enqueue_batch('at', '{1,2,3,4,5,6}', keys => '{a,b,c,d,e,f}')$$, 'INSERT'),
    ($$SELECT mq.enqueue('at', '1', delay => '1 ms', priority => 5)$$, 'INSERT'),
    ($$SELECT mq.ack(m) FROM mq.dequeue('at') m$$, 'DELETE'), ($$SELECT * FROM mq.dequeue('at', auto_ack => true)$$, 'DELETE'),
    ($$SELECT mq.nack(m.queue, m.id, m.receipt, delay => '0') FROM mq.dequeue('at') m$$, 'UPDATE'),
    ($$SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('at') m$$, 'DELETE'),
    ($$SELECT mq.release(m.queue, m.id, m.receipt) FROM mq.dequeue('at') m$$, NULL), ($$SELECT mq.extend(m.queue, m.id, m.receipt, '1 h') FROM mq.dequeue('at') m$$, NULL),
    ($$SELECT * FROM mq.ack_dequeue('at', '{1}', '{1}')$$, NULL), ($$SELECT * FROM mq.browse('at')$$, NULL), ($$SELECT mq.status('at', 1)$$, NULL),
    ($$SELECT * FROM mq.stats$$, NULL), ($$SELECT * FROM mq.in_flight$$, NULL), ($$SELECT * FROM mq.queues$$, NULL), ($$SELECT mq.listen('at')$$, NULL), ($$SELECT mq.unlisten('at')$$, NULL),
    ($$SELECT mq.enqueue_batch('su', '{1,2}')$$, NULL), ($$SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('su') m$$, 'INSERT'),
    ($$SELECT mq.ack(m) FROM mq.dequeue('su') m$$, NULL);
CREATE FUNCTION pg_temp.raised_as(who name, sql text, OUT state text, OUT message text) LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE format('SET LOCAL ROLE %I', who);
        EXECUTE sql;
        EXECUTE 'RESET ROLE';
        state := '00000';
        message := '';
    EXCEPTION WHEN OTHERS THEN
        state := SQLSTATE;
        message := SQLERRM;
    END;
END $$;
-- each verb in a transaction of its own
CREATE FUNCTION pg_temp.check_verb(who name, verb int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    v verbs;
BEGIN
    SELECT * INTO v FROM verbs WHERE n = verb;
    DELETE FROM evil.log;
    RETURN NEXT is(state || ' ' || message, '00000 ', who || ': ' || v.sql) FROM pg_temp.raised_as(who, v.sql);
    IF v.runs IS NOT NULL THEN
        RETURN NEXT ok(EXISTS (SELECT FROM evil.log WHERE what LIKE '%' || v.runs), '... where what is planted has run');
    END IF;
END $$;
SELECT format('SELECT * FROM pg_temp.check_verb(%L, %s)', w, n) FROM unnest('{mqe_user,mqe_boss}'::name[] || current_user) WITH ORDINALITY w (w, o), verbs ORDER BY o, n \gexec

-- By the session's own role, without SET ROLE.
CREATE TEMP TABLE ran AS SELECT what FROM evil.log WHERE false;
DELETE FROM evil.log;
SELECT mq.enqueue_batch('at', '{1,2,3,4,5,6,7,8,9}') \g /dev/null
SELECT mq.ack(m) FROM mq.dequeue('at', 2) m \g /dev/null
SELECT mq.nack(m.queue, m.id, m.receipt, delay => '1 h') FROM mq.dequeue('at', 2) m \g /dev/null
SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('at', 2) m \g /dev/null
INSERT INTO ran SELECT what FROM evil.log;
SELECT set_has($$SELECT what FROM ran$$, $$SELECT unnest('{a_before INSERT,a_before UPDATE,a_before DELETE,z_after INSERT,z_after UPDATE,z_after DELETE,s_before INSERT,s_after DELETE,check,domain,generated,index,when,child DELETE}'::text[])$$,
    'all of it has run for a superuser');

-- The owner's verbs, called by the superuser.
DELETE FROM evil.log;
SELECT is(r.state || ' ' || coalesce(r.message, ''), '00000 ', s.sql) FROM unnest(ARRAY[$$SELECT mq.enqueue_batch('su', '{1,2,3}')$$,
    $$SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('at', 3) m$$, $$SELECT mq.redrive('at_dead', 1)$$, $$SELECT mq.redrive('at_dead', target => 'at')$$,
    $$SELECT mq.delete('at', '{1,2,3}')$$, $$SELECT mq.purge('at')$$, $$SELECT mq.purge('at_dead')$$, $$SELECT mq.pause('at')$$, $$SELECT mq.resume('at')$$,
    $$SELECT mq.alter_queue('at', lease => '2 h')$$, $$SELECT mq.grant('at', 'mqe_user', 'send')$$, $$SELECT mq.revoke('at', 'mqe_user', 'browse')$$]) WITH ORDINALITY s (sql, n),
    LATERAL pg_temp.raised(s.sql) r ORDER BY s.n;
-- He cannot send from the owner's dead letters where the owner may not.
SELECT mq.enqueue('at_dead', '1', '{"x-death": [{"queue": "treasure"}]}') \g /dev/null
SELECT is(mq.redrive('at_dead'), 0::bigint, 'redrive by a superuser does not believe where a message says it died');
SELECT is(pg_temp.state($$SELECT mq.redrive('at_dead', target => 'treasure')$$), '42501', '... and sends no further than the owner may');
SELECT is(pg_temp.state($$SELECT mq.redrive('at_dead', target => 'treasure')$$), '42501', '... with a target too');
SELECT mq.purge('at_dead') \g /dev/null

DROP INDEX mq.at_expression;

-- The worker: ended leases, retries, dead letters, from his queue and into it.
DELETE FROM evil.log;
SELECT mq.delete('at', ARRAY(SELECT id FROM mq.q_at)) \g /dev/null
SELECT mq.delete('su', ARRAY(SELECT id FROM mq.q_su)) \g /dev/null
SELECT mq.enqueue_batch(q, '{1,2}') FROM unnest('{at,su}'::text[]) q \g /dev/null
SELECT count(*) FROM unnest('{at,su}'::text[]) q, mq.dequeue(q, 2, lease => '1 ms') \gset
SELECT is(:count, 4, 'four leases that end at once');
SELECT ok(pg_temp.until('(SELECT count(*) = 2 FROM mq.q_at WHERE attempts = 1) AND (SELECT count(*) = 2 FROM mq.q_su WHERE attempts = 1)'), 'the worker writes the failures');
SELECT ok(EXISTS (SELECT FROM evil.log WHERE what LIKE '% UPDATE' AND pid <> pg_backend_pid()), '... where what is planted has run');
DO $$ BEGIN FOR i IN 1..2 LOOP PERFORM * FROM mq.dequeue('su', lease => '1 ms'); COMMIT; END LOOP; END $$;
SELECT ok(pg_temp.until('(SELECT count(*) = 4 FROM mq.q_at) AND (SELECT count(*) = 0 FROM mq.q_su)'), 'the worker takes dead letters to the owner''s queue');
SELECT ok(EXISTS (SELECT FROM evil.log WHERE what LIKE '% INSERT' AND pid <> pg_backend_pid()), '... where what is planted has run');
SELECT is((SELECT is_called FROM evil.gains), false, 'none of it ever gained anything');
SELECT is((SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = 'mqe_eve'), false, '... the owner is who he was');
SELECT results_eq('SELECT s FROM public.secret', $$VALUES ('top')$$, '... the secret is there');
SELECT results_eq('SELECT body FROM mq.q_treasure', $$VALUES ('"gold"'::jsonb)$$, '... and the treasure');

-- What would run later, when the restriction has ended, is refused.
SET ROLE mqe_eve;
CREATE TABLE evil.later (i int);
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON evil.later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.fired();
CREATE FUNCTION evil.send_later() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO evil.later VALUES (1); RETURN NEW; END $$;
CREATE TRIGGER send_later BEFORE INSERT ON mq.q_at2 FOR EACH ROW EXECUTE FUNCTION evil.send_later();
RESET ROLE;
SELECT is(pg_temp.state($$SELECT mq.enqueue('at2', '1')$$), '42501', 'a trigger that leaves a deferred one for the caller''s commit is refused');
SELECT is(pg_temp.state_as('mqe_user', $$SELECT mq.enqueue_batch('at2', '{1,2}')$$), '42501', '... for a batch too');
SET ROLE mqe_eve;
DROP TRIGGER send_later ON mq.q_at2;
CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE OR DELETE ON mq.q_at2 DEFERRABLE INITIALLY IMMEDIATE FOR EACH ROW EXECUTE FUNCTION evil.fired();
RESET ROLE;
SELECT is(pg_temp.state($$SELECT mq.enqueue('at2', '1')$$), '0A000', 'a trigger that could be deferred as well');
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
SELECT is(pg_temp.state($$SELECT mq.enqueue('at2', '1')$$), '0A000', '... deferred by the caller');
COMMIT;
SET ROLE mqe_eve;
DROP TRIGGER later ON mq.q_at2;
CREATE FUNCTION evil.leave() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('search_path', 'evil', false), set_config('evil.left', 'behind', false), set_config('statement_timeout', '1', false),
            set_config('session_replication_role', 'origin', false);
    RETURN NEW;
EXCEPTION WHEN insufficient_privilege THEN
    PERFORM set_config('search_path', 'evil', false), set_config('evil.left', 'behind', false), set_config('lock_timeout', '1', false);
    RETURN NEW;
END $$;
CREATE TRIGGER leave BEFORE INSERT OR UPDATE ON mq.q_at2 FOR EACH ROW EXECUTE FUNCTION evil.leave();
RESET ROLE;
SELECT current_setting('search_path') AS path \gset
SELECT mq.enqueue('at2', '1') \g /dev/null
SELECT mq.nack(m.queue, m.id, m.receipt) FROM mq.dequeue('at2') m \g /dev/null
SELECT is(current_setting('search_path') || ',' || coalesce(current_setting('evil.left', true), '') || ',' || current_setting('lock_timeout'), :'path' || ',,0',
    'settings that a trigger made do not stay with the caller');
SET ROLE mqe_eve;
DROP TRIGGER leave ON mq.q_at2;

-- Reading his table runs the owner's code too, when it is planned or when it is no plain table: as the owner, or refused.
CREATE STATISTICS evil.planned ON (evil.steady('statistics') + attempts), (evil.steady('statistics') + octet_length(data)) FROM mq.q_at2;
RESET ROLE;
SELECT is(pg_temp.state('SELECT * FROM mq.q_at2 WHERE id = 1'), 'EV777', 'planning a plain SELECT runs the owner''s statistics');
SELECT setval('evil.gains', 1, false) \g /dev/null
CREATE TEMP TABLE readers (n int GENERATED ALWAYS AS IDENTITY, sql text);
INSERT INTO readers (sql) VALUES ($$SELECT * FROM mq.browse('at2')$$), ($$SELECT mq.status('at2', 1)$$), ($$SELECT mq.enqueue('at2', '1')$$),
    ($$SELECT mq.nack(m.queue, m.id, m.receipt, '0') FROM mq.dequeue('at2') m$$), ($$SELECT mq.ack(m) FROM mq.dequeue('at2') m$$),
    ($$SELECT * FROM mq.stats$$), ($$SELECT * FROM mq.queues$$), ($$SELECT * FROM mq.in_flight$$);
SELECT is(r.state || ' ' || r.message, '00000 ', w || ' with the owner''s statistics: ' || v.sql)
    FROM unnest('{mqe_user,mqe_boss}'::name[] || current_user) w, readers v, LATERAL pg_temp.raised_as(w, v.sql) r ORDER BY w, v.n;
SELECT is(r.state || ' ' || coalesce(r.message, ''), '00000 ', 'the superuser with the owner''s statistics: ' || sql)
    FROM unnest(ARRAY[$$SELECT mq.delete('at2', '{1}')$$, $$SELECT mq.purge('at2')$$, $$SELECT mq.redrive('at2_dead', target => 'at2')$$]) sql, LATERAL pg_temp.raised(sql) r;
SELECT is((SELECT is_called FROM evil.gains), false, '... gained nothing');
SELECT setval('evil.gains', 1, false) \g /dev/null

-- A policy, a rule, a view in the table's place, a child table.
UPDATE evil.armed SET yes = false;
SELECT mq.delete('at2', ARRAY(SELECT f.id FROM mq.in_flight f WHERE f.queue = 'at2')) \g /dev/null
SELECT mq.purge('at2') \g /dev/null
SELECT mq.enqueue('at2', '1') \g /dev/null
SET ROLE mqe_eve;
DROP STATISTICS evil.planned;
CREATE POLICY kept ON mq.q_at2 USING (evil.kept('policy')) WITH CHECK (evil.kept('policy'));
ALTER TABLE mq.q_at2 ENABLE ROW LEVEL SECURITY;
RESET ROLE;
INSERT INTO readers (sql) VALUES ($$SELECT * FROM mq.dequeue('at2', auto_ack => true)$$), ($$SELECT mq.enqueue_batch('at2', '{1,2}')$$), ($$SELECT mq.ack('at2', 1, 1)$$);
SELECT is(r.state || ' ' || CASE r.state WHEN '0A000' THEN '' ELSE r.message END, CASE WHEN v.sql LIKE '%FROM mq.\_%' OR v.sql ~ 'mq\.(stats|queues|in_flight)' THEN '00000 ' ELSE '0A000 ' END,
          w || ' with the owner''s policy: ' || v.sql)
    FROM unnest('{mqe_user,mqe_boss}'::name[] || current_user) w, readers v, LATERAL pg_temp.raised_as(w, v.sql) r ORDER BY w, v.n;
SET ROLE mqe_eve;
ALTER TABLE mq.q_at2 DISABLE ROW LEVEL SECURITY;
DROP POLICY kept ON mq.q_at2;
CREATE RULE also AS ON INSERT TO mq.q_at2 DO ALSO SELECT evil.attack('rule');
CREATE RULE also_gone AS ON DELETE TO mq.q_at2 DO ALSO SELECT evil.attack('rule');
RESET ROLE;
SELECT is(pg_temp.state(sql), '0A000', 'the superuser with the owner''s rule: ' || sql) FROM unnest(ARRAY[$$SELECT mq.enqueue('at2', '1')$$, $$SELECT mq.purge('at2')$$,
    $$SELECT mq.delete('at2', '{1}')$$, $$SELECT * FROM mq.dequeue('at2', auto_ack => true)$$, $$SELECT mq.redrive('at2_dead', target => 'at2')$$]) sql WHERE sql NOT LIKE '%redrive%';
SET ROLE mqe_eve;
DROP RULE also ON mq.q_at2;
DROP RULE also_gone ON mq.q_at2;
CREATE TABLE evil.child () INHERITS (mq.q_at2);
RESET ROLE;
SELECT is(pg_temp.state(sql), '0A000', 'the superuser with a child table: ' || sql) FROM unnest(ARRAY[$$SELECT mq.enqueue('at2', '1')$$, $$SELECT mq.purge('at2')$$,
    $$SELECT * FROM mq.browse('at2')$$, $$SELECT mq.status('at2', 1)$$, $$SELECT * FROM mq.dequeue('at2')$$]) sql;
SET ROLE mqe_eve;
DROP TABLE evil.child;
ANALYZE mq.q_at2;
DELETE FROM mq.q_at2;
DROP TRIGGER mq$before ON mq.q_at2;
DROP TRIGGER mq$after ON mq.q_at2;
DROP TRIGGER mq$truncate ON mq.q_at2;
ALTER TABLE mq.q_at2 DROP CONSTRAINT "q_at2$pkey", ALTER id DROP IDENTITY, ALTER id DROP NOT NULL;
DROP INDEX mq."q_at2$ready", mq."q_at2$key", mq."q_at2$dedup", mq."q_at2$expiry";
VACUUM mq.q_at2;
-- servers from 16 on do not let a table become a view
SELECT current_setting('server_version_num')::int < 160000 AS views \gset
\if :views
CREATE RULE "_RETURN" AS ON SELECT TO mq.q_at2 DO INSTEAD SELECT 1::bigint AS id, now() AS enqueued_at, evil.steady('view') AS attempts, 0::smallint AS priority,
    NULL::timestamptz AS ready_at, NULL::timestamptz AS expires_at, NULL::text AS key, NULL::text AS dedup_id, NULL::jsonb AS headers, NULL::jsonb AS body,
    NULL::bytea AS data, CASE WHEN evil.kept('view') THEN 'e' END AS last_error;
\endif
RESET ROLE;
SELECT is(r.state || ' ' || CASE r.state WHEN '0A000' THEN '' ELSE r.message END, '0A000 ', w || ' with a view for a table: ' || sql)
    FROM unnest('{mqe_user,mqe_boss}'::name[] || current_user) w, unnest(ARRAY[$$SELECT * FROM mq.browse('at2')$$, $$SELECT mq.status('at2', 1)$$, $$SELECT mq.enqueue('at2', '1')$$,
    $$SELECT * FROM mq.dequeue('at2')$$]) sql, LATERAL pg_temp.raised_as(w, sql) r;
SELECT is(pg_temp.state($$SELECT mq.purge('at2')$$), '0A000', 'the superuser purges no view');
SELECT is((SELECT is_called FROM evil.gains), false, 'neither policy nor rule nor view gained anything');

SELECT mq.drop_queue('su') \g /dev/null
SET client_min_messages = error;
DROP OWNED BY mqe_eve CASCADE;
SELECT mq.drop_queue(q, true) FROM unnest('{treasure,at,at2,at_dead,at2_dead}'::text[]) q \g /dev/null
DROP TABLE public.secret;
DROP OWNED BY mqe_boss, mqe_user;
DROP ROLE mqe_eve, mqe_boss, mqe_user;
SELECT * FROM finish();
