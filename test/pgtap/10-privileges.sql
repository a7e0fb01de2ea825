-- GRANTs on the queue's table decide: send, receive, browse, owner, superuser, stranger.
\ir setup.psql
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqt_owner,mqt_send,mqt_receive,mqt_browse,mqt_none,mqt_monitor}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
    GRANT pg_monitor TO mqt_monitor;
END $$;

-- Who may create.
SELECT is(pg_temp.state_as('mqt_none', $$ SELECT mq.create_queue('pr') $$), '42501', 'create_queue is revoked from PUBLIC');
SELECT is(pg_temp.state_as('mqt_none', $$ SELECT mq.create_exchange('pr') $$), '42501', 'so is create_exchange');
SELECT is(has_schema_privilege('mqt_none', 'mq', 'CREATE'), false, 'nobody has CREATE on the schema');
SELECT is(has_schema_privilege('mqt_none', 'mq', 'USAGE'), true, 'everybody USAGE');
DO $$
DECLARE f regprocedure;
BEGIN
    SELECT oid::regprocedure INTO STRICT f FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue';
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO mqt_owner', f);
END $$;
SELECT is(pg_temp.state_as('mqt_owner', $$ SELECT mq.create_queue('pr', backoff => '0') $$), '00000', 'EXECUTE on it is enough');
SELECT is((SELECT owner::text FROM mq.queues WHERE name = 'pr'), 'mqt_owner', 'who creates owns');
SELECT is((SELECT string_agg(DISTINCT pg_get_userbyid(relowner), ',') FROM pg_class WHERE relnamespace = 'mq'::regnamespace AND relname LIKE 'q\_pr%'),
    'mqt_owner', '... the table, its sequence and the dead letters');
SELECT is(has_schema_privilege('mqt_owner', 'mq', 'CREATE'), false, 'still without CREATE on the schema');
SELECT is(pg_temp.state_as('mqt_owner', 'CREATE TABLE mq.q_mine (id int)'), '42501', 'no way round it');
SELECT mq.create_queue('pr_su', dead_letter => '');
SELECT is(pg_temp.state_as('mqt_owner', $$ SELECT mq.create_queue('pr2', dead_letter => 'pr_su') $$), '42501',
    'naming a dead-letter queue takes INSERT there');
SELECT is(to_regclass('mq.q_pr2'), NULL, '... and leaves nothing half-done');
SELECT is(pg_temp.state_as('mqt_owner', $$ SELECT mq.alter_queue('pr', dead_letter => 'pr_su') $$), '42501', 'altering too');
SELECT mq.grant('pr_su', 'mqt_owner', 'send');
SELECT is(pg_temp.state_as('mqt_owner', $$ SELECT mq.create_queue('pr2', dead_letter => 'pr_su') $$), '00000', 'with INSERT it goes');
SELECT mq.drop_queue('pr2');

-- Grants in one call, by the owner.
SELECT is(pg_temp.state_as('mqt_owner', $$ SELECT mq.grant('pr', 'mqt_send', 'send'), mq.grant('pr', 'mqt_receive', 'receive'), mq.grant('pr', 'mqt_browse', 'browse') $$),
    '00000', 'the owner grants');
SELECT is(pg_temp.state_as('mqt_none', $$ SELECT mq.grant('pr', 'mqt_none', 'send') $$), '42501', 'nobody else');
SELECT is(pg_temp.state_as('mqt_receive', $$ SELECT mq.revoke('pr', 'mqt_send', 'send') $$), '42501', '... revokes either');
SELECT is(has_table_privilege('mqt_send', 'mq.q_pr', 'INSERT'), true, 'send is INSERT');
SELECT is(has_table_privilege('mqt_send', 'mq.q_pr', 'SELECT, DELETE, UPDATE'), false, '... and no more');
SELECT is(has_table_privilege('mqt_receive', 'mq.q_pr', 'SELECT') AND has_table_privilege('mqt_receive', 'mq.q_pr', 'DELETE'), true, 'receive is SELECT and DELETE');
SELECT is(has_table_privilege('mqt_receive', 'mq.q_pr', 'INSERT, UPDATE'), false, '... and no more');
SELECT is(has_table_privilege('mqt_browse', 'mq.q_pr', 'SELECT'), true, 'browse is SELECT');
SELECT is(has_table_privilege('mqt_browse', 'mq.q_pr', 'INSERT, UPDATE, DELETE'), false, '... and no more');

-- Each verb by each role.
CREATE TEMP TABLE verbs (verb text, allowed name[]);
INSERT INTO verbs VALUES
    ($$SELECT mq.enqueue('pr', '1')$$, '{mqt_send,mqt_owner}'), ($$SELECT mq.enqueue_batch('pr', '{1,2}')$$, '{mqt_send,mqt_owner}'),
    ($$INSERT INTO mq.q_pr (body) VALUES ('1')$$, '{mqt_send,mqt_owner}'),
    ($$SELECT * FROM mq.dequeue('pr')$$, '{mqt_receive,mqt_owner}'), ($$SELECT * FROM mq.dequeue('pr', auto_ack => true)$$, '{mqt_receive,mqt_owner}'),
    ($$SELECT * FROM mq.ack_dequeue('pr', '{}', '{}')$$, '{mqt_receive,mqt_owner}'),
    ($$SELECT mq.ack('pr', 1, 1)$$, '{mqt_receive,mqt_owner}'), ($$SELECT mq.ack_batch('pr', '{1}', '{1}')$$, '{mqt_receive,mqt_owner}'),
    ($$SELECT mq.nack('pr', 1, 1)$$, '{mqt_receive,mqt_owner}'), ($$SELECT mq.nack_batch('pr', '{1}', '{1}')$$, '{mqt_receive,mqt_owner}'),
    ($$SELECT mq.reject('pr', 1, 1)$$, '{mqt_receive,mqt_owner}'), ($$SELECT mq.reject_batch('pr', '{1}', '{1}')$$, '{mqt_receive,mqt_owner}'),
    ($$SELECT mq.release('pr', 1, 1)$$, '{mqt_receive,mqt_owner}'), ($$SELECT mq.release_batch('pr', '{1}', '{1}')$$, '{mqt_receive,mqt_owner}'),
    ($$SELECT mq.extend('pr', 1, 1, '1 s')$$, '{mqt_receive,mqt_owner}'), ($$SELECT mq.extend_batch('pr', '{1}', '{1}', '1 s')$$, '{mqt_receive,mqt_owner}'),
    ($$SELECT * FROM mq.browse('pr')$$, '{mqt_browse,mqt_receive,mqt_owner}'), ($$SELECT mq.status('pr', 1)$$, '{mqt_browse,mqt_receive,mqt_owner}'),
    ($$SELECT mq.purge('pr')$$, '{mqt_owner}'), ($$SELECT mq.pause('pr')$$, '{mqt_owner}'), ($$SELECT mq.resume('pr')$$, '{mqt_owner}'),
    ($$SELECT mq.delete('pr', '{1}')$$, '{mqt_owner}'), ($$SELECT mq.redrive('pr')$$, '{mqt_owner}'), ($$SELECT mq.alter_queue('pr', lease => '31 s')$$, '{mqt_owner}'),
    ($$SELECT mq.grant('pr', 'mqt_send', 'send')$$, '{mqt_owner}'), ($$SELECT mq.revoke('pr', 'mqt_none', 'send')$$, '{mqt_owner}');
SELECT is(pg_temp.state_as(who, verb), CASE WHEN who = ANY (allowed) THEN '00000' ELSE '42501' END, who || ': ' || verb)
  FROM verbs, unnest('{mqt_send,mqt_receive,mqt_browse,mqt_none,mqt_owner}'::name[]) WITH ORDINALITY w(who, n) ORDER BY n, verb;
SELECT is(pg_temp.state_as('mqt_receive', $$ SELECT mq.drop_queue('pr') $$), '42501', 'only the owner drops');
SELECT is(pg_temp.state_as('mqt_none', $$ SELECT mq.drop_queue('pr') $$), '42501', 'a stranger does not');

-- A whole delivery by role, and a failure that writes although the consumer may not UPDATE.
SELECT mq.delete('pr', ARRAY(SELECT id FROM mq.q_pr));
SELECT is(pg_temp.state_as('mqt_send', $$ SELECT mq.enqueue('pr', '"job"') $$), '00000', 'sent');
SELECT is(pg_temp.value_as('mqt_receive', $$ SELECT mq.nack('pr', id, receipt, reason => 'x') FROM mq.dequeue('pr') m $$), 'true', 'received and nacked');
SELECT is(pg_temp.value_as('mqt_receive', $$ SELECT attempt FROM mq.dequeue('pr', wait => '10 s') $$), '2', 'again, counted');
SELECT is(pg_temp.value_as('mqt_receive', $$ SELECT mq.reject('pr', id, receipt, 'dead') FROM mq.in_flight WHERE queue = 'pr' $$), 'true', 'rejected');
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_pr_dead)'), 'into dead letters where the consumer has no right');
SELECT is(pg_temp.state_as('mqt_receive', 'SELECT * FROM mq.q_pr_dead'), '42501', '... and gets none');

-- Views show what one has some privilege on; pg_monitor sees all.
SELECT mq.enqueue('pr', '1');
SELECT count(*) FROM mq.dequeue('pr', lease => '1 h') \gset
CREATE TEMP TABLE sight (who name, queues text);
INSERT INTO sight VALUES ('mqt_send', 'pr'), ('mqt_receive', 'pr'), ('mqt_browse', 'pr'), ('mqt_none', NULL), ('mqt_owner', 'pr,pr_dead,pr_su'),
    ('mqt_monitor', 'pr,pr_dead,pr_su');
SELECT is(pg_temp.value_as(who, $$ SELECT string_agg(name, ',' ORDER BY name) FROM mq.queues WHERE name LIKE 'pr%' $$), queues, who || ' in mq.queues') FROM sight;
SELECT is(pg_temp.value_as(who, $$ SELECT string_agg(queue, ',' ORDER BY queue) FROM mq.stats WHERE queue LIKE 'pr%' $$), queues, who || ' in mq.stats') FROM sight;
SELECT is(pg_temp.value_as(who, $$ SELECT string_agg(queue, ',') FROM mq.in_flight WHERE queue LIKE 'pr%' $$), left(queues, 2), who || ' in mq.in_flight') FROM sight;

-- Revoking takes it away at once.
SELECT mq.revoke('pr', 'mqt_send', 'send');
SELECT is(pg_temp.state_as('mqt_send', $$ SELECT mq.enqueue('pr', '1') $$), '42501', 'revoked');
REVOKE DELETE ON mq.q_pr FROM mqt_receive;
SELECT is(pg_temp.state_as('mqt_receive', $$ SELECT * FROM mq.dequeue('pr') $$), '42501', 'plain REVOKE too: SELECT alone does not dequeue');
GRANT INSERT ON mq.q_pr TO mqt_send;
SELECT is(pg_temp.state_as('mqt_send', $$ SELECT mq.enqueue('pr', '1') $$), '00000', 'plain GRANT too');
SELECT is(pg_temp.state_as('mqt_none', $$ SELECT * FROM mq.queue$ $$) <> '00000' OR
          pg_temp.state_as('mqt_none', $$ INSERT INTO mq.queue$ SELECT * FROM mq.queue$ $$) = '42501', true, 'the catalog is nobody''s to write');
SELECT is(pg_temp.state_as('mqt_none', $$ DELETE FROM mq.queue$ $$), '42501', '... nor to delete');
SELECT is_empty($$ SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'mq'::regnamespace AND prosecdef
                      AND NOT coalesce(proconfig::text LIKE '%search_path=%', false) $$, 'no SECURITY DEFINER function without a pinned path');

SELECT mq.drop_queue(q) FROM unnest('{pr,pr_dead,pr_su}'::text[]) q;
DROP OWNED BY mqt_owner, mqt_send, mqt_receive, mqt_browse, mqt_none, mqt_monitor;
DROP ROLE mqt_owner, mqt_send, mqt_receive, mqt_browse, mqt_none, mqt_monitor;
SELECT * FROM finish();
