-- Once only: an enqueue whose dedup_id is still remembered adds nothing and returns the id of the first.
SELECT mq.create_queue('orders');
SELECT mq.enqueue('orders', '"vase"', dedup_id => 'order-1');
SELECT mq.enqueue('orders', '"another"', dedup_id => 'order-1');
SELECT mq.enqueue('orders', '"cup"', dedup_id => 'order-2') > 1 AS another;
SELECT body, dedup_id FROM mq.dequeue('orders', 10, auto_ack => true);
-- Also after it was consumed.
SELECT mq.enqueue('orders', '"vase"', dedup_id => 'order-1');
SELECT count(*) FROM mq.q_orders;

-- What is rolled back is not remembered.
BEGIN;
SELECT mq.enqueue('orders', '"jar"', dedup_id => 'order-3') IS NOT NULL AS enqueued;
ROLLBACK;
BEGIN;
SAVEPOINT s;
SELECT mq.enqueue('orders', '"jar"', dedup_id => 'order-3') IS NOT NULL AS enqueued;
ROLLBACK TO s;
SELECT mq.enqueue('orders', '"jar again"', dedup_id => 'order-3') IS NOT NULL AS enqueued;
COMMIT;
SELECT body FROM mq.q_orders;

-- In a batch: of equal ones the first, one id for each.
SELECT id - min(id) OVER () AS id FROM mq.enqueue_batch('orders', '{1,2,3,4}', dedup_ids => '{x,y,x,NULL}') AS id;
SELECT body, dedup_id FROM mq.q_orders WHERE body IN ('1', '2', '3', '4') ORDER BY id;
SELECT mq.purge('orders');

-- While the message exists, here: until its ack is committed.
SELECT mq.alter_queue('orders', dedup_window => '0');
SELECT mq.enqueue('orders', '"one"', dedup_id => 'job') AS first \gset
SELECT mq.enqueue('orders', '"two"', dedup_id => 'job') = :first AS first;
SELECT body FROM mq.dequeue('orders');
SELECT mq.enqueue('orders', '"two"', dedup_id => 'job') = :first AS first;
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight;
SELECT mq.enqueue('orders', '"two"', dedup_id => 'job') = :first AS first;
SELECT body FROM mq.dequeue('orders', auto_ack => true);

-- Only mq.enqueue looks; other queues have ids of their own.
INSERT INTO mq.q_orders (body, dedup_id) VALUES ('1', 'job');
SELECT mq.create_queue('bills');
SELECT mq.enqueue('bills', '1', dedup_id => 'order-1');
SELECT mq.create_queue('bad', dedup_window => '-1 s');
SELECT mq.drop_queue('orders');
SELECT mq.drop_queue('orders_dead');
SELECT mq.drop_queue('bills');
SELECT mq.drop_queue('bills_dead');
