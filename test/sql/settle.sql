-- How a delivery ends: ack, nack, release, extend, reject, dead letters, redrive.
SELECT mq.create_queue('mail', max_attempts => 2, backoff => '0');
SELECT mq.enqueue_batch('mail', '{"\"a\"","\"b\"","\"c\""}') IS NOT NULL AS enqueued;

SELECT body, attempt FROM mq.dequeue('mail');
SELECT mq.release(queue, id, receipt) FROM mq.in_flight;
SELECT body, attempt FROM mq.dequeue('mail');
SELECT mq.extend(queue, id, receipt, '1 hour') FROM mq.in_flight;
SELECT lease_until > now() + interval '50 minutes' AS extended FROM mq.in_flight;
SELECT mq.nack(queue, id, receipt, reason => 'mailbox full') FROM mq.in_flight;
SELECT body, attempt, last_error FROM mq.dequeue('mail', wait => '10 s');
-- the second failure is the last
SELECT id, receipt FROM mq.in_flight \gset
SELECT mq.nack('mail', :id, :receipt, reason => 'mailbox full still');
SELECT mq.ack('mail', :id, :receipt) AS stale;
SELECT body, jsonb_path_query_array(headers -> 'x-death', '$[*].reason') AS reasons,
       headers -> 'x-death' -> 0 ->> 'error' AS error FROM mq.dequeue('mail_dead', wait => '10 s');
SELECT mq.release(queue, id, receipt) FROM mq.in_flight;
SELECT mq.redrive('mail_dead');
-- redriven, its attempts count from the start
SELECT body, attempt FROM mq.dequeue('mail', 10) ORDER BY body;
SELECT mq.reject(queue, id, receipt, 'spam') FROM mq.in_flight f WHERE id = (SELECT max(id) FROM mq.in_flight);
SELECT mq.ack_batch('mail', array_agg(id), array_agg(receipt)) FROM mq.in_flight;
SELECT count(*) FROM mq.q_mail;
SELECT headers -> 'x-death' -> 0 ->> 'reason' AS reason FROM mq.dequeue('mail_dead', wait => '10 s', auto_ack => true);
SELECT acked, nacked, dead FROM mq.stats WHERE queue = 'mail';
SELECT mq.drop_queue('mail');
SELECT mq.drop_queue('mail_dead');
