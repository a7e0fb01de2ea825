-- Options of a queue together: order by key with match, limits, expiry, drop_head; dedup_id with a limited length.
\ir setup.psql

-- What a dequeue gets, by body; and what is leased of a queue, settled.
CREATE FUNCTION pg_temp.got(queue text, most int DEFAULT 100, match jsonb DEFAULT NULL) RETURNS text LANGUAGE sql AS
    $$ SELECT coalesce(string_agg(body #>> '{}', ' '), '') FROM mq.dequeue(queue, most, match => match) $$;
CREATE FUNCTION pg_temp.ack(q text, b text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE ok boolean;
BEGIN
    EXECUTE format('SELECT mq.ack(f.queue, f.id, f.receipt) FROM mq.in_flight f JOIN mq.%I m USING (id) WHERE f.queue = $1 AND m.body #>> ''{}'' = $2', 'q_' || q)
        INTO ok USING q, b;
    RETURN ok;
END $$;
CREATE FUNCTION pg_temp.put(q text, b text, k text, h text DEFAULT 'x') RETURNS bigint LANGUAGE sql AS
    $$ SELECT mq.enqueue(q, to_jsonb(b), headers => jsonb_build_object('h', h), key => k) $$;

-- match in an ordered queue: only what fits and whose turn it is.
SELECT mq.create_queue('om', ordered => true, lease => '1 h');
SELECT pg_temp.put('om', 'a1', 'a', 'other'), pg_temp.put('om', 'a2', 'a'), pg_temp.put('om', 'b1', 'b'), pg_temp.put('om', 'b2', 'b'), pg_temp.put('om', 'n1', NULL) \g /dev/null
SELECT is(pg_temp.got('om', 1, '{"h": "x"}'), 'b1', 'what fits behind what does not is passed by');
SELECT is(pg_temp.got('om', 100, '{"h": "x"}'), 'n1', '... and what waits behind a leased one');
SELECT is(pg_temp.got('om', 100, '{"h": "x"}'), '', 'that is all');
SELECT pg_temp.ack('om', 'b1');
SELECT is(pg_temp.got('om', 100, '{"h": "x"}'), 'b2', 'the next of its key');
SELECT is(pg_temp.got('om'), 'a1', 'others see what is first');
SELECT is(pg_temp.got('om'), '', '... and that only');
SELECT pg_temp.ack('om', 'a1');
SELECT is(pg_temp.got('om', 100, '{"h": "other"}'), '', 'one that may go on now, but does not fit');
SELECT is(pg_temp.got('om', 100, '{"h": "x"}'), 'a2', '... is found by who wants it');
SELECT pg_temp.put('om', 'c' || i, 'c' || i % 50, CASE WHEN i > 100 THEN 'y' ELSE 'x' END) FROM generate_series(1, 200) i \g /dev/null
SELECT is((SELECT count(*) FROM mq.dequeue('om', 200, match => '{"h": "y"}')), 0::bigint, 'all that fit are behind others');
SELECT is((SELECT count(*) FROM mq.dequeue('om', 200, auto_ack => true)), 50::bigint, 'one of each key');
SELECT is((SELECT count(*) FROM mq.dequeue('om', 200, auto_ack => true, match => '{"h": "x"}')), 50::bigint, 'the second of each');
SELECT is((SELECT count(*) FROM mq.dequeue('om', 200, auto_ack => true, match => '{"h": "y"}')), 50::bigint, 'the third');
SELECT is((SELECT count(*) FROM mq.dequeue('om', 200, auto_ack => true)), 50::bigint, 'the fourth');

-- max_in_flight and rate_limit hold for what comes by its key, too.
SELECT mq.create_queue('ol', ordered => true, lease => '1 h', max_in_flight => 2);
SELECT pg_temp.put('ol', k || i, k) FROM generate_series(1, 3) i, unnest('{a,b,c}'::text[]) k \g /dev/null
SELECT is(pg_temp.got('ol'), 'a1 b1', 'no more than max_in_flight');
SELECT pg_temp.ack('ol', 'a1'), pg_temp.ack('ol', 'b1') \g /dev/null
SELECT is((SELECT count(*) FROM mq.dequeue('ol', 100)), 2::bigint, 'two again');
SELECT is((SELECT count(*) FROM mq.dequeue('ol', 100)), 0::bigint, '... and none beyond');
SELECT is((SELECT in_flight FROM mq.stats WHERE queue = 'ol'), 2::bigint, 'as mq.stats says');
SELECT mq.create_queue('orate', ordered => true, lease => '1 h', rate_limit => 0.001);
SELECT pg_temp.put('orate', 'a' || i, 'a') FROM generate_series(1, 3) i \g /dev/null
SELECT is(pg_temp.got('orate'), 'a1', 'the first');
SELECT is(pg_temp.got('orate'), '', 'no token');
SELECT pg_temp.ack('orate', 'a1');
SELECT is(pg_temp.got('orate'), '', 'no token for the next of the key');

-- What has expired does not hold its key.
SELECT mq.create_queue('ox', ordered => true, lease => '1 h', dead_letter => '');
SELECT mq.enqueue('ox', '"a1"', key => 'a', ttl => '1 microsecond'), mq.enqueue('ox', '"a2"', key => 'a') \g /dev/null
SELECT is(pg_temp.got('ox'), 'a2', 'what comes after one that has expired');

-- drop_head drops the oldest, whatever its key.
SELECT mq.create_queue('od', ordered => true, lease => '1 h', max_length => 4, overflow => 'drop_head', dead_letter => '');
SELECT pg_temp.put('od', 'a' || i, 'a') FROM generate_series(1, 4) i \g /dev/null
SELECT is((SELECT count(*) FROM mq.enqueue_batch('od', '{"\"a5\"","\"a6\""}', keys => '{a,a}')), 2::bigint, 'two more of the only key');
SELECT is((SELECT string_agg(body #>> '{}', ' ' ORDER BY id) FROM mq.browse('od')), 'a3 a4 a5 a6', 'the oldest two made room');
SELECT is(pg_temp.got('od'), 'a3', 'the first is delivered');
SELECT is(pg_temp.got('od'), '', '... the others wait behind it');
SELECT pg_temp.put('od', 'a7', 'a'), pg_temp.put('od', 'a8', 'a'), pg_temp.put('od', 'a9', 'a') \g /dev/null
SELECT is((SELECT string_agg(body #>> '{}', ' ' ORDER BY id) FROM mq.browse('od')), 'a3 a6 a7 a8 a9', 'what waits behind a leased one is dropped as well');
SELECT pg_temp.ack('od', 'a3');
SELECT is(pg_temp.got('od'), 'a6', 'the next there is');

-- ... at once, however many wait behind one key; nor do the consumers of others step over them again.
SELECT mq.create_queue('oc', ordered => true, lease => '1 h', max_length => 2000, overflow => 'drop_head', dead_letter => '');
SELECT count(*) FROM mq.enqueue_batch('oc', array_fill('1'::jsonb, '{2000}'), keys => array_fill('a'::text, '{2000}')) \g /dev/null
SELECT count(*) FROM mq.dequeue('oc', 10) \g /dev/null
SELECT count(*) FROM mq.dequeue('oc', 10) \g /dev/null
SELECT mq.enqueue('oc', '0', key => 'a') \g /dev/null
SELECT rows_examined AS before FROM mq.stats WHERE queue = 'oc' \gset
SELECT mq.enqueue('oc', to_jsonb(i), key => 'b' || i) FROM generate_series(1, 10) i \g /dev/null
SELECT is((SELECT count(*) FROM mq.dequeue('oc', 20)), 10::bigint, 'all of other keys');
SELECT cmp_ok(rows_examined - :before, '<', 100::bigint, 'few rows examined') FROM mq.stats WHERE queue = 'oc';
SELECT is((SELECT count(*) FROM mq.q_oc WHERE key = 'a'), 1991::bigint, 'ten have been dropped');

-- A duplicate needs no place.
SELECT mq.create_queue('dl', max_length => 2, dead_letter => '');
SELECT mq.enqueue('dl', '1', dedup_id => 'one') AS one \gset
SELECT mq.enqueue('dl', '2') \g /dev/null
SELECT is(mq.enqueue('dl', '1', dedup_id => 'one'), :one::bigint, 'a duplicate is none too many');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('dl', '3', dedup_id => 'three') $$), '53400', 'another is');
SELECT is(mq.delete('dl', ARRAY[:one]::bigint[]), 1, 'room for one');
SELECT isnt(mq.enqueue('dl', '3', dedup_id => 'three'), NULL::bigint, 'what was refused is not remembered');
SELECT mq.create_queue('dd', max_length => 2, overflow => 'drop_head', dead_letter => '');
SELECT mq.enqueue_batch('dd', '{1,2}', dedup_ids => '{a,b}') \g /dev/null
SELECT mq.enqueue_batch('dd', '{1,2,3}', dedup_ids => '{a,b,c}') \g /dev/null
SELECT is((SELECT array_agg(body::int ORDER BY id) FROM mq.browse('dd')), '{2,3}', 'only the new one pushes one out');

-- And a limit does not slow down what is dropped; what was redriven keeps no id.
SELECT mq.create_queue('dt', max_length => 1, overflow => 'drop_head', max_in_flight => 1, rate_limit => 0.001, dead_letter => 'dt_dead');
SELECT mq.enqueue('dt', '1', dedup_id => 'x');
SELECT mq.enqueue('dt', '2');
SELECT mq.enqueue('dt', '3');
SELECT is((SELECT array_agg(body::int) FROM mq.browse('dt')), '{3}', 'the last one');
SELECT is((SELECT array_agg(body::int ORDER BY id) FROM mq.browse('dt_dead')), '{1,2}', 'the others are dead');
SELECT is((SELECT body FROM mq.dequeue('dt')), '3'::jsonb, 'the token is still there');
SELECT is(mq.redrive('dt_dead', 1), 1::bigint, 'one sent again');
SELECT is((SELECT dedup_id FROM mq.q_dt WHERE body = '1'), NULL::text, '... without its dedup_id');
-- What makes room is no delivery: it takes no slot, and is not in flight.
SELECT mq.create_queue('df', max_length => 2, overflow => 'drop_head', max_in_flight => 1, dead_letter => '');
SELECT mq.enqueue_batch('df', '{1,2}') \g /dev/null
BEGIN;
SELECT mq.enqueue('df', '3') \g /dev/null
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'df'), 0::bigint, 'a dropped message is not in flight');
SELECT is((SELECT in_flight FROM mq.stats WHERE queue = 'df'), 0::bigint, 'nor in mq.stats');
SELECT is(pg_temp.got('df'), '2', 'its slot is free');
ROLLBACK;
SELECT is((SELECT array_agg(body::int ORDER BY id) FROM mq.browse('df')), '{1,2}', 'as before');

-- ... also when the same transaction dequeues: only what that got has failed.
SELECT mq.create_queue('dr', max_length => 2, overflow => 'drop_head', max_attempts => 1, dead_letter => '');
SELECT mq.enqueue_batch('dr', '{1,2}') \g /dev/null
BEGIN;
SELECT mq.enqueue('dr', '3') \g /dev/null
SELECT is(pg_temp.got('dr'), '2', 'the next');
ROLLBACK;
SELECT is((SELECT (body, attempt)::text FROM mq.dequeue('dr')), '(1,1)', 'what it had dropped has not been tried');

-- A drop that is rolled back holds its key as before.
SELECT mq.create_queue('dk', ordered => true, max_length => 2, overflow => 'drop_head', dead_letter => '');
SELECT pg_temp.put('dk', 'a1', 'a', 'one'), pg_temp.put('dk', 'a2', 'a', 'two') \g /dev/null
BEGIN;
SELECT pg_temp.put('dk', 'a3', 'a', 'three') \g /dev/null
CALL mq.wait('dk', '0');
ROLLBACK;
SELECT is(pg_temp.got('dk', 10, '{"h": "two"}'), '', 'the second waits behind the first');
SELECT is(pg_temp.got('dk', 10), 'a1', 'which comes');

-- What comes back into a queue that was ordered meanwhile has no priority there.
SELECT mq.create_queue('op', retain => '1 day', dead_letter => 'op_dead');
SELECT mq.enqueue('op', '1', priority => 5, key => 'a'), mq.enqueue('op', '2', priority => 5, key => 'a') \g /dev/null
SELECT mq.ack(m) FROM mq.dequeue('op') m \g /dev/null
SELECT mq.reject('op', id, receipt) FROM mq.dequeue('op') \g /dev/null
SELECT mq.alter_queue('op', ordered => true);
SELECT is(mq.redrive('op_dead'), 1::bigint, 'sent again');
SELECT is(mq.replay('op', '-infinity'), 1::bigint, 'replayed');
SELECT is((SELECT array_agg((priority, body)::text ORDER BY id) FROM mq.q_op), '{"(0,2)","(0,1)"}', 'both without priority');
SELECT * FROM finish();
