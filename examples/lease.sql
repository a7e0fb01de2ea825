-- Long work on a lease: the dequeue commits at once, no transaction stays open
-- while the work is done, and the ack comes later, from any session.
--
--   psql -f examples/lease.sql

\set ON_ERROR_STOP on
SELECT mq.create_queue('example_video', lease => '10 minutes', if_not_exists => true);
SELECT count(*) FROM mq.enqueue_batch('example_video',
    ARRAY['{"file": "a.mkv"}', '{"file": "b.mkv"}', '{"file": "c.mkv"}', '{"file": "d.mkv"}']::jsonb[]);

-- Nobody else gets these until lease_until; then the attempt counts as failed.
SELECT id, receipt, lease_until, body FROM mq.dequeue('example_video', consumer => 'encoder 1') \gset a_
SELECT id, receipt, lease_until, body FROM mq.dequeue('example_video', consumer => 'encoder 1') \gset b_
SELECT id, receipt, lease_until, body FROM mq.dequeue('example_video', consumer => 'encoder 1') \gset c_
SELECT queue, id, consumer, attempt, lease_until FROM mq.in_flight WHERE queue = 'example_video';

-- It takes longer than thought: ten more minutes from now.
SELECT mq.extend('example_video', :a_id, :a_receipt, '10 minutes');

-- Done. The receipt fences: true only while this delivery is the current one.
SELECT mq.ack('example_video', :a_id, :a_receipt);
SELECT mq.ack('example_video', :a_id, :a_receipt) AS acked_again;

-- Failed for now: again in a minute. Failed for good: to the dead letters.
SELECT mq.nack('example_video', :b_id, :b_receipt, delay => '1 minute', reason => 'the disk is full');
SELECT mq.reject('example_video', :c_id, :c_receipt, reason => 'no video in this file');

-- Not for us after all: back to its place, and no attempt is counted.
SELECT id, receipt FROM mq.dequeue('example_video') \gset d_
SELECT mq.release('example_video', :d_id, :d_receipt);

SELECT mq.status('example_video', :b_id) AS b, mq.status('example_video', :d_id) AS d,
    (SELECT count(*) FROM mq.q_example_video_dead) AS dead;
