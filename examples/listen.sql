-- Sleeping until there is something, in two ways.
--
--   psql -f examples/listen.sql

\set ON_ERROR_STOP on
SELECT mq.create_queue('example_alarm', if_not_exists => true);

-- 1. The server waits. `wait =>` blocks the dequeue itself; CALL mq.wait only
--    waits, holds no snapshot meanwhile, and so may wait for hours.
SELECT mq.enqueue('example_alarm', '"in a second"', delay => '1 second');
CALL mq.wait('example_alarm', '10 seconds');
SELECT body FROM mq.dequeue('example_alarm', auto_ack => true);

SELECT mq.enqueue('example_alarm', '"in a second, again"', delay => '1 second');
SELECT body FROM mq.dequeue('example_alarm', wait => '10 seconds', auto_ack => true);

-- 2. The client waits, for many queues with one connection. The notification
--    carries nothing: it says that it is worth to dequeue.
SELECT mq.listen('example_alarm');
SELECT mq.enqueue('example_alarm', '"now"');
CALL mq.wait('example_alarm', '10 seconds');
SELECT body FROM mq.dequeue('example_alarm', auto_ack => true);
-- psql shows notifications after a statement; a driver waits on the socket
-- instead, see worker.py.
SELECT mq.unlisten('example_alarm');
