-- The archive: acknowledged messages are kept for a while, and can be enqueued again.
SELECT mq.create_queue('invoices', retain => '30 days');
SELECT mq.enqueue('invoices', '{"no": 1}', headers => '{"to": "anna"}', key => 'anna', dedup_id => 'one') IS NOT NULL AS enqueued;
SELECT mq.enqueue('invoices', '{"no": 2}', priority => 3) IS NOT NULL AS enqueued;
SELECT mq.enqueue('invoices', '{"no": 3}') IS NOT NULL AS enqueued;
SELECT mq.ack(m) FROM mq.dequeue('invoices', 2, consumer => 'printer') m;
-- In the acking transaction.
BEGIN;
SELECT body FROM mq.dequeue('invoices', auto_ack => true, consumer => 'copier');
SELECT count(*) FROM mq.a_invoices;
ROLLBACK;
SELECT body, headers, key, priority, dedup_id, attempts, acked_at <= clock_timestamp() AS acked, consumer FROM mq.a_invoices ORDER BY id;
SELECT body, mq.status('invoices', id) FROM mq.a_invoices ORDER BY id;

-- By time, the end not included: as new messages, without the dedup_id.
SELECT mq.replay('invoices', '2000-01-01', until => '2000-01-02');
SELECT mq.replay('invoices', '-infinity');
SELECT body, headers, key, priority, dedup_id FROM mq.browse('invoices') WHERE id > 3;
-- What is deleted or dead is not archived.
SELECT mq.purge('invoices');
SELECT count(*) FROM mq.a_invoices;

-- Partitions are made ahead, and dropped whole when they are old.
SELECT count(*) > 2 AS partitions FROM pg_inherits WHERE inhparent = 'mq.a_invoices'::regclass;
-- Without the option the archive stays, and gets no more.
SELECT mq.alter_queue('invoices', unset => '{retain}');
SELECT mq.enqueue('invoices', '4') IS NOT NULL AS enqueued;
SELECT body FROM mq.dequeue('invoices', auto_ack => true);
SELECT count(*) FROM mq.a_invoices;
SELECT mq.create_queue('plain');
SELECT mq.replay('plain', '-infinity');
SELECT mq.replay('invoices', NULL);
SELECT mq.create_queue('bad', retain => '0');
SELECT mq.drop_queue('invoices');
SELECT to_regclass('mq.a_invoices');
SELECT mq.drop_queue('invoices_dead');
SELECT mq.drop_queue('plain');
SELECT mq.drop_queue('plain_dead');
