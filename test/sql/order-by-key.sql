-- Order by key: messages of one key one at a time, in the order of their ids, by any number of consumers.
SELECT mq.create_queue('accounts', ordered => true, backoff => '0', max_attempts => 2);
SELECT mq.enqueue_batch('accounts', '{"\"open\"","\"pay in\"","\"open\"","\"pay out\"","\"news\""}', keys => '{anna,anna,ben,anna,NULL}') IS NOT NULL AS enqueued;

-- A batch has at most one message of each key; those without a key are unordered.
SELECT key, body FROM mq.dequeue('accounts', 10);
-- The next of a key comes when the one before is done.
SELECT key, body FROM mq.dequeue('accounts', 10);
SELECT mq.ack('accounts', f.id, f.receipt) FROM mq.in_flight f JOIN mq.q_accounts USING (id) WHERE key = 'ben' OR key IS NULL;
SELECT mq.release('accounts', f.id, f.receipt) FROM mq.in_flight f;
-- Released, it has its place again. Nacked, it is tried again before what is behind it.
SELECT key, body, attempt FROM mq.dequeue('accounts', 10);
SELECT mq.nack('accounts', id, receipt, delay => '1 hour') FROM mq.in_flight;
SELECT key, body FROM mq.dequeue('accounts', 10);
SELECT key, body, state FROM mq.browse('accounts') ORDER BY id;
UPDATE mq.q_accounts SET ready_at = NULL WHERE body = '"open"';
SELECT key, body, attempt FROM mq.dequeue('accounts', 10);
-- When it is dead, the key goes on.
SELECT mq.nack('accounts', id, receipt, reason => 'no such account') FROM mq.in_flight;
SELECT key, body, attempt FROM mq.dequeue('accounts', 10);

-- In one transaction: the next of the key only after its COMMIT.
BEGIN;
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight;
SELECT key, body FROM mq.dequeue('accounts');
COMMIT;
SELECT key, body FROM mq.dequeue('accounts', auto_ack => true);

-- Ids alone say what comes first.
SELECT mq.enqueue('accounts', '1', key => 'anna', priority => 1);
SELECT mq.enqueue('accounts', '1', key => 'anna', delay => '1 s');
SELECT mq.enqueue('accounts', '1', key => 'anna', deliver_at => '2100-01-01');
INSERT INTO mq.q_accounts (body, key, priority) VALUES ('1', 'anna', 1);

-- A queue with messages becomes ordered, or is so no more.
SELECT mq.alter_queue('accounts', ordered => false);
SELECT mq.enqueue_batch('accounts', '{1,2,3}', keys => '{carl,carl,carl}') IS NOT NULL AS enqueued;
SELECT body FROM mq.dequeue('accounts');
SELECT mq.alter_queue('accounts', ordered => true);
SELECT body FROM mq.dequeue('accounts');
SELECT mq.alter_queue('accounts', ordered => false);
SELECT body FROM mq.dequeue('accounts', 10);
SELECT ordered FROM mq.queues WHERE name = 'accounts';
SELECT mq.drop_queue('accounts');
SELECT mq.drop_queue('accounts_dead');
