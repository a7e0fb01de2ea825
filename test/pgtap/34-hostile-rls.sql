-- Row-level security on a queue's table: every verb is refused with 0A000, for whomever it would hold and whomever it would not; it is never bypassed.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqr_owner,mqr_user,mqr_bypass}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
    ALTER ROLE mqr_bypass BYPASSRLS;
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO mqr_owner',
                   (SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue'));
END $$;
SET ROLE mqr_owner;
SELECT mq.create_queue('rl', backoff => '0', max_attempts => 2, lease => '1 h') \g /dev/null
SELECT mq.create_queue('rl_src', backoff => '0', max_attempts => 1, dead_letter => 'rl', lease => '1 h') \g /dev/null
SELECT mq.grant(q, r, p) FROM unnest('{rl,rl_src}'::text[]) q, unnest('{mqr_user,mqr_bypass}'::name[]) r, unnest('{send,receive,browse}'::text[]) p \g /dev/null
SELECT mq.enqueue_batch(q, '{1,2,3}') FROM unnest('{rl,rl_src}'::text[]) q \g /dev/null
RESET ROLE;
SELECT id, receipt FROM mq.dequeue('rl') \gset
CREATE TEMP TABLE verbs (n int GENERATED ALWAYS AS IDENTITY, sql text, owner_only boolean DEFAULT false);
INSERT INTO verbs (sql) VALUES ($$SELECT mq.enqueue('rl', '1')$$), ($$SELECT mq.enqueue_batch('rl', '{1,2}')$$), ($$SELECT * FROM mq.dequeue('rl')$$),
    ($$SELECT * FROM mq.dequeue('rl', auto_ack => true)$$), ($$SELECT * FROM mq.dequeue('rl', wait => '1 ms')$$), ($$SELECT * FROM mq.ack_dequeue('rl', '{}', '{}')$$),
    (format($$SELECT mq.ack('rl', %s, %s)$$, :id, :receipt)), (format($$SELECT mq.ack_batch('rl', '{%s}', '{%s}')$$, :id, :receipt)),
    (format($$SELECT mq.nack('rl', %s, %s)$$, :id, :receipt)), (format($$SELECT mq.nack_batch('rl', '{%s}', '{%s}')$$, :id, :receipt)),
    (format($$SELECT mq.reject('rl', %s, %s)$$, :id, :receipt)), (format($$SELECT mq.reject_batch('rl', '{%s}', '{%s}')$$, :id, :receipt)),
    (format($$SELECT mq.release('rl', %s, %s)$$, :id, :receipt)), (format($$SELECT mq.release_batch('rl', '{%s}', '{%s}')$$, :id, :receipt)),
    (format($$SELECT mq.extend('rl', %s, %s, '1 h')$$, :id, :receipt)), (format($$SELECT mq.extend_batch('rl', '{%s}', '{%s}', '1 h')$$, :id, :receipt)),
    (format($$SELECT mq.ack(ROW('rl', %s, %s, 1, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::mq.message)$$, :id, :receipt)),
    ($$SELECT * FROM mq.browse('rl')$$), (format($$SELECT mq.status('rl', %s)$$, :id));
INSERT INTO verbs (sql, owner_only) VALUES ($$SELECT mq.purge('rl')$$, true), ($$SELECT mq.delete('rl', '{1,2,3}')$$, true), ($$SELECT mq.redrive('rl', target => 'rl_src')$$, true);
CREATE TEMP TABLE before AS SELECT * FROM mq.q_rl;
CREATE TEMP TABLE modes (n int, name text, sql text);
INSERT INTO modes VALUES (1, 'enabled', 'ALTER TABLE mq.q_rl ENABLE ROW LEVEL SECURITY'), (2, 'forced', 'ALTER TABLE mq.q_rl FORCE ROW LEVEL SECURITY'),
    (3, 'with a policy for all', 'CREATE POLICY everybody ON mq.q_rl USING (true) WITH CHECK (true)');
-- each mode commits before the verbs of all roles run under it
SELECT m.sql, format($q$SELECT is(pg_temp.state_as(w, v.sql), '0A000', %L || w || ': ' || v.sql)
                        FROM unnest('{mqr_owner,mqr_user,mqr_bypass}'::name[] || current_user) w, verbs v
                        WHERE NOT v.owner_only OR w IN ('mqr_owner', current_user) ORDER BY w, v.n$q$, m.name || ', ')
    FROM modes m ORDER BY m.n \gexec
SET row_security = off;
SELECT is(pg_temp.state_as(w, v.sql), '0A000', 'row_security = off, ' || w || ': ' || v.sql)
    FROM unnest('{mqr_owner,mqr_user}'::name[]) w, verbs v WHERE v.sql ~ 'mq\.(enqueue|dequeue|browse|status)\(' ORDER BY w, v.n;
RESET row_security;
SELECT results_eq('SELECT * FROM mq.q_rl ORDER BY id', 'SELECT * FROM before ORDER BY id', 'nothing was written');
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'rl'), 1::bigint, '... the lease is as it was');
\set ON_ERROR_STOP off
CALL mq.wait('rl', '1 ms');
\set ON_ERROR_STOP on
SELECT is(:'SQLSTATE'::text, '0A000', 'mq.wait');

-- A dead-letter queue with row-level security takes nothing; what was to go there is kept.
SELECT is(pg_temp.state($$SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rl_src') m$$), '0A000', 'a reject into it');
SELECT is((SELECT count(*) FROM mq.q_rl_src), 3::bigint, '... keeps the message');
SELECT count(*) FROM mq.dequeue('rl_src', lease => '1 ms') \gset
SELECT ok(pg_temp.until($$(SELECT count(*) = 0 FROM mq.in_flight WHERE queue = 'rl_src')$$), 'a lease on the last attempt ends');
SELECT ok(pg_temp.until($$(SELECT expired = 1 FROM mq.stats WHERE queue = 'rl_src')$$), '... and is counted');
SELECT is((SELECT count(*) FROM mq.q_rl_src), 3::bigint, '... the worker keeps the message');
SELECT results_eq('SELECT * FROM mq.q_rl ORDER BY id', 'SELECT * FROM before ORDER BY id', '... and writes nothing around the policy');

-- FORCE alone is none, and without it all is as before.
ALTER TABLE mq.q_rl DISABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.state_as(w, v.sql), '00000', 'forced but not enabled, ' || w || ': ' || v.sql)
    FROM unnest('{mqr_owner,mqr_user}'::name[]) w, verbs v WHERE v.sql ~ 'mq\.(enqueue|browse|status|extend)\(' ORDER BY w, v.n;
SELECT is(mq.ack('rl', :id, :receipt), true, 'the delivery from before is settled');

SELECT mq.delete('rl_src', ARRAY(SELECT id FROM mq.q_rl_src)) \g /dev/null
SELECT mq.drop_queue(q) FROM unnest('{rl_src,rl,rl_dead}'::text[]) q \g /dev/null
DROP OWNED BY mqr_owner, mqr_user, mqr_bypass;
DROP ROLE mqr_owner, mqr_user, mqr_bypass;
SELECT * FROM finish();
