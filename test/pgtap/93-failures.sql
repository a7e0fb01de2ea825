-- Failed deliveries: when the worker writes them, and what counts as one.
\ir setup.psql

SELECT mq.create_queue('fl', dead_letter => '', backoff => '0', lease => '1 h');

-- What can be delivered again at once is left to consumers for half a second: the worker's lock on the row would be in their way.
SELECT mq.enqueue('fl', '1');
BEGIN;
SELECT count(*) FROM mq.dequeue('fl') \gset
SELECT clock_timestamp() AS before \gset
ROLLBACK;
SELECT ok(pg_temp.until('(SELECT attempts = 1 FROM mq.q_fl)'), 'the worker writes a failure into the row');
SELECT ok(clock_timestamp() - :'before'::timestamptz > '500 ms', '... but leaves it to consumers for half a second');
SELECT mq.purge('fl');

-- A dequeue that fails before it has handed out anything has delivered nothing: here its result does not fit on disk.
SELECT count(mq.enqueue('fl', data => b)) FROM generate_series(1, 20),
    (SELECT decode(string_agg(md5(random()::text), ''), 'hex') AS b FROM generate_series(1, 1000)) bytes \gset
SET work_mem = '64kB';
SET temp_file_limit = '64kB';
SELECT is(pg_temp.state($$ SELECT * FROM mq.dequeue('fl', 20) $$), '53400', 'a dequeue that fails on its way out');
RESET temp_file_limit;
RESET work_mem;
SELECT is((SELECT count(*) FROM mq.in_flight), 0::bigint, '... leases nothing');
SELECT is((SELECT string_agg(DISTINCT attempt::text, ',') || ' ' || count(*) FROM mq.dequeue('fl', 30)), '1 20', '... and has counted no attempt');

-- A failure that is not written yet goes by what an UPDATE says while the message is leased again.
SELECT mq.purge('fl');
SELECT count(mq.ack(f.queue, f.id, f.receipt)) FROM mq.in_flight f \gset
SELECT mq.enqueue('fl', '1');
BEGIN;
SELECT count(*) FROM mq.dequeue('fl') \gset
ROLLBACK;
SELECT id, receipt FROM mq.dequeue('fl') \gset
UPDATE mq.q_fl SET ready_at = now() + interval '1 h';
SELECT mq.release('fl', :id, :receipt);
SELECT is((SELECT count(*) FROM mq.dequeue('fl')), 0::bigint, 'released, it is put off');
SELECT ok(pg_temp.until('(SELECT attempts = 1 FROM mq.q_fl)'), '... its failure is written');
SELECT is((SELECT ready_at > now() + interval '50 min' FROM mq.q_fl), true, '... and has left the time alone');

SELECT mq.drop_queue('fl');
SELECT * FROM finish();
