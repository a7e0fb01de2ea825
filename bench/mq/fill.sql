-- 1,000 messages.
SELECT count(*) FROM (SELECT mq.enqueue_batch('bench', bodies) FROM payload) AS filled;
