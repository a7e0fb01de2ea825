-- mq.import_definitions: a file that RabbitMQ wrote, what becomes of each thing in it, where messages then go; rights, names, malformed input.
\ir setup.psql
\set definitions `cat test/fixtures/rabbitmq-definitions.json`
\set rabbit `cat test/fixtures/rabbitmq-policies.json`
CREATE TEMP TABLE file AS SELECT :'definitions'::jsonb AS d, :'rabbit'::jsonb AS rabbit;
GRANT SELECT ON file TO PUBLIC;

CREATE FUNCTION pg_temp.made() RETURNS bigint LANGUAGE sql AS $$
    SELECT (SELECT count(*) FROM mq.queues) + (SELECT count(*) FROM mq.exchanges) + (SELECT count(*) FROM mq.bindings)
         + (SELECT count(*) FROM pg_class WHERE relnamespace = 'mq'::regnamespace AND relname LIKE 'q\_%') $$;

-- A dry run says all and does nothing, also where nothing could be done.
BEGIN READ ONLY;
SELECT count(*) AS rows FROM file, mq.import_definitions(d, dry_run => true) \gset
ROLLBACK;
CREATE TEMP TABLE planned AS SELECT i.* FROM file, mq.import_definitions(d, dry_run => true) WITH ORDINALITY i(kind, name, action, note, nr);
SELECT is((SELECT count(*) FROM planned), :rows::bigint, 'a dry run, also in a read-only transaction');
SELECT is(pg_temp.made(), 0::bigint, '... makes nothing');

-- For real, rolled back, and again.
BEGIN;
SELECT count(*) FROM file, mq.import_definitions(d) \gset
SELECT pg_temp.made() AS made \gset
ROLLBACK;
SELECT cmp_ok(:made, '>', 100, 'the real thing does');
SELECT is(pg_temp.made(), 0::bigint, '... in the caller''s transaction');
CREATE TEMP TABLE done AS SELECT i.* FROM file, mq.import_definitions(d) WITH ORDINALITY i(kind, name, action, note, nr);
SELECT results_eq('SELECT kind, name, action, note FROM done ORDER BY nr', 'SELECT kind, name, action, note FROM planned ORDER BY nr', 'it does what the dry run said');

-- Every row.
SELECT results_eq($$ SELECT kind, action, string_agg(name, ' | ' ORDER BY name COLLATE "C") FROM done GROUP BY 1, 2 ORDER BY kind COLLATE "C", action COLLATE "C" $$,
$$ VALUES
    ('binding', 'bound', 'amq.direct -> cache | amq.topic -> recent | billing.dead -> billing.work | billing.invoices -> billing.invoices | commands -> my_queue_abbafa2d | commands -> single | commands -> work | dead -> orders.dead | dead.all -> orders.dead | documents -> documents.any | documents -> documents.any | documents -> documents.pdf | documents -> documents.traced | events_all_v1 -> celery_worker1.example.org | events_all_v1 -> gr__e | legacy.in -> recent.plain | orders -> orders.audit | orders -> orders.bulk | orders -> orders.express | orders -> orders.new | scratch -> replies.tmp | unrouted -> unrouted.all'),
    ('binding', 'exists', 'unrouted -> unrouted.all'),
    ('binding', 'skipped', 'audit -> orders.audit | orders -> log | spread -> work'),
    ('binding argument', 'skipped', 'orders -> orders.bulk'),
    ('exchange', 'created', 'amq.direct | amq.fanout | amq.topic | billing.dead | billing.invoices | commands | dead | dead.all | documents | events_all_v1 | legacy.in | orders | scratch | unrouted'),
    ('exchange', 'renamed', 'billing.dead | billing.invoices | events_all_v1'),
    ('exchange', 'skipped', 'audit | gone | spread'),
    ('exchange argument', 'skipped', 'scratch'),
    ('exchange binding', 'bound', 'amq.fanout -> legacy.in | orders -> events_all_v1'),
    ('exchange binding', 'skipped', 'orders -> audit'),
    ('global parameter', 'skipped', 'mqtt_port_to_vhost_mapping'),
    ('operator policy', 'applied', 'ceiling'),
    ('operator policy argument', 'skipped', 'ceiling'),
    ('parameter', 'skipped', 'federation-upstream upstream | shovel move | vhost-limits limits'),
    ('permission', 'skipped', 'app | app | fixture | fixture | fixture | fixture'),
    ('policy', 'applied', 'alternate | app-a | federate | ha | keep | own | quorum-limit | words'),
    ('policy', 'skipped', 'app-all | nothing'),
    ('policy argument', 'skipped', 'app-a | federate | ha | ha | ha'),
    ('queue', 'created', '_2024-reports | app.a | app.b | billing.invoices | billing.work | cache | celery_worker1.example.org | com.example.shop.fulfilment.warehouse.notific_b2916a84 | documents.any | documents.pdf | documents.traced | gr__e | keyless | my_queue_abbafa2d | my_queue_b4c88b38 | nowhere | orders.audit | orders.bulk | orders.dead | orders.express | orders.new | own.args | recent | recent.plain | replies.tmp | single | staging.work | strict | unrouted.all | work | work.retry | x___DROP_TABLE_mq.q_work__--'),
    ('queue', 'renamed', '_2024-reports | billing.invoices | billing.work | celery_worker1.example.org | com.example.shop.fulfilment.warehouse.notific_b2916a84 | gr__e | my_queue_abbafa2d | my_queue_b4c88b38 | staging.work | x___DROP_TABLE_mq.q_work__--'),
    ('queue', 'skipped', 'log'),
    ('queue argument', 'adapted', 'cache | keyless | orders.bulk | replies.tmp | single | strict'),
    ('queue argument', 'skipped', 'cache | nowhere | nowhere | orders.bulk | orders.bulk | orders.new | orders.new | orders.new | recent.plain | replies.tmp | replies.tmp | single'),
    ('topic permission', 'skipped', 'app'),
    ('user', 'skipped', 'app | fixture'),
    ('vhost', 'skipped', '/ | billing | empty | staging') $$, 'every row and its action');
SELECT is((SELECT count(*) FROM done WHERE action NOT IN ('bound', 'created') AND note IS NULL AND NOT (kind = 'binding' AND action = 'exists')), 0::bigint, 'whatever is not simply done has a note');
SELECT is((SELECT string_agg(note, E'\n' ORDER BY nr) FROM done WHERE kind = 'queue argument' AND name IN ('cache', 'single', 'strict', 'orders.bulk', 'keyless')),
'overflow reject-publish-dlx: reject, an error for the sender; what is refused does not go to the dead letters
max-priority 50: priorities go from 0 to 9, and a higher one is an error for the sender
x-queue-mode "lazy": not needed, messages are stored in a table
x-queue-version 2: not needed, messages are stored in a table
single-active-consumer: max_in_flight => 1, one message at a time over all consumers; a failed one lets others pass while it waits for its retry
x-queue-master-locator "client-local": not needed, PostgreSQL replicates the whole database
durable false: unlogged, so kept over a restart, emptied by a crash and not there on standbys
message-ttl 0: no message is delivered without waiting in the queue
dead-letter-exchange "dead" without a key: dead messages get the key "keyless", not the one they were sent with', 'notes say what becomes of an argument');
SELECT is((SELECT note FROM done WHERE (kind, name, action) = ('queue', 'orders.new', 'created')),
    $$dead_letter => '', dead_letter_exchange => 'dead', dead_letter_key => 'orders', max_attempts => 6, max_length => 100000, overflow => 'reject'$$, '... and with which options a queue was made');
SELECT is((SELECT note FROM done WHERE (kind, name, action) = ('queue', 'billing.work', 'renamed')),
    'was "work" of vhost "billing"; who publishes to it through the default exchange names it so', '... and what was renamed');
SELECT matches((SELECT note FROM done WHERE (kind, name) = ('exchange', 'audit')), 'does not export internal exchanges', '... and why an exchange is missing');
SELECT is((SELECT count(*) FROM done WHERE note LIKE '%amqp://%' OR note LIKE '%' || (d -> 'users' -> 0 ->> 'password_hash') || '%'), 0::bigint, 'no secret stands in a note') FROM file;

-- Every argument of the file is mapped, said to be left or adapted, or behind something skipped.
SELECT is_empty($$
    SELECT q ->> 'name', a.key FROM file, jsonb_array_elements(d -> 'queues') q, jsonb_each(q -> 'arguments') a
    WHERE q ->> 'name' NOT IN ('log') AND a.key NOT IN ('x-queue-type', 'x-message-ttl', 'x-max-length', 'x-overflow', 'x-dead-letter-exchange', 'x-dead-letter-routing-key', 'x-max-priority', 'x-delivery-limit', 'x-single-active-consumer')
      AND NOT EXISTS (SELECT FROM done WHERE done.kind = 'queue argument' AND done.name = q ->> 'name' AND done.note LIKE a.key || ' %') $$, 'no argument is dropped silently');

-- Options. What is not named here has mq's default.
SELECT results_eq($$ SELECT name COLLATE "default", (SELECT string_agg(key || '=' || value, ' ' ORDER BY key COLLATE "C") FROM jsonb_each_text(jsonb_strip_nulls(to_jsonb(q) - '{name,relation,owner,channel}'::text[]))
        WHERE (key, value) NOT IN (('overflow', 'reject'), ('max_attempts', '0'), ('unlogged', 'false'), ('ordered', 'false'), ('paused', 'false'), ('lease', '00:00:30'), ('backoff', '00:00:01'), ('backoff_limit', '01:00:00'), ('dedup_window', '00:05:00')))
    FROM mq.queues q ORDER BY name COLLATE "C" $$,
$$ VALUES
    ('_2024-reports', NULL),
    ('app.a', 'max_length=100 overflow=drop_head ttl=00:01:30'),
    ('app.b', 'max_attempts=4 max_length=50 overflow=drop_head ttl=00:01:30'),
    ('billing.invoices', 'dead_letter_exchange=billing.dead max_length=500 overflow=drop_head'),
    ('billing.work', 'max_length=500 overflow=drop_head'),
    ('cache', 'unlogged=true'),
    ('celery_worker1.example.org', NULL),
    ('com.example.shop.fulfilment.warehouse.notific_b2916a84', 'dead_letter=my_queue_abbafa2d'),
    ('documents.any', NULL), ('documents.pdf', NULL), ('documents.traced', NULL), ('gr__e', NULL),
    ('keyless', 'dead_letter_exchange=dead ttl=24:00:00'),
    ('my_queue_abbafa2d', 'max_length=5 overflow=drop_head'),
    ('my_queue_b4c88b38', 'max_length=5 overflow=drop_head'),
    ('nowhere', NULL), ('orders.audit', NULL), ('orders.bulk', NULL), ('orders.dead', NULL), ('orders.express', NULL),
    ('orders.new', 'dead_letter_exchange=dead dead_letter_key=orders max_attempts=6 max_length=100000'),
    ('own.args', 'dead_letter_exchange=dead dead_letter_key=orders max_length=3 overflow=drop_head ttl=00:00:05'),
    ('recent', 'max_length=10 overflow=drop_head'),
    ('recent.plain', 'max_length=20 overflow=drop_head'),
    ('replies.tmp', 'unlogged=true'),
    ('single', 'max_in_flight=1'),
    ('staging.work', NULL),
    ('strict', 'dead_letter_exchange=dead.all max_length=5'),
    ('unrouted.all', NULL),
    ('work', 'dead_letter=work.retry'),
    ('work.retry', 'dead_letter=work ttl=00:00:30'),
    ('x___DROP_TABLE_mq.q_work__--', NULL) $$, 'options of all queues');
SELECT is_empty($$
    SELECT coalesce(r.name, i.source), r.effective, i.definition
    FROM file, jsonb_to_recordset(rabbit) AS r (vhost text, name text, effective jsonb)
    FULL JOIN (SELECT i.* FROM file, mq.import_items$(d) i WHERE kind = 'queue' AND nr IS NOT NULL) i ON i.vhost = r.vhost AND i.source = r.name
    WHERE i.definition IS DISTINCT FROM r.effective $$, 'each queue gets from the policies what RabbitMQ says it gets');
SELECT results_eq($$ SELECT name COLLATE "default", type COLLATE "default", alternate COLLATE "default" FROM mq.exchanges ORDER BY name COLLATE "C" $$,
$$ VALUES ('amq.direct', 'direct', NULL), ('amq.fanout', 'fanout', NULL), ('amq.topic', 'topic', NULL), ('billing.dead', 'fanout', NULL),
    ('billing.invoices', 'topic', NULL), ('commands', 'direct', 'dead.all'), ('dead', 'direct', NULL), ('dead.all', 'fanout', NULL), ('documents', 'headers', NULL),
    ('events_all_v1', 'fanout', NULL), ('legacy.in', 'topic', NULL), ('orders', 'topic', 'unrouted'), ('scratch', 'topic', NULL), ('unrouted', 'fanout', NULL) $$, 'all exchanges');

-- Where messages go.
CREATE FUNCTION pg_temp.goes(exchange text, key text, headers jsonb DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE mark CONSTANT jsonb := to_jsonb(gen_random_uuid()); q text; found boolean; names text[] := '{}';
BEGIN
    PERFORM mq.publish(exchange, key, mark, headers => headers);
    FOR q IN SELECT name FROM mq.queues ORDER BY name COLLATE "C" LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM mq.%I WHERE body = $1)', 'q_' || q) INTO found USING mark;
        IF found THEN names := names || q; END IF;
    END LOOP;
    RETURN array_to_string(names, ' ');
END $$;
CREATE TEMP TABLE way (exchange text, key text, headers jsonb, queues text);
INSERT INTO way VALUES
    ('orders', 'order.new.1', NULL, 'orders.audit orders.new'), ('orders', 'order.new.express', NULL, 'orders.audit orders.express orders.new'),
    ('orders', 'order.x.bulk', NULL, 'orders.audit orders.bulk'), ('orders', 'order.x.eu', NULL, 'celery_worker1.example.org gr__e orders.audit'),
    ('orders', 'other', NULL, 'unrouted.all'), ('commands', 'work', NULL, 'work'), ('commands', 'mine', NULL, 'my_queue_abbafa2d'),
    ('commands', '', NULL, 'single'), ('commands', 'other', NULL, 'orders.dead'), ('amq.topic', 'sensor.7.temperature', NULL, 'recent'),
    ('amq.fanout', 'disk.error', NULL, 'recent.plain'), ('amq.fanout', 'disk.full', NULL, ''), ('amq.direct', 'cache', NULL, 'cache'),
    ('scratch', 'one', NULL, 'replies.tmp'), ('scratch', 'one.two', NULL, ''), ('billing.invoices', 'invoice.new', NULL, 'billing.invoices'), ('', 'gr__e', NULL, 'gr__e'),
    ('documents', '', '{"format": "pdf", "pages": 2}', 'documents.any documents.pdf'), ('documents', '', '{"kind": "report"}', 'documents.any'),
    ('documents', '', '{"x-trace": "on"}', 'documents.traced'), ('documents', '', '{"x-urgent": true}', 'documents.any'), ('documents', '', '{"pages": 2}', '');
SELECT is(pg_temp.goes(exchange, key, headers), queues, format('%s with key "%s"%s', exchange, key, ' and ' || headers::text)) FROM way;

-- What the options do.
SELECT mq.enqueue('work', '"poison"');
SELECT is((SELECT count(mq.reject(m.queue, m.id, m.receipt)) FROM mq.dequeue('work', 10) m), 2::bigint, 'rejected from one queue');
SELECT is((SELECT count(*) FROM mq.browse('work.retry') WHERE expires_at > now() + '25 s'), 2::bigint, '... into the one that waits, behind the default exchange');
SELECT is((SELECT count(mq.reject(m.queue, m.id, m.receipt)) FROM mq.dequeue('work.retry', 10) m), 2::bigint, '... and');
SELECT is((SELECT count(*) FROM mq.browse('work') WHERE expires_at IS NULL), 2::bigint, '... back');
DO $$
BEGIN
    FOR i IN 1..5 LOOP
        PERFORM mq.nack(m.queue, m.id, m.receipt, delay => '0') FROM mq.dequeue('orders.new', 10) m;
        COMMIT;
    END LOOP;
END $$;
SELECT is((SELECT array_agg(attempt) FROM mq.browse('orders.new')), '{6,6}', 'x-delivery-limit 5: five returns leave a message there');
SELECT is((SELECT count(mq.nack(m.queue, m.id, m.receipt)) FROM mq.dequeue('orders.new') m), 1::bigint, '... the sixth');
SELECT ok(pg_temp.until($$ EXISTS (SELECT FROM mq.browse('orders.dead') WHERE headers -> 'x-death' -> 0 ->> 'queue' = 'orders.new') $$), '... sends it through the dead-letter exchange');
SELECT is((SELECT count(mq.reject(m.queue, m.id, m.receipt)) FROM mq.dequeue('billing.invoices') m), 1::bigint, 'another vhost''s');
SELECT is((SELECT count(*) FROM mq.browse('billing.work')), 1::bigint, '... dead letters stay in it');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('strict', to_jsonb(n)) FROM generate_series(1, 6) n $$), '53400', 'reject-publish-dlx refuses');
DO $$
BEGIN
    FOR i IN 1..12 LOOP
        PERFORM mq.enqueue('recent', to_jsonb(i));
        COMMIT;
    END LOOP;
END $$;
SELECT is((SELECT min(body::text::int) || ' ' || count(*) FROM mq.browse('recent')), '3 10', 'drop-head drops the head');
SELECT mq.enqueue('single', '1'), mq.enqueue('single', '2');
SELECT is((SELECT count(*) FROM mq.dequeue('single', 10)), 1::bigint, 'a single active consumer has one message');
SELECT is((SELECT count(*) FROM mq.dequeue('single', 10)), 0::bigint, '... and another consumer none');

-- Once more.
SELECT is_empty($$ SELECT kind, name, action FROM file, mq.import_definitions(d) WHERE action IN ('created', 'bound', 'differs') $$, 'the second time nothing is left to do');
SELECT results_eq($$ SELECT i.kind, i.name, i.action FROM file, mq.import_definitions(d) i $$,
    $$ SELECT kind, name, CASE WHEN action IN ('created', 'bound') THEN 'exists' ELSE action END FROM done ORDER BY nr $$, '... and all else is said again');
SELECT mq.alter_queue('app.a', ttl => '2 minutes', unset => '{max_length}'), mq.alter_queue('work', dead_letter => 'orders.dead', backoff => '5 s');
SELECT mq.unbind('commands', 'work', 'work');
SELECT mq.unbind_exchange('orders', 'events_all_v1', 'order.*.eu'), mq.drop_exchange('events_all_v1'), mq.create_exchange('events_all_v1', 'direct', 'unrouted');
SELECT mq.drop_queue('staging.work');
SELECT results_eq($$ SELECT kind, name, action, note FROM file, mq.import_definitions(d) WHERE action IN ('created', 'bound', 'differs') $$,
$$ VALUES ('exchange', 'events_all_v1', 'differs', 'type is direct, in the file fanout; alternate is unrouted, in the file not set; nothing changed'),
    ('queue', 'staging.work', 'created', 'dead_letter => '''', max_attempts => 0'),
    ('queue', 'app.a', 'differs', 'max_length is not set, in the file 100; ttl is 00:02:00, in the file 00:01:30; nothing changed'),
    ('queue', 'work', 'differs', 'dead_letter is orders.dead, in the file work.retry; nothing changed'),
    ('binding', 'commands -> work', 'bound', 'pattern => ''work'''),
    ('binding', 'events_all_v1 -> celery_worker1.example.org', 'bound', 'pattern => '''''),
    ('binding', 'events_all_v1 -> gr__e', 'bound', 'pattern => '''''),
    ('exchange binding', 'orders -> events_all_v1', 'bound', 'pattern => ''order.*.eu''') $$, 'what was changed is said, what is missing is made');
SELECT is((SELECT ttl::text || ' ' || coalesce(max_length, 0) FROM mq.queues WHERE name = 'app.a'), '00:02:00 0', '... and nothing is changed back');
SELECT mq.create_exchange('audit', 'topic');
SELECT results_eq($$ SELECT kind, name, action FROM file, mq.import_definitions(d) WHERE name ~ '\maudit' AND name <> 'orders -> orders.audit' AND kind NOT LIKE 'queue%' $$,
    $$ VALUES ('exchange', 'audit', 'exists'), ('binding', 'audit -> orders.audit', 'bound'), ('exchange binding', 'orders -> audit', 'bound') $$, 'an exchange that RabbitMQ left out is bound when somebody has made it');
SELECT is(pg_temp.goes('orders', 'order.paid'), 'orders.audit', '... and serves');

-- What no file of this server has.
CREATE TEMP TABLE other AS SELECT i.* FROM mq.import_definitions($$ {
    "rabbitmq_version": "4.1.0", "original_vhost_name": "shop", "custom": [], "metadata": {}, "users": null,
    "queues": [
        {"name": "o.a", "type": "quorum", "arguments": {"x-consumer-timeout": 90000, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "o.a"}},
        {"name": "o.b", "arguments": [["x-queue-type", "quorum"], ["x-delivery-limit", -1], ["x-overflow", "reject-publish-dlx"], ["x-dead-letter-exchange", ""]], "exclusive": true, "auto_delete": false},
        {"name": "o.c", "arguments": {"x-delivery-limit": 3, "x-overflow": "odd", "x-dead-letter-routing-key": "k", "x-max-length": 0, "x-max-priority": 9, "x-single-active-consumer": false}},
        {"name": "o.d", "type": "MQTT QoS 0"}, {"name": "o.e", "arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "o.nosuch"}},
        {"name": "o.f", "arguments": {"x-queue-type": "quorum", "x-overflow": "drop-head", "x-max-length": 3, "x-delivery-limit": 0}},
        {"name": "o.g", "arguments": {"x-overflow": "drop-head", "x-max-length": 3, "x-dead-letter-exchange": "o.h"}}],
    "exchanges": [{"name": "", "type": "direct"}, {"name": "o.x", "type": "x-delayed-message", "arguments": {"x-delayed-type": "topic", "alternate-exchange": "o.y"}},
        {"name": "o.y", "type": "fanout", "arguments": {"alternate-exchange": "o.z"}}, {"name": "o.z", "type": "fanout", "arguments": {"alternate-exchange": "o.y"}, "internal": true},
        {"name": "o.h", "type": "headers"}, {"name": "o.self", "type": "fanout", "arguments": {"alternate-exchange": "o.self", "odd": 1}},
        {"name": "o.3", "type": "direct", "arguments": {"alternate-exchange": "o.2"}}, {"name": "o.2", "type": "direct", "arguments": {"alternate-exchange": "o.1"}}, {"name": "o.1", "type": "direct"}],
    "bindings": [{"source": "", "destination": "o.a", "destination_type": "queue", "routing_key": "o.a"},
        {"source": "o.h", "destination": "o.a", "destination_type": "queue", "arguments": {"x-match": "nope", "a": 1}},
        {"source": "o.h", "destination": "o.a", "destination_type": "queue", "arguments": {"any": null}},
        {"source": "o.h", "destination": "o.c", "destination_type": "queue"}, {"source": "o.h", "destination": "o.excl", "destination_type": "queue"},
        {"source": "o.x", "destination": "o.h", "destination_type": "exchange", "routing_key": "#", "arguments": []}],
    "policies": [{"name": "behind", "pattern": "(?<=o)a", "definition": {"max-length": 3}}, {"name": "broken", "pattern": "(", "definition": {"max-length": 3}},
        {"name": "overflow", "pattern": "^o\\.[fg]$", "apply-to": "queues", "definition": {"overflow": "reject-publish", "max-length": 2}},
        {"name": "streams", "pattern": "^o", "apply-to": "streams", "priority": 9, "definition": {"max-age": "1D"}}]} $$) i;
SELECT results_eq('SELECT kind, name, action, note FROM other',
$$ VALUES
    ('exchange', '', 'exists', 'the default exchange leads to the queue that the key names'),
    ('exchange', 'o.h', 'created', 'type => ''headers'''),
    ('exchange', 'o.self', 'created', 'type => ''fanout'''),
    ('exchange argument', 'o.self', 'skipped', 'alternate-exchange "o.self": it is the exchange itself, so what no binding takes is dropped'),
    ('exchange argument', 'o.self', 'skipped', 'odd 1: not known to mq'),
    ('exchange', 'o.1', 'created', 'type => ''direct'''),
    ('exchange', 'o.2', 'created', 'alternate => ''o.1'', type => ''direct'''),
    ('exchange', 'o.3', 'created', 'alternate => ''o.2'', type => ''direct'''),
    ('exchange', 'o.x', 'created', 'type => ''topic'''),
    ('exchange argument', 'o.x', 'skipped', 'alternate-exchange "o.y": it is in a circle of alternates or leads to one, so what no binding takes is dropped'),
    ('exchange argument', 'o.x', 'adapted', 'type x-delayed-message: publishers give delay to mq.publish instead of the header x-delay'),
    ('exchange', 'o.y', 'created', 'type => ''fanout'''),
    ('exchange argument', 'o.y', 'skipped', 'alternate-exchange "o.z": it is in a circle of alternates or leads to one, so what no binding takes is dropped'),
    ('exchange', 'o.z', 'created', 'type => ''fanout'''),
    ('exchange argument', 'o.z', 'skipped', 'alternate-exchange "o.y": it is in a circle of alternates or leads to one, so what no binding takes is dropped'),
    ('exchange argument', 'o.z', 'skipped', 'internal true: who may publish is decided by mq.grant_exchange'),
    ('queue', 'o.a', 'created', 'dead_letter => '''', lease => ''00:01:30'', max_attempts => 21'),
    ('queue argument', 'o.a', 'adapted', 'consumer-timeout 90000: the lease, which each dequeue can choose'),
    ('queue argument', 'o.a', 'skipped', 'dead-letter-routing-key "o.a" is the queue itself: dead messages are dropped'),
    ('queue', 'o.b', 'created', 'dead_letter => '''', max_attempts => 0, overflow => ''drop_head'''),
    ('queue argument', 'o.b', 'skipped', 'overflow "reject-publish-dlx": not known for quorum queues, so drop_head'),
    ('queue argument', 'o.b', 'skipped', 'dead-letter-exchange "" without a key leads back to the queue a message was sent to: dead messages are dropped'),
    ('queue argument', 'o.b', 'skipped', 'exclusive true: whoever has the privilege may consume; see mq.grant'),
    ('queue', 'o.c', 'created', 'dead_letter => '''', max_attempts => 0, overflow => ''drop_head'''),
    ('queue argument', 'o.c', 'skipped', 'max-length 0: no message is delivered without waiting in the queue'),
    ('queue argument', 'o.c', 'skipped', 'overflow "odd": not known for classic queues, so drop_head'),
    ('queue argument', 'o.c', 'skipped', 'delivery-limit 3: only quorum queues have it'),
    ('queue argument', 'o.c', 'skipped', 'dead-letter-routing-key "k" without an exchange'),
    ('queue', 'o.d', 'skipped', 'type MQTT QoS 0 has no counterpart'),
    ('queue', 'o.e', 'created', 'dead_letter => '''', max_attempts => 0'),
    ('queue argument', 'o.e', 'skipped', 'dead-letter-routing-key "o.nosuch": there is no such queue, so dead messages are dropped'),
    ('queue', 'o.f', 'created', 'dead_letter => '''', max_attempts => 1, max_length => 2, overflow => ''reject'''),
    ('queue', 'o.g', 'created', 'dead_letter => '''', dead_letter_exchange => ''o.h'', max_attempts => 0, max_length => 2, overflow => ''drop_head'''),
    ('queue', 'o.excl', 'skipped', 'only mentioned, as RabbitMQ does not export exclusive queues'),
    ('binding', ' -> o.a', 'exists', 'the default exchange leads to the queue that the key names'),
    ('binding', 'o.h -> o.a', 'skipped', 'x-match "nope" is not known'),
    ('binding', 'o.h -> o.a', 'bound', 'match => ''{"any": null}'', pattern => ''#'''),
    ('binding', 'o.h -> o.c', 'bound', 'pattern => ''#'''),
    ('binding', 'o.h -> o.excl', 'skipped', 'key "": queue "o.excl" is skipped'),
    ('exchange binding', 'o.x -> o.h', 'bound', 'pattern => ''#'''),
    ('policy', 'behind', 'skipped', 'its pattern cannot be read here; alter by hand what it is for'),
    ('policy', 'broken', 'skipped', 'its pattern cannot be read here; alter by hand what it is for'),
    ('policy', 'overflow', 'applied', 'in vhost "shop", queues: 2, exchanges: 0; what is made later does not get it'),
    ('policy', 'streams', 'skipped', 'there is nothing that it is for, or another policy has priority'),
    ('section', 'custom', 'skipped', 'not known to mq'), ('section', 'metadata', 'skipped', 'not known to mq') $$, 'rows for what is rare');
SELECT is(pg_temp.goes('o.x', 'k', '{"any": 1}'), 'o.a o.c', 'a binding that wants any value of a header');
SELECT is(pg_temp.goes('o.x', 'k', '{"other": 1}'), 'o.c', '... beside one that wants nothing');
SELECT is((SELECT note FROM mq.import_definitions('{"queues": [{"name": "nv", "type": "quorum"}]}', true) WHERE action = 'adapted'),
    'delivery-limit is not set: max_attempts => 0, no limit; the file names no version, and RabbitMQ 4 has a limit of 20', 'a quorum queue of an unknown version');
SELECT is((SELECT count(*) FROM mq.import_definitions('{}')), 0::bigint, 'nothing in, nothing out');
SELECT is((SELECT string_agg(action, ' ') FROM mq.import_definitions('{"queues": [{"name": "dr"}]}', NULL)), 'created', 'dry_run NULL is its default');

-- Patterns of policies are Perl's.
CREATE TEMP TABLE pattern (perl text, name text, matches boolean);
INSERT INTO pattern VALUES ('^a', 'ab', true), ('', 'x', true), ('a|b', 'xb', true), ('\.', 'ab', false), ('\.', 'a.b', true), ('\bb', 'a b', true), ('\bb', 'ab', false), ('\\b', 'a b', false),
    ('\\b', 'a\b', true), ('[\w-]+$', 'a-b', true), ('^(?!amq\.).*', 'amq.x', false), ('^(?!amq\.).*', 'x', true), ('(?i)^A', 'ab', true), ('a\z', 'ba', true), ('^[a-z]+$', 'ä', false), ('x{2}', 'xx', true),
    ('(?:a)b', 'ab', true), ('\x41', 'A', NULL), ('a++', 'a', NULL), ('(?<n>a)', 'a', NULL), ('(?#c)a', 'a', NULL), ('***=a', 'a', NULL), ('\Qa\E', 'a', NULL), ('[', 'a', NULL), ('\1', 'a', NULL), ('a\', 'a', NULL);
SELECT is(name COLLATE "C" ~ mq.import_pattern$(perl), matches, format('pattern %s on %s', perl, name)) FROM pattern;
SET standard_conforming_strings = off;
SELECT is(E'a\\b' COLLATE "C" ~ mq.import_pattern$(E'\\\\b'), true, 'with strings of old as well');
SET standard_conforming_strings = on;

-- Names never meet, and keep if they can.
SELECT results_eq($$ SELECT kind, name, note FROM mq.import_definitions('{"queues": [{"vhost": "v", "name": "n/1"}, {"vhost": "v", "name": "n_1"}, {"vhost": "v", "name": "n:1"}, {"vhost": "v", "name": "-"}]}', true) WHERE action IN ('created', 'renamed') AND kind = 'queue' AND note LIKE 'was%' $$,
    $$ VALUES ('queue', 'n_1_' || left(encode(sha256('v/n/1'), 'hex'), 8), 'was "n/1" of vhost "v"; who publishes to it through the default exchange names it so'), ('queue', 'n_1_' || left(encode(sha256('v/n:1'), 'hex'), 8), 'was "n:1" of vhost "v"; who publishes to it through the default exchange names it so'),
              ('queue', '_-', 'was "-" of vhost "v"; who publishes to it through the default exchange names it so') $$, 'who has the name keeps it, others get one of their own');
SELECT results_eq($$ SELECT name FROM mq.import_definitions('{"queues": [{"vhost": "a", "name": "b.c"}, {"vhost": "a.b", "name": "c"}, {"vhost": "/", "name": "a.b.c"}]}', true) WHERE action = 'created' AND kind = 'queue' $$,
    $$ VALUES ('a.b.c_' || left(encode(sha256('a/b.c'), 'hex'), 8)), ('a.b.c_' || left(encode(sha256('a.b/c'), 'hex'), 8)), ('a.b.c') $$, 'also over vhosts');
SELECT is((SELECT count(DISTINCT name) FILTER (WHERE length(name) = 54) FROM mq.import_definitions(jsonb_build_object('queues', (SELECT jsonb_agg(jsonb_build_object('name', repeat('l', 54) || n)) FROM generate_series(1, 50) n)), true) WHERE action = 'created'), 50::bigint, 'long ones stay apart');
SELECT is((SELECT count(*) FROM mq.import_definitions(jsonb_build_object('queues', jsonb_build_array(jsonb_build_object('name', repeat('l', 54)))), true)), 1::bigint, '54 letters are a name');
SELECT is((SELECT string_agg(i.name, ' ') FROM mq.import_definitions('{"queues": [{"name": "same"}], "exchanges": [{"name": "same", "type": "topic"}]}', true) i), 'same same', 'a queue and an exchange may share one');

-- Text of the file never becomes SQL.
CREATE TEMP TABLE evil (t text);
INSERT INTO evil VALUES (''''), ('"'), ('\'), ('$$'), (E'\n'), ('''; DROP TABLE mq.queue$; --'), ('\'' OR 1=1'), ('%s %I %L'), ('${x}'), ('a''); SELECT pg_sleep(9); --');
CREATE TEMP TABLE evils AS SELECT jsonb_object_agg(t, '[]'::jsonb) || jsonb_build_object(
    'queues', jsonb_agg(jsonb_build_object('name', 'ev' || t, 'arguments', jsonb_build_object(t, t, 'x-dead-letter-exchange', 'evx' || t, 'x-dead-letter-routing-key', t))),
    'exchanges', jsonb_agg(jsonb_build_object('name', 'evx' || t, 'type', 'headers', 'arguments', jsonb_build_object(t, t))) || jsonb_agg(jsonb_build_object('name', 'evt' || t, 'type', t)),
    'bindings', jsonb_agg(jsonb_build_object('source', 'evx' || t, 'destination', 'ev' || t, 'destination_type', 'queue', 'routing_key', t, 'arguments', jsonb_build_object(t, t))),
    'policies', jsonb_agg(jsonb_build_object('name', t, 'pattern', t, 'definition', jsonb_build_object(t, t))),
    'parameters', jsonb_agg(jsonb_build_object('component', t, 'name', t))) AS d FROM evil;
SELECT is((SELECT count(*) FROM evils, mq.import_definitions(d) WHERE action IN ('created', 'bound')), 30::bigint, 'hostile texts are texts');
SELECT is((SELECT count(*) FROM evils, mq.import_definitions(d) i WHERE i.action IN ('created', 'bound', 'differs')), 0::bigint, '... found again as they are');
SELECT is((SELECT array_agg(name ORDER BY name COLLATE "C") FROM evils, mq.import_definitions(d) i WHERE i.kind = 'section'), (SELECT array_agg(t ORDER BY t COLLATE "C") FROM evil), '... said as they are');
SELECT is((SELECT array_agg(dead_letter_key ORDER BY dead_letter_key COLLATE "C") FROM mq.queues WHERE name LIKE 'ev%'), (SELECT array_agg(t ORDER BY t COLLATE "C") FROM evil), '... kept as they are');

-- What is no definitions file.
CREATE TEMP TABLE bad (d jsonb, said text);
INSERT INTO bad VALUES (NULL, 'definitions must not be null'), ('null', 'definitions must be an object'), ('1', 'definitions must be an object'), ('"x"', 'definitions must be an object'), ('[]', 'definitions must be an object'),
    ('{"queues": {}}', 'definitions.queues must be an array of objects'), ('{"queues": "x"}', 'definitions.queues must be an array of objects'), ('{"bindings": [1]}', 'definitions.bindings must be an array of objects'),
    ('{"users": [null]}', 'definitions.users must be an array of objects'), ('{"queues": [[]]}', 'definitions.queues must be an array of objects'),
    ('{"queues": [{}]}', 'definitions.queues[0].name must be a string'), ('{"queues": [{"name": 1}]}', 'definitions.queues[0].name must be a string'), ('{"queues": [{"name": "a"}, {"name": null}]}', 'definitions.queues[1].name must be a string'),
    ('{"queues": [{"name": ""}]}', 'definitions.queues[0].name must not be empty'), ('{"queues": [{"name": "a", "vhost": 1}]}', 'definitions.queues[0].vhost must be a string'),
    ('{"queues": [{"name": "a", "durable": "yes"}]}', 'definitions.queues[0].durable must be a boolean'), ('{"queues": [{"name": "a", "arguments": 1}]}', 'definitions.queues[0].arguments must be an object'),
    ('{"queues": [{"name": "a", "arguments": [["k"]]}]}', 'definitions.queues[0].arguments must be an object'), ('{"queues": [{"name": "a", "arguments": [[1, 2]]}]}', 'definitions.queues[0].arguments must be an object'),
    ('{"queues": [{"name": "a", "arguments": {"x-message-ttl": "60000"}}]}', 'definitions.queues[0].arguments.x-message-ttl must be a whole number from 0 to 4294967295'),
    ('{"queues": [{"name": "a", "arguments": {"x-message-ttl": 1.5}}]}', 'definitions.queues[0].arguments.x-message-ttl must be a whole number from 0 to 4294967295'),
    ('{"queues": [{"name": "a", "arguments": {"x-max-length": -1}}]}', 'definitions.queues[0].arguments.x-max-length must be a whole number from 0 to 9007199254740991'),
    ('{"queues": [{"name": "a", "arguments": {"x-max-length": 1e300}}]}', 'definitions.queues[0].arguments.x-max-length must be a whole number from 0 to 9007199254740991'),
    ('{"queues": [{"name": "a", "arguments": {"x-max-length": null}}]}', 'definitions.queues[0].arguments.x-max-length must be a whole number from 0 to 9007199254740991'),
    ('{"queues": [{"name": "a", "arguments": {"x-max-priority": 256}}]}', 'definitions.queues[0].arguments.x-max-priority must be a whole number from 0 to 255'),
    ('{"queues": [{"name": "a", "arguments": {"x-delivery-limit": -2}}]}', 'definitions.queues[0].arguments.x-delivery-limit must be a whole number from -1 to 2147483646'),
    ('{"queues": [{"name": "a", "arguments": {"x-overflow": 1}}]}', 'definitions.queues[0].arguments.x-overflow must be a string'),
    ('{"queues": [{"name": "a", "arguments": {"x-dead-letter-exchange": {}}}]}', 'definitions.queues[0].arguments.x-dead-letter-exchange must be a string'),
    ('{"queues": [{"name": "a", "arguments": {"x-dead-letter-routing-key": 7}}]}', 'definitions.queues[0].arguments.x-dead-letter-routing-key must be a string'),
    ('{"queues": [{"name": "a", "arguments": {"x-single-active-consumer": "true"}}]}', 'definitions.queues[0].arguments.x-single-active-consumer must be a boolean'),
    ('{"queues": [{"name": "a", "arguments": {"x-queue-type": 1}}]}', 'definitions.queues[0].arguments.x-queue-type must be a string'),
    ('{"queues": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}', 'definitions.queues has "a" of one vhost twice'), ('{"exchanges": [{"name": "a"}]}', 'definitions.exchanges[0].type must be a string'),
    ('{"exchanges": [{"name": "a", "type": "topic"}, {"name": "a", "type": "topic"}]}', 'definitions.exchanges has "a" of one vhost twice'),
    ('{"exchanges": [{"name": "a", "type": "topic", "internal": 0}]}', 'definitions.exchanges[0].internal must be a boolean'),
    ('{"exchanges": [{"name": "a", "type": "topic", "arguments": {"alternate-exchange": 1}}]}', 'definitions.exchanges[0].arguments.alternate-exchange must be a string'),
    ('{"bindings": [{"source": "a", "destination": "b"}]}', 'definitions.bindings[0].destination_type must be a string'), ('{"bindings": [{"source": "a", "destination": "b", "destination_type": "table"}]}', 'definitions.bindings[0].destination_type must be "queue" or "exchange"'),
    ('{"bindings": [{"source": "a", "destination": "b", "destination_type": "queue", "routing_key": 5}]}', 'definitions.bindings[0].routing_key must be a string'),
    ('{"policies": [{"name": "p", "pattern": "x"}]}', 'definitions.policies[0].definition must be an object'), ('{"policies": [{"name": "p", "definition": {}}]}', 'definitions.policies[0].pattern must be a string'),
    ('{"policies": [{"name": "p", "pattern": "x", "definition": {}, "priority": "1"}]}', 'definitions.policies[0].priority must be a number'),
    ('{"policies": [{"name": "p", "pattern": "x", "definition": {"max-length": "5"}}]}', 'definitions.policies[0].definition.max-length must be a whole number from 0 to 9007199254740991'),
    ('{"parameters": [{"component": "operator_policy", "name": "p", "value": {"pattern": "x", "definition": 1}}]}', 'definitions.parameters[0].value must be an operator policy'),
    ('{"parameters": [{"component": "operator_policy", "name": "p", "value": 1}]}', 'definitions.parameters[0].value must be an operator policy'),
    ('{"parameters": [{"component": "operator_policy", "name": "p"}]}', 'definitions.parameters[0].value must be an operator policy'),
    ('{"parameters": [{"component": "operator_policy", "name": "p", "value": {"pattern": "x", "definition": [["message-ttl", "1"]]}}]}', 'definitions.parameters[0].value.definition.message-ttl must be a whole number from 0 to 4294967295'),
    ('{"parameters": [{"name": "p"}]}', 'definitions.parameters[0].component must be a string'), ('{"vhosts": [{}]}', 'definitions.vhosts[0].name must be a string'), ('{"permissions": [{"vhost": "/"}]}', 'definitions.permissions[0].user must be a string');
SELECT pg_temp.made() AS before \gset
SELECT is(r.state || ' ' || r.message, '22023 ' || said, 'refused: ' || coalesce(d::text, 'NULL')) FROM bad, pg_temp.raised(format('SELECT * FROM mq.import_definitions(%L)', d)) r;
SELECT is(count(*), 0::bigint, '... with a hint') FROM bad, pg_temp.raised(format('SELECT * FROM mq.import_definitions(%L)', d)) r WHERE r.hint NOT LIKE '%export_definitions%';
SELECT is(pg_temp.state(format('SELECT * FROM mq.import_definitions(%L, true)', d)), '22023', 'a dry run refuses as well') FROM bad WHERE d @> '{"queues": [{}]}' LIMIT 1;
-- ten megabytes, wrong at their end
SELECT is((SELECT r.message FROM pg_temp.raised($$ SELECT * FROM mq.import_definitions((SELECT jsonb_build_object('queues', jsonb_agg(jsonb_build_object('name', 'big' || n, 'durable', true, 'arguments',
    CASE WHEN n < 60000 THEN jsonb_build_object('x-message-ttl', n, 'padding', repeat('x', 100)) ELSE jsonb_build_object('x-message-ttl', 'soon') END))) FROM generate_series(1, 60000) n)) $$) r),
    'definitions.queues[59999].arguments.x-message-ttl must be a whole number from 0 to 4294967295', 'a large one is refused too');
SELECT is(pg_temp.made(), :before::bigint, 'nothing of all that was made');

-- Rights are the caller's.
DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'mqt_importer') THEN CREATE ROLE mqt_importer; END IF; END $$;
CREATE TEMP TABLE mine AS SELECT '{"queues": [{"name": "mi.q", "arguments": {"x-dead-letter-exchange": "mi.x"}}], "exchanges": [{"name": "mi.x", "type": "fanout"}], "bindings": [{"source": "mi.x", "destination": "mi.q", "destination_type": "queue"}]}'::jsonb AS d;
GRANT SELECT ON mine TO PUBLIC;
SELECT is(pg_temp.value_as('mqt_importer', 'SELECT string_agg(action, $$ $$) FROM mine, mq.import_definitions(d, true)'), 'created created bound', 'anybody may ask');
SELECT is(pg_temp.state_as('mqt_importer', 'SELECT * FROM mine, mq.import_definitions(d)'), '42501', 'making takes the right to');
SELECT format('GRANT EXECUTE ON FUNCTION %s TO mqt_importer', p.oid::regprocedure) FROM pg_proc p WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_queue' \gexec
SELECT is(pg_temp.state_as('mqt_importer', 'SELECT * FROM mine, mq.import_definitions(d)'), '42501', '... both rights');
SELECT is(to_regclass('mq."q_mi.q"'), NULL, '... and leaves nothing half-done');
SELECT format('GRANT EXECUTE ON FUNCTION %s TO mqt_importer', p.oid::regprocedure) FROM pg_proc p WHERE pronamespace = 'mq'::regnamespace AND proname = 'create_exchange' \gexec
SELECT is(pg_temp.state_as('mqt_importer', 'SELECT * FROM mine, mq.import_definitions(d)'), '00000', 'with them it goes');
SELECT results_eq($$ SELECT owner FROM mq.queues WHERE name = 'mi.q' UNION ALL SELECT owner FROM mq.exchanges WHERE name = 'mi.x' $$, $$ VALUES ('mqt_importer'::name), ('mqt_importer') $$, 'who imports owns');
SELECT results_eq('SELECT i.kind, action, note FROM mine, mq.import_definitions(d) i', $$ VALUES ('exchange', 'exists', 'it belongs to mqt_importer'),
    ('queue', 'exists', 'it belongs to mqt_importer'), ('binding', 'exists', 'pattern => ''#''') $$, '... and others are told');
SELECT results_eq($$ SELECT note FROM mq.import_definitions('{"queues": [{"name": "mi.q", "durable": false}], "exchanges": [{"name": "mi.x", "type": "direct"}]}') WHERE action = 'differs' $$,
    $$ VALUES ('type is fanout, in the file direct; nothing changed; it belongs to mqt_importer'),
              ('dead_letter_exchange is mi.x, in the file not set; unlogged is false, in the file true; nothing changed; it belongs to mqt_importer') $$, '... also of what differs');
SELECT is(pg_temp.value_as('mqt_importer', $$ SELECT action || ': ' || note FROM mq.import_definitions('{"queues": [{"name": "work"}]}') $$), 'exists: not yours to see, so its options are not compared', 'another''s queue');
SELECT is(pg_temp.state_as('mqt_importer', $$ SELECT * FROM mq.import_definitions('{"bindings": [{"source": "amq.topic", "destination": "mi.q", "destination_type": "queue"}]}') $$), '42710', 'another''s exchange');
SELECT is(pg_temp.state_as('mqt_importer', $$ SELECT * FROM mq.import_definitions('{"bindings": [{"source": "mi.x", "destination": "work", "destination_type": "queue"}]}') $$), '42501', 'binding another''s queue');
BEGIN READ ONLY;
SELECT pg_temp.state($$ SELECT * FROM mq.import_definitions('{"queues": [{"name": "ro"}]}') $$) AS state \gset
ROLLBACK;
SELECT is(:'state'::text, '25006', 'not in a read-only transaction');

SELECT mq.drop_queue(q) FROM unnest('{mi.q}'::text[]) q WHERE mq.unbind('mi.x', q);
SELECT mq.drop_exchange('mi.x');
DROP OWNED BY mqt_importer;
DROP ROLE mqt_importer;
SELECT * FROM finish();
