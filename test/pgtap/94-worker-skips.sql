-- A queue whose table somebody has locked keeps the worker from no other, whichever of the two it comes to first.
\ir setup.psql

-- Whether an expression is ever true within a second and a half: the worker comes to a locked queue once a second.
CREATE FUNCTION pg_temp.ever(condition text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    deadline timestamptz := clock_timestamp() + interval '1500 ms';
    yes boolean := false;
BEGIN
    WHILE NOT yes AND clock_timestamp() < deadline LOOP
        EXECUTE 'SELECT ' || condition INTO yes;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN yes;
END $$;

SELECT mq.create_queue(q, dead_letter => '', backoff => '1 h') FROM unnest('{wa,wb}'::text[]) q;
SELECT mq.enqueue(q, '1') FROM unnest('{wa,wb}'::text[]) q;

-- The lock lets consumers dequeue, and the worker not write; a prepared transaction holds it.
BEGIN;
LOCK TABLE mq.q_wa IN EXCLUSIVE MODE;
PREPARE TRANSACTION 'mqt_lock';
SELECT count(*) FROM mq.dequeue('wa', lease => '1 ms') \gset
SELECT ok(pg_temp.until($$ (SELECT expired = 1 FROM mq.stats WHERE queue = 'wa') $$), 'a lease of the locked queue has ended');
SELECT count(*) FROM mq.dequeue('wb', lease => '1 ms') \gset
SELECT ok(pg_temp.until('(SELECT attempts = 1 FROM mq.q_wb)'), 'the worker writes the failure of the other queue');
SELECT is((SELECT attempts FROM mq.q_wa), 0, '... not that of the locked one');
SELECT is(pg_temp.ever($$ EXISTS (SELECT FROM pg_locks WHERE relation = 'mq.q_wa'::regclass AND NOT granted) $$), false, '... for whose lock it never waits');
COMMIT PREPARED 'mqt_lock';
SELECT ok(pg_temp.until('(SELECT attempts = 1 FROM mq.q_wa)'), '... which follows when the lock is gone');

UPDATE mq.q_wa SET ready_at = NULL;
UPDATE mq.q_wb SET ready_at = NULL;
BEGIN;
LOCK TABLE mq.q_wb IN EXCLUSIVE MODE;
PREPARE TRANSACTION 'mqt_lock';
SELECT count(*) FROM mq.dequeue('wb', lease => '1 ms') \gset
SELECT ok(pg_temp.until($$ (SELECT expired = 2 FROM mq.stats WHERE queue = 'wb') $$), 'the other way round');
SELECT count(*) FROM mq.dequeue('wa', lease => '1 ms') \gset
SELECT ok(pg_temp.until('(SELECT attempts = 2 FROM mq.q_wa)'), '... the worker writes the failure');
COMMIT PREPARED 'mqt_lock';
SELECT ok(pg_temp.until('(SELECT attempts = 2 FROM mq.q_wb)'), '... and then that of the locked one');

SELECT mq.drop_queue(q) FROM unnest('{wa,wb}'::text[]) q;
SELECT * FROM finish();
