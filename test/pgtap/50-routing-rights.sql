-- Rights in routing: a publisher needs none on the queues behind an exchange and gains none; each queue's owner decides what happens there.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqx_pub,mqx_owner,mqx_other,mqx_none,mqx_group,mqx_member,mqx_noinherit,mqx_monitor}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
END $$;
ALTER ROLE mqx_noinherit NOINHERIT;
GRANT mqx_group TO mqx_member, mqx_noinherit;
GRANT pg_monitor TO mqx_monitor;
CREATE TEMP VIEW seen AS SELECT exchange COLLATE "default" AS exchange, queue COLLATE "default" AS queue, pattern COLLATE "default" AS pattern FROM mq.bindings;

-- Making one takes EXECUTE, which PUBLIC does not have.
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.create_exchange('ex') $$), '42501', 'create_exchange is revoked from PUBLIC');
GRANT EXECUTE ON FUNCTION mq.create_exchange(text, text, text, boolean) TO mqx_owner, mqx_other, mqx_group;
GRANT EXECUTE ON FUNCTION mq.create_queue TO mqx_owner, mqx_other;
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.create_exchange('ex', 'fanout') $$), '00000', 'EXECUTE is enough');
SELECT is((SELECT owner::text FROM mq.exchanges WHERE name = 'ex'), 'mqx_owner', 'who makes it owns it');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.create_queue('own', dead_letter => '') $$), '00000');
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.create_queue('oth', dead_letter => '') $$), '00000');
SELECT mq.create_queue('su', dead_letter => '');

-- Binding takes ownership of the exchange and INSERT on the queue.
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.bind('ex', 'own') $$), '00000', 'own exchange, own queue');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.bind('ex', 'oth') $$), '42501', 'own exchange, another''s queue');
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.bind('ex', 'oth') $$), '42501', 'another''s exchange, own queue');
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.grant('oth', 'mqx_owner', 'send') $$), '00000', 'the queue''s owner allows to send');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.bind('ex', 'oth') $$), '00000', '... now it goes');
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.revoke('oth', 'mqx_owner', 'send') $$), '00000');
SELECT is(mq.publish('ex', 'k'), 2, 'a superuser publishes; the binding stands without the right it was made with');
SELECT is(pg_temp.state_as('mqx_none', $$ SELECT mq.unbind('ex', 'oth') $$), '42501', 'a stranger unbinds nothing');
SELECT is(pg_temp.state_as('mqx_none', $$ SELECT mq.unbind('ex', 'su') $$), '42501', '... nor asks whether there is something');
SELECT is(pg_temp.value_as('mqx_other', $$ SELECT mq.unbind('ex', 'oth') $$), 'true', 'the queue''s owner does');
SELECT is(pg_temp.value_as('mqx_owner', $$ SELECT mq.unbind('ex', 'own') $$), 'true', 'and the exchange''s');
SELECT mq.bind('ex', q) FROM unnest('{own,oth}'::text[]) q;
SELECT mq.delete('own', ARRAY(SELECT id FROM mq.q_own)), mq.delete('oth', ARRAY(SELECT id FROM mq.q_oth));

-- A publisher with the exchange's grant and nothing else.
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish('ex', 'k') $$), '42501', 'not granted');
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish_batch('ex', '{k}') $$), '42501', '... no batch');
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish_batch('ex', '{}') $$), '42501', '... not even an empty one');
SELECT is(pg_temp.state_as('mqx_none', $$ SELECT mq.grant_exchange('ex', 'mqx_pub') $$), '42501', 'a stranger grants nothing');
SELECT is(pg_temp.state_as('mqx_none', $$ SELECT mq.revoke_exchange('ex', 'mqx_pub') $$), '42501', '... and revokes nothing');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.grant_exchange('ex', 'mqx_pub'), mq.grant_exchange('ex', 'mqx_pub') $$), '00000', 'the owner grants, twice is once');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '"p"') $$), '2', 'granted');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT sum(p) FROM mq.publish_batch('ex', '{k,k}', dedup_ids => '{a,b}') p $$), '4', '... with dedup_ids too');
SELECT is(pg_temp.state_as('mqx_pub', sql), '42501', 'it gives none of: ' || sql) FROM (VALUES
    ($$SELECT mq.enqueue('own', '1')$$), ($$SELECT mq.publish('', 'own', '1')$$), ($$SELECT * FROM mq.q_own$$), ($$INSERT INTO mq.q_own (body) VALUES ('1')$$), ($$SELECT * FROM mq.dequeue('own')$$), ($$SELECT * FROM mq.browse('own')$$),
    ($$SELECT mq.bind('ex', 'own', 'x')$$), ($$SELECT mq.unbind('ex', 'own')$$), ($$SELECT mq.grant_exchange('ex', 'mqx_none')$$), ($$SELECT mq.drop_exchange('ex')$$), ($$SELECT mq.drop_exchange('ex', true)$$),
    ($$SELECT mq.bind_exchange('ex', 'ex')$$), ($$DELETE FROM mq.bindings$$), ($$DELETE FROM mq.exchanges$$), ($$UPDATE mq.exchanges SET owner = 'mqx_pub'$$), ($$TABLE mq.binding$ $$), ($$TABLE mq.exchange$ $$), ($$INSERT INTO mq.exchange_grant$ VALUES ('ex', 'mqx_none')$$),
    ($$SELECT mq.bind$(0, 'ex', 'own', '#', NULL)$$), ($$SELECT mq.grant_exchange$(0, 'ex', 'mqx_none')$$), ($$SELECT mq.origins$('own')$$), ($$SELECT mq.referrers$(true, 'ex')$$)) t (sql);
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT count(*) FROM mq.queues $$), '0', 'no queue is seen');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT string_agg(name, ',') FROM mq.exchanges $$), 'ex', 'the exchange is');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT string_agg(queue, ',' ORDER BY queue) FROM mq.bindings $$), 'oth,own', '... with its bindings');
SELECT is(pg_temp.value_as('mqx_none', $$ SELECT count(*) FROM mq.exchanges $$), '0', 'a stranger sees no exchange');
SELECT is(pg_temp.value_as('mqx_none', $$ SELECT count(*) FROM mq.bindings $$), '0', '... and no binding');
SELECT is(pg_temp.value_as('mqx_other', $$ SELECT string_agg(exchange || ' ' || queue, ',') FROM mq.bindings $$), 'ex oth', 'a queue''s owner sees what leads to it');
SELECT is(pg_temp.value_as('mqx_monitor', $$ SELECT string_agg(name, ',') FROM mq.exchanges $$), 'ex', 'pg_monitor sees all exchanges');
SELECT is(pg_temp.value_as('mqx_monitor', $$ SELECT count(*) FROM mq.bindings $$), '2', '... and all bindings');
SELECT is(pg_temp.state_as('mqx_monitor', $$ SELECT mq.publish('ex', 'k') $$), '42501', '... and may not publish');
SELECT is(pg_temp.value_as('mqx_owner', $$ SELECT mq.publish('ex', 'k') $$), '2', 'the owner needs no grant');

-- Taken back; a session that has published feels it at once.
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.revoke_exchange('ex', 'mqx_pub'), mq.revoke_exchange('ex', 'mqx_pub') $$), '00000', 'revoked, twice is once');
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish('ex', 'k') $$), '42501', 'no more');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT count(*) FROM mq.exchanges $$), '0', '... nor seen');
SELECT mq.grant_exchange('ex', 'public');
SELECT is(pg_temp.value_as('mqx_none', $$ SELECT mq.publish('ex', 'k') $$), '2', 'public: everybody');
SELECT is(pg_temp.value_as('mqx_none', $$ SELECT count(*) FROM mq.exchanges $$), '1', '... and sees it');
SELECT mq.revoke_exchange('ex', 'public');
SELECT is(pg_temp.state_as('mqx_none', $$ SELECT mq.publish('ex', 'k') $$), '42501', 'no more');

-- By membership.
SELECT mq.grant_exchange('ex', 'mqx_group');
SELECT is(pg_temp.value_as('mqx_member', $$ SELECT mq.publish('ex', 'k') $$), '2', 'granted to a group');
SELECT is(pg_temp.state_as('mqx_noinherit', $$ SELECT mq.publish('ex', 'k') $$), '42501', 'who does not inherit has to SET ROLE');
SELECT is(pg_temp.value_as('mqx_noinherit', $$ SELECT count(*) FROM mq.exchanges $$), '0', '... to see it, too');
REVOKE mqx_group FROM mqx_member;
SELECT is(pg_temp.state_as('mqx_member', $$ SELECT mq.publish('ex', 'k') $$), '42501', 'no member any more');
GRANT mqx_group TO mqx_member;
SELECT is(pg_temp.value_as('mqx_member', $$ SELECT mq.publish('ex', 'k') $$), '2', 'a member again');
SELECT is(pg_temp.state_as('mqx_group', $$ SELECT mq.create_exchange('gr', 'fanout') $$), '00000', 'an exchange of the group');
SELECT mq.grant('su', 'mqx_group', 'send');
SELECT is(pg_temp.state_as('mqx_member', $$ SELECT mq.bind('gr', 'su'), mq.grant_exchange('gr', 'mqx_none'), mq.publish('gr', 'k') $$), '00000', 'members own it');
SELECT is(pg_temp.state_as('mqx_noinherit', $$ SELECT mq.bind('gr', 'su', 'x') $$), '42501', '... if they inherit');
SELECT is(pg_temp.state_as('mqx_member', $$ SELECT mq.drop_exchange('gr') $$), '00000', '... and drop it');
SELECT mq.revoke_exchange('ex', 'mqx_group');

-- Exchange to exchange, alternates, dead letters take the right to publish there.
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.create_exchange('ox', 'fanout') $$), '00000');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.bind_exchange('ex', 'ox') $$), '42501', 'bind_exchange takes the right to publish to the destination');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.bind_exchange('ox', 'ex') $$), '42501', '... and ownership of the source');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.create_exchange('ea', alternate => 'ox') $$), '42501', 'an alternate takes it');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.create_queue('ed', dead_letter_exchange => 'ox') $$), '42501', 'a dead-letter exchange too');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.alter_queue('own', dead_letter_exchange => 'ox') $$), '42501', '... in alter_queue');
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.grant_exchange('ox', 'mqx_owner') $$), '00000');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.bind_exchange('ex', 'ox'), mq.create_exchange('ea', alternate => 'ox'), mq.create_queue('ed', dead_letter_exchange => 'ox'), mq.alter_queue('own', dead_letter_exchange => 'ox') $$), '00000', 'granted');
SELECT is(pg_temp.state_as('mqx_none', $$ SELECT mq.unbind_exchange('ex', 'ox') $$), '42501', 'a stranger does not unbind them');
SELECT is(pg_temp.value_as('mqx_other', $$ SELECT mq.unbind_exchange('ex', 'ox') $$), 'true', 'the destination''s owner does');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.bind_exchange('ex', 'ox') $$), '00000');
SELECT is(pg_temp.value_as('mqx_owner', $$ SELECT mq.unbind_exchange('ex', 'ox') $$), 'true', 'the source''s owner does');
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.drop_exchange('ox') $$), '2BP01', 'who is used cannot go');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.drop_exchange('ea'), mq.drop_queue('ed'), mq.drop_queue('ed_dead'), mq.alter_queue('own', unset => '{dead_letter_exchange}') $$), '00000');
SELECT is(pg_temp.state_as('mqx_owner', $$ SELECT mq.drop_exchange('ox') $$), '42501', 'a publisher does not drop');
SELECT is(pg_temp.state_as('mqx_other', $$ SELECT mq.drop_exchange('ox') $$), '00000', 'its owner does');

DELETE FROM mq.q_own; DELETE FROM mq.q_oth;
-- What owners hang on their queues runs as them, restricted, whoever publishes.
GRANT CREATE ON SCHEMA public TO mqx_owner, mqx_other;
SET ROLE mqx_other;
CREATE TABLE public.oth_log (who name, what text, n integer);
CREATE FUNCTION public.oth_before() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.oth_log VALUES (current_user, current_setting('search_path'), (NEW.body ->> 'n')::integer);
    IF NEW.body ->> 'act' = 'suppress' THEN RETURN NULL; END IF;
    IF NEW.body ->> 'act' = 'role' THEN EXECUTE 'SET ROLE mqx_owner'; END IF;
    IF NEW.body ->> 'act' = 'reset' THEN EXECUTE 'RESET ROLE'; END IF;
    IF NEW.body ->> 'act' = 'table' THEN EXECUTE 'SELECT count(*) FROM mq.q_own'; END IF;
    IF NEW.body ->> 'act' = 'publish' THEN PERFORM mq.publish('ex', 'again', '{}'); END IF;
    IF NEW.body ->> 'act' = 'unbind' THEN PERFORM mq.unbind('ex', 'oth'); END IF;
    NEW.headers := NEW.headers || jsonb_build_object('seen', NEW.headers ->> 'x-exchange');
    NEW.tenant := current_user;
    RETURN NEW;
END $$;
ALTER TABLE mq.q_oth ADD COLUMN tenant text NOT NULL, ADD CONSTRAINT small CHECK ((body ->> 'n')::integer < 100);
CREATE TRIGGER a_before BEFORE INSERT ON mq.q_oth FOR EACH ROW EXECUTE FUNCTION public.oth_before();
RESET ROLE;

SELECT mq.grant_exchange('ex', 'mqx_pub');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1}') $$), '2', 'a trigger and an added column');
SELECT results_eq('SELECT who::text COLLATE "default", what, n FROM public.oth_log', $$ VALUES ('mqx_other', 'pg_catalog, pg_temp', 1) $$, 'the trigger ran as the queue''s owner, path pinned');
SELECT results_eq('SELECT tenant, headers FROM mq.q_oth', $$ VALUES ('mqx_other', '{"seen": "ex", "x-exchange": "ex", "x-routing-key": "k"}'::jsonb) $$, 'it saw the headers and changed the row');
SELECT is((SELECT headers FROM mq.q_own), '{"x-exchange": "ex", "x-routing-key": "k"}', '... in its queue alone');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 2, "act": "suppress"}') $$), '1', 'a row that is suppressed is not counted');
SELECT is((SELECT count(*) FROM mq.q_own), 2::bigint, '... the other queue has it');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT array_agg(p ORDER BY n) FROM mq.publish_batch('ex', '{a,b,c}', ARRAY['{"n": 1}', '{"n": 2, "act": "suppress"}', '{"n": 3}']::jsonb[], dedup_ids => '{s1,s2,NULL}') WITH ORDINALITY t (p, n) $$), '{2,1,2}', '... in a batch');
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 100}') $$), '23514', 'a CHECK of one queue fails it whole');
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1, "act": "role"}') $$), '42501', 'SET ROLE is not for triggers');
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1, "act": "reset"}') $$), '42501', '... nor RESET ROLE');
SELECT is(pg_temp.state($$ SELECT mq.publish('ex', 'k', '{"n": 1, "act": "table"}') $$), '42501', 'nor a superuser''s rights');
SELECT is(pg_temp.state($$ SELECT mq.publish('ex', 'k', '{"n": 1, "act": "publish"}') $$), '42501', 'nor his right to publish');
SELECT is((SELECT count(*) FROM mq.q_own), 5::bigint, 'nothing half-routed');
SELECT mq.grant_exchange('ex', 'mqx_other');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1, "act": "publish"}') $$), '2', 'a trigger that may publishes in the middle of a publish');
SELECT is((SELECT count(*) FROM mq.q_own), 7::bigint, '... both arrive');
SELECT is((SELECT count(*) FROM mq.q_own WHERE headers ->> 'x-routing-key' = 'again'), 1::bigint);
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1, "act": "unbind"}') $$), '2', 'a trigger that unbinds the queue it runs for');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1}') $$), '1', '... from the next on');
SELECT mq.bind('ex', 'oth');
SELECT is(mq.publish('ex', 'k', '{"n": 7}'), 2, 'a superuser publishes');
SELECT is((SELECT string_agg(DISTINCT who::text, ',') FROM public.oth_log), 'mqx_other', '... and nothing runs as him');

-- A trigger that alters a queue which comes later in the same publish: what it is then counts.
SELECT mq.create_exchange('al', 'fanout');
SELECT mq.create_queue(q, dead_letter => ''), mq.bind('al', q) FROM unnest('{al1,al2}'::text[]) q;
CREATE FUNCTION public.al_before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE NEW.body ->> 'do'; RETURN NEW; END $$;
CREATE TRIGGER al_before BEFORE INSERT ON mq.q_al1 FOR EACH ROW EXECUTE FUNCTION public.al_before();
SELECT is((SELECT row(state, message ~ '"al2" is ordered') FROM pg_temp.raised($$ SELECT mq.publish('al', 'k', '{"do": "SELECT mq.alter_queue(''al2'', ordered => true)"}', priority => 1) $$)), row('22023'::text, true), 'it has become ordered');
SELECT is((SELECT row(state, message ~ '"al2" is full') FROM pg_temp.raised($$ SELECT mq.publish_batch('al', '{k,k}', ARRAY['{"do": "SELECT mq.alter_queue(''al2'', max_length => 1)"}', '{"do": "SELECT"}']::jsonb[]) $$)), row('53400'::text, true), 'it has become limited');
SELECT is((SELECT state FROM pg_temp.raised($$ SELECT mq.publish('al', 'k', '{"do": "DROP TABLE mq.q_al2"}') $$)), '55006', 'it cannot be dropped');
SELECT is((SELECT state FROM pg_temp.raised($$ SELECT mq.publish('al', 'k', '{"do": "SELECT mq.unbind(''al'', ''al2''), mq.drop_queue(''al2'')"}') $$)), '55006', '... either way');
SELECT is(mq.publish('al', 'k', '{"do": "SELECT mq.drop_exchange(''al'')"}'), 2, 'the exchange itself can, after all is routed');
SELECT mq.drop_queue(q) FROM unnest('{al1,al2}'::text[]) q;
DROP FUNCTION public.al_before();

-- A right the owner has taken from himself is named.
REVOKE INSERT ON mq.q_own FROM mqx_owner;
SELECT is((SELECT row(state, message, detail) FROM pg_temp.raised($$ SELECT mq.publish('ex', 'k', '{"n": 1}') $$)),
    row('42501'::text, 'permission denied for queue "own"'::text, 'Its own owner may not insert into it.'::text), 'an owner without INSERT on his own queue');
GRANT INSERT ON mq.q_own TO mqx_owner;
SELECT is(mq.publish('ex', 'k', '{"n": 1}'), 2, 'given back');
-- Another owner of the table: his rights, at once.
ALTER TABLE mq.q_own OWNER TO mqx_other;
SELECT is(mq.publish('ex', 'k', '{"n": 1}'), 2, 'a queue''s owner has changed');
ALTER TABLE mq.q_own OWNER TO mqx_owner;

-- The default exchange: what counts is INSERT on the queue.
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('', 'no_such', '1') $$), '0', 'no queue, no right to ask for');
SELECT mq.grant('own', 'mqx_pub', 'send');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('', 'own', '1') $$), '1', 'with INSERT');
SELECT is(pg_temp.state_as('mqx_pub', $$ SELECT mq.publish_batch('', '{own,oth}') $$), '42501', 'a batch takes it on each');
SELECT mq.revoke('own', 'mqx_pub', 'send');

-- Where nothing may be written.
BEGIN READ ONLY;
SELECT is(pg_temp.state(sql), '25006', 'read only: ' || sql) FROM (VALUES ($$SELECT mq.publish('ex', 'k')$$), ($$SELECT mq.publish('', 'own')$$), ($$SELECT mq.publish_batch('ex', '{}')$$), ($$SELECT mq.bind('ex', 'own')$$), ($$SELECT mq.unbind('ex', 'own')$$),
    ($$SELECT mq.bind_exchange('ex', 'ex')$$), ($$SELECT mq.unbind_exchange('ex', 'ex')$$), ($$SELECT mq.create_exchange('ro')$$), ($$SELECT mq.drop_exchange('ex')$$), ($$SELECT mq.grant_exchange('ex', 'public')$$), ($$SELECT mq.revoke_exchange('ex', 'public')$$)) t (sql);
ROLLBACK;

-- Roles are kept by name, as in a dump: one that is renamed loses, what he had is his name's.
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1}') $$), '2', 'before');
ALTER ROLE mqx_pub RENAME TO mqx_renamed;
SELECT is(pg_temp.state_as('mqx_renamed', $$ SELECT mq.publish('ex', 'k') $$), '42501', 'a role that was granted and renamed');
ALTER ROLE mqx_renamed RENAME TO mqx_pub;
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('ex', 'k', '{"n": 1}') $$), '2', '... and named back');
SELECT is(pg_temp.state_as('mqx_group', $$ SELECT mq.create_exchange('gx', 'fanout') $$), '00000');
SELECT mq.bind('gx', 'su');
ALTER ROLE mqx_group RENAME TO mqx_club;
SELECT is(pg_temp.state_as('mqx_club', $$ SELECT mq.publish('gx', 'k') $$), '42501', 'an owner renamed');
SELECT is(pg_temp.state_as('mqx_club', $$ SELECT mq.drop_exchange('gx') $$), '42501', '... owns it no more');
SELECT is(mq.publish('gx', 'k'), 1, 'a superuser publishes');
SELECT lives_ok($$ SELECT mq.grant_exchange('gx', 'mqx_pub') $$, '... grants');
SELECT is(pg_temp.value_as('mqx_pub', $$ SELECT mq.publish('gx', 'k') $$), '1', 'who is granted it publishes, owner or not');
SELECT is(mq.drop_exchange('gx'), true, '... and a superuser drops it');
SELECT mq.drop_queue('su');
DROP OWNED BY mqx_club;
DROP ROLE mqx_club;
SELECT mq.grant_exchange('ex', 'mqx_none');
DROP ROLE mqx_none;
SELECT is(mq.publish('ex', 'k', '{"n": 1}'), 2, 'a role that was granted and is gone does no harm');
SELECT is(pg_temp.state($$ SELECT mq.grant_exchange('ex', 'mqx_none') $$), '42704', '... is not granted again');
SELECT lives_ok($$ SELECT mq.revoke_exchange('ex', 'mqx_none') $$, '... and can be revoked');

SELECT mq.drop_exchange('ex');
SELECT mq.drop_queue(q) FROM unnest('{own,oth}'::text[]) q;
DROP TABLE public.oth_log;
DROP FUNCTION public.oth_before();
DROP OWNED BY mqx_pub, mqx_owner, mqx_other, mqx_member, mqx_noinherit, mqx_monitor;
DROP ROLE mqx_pub, mqx_owner, mqx_other, mqx_member, mqx_noinherit, mqx_monitor;
SELECT * FROM finish();
