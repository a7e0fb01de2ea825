-- What the owner hangs on the tables runs as the owner, restricted, when the worker writes failures and moves dead letters too.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqw_owner,mqw_consumer}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
END $$;
SELECT mq.create_queue('wo', backoff => '0', max_attempts => 2, lease => '1 h');
ALTER TABLE mq.q_wo OWNER TO mqw_owner;
ALTER TABLE mq.q_wo_dead OWNER TO mqw_owner;
SELECT mq.grant('wo', 'mqw_consumer', 'receive');
CREATE SCHEMA wo AUTHORIZATION mqw_owner;
SET ROLE mqw_owner;
CREATE TABLE wo.log (tab text, op text, who text, path text, pid int DEFAULT pg_backend_pid());
CREATE FUNCTION wo.logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO wo.log VALUES (TG_TABLE_NAME, TG_WHEN || ' ' || TG_OP, current_user, current_setting('search_path'));
    RETURN coalesce(NEW, OLD);
END $$;
CREATE TRIGGER logged BEFORE UPDATE OR DELETE ON mq.q_wo FOR EACH ROW EXECUTE FUNCTION wo.logged();
CREATE TRIGGER logged_after AFTER UPDATE OR DELETE ON mq.q_wo FOR EACH ROW EXECUTE FUNCTION wo.logged();
CREATE TRIGGER logged BEFORE INSERT ON mq.q_wo_dead FOR EACH ROW EXECUTE FUNCTION wo.logged();
CREATE TABLE wo.child (message bigint REFERENCES mq.q_wo ON DELETE CASCADE);
CREATE TRIGGER logged BEFORE DELETE ON wo.child FOR EACH ROW EXECUTE FUNCTION wo.logged();
RESET ROLE;

-- An ended lease, written by the worker.
SELECT mq.enqueue('wo', '1') AS id \gset
INSERT INTO wo.child VALUES (:id);
SELECT is(pg_temp.value_as('mqw_consumer', $$ SELECT attempt FROM mq.dequeue('wo', lease => '1 ms') $$), '1', 'a consumer without a right to UPDATE');
SELECT ok(pg_temp.until($$ (SELECT attempts = 1 FROM mq.q_wo) $$), 'the worker writes the failure');
SELECT set_eq($$ SELECT tab, op, who, path, pid <> pg_backend_pid() FROM wo.log $$,
    $$ VALUES ('q_wo', 'BEFORE UPDATE', 'mqw_owner', 'pg_catalog, pg_temp', true), ('q_wo', 'AFTER UPDATE', 'mqw_owner', 'pg_catalog, pg_temp', true) $$,
    '... under the owner''s triggers, as the owner, in the worker');
DELETE FROM wo.log;
SELECT is(pg_temp.value_as('mqw_consumer', $$ SELECT attempt FROM mq.dequeue('wo', lease => '1 ms', wait => '10 s') $$), '2', 'the last attempt');
SELECT ok(pg_temp.until($$ (SELECT count(*) = 1 FROM mq.q_wo_dead) AND (SELECT count(*) = 0 FROM mq.q_wo) $$), 'the worker moves it to the dead letters');
SELECT set_eq($$ SELECT tab, op, who, path, pid <> pg_backend_pid() FROM wo.log $$,
    $$ VALUES ('q_wo', 'BEFORE DELETE', 'mqw_owner', 'pg_catalog, pg_temp', true), ('q_wo', 'AFTER DELETE', 'mqw_owner', 'pg_catalog, pg_temp', true),
              ('q_wo_dead', 'BEFORE INSERT', 'mqw_owner', 'pg_catalog, pg_temp', true), ('child', 'BEFORE DELETE', 'mqw_owner', 'pg_catalog, pg_temp', true) $$,
    '... under the triggers of both tables and of the one whose foreign key cascades, all as the owner');
SELECT is((SELECT count(*) FROM wo.child), 0::bigint, '... which lost its row');
DELETE FROM wo.log;
-- The same by the consumer's own reject.
SELECT mq.enqueue('wo', '2');
SELECT is(pg_temp.value_as('mqw_consumer', $$ SELECT mq.reject('wo', id, receipt) FROM mq.dequeue('wo') m $$), 'true', 'a reject');
SELECT is((SELECT string_agg(DISTINCT who || ' ' || path, ',') FROM wo.log), 'mqw_owner pg_catalog, pg_temp', '... runs them as the owner too');
SELECT is((SELECT count(*) FROM wo.log WHERE pid = pg_backend_pid()), 3::bigint, '... in the consumer''s session');

-- A row whose trigger fails keeps the worker from no other.
SET ROLE mqw_owner;
CREATE FUNCTION wo.fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'never'; END $$;
CREATE TRIGGER fails BEFORE UPDATE ON mq.q_wo FOR EACH ROW WHEN (NEW.body = '"bad"') EXECUTE FUNCTION wo.fails();
RESET ROLE;
SELECT mq.enqueue_batch('wo', '{"\"bad\"","\"good\""}');
SELECT count(*) FROM mq.dequeue('wo', 2, lease => '1 ms') \gset
SELECT ok(pg_temp.until($$ (SELECT attempts = 1 FROM mq.q_wo WHERE body = '"good"') $$), 'a trigger that fails keeps the worker from no other row');
SELECT is((SELECT attempts FROM mq.q_wo WHERE body = '"bad"'), 0, '... only from its own');
CREATE TEMP TABLE again (body text, attempt int);
DO $$
BEGIN
    FOR i IN 1..2 LOOP
        INSERT INTO again SELECT body #>> '{}', attempt FROM mq.dequeue('wo', wait => '10 s', lease => '1 h');
        COMMIT;
    END LOOP;
END $$;
SELECT results_eq('SELECT body, attempt FROM again ORDER BY body', $$ VALUES ('bad', 2), ('good', 2) $$, '... and both are delivered again, counted');

DROP SCHEMA wo CASCADE;
SELECT mq.drop_queue(q) FROM unnest('{wo,wo_dead}'::text[]) q;
DROP OWNED BY mqw_owner, mqw_consumer;
DROP ROLE mqw_owner, mqw_consumer;
SELECT * FROM finish();
