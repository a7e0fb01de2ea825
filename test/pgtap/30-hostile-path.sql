-- Nothing that lies in a caller's search_path is ever called by mq: not functions, operators, types, tables or views that look like the server's own.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqh_eve,mqh_user}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO mqh_eve',
                   (SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue'));
END $$;
-- What this file itself says is looked up here, the session's temporary objects last.
SET search_path = public, pg_catalog, pg_temp;
CREATE SCHEMA evil AUTHORIZATION mqh_eve;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION pg_temp.as_eve(sql text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL ROLE mqh_eve;
    EXECUTE sql;
    RESET ROLE;
END $$;

-- What is planted raises, and counts its calls where no rollback takes that back.
SET ROLE mqh_eve;
CREATE SEQUENCE evil.calls;
GRANT ALL ON SEQUENCE evil.calls TO PUBLIC;
CREATE FUNCTION evil.called(what pg_catalog.text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.nextval('evil.calls'::pg_catalog.regclass);
    RAISE EXCEPTION 'planted: %', what USING ERRCODE = 'EV666';
END $$;
RESET ROLE;

-- Functions: every one of the server's whose name occurs in mq's own, with each of its signatures; "any" stands for any type.
CREATE TEMP TABLE mq_source AS
    SELECT coalesce(p.prosrc, '') || coalesce(pg_get_function_sqlbody(p.oid), '') AS src FROM pg_proc p WHERE p.pronamespace = 'mq'::regnamespace
    UNION ALL SELECT pg_get_viewdef(c.oid) FROM pg_class c WHERE c.relnamespace = 'mq'::regnamespace AND c.relkind = 'v';
CREATE TEMP TABLE plant AS
    SELECT DISTINCT p.proname AS name,
           replace(oidvectortypes(p.proargtypes), '"any"', 'anyelement') AS args,
           p.prorettype <> ALL ('{cstring,internal,trigger,event_trigger,record,void,anyelement,anyarray}'::regtype[]) AS typed,
           format_type(p.prorettype, NULL) AS result
    FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a', 'w')
      AND (EXISTS (SELECT FROM mq_source s WHERE s.src ~* ('\m' || p.proname || '\('))
           OR p.proname = ANY ('{now,count,max,min,format,quote_ident,quote_literal,jsonb_build_object,array_agg,unnest,length,texteq,int8eq,clock_timestamp,set_config,current_setting}'))
      AND oidvectortypes(p.proargtypes) !~ '(internal|cstring)';
CREATE FUNCTION pg_temp.plant(name text, args text, result text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_temp.as_eve(format('CREATE FUNCTION evil.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', name, args, result,
        format('BEGIN PERFORM evil.called(%L); END', 'function ' || name)));
    RETURN true;
EXCEPTION WHEN duplicate_function OR invalid_function_definition OR syntax_error OR datatype_mismatch OR undefined_object THEN
    RETURN false;
END $$;
SELECT cmp_ok(count(*), '>', 60::bigint, 'functions planted')
    FROM plant p WHERE pg_temp.plant(p.name, p.args, CASE WHEN p.typed THEN p.result ELSE 'pg_catalog.int8' END);
SELECT pg_temp.plant(f.name, f.args, f.result) FROM (VALUES ('format', 'text', 'text'), ('format', 'text, text', 'text'), ('format', 'text, text, text', 'text'),
    ('format', 'text, VARIADIC text[]', 'text'), ('count', 'anyelement', 'int8'), ('q_hp', '', 'int8'), ('replace', 'text, text, text', 'text'),
    ('has_table_privilege', 'oid, text', 'boolean')) AS f (name, args, result) \g /dev/null
SELECT is((SELECT string_agg(n, ',') FROM unnest('{format,count,quote_ident,to_regclass,jsonb_each,string_agg,clock_timestamp,pg_has_role,has_table_privilege,replace}'::text[]) n
           WHERE NOT EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'evil'::regnamespace AND p.proname = n)), NULL, '... each that matters');

-- Operators: all of the server's with the names and the types that mq uses.
CREATE FUNCTION pg_temp.plant_operator(name text, l regtype, r regtype, result regtype) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    f text := format('op_%s_%s_%s', translate(encode(name::bytea, 'hex'), '=', ''), l::oid, r::oid);
BEGIN
    PERFORM pg_temp.as_eve(format('CREATE FUNCTION evil.%I(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', f, l, r, result,
        format('BEGIN PERFORM evil.called(%L); END', 'operator ' || name)));
    PERFORM pg_temp.as_eve(format('CREATE OPERATOR evil.%s (FUNCTION = evil.%I, LEFTARG = %s, RIGHTARG = %s)', name, f, l, r));
    RETURN true;
END $$;
SELECT cmp_ok(count(*), '>', 200::bigint, 'operators planted') FROM pg_operator o
    WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b'
      AND o.oprname = ANY ('{=,<>,<,>,<=,>=,||,->,->>,@>,<@,?,-,+,~,*,/,%,#>>}'::text[])
      AND o.oprleft = ANY ('{text,int2,int4,int8,bool,interval,timestamptz,jsonb,oid,name,float8,bytea,anyarray,anycompatiblearray,anynonarray,anycompatible,"char"}'::regtype[])
      AND o.oprright = ANY ('{text,int2,int4,int8,bool,interval,timestamptz,jsonb,oid,name,float8,bytea,anyarray,anycompatiblearray,anynonarray,anycompatible,"char","text[]"}'::regtype[])
      AND pg_temp.plant_operator(o.oprname, o.oprleft::regtype, o.oprright::regtype, o.oprresult::regtype);

-- Types whose CHECK tells, an own type with casts to all of mq's arguments, and relations; all of it in pg_temp as well.
SET ROLE mqh_eve;
CREATE FUNCTION evil.refuse(anyelement) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN evil.called('a type'); END $$;
CREATE TYPE evil.mood AS ENUM ('hp');
RESET ROLE;
SELECT pg_temp.as_eve(format('CREATE DOMAIN %s.%I AS pg_catalog.%s CHECK (evil.refuse(VALUE))', s.s, CASE t WHEN '"char"' THEN 'char' ELSE t END, t))
    FROM unnest('{evil,pg_temp}'::text[]) s, unnest('{text,jsonb,regclass,name,oid,bytea,timestamptz,int8,int4,int2,bool,float8,"char",regnamespace,regtype}'::text[]) t \g /dev/null
SELECT pg_temp.as_eve(format('CREATE FUNCTION evil.%I(evil.mood) RETURNS pg_catalog.%s LANGUAGE plpgsql AS %L', 'cast_' || t, t, 'BEGIN PERFORM evil.called(''a cast''); END')),
       pg_temp.as_eve(format('CREATE CAST (evil.mood AS pg_catalog.%s) WITH FUNCTION evil.%I(evil.mood) AS IMPLICIT', t, 'cast_' || t))
    FROM unnest('{text,jsonb,int8,int4,timestamptz,bytea,bool}'::text[]) t \g /dev/null
SELECT pg_temp.as_eve(format('CREATE VIEW %s.%I AS SELECT r.* FROM (SELECT evil.called(%L)) x, pg_catalog.%I r', s.s, v, 'relation ' || v, v))
    FROM unnest('{evil,pg_temp}'::text[]) s, unnest('{pg_class,pg_roles,pg_proc,pg_namespace,pg_trigger,pg_type,pg_index,pg_database,pg_extension}'::text[]) v \g /dev/null
SELECT pg_temp.as_eve(format('CREATE VIEW %s.%I AS SELECT evil.called(%L), 1 AS id', s.s, v, 'relation ' || v))
    FROM unnest('{evil,pg_temp}'::text[]) s, unnest('{q_hp,q_he,q_hp_dead,queue$,dedup$,binding$,exchange$,queues,stats,in_flight,message,q,m,locked,chosen,moved,rule,later}'::text[]) v \g /dev/null
SELECT pg_temp.as_eve(format('GRANT ALL ON %I.%I TO PUBLIC', n.nspname, c.relname))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND c.relowner = 'mqh_eve'::regrole \g /dev/null

-- Runs a statement with all this before the server's own names. What the function does itself names its schema or uses nothing.
CREATE FUNCTION pg_temp.trapped(who name, sql text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        EXECUTE format('SET LOCAL ROLE %I', who);
        EXECUTE 'SET LOCAL search_path = evil, pg_temp, pg_catalog, mq';
        EXECUTE sql;
        EXECUTE 'RESET ROLE';
        EXECUTE 'SET LOCAL search_path = public, pg_catalog, pg_temp';
    EXCEPTION WHEN OTHERS THEN
        RETURN SQLSTATE || CASE SQLSTATE WHEN 'EV666' THEN ' ' || SQLERRM ELSE '' END;
    END;
    RETURN '00000';
END $$;
CREATE TEMP TABLE control (sql text);
INSERT INTO control VALUES ('SELECT 1 = 1'), ($$SELECT 'a'::text || 'b'::text$$), ($$SELECT '{}'::jsonb @> '{}'::jsonb$$), ('SELECT clock_timestamp()'),
    ($$SELECT format('a')$$), ($$SELECT quote_ident('a')$$), ('SELECT relname FROM pg_class'), ($$SELECT 'x'::text$$), ($$SELECT mq.pause('hp'::evil.mood)$$),
    ('SELECT * FROM queue$'), ($$SELECT now() + '1 s'::interval$$), ($$SELECT '{1}'::pg_catalog.int8[] || '{2}'::pg_catalog.int8[]$$);
SELECT matches(pg_temp.trapped('mqh_user', sql), '^EV666', 'the trap works: ' || sql) FROM control;
SELECT is((SELECT is_called FROM evil.calls), true, '... and is noticed after the rollback');
SELECT setval('evil.calls', 1, false) \g /dev/null

-- The owner's table is written by the executor, the superuser's directly.
SELECT is(pg_temp.trapped('mqh_eve', $$SELECT mq.create_queue('he', backoff => '0', max_attempts => 3, lease => '1 h')$$), '00000', 'create_queue');
SELECT is(pg_temp.trapped(current_user, $$SELECT mq.create_queue('hp', backoff => '0', max_attempts => 3, lease => '1 h')$$), '00000', '... by a superuser');
ALTER TABLE mq.q_he ADD COLUMN more int;
SELECT mq.grant(q, 'mqh_user', p) FROM unnest('{hp,he}'::text[]) q, unnest('{send,receive,browse}'::text[]) p \g /dev/null
CREATE TEMP TABLE verbs (n int GENERATED ALWAYS AS IDENTITY, sql text, owner_only boolean DEFAULT false);
INSERT INTO verbs (sql) VALUES
    ($$SELECT mq.enqueue('%1$s', '1', '{"a": 1}', delay => '0', priority => 3, key => 'k')$$),
    ($$SELECT mq.enqueue('%1$s', NULL, deliver_at => '2020-01-01', data => 'x')$$), ($$SELECT mq.enqueue('%1$s', '1')$$),
    ($$SELECT mq.enqueue_batch('%1$s', '{1,2,3,4,5,6,7,8,9}', keys => '{a,b,c,d,e,f,g,h,i}')$$),
    ($$SELECT * FROM mq.browse('%1$s')$$), ($$SELECT mq.status('%1$s', 1)$$), ($$SELECT mq.listen('%1$s')$$), ($$SELECT mq.unlisten('%1$s')$$),
    ($$SELECT * FROM mq.queues$$), ($$SELECT * FROM mq.stats$$), ($$SELECT * FROM mq.in_flight$$), ($$SELECT * FROM mq.exchanges$$), ($$SELECT * FROM mq.bindings$$),
    ($$SELECT mq.ack(m) FROM mq.dequeue('%1$s', 2, lease => '1 s', wait => '0') m$$), ($$SELECT mq.ack(m.queue, m.id, m.receipt) FROM mq.dequeue('%1$s') m$$),
    ($$SELECT mq.nack(m.queue, m.id, m.receipt, delay => '0', reason => 'why') FROM mq.dequeue('%1$s', 3) m$$),
    ($$SELECT mq.release(m.queue, m.id, m.receipt) FROM mq.dequeue('%1$s') m$$), ($$SELECT mq.extend(m.queue, m.id, m.receipt, '1 h') FROM mq.dequeue('%1$s') m$$),
    ($$SELECT mq.reject(m.queue, m.id, m.receipt, 'bad') FROM mq.dequeue('%1$s') m$$), ($$SELECT * FROM mq.dequeue('%1$s', auto_ack => true)$$),
    ($$SELECT * FROM mq.ack_dequeue('%1$s', '{1}', '{1}')$$), ($$SELECT mq.ack_batch('%1$s', '{1}', '{1}')$$), ($$SELECT mq.nack_batch('%1$s', '{1}', '{1}')$$),
    ($$SELECT mq.reject_batch('%1$s', '{1}', '{1}')$$), ($$SELECT mq.release_batch('%1$s', '{1}', '{1}')$$), ($$SELECT mq.extend_batch('%1$s', '{1}', '{1}', '1 s')$$),
    ($$SELECT mq.publish('', '%1$s', '1', mandatory => true)$$), ($$SELECT mq.publish_batch('', '{%1$s,%1$s}', '{1,2}', headers => '{"{\"a\": 1}",NULL}')$$),
    ($$INSERT INTO mq.q_%1$s (body, headers, key) VALUES ('1', '{}', 'k')$$);
INSERT INTO verbs (sql, owner_only)
    SELECT v, true FROM unnest(ARRAY[$$SELECT mq.pause('%1$s')$$, $$SELECT mq.resume('%1$s')$$, $$SELECT mq.alter_queue('%1$s', lease => '30 min', unset => '{ttl}')$$,
        $$SELECT mq.create_queue('%1$s', if_not_exists => true)$$, $$SELECT mq.grant('%1$s', 'mqh_user', 'browse')$$, $$SELECT mq.revoke('%1$s', 'mqh_user', 'browse')$$,
        $$SELECT mq.grant('%1$s', 'mqh_user', 'receive')$$, $$SELECT mq.redrive('%1$s_dead', 5)$$, $$SELECT mq.redrive('%1$s_dead', target => '%1$s')$$,
        $$SELECT mq.delete('%1$s', '{1,2}')$$]) WITH ORDINALITY u (v, n) ORDER BY n;
SELECT is(pg_temp.trapped(w.who, format(v.sql, q.q)), '00000', w.who || ': ' || format(v.sql, q.q))
    FROM unnest('{mqh_eve,mqh_user}'::name[] || current_user) w (who), unnest('{hp,he}'::text[]) q (q), verbs v
    WHERE (NOT v.owner_only OR w.who = current_user OR (w.who = 'mqh_eve' AND q.q = 'he')) AND (w.who <> 'mqh_eve' OR q.q = 'he')
    ORDER BY w.who, q.q, v.n;
-- Refusals look things up too.
SELECT is(pg_temp.trapped('mqh_user', sql), state, sql || ' is refused') FROM (VALUES ($$SELECT mq.enqueue('none', '1')$$, '42704'), ($$SELECT mq.browse('none')$$, '42704'),
    ($$SELECT mq.pause('hp')$$, '42501'), ($$SELECT mq.purge('hp')$$, '42501'), ($$SELECT mq.drop_queue('hp')$$, '42501'), ($$SELECT mq.alter_queue('hp', lease => '1 s')$$, '42501'),
    ($$SELECT mq.create_queue('x y')$$, '42501'), ($$SELECT mq.grant('hp', 'mqh_user', 'send')$$, '42501'), ($$SELECT mq.publish('none', 'k', '1')$$, '42704')) AS r (sql, state);
SELECT is(pg_temp.trapped('mqh_eve', sql), state, sql || ' is refused') FROM (VALUES ($$SELECT mq.create_queue('x y')$$, '22023'), ($$SELECT mq.create_queue('he')$$, '42710'),
    ($$SELECT mq.alter_queue('he', unset => '{lease}')$$, '22023'), ($$SELECT mq.alter_queue('he', dead_letter => 'hp_dead')$$, '42501'),
    ($$SELECT mq.grant('he', 'mqh_user', 'all')$$, '22023'), ($$SELECT mq.drop_queue('he_dead')$$, '2BP01')) AS r (sql, state);
-- At the top level, where the session's own path is the hostile one.
SET search_path = evil, pg_temp, pg_catalog;
CALL mq.wait('hp', '1 ms');
SET search_path = public, pg_catalog, pg_temp;

-- The worker, started anew in a database whose settings name the trap first.
SELECT format('ALTER DATABASE %I SET search_path = evil, pg_temp, pg_catalog', current_database()) \gexec
SELECT pid AS worker FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'mq worker' \gset
SELECT pg_terminate_backend(:worker, 10000) \g /dev/null
SELECT mq.purge(q), mq.purge(q || '_dead') FROM unnest('{hp,he}'::text[]) q \g /dev/null
SELECT mq.delete(q, ARRAY(SELECT id FROM mq.in_flight f WHERE f.queue = q)) FROM unnest('{hp,he}'::text[]) q \g /dev/null
SELECT mq.enqueue_batch(q, '{1,2,3,4}') FROM unnest('{hp,he}'::text[]) q \g /dev/null
SELECT mq.alter_queue(q, max_attempts => 2) FROM unnest('{hp,he}'::text[]) q \g /dev/null
SELECT count(*) FROM unnest('{hp,he}'::text[]) q, mq.dequeue(q, 4, lease => '1 ms') \gset
SELECT is(:count, 8, 'eight leases that end at once');
SELECT ok(pg_temp.until('(SELECT count(*) = 4 FROM mq.q_hp WHERE attempts = 1) AND (SELECT count(*) = 4 FROM mq.q_he WHERE attempts = 1)'), 'the worker writes the failures');
SELECT is((SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'mq worker' AND pid <> :worker), 1::bigint, '... the new one');
DO $$
BEGIN
    FOR i IN 1..4 LOOP
        PERFORM * FROM mq.dequeue('hp', lease => '1 ms');
        PERFORM * FROM mq.dequeue('he', lease => '1 ms');
        COMMIT;
    END LOOP;
END $$;
SELECT ok(pg_temp.until('(SELECT count(*) = 4 FROM mq.q_hp_dead) AND (SELECT count(*) = 4 FROM mq.q_he_dead)'), '... and takes the spent ones to the dead letters');
SELECT is((SELECT is_called FROM evil.calls), false, 'nothing planted was called, here or in the worker');

-- Making the extension resolves nothing there either.
SELECT is(pg_temp.trapped('mqh_eve', $$SELECT mq.drop_queue('he')$$), '00000', 'drop_queue');
SELECT mq.drop_queue(q) FROM unnest('{hp,hp_dead,he_dead}'::text[]) q \g /dev/null
DROP EXTENSION mq;
SET search_path = evil, pg_temp, pg_catalog;
CREATE EXTENSION mq;
SET search_path = public, pg_catalog, pg_temp;
SELECT is(pg_temp.trapped(current_user, $$SELECT mq.create_queue('hp')$$), '00000', 'made in the trap it works');
SELECT is(pg_temp.trapped(current_user, sql), '00000', '... ' || sql) FROM unnest(ARRAY[$$SELECT mq.enqueue('hp', '1')$$, $$SELECT * FROM mq.stats$$,
    $$SELECT * FROM mq.browse('hp')$$, $$SELECT mq.ack(m) FROM mq.dequeue('hp') m$$, $$SELECT mq.purge('hp')$$, $$SELECT * FROM mq.queues$$]) sql;
SELECT is_empty($$SELECT d.objid FROM pg_depend d JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid AND p.pronamespace = 'evil'::regnamespace
                  WHERE d.classid = 'pg_proc'::regclass AND d.objid IN (SELECT oid FROM pg_proc WHERE pronamespace = 'mq'::regnamespace)
                     OR d.classid = 'pg_rewrite'::regclass AND d.objid IN (SELECT r.oid FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE c.relnamespace = 'mq'::regnamespace)$$,
    '... and depends on nothing planted');
SELECT is((SELECT is_called FROM evil.calls), false, '... nor has called any');

-- Whatever comes later: no function of mq's that resolves names as it runs does so in the caller's path.
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
                  WHERE p.pronamespace = 'mq'::regnamespace AND l.lanname <> 'c' AND p.prosqlbody IS NULL
                    AND coalesce(p.proconfig::text, '') NOT LIKE '%search_path=pg_catalog, pg_temp%'$$, 'each function not parsed when it was made has the path pinned');

SELECT mq.drop_queue(q) FROM unnest('{hp,hp_dead}'::text[]) q \g /dev/null
SELECT format('ALTER DATABASE %I RESET search_path', current_database()) \gexec
SET client_min_messages = error;
DROP SCHEMA evil CASCADE;
DROP OWNED BY mqh_eve, mqh_user;
DROP ROLE mqh_eve, mqh_user;
SELECT * FROM finish();
