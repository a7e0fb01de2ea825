-- A body of 100 MB, as data and as JSON, in and out whole.
\ir setup.psql
SELECT mq.create_queue('bg', backoff => '0', max_attempts => 2);
CREATE TEMP TABLE big AS SELECT decode(repeat('00ff10', 100 * 1024 * 1024 / 3), 'hex') AS data;
SELECT mq.enqueue('bg', data => data) AS id FROM big \gset
SELECT is((SELECT octet_length(data) FROM mq.q_bg), (SELECT octet_length(data) FROM big), '100 MB of data are stored');
CREATE TEMP TABLE got AS SELECT id, receipt, octet_length(data) AS length, md5(data) AS md5 FROM mq.dequeue('bg', lease => '1 h');
SELECT is((SELECT md5 FROM got), (SELECT md5(data) FROM big), '... and delivered');
SELECT is((SELECT mq.nack('bg', id, receipt) FROM got), true, '... nacked');
SELECT is((SELECT md5(data) FROM mq.dequeue('bg', wait => '30 s', lease => '1 h')), (SELECT md5(data) FROM big), '... delivered again');
SELECT is(mq.reject('bg', id, receipt), true, '... rejected') FROM mq.in_flight WHERE queue = 'bg';
SELECT ok(pg_temp.until('(SELECT count(*) = 1 FROM mq.q_bg_dead)'), '... moved to the dead letters');
SELECT is((SELECT md5(data) FROM mq.dequeue('bg_dead', auto_ack => true)), (SELECT md5(data) FROM big), '... whole');
SELECT is((SELECT count(*) FROM mq.q_bg) + (SELECT count(*) FROM mq.q_bg_dead), 0::bigint, 'and gone');
SELECT mq.enqueue('bg', to_jsonb(repeat('mq ', 100 * 1024 * 1024 / 3)));
SELECT is((SELECT md5(body #>> '{}') FROM mq.dequeue('bg', auto_ack => true)), md5(repeat('mq ', 100 * 1024 * 1024 / 3)), '100 MB of JSON');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('bg', ARRAY(SELECT to_jsonb(repeat('x', 1024 * 1024)) FROM generate_series(1, 50)))), 50::bigint, 'a batch of 50 MB');
SELECT is((SELECT sum(length(body #>> '{}')) FROM mq.dequeue('bg', 100, auto_ack => true)), 50 * 1024 * 1024::bigint, '... arrives');
SELECT mq.drop_queue(q) FROM unnest('{bg,bg_dead}'::text[]) q;
SELECT * FROM finish();
