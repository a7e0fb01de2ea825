-- A delayed message that has come due is counted as ready once, and then no more as delayed, whatever becomes of it.
\ir setup.psql

SELECT mq.create_queue('dc', dead_letter => '', backoff => '1 h', lease => '1 h');
CREATE FUNCTION pg_temp.now_is() RETURNS text LANGUAGE sql AS $$
    SELECT format('%s/%s/%s', ready, delayed, in_flight) FROM mq.stats WHERE queue = 'dc' $$;

SELECT mq.enqueue('dc', to_jsonb(i), delay => '100 ms') FROM generate_series(1, 4) i;
SELECT mq.enqueue('dc', '"far"', delay => '1 h');
SELECT ok(pg_temp.until($$ pg_temp.now_is() = '4/1/0' $$), 'four have come due');
SELECT count(*) FROM mq.dequeue('dc', 3) \gset
SELECT is(pg_temp.now_is(), '1/1/3', 'three are taken');
SELECT mq.ack('dc', id, receipt) FROM mq.in_flight WHERE queue = 'dc' ORDER BY id LIMIT 1;
SELECT is(pg_temp.now_is(), '1/1/2', '... one is acknowledged');
SELECT mq.release('dc', id, receipt) FROM mq.in_flight WHERE queue = 'dc' ORDER BY id LIMIT 1;
SELECT is(pg_temp.now_is(), '2/1/1', '... one released');
SELECT mq.nack('dc', id, receipt) FROM mq.in_flight WHERE queue = 'dc';
SELECT is(pg_temp.now_is(), '2/2/0', '... one nacked');
UPDATE mq.q_dc SET ready_at = clock_timestamp() WHERE attempts = 1;
SELECT ok(pg_temp.until($$ pg_temp.now_is() = '3/1/0' $$), '... which an UPDATE makes due');
DELETE FROM mq.q_dc WHERE ready_at < clock_timestamp();
SELECT is(pg_temp.now_is(), '0/1/0', 'what was due is deleted');
SELECT is((SELECT exact FROM mq.stats WHERE queue = 'dc'), true, 'the numbers are exact all along');

SELECT mq.drop_queue('dc');
SELECT * FROM finish();
