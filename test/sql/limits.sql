-- How much is delivered: max_in_flight at once, rate_limit a second.
SELECT mq.create_queue('calls', max_in_flight => 2);
SELECT mq.enqueue_batch('calls', '{1,2,3,4}') IS NOT NULL AS enqueued;
SELECT body FROM mq.dequeue('calls', 10);
-- At its limit the queue looks empty.
SELECT body FROM mq.dequeue('calls', 10);
SELECT ready, in_flight FROM mq.stats WHERE queue = 'calls';
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE id = 1;
SELECT body FROM mq.dequeue('calls', 10);
-- What is being acknowledged is in flight until the commit.
BEGIN;
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight ORDER BY id;
SELECT body FROM mq.dequeue('calls', 10);
COMMIT;
SELECT body FROM mq.dequeue('calls', 10);
-- Less than is in flight: none until enough have ended. Put back to none: as many as there are.
SELECT mq.enqueue_batch('calls', '{5,6}') IS NOT NULL AS enqueued;
SELECT mq.alter_queue('calls', max_in_flight => 1);
SELECT body FROM mq.dequeue('calls', 10);
SELECT mq.alter_queue('calls', unset => '{max_in_flight}');
SELECT body FROM mq.dequeue('calls', 10);
SELECT mq.drop_queue('calls');
SELECT mq.drop_queue('calls_dead');

-- One in a thousand seconds.
SELECT mq.create_queue('mails', rate_limit => 0.001);
SELECT mq.enqueue_batch('mails', '{1,2,3}') IS NOT NULL AS enqueued;
SELECT body FROM mq.dequeue('mails', 10);
SELECT body FROM mq.dequeue('mails', 10);
-- A thousand a second, with a burst of as many: a bucket that was empty begins empty, and a waiting consumer is woken by the first token.
SELECT mq.alter_queue('mails', rate_limit => 1000);
SELECT body FROM mq.dequeue('mails', wait => '10 s');
SELECT body FROM mq.dequeue('mails', wait => '10 s');
SELECT max_in_flight, rate_limit FROM mq.queues WHERE name = 'mails';

SELECT mq.create_queue('bad', max_in_flight => 0);
SELECT mq.create_queue('bad', rate_limit => 0);
SELECT mq.create_queue('bad', rate_limit => 'NaN');
SELECT mq.alter_queue('mails', rate_limit => 5, unset => '{rate_limit}');
SELECT mq.drop_queue('mails');
SELECT mq.drop_queue('mails_dead');
