-- Dead letters through an exchange: every reason, several queues, what leads nowhere, circles, rights at the time of death, redrive, rollback.
\ir setup.psql
-- The deaths of a message, newest first.
CREATE FUNCTION pg_temp.deaths(headers jsonb) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(concat_ws(' ', d.v ->> 'queue', d.v ->> 'reason', d.v ->> 'attempts', d.v ->> 'error'), ', ' ORDER BY d.n) FROM jsonb_array_elements(headers -> 'x-death') WITH ORDINALITY d (v, n)
$$;
SELECT mq.create_exchange('dx'), mq.create_queue('sink', dead_letter => '', backoff => '0'), mq.create_queue('sink2', dead_letter => ''), mq.create_queue('s', max_attempts => 2, backoff => '0', dead_letter_exchange => 'dx');
SELECT mq.bind('dx', 'sink', 's');
SELECT results_eq($$ SELECT dead_letter COLLATE "default", dead_letter_exchange COLLATE "default", dead_letter_key COLLATE "default" FROM mq.queues WHERE name = 's' $$, $$ VALUES ('s_dead', 'dx', NULL) $$, 'the options');

-- rejected; the key is the queue's name.
SELECT mq.enqueue('s', '{"n": 1}', '{"trace": "t", "x-exchange": "forged"}', priority => 4, key => 'kk', dedup_id => 'dd', ttl => '1 hour') AS id \gset
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt, 'bad') FROM mq.dequeue('s') m), true, 'rejected');
SELECT is_empty('SELECT * FROM mq.q_s', 'gone from its queue');
SELECT is_empty('SELECT * FROM mq.q_s_dead', 'not in the dead-letter queue');
SELECT results_eq($$ SELECT body, headers - 'x-death', priority::int, key, dedup_id, attempts, ready_at, expires_at, last_error FROM mq.q_sink $$,
    $$ VALUES ('{"n": 1}'::jsonb, '{"trace": "t", "x-exchange": "dx", "x-routing-key": "s"}'::jsonb, 4, 'kk', 'dd', 0, NULL::timestamptz, NULL::timestamptz, 'bad') $$, 'in the queue the exchange leads to');
SELECT is((SELECT pg_temp.deaths(headers) FROM mq.q_sink), 's rejected 1 bad', 'x-death');
SELECT set_eq($$ SELECT k FROM mq.q_sink, jsonb_object_keys(headers -> 'x-death' -> 0) k $$, '{queue,id,reason,attempts,at,error}'::text[], '... is as with a dead-letter queue');
SELECT is((SELECT (headers -> 'x-death' -> 0 ->> 'id')::bigint FROM mq.q_sink), :id::bigint, '... with the id it had');
SELECT is((SELECT dead FROM mq.stats WHERE queue = 's'), 1::bigint, 'counted');
SELECT is((SELECT enqueued FROM mq.stats WHERE queue = 'sink'), 1::bigint, '... on both sides');

-- Back, and dead by attempts; redrive follows bindings and alternates.
SELECT is(mq.redrive('sink'), 1::bigint, 'redrive to where it died');
SELECT results_eq('SELECT body, attempts FROM mq.q_s', $$ VALUES ('{"n": 1}'::jsonb, 0) $$, '... it is back');
SELECT is((SELECT mq.nack(m.queue, m.id, m.receipt, reason => 'one') FROM mq.dequeue('s') m), true, 'first failure');
SELECT is((SELECT mq.nack(m.queue, m.id, m.receipt, reason => 'two') FROM mq.dequeue('s', wait => '10 s') m), true, 'second');
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_sink)'), 'dead by attempts');
SELECT is((SELECT pg_temp.deaths(headers) FROM mq.q_sink), 's attempts 2 two, s rejected 1 bad', 'x-death, newest first');
SELECT mq.purge('sink');

-- Where it was published before its first death stays, over all deaths; forged headers of an enqueue count as such.
SELECT mq.create_exchange('first'), mq.bind('first', 's', 'a.#');
SELECT is(mq.publish('first', 'a.b', '"pub"'), 1, 'published');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true);
SELECT is((SELECT headers - 'x-death' FROM mq.q_sink), '{"x-exchange": "dx", "x-routing-key": "s", "x-first-death-exchange": "first", "x-first-death-routing-key": "a.b"}', 'where it was published first');
SELECT is(mq.redrive('sink'), 1::bigint);
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true);
SELECT is((SELECT headers - 'x-death' FROM mq.q_sink), '{"x-exchange": "dx", "x-routing-key": "s", "x-first-death-exchange": "first", "x-first-death-routing-key": "a.b"}', '... after another death too');
SELECT mq.drop_exchange('first'), mq.purge('sink');

-- Given key; to several queues at once, through exchanges; the deaths are the same.
SELECT mq.alter_queue('s', dead_letter_key => 'dead.letters.of.s');
SELECT mq.create_exchange('dy', 'fanout'), mq.create_exchange('dz', alternate => 'dy');
SELECT mq.bind_exchange('dx', 'dz', 'dead.#'), mq.bind('dy', 'sink'), mq.bind('dy', 'sink2');
SELECT mq.enqueue('s', '1'), mq.enqueue('s', '2');
SELECT is((SELECT mq.reject_batch('s', array_agg(id), array_agg(receipt)) FROM mq.dequeue('s', 2)), 2, 'two rejected');
SELECT results_eq($$ SELECT body, headers ->> 'x-routing-key' FROM mq.q_sink ORDER BY id $$, $$ VALUES ('1'::jsonb, 'dead.letters.of.s'), ('2', 'dead.letters.of.s') $$, 'the key given');
SELECT results_eq('SELECT body, headers FROM mq.q_sink2 ORDER BY id', 'SELECT body, headers FROM mq.q_sink ORDER BY id', 'each queue has the same');
SELECT is(mq.redrive('sink2'), 2::bigint, 'redrive through an exchange and its alternate');
SELECT is((SELECT count(*) FROM mq.dequeue('s', 10, auto_ack => true)), 2::bigint, '... they are back');
SELECT mq.unbind('dy', 'sink'), mq.unbind('dx', 'sink', 's');
SELECT is(mq.redrive('sink'), 0::bigint, 'not from where the exchange does not lead');
SELECT is(mq.redrive('sink', target => 's'), 2::bigint, 'with a target they go');
SELECT mq.purge('s');

-- expired, in batches, one of them leased at the time.
SELECT mq.bind('dy', 'sink');
SELECT count(*) FROM mq.enqueue_batch('s', array_fill('"exp"'::jsonb, '{2500}'), ttl => '1 ms') \g /dev/null
SELECT ok(pg_temp.until('(SELECT count(*) = 2500 FROM mq.q_sink)'), 'expired');
SELECT is((SELECT count(*) FROM mq.q_sink2), 2500::bigint, '... into both');
SELECT is((SELECT string_agg(DISTINCT pg_temp.deaths(headers), '; ') FROM mq.q_sink), 's expired 0', 'the reason');
SELECT is((SELECT count(DISTINCT headers -> 'x-death' -> 0 -> 'id') FROM mq.q_sink2), 2500::bigint, 'each once');
DELETE FROM mq.q_sink; DELETE FROM mq.q_sink2;

-- maxlen, by drop_head.
SELECT mq.alter_queue('s', max_length => 2, overflow => 'drop_head');
DO $$ BEGIN FOR n IN 1..5 LOOP PERFORM mq.enqueue('s', to_jsonb(n)); COMMIT; END LOOP; END $$;
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_s), '{4,5}', 'drop_head keeps the newest');
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_sink), '{1,2,3}', 'the others are dead');
SELECT is((SELECT string_agg(DISTINCT pg_temp.deaths(headers), '; ') FROM mq.q_sink2), 's maxlen 0', 'the reason');
SELECT is(mq.publish('', 's', '6'), 1, 'by a publish');
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_sink), '{1,2,3,4}', '... too');
SELECT mq.alter_queue('s', unset => '{max_length}');
SELECT mq.purge(q) FROM unnest('{s,sink,sink2}'::text[]) q;

-- Dead letters are never refused, by no max_length; a trigger of the target's owner may.
SELECT mq.create_queue('tight', dead_letter => '', max_length => 1), mq.bind('dy', 'tight');
SELECT mq.enqueue_batch('s', '{1,2,3}');
SELECT is((SELECT mq.reject_batch('s', array_agg(id), array_agg(receipt)) FROM mq.dequeue('s', 3)), 3, 'three dead letters');
SELECT is((SELECT count(*) FROM mq.q_tight), 3::bigint, 'in a queue of one');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('tight', '1') $$), '53400', '... which takes no other');
SELECT mq.unbind('dy', 'tight'), mq.drop_queue('tight'), mq.purge('sink'), mq.purge('sink2');
-- remembered dedup_ids do not count either: a message is not lost for having been there
SELECT mq.enqueue('sink', '"first"', dedup_id => 'same'), mq.enqueue('s', '"dead"', dedup_id => 'same');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true);
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.q_sink), '{"\"first\"","\"dead\""}', 'a remembered dedup_id does not keep a dead letter out');
SELECT mq.purge('sink'), mq.purge('sink2');
-- each queue's own ttl
SELECT mq.alter_queue('sink', ttl => '1 hour');
SELECT mq.enqueue('s', '1');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true);
SELECT ok((SELECT expires_at > now() + interval '50 min' FROM mq.q_sink), 'it expires by the ttl of the queue it goes to');
SELECT ok((SELECT expires_at IS NULL FROM mq.q_sink2), '... or not at all');
SELECT mq.alter_queue('sink', unset => '{ttl}'), mq.purge('sink'), mq.purge('sink2');
-- an ordered queue takes them, whatever their priority
SELECT mq.create_queue('so', dead_letter => '', ordered => true), mq.bind('dy', 'so');
SELECT mq.enqueue('s', '1', key => 'k', priority => 1), mq.enqueue('s', '2', key => 'k', priority => 9);
SELECT count(mq.reject(m.queue, m.id, m.receipt)) FROM mq.dequeue('s', 2) m;
SELECT is((SELECT array_agg(body) FROM mq.dequeue('so', auto_ack => true)), '{2}', 'the first that died');
SELECT is((SELECT array_agg(body) FROM mq.dequeue('so', auto_ack => true)), '{1}', '... then the next');
SELECT mq.unbind('dy', 'so'), mq.purge('sink'), mq.purge('sink2');

-- What the exchange leads nowhere goes to the dead-letter queue, or is dropped.
SELECT mq.alter_queue('s', dead_letter_key => 'nowhere');
SELECT mq.enqueue('s', '"lost"');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt, 'why') FROM mq.dequeue('s') m), true);
SELECT results_eq('SELECT body, pg_temp.deaths(headers) FROM mq.q_s_dead', $$ VALUES ('"lost"'::jsonb, 's rejected 1 why') $$, 'to the dead-letter queue');
SELECT is(mq.redrive('s_dead'), 1::bigint, 'redrive from there');
SELECT mq.alter_queue('s', dead_letter => '');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true, 'without one');
SELECT is((SELECT count(*) FROM mq.q_s) + (SELECT count(*) FROM mq.q_s_dead) + (SELECT count(*) FROM mq.q_sink), 0::bigint, 'it is dropped');
SELECT mq.alter_queue('s', dead_letter => 's_dead', dead_letter_key => 'dead.x');
-- a queue among several whose table is gone is skipped
SELECT mq.create_queue('hand', dead_letter => ''), mq.bind('dy', 'hand');
DROP TABLE mq.q_hand;
SELECT mq.enqueue('s', '1');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true);
SELECT is((SELECT count(*) FROM mq.q_sink), 1::bigint, 'the others get it');
SELECT mq.unbind('dy', 'sink'), mq.unbind('dy', 'sink2');
SELECT mq.enqueue('s', '2');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true);
SELECT is((SELECT array_agg(body) FROM mq.q_s_dead), '{2}', 'with that one alone it falls back');
SELECT mq.bind('dy', 'sink'), mq.purge('sink'), mq.purge('s_dead');

-- Circles. A message that comes back to a queue where it died, and was rejected nowhere since, is dropped.
SELECT mq.create_queue('r1', dead_letter => '', ttl => '1 ms', dead_letter_exchange => '', dead_letter_key => 'r2'), mq.create_queue('r2', dead_letter => '', ttl => '1 ms', dead_letter_exchange => '', dead_letter_key => 'r3'), mq.create_queue('r3', dead_letter => '', ttl => '1 ms', dead_letter_exchange => '', dead_letter_key => 'r1');
SELECT mq.enqueue('r1', '"round"');
SELECT ok(pg_temp.until($$ (SELECT sum(dead) = 3 FROM mq.stats WHERE queue IN ('r1', 'r2', 'r3')) $$), 'it dies in each once');
SELECT is((SELECT count(*) FROM mq.q_r1) + (SELECT count(*) FROM mq.q_r2) + (SELECT count(*) FROM mq.q_r3), 0::bigint, '... and is dropped');
SELECT is((SELECT enqueued FROM mq.stats WHERE queue = 'r1'), 1::bigint, '... before it comes back');
-- A retry queue: rejected, it waits and comes back, as often as it is rejected.
SELECT mq.create_queue('wait', dead_letter => '', ttl => '1 ms', dead_letter_exchange => '', dead_letter_key => 'work'), mq.create_queue('work', dead_letter => '', backoff => '0', max_attempts => 1, dead_letter_exchange => '', dead_letter_key => 'wait');
SELECT mq.enqueue('work', '"job"');
DO $$ DECLARE m mq.message; BEGIN
    FOR n IN 1..5 LOOP
        SELECT * INTO STRICT m FROM mq.dequeue('work', wait => '10 s');
        PERFORM mq.reject('work', m.id, m.receipt, 'try ' || n);
        COMMIT;
    END LOOP;
END $$;
SELECT is((SELECT pg_temp.deaths(headers) FROM mq.dequeue('work', wait => '10 s')), 'wait expired 0, work rejected 1 try 5, wait expired 0, work rejected 1 try 4, wait expired 0, work rejected 1 try 3, wait expired 0, work rejected 1 try 2, wait expired 0, work rejected 1 try 1', 'a circle with a rejection goes on');
-- attempts used up are no rejection: it has waited since the last one
SELECT is(mq.nack('work', id, receipt, reason => 'failed'), true) FROM mq.in_flight WHERE queue = 'work';
SELECT ok(pg_temp.until($$ (SELECT dead = 6 FROM mq.stats WHERE queue = 'work') $$), 'failed instead, it is not to wait again');
SELECT is((SELECT count(*) FROM mq.q_work) + (SELECT count(*) FROM mq.q_wait), 0::bigint, 'gone');
-- Of several ways only the one that leads back is cut; a queue that leads to itself is the shortest circle.
SELECT mq.create_exchange('cx', 'fanout'), mq.create_queue('self', dead_letter => '', ttl => '1 ms', dead_letter_exchange => 'cx'), mq.bind('cx', 'self'), mq.bind('cx', 'sink');
SELECT mq.enqueue('self', '"both"');
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_sink)'), 'the way that is no circle');
SELECT is((SELECT count(*) FROM mq.q_self), 0::bigint, '... the other is cut');
SELECT mq.alter_queue('self', unset => '{ttl}', max_attempts => 1, backoff => '0');
SELECT mq.purge('sink'), mq.enqueue('self', '"rejected"');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('self') m), true);
SELECT is((SELECT pg_temp.deaths(headers) FROM mq.q_self), 'self rejected 1', 'rejected it comes back to its own queue');
SELECT is((SELECT pg_temp.deaths(headers) FROM mq.q_sink), 'self rejected 1', '... and goes the other way');
SELECT is(mq.redrive('self'), 0::bigint, 'redrive of a queue into itself is none');
-- An x-death that somebody made up is no circle and no harm.
SELECT mq.purge('self'), mq.purge('sink');
SELECT count(mq.enqueue('s', to_jsonb(n), headers)) FROM unnest(ARRAY['{"x-death": 1}', '{"x-death": []}', '{"x-death": [1]}', '{"x-death": [[]]}', '{"x-death": {"queue": "sink"}}', '{"x-death": [{"queue": 7}]}', '{"x-death": [null, {"queue": "sink", "reason": "expired"}]}', '{"x-death": "sink"}']::jsonb[]) WITH ORDINALITY t (headers, n);
SELECT is((SELECT mq.reject_batch('s', array_agg(id), array_agg(receipt)) FROM mq.dequeue('s', 8)), 8, 'made-up x-death');
SELECT is((SELECT count(*) FROM mq.q_sink WHERE headers -> 'x-death' -> 0 ->> 'queue' = 's'), 8::bigint, 'each has its true death in front');
SELECT is((SELECT array_agg(jsonb_array_length(headers -> 'x-death') ORDER BY id) FROM mq.q_sink), '{1,1,2,2,1,2,3,1}', 'what was an array is kept behind it');
SELECT mq.purge('sink');
-- By a made-up one a producer can only lose his own message.
SELECT mq.create_queue('mad', dead_letter => '', ttl => '1 ms', dead_letter_exchange => '', dead_letter_key => 'sink');
SELECT mq.enqueue('mad', '"own fault"', '{"x-death": [{"queue": "sink", "reason": "expired"}]}'), mq.enqueue('mad', '"good"');
SELECT ok(pg_temp.until('(SELECT count(*) = 0 FROM mq.q_mad)'), 'both have expired');
SELECT is((SELECT array_agg(body) FROM mq.q_sink), '{"\"good\""}', 'one was taken for a circle');
SELECT mq.purge('sink');

-- The default exchange: the key is a queue, and its name the default one: itself.
SELECT mq.create_queue('de', dead_letter => '', backoff => '0', dead_letter_exchange => '');
SELECT mq.enqueue('de', '1');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('de') m), true);
SELECT results_eq('SELECT id, pg_temp.deaths(headers), headers - ''x-death'' FROM mq.q_de', $$ VALUES (2::bigint, 'de rejected 1', '{"x-exchange": "", "x-routing-key": "de"}'::jsonb) $$, 'rejected into itself, as a new message');
SELECT mq.alter_queue('de', dead_letter_key => 'sink');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('de') m), true);
SELECT is((SELECT pg_temp.deaths(headers) FROM mq.q_sink), 'de rejected 1, de rejected 1', 'to the queue the key names');
SELECT is(mq.redrive('sink'), 1::bigint, 'redrive from there');
SELECT mq.alter_queue('de', dead_letter_key => 'no_such_queue', dead_letter => 'sink2'), mq.purge('sink2');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('de') m), true);
SELECT is((SELECT count(*) FROM mq.q_sink2), 1::bigint, 'a key that is no queue: to the dead-letter queue');

-- Options and references.
SELECT is(pg_temp.state(sql), state, sql) FROM (VALUES
    ($$ SELECT mq.create_queue('o', dead_letter_key => 'k') $$, '22023'), ($$ SELECT mq.create_queue('o', dead_letter_exchange => 'none') $$, '42704'), ($$ SELECT mq.alter_queue('s', dead_letter_exchange => 'none') $$, '42704'), ($$ SELECT mq.alter_queue('sink', dead_letter_key => 'k') $$, '22023'),
    ($$ SELECT mq.alter_queue('s', unset => '{dead_letter_exchange}') $$, '22023'), ($$ SELECT mq.alter_queue('s', unset => '{dead_letter_exchange,dead_letter_key}') $$, '00000'), ($$ SELECT mq.alter_queue('s', dead_letter_exchange => 'dx', dead_letter_key => '') $$, '00000'), ($$ SELECT mq.drop_exchange('dx') $$, '2BP01')) t (sql, state);
SELECT is((SELECT dead_letter_key FROM mq.queues WHERE name = 's'), '', 'an empty key is a key');

-- All in the transaction that settles: rolled back, all is as before.
SELECT mq.bind('dx', 'sink', ''), mq.purge('sink2');
SELECT mq.enqueue('s', '"kept"');
BEGIN;
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt, 'no') FROM mq.dequeue('s') m), true, 'rejected');
SELECT is((SELECT count(*) FROM mq.q_sink), 1::bigint, 'moved');
ROLLBACK;
SELECT is((SELECT count(*) FROM mq.q_sink), 0::bigint, 'taken back');
SELECT is((SELECT attempt FROM mq.dequeue('s', wait => '10 s')), 2, 'still there, an attempt counted');
BEGIN;
SAVEPOINT x;
SELECT is(mq.reject(queue, id, receipt, 'no'), true, 'rejected') FROM mq.in_flight WHERE queue = 's';
ROLLBACK TO x;
SELECT is((SELECT count(*) FROM mq.q_sink), 0::bigint, 'a savepoint took it back');
SELECT is(mq.reject(queue, id, receipt, 'yes'), true, 'rejected after all') FROM mq.in_flight WHERE queue = 's';
COMMIT;
SELECT is((SELECT pg_temp.deaths(headers) FROM mq.q_sink), 's rejected 2 yes', 'what was committed');
SELECT mq.purge('sink');
-- what the transaction itself has bound counts
BEGIN;
SELECT mq.unbind('dx', 'sink', ''), mq.bind('dx', 'sink2', '');
SELECT mq.enqueue('s', '"x"') \g /dev/null
COMMIT;
BEGIN;
SELECT mq.unbind('dx', 'sink2', ''), mq.bind('dx', 'sink', '');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s') m), true);
SELECT is((SELECT count(*) FROM mq.q_sink), 1::bigint, 'by the bindings of this transaction');
ROLLBACK;
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('s', wait => '10 s') m), true);
SELECT is((SELECT count(*) FROM mq.q_sink2), 1::bigint, '... or as they are');

-- Rights at the time of death: the owner's to publish, then each queue's owner's to insert; the consumer's never.
DO $$
DECLARE r text;
BEGIN
    FOREACH r IN ARRAY '{mqd_owner,mqd_consumer,mqd_sink}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN EXECUTE format('CREATE ROLE %I', r); END IF;
    END LOOP;
END $$;
SELECT mq.create_exchange('rx', 'fanout'), mq.create_queue('rq', dead_letter => '', backoff => '0', dead_letter_exchange => 'rx'), mq.create_queue('rs', dead_letter => ''), mq.bind('rx', 'rs');
ALTER TABLE mq.q_rq OWNER TO mqd_owner;
ALTER TABLE mq.q_rs OWNER TO mqd_sink;
CREATE TABLE public.dead_log (who name);
GRANT INSERT ON public.dead_log TO mqd_sink;
CREATE FUNCTION public.dead_who() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.dead_log VALUES (current_user); IF NEW.body = '"suppress"' THEN RETURN NULL; END IF; RETURN NEW; END $$;
CREATE TRIGGER who BEFORE INSERT ON mq.q_rs FOR EACH ROW EXECUTE FUNCTION public.dead_who();
SELECT mq.grant('rq', 'mqd_consumer', 'receive');
SELECT mq.enqueue('rq', '1');
SELECT is((SELECT row(state, message, detail) FROM pg_temp.raised($$ SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rq') m $$)),
    row('42501'::text, 'permission denied for exchange "rx"'::text, 'The owner of queue "rq" may not publish to its dead-letter exchange.'::text), 'the owner may not publish there');
SELECT is((SELECT count(*) FROM mq.q_rq), 1::bigint, 'the message stays');
SELECT mq.grant_exchange('rx', 'mqd_owner');
SELECT is(pg_temp.value_as('mqd_consumer', $$ SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rq', wait => '10 s') m $$), 'true', 'allowed, a consumer without any right there rejects');
SELECT is((SELECT string_agg(who::text, ',') FROM public.dead_log), 'mqd_sink', 'the target''s trigger ran as its owner');
SELECT is((SELECT count(*) FROM mq.q_rs), 1::bigint, '... and it is there');
SELECT is(pg_temp.state_as('mqd_consumer', 'SELECT * FROM mq.q_rs'), '42501', '... not for the consumer');
SELECT mq.enqueue('rq', '"suppress"');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rq') m), true);
SELECT is((SELECT count(*) FROM mq.q_rs) + (SELECT count(*) FROM mq.q_rq), 1::bigint, 'a trigger that suppresses it: dropped');
REVOKE INSERT ON mq.q_rs FROM mqd_sink;
SELECT mq.enqueue('rq', '2');
SELECT is((SELECT row(state, message, detail) FROM pg_temp.raised($$ SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rq') m $$)),
    row('42501'::text, 'permission denied for queue "rs"'::text, 'Its own owner may not insert into it.'::text), 'the target''s owner may not insert');
GRANT INSERT ON mq.q_rs TO mqd_sink;
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rq', wait => '10 s') m), true, 'given back');
-- through the default exchange it takes the owner's INSERT, to name the queue and at the time of death
SELECT is((SELECT row(state, message) FROM pg_temp.raised($$ SELECT mq.alter_queue('rq', dead_letter_exchange => '', dead_letter_key => 'rs') $$)), row('42501'::text, 'permission denied for queue "rs"'::text), 'default exchange: naming a queue takes the owner''s INSERT');
SELECT mq.grant('rs', 'mqd_owner', 'send');
SELECT mq.alter_queue('rq', dead_letter_exchange => '', dead_letter_key => 'rs');
SELECT is((SELECT row(state, detail) FROM pg_temp.raised($$ SELECT mq.drop_queue('rs') $$)), row('2BP01'::text, E'Exchange "rx" is bound to it with pattern "#".\nQueue "rq" has it as dead_letter_key of the default exchange.'::text), '... which then stays');
SELECT mq.revoke('rs', 'mqd_owner', 'send');
SELECT mq.enqueue('rq', '3');
SELECT is((SELECT row(state, message) FROM pg_temp.raised($$ SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rq') m $$)), row('42501'::text, 'permission denied for queue "rs"'::text), 'at the time of death too');
SELECT mq.grant('rs', 'mqd_owner', 'send');
SELECT is((SELECT mq.reject(m.queue, m.id, m.receipt) FROM mq.dequeue('rq', wait => '10 s') m), true, '... with it');
SELECT is((SELECT count(*) FROM mq.q_rs), 3::bigint, 'there');

-- where it was first published stays
SELECT mq.create_exchange('fx'), mq.create_exchange('fdx', 'fanout'), mq.create_exchange('fdx2', 'fanout');
SELECT mq.create_queue('f3', dead_letter => '');
SELECT mq.create_queue('f2', dead_letter_exchange => 'fdx2'), mq.bind('fdx2', 'f3');
SELECT mq.create_queue('f1', dead_letter_exchange => 'fdx'), mq.bind('fdx', 'f2'), mq.bind('fx', 'f1');
SELECT mq.publish('fx', 'the.key', '1'), mq.enqueue('f1', '2');
SELECT mq.reject('f1', m.id, m.receipt) FROM mq.dequeue('f1', 2) m;
SELECT mq.reject('f2', m.id, m.receipt) FROM mq.dequeue('f2', 2) m;
SELECT results_eq($$ SELECT body, headers - 'x-death' FROM mq.q_f3 ORDER BY body $$,
    $$ VALUES ('1'::jsonb, '{"x-exchange": "fdx2", "x-routing-key": "f2", "x-first-death-exchange": "fx", "x-first-death-routing-key": "the.key"}'::jsonb),
              ('2', '{"x-exchange": "fdx2", "x-routing-key": "f2", "x-first-death-exchange": "fdx", "x-first-death-routing-key": "f1"}') $$,
    'x-first-death-exchange: of the first publishing');
-- who may ask where dead letters come from
SELECT is(mq.origins$('f3'), '{f2}', 'origins by an exchange');
SELECT is(mq.origins$('f2'), '{f1}', '... each its own');
SELECT is(mq.origins$('f1'), '{}', 'none');
SELECT is(pg_temp.state_as('mqd_consumer', $$ SELECT mq.origins$('f3') $$), '42501', 'only the owner may ask');
SELECT mq.unbind('fx', 'f1'), mq.unbind('fdx', 'f2'), mq.unbind('fdx2', 'f3'), mq.drop_queue('f1'), mq.drop_queue('f2'), mq.drop_queue('f3'), mq.drop_exchange('fx'), mq.drop_exchange('fdx'), mq.drop_exchange('fdx2');

SELECT mq.drop_queue('rq'), mq.drop_exchange('rx');
DROP TABLE mq.q_rs, public.dead_log;
DROP FUNCTION public.dead_who();
DROP OWNED BY mqd_owner, mqd_consumer, mqd_sink;
DROP ROLE mqd_owner, mqd_consumer, mqd_sink;
SELECT * FROM finish();
