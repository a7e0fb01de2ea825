-- Values at and past every edge: names, intervals, times, ids, arrays, deep JSON. Each is taken as it is or refused cleanly, and the queue goes on.
\ir setup.psql
SELECT mq.create_queue('ed', backoff => '0', max_attempts => 3, lease => '1 h', dead_letter => 'ed_dead') \g /dev/null

-- Names, to every function that takes one.
CREATE TEMP TABLE names (name text);
INSERT INTO names VALUES (''), (' '), ('ed '), (' ed'), ('Ed'), ('"ed"'), ('mq.q_ed'), ('q_ed'), ('ed"'), ('''ed'''), (E'ed\n'), (E'ed\ned'), (E'ed\\'), (E'ed\t'), (E'e\u0301d'), (E'\u0435d'), (E'\u202eed'),
    ('ed$id'), ('ed$pkey'), ('ed; DROP TABLE mq.q_ed'), ('ed"; DROP TABLE mq.q_ed; --'), ('%'), ('%s%I%L%1$s'), ('$1'), ('queue$'), ('.'), ('..'), ('-'), ('1ed'), (repeat('ed', 5000)),
    (repeat('x', 55)), (repeat('x', 63)), (repeat('x', 64)), (repeat(E'\u00e9', 5000)), (E'\U0001F407'), ('pg_class');
CREATE TEMP TABLE takers (sql text, states text);
INSERT INTO takers VALUES ('SELECT mq.create_queue(%L)', '22023'), ('SELECT mq.create_queue(%L, if_not_exists => true)', '22023'), ('SELECT mq.create_queue(''ed2'', dead_letter => %L || ''!'')', '22023'),
    ('SELECT mq.enqueue(%L, ''1'')', '42704'), ('SELECT mq.enqueue_batch(%L, ''{1}'')', '42704'), ('SELECT * FROM mq.dequeue(%L)', '42704'), ('SELECT mq.ack(%L, 1, 1)', '42704'),
    ('SELECT mq.ack(ROW(%L, 1, 1, 1, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::mq.message)', '42704'), ('SELECT mq.nack(%L, 1, 1)', '42704'), ('SELECT mq.reject_batch(%L, ''{1}'', ''{1}'')', '42704'),
    ('SELECT mq.extend(%L, 1, 1, ''1 s'')', '42704'), ('SELECT * FROM mq.browse(%L)', '42704'), ('SELECT mq.status(%L, 1)', '42704'), ('SELECT mq.purge(%L)', '42704'), ('SELECT mq.delete(%L, ''{1}'')', '42704'),
    ('SELECT mq.redrive(%L)', '42704'), ('SELECT mq.redrive(''ed_dead'', target => %L)', '42704'), ('SELECT mq.pause(%L)', '42704'), ('SELECT mq.resume(%L)', '42704'), ('SELECT mq.drop_queue(%L)', '42704'),
    ('SELECT mq.alter_queue(%L, lease => ''1 s'')', '42704'), ('SELECT mq.grant(%L, current_user, ''send'')', '42704'), ('SELECT mq.revoke(%L, current_user, ''send'')', '42704'), ('SELECT mq.listen(%L)', '42704');
SELECT is((SELECT string_agg(format('%s by %s', left(to_json(n.name)::text, 30), state), ', ') FROM names n, LATERAL pg_temp.state(format(t.sql, n.name)) state
           WHERE state <> t.states AND NOT (t.states = '22023' AND n.name ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,53}$')), NULL, t.sql || ' takes no name that is none') FROM takers t;
SELECT mq.drop_queue(name) FROM mq.queues WHERE name IN ('Ed', 'q_ed', 'mq.q_ed', 'pg_class') \g /dev/null
SELECT is(pg_temp.state(format('SELECT mq.unlisten(%L)', name)), '00000', 'unlisten ' || left(to_json(name)::text, 30)) FROM names WHERE name ~ '["\n\\;]';
SELECT is((SELECT string_agg(name, ',' ORDER BY name) FROM mq.queues WHERE name !~ '_dead$'), 'ed', 'no queue came of it');
SELECT is(pg_temp.state($$SELECT mq.enqueue(E'ed\u0000', '1')$$), '42601', 'no zero byte gets in');

-- Texts that are no names: any, up to what a column may hold.
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', ''1'', key => %L)', k)), CASE WHEN octet_length(k) <= 1000 THEN '00000' ELSE '22023' END, 'key ' || left(to_json(k)::text, 20) || ', ' || octet_length(k))
    FROM unnest(ARRAY['', E'\n', '''"\', repeat('k', 1000), repeat('k', 1001), repeat(E'\u00e9', 500), repeat(E'\u00e9', 501), repeat('k', 10000)]) k;
SELECT mq.purge('ed') \g /dev/null
SELECT mq.enqueue('ed', '1') AS id \gset
SELECT is(mq.nack('ed', id, receipt, reason => repeat(E'r\u00e9"''\\\n', 2000)), true, 'a reason of 14,000 bytes') FROM mq.dequeue('ed');
SELECT is(last_error, repeat(E'r\u00e9"''\\\n', 2000), '... comes back') FROM mq.dequeue('ed', consumer => repeat('consumer "', 1000));
SELECT is(octet_length(consumer), 63, 'a long name of a consumer is cut') FROM mq.in_flight WHERE queue = 'ed';
SELECT is(mq.reject('ed', id, receipt, E'"}]\n{"x'), true, 'a reason that looks like JSON') FROM mq.in_flight WHERE queue = 'ed';
SELECT is(headers -> 'x-death' -> 0 ->> 'error', E'"}]\n{"x', '... is but a string') FROM mq.q_ed_dead;
SELECT is(pg_temp.state(format('SELECT mq.redrive(''ed_dead'', target => %L)', 'ed')), '00000', 'redriven');
SELECT count(*) FROM mq.dequeue('ed', consumer => repeat(E'\u00e9', 100)) \g /dev/null
SELECT is(pg_temp.state($$SELECT length(consumer), convert_to(consumer, 'LATIN1') FROM mq.in_flight$$), '00000', 'a name of many bytes is cut between two characters, so that everybody can read the view');
SELECT is(mq.ack('ed', id, receipt), true, '... and settled') FROM mq.in_flight WHERE queue = 'ed';

-- Intervals.
CREATE TEMP TABLE spans (span interval, kind text);
INSERT INTO spans VALUES ('-1 us', 'negative'), ('-178000000 years', 'negative'), ('1 mon -31 days', 'negative'), ('1 day -25 hours', 'negative'), ('-1 mon 29 days 23:59:59', 'negative'), ('0', 'none'),
    ('1 mon -30 days', 'none'), ('1 us', 'positive'), ('178000000 years', 'huge'), ('178000000 years 2147483647 days', 'huge'), ('2147483647 days 2562047788:00:54.775807', 'huge'), ('-1 mon 31 days', 'long');
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', ''1'', delay => %L)', span)), CASE kind WHEN 'negative' THEN '22023' ELSE '00000' END, 'delay ' || span) FROM spans;
SELECT is(pg_temp.state(format('SELECT count(*) FROM mq.dequeue(''ed'', lease => %L)', span)), CASE WHEN kind IN ('negative', 'none', 'huge') THEN '22023' ELSE '00000' END, 'lease ' || span) FROM spans;
SELECT is(pg_temp.state(format('SELECT count(*) FROM mq.dequeue(''ed'', 100, wait => %L)', span)), CASE kind WHEN 'negative' THEN '22023' ELSE '00000' END, 'wait ' || span) FROM spans WHERE kind NOT IN ('huge', 'long');
SELECT is(pg_temp.state(format('SELECT mq.nack(''ed'', 1, 1, delay => %L)', span)), CASE kind WHEN 'negative' THEN '22023' ELSE '00000' END, 'nack ' || span) FROM spans;
SELECT is(pg_temp.state(format('SELECT mq.extend(''ed'', 1, 1, %L)', span)), CASE WHEN kind IN ('negative', 'none', 'huge') THEN '22023' ELSE '00000' END, 'extend ' || span) FROM spans;
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', ''1'', ttl => %L)', span)), CASE WHEN kind IN ('negative', 'none') THEN '22023' ELSE '00000' END, 'ttl ' || span) FROM spans;
SELECT is(pg_temp.state(format('SELECT mq.alter_queue(''ed'', %s => %L)', o, span)), '22023', o || ' ' || span) FROM spans, unnest('{lease,backoff,backoff_limit,ttl,retain,dedup_window}'::text[]) o WHERE kind IN ('negative', 'huge');
SELECT mq.delete('ed', ARRAY(SELECT id FROM mq.q_ed)) \g /dev/null
-- a wait as long as there is
SET statement_timeout = '50 ms';
\set ON_ERROR_STOP off
SELECT count(*) FROM mq.dequeue('ed', wait => '178000000 years');
\set ON_ERROR_STOP on
SELECT :'SQLSTATE' AS cancelled \gset
RESET statement_timeout;
SELECT is(:'cancelled'::text, '57014', 'the longest wait can be cancelled');
-- the longest lease, extended and nacked by the longest
SELECT mq.enqueue('ed', '1') AS id \gset
SELECT id, receipt, lease_until FROM mq.dequeue('ed', lease => '1000 years') \gset
SELECT cmp_ok(:'lease_until'::timestamptz, '>', '3000-01-01'::timestamptz, 'a lease for ever');
SELECT is(mq.extend('ed', :id, :receipt, '1 h'), true, '... shortened');
SELECT is(mq.extend('ed', :id, :receipt, '1000 years'), true, '... and again');
SELECT is(mq.nack('ed', :id, :receipt, delay => '178000000 years'), true, '... given back for ever');
SELECT is(mq.status('ed', :id), 'delayed', '... delayed');
SELECT is((SELECT delayed FROM mq.stats WHERE queue = 'ed'), 1::bigint, '... and counted so');
SELECT mq.purge('ed') \g /dev/null

-- Times.
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', %L, deliver_at => %L)', to_jsonb(t), t)), state, 'deliver_at ' || t) FROM (VALUES ('infinity', '22023'), ('-infinity', '22023'), ('4714-11-24 00:00:00+00 BC', '00000'),
    ('4714-11-23 23:59:59+00 BC', '22008'), ('294276-12-31 23:59:59.999999+00', '00000'), ('294277-01-01 00:00:00+00', '22008'), ('epoch', '00000'), ('NaN', '22007')) AS v (t, state);
INSERT INTO mq.q_ed (body, ready_at) VALUES ('"inf"', 'infinity'), ('"-inf"', '-infinity'), ('"BC"', '4714-11-24 BC');
INSERT INTO mq.q_ed (body, enqueued_at) VALUES ('"e inf"', 'infinity'), ('"e -inf"', '-infinity'), ('"e BC"', '4714-11-24 BC');
INSERT INTO mq.q_ed (body, expires_at) VALUES ('"x inf"', 'infinity'), ('"x -inf"', '-infinity'), ('"x BC"', '4714-11-24 BC');
SELECT is(pg_temp.state($$SELECT * FROM mq.stats$$), '00000', 'mq.stats with such times');
SELECT is(pg_temp.state($$SELECT * FROM mq.browse('ed')$$), '00000', 'mq.browse');
SELECT set_eq($$SELECT body #>> '{}' FROM mq.dequeue('ed', 100)$$, ARRAY['4714-11-24 00:00:00+00 BC', 'epoch', '-inf', 'BC', 'e inf', 'e -inf', 'e BC', 'x inf'], 'what is due is delivered');
SELECT is((SELECT count(*) FROM mq.nack_batch('ed', ARRAY(SELECT f.id FROM mq.in_flight f WHERE f.queue = 'ed'), ARRAY(SELECT f.receipt FROM mq.in_flight f WHERE f.queue = 'ed')) n WHERE n = 8), 1::bigint, '... and given back');
SELECT is((SELECT count(*) FROM mq.dequeue('ed', 100)), 8::bigint, '... and delivered again');
SELECT is(mq.ack_batch('ed', array_agg(id), array_agg(receipt)), 8, '... and acknowledged') FROM mq.in_flight WHERE queue = 'ed';
SELECT ok(pg_temp.until($$(SELECT count(*) = 2 FROM mq.q_ed_dead WHERE body IN ('"x -inf"', '"x BC"'))$$), 'what had expired is dead');
SELECT mq.purge('ed') + mq.purge('ed_dead') \g /dev/null

-- Numbers.
SELECT is(pg_temp.state(format('SELECT mq.create_queue(''nr'', rate_limit => %L, if_not_exists => true)', r)), CASE WHEN r IN ('1e-300', '1e308') THEN '00000' ELSE '22023' END, 'rate_limit ' || r)
    FROM unnest('{NaN,Infinity,-Infinity,0,-0,-1,-1e-300,1e-300,1e308}'::text[]) r;
SELECT is(pg_temp.state(format('SELECT mq.create_queue(''nu'', %s => %s)', o, v)), '22023', o || ' ' || v) FROM unnest('{max_length,max_in_flight}'::text[]) o, unnest('{0,-1,-9223372036854775808}'::text[]) v;
SELECT is(pg_temp.state(format('SELECT mq.create_queue(''nu'', max_attempts => %s)', v)), '22023', 'max_attempts ' || v) FROM unnest('{-1,-2147483648}'::text[]) v;
SELECT is(pg_temp.state($$SELECT mq.create_queue('nu', max_attempts => 2147483647, dead_letter => '')$$), '00000', 'max_attempts as large as can be');
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', ''1'', priority => %s)', p)), CASE WHEN p::numeric BETWEEN 0 AND 9 THEN '00000' ELSE '22023' END, 'priority ' || p) FROM unnest('{-2147483648,-1,0,9,10,65536,65545,2147483647}'::text[]) p;
SELECT is(pg_temp.state(format(sql, v)), '22023', format(sql, v)) FROM unnest(ARRAY['SELECT * FROM mq.dequeue(''ed'', %s)', 'SELECT * FROM mq.browse(''ed'', %s)', 'SELECT * FROM mq.ack_dequeue(''ed'', NULL, NULL, %s)', 'SELECT mq.redrive(''ed_dead'', %s)']) sql,
    unnest('{0,-1,-2147483648}'::text[]) v;
SELECT is((SELECT count(*) FROM mq.dequeue('ed', 2147483647)), 2::bigint, 'a batch of two thousand million takes what there is');
SELECT is((SELECT count(*) FROM mq.browse('ed', 2147483647)), 2::bigint, '... so does mq.browse');
SELECT is((SELECT mq.redrive('ed_dead', 9223372036854775807)), 0::bigint, '... and mq.redrive');
-- ids and receipts
CREATE TEMP TABLE ids (id bigint);
INSERT INTO ids VALUES (-9223372036854775808), (-1), (0), (9007199254740991), (9007199254740992), (9223372036854775807);
SELECT is(pg_temp.value_as(current_user, format('SELECT %s', format(f, i.id, r.id))), 'false', format(f, i.id, r.id)) FROM ids i, ids r, unnest(ARRAY['mq.ack(''ed'', %s, %s)', 'mq.nack(''ed'', %s, %s)', 'mq.extend(''ed'', %s, %s, ''1 s'')']) f
    WHERE i.id = r.id OR r.id = 0;
SELECT is(mq.status('ed', id), NULL, 'no message ' || id) FROM ids;
SELECT is(mq.delete('ed', array_agg(id)), 0, 'nothing to delete there') FROM ids;
SELECT is(pg_temp.state(format('INSERT INTO mq.q_ed (id, body) OVERRIDING SYSTEM VALUE VALUES (%s, ''1'')', id)), CASE id WHEN 9007199254740991 THEN '00000' ELSE '22023' END, 'a message with id ' || id) FROM ids;
SELECT is((SELECT string_agg(id::text, ',') FROM mq.dequeue('ed', 10)), '9007199254740991', '... is delivered where it is one');
SELECT ok(mq.enqueue('ed', '2') < 1000000, '... and moves no other id');
SELECT is((SELECT body FROM mq.dequeue('ed')), '2'::jsonb, '... which is delivered as well');
SELECT mq.delete('ed', ARRAY(SELECT id FROM mq.q_ed)) \g /dev/null
-- attempts
SELECT is(pg_temp.state('INSERT INTO mq.q_ed (body, attempts) VALUES (''-1'', -1)'), '23514', 'no negative attempts');
SELECT mq.create_queue('at', backoff => '0', max_attempts => 0) \g /dev/null
DO $$ BEGIN INSERT INTO mq.q_at (body, attempts) VALUES ('"most"', 2147483647); EXCEPTION WHEN invalid_parameter_value THEN INSERT INTO mq.q_at (body, attempts) VALUES ('"most"', 1000000); END $$;
SELECT cmp_ok(attempt, '>', 0, 'the number of an attempt is never negative') FROM mq.dequeue('at', lease => '1 h');
SELECT is(mq.nack('at', id, receipt), true, '... nor after a failure') FROM mq.in_flight WHERE queue = 'at';
SELECT cmp_ok((SELECT attempts FROM mq.q_at), '>', 0, '... in the row');
SELECT mq.alter_queue('at', max_attempts => 3) \g /dev/null
SELECT is((SELECT mq.nack('at', id, receipt) FROM mq.dequeue('at')), true, 'a message with that many is');
SELECT is((SELECT count(*) FROM mq.q_at), 0::bigint, '... dead after the next');
SELECT mq.drop_queue(q) FROM unnest('{at,at_dead}'::text[]) q \g /dev/null

-- Arrays.
SELECT is(pg_temp.state(sql), '22023', sql) FROM unnest(ARRAY[$$SELECT mq.enqueue_batch('ed', '{{1,2},{3,4}}')$$, $$SELECT mq.enqueue_batch('ed', '{1,2}', keys => '{{a},{b}}')$$,
    $$SELECT mq.enqueue_batch('ed', '{1}', datas => '{{x}}')$$, $$SELECT mq.enqueue_batch('ed', '{1}', headers => '{}')$$, $$SELECT mq.ack_batch('ed', '{{1,2},{3,4}}', '{1}')$$,
    $$SELECT mq.ack_batch('ed', '{1,2}', '{{1},{1}}')$$, $$SELECT mq.nack_batch('ed', '{1,2,3}', '{1,2}')$$, $$SELECT mq.release_batch('ed', '{1,2}', '{}')$$, $$SELECT mq.reject_batch('ed', '{1}', NULL)$$,
    $$SELECT mq.extend_batch('ed', '{{1}}', '{1}', '1 s')$$, $$SELECT * FROM mq.ack_dequeue('ed', '{{1}}', '{1}')$$, $$SELECT mq.enqueue_batch('ed', ARRAY['{"a": 1}', '{"a": 1}']::jsonb[], headers => '{1,2}')$$]) sql;
SELECT is((SELECT count(*) FROM mq.q_ed), 0::bigint, 'nothing half-done');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('ed', '[7:9]={1,NULL,3}', keys => '[0:2]={a,NULL,c}', headers => ARRAY[NULL, '{}', NULL]::jsonb[])), 3::bigint, 'any lower bound, and NULLs');
SELECT results_eq($$SELECT body::text, key FROM mq.browse('ed')$$, $$VALUES ('1', 'a'), (NULL, NULL), ('3', 'c')$$, '... each in its place');
SELECT is((SELECT count(*) FROM mq.enqueue_batch('ed', bodies)), n, n || ' messages') FROM (VALUES ('{}'::jsonb[], 0::bigint), (NULL, 0), ('{NULL,NULL}', 2)) v (bodies, n);
SELECT array_agg(id) AS ids, min(receipt) AS receipt FROM mq.dequeue('ed', 10) \gset
SELECT is(mq.ack_batch('ed', ('[-3:2]=' || (:'ids'::bigint[] || NULL::bigint)::text)::bigint[], ('[5:5]={' || :receipt || '}')::bigint[]), 5, 'acknowledged by arrays from -3 and 5, with a NULL');
SELECT is(mq.ack_batch('ed', '{1,NULL}', '{NULL,NULL}') + mq.ack_batch('ed', NULL, NULL) + mq.ack_batch('ed', '{}', NULL) + mq.delete('ed', '{NULL}') + mq.delete('ed', NULL), 0, 'NULLs settle nothing');

-- JSON as deep as it gets: in whole, or a clean error.
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', %L)', repeat('[', 1000) || repeat(']', 1000))), '00000', '1,000 levels');
SELECT ok(pg_temp.state(format('SELECT mq.enqueue(''ed'', %L, headers => %L)', repeat('[', n) || repeat(']', n), repeat('{"a":', n) || '1' || repeat('}', n))) IN ('00000', '54001'), n || ' levels') FROM unnest('{3000,10000,100000}'::int[]) n;
SELECT is((SELECT mq.reject('ed', id, receipt) FROM mq.dequeue('ed')), true, 'deep bodies die as others do');
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', ''1'', headers => %L)', h)), '22023', 'headers ' || h) FROM unnest('{[],"\"x\"",1,"null",true}'::text[]) h;
SELECT is(pg_temp.state(format('SELECT mq.enqueue(''ed'', ''1'', headers => %L)', h)), '00000', 'headers ' || h) FROM unnest(ARRAY['{"x-death": 1}', '{"x-death": [[[]]]}', '{"": ""}', '{"x-death": [{"queue": "ed_dead", "id": 1e1000}]}']) h;
SELECT count(*) FROM mq.dequeue('ed', 100) m WHERE mq.reject(m.queue, m.id, m.receipt) \g /dev/null
SELECT is((SELECT count(*) FROM mq.q_ed), 0::bigint, 'whatever stood in x-death, they die');
SELECT is((SELECT count(*) FROM mq.q_ed_dead WHERE headers -> 'x-death' -> 0 ->> 'queue' = 'ed'), (SELECT count(*) FROM mq.q_ed_dead), '... with their last death first');
SELECT cmp_ok((SELECT count(*) FROM mq.q_ed_dead), '>=', 6::bigint, '... all of them');
SELECT mq.enqueue('ed', '"last"') \g /dev/null
SELECT is((SELECT body FROM mq.dequeue('ed', auto_ack => true)), '"last"'::jsonb, '... and goes on');
SELECT mq.drop_queue(q) FROM unnest('{ed,nu,ed_dead}'::text[]) q \g /dev/null
SELECT * FROM finish();
