-- One event, many services: an exchange sends each message to the queues whose
-- bindings match its routing key.
--
--   psql -f examples/routing.sql

\set ON_ERROR_STOP on
SELECT mq.create_queue(queue, if_not_exists => true)
    FROM unnest('{example_billing,example_parcels,example_log,example_lost}'::text[]) queue;

-- What no binding takes goes to the alternate exchange, here to a queue of its own.
SELECT mq.create_exchange('example_rest', 'fanout', if_not_exists => true);
SELECT mq.bind('example_rest', 'example_lost');
SELECT mq.create_exchange('example_shop', 'topic', alternate => 'example_rest', if_not_exists => true);

-- Topic patterns: * is one word, # any number of them. Binding again is no error.
SELECT mq.bind('example_shop', 'example_billing', 'order.*.placed');
SELECT mq.bind('example_shop', 'example_parcels', 'order.*.paid');
SELECT mq.bind('example_shop', 'example_log', 'order.#');
SELECT exchange, queue, pattern FROM mq.bindings WHERE exchange LIKE 'example_%' ORDER BY exchange, queue;

-- The shop knows the exchange and no queue. The order and its event commit together.
CREATE TEMP TABLE orders (id integer PRIMARY KEY, region text);
BEGIN;
INSERT INTO orders VALUES (1, 'eu');
SELECT mq.publish('example_shop', 'order.eu.placed', '{"order": 1}') AS queues;
COMMIT;

-- Billing takes it, and says so in its turn, in one transaction: no event without
-- the work, no work without the event.
CREATE TEMP TABLE invoices ("order" integer);
WITH message AS (
    SELECT * FROM mq.dequeue('example_billing', auto_ack => true)
), invoice AS (
    INSERT INTO invoices SELECT (body->>'order')::integer FROM message RETURNING "order"
)
SELECT mq.publish('example_shop', 'order.eu.paid', jsonb_build_object('order', "order")) AS queues FROM invoice;

-- Nobody is bound to this: it goes to the alternate. With neither, the result
-- would be 0, or with mandatory => true an error.
SELECT mq.publish('example_shop', 'customer.new', '{"customer": 7}', mandatory => true) AS queues;

SELECT m.queue, m.body, m.headers->>'x-routing-key' AS key
    FROM mq.dequeue_any('{example_parcels,example_log,example_lost}', 10, auto_ack => true) m;
