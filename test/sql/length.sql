-- Queues of limited length: what does not fit is rejected, or the oldest makes room.
SELECT mq.create_queue('clicks', max_length => 3);
SELECT mq.enqueue_batch('clicks', '{1,2}') IS NOT NULL AS enqueued;
-- A batch as a whole.
SELECT mq.enqueue_batch('clicks', '{3,4}');
SELECT count(*) FROM mq.q_clicks;
SELECT mq.enqueue('clicks', '3', delay => '1 hour') IS NOT NULL AS enqueued;
SELECT mq.enqueue('clicks', '4');
INSERT INTO mq.q_clicks (body) VALUES ('4');
-- Leased messages do not count; what comes back may stand above the limit.
SELECT body FROM mq.dequeue('clicks', 2);
SELECT mq.enqueue_batch('clicks', '{4,5}') IS NOT NULL AS enqueued;
SELECT mq.release(queue, id, receipt) FROM mq.in_flight;
SELECT ready, delayed FROM mq.stats WHERE queue = 'clicks';
SELECT mq.enqueue('clicks', '6');
SELECT mq.alter_queue('clicks', unset => '{max_length}');
SELECT mq.enqueue('clicks', '6') IS NOT NULL AS enqueued;
SELECT mq.drop_queue('clicks');
SELECT mq.drop_queue('clicks_dead');

SELECT mq.create_queue('latest', max_length => 2, overflow => 'drop_head');
SELECT mq.enqueue_batch('latest', '{1,2}') IS NOT NULL AS enqueued;
SELECT mq.enqueue('latest', '3') IS NOT NULL AS enqueued;
SELECT body FROM mq.browse('latest');
SELECT body, headers #>> '{x-death,0,reason}' AS reason FROM mq.q_latest_dead;
-- In the producer's transaction: rolled back, all is as before.
BEGIN;
SELECT mq.enqueue('latest', '4') IS NOT NULL AS enqueued;
ROLLBACK;
SELECT body, attempts FROM mq.q_latest ORDER BY id;
-- Nothing ready, nothing to drop.
SELECT mq.purge('latest');
SELECT mq.enqueue_batch('latest', '{5,6}', delay => '1 hour') IS NOT NULL AS enqueued;
SELECT mq.enqueue('latest', '7');
SELECT mq.enqueue_batch('latest', '{7,8,9}');
SELECT mq.create_queue('bad', max_length => 0);
SELECT mq.create_queue('bad', overflow => 'drop_tail');
SELECT mq.drop_queue('latest');
SELECT mq.drop_queue('latest_dead');
