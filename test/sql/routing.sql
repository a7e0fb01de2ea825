-- Routing: exchanges decide which queues a message goes to.
SELECT mq.create_queue('invoices', dead_letter => ''), mq.create_queue('shipping', dead_letter => ''), mq.create_queue('audit', dead_letter => '');

-- A topic exchange looks at the words of the routing key: * is one word, # any number of them.
SELECT mq.create_exchange('orders');
SELECT mq.bind('orders', 'invoices', '*.paid'), mq.bind('orders', 'shipping', 'eu.#'), mq.bind('orders', 'audit');
SELECT mq.publish('orders', 'eu.paid', '{"order": 1}') AS queues;
SELECT mq.publish('orders', 'us.paid', '{"order": 2}') AS queues;
SELECT mq.publish('orders', 'eu.cancelled.late', '{"order": 3}') AS queues;
SELECT body, headers FROM mq.dequeue('shipping', 10, auto_ack => true);
SELECT body, headers FROM mq.dequeue('invoices', 10, auto_ack => true);

-- In the caller's transaction, like everything else.
BEGIN;
SELECT mq.publish('orders', 'eu.paid', '{"order": 4}') AS queues;
ROLLBACK;
SELECT queue, ready FROM mq.stats ORDER BY queue;

-- Many at once: how many queues got each, in order.
SELECT * FROM mq.publish_batch('orders', ARRAY['eu.paid', 'us.new', 'eu.new'], ARRAY['{"order": 5}', '{"order": 6}', '{"order": 7}']::jsonb[]) AS queues;

-- direct compares the key, fanout looks at nothing, headers at the message's headers.
SELECT mq.create_exchange('countries', 'direct'), mq.create_exchange('everybody', 'fanout'), mq.create_exchange('big', 'headers');
SELECT mq.bind('countries', 'shipping', 'de'), mq.bind('everybody', 'invoices'), mq.bind('everybody', 'shipping');
SELECT mq.bind('big', 'audit', match => '{"x-match": "any", "size": "xl", "express": null}');
SELECT mq.publish('countries', 'de') AS de, mq.publish('countries', 'fr') AS fr, mq.publish('everybody', 'whatever') AS everybody;
SELECT mq.publish('big', 'k', headers => '{"size": "xl"}') AS xl, mq.publish('big', 'k', headers => '{"express": false}') AS express, mq.publish('big', 'k', headers => '{"size": "s"}') AS s;
-- Bindings that look at nothing say so.
SELECT mq.bind('big', 'audit', match => '{"x-match": "any", "x-size": "xl"}'), mq.unbind('big', 'audit', match => '{"x-match": "any", "x-size": "xl"}');
-- A direct exchange has no patterns.
SELECT mq.bind('countries', 'audit');
SELECT mq.unbind('countries', 'audit');

-- From exchange to exchange, and what no binding takes: to an alternate.
SELECT mq.create_exchange('lost', 'fanout'), mq.create_exchange('front', 'direct', alternate => 'lost');
SELECT mq.bind('lost', 'audit'), mq.bind_exchange('front', 'everybody', 'all'), mq.bind_exchange('front', 'orders', 'eu.paid');
SELECT mq.publish('front', 'all') AS "all", mq.publish('front', 'eu.paid') AS "eu.paid", mq.publish('front', 'nonsense') AS lost;
SELECT * FROM mq.exchanges ORDER BY name;
SELECT * FROM mq.bindings ORDER BY exchange, queue, destination, pattern;

-- A message that must arrive.
SELECT mq.publish('countries', 'fr', mandatory => true);
SELECT * FROM mq.publish_batch('countries', ARRAY['de', 'es', 'fr'], mandatory => true);
-- The exchange without a name: the key is the queue.
SELECT mq.publish('', 'audit', '"directly"') AS queues;
SELECT mq.publish('', 'no_such_queue', '"directly"') AS queues;

-- Nothing is half-routed: where one queue refuses, none gets it.
SELECT mq.create_queue('small', dead_letter => '', max_length => 1), mq.bind('everybody', 'small');
SELECT mq.purge('invoices') IS NOT NULL AS purged;
SELECT mq.publish('everybody', 'k', '1') AS queues;
SELECT mq.publish('everybody', 'k', '2') AS queues;
SELECT body FROM mq.q_invoices;
SELECT mq.unbind('everybody', 'small');

-- Dead letters through an exchange, each to whom it may concern.
SELECT mq.create_queue('jobs', dead_letter => '', dead_letter_exchange => 'orders', dead_letter_key => 'eu.dead');
SELECT mq.purge('shipping') IS NOT NULL AS purged, mq.purge('audit') IS NOT NULL AS purged;
SELECT mq.enqueue('jobs', '"broken"') IS NOT NULL AS enqueued;
SELECT mq.reject(m.queue, m.id, m.receipt, 'cannot be done') FROM mq.dequeue('jobs') m;
SELECT body, headers #- '{x-death,0,at}' AS headers, last_error FROM mq.q_shipping;
SELECT mq.redrive('shipping') AS redriven;
SELECT body FROM mq.dequeue('jobs', auto_ack => true);

-- What is in use stays; what goes takes its bindings along.
SELECT mq.drop_queue('audit');
SELECT mq.drop_exchange('orders');
SELECT mq.drop_exchange('lost');
SELECT mq.create_exchange('orders', 'direct', if_not_exists => true);
SELECT mq.create_exchange('orders');
SELECT mq.drop_exchange('nothing', if_exists => true), mq.drop_queue('jobs'), mq.drop_exchange('front'), mq.drop_exchange('lost'), mq.drop_exchange('orders');
SELECT mq.drop_exchange(name) FROM mq.exchanges ORDER BY name;
SELECT count(*) FROM mq.bindings;
SELECT mq.drop_queue(name) FROM mq.queues ORDER BY name;
-- Errors name what is wrong.
SELECT mq.publish('orders', 'k');
SELECT mq.create_exchange('x', 'fan-out');
SELECT mq.create_exchange('x', alternate => 'y');
SELECT mq.bind('', 'audit');
