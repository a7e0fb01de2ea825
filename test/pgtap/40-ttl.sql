-- Messages that expire: where the time comes from, that they are not delivered after it, and how they get to the dead letters.
\ir setup.psql
SELECT mq.create_queue('tt', ttl => '1 h', backoff => '0');
SELECT is(ttl, '1 h'::interval, 'mq.queues shows the option') FROM mq.queues WHERE name = 'tt';

-- Where the time comes from: the message's ttl or the queue's, the earlier, from when it comes due.
CREATE FUNCTION pg_temp.life(message bigint) RETURNS interval LANGUAGE sql AS $$
    SELECT date_trunc('second', expires_at - enqueued_at + interval '0.5 s') FROM mq.q_tt WHERE id = message $$;
SELECT is(pg_temp.life(mq.enqueue('tt', '1')), '1 h', 'the queue''s');
SELECT is(pg_temp.life(mq.enqueue('tt', '1', ttl => '10 min')), '10 min', 'the message''s, being earlier');
SELECT is(pg_temp.life(mq.enqueue('tt', '1', ttl => '1 day')), '1 h', 'the queue''s, being earlier');
SELECT is(pg_temp.life(mq.enqueue('tt', '1', ttl => '10 min', delay => '2 h')), '2 h 10 min', 'it counts from the delay''s end');
SELECT is(pg_temp.life(mq.enqueue('tt', '1', deliver_at => clock_timestamp() + '3 h')), '4 h', '... and from deliver_at');
SELECT is(pg_temp.life(mq.enqueue('tt', '1', deliver_at => '2000-01-01')), '1 h', 'a deliver_at in the past is due now');
SELECT is(pg_temp.life(b), '10 min', 'enqueue_batch') FROM mq.enqueue_batch('tt', '{1,2}', ttl => '10 min') b;
INSERT INTO mq.q_tt (body) VALUES ('1') RETURNING id \gset
SELECT is(pg_temp.life(:id), '1 h', 'plain INSERT');
INSERT INTO mq.q_tt (body, expires_at) VALUES ('1', clock_timestamp() + '5 min') RETURNING id \gset
SELECT is(pg_temp.life(:id), '5 min', 'plain INSERT with an earlier time of its own');
INSERT INTO mq.q_tt (body, expires_at) VALUES ('1', clock_timestamp() + '5 h') RETURNING id \gset
SELECT is(pg_temp.life(:id), '1 h', '... and with a later one');
INSERT INTO mq.q_tt (body, ready_at) VALUES ('1', clock_timestamp() + '2 h') RETURNING id \gset
SELECT is(pg_temp.life(:id), '3 h', '... and with a delay');
COPY mq.q_tt (body) FROM STDIN;
"copied"
\.
SELECT is(pg_temp.life(id), '1 h', 'COPY') FROM mq.q_tt WHERE body = '"copied"';
SELECT is(date_trunc('minute', m.expires_at - m.enqueued_at + '30 s'), '1 h', 'a delivery shows it') FROM mq.dequeue('tt') m;
SELECT mq.alter_queue('tt', ttl => '2 h');
SELECT is(pg_temp.life(min(id)), '1 h', 'alter_queue does not touch messages there are') FROM mq.q_tt;
SELECT is(pg_temp.life(mq.enqueue('tt', '1')), '2 h', '... but those to come');
SELECT mq.alter_queue('tt', unset => '{ttl}');
SELECT is(pg_temp.life(mq.enqueue('tt', '1')), NULL, 'unset: they do not expire');
SELECT is(pg_temp.life(mq.enqueue('tt', '1', ttl => '10 min')), '10 min', '... but by their own');
SELECT is(pg_temp.state($$SELECT mq.create_queue('bad', ttl => '0')$$), '22023', 'ttl must be more than 0');
SELECT is(pg_temp.state($$SELECT mq.enqueue('tt', '1', ttl => '0')$$), '22023', '... of a message too');
SELECT is(pg_temp.state($$SELECT mq.enqueue('tt', '1', ttl => '-1 s')$$), '22023', '... and not negative');
TRUNCATE mq.q_tt;

-- They go to the dead letters by themselves, others stay.
SELECT mq.enqueue('tt', '{"n": 1}', '{"trace": "t"}', priority => 3, key => 'k', ttl => '1 ms') AS id \gset
SELECT mq.enqueue('tt', '{"n": 2}', delay => '1 ms', ttl => '1 ms') \g /dev/null
SELECT mq.enqueue('tt', '{"n": 3}', ttl => '1 h') \g /dev/null
SELECT ok(pg_temp.until($$(SELECT count(*) = 2 FROM mq.q_tt_dead)$$), 'expired messages move to the dead letters');
SELECT results_eq($$SELECT body, headers - 'x-death', key, priority::int, attempts, expires_at FROM mq.q_tt_dead WHERE body = '{"n": 1}'$$,
    $$VALUES ('{"n": 1}'::jsonb, '{"trace": "t"}'::jsonb, 'k', 3, 0, NULL::timestamptz)$$, 'a dead letter has all but its time');
SELECT results_eq($$SELECT d ->> 'queue', (d ->> 'id')::bigint, d ->> 'reason', (d ->> 'attempts')::int, d ->> 'error' FROM mq.q_tt_dead, jsonb_array_elements(headers -> 'x-death') d WHERE body = '{"n": 1}'$$,
    format($$VALUES ('tt', %s::bigint, 'expired', 0, NULL)$$, :id), 'x-death says expired');
SELECT results_eq($$SELECT body FROM mq.dequeue('tt', 10)$$, $$VALUES ('{"n": 3}'::jsonb)$$, 'what has time left is delivered');
SELECT results_eq($$SELECT ready, delayed, in_flight, dead, expired FROM mq.stats WHERE queue = 'tt'$$, 'VALUES (0::bigint, 0::bigint, 1::bigint, 2::bigint, 0::bigint)', 'mq.stats counts them as dead');
SELECT is(mq.redrive('tt_dead'), 2::bigint, 'redrive');
SELECT is((SELECT count(*) FROM mq.q_tt WHERE expires_at IS NULL AND ready_at IS NULL), 2::bigint, '... gives them back without a time');
SELECT mq.alter_queue('tt', ttl => '1 h');
SELECT mq.reject('tt', id, receipt) FROM mq.dequeue('tt') \g /dev/null
SELECT mq.redrive('tt_dead') \g /dev/null
SELECT is((SELECT count(*) FROM mq.q_tt WHERE expires_at IS NULL), 2::bigint, '... also where the queue has a ttl');
TRUNCATE mq.q_tt;

-- Plain SQL.
INSERT INTO mq.q_tt (body, expires_at) VALUES ('"past"', '2000-01-01'), ('"-inf"', '-infinity'), ('"inf"', 'infinity');
SELECT ok(pg_temp.until($$(SELECT count(*) = 2 FROM mq.q_tt_dead)$$), 'INSERT with a time that is past');
SELECT mq.alter_queue('tt', unset => '{ttl}');
SELECT mq.enqueue('tt', '"updated"') AS id \gset
UPDATE mq.q_tt SET expires_at = clock_timestamp() WHERE id = :id;
SELECT ok(pg_temp.until($$(SELECT count(*) = 1 FROM mq.q_tt_dead WHERE body = '"updated"')$$), 'an UPDATE of expires_at takes effect');
SELECT mq.enqueue('tt', '"longer"', ttl => '500 ms') AS id \gset
UPDATE mq.q_tt SET expires_at = clock_timestamp() + '1 h' WHERE id = :id;
BEGIN;
UPDATE mq.q_tt SET expires_at = clock_timestamp() - interval '1 h' WHERE id = :id;
SELECT is(mq.status('tt', :id), 'expired', 'mq.status says expired');
SELECT is(state, 'expired', 'mq.browse too') FROM mq.browse('tt') WHERE id = :id;
ROLLBACK;
SELECT is(mq.status('tt', :id), 'ready', '... and not after a rollback');
SELECT pg_sleep(0.6) \g /dev/null
SELECT is((SELECT body FROM mq.dequeue('tt', 5) WHERE id = :id), '"longer"'::jsonb, 'one that got more time is delivered after its old one');
TRUNCATE mq.q_tt, mq.q_tt_dead;

-- A queue without dead letters drops them.
SELECT mq.create_queue('td', dead_letter => '', ttl => '1 ms');
SELECT mq.enqueue('td', '1') FROM generate_series(1, 5) \g /dev/null
SELECT ok(pg_temp.until($$NOT EXISTS (SELECT FROM mq.q_td)$$), 'without dead letters they are dropped');
SELECT is((SELECT dead FROM mq.stats WHERE queue = 'td'), 5::bigint, '... and counted');
-- A dead-letter queue's own ttl.
SELECT mq.create_queue('ta', dead_letter => 'tb', ttl => '1 ms');
SELECT mq.alter_queue('tb', ttl => '1 h');
SELECT mq.enqueue('ta', '1') \g /dev/null
SELECT ok(pg_temp.until($$(SELECT count(*) = 1 FROM mq.q_tb WHERE expires_at > clock_timestamp() + '59 min')$$), 'a dead-letter queue with a ttl gives its own');

-- A table with objects of its owner's: the executor's way.
SELECT mq.create_queue('tx', ttl => '1 h');
CREATE TABLE seen (what text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
CREATE TRIGGER see AFTER INSERT OR DELETE ON mq.q_tx FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER see AFTER INSERT OR DELETE ON mq.q_tx_dead FOR EACH ROW EXECUTE FUNCTION see();
SELECT mq.enqueue('tx', '1', ttl => '1 ms') \g /dev/null
SELECT ok(pg_temp.until($$(SELECT count(*) = 1 FROM mq.q_tx_dead)$$), 'with triggers of the owner''s');
SELECT bag_eq('SELECT what FROM seen', $$VALUES ('INSERT q_tx'), ('DELETE q_tx'), ('INSERT q_tx_dead')$$, '... which fire');
SELECT mq.enqueue('tx', '2') AS id \gset
SELECT is((SELECT date_trunc('minute', expires_at - enqueued_at + '30 s') FROM mq.q_tx WHERE id = :id), '1 h', '... a message has its time');
-- One that the owner's trigger refuses does not keep the others.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.body = '"stay"' THEN RAISE 'not this one'; END IF; RETURN OLD; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON mq.q_tx FOR EACH ROW EXECUTE FUNCTION refuse();
BEGIN;
SELECT mq.enqueue('tx', b, ttl => '1 ms') FROM unnest('{"\"a\"","\"stay\"","\"b\"","\"c\""}'::jsonb[]) b \g /dev/null
COMMIT;
SELECT ok(pg_temp.until($$(SELECT count(*) = 3 FROM mq.q_tx_dead WHERE body IN ('"a"', '"b"', '"c"'))$$), 'one that cannot be moved does not keep the others');
SELECT is((SELECT count(*) FROM mq.q_tx WHERE body = '"stay"'), 1::bigint, '... and stays');
SELECT is((SELECT count(*) FROM mq.dequeue('tx', 10) WHERE body = '"stay"'), 0::bigint, '... and is not delivered');
SELECT is((SELECT count(*) FROM mq.stats WHERE queue IN ('tx', 'tx_dead', 'td', 'ta', 'tb') AND NOT exact), 0::bigint, 'the counters are exact');

-- Failed deliveries of expired messages: by nack, by rollback, by release.
SELECT mq.create_queue('tf', backoff => '0');
SELECT mq.enqueue('tf', to_jsonb(n), ttl => '300 ms') FROM generate_series(1, 4) n \g /dev/null
SELECT count(*) AS got, max(receipt) AS receipt FROM mq.dequeue('tf', 3) \gset
BEGIN;
SELECT count(*) FROM mq.dequeue('tf') \g /dev/null
SELECT is(:got, 3, 'delivered in time');
SELECT pg_sleep(0.5) \g /dev/null
SELECT is(mq.status('tf', 1), 'leased', 'a leased one stays leased when it expires');
SELECT is(mq.nack('tf', 1, :receipt), true, '... can be nacked');
SELECT is(mq.release('tf', 2, :receipt), true, '... released');
SELECT is(mq.ack('tf', 3, :receipt), true, '... and acknowledged');
COMMIT;
BEGIN;
SELECT mq.dequeue('tf') \g /dev/null
ROLLBACK;
SELECT ok(pg_temp.until($$(SELECT count(*) = 2 FROM mq.q_tf_dead)$$), 'nacked and released ones are dead then');
SELECT is((SELECT count(*) FROM mq.dequeue('tf', 10)), 0::bigint, '... and never delivered again');
SELECT set_eq($$SELECT body, (headers -> 'x-death' -> 0 ->> 'attempts')::int FROM mq.q_tf_dead WHERE headers -> 'x-death' -> 0 ->> 'reason' = 'expired'$$,
    $$VALUES ('1'::jsonb, 1), ('2', 0)$$, '... as expired, with their attempts');
SELECT finish();
