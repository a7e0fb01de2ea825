-- Work and message in one transaction: both happen or neither.
--
--   psql -f examples/transactional.sql
--
-- Needs the extension in this database, and a role that may make queues.

\set ON_ERROR_STOP on
SELECT mq.create_queue('example_mail', max_attempts => 3, backoff => '1 second', if_not_exists => true);
CREATE TEMP TABLE customers (id integer PRIMARY KEY, email text);
CREATE TEMP TABLE sent (customer integer, at timestamptz);

-- The producer: no customer without a welcome mail, no mail without a customer.
BEGIN;
INSERT INTO customers VALUES (1, 'ada@example.org');
SELECT mq.enqueue('example_mail', '{"customer": 1, "mail": "welcome"}');
COMMIT;

BEGIN;
INSERT INTO customers VALUES (2, 'bob@example.org');
SELECT mq.enqueue('example_mail', '{"customer": 2, "mail": "welcome"}');
ROLLBACK;       -- nobody will ever see this message

-- A consumer: the message is gone when this commits, and comes back when it
-- rolls back, fails or loses its connection. Each of these counts an attempt.
BEGIN;
SELECT id, receipt, attempt, body FROM mq.dequeue('example_mail', wait => '5 seconds') \gset
INSERT INTO sent VALUES ((:'body'::jsonb->>'customer')::integer, now());
SELECT mq.ack('example_mail', :id, :receipt);
COMMIT;

-- The same in one statement: auto_ack deletes in this transaction.
WITH message AS (
    SELECT * FROM mq.dequeue('example_mail', max => 10, auto_ack => true)
)
INSERT INTO sent SELECT (body->>'customer')::integer, now() FROM message;

SELECT * FROM sent;

-- After three failed attempts a message stands in example_mail_dead; look at it
-- with plain SQL, and send it back when the fault is mended.
SELECT id, body, headers->'x-death'->0->>'error' AS error FROM mq.q_example_mail_dead;
SELECT mq.redrive('example_mail_dead');
