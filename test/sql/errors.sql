-- What users read when something is wrong.
\set SHOW_CONTEXT never
SELECT mq.enqueue('nope', '1');
SELECT * FROM mq.dequeue('nope');
SELECT mq.create_queue('bad name');
SELECT mq.create_queue('1st');
SELECT mq.create_queue(repeat('n', 55));
SELECT mq.create_queue(repeat('n', 50));
SELECT mq.create_queue(NULL);
SELECT mq.create_queue('e', lease => '-1 s');
SELECT mq.create_queue('e', max_attempts => -1);
SELECT mq.create_queue('e', overflow => 'sometimes');
SELECT mq.create_queue('e', ttl => '1 h');
SELECT mq.create_queue('e', dead_letter => '');
SELECT mq.create_queue('e');
SELECT mq.create_queue('e', if_not_exists => true);
SELECT mq.create_queue('e', lease => '7 s', if_not_exists => true);
SELECT mq.enqueue('e', '1', priority => 10);
SELECT mq.enqueue('e', '1', delay => '-1 s');
SELECT mq.enqueue('e', '1', delay => '1 s', deliver_at => '2100-01-01');
SELECT mq.enqueue('e', '1', data => '\x00');
SELECT mq.enqueue('e', '1', headers => '[1]');
SELECT mq.enqueue('e', '1', key => repeat('k', 1001));
SELECT mq.enqueue('e', '1', dedup_id => 'd');
SELECT mq.enqueue('e', '1', ttl => '1 h');
SELECT mq.enqueue_batch('e', '{1,2}', keys => '{a}');
SELECT * FROM mq.dequeue('e', 0);
SELECT * FROM mq.dequeue('e', wait => '-1 s');
SELECT * FROM mq.dequeue('e', match => '{}');
SELECT * FROM mq.dequeue_any('{e}');
SELECT mq.ack('e', 1, NULL);
SELECT mq.ack('e', 1, 1, strict => true);
SELECT mq.ack_batch('e', '{1,2,3}', '{1,2}');
SELECT mq.grant('e', 'public', 'everything');
SELECT mq.publish('x', 'k', '1');
-- without the row, which has a time
\set VERBOSITY terse
INSERT INTO mq.q_e (body, priority) VALUES ('1', 10);
\set VERBOSITY default
INSERT INTO mq.q_e (body, dedup_id) VALUES ('1', 'd');
BEGIN READ ONLY;
SELECT mq.enqueue('e', '1');
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
CALL mq.wait('e', '1 s');
ROLLBACK;
CREATE ROLE mqe_nobody;
SET ROLE mqe_nobody;
SELECT mq.enqueue('e', '1');
SELECT * FROM mq.dequeue('e');
SELECT mq.create_queue('mine');
SELECT mq.drop_queue('e');
RESET ROLE;
DROP ROLE mqe_nobody;
SELECT mq.drop_queue('e');
SELECT mq.drop_queue('e');
SELECT mq.drop_queue('e', if_exists => true);
