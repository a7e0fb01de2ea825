-- The quickstart: a queue, an application's transactions, a consumer.
CREATE TABLE orders (id int PRIMARY KEY, item text);
SELECT mq.create_queue('orders');

-- The message exists if and only if the transaction commits.
BEGIN;
INSERT INTO orders VALUES (1, 'tea');
SELECT mq.enqueue('orders', '{"order": 1}') AS id;
COMMIT;
BEGIN;
INSERT INTO orders VALUES (2, 'coffee');
SELECT mq.enqueue('orders', '{"order": 2}') IS NOT NULL AS enqueued;
ROLLBACK;
SELECT mq.enqueue_batch('orders', ARRAY['{"order": 3}', '{"order": 4}']::jsonb[]) IS NOT NULL AS enqueued;
SELECT mq.enqueue('orders', '{"order": 5}', priority => 9) IS NOT NULL AS enqueued;
SELECT mq.enqueue('orders', '{"order": 6}', delay => '1 hour') IS NOT NULL AS enqueued;
SELECT body, state FROM mq.browse('orders') ORDER BY body ->> 'order';

-- Consume in one transaction with the work ...
BEGIN;
SELECT body, attempt, priority FROM mq.dequeue('orders', auto_ack => true);
COMMIT;
-- ... or take a lease, and acknowledge when the work is done.
SELECT body, attempt, lease_until > now() AS leased FROM mq.dequeue('orders', 2);
SELECT body, state FROM mq.browse('orders') ORDER BY body ->> 'order';
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight;
SELECT body, state FROM mq.browse('orders') ORDER BY body ->> 'order';
SELECT queue, ready, delayed, in_flight, enqueued, delivered, acked FROM mq.stats WHERE queue = 'orders';

-- The queue is a table.
SELECT body, attempts, priority, ready_at > now() AS delayed FROM mq.q_orders;
DELETE FROM mq.q_orders;
SELECT count(*) FROM mq.dequeue('orders');
SELECT name, lease, max_attempts, backoff, dead_letter, relation, channel FROM mq.queues ORDER BY name;
SELECT mq.drop_queue('orders');
SELECT mq.drop_queue('orders_dead');
DROP TABLE orders;
