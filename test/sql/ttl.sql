-- Messages that expire: never delivered after their time, but moved to the dead letters.
SELECT mq.create_queue('codes', ttl => '1 hour');
-- The earlier of the queue's ttl and the message's; it counts from when the message comes due.
SELECT mq.enqueue('codes', '"of the queue"') IS NOT NULL AS enqueued;
SELECT mq.enqueue('codes', '"its own"', ttl => '30 minutes') IS NOT NULL AS enqueued;
SELECT mq.enqueue('codes', '"too long"', ttl => '1 day') IS NOT NULL AS enqueued;
SELECT mq.enqueue('codes', '"delayed"', ttl => '30 minutes', delay => '1 day') IS NOT NULL AS enqueued;
INSERT INTO mq.q_codes (body) VALUES ('"plain SQL"');
SELECT body, date_trunc('minute', expires_at - enqueued_at + interval '30 s') AS lives FROM mq.q_codes ORDER BY id;
SELECT mq.purge('codes');

-- The worker moves what has expired, whether or not anybody dequeues.
SELECT mq.enqueue('codes', '"short"', ttl => '1 ms', headers => '{"to": "anna"}') IS NOT NULL AS enqueued;
SELECT mq.enqueue('codes', '"fresh"') IS NOT NULL AS enqueued;
SELECT body, headers - 'x-death' AS headers, headers #>> '{x-death,0,reason}' AS reason, headers #> '{x-death,0,attempts}' AS attempts
FROM mq.dequeue('codes_dead', wait => '20 s', auto_ack => true);
SELECT body FROM mq.dequeue('codes', 10, auto_ack => true);

-- A leased message that expires may still be acknowledged ...
SELECT mq.enqueue('codes', '"acked"') IS NOT NULL AS enqueued;
SELECT body FROM mq.dequeue('codes');
UPDATE mq.q_codes SET expires_at = now() - interval '1 s';
SELECT body, state FROM mq.browse('codes');
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight;
-- ... and if its delivery fails, it is dead.
SELECT mq.enqueue('codes', '"failed"') IS NOT NULL AS enqueued;
SELECT body FROM mq.dequeue('codes');
UPDATE mq.q_codes SET expires_at = now() - interval '1 s';
SELECT mq.nack(queue, id, receipt, reason => 'busy') FROM mq.in_flight;
SELECT body, headers #>> '{x-death,0,reason}' AS reason, headers #>> '{x-death,0,error}' AS error FROM mq.dequeue('codes_dead', wait => '20 s');
-- Sent again, it does not expire.
SELECT mq.release(queue, id, receipt) FROM mq.in_flight;
SELECT mq.redrive('codes_dead');
SELECT body, expires_at FROM mq.dequeue('codes', auto_ack => true);

SELECT mq.enqueue('codes', '1', ttl => '0');
SELECT mq.create_queue('bad', ttl => '-1 s');
SELECT mq.drop_queue('codes');
SELECT mq.drop_queue('codes_dead');
