-- Queues of limited length: reject and drop_head.
\ir setup.psql
SELECT mq.create_queue('mr', max_length => 3, backoff => '0');
SELECT is((max_length, overflow)::text, '(3,reject)', 'mq.queues shows the options') FROM mq.queues WHERE name = 'mr';

-- reject
SELECT count(*) FROM mq.enqueue_batch('mr', '{1,2,3}') \g /dev/null
SELECT results_eq($$SELECT state, message FROM pg_temp.raised('SELECT mq.enqueue(''mr'', ''4'')')$$, $$VALUES ('53400', 'queue "mr" is full: its max_length is 3')$$, 'the error names queue and limit');
SELECT is(pg_temp.state($$INSERT INTO mq.q_mr (body) VALUES ('4')$$), '53400', 'plain INSERT');
SELECT mq.ack(m) FROM mq.dequeue('mr') m \g /dev/null
SELECT is(pg_temp.state($$SELECT mq.enqueue_batch('mr', '{4,5}')$$), '53400', 'a batch as a whole');
SELECT is((SELECT count(*) FROM mq.q_mr), 2::bigint, '... nothing of it is done');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '4', delay => '1 h')$$), '00000', 'one place is free');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '5')$$), '53400', 'delayed messages count');
SELECT receipt FROM mq.dequeue('mr', 2) LIMIT 1 \gset
SELECT is(pg_temp.state($$SELECT count(*) FROM mq.enqueue_batch('mr', '{6,7}')$$), '00000', 'leased ones do not');
SELECT is(mq.release_batch('mr', array_agg(id), array_agg(receipt)), 2, 'released, they') FROM mq.in_flight WHERE queue = 'mr';
SELECT is((SELECT ready + delayed FROM mq.stats WHERE queue = 'mr'), 5::bigint, '... stand above the limit');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '8')$$), '53400', '... and nothing comes in');
SELECT count(*) FROM mq.dequeue('mr', 4, auto_ack => true) \g /dev/null
SELECT is(pg_temp.state($$SELECT count(*) FROM mq.enqueue_batch('mr', '{8,9}')$$), '00000', '... until they are consumed');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '8')$$), '53400', 'full');
SELECT mq.purge('mr') \g /dev/null
SELECT is(pg_temp.state($$SELECT count(*) FROM mq.enqueue_batch('mr', '{1,2,3,4}')$$), '53400', 'more than the limit at once');
SELECT is(mq.purge('mr'), 0::bigint, '... none');

-- Transactions and savepoints.
BEGIN;
SELECT count(*) FROM mq.enqueue_batch('mr', '{1,2}') \g /dev/null
SAVEPOINT a;
SELECT mq.enqueue('mr', '3') \g /dev/null
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '4')$$), '53400', 'uncommitted ones count');
ROLLBACK TO a;
SAVEPOINT b;
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '5')$$), '00000', 'a savepoint gives its place back');
RELEASE b;
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '6')$$), '53400', '... a released one keeps it');
COMMIT;
SELECT set_eq('SELECT body FROM mq.q_mr', $$VALUES ('1'::jsonb), ('2'), ('5')$$, 'what is there');
BEGIN;
SELECT count(*) FROM mq.dequeue('mr', 2, auto_ack => true) \g /dev/null
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '6')$$), '53400', 'what an open transaction has acknowledged still counts');
ROLLBACK;
TRUNCATE mq.q_mr;
SELECT is(pg_temp.state($$SELECT count(*) FROM mq.enqueue_batch('mr', '{1,2,3}')$$), '00000', 'after TRUNCATE it is empty');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '4')$$), '53400', '... and not more');
BEGIN;
TRUNCATE mq.q_mr;
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '4')$$), '53400', '... not before its commit');
ROLLBACK;

-- alter_queue
SELECT mq.alter_queue('mr', max_length => 2);
SELECT is((SELECT count(*) FROM mq.q_mr), 3::bigint, 'a limit below the length drops nothing');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '4')$$), '53400', '... and lets nothing in');
SELECT mq.alter_queue('mr', unset => '{max_length}');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '4')$$), '00000', 'unset: without limit');
SELECT mq.alter_queue('mr', max_length => 5);
SELECT is(pg_temp.state($$SELECT count(*) FROM mq.enqueue_batch('mr', '{1,2}')$$), '53400', 'a new limit counts what is there');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mr', '5')$$), '00000', '... exactly');
SELECT is(pg_temp.state($$SELECT mq.create_queue('bad', max_length => 0)$$), '22023', 'max_length must be 1 or more');

-- redrive counts like an enqueue; dead letters are never refused
SELECT mq.create_queue('ml', max_length => 2, dead_letter => 'mz');
SELECT mq.alter_queue('mz', max_length => 1);
SELECT count(*) FROM mq.enqueue_batch('ml', '{1,2}') \g /dev/null
SELECT count(mq.reject('ml', id, receipt)) FROM mq.dequeue('ml', 2) \g /dev/null
SELECT is((SELECT count(*) FROM mq.q_mz), 2::bigint, 'a full dead-letter queue takes what dies');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mz', '3')$$), '53400', '... but nothing else');
SELECT mq.enqueue('ml', '3') \g /dev/null
SELECT is(pg_temp.state($$SELECT mq.redrive('mz')$$), '53400', 'redrive into a queue without room');
SELECT is(mq.redrive('mz', 1), 1::bigint, '... one fits');

-- drop_head
SELECT mq.create_queue('md', max_length => 3, overflow => 'drop_head', backoff => '0', dead_letter => 'md_dead');
SELECT count(*) FROM mq.enqueue_batch('md', '{1,2,3}') \g /dev/null
SELECT mq.enqueue('md', '4', headers => '{"h": 1}') \g /dev/null
SELECT results_eq('SELECT body FROM mq.q_md ORDER BY id', $$VALUES ('2'::jsonb), ('3'), ('4')$$, 'the oldest made room');
SELECT results_eq($$SELECT body, headers -> 'x-death' -> 0 ->> 'reason', (headers -> 'x-death' -> 0 ->> 'attempts')::int FROM mq.q_md_dead$$, $$VALUES ('1'::jsonb, 'maxlen', 0)$$, '... as maxlen');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('md', '{5,6}')), 2::bigint, 'two for two');
INSERT INTO mq.q_md (body) VALUES ('7');
COPY mq.q_md (body) FROM STDIN;
8
\.
SELECT results_eq('SELECT body FROM mq.q_md ORDER BY id', $$VALUES ('6'::jsonb), ('7'), ('8')$$, 'INSERT and COPY too');
SELECT results_eq($$SELECT ready, delayed, in_flight, dead, enqueued, nacked, delivered FROM mq.stats WHERE queue = 'md'$$, 'VALUES (3::bigint, 0::bigint, 0::bigint, 5::bigint, 8::bigint, 0::bigint, 0::bigint)', 'the counters');
BEGIN;
SELECT mq.enqueue('md', '9') \g /dev/null
ROLLBACK;
SELECT results_eq('SELECT body, attempts FROM mq.q_md ORDER BY id', $$VALUES ('6'::jsonb, 0), ('7', 0), ('8', 0)$$, 'a rollback brings the dropped one back');
SELECT results_eq($$SELECT body, attempt FROM mq.dequeue('md')$$, $$VALUES ('6'::jsonb, 1)$$, '... in its place, no attempt counted');
SELECT mq.release('md', id, receipt) FROM mq.in_flight WHERE queue = 'md' \g /dev/null
SELECT is(pg_temp.state($$SELECT mq.enqueue_batch('md', '{1,2,3,4}')$$), '53400', 'more than the limit at once');
BEGIN;
SELECT count(*) FROM mq.enqueue_batch('md', '{10,11}') \g /dev/null
SELECT mq.enqueue('md', '12') \g /dev/null
SELECT is(pg_temp.state($$SELECT mq.enqueue('md', '13')$$), '53400', 'its own rows a transaction does not drop');
COMMIT;
SELECT results_eq('SELECT body FROM mq.q_md ORDER BY id', $$VALUES ('10'::jsonb), ('11'), ('12')$$, 'all replaced');
SELECT receipt FROM mq.dequeue('md', 3) LIMIT 1 \gset
SELECT count(*) FROM mq.enqueue_batch('md', '{13,14,15}', delay => '1 h') \g /dev/null
SELECT is(pg_temp.state($$SELECT mq.enqueue('md', '16')$$), '53400', 'nothing ready to drop: all leased or delayed');
TRUNCATE mq.q_md;
SELECT mq.enqueue('md', to_jsonb(p), priority => p) FROM unnest('{9,0,5}'::int[]) p \g /dev/null
SELECT mq.enqueue('md', '"more"', priority => 1) \g /dev/null
SELECT set_eq('SELECT body FROM mq.q_md', $$VALUES ('9'::jsonb), ('5'), ('"more"')$$, 'the lowest priority goes first');
SELECT mq.pause('md');
SELECT is(pg_temp.state($$SELECT mq.enqueue('md', '"paused"', priority => 2)$$), '00000', 'in a paused queue too');
SELECT mq.resume('md');
SELECT mq.alter_queue('md', max_length => 1);
SELECT mq.enqueue('md', '"a"') \g /dev/null
SELECT mq.enqueue('md', '"b"') \g /dev/null
SELECT is((SELECT count(*) FROM mq.q_md), 1::bigint, 'a lowered limit is reached by and by');
SELECT mq.create_queue('mn', max_length => 1, overflow => 'drop_head', dead_letter => '');
SELECT mq.enqueue('mn', '1') \g /dev/null
SELECT mq.enqueue('mn', '2') \g /dev/null
SELECT mq.enqueue('mn', '3') \g /dev/null
SELECT results_eq('SELECT body FROM mq.q_mn', $$VALUES ('3'::jsonb)$$, 'without dead letters they are gone');
-- What a producer drops is no delivery, whatever becomes of its transaction.
SELECT mq.create_queue('mt', max_length => 3, overflow => 'drop_head', backoff => '0', rate_limit => 0.001);
SELECT count(*) FROM mq.enqueue_batch('mt', '{1,2,3}') \g /dev/null
SELECT mq.ack(m) FROM mq.dequeue('mt') m \g /dev/null
SELECT mq.enqueue('mt', '4') \g /dev/null
BEGIN;
SELECT count(*) FROM mq.enqueue_batch('mt', '{5,6}') \g /dev/null
ROLLBACK;
SELECT is((SELECT count(*) FROM mq.dequeue('mt', 3)), 0::bigint, 'a rollback of it allows none that the rate does not');
SELECT mq.alter_queue('mt', unset => '{rate_limit}');
BEGIN;
SELECT mq.enqueue('mt', '5') \g /dev/null
SELECT body FROM mq.dequeue('mt') \g /dev/null
ROLLBACK;
SELECT results_eq($$SELECT body, attempt FROM mq.dequeue('mt', 3) ORDER BY body$$, $$VALUES ('2'::jsonb, 1), ('3', 2), ('4', 1)$$, 'a dequeue after it counts what it delivered');
SELECT mq.release('mt', id, receipt) FROM mq.in_flight WHERE queue = 'mt' AND attempt = 1 \g /dev/null
BEGIN;
SELECT mq.enqueue_batch('mt', '{5,6}') \g /dev/null
PREPARE TRANSACTION 'mqt_drop';
ROLLBACK PREPARED 'mqt_drop';
SELECT results_eq($$SELECT body, attempt FROM mq.dequeue('mt', 3) ORDER BY body$$, $$VALUES ('2'::jsonb, 1), ('4', 1)$$, 'nor does ROLLBACK PREPARED count');

-- A table with objects of its owner's.
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER nothing AFTER INSERT ON mq.q_mn FOR EACH ROW EXECUTE FUNCTION nothing();
SELECT mq.enqueue('mn', '5') \g /dev/null
SELECT mq.enqueue('mn', '6') \g /dev/null
SELECT results_eq('SELECT body FROM mq.q_mn', $$VALUES ('6'::jsonb)$$, 'with triggers of the owner''s');
SELECT mq.alter_queue('mn', overflow => 'reject');
SELECT is(pg_temp.state($$SELECT mq.enqueue('mn', '7')$$), '53400', 'alter_queue(overflow)');
SELECT finish();
