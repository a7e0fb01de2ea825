-- Lease mode: delivered, not acknowledged.
SELECT * FROM mq.dequeue('bench', lease => '1 hour');
