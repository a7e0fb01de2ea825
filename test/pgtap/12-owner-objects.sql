-- What the owner hangs on a queue's table is honoured, as the owner; rules and row-level security are refused.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqo_owner,mqo_user}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
END $$;
CREATE SCHEMA own AUTHORIZATION mqo_owner;
SELECT mq.create_queue('ow', backoff => '0', max_attempts => 3);
ALTER TABLE mq.q_ow OWNER TO mqo_owner;
ALTER TABLE mq.q_ow_dead OWNER TO mqo_owner;
SELECT mq.grant('ow', 'mqo_user', 'send');
SELECT mq.grant('ow', 'mqo_user', 'receive');
SELECT is((SELECT owner::text FROM mq.queues WHERE name = 'ow'), 'mqo_owner', 'OWNER TO changes the owner');

-- A column with a default, an index, a CHECK, a foreign key.
SET ROLE mqo_owner;
ALTER TABLE mq.q_ow ADD COLUMN tenant text DEFAULT current_user, ADD COLUMN n int GENERATED ALWAYS AS ((body ->> 'n')::int) STORED;
ALTER TABLE mq.q_ow ADD CONSTRAINT small CHECK (n < 100);
RESET ROLE;
-- PostgreSQL asks for CREATE on the schema of an index, which no owner of a queue has: an administrator makes it.
CREATE INDEX ow_n ON mq.q_ow (n);
CREATE UNIQUE INDEX ow_once ON mq.q_ow ((body ->> 'once'));
SELECT is(pg_temp.state_as('mqo_user', $$ SELECT mq.enqueue('ow', '{"n": 1}') $$), '00000', 'enqueue');
SELECT results_eq('SELECT tenant, n FROM mq.q_ow', $$ VALUES ('mqo_owner', 1) $$, 'added columns have their defaults, computed as the owner');
SELECT results_eq('SELECT n FROM mq.q_ow WHERE n = 1', 'VALUES (1)', 'found by the added index');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('ow', ARRAY['{"n": 2}', '{"n": 3}']::jsonb[])), 2::bigint, 'a batch');
SELECT results_eq('SELECT n FROM mq.q_ow ORDER BY n', 'VALUES (1), (2), (3)', '... too');
SET enable_seqscan = off;
SELECT results_eq('SELECT n FROM mq.q_ow WHERE n > 1 ORDER BY n', 'VALUES (2), (3)', '... by the index');
RESET enable_seqscan;
SELECT is(pg_temp.state($$ SELECT mq.enqueue('ow', '{"n": 100}') $$), '23514', 'a CHECK is kept');
SELECT is(pg_temp.state($$ SELECT mq.enqueue_batch('ow', ARRAY['{"n": 4}', '{"n": 100}']::jsonb[]) $$), '23514', '... in a batch');
SELECT mq.enqueue('ow', '{"n": 5, "once": "x"}');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('ow', '{"n": 6, "once": "x"}') $$), '23505', 'so is a unique index');
SELECT is((SELECT count(*) FROM mq.q_ow), 4::bigint, 'nothing half-done');
SELECT is((SELECT string_agg(body ->> 'n', ',') FROM mq.dequeue('ow', 10)), '1,2,3,5', 'dequeue does not mind the added columns');
SELECT is(mq.nack_batch('ow', array_agg(id), array_agg(receipt)), 4, 'nor does nack') FROM mq.in_flight WHERE queue = 'ow';
SELECT is((SELECT string_agg(body ->> 'n', ',' ORDER BY attempt, id) FROM mq.dequeue('ow', 10, wait => '10 s')), '1,2,3,5', 'which brings them again');
SELECT ok(pg_temp.until('(SELECT count(*) = 4 FROM mq.q_ow WHERE attempts = 1)'), 'the row is updated');
SELECT results_eq('SELECT n, tenant FROM mq.q_ow ORDER BY n', $$ SELECT n, 'mqo_owner' FROM unnest('{1,2,3,5}'::int[]) n $$, '... with its added columns');
SELECT is(mq.ack_batch('ow', array_agg(id), array_agg(receipt)), 4, 'acknowledged') FROM mq.in_flight WHERE queue = 'ow';
SELECT is_empty('SELECT * FROM mq.q_ow', 'gone');
SET enable_seqscan = off;
SELECT is((SELECT count(*) FROM mq.q_ow WHERE n > 0), 0::bigint, '... from the index too');
RESET enable_seqscan;

-- Foreign keys from and to it.
SET ROLE mqo_owner;
CREATE TABLE own.tenants (name text PRIMARY KEY);
INSERT INTO own.tenants VALUES ('t1');
ALTER TABLE mq.q_ow ALTER COLUMN tenant SET DEFAULT 't1', ADD CONSTRAINT fk FOREIGN KEY (tenant) REFERENCES own.tenants;
CREATE TABLE own.notes (message bigint REFERENCES mq.q_ow ON DELETE CASCADE, note text);
RESET ROLE;
SELECT mq.enqueue('ow', '{"n": 1}') AS id \gset
INSERT INTO own.notes VALUES (:id, 'remember');
SELECT is(pg_temp.state('DELETE FROM own.tenants'), '23503', 'a foreign key of a message is kept');
SELECT is(pg_temp.state_as('mqo_user', $$ SELECT * FROM mq.dequeue('ow', auto_ack => true) $$), '00000', 'a consumer acknowledges');
SELECT is_empty('SELECT * FROM own.notes', '... and ON DELETE CASCADE runs');
SET ROLE mqo_owner;
ALTER TABLE mq.q_ow ALTER COLUMN tenant SET DEFAULT 't2';
RESET ROLE;
SELECT is(pg_temp.state($$ SELECT mq.enqueue('ow', '{"n": 1}') $$), '23503', 'a message whose foreign key finds nothing is refused');
SET ROLE mqo_owner;
ALTER TABLE mq.q_ow DROP CONSTRAINT fk;
DROP TABLE own.notes, own.tenants;

-- Row triggers run as the owner, whoever calls; under plain SQL as usual.
CREATE TABLE own.log (op text, who name, body jsonb, path text);
CREATE FUNCTION own.logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO own.log VALUES (TG_OP, current_user, coalesce(NEW.body, OLD.body), current_setting('search_path'));
    IF TG_WHEN = 'BEFORE' AND TG_OP = 'INSERT' THEN NEW.headers := '{"seen": true}'; END IF;
    IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER logged BEFORE INSERT ON mq.q_ow FOR EACH ROW EXECUTE FUNCTION own.logged();
CREATE TRIGGER logged_after AFTER UPDATE OR DELETE ON mq.q_ow FOR EACH ROW EXECUTE FUNCTION own.logged();
RESET ROLE;
SELECT is(pg_temp.state_as('mqo_user', $$ SELECT mq.enqueue('ow', '{"n": 7}') $$), '00000', 'enqueue with a trigger');
SELECT results_eq('SELECT op, who, body, path FROM own.log', $$ VALUES ('INSERT', 'mqo_owner'::name, '{"n": 7}'::jsonb, 'pg_catalog, pg_temp') $$,
    'the trigger ran as the owner, with a pinned search_path');
SELECT is((SELECT headers FROM mq.q_ow), '{"seen": true}'::jsonb, '... and its change is kept');
SELECT is(pg_temp.value_as('mqo_user', $$ SELECT mq.nack('ow', id, receipt) FROM mq.dequeue('ow') m $$), 'true', 'nack');
SELECT ok(pg_temp.until($$ (SELECT count(*) >= 1 FROM own.log WHERE op = 'UPDATE') $$), '... updates under the trigger');
SELECT is(pg_temp.value_as('mqo_user', $$ SELECT mq.ack(m) FROM mq.dequeue('ow', wait => '10 s') m $$), 'true', 'ack');
SELECT is((SELECT count(*) FROM own.log WHERE op = 'DELETE'), 1::bigint, '... deletes under the trigger');
SELECT is((SELECT string_agg(DISTINCT who, ',') FROM own.log), 'mqo_owner', 'all as the owner');
DELETE FROM own.log;
INSERT INTO mq.q_ow (body) VALUES ('{"n": 8}');
SELECT is((SELECT who FROM own.log), current_user, 'under plain SQL it is the caller, as usual');
SET ROLE mqo_owner;
CREATE OR REPLACE FUNCTION own.logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.body = '{"n": 9}' THEN RAISE EXCEPTION 'no nine' USING ERRCODE = 'P0999'; END IF;
    IF TG_OP = 'DELETE' THEN
        EXECUTE 'SET ROLE mqo_user';
    END IF;
    RETURN coalesce(NEW, OLD);
END $$;
RESET ROLE;
SELECT is(pg_temp.state($$ SELECT mq.enqueue('ow', '{"n": 9}') $$), 'P0999', 'a trigger''s error is the enqueue''s');
SELECT is((SELECT count(*) FROM mq.q_ow), 1::bigint, '... and nothing is there');
SELECT is(pg_temp.state($$ SELECT mq.ack(m) FROM mq.dequeue('ow') m $$), '42501', 'a trigger cannot change the role: the operation is restricted');
SELECT is((SELECT count(*) FROM mq.q_ow), 1::bigint, '... and the message is kept');
SET ROLE mqo_owner;
DROP TRIGGER logged ON mq.q_ow;
DROP TRIGGER logged_after ON mq.q_ow;
RESET ROLE;
SELECT results_eq($$ SELECT (body ->> 'n')::int FROM mq.dequeue('ow', wait => '10 s', auto_ack => true) $$, 'VALUES (8)', 'without the triggers it is consumed');
-- CHECK functions run as the owner too
SET ROLE mqo_owner;
CREATE FUNCTION own.is_owner() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN current_user = 'mqo_owner'; END $$;
ALTER TABLE mq.q_ow ADD CONSTRAINT as_owner CHECK (own.is_owner());
RESET ROLE;
SELECT is(pg_temp.state_as('mqo_user', $$ SELECT mq.enqueue('ow', '{"n": 10}') $$), '00000', 'a CHECK''s function runs as the owner');
SELECT is(pg_temp.state($$ INSERT INTO mq.q_ow (body) VALUES ('{"n": 11}') $$), '23514', '... under plain SQL as the caller');
SELECT is((SELECT current_user), session_user, 'the caller is who it was');
SET ROLE mqo_owner;
ALTER TABLE mq.q_ow DROP CONSTRAINT as_owner;
RESET ROLE;
SELECT is((SELECT count(*) FROM mq.dequeue('ow', 10, auto_ack => true)), 1::bigint, 'consumed');

-- Dead letters keep to their table's rules as well; the dead-letter table's owner decides there.
SET ROLE mqo_owner;
ALTER TABLE mq.q_ow_dead ADD COLUMN who text DEFAULT current_user;
RESET ROLE;
SELECT mq.enqueue('ow', '{"n": 12}');
SELECT is(pg_temp.value_as('mqo_user', $$ SELECT mq.reject('ow', id, receipt) FROM mq.dequeue('ow') m $$), 'true', 'rejected');
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_ow_dead)'), 'moved');
SELECT is((SELECT who FROM mq.q_ow_dead), 'mqo_owner', '... as the owner');

-- Rules and row-level security are refused, never bypassed silently.
CREATE TEMP TABLE verbs (sql text);
INSERT INTO verbs VALUES ($$SELECT mq.enqueue('ow', '1')$$), ($$SELECT mq.enqueue_batch('ow', '{1}')$$), ($$SELECT * FROM mq.dequeue('ow')$$),
    ($$SELECT * FROM mq.browse('ow')$$);
ALTER TABLE mq.q_ow ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.state_as('mqo_user', sql), '0A000', 'row-level security: ' || sql) FROM verbs WHERE sql NOT LIKE '%browse%';
SELECT is_empty('SELECT * FROM mq.q_ow', 'and nothing is written');
ALTER TABLE mq.q_ow DISABLE ROW LEVEL SECURITY;
CREATE RULE nothing AS ON INSERT TO mq.q_ow DO INSTEAD NOTHING;
SELECT is(pg_temp.state_as('mqo_user', sql), '0A000', 'a rule: ' || sql) FROM verbs WHERE sql LIKE '%enqueue%';
DROP RULE nothing ON mq.q_ow;
SELECT mq.enqueue('ow', '"free again"');
SELECT is((SELECT body FROM mq.dequeue('ow', auto_ack => true)), '"free again"'::jsonb, 'without them all is as before');

-- Dropping the added columns leaves holes in the row, which nothing minds.
ALTER TABLE mq.q_ow DROP COLUMN n, DROP COLUMN tenant;
SELECT mq.enqueue_batch('ow', '{1,2}', keys => '{a,b}');
SELECT results_eq($$ SELECT body, key FROM mq.dequeue('ow', 10, auto_ack => true) $$, $$ VALUES ('1'::jsonb, 'a'), ('2', 'b') $$, 'after dropping columns');
SELECT mq.drop_queue(q) FROM unnest('{ow,ow_dead}'::text[]) q;
DROP SCHEMA own CASCADE;
DROP OWNED BY mqo_owner, mqo_user;
DROP ROLE mqo_owner, mqo_user;
SELECT * FROM finish();
