-- Several queues with one wait, messages by their headers, looking, and back from the dead letters.
SELECT mq.create_queue('orders', backoff => '0');
SELECT mq.create_queue('mail');

-- The first queue first; max over all together, one receipt.
SELECT mq.enqueue_batch('orders', '{1,2}') IS NOT NULL AS enqueued;
SELECT mq.enqueue_batch('mail', '{"\"a\"","\"b\""}') IS NOT NULL AS enqueued;
SELECT queue, body FROM mq.dequeue_any('{mail,orders}', 3);
SELECT count(*), count(DISTINCT receipt) AS receipts FROM mq.in_flight;
SELECT mq.release(queue, id, receipt) FROM mq.in_flight;
SELECT mq.pause('mail');
SELECT queue, body FROM mq.dequeue_any('{mail,orders}', 3, auto_ack => true);
SELECT mq.resume('mail');
SELECT queue, body FROM mq.dequeue_any('{mail,orders}', 3, wait => '10 s', auto_ack => true);
SELECT * FROM mq.dequeue_any('{mail,nope}');
SELECT queue, body FROM mq.dequeue_any('{mail,mail}');

-- match: only what contains these headers; the others stay where they are.
SELECT mq.enqueue('orders', '"vase"', headers => '{"fragile": true, "to": "anna"}') IS NOT NULL AS enqueued;
SELECT mq.enqueue('orders', '"pen"', headers => '{"to": "ben"}') IS NOT NULL AS enqueued;
SELECT mq.enqueue('orders', '"cup"', headers => '{"fragile": true, "to": "ben"}') IS NOT NULL AS enqueued;
SELECT mq.enqueue('orders', '"ink"') IS NOT NULL AS enqueued;
SELECT body FROM mq.dequeue('orders', 10, match => '{"fragile": true, "to": "ben"}');
SELECT body FROM mq.dequeue('orders', 10, match => '{"fragile": false}');
SELECT body, state FROM mq.browse('orders') ORDER BY id;
SELECT body FROM mq.dequeue('orders', 10, auto_ack => true);

-- Request and reply.
SELECT mq.enqueue('orders', '{"add": [1, 2]}', headers => '{"reply_to": "mail", "correlation_id": "7f3a"}') IS NOT NULL AS enqueued;
SELECT mq.enqueue('mail', '"of somebody else"', headers => '{"correlation_id": "1b22"}') IS NOT NULL AS enqueued;
WITH m AS (SELECT * FROM mq.dequeue('orders', auto_ack => true))
SELECT mq.enqueue(m.headers->>'reply_to', to_jsonb((m.body->'add'->>0)::int + (m.body->'add'->>1)::int),
                  headers => jsonb_build_object('correlation_id', m.headers->'correlation_id')) IS NOT NULL AS replied FROM m;
SELECT body FROM mq.dequeue('mail', wait => '10 s', auto_ack => true, match => '{"correlation_id": "7f3a"}');
SELECT mq.purge('mail');

-- Looking takes nothing.
SELECT mq.enqueue('mail', '"ready"') AS ready \gset
SELECT mq.enqueue('mail', '"delayed"', delay => '1 hour') AS delayed \gset
SELECT mq.enqueue('mail', '"leased"', priority => 1) AS leased \gset
SELECT body FROM mq.dequeue('mail');
SELECT body, state, priority FROM mq.browse('mail');
SELECT body FROM mq.browse('mail', 1);
SELECT mq.status('mail', :ready), mq.status('mail', :delayed), mq.status('mail', :leased), mq.status('mail', 0) AS gone;
SELECT ready, delayed, in_flight FROM mq.stats WHERE queue = 'mail';
SELECT mq.ack(queue, id, receipt) FROM mq.in_flight WHERE queue = 'mail';

-- Back to where they died, or elsewhere, as new messages.
SELECT mq.enqueue_batch('orders', '{1,2,3}') IS NOT NULL AS enqueued;
SELECT count(mq.reject(queue, id, receipt, 'sold out')) FROM mq.dequeue('orders', 3);
SELECT body, headers #>> '{x-death,0,error}' AS error FROM mq.browse('orders_dead');
SELECT mq.redrive('orders_dead', 1);
SELECT body, attempt, headers #>> '{x-death,0,reason}' AS reason FROM mq.dequeue('orders', 10, auto_ack => true);
SELECT mq.redrive('orders_dead', target => 'mail');
SELECT body FROM mq.browse('mail') WHERE state = 'ready' ORDER BY id;
SELECT mq.enqueue('orders_dead', '"a stranger"') IS NOT NULL AS enqueued;
SELECT mq.redrive('orders_dead');
SELECT mq.redrive('orders_dead', target => 'orders_dead');
SELECT mq.redrive('orders_dead', 0);
SELECT mq.drop_queue(name) FROM unnest('{orders,orders_dead,mail,mail_dead}'::text[]) AS name;
