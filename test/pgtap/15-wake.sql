-- mq.listen and mq.wait as one session sees them; two-session claims stand in the isolation specs.
\ir setup.psql
SELECT mq.create_queue('wk', dead_letter => '', backoff => '0');
SELECT mq.create_queue('Wake.Up-1', dead_letter => '');

SELECT mq.listen('wk');
SELECT mq.listen('Wake.Up-1');
SELECT set_eq('SELECT pg_listening_channels()', $$ SELECT channel::text FROM mq.queues WHERE name IN ('wk', 'Wake.Up-1') $$, 'mq.listen listens on the channel that mq.queues names');
SELECT is((SELECT channel::text FROM mq.queues WHERE name = 'wk'), 'mq_wk', 'it is mq_ and the name');
SELECT mq.unlisten('wk');
SELECT results_eq('SELECT pg_listening_channels() COLLATE "default"', $$ SELECT channel::text COLLATE "default" FROM mq.queues WHERE name = 'Wake.Up-1' $$, 'mq.unlisten stops');
UNLISTEN *;

-- Something is ready already.
SELECT mq.enqueue('wk', '1');
SELECT clock_timestamp() AS t0 \gset
CALL mq.wait('wk', '1 min');
SELECT ok(clock_timestamp() - :'t0'::timestamptz < '10 s', 'mq.wait returns when something is ready');
SELECT is((SELECT count(*) FROM mq.in_flight), 0::bigint, '... and takes nothing');
SELECT is((SELECT count(*) FROM mq.dequeue('wk', auto_ack => true)), 1::bigint, '... the message is there');
-- Nothing is.
SELECT clock_timestamp() AS t0 \gset
CALL mq.wait('wk', '200 ms');
SELECT ok(clock_timestamp() - :'t0'::timestamptz BETWEEN '200 ms' AND '10 s', 'mq.wait returns after its time');
SELECT clock_timestamp() AS t0 \gset
CALL mq.wait('wk', '0');
SELECT ok(clock_timestamp() - :'t0'::timestamptz < '10 s', '... at once when that is none');
-- A delay comes due, a lease ends.
SELECT mq.enqueue('wk', '1', delay => '200 ms');
SELECT clock_timestamp() AS t0 \gset
CALL mq.wait('wk', '1 min');
SELECT ok(clock_timestamp() - :'t0'::timestamptz < '10 s', 'mq.wait is woken when a delay comes due');
SELECT is((SELECT count(*) FROM mq.dequeue('wk', lease => '200 ms')), 1::bigint, '... and the message is there');
CALL mq.wait('wk', '1 min');
SELECT ok(clock_timestamp() - :'t0'::timestamptz < '20 s', 'and when a lease ends');
SELECT is((SELECT attempt FROM mq.dequeue('wk', auto_ack => true)), 2, '... and the message is there');

-- Where it does not wait: 25001.
CREATE FUNCTION pg_temp.waits() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL mq.wait('wk', '1 s'); END $$;
SELECT is(pg_temp.state('SELECT pg_temp.waits()'), '25001', 'not inside a function');
\set ON_ERROR_STOP off
\o /dev/null
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL mq.wait('wk', '1 s');
\set rr :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
CALL mq.wait('wk', '1 s');
\set ser :SQLSTATE
ROLLBACK;
DO $$ BEGIN BEGIN CALL mq.wait('wk', '1 s'); EXCEPTION WHEN division_by_zero THEN NULL; END; END $$;
\set block :SQLSTATE
\o
\set ON_ERROR_STOP on
SELECT is(:'rr'::text, '25001', 'not at REPEATABLE READ');
SELECT is(:'ser'::text, '25001', 'not at SERIALIZABLE');
SELECT is(:'block'::text, '25001', 'not inside an exception block');
BEGIN;
SELECT mq.enqueue('wk', '1');
SELECT clock_timestamp() AS t0 \gset
CALL mq.wait('wk', '200 ms');
SELECT clock_timestamp() - :'t0' >= '200 ms' AS waited \gset
COMMIT;
SELECT is(:'waited'::boolean, true, 'in a transaction block it waits, and not for the transaction''s own messages');
SELECT is((SELECT count(*) FROM mq.dequeue('wk', auto_ack => true)), 1::bigint, '... which come at COMMIT');
SET statement_timeout = '200 ms';
\set ON_ERROR_STOP off
\o /dev/null
CALL mq.wait('wk', '1 h');
\set timeout :SQLSTATE
\o
\set ON_ERROR_STOP on
RESET statement_timeout;
SELECT is(:'timeout'::text, '57014', 'statement_timeout ends it');
SELECT is((SELECT consumers_waiting FROM mq.stats WHERE queue = 'wk'), 0::bigint, '... and nobody is left waiting');
SELECT mq.drop_queue(q) FROM unnest('{wk,Wake.Up-1}'::text[]) q;
SELECT * FROM finish();
