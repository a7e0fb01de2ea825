-- Routing: types of exchanges, exchange to exchange, alternates, mandatory, the default exchange, headers, arguments, views, dropping.
\ir setup.psql

-- Publishes and says where it went: the queues in order, or the error.
CREATE FUNCTION pg_temp.went(exchange text, key text, headers jsonb DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    n      integer;
    got    text[] := '{}';
    name   text;
    amount bigint;
BEGIN
    n := mq.publish(exchange, key, '"went"', headers);
    FOR name IN SELECT q.name FROM mq.queues q ORDER BY q.name COLLATE "C" LOOP
        EXECUTE format('DELETE FROM mq.%I', 'q_' || name);
        GET DIAGNOSTICS amount = ROW_COUNT;
        got := got || array_fill(name, ARRAY[amount::integer]);
    END LOOP;
    RETURN concat_ws(' ', n, nullif(array_to_string(got, ','), ''));
END $$;
SELECT mq.create_queue(q, dead_letter => '') FROM unnest('{a,b,c,d}'::text[]) q;
-- results_eq compares by one collation
CREATE TEMP VIEW seen AS SELECT exchange COLLATE "default" AS exchange, queue COLLATE "default" AS queue, destination COLLATE "default" AS destination, pattern COLLATE "default" AS pattern, match FROM mq.bindings;

-- direct: the key as it is.
SELECT lives_ok($$ SELECT mq.create_exchange('di', 'direct') $$, 'an exchange of type direct');
SELECT mq.bind('di', 'a', 'k'), mq.bind('di', 'b', 'k'), mq.bind('di', 'c', 'K'), mq.bind('di', 'd', ''), mq.bind('di', 'a', '*'), mq.bind('di', 'a', 'k.k'), mq.bind('di', 'b', 'ü.€');
SELECT is(pg_temp.went('di', key), queues, 'direct: ' || quote_literal(key)) FROM (VALUES
    ('k', '2 a,b'), ('K', '1 c'), ('', '1 d'), ('*', '1 a'), ('#', '0'), ('k.k', '1 a'), ('k.', '0'), ('.k', '0'), (' k', '0'), ('kk', '0'), ('ü.€', '1 b'), ('ü', '0')) t (key, queues);

-- topic: words; the empty key has none.
SELECT lives_ok($$ SELECT mq.create_exchange('to') $$, 'topic is the default');
SELECT is((SELECT type FROM mq.exchanges WHERE name = 'to'), 'topic', '... and shown');
CREATE FUNCTION pg_temp.fits(pattern text, key text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    yes boolean;
BEGIN
    PERFORM mq.bind('to', 'a', pattern);
    yes := mq.publish('to', key) = 1;
    PERFORM mq.unbind('to', 'a', pattern);
    RETURN yes;
END $$;
CREATE TEMP TABLE topics AS SELECT * FROM (VALUES
    ('#', '{"",a,.,a.b,"a.b.c.d.e.f.g","...",#,*,"ü"}'::text[], '{}'::text[]),
    ('', '{""}', '{a,.,#,*," "}'),
    ('*', '{a,#,*,"ü","a b"}', '{"",.,a.,.a,a.b,..}'),
    ('a', '{a}', '{"",A,aa,a.,.a,a.a,*,#}'),
    ('a.', '{a.}', '{a,a..,.a,a.b,""}'),
    ('.', '{.}', '{"",..,a.,.a}'),
    ('a.*', '{a.,a.b,a.a}', '{a,"",a.b.c,b.a,a..}'),
    ('*.a', '{.a,b.a,a.a}', '{a,"",c.b.a,a.b}'),
    ('a.*.b', '{a..b,a.x.b,a.b.b}', '{a.b,a.x.y.b,ab}'),
    ('a.#', '{a,a.,a.b,a.b.c,a..}', '{"",b,aa,b.a,.a}'),
    ('#.a', '{a,.a,b.a,b.c.a,..a}', '{"",b,aa,a.b,a.}'),
    ('a.#.b', '{a.b,a.x.b,a.x.y.b,a..b,a.a.b.b}', '{a,b,ab,a.b.c,b.a,""}'),
    ('#.a.#', '{a,a.a,x.a,a.x,x.a.y,x.y.a.z,.a.}', '{"",b,x.y,aa}'),
    ('#.#', '{"",a,a.b,..}', '{}'),
    ('#.*', '{a,a.b,.,"..."}', '{""}'),
    ('*.#', '{a,a.b,.}', '{""}'),
    ('#.*.#.*.#', '{a.b,.,a.b.c}', '{"",a}'),
    ('a.#.b.#.c', '{a.b.c,a.x.b.y.c,a.b.b.c.c,a.c.b.c}', '{a.c,a.b,b.c,a.c.b,c.b.a}'),
    ('*.*', '{a.b,.}', '{"",a,a.b.c}'),
    ('a#', '{a#}', '{a,ab,a.b}'), ('**', '{**}', '{a,a.b,*}'), ('#a', '{#a}', '{a,b.a}'),
    ('ü.*.€', '{ü.ß.€,ü..€}', '{u.ß.€,ü.€}')) t (pattern, fit, other);
SELECT is(array(SELECT key FROM unnest(fit) key WHERE NOT pg_temp.fits(pattern, key)), '{}', quote_literal(pattern) || ' takes what it should') FROM topics;
SELECT is(array(SELECT key FROM unnest(other) key WHERE pg_temp.fits(pattern, key)), '{}', quote_literal(pattern) || ' takes nothing else') FROM topics;
DELETE FROM mq.q_a;
SELECT mq.bind('to', 'a', '#'), mq.bind('to', 'a', 'x.*'), mq.bind('to', 'a', 'x.y'), mq.bind('to', 'a', '*.#');
SELECT is(pg_temp.went('to', 'x.y'), '1 a', 'a queue bound four times gets one');
SELECT mq.unbind('to', 'a', p) FROM unnest('{#,x.*,x.y,*.#}'::text[]) p;
SELECT count((mq.bind('to', 'a', 'many.' || n || '.*.#'), mq.bind('to', 'b', 'many.*.' || n))) FROM generate_series(1, 2000) n;
SELECT is(pg_temp.went('to', 'many.7.1999'), '2 a,b', 'among 4000 bindings');
SELECT is(pg_temp.went('to', 'many.2001.2001'), '0', '... none');
SELECT count((mq.unbind('to', 'a', 'many.' || n || '.*.#'), mq.unbind('to', 'b', 'many.*.' || n))) FROM generate_series(1, 2000) n;
SELECT lives_ok($$ SELECT mq.bind('to', 'a', left(repeat('ü.', 400), 333) || 'x') $$, 'a pattern of 1000 bytes');
SELECT is(pg_temp.state($$ SELECT mq.bind('to', 'a', repeat('x', 1001)) $$), '22023', 'not of 1001');
SELECT is(pg_temp.state($$ SELECT mq.bind('to', 'a', repeat('ü', 501)) $$), '22023', 'bytes count');
SELECT is(mq.unbind('to', 'a', left(repeat('ü.', 400), 333) || 'x'), true, 'it goes again');
SELECT mq.bind('to', 'b', 'k.#.z');
SELECT is(pg_temp.went('to', 'k' || repeat('.ab', 300000) || '.z'), '1 b', 'a key of 900,000 bytes');
SELECT is(pg_temp.went('to', 'k' || repeat('.ab', 300000)), '0', '... that does not fit');
SELECT mq.unbind('to', 'b', 'k.#.z');

-- fanout: all, whatever the key.
SELECT lives_ok($$ SELECT mq.create_exchange('fa', 'fanout') $$, 'an exchange of type fanout');
SELECT is(pg_temp.went('fa', 'x'), '0', 'nothing is bound');
SELECT mq.bind('fa', 'a'), mq.bind('fa', 'b', 'never looked at'), mq.bind('fa', 'b', 'nor this'), mq.bind('fa', 'c', '');
SELECT is(pg_temp.went('fa', key), '3 a,b,c', 'fanout: ' || quote_literal(key)) FROM unnest('{"",x,"never looked at"}'::text[]) key;

-- headers.
SELECT lives_ok($$ SELECT mq.create_exchange('he', 'headers') $$, 'an exchange of type headers');
CREATE FUNCTION pg_temp.fits(match jsonb, headers jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    yes boolean;
BEGIN
    PERFORM mq.bind('he', 'a', match => match);
    yes := mq.publish('he', 'any key', headers => headers) = 1;
    IF NOT mq.unbind('he', 'a', match => match) THEN
        RAISE 'not unbound';
    END IF;
    RETURN yes;
END $$;
SELECT is(pg_temp.fits(match, headers), yes, format('%s: %s', coalesce(match::text, 'no match'), coalesce(headers::text, 'no headers')))
FROM (VALUES
    (NULL::jsonb, NULL::jsonb, true), (NULL, '{"a": 1}', true), ('{}', NULL, true), ('{}', '{"a": 1}', true), ('{"x-match": "all"}', NULL, true), ('{"x-match": "all"}', '{}', true),
    ('{"x-match": "any"}', NULL, false), ('{"x-match": "any"}', '{"a": 1}', false), ('{"x-match": "any-with-x"}', '{"x-match": "any-with-x"}', false), ('{"x-match": "all-with-x"}', '{}', true),
    ('{"a": 1}', '{"a": 1}', true), ('{"a": 1}', '{"a": 2}', false), ('{"a": 1}', '{"A": 1}', false), ('{"a": 1}', NULL, false), ('{"a": 1}', '{}', false), ('{"a": 1}', '{"b": 1}', false),
    ('{"a": 1}', '{"a": 1.0}', true), ('{"a": 1}', '{"a": "1"}', false), ('{"a": "1"}', '{"a": 1}', false), ('{"a": true}', '{"a": "true"}', false), ('{"a": true}', '{"a": true}', true), ('{"a": true}', '{"a": false}', false),
    ('{"a": ""}', '{"a": ""}', true), ('{"a": ""}', '{"a": null}', false), ('{"a": "ü"}', '{"a": "ü"}', true), ('{"ü": "x"}', '{"ü": "x"}', true), ('{"a": "x"}', '{"a": "xx"}', false), ('{"a": "xx"}', '{"a": "x"}', false),
    ('{"a": null}', '{"a": 1}', true), ('{"a": null}', '{"a": {"b": 1}}', true), ('{"a": null}', '{"a": null}', true), ('{"a": null}', '{"b": 1}', false), ('{"a": null}', NULL, false),
    ('{"a": {"b": [1, 2]}}', '{"a": {"b": [1, 2]}}', true), ('{"a": {"b": [1, 2]}}', '{"a": {"b": [2, 1]}}', false), ('{"a": {"b": 1}}', '{"a": {"b": 1, "c": 2}}', false), ('{"a": []}', '{"a": []}', true), ('{"a": []}', '{"a": {}}', false), ('{"a": [1]}', '{"a": 1}', false), ('{"a": {"b": 1.0}}', '{"a": {"b": 1}}', true),
    ('{"a": 1, "b": 2}', '{"a": 1, "b": 2, "c": 3}', true), ('{"a": 1, "b": 2}', '{"a": 1}', false), ('{"a": 1, "b": 2}', '{"a": 1, "b": 3}', false), ('{"a": 1, "b": 2, "x-match": "all"}', '{"b": 2, "a": 1}', true),
    ('{"a": 1, "b": 2, "x-match": "any"}', '{"a": 1}', true), ('{"a": 1, "b": 2, "x-match": "any"}', '{"a": 9, "b": 2}', true), ('{"a": 1, "b": 2, "x-match": "any"}', '{"a": 9, "b": 9}', false), ('{"a": 1, "b": null, "x-match": "any"}', '{"b": 7}', true), ('{"a": 1, "x-match": "any"}', '{"x-match": "any"}', false),
    -- without -with-x names that begin with x- are not looked at
    ('{"x-a": 1}', '{"x-a": 2}', true), ('{"x-a": 1}', NULL, true), ('{"x-a": 1, "a": 1}', '{"a": 1}', true), ('{"x-a": 1, "x-match": "any"}', '{"x-a": 1}', false), ('{"x-a": 1, "a": 1, "x-match": "any"}', '{"x-a": 1}', false),
    ('{"x-a": 1, "x-match": "all-with-x"}', '{"x-a": 1}', true), ('{"x-a": 1, "x-match": "all-with-x"}', '{"x-a": 2}', false), ('{"x-a": 1, "a": 1, "x-match": "all-with-x"}', '{"a": 1}', false),
    ('{"x-a": 1, "x-match": "any-with-x"}', '{"x-a": 1}', true), ('{"x-a": 1, "a": 1, "x-match": "any-with-x"}', '{"a": 1}', true), ('{"x-a": 1, "x-match": "any-with-x"}', '{"x-b": 1}', false),
    ('{"x": 1}', '{"x": 1}', true), ('{"x": 1}', '{"x": 2}', false), ('{"X-a": 1}', '{"X-a": 2}', false)) t (match, headers, yes);
DELETE FROM mq.q_a;
SELECT mq.bind('he', 'a', match => '{"t": 1}'), mq.bind('he', 'b', match => '{"t": null}'), mq.bind('he', 'c', 'key is not looked at', '{"t": 2}'), mq.bind('he', 'c', 'another', '{"t": 2}'), mq.bind('he', 'd', match => '{"u": 1, "t": 1, "x-match": "any"}');
SELECT is(pg_temp.went('he', 'k', headers), queues, 'headers ' || coalesce(headers::text, 'none'))
FROM (VALUES ('{"t": 1}'::jsonb, '3 a,b,d'), ('{"t": 2}', '2 b,c'), ('{"u": 1}', '1 d'), ('{"v": 1}', '0'), (NULL, '0')) t (headers, queues);
SELECT is(pg_temp.state(format('SELECT mq.bind(%L, %L, match => %L)', exchange, 'a', match)), '22023', format('no binding of %s: %s', exchange, match))
FROM (VALUES ('he', '[]'), ('he', '1'), ('he', '"x"'), ('he', 'null'), ('he', '{"x-match": "some"}'), ('he', '{"x-match": null}'), ('he', '{"x-match": 1}'), ('he', '{"x-match": ["all"]}'), ('he', '{"x-match": "ALL"}'),
             ('he', '{"x-match": ""}'), ('di', '{}'), ('to', '{}'), ('fa', '{"a": 1}'), ('he', '{"a": "' || repeat('x', 1000) || '"}')) t (exchange, match);
CREATE TEMP TABLE packed AS SELECT jsonb_build_object('a', repeat('x', 60000)) AS match;
SELECT cmp_ok((SELECT pg_column_size(match) FROM packed), '<', 1000, 'compressed it is small');
SELECT is(pg_temp.state($$ SELECT mq.bind('he', 'a', match => (SELECT match FROM packed)) $$), '22023', '... and still too large');
SELECT lives_ok(format($$ SELECT mq.bind('he', 'a', %L, %L) $$, noise.pattern, noise.match), 'pattern and match both long and not compressible')
FROM (SELECT left(string_agg(md5(i::text), ''), 1000) AS pattern, jsonb_build_object('k', left(string_agg(md5(i::text), ''), 970)) AS match FROM generate_series(1, 40) i) noise;
SELECT is(pg_temp.went('he', 'k', (SELECT b.match FROM mq.bindings b WHERE length(b.pattern) = 1000)), '1 a', '... and it matches');

-- Bindings: again is once, each set of arguments its own, gone when unbound.
SELECT mq.create_exchange('bi'), mq.create_exchange('bh', 'headers');
SELECT mq.bind('bi', 'a'), mq.bind('bi', 'a'), mq.bind('bi', 'a', '#'), mq.bind('bi', 'a', NULL), mq.bind('bi', 'a', '#', NULL), mq.bind('bi', 'a', 'x'), mq.bind('bi', 'b', 'x');
SELECT results_eq($$ SELECT queue, pattern FROM seen WHERE exchange = 'bi' ORDER BY 1, 2 $$, $$ VALUES ('a', '#'), ('a', 'x'), ('b', 'x') $$, 'bind is idempotent');
SELECT mq.bind('bh', 'a', match => m) FROM unnest(ARRAY[NULL, '{}', '{"a": 1}', '{"a": 1, "x-match": "any"}', '{"a": 1}', '{}', NULL]::jsonb[]) m;
SELECT is((SELECT count(*) FROM mq.bindings WHERE exchange = 'bh'), 4::bigint, '... with match too');
SELECT is((SELECT array_agg(mq.unbind('bh', 'a', match => m)) FROM unnest(ARRAY['{"a": 1}', '{"a": 1}', NULL, NULL, '{"a": 2}']::jsonb[]) m), '{t,f,t,f,f}', 'unbind says whether there was one');
SELECT is(mq.unbind('bi', 'a', 'y'), false, 'another pattern is another binding');
SELECT is(mq.unbind('bi', 'c', 'x'), false, 'another queue too');
SELECT is(mq.unbind('bi', 'a', NULL), true, 'NULL means the default');
SELECT is(pg_temp.went('bi', 'x'), '2 a,b', 'what is left');
SELECT is(mq.unbind('bi', 'no_such_queue'), false, 'unbind of a queue that is not there');

-- Exchange to exchange, of any depth; circles; each queue once.
SELECT mq.create_exchange('c' || n, (ARRAY['fanout', 'topic', 'headers', 'direct'])[n % 4 + 1]) FROM generate_series(0, 99) n;
SELECT mq.bind_exchange('c' || n, 'c' || n + 1, 'deep') FROM generate_series(0, 98) n;
SELECT mq.bind('c99', 'd', 'deep');
SELECT is(pg_temp.went('c0', 'deep'), '1 d', 'through a hundred exchanges of all types');
SELECT is(pg_temp.went('c0', 'shallow'), '0', 'each looks at the key itself');
SELECT mq.bind_exchange('c99', 'c0', 'deep'), mq.bind_exchange('c50', 'c50', 'deep'), mq.bind_exchange('c60', 'c10', 'deep'), mq.bind('c0', 'd'), mq.bind('c33', 'd', 'deep'), mq.bind('c20', 'a');
SELECT is(pg_temp.went('c0', 'deep'), '2 a,d', 'in a circle, and loops within; each queue once');
SELECT is(pg_temp.went('c70', 'deep'), '2 a,d', '... from anywhere in it');
SELECT is((SELECT array_agg(p) FROM mq.publish_batch('c40', array_fill('deep'::text, '{50}')) p), array_fill(2, '{50}'), '... many times');
DELETE FROM mq.q_a;
DELETE FROM mq.q_d;
SELECT is(mq.unbind_exchange('c99', 'c0', 'deep'), true, 'the circle is opened');
SELECT is(pg_temp.went('c70', 'deep'), '1 d', '... and ends here');
SELECT mq.create_exchange('self');
SELECT mq.bind_exchange('self', 'self');
SELECT is(pg_temp.went('self', 'x'), '0', 'an exchange bound to nothing but itself');
SELECT mq.create_exchange('top', 'fanout'), mq.create_exchange('left', 'fanout'), mq.create_exchange('right', 'fanout'), mq.create_exchange('bottom', 'fanout');
SELECT mq.bind_exchange('top', 'left'), mq.bind_exchange('top', 'right'), mq.bind_exchange('left', 'bottom'), mq.bind_exchange('right', 'bottom'), mq.bind('bottom', 'a'), mq.bind('left', 'a'), mq.bind('bottom', 'b'), mq.bind('right', 'c');
SELECT is(pg_temp.went('top', 'x'), '3 a,b,c', 'by several ways at once');
SELECT mq.bind_exchange('top', 'left'), mq.bind_exchange('top', 'left', 'other');
SELECT is((SELECT count(*) FROM mq.bindings WHERE exchange = 'top'), 3::bigint, 'bind_exchange is idempotent');
SELECT is(mq.unbind_exchange('top', 'left'), true, 'unbind_exchange');
SELECT is(mq.unbind_exchange('top', 'left'), false, '... is done once');
SELECT is(mq.unbind('top', 'left', 'other'), false, 'a queue of an exchange''s name is another thing');
SELECT is(pg_temp.went('top', 'x'), '3 a,b,c', 'the other binding stands');

-- Alternates: each exchange of a chain has its own; only what nothing matches goes there.
SELECT mq.create_exchange('last', 'fanout'), mq.create_exchange('al1', 'direct', alternate => 'last');
SELECT mq.create_exchange('al2', 'topic', alternate => 'al1');
SELECT mq.create_exchange('al3', 'headers', alternate => 'al2');
SELECT mq.bind('al3', 'a', match => '{"h": 1}'), mq.bind('al2', 'b', 'two.*'), mq.bind('al1', 'c', 'one'), mq.bind('last', 'd');
SELECT is(pg_temp.went('al3', key, headers), queues, format('alternates: %s %s', key, headers)) FROM (VALUES
    ('two.x', '{"h": 1}'::jsonb, '1 a'), ('two.x', '{}', '1 b'), ('one', '{}', '1 c'), ('none', '{}', '1 d'), ('one', '{"h": 1}', '1 a')) t (key, headers, queues);
SELECT mq.bind_exchange('al3', 'al2', match => '{"h": 2}'), mq.create_exchange('empty');
SELECT is(pg_temp.went('al3', 'none', '{"h": 2}'), '1 d', 'by a binding into an exchange, from there to its alternate');
SELECT mq.bind_exchange('al2', 'empty', 'void');
SELECT is(pg_temp.went('al3', 'void', '{}'), '0', 'an exchange that leads nowhere is a match: no alternate');
SELECT is(mq.unbind('last', 'd'), true, 'the last has nothing');
SELECT is(pg_temp.went('al3', 'none'), '0', 'the end of the chain');
SELECT mq.bind_exchange('last', 'al3');
SELECT is(pg_temp.went('al3', 'none'), '0', 'a circle through alternates ends');
SELECT is(pg_temp.went('last', 'one'), '1 c', '... and is gone through once');

-- mandatory.
SELECT is((SELECT row(state, message, detail, hint) FROM pg_temp.raised($$ SELECT mq.publish('to', 'no.way', mandatory => true) $$)),
    row('22023'::text, 'no queue takes the message, and it is mandatory'::text, 'Exchange "to" leads nowhere with routing key "no.way".'::text, 'See mq.bindings for what is bound.'::text), 'mandatory and no route');
SELECT is(mq.publish('to', 'no.way', mandatory => false), 0, 'not mandatory');
SELECT is(mq.publish('to', 'no.way', mandatory => NULL), 0, 'NULL is the default');
SELECT is(mq.publish('di', 'k', mandatory => true), 2, 'mandatory and routed');
SELECT is((SELECT detail FROM pg_temp.raised($$ SELECT mq.publish_batch('di', '{k,K,none,neither}', mandatory => true) $$)), 'Exchange "di" leads nowhere with routing key "none".', 'the first of a batch that has no route');
SELECT is((SELECT row(state, detail, hint) FROM pg_temp.raised($$ SELECT mq.publish('', 'no_queue', mandatory => true) $$)),
    row('22023'::text, 'Exchange "", the default one, leads to the queue that the routing key names, and there is no queue "no_queue".'::text, 'Create it with mq.create_queue.'::text), 'the default exchange too');
SELECT is((SELECT count(*) FROM mq.q_a) + (SELECT count(*) FROM mq.q_b) + (SELECT count(*) FROM mq.q_c), 2::bigint, 'nothing of the batch stays');
SELECT is((SELECT array_agg(p) FROM mq.publish_batch('di', '{k,K}', mandatory => true) p), '{2,1}', 'a batch that is routed');
DELETE FROM mq.q_a; DELETE FROM mq.q_b; DELETE FROM mq.q_c;

-- The default exchange.
SELECT is(pg_temp.went('', key), queues, 'default exchange: ' || quote_literal(key)) FROM (VALUES ('a', '1 a'), ('A', '0'), ('', '0'), ('#', '0'), ('*', '0'), ('a.b', '0'), ('a''; DROP TABLE mq.q_a', '0'), (repeat('a', 100000), '0')) t (key, queues);
SELECT is((SELECT array_agg(p) FROM mq.publish_batch('', '{a,none,b,a}', '{1,2,3,4}') p), '{1,0,1,1}', 'a batch to several queues');
SELECT results_eq('SELECT body FROM mq.q_a ORDER BY id', $$ VALUES ('1'::jsonb), ('4') $$, '... in order');
SELECT is((SELECT headers FROM mq.q_b), '{"x-exchange": "", "x-routing-key": "b"}', '... with headers');
DELETE FROM mq.q_a; DELETE FROM mq.q_b;
SELECT is((SELECT state FROM pg_temp.raised(sql)), '22023', sql) FROM (VALUES
    ($$ SELECT mq.bind('', 'a') $$), ($$ SELECT mq.unbind('', 'a') $$), ($$ SELECT mq.bind_exchange('', 'di') $$), ($$ SELECT mq.bind_exchange('di', '') $$), ($$ SELECT mq.unbind_exchange('', 'di') $$), ($$ SELECT mq.unbind_exchange('di', '') $$),
    ($$ SELECT mq.create_exchange('') $$), ($$ SELECT mq.drop_exchange('') $$), ($$ SELECT mq.create_exchange('ax', alternate => '') $$), ($$ SELECT mq.grant_exchange('', 'public') $$), ($$ SELECT mq.revoke_exchange('', 'public') $$)) t (sql);

-- What a message carries: all of enqueue's arguments, and where it came from; forged headers are overwritten.
SELECT is(mq.publish('di', 'k', '{"n": 1}', '{"h": 1, "x-exchange": "forged", "x-routing-key": {"forged": true}}'), 2, 'with forged headers');
SELECT results_eq('SELECT headers, body FROM mq.q_a UNION ALL SELECT headers, body FROM mq.q_b',
    $$ SELECT '{"h": 1, "x-exchange": "di", "x-routing-key": "k"}'::jsonb, '{"n": 1}'::jsonb FROM generate_series(1, 2) $$, 'the true ones are recorded');
DELETE FROM mq.q_a; DELETE FROM mq.q_b;
SELECT is(mq.publish('c0', 'ü"\ {}', headers => NULL), 1, 'through exchanges, with an odd key');
SELECT is((SELECT headers FROM mq.q_d), '{"x-exchange": "c0", "x-routing-key": "ü\"\\ {}"}', 'the first exchange is recorded');
DELETE FROM mq.q_d;
SELECT is(mq.publish('di', 'k', data => '\x00ff', delay => '1 hour', priority => 7, key => 'kk', dedup_id => 'dd', ttl => '1 minute'), 2, 'with everything');
SELECT results_eq('SELECT data, priority::int, key, dedup_id, body, attempts, ready_at BETWEEN now() + interval ''59 min'' AND now() + interval ''61 min'', expires_at - ready_at FROM mq.q_a',
    $$ VALUES ('\x00ff'::bytea, 7, 'kk', 'dd', NULL::jsonb, 0, true, interval '1 minute') $$, '... it is there');
SELECT results_eq('SELECT id - id, enqueued_at - enqueued_at, priority, ready_at, expires_at, key, dedup_id, headers, body, data FROM mq.q_a', 'SELECT id - id, enqueued_at - enqueued_at, priority, ready_at, expires_at, key, dedup_id, headers, body, data FROM mq.q_b', 'in each queue the same');
SELECT is(mq.publish('di', 'k', dedup_id => 'dd'), 2, 'a dedup_id that is remembered counts as got');
SELECT is((SELECT count(*) FROM mq.q_a), 1::bigint, '... and adds nothing');
SELECT mq.bind('di', 'd', 'k');
SELECT is(mq.publish('di', 'k', '"late"', dedup_id => 'dd'), 3, 'a queue bound since has not seen it');
SELECT is((SELECT count(*) FROM mq.q_a), 1::bigint, '... the others have');
SELECT is((SELECT body FROM mq.q_d), '"late"', '... it has it now');
SELECT is(mq.unbind('di', 'd', 'k'), true);
SELECT is(mq.publish('di', 'K', deliver_at => '2099-01-01'), 1, 'deliver_at');
SELECT is((SELECT ready_at FROM mq.q_c), '2099-01-01'::timestamptz, '... is kept');
DELETE FROM mq.q_a; DELETE FROM mq.q_b; DELETE FROM mq.q_c; DELETE FROM mq.q_d;
SELECT mq.alter_queue('a', ttl => '2 hours');
SELECT is(mq.publish('di', 'k'), 2, 'no body at all');
SELECT ok((SELECT expires_at - enqueued_at BETWEEN interval '2 hours' AND interval '2 hours 1 minute' FROM mq.q_a), 'each queue''s own ttl');
SELECT is((SELECT expires_at FROM mq.q_b), NULL, '... or none');
SELECT results_eq('SELECT headers, body, data FROM mq.q_b', $$ VALUES ('{"x-exchange": "di", "x-routing-key": "k"}'::jsonb, NULL::jsonb, NULL::bytea) $$, 'an empty message');
SELECT mq.alter_queue('a', unset => '{ttl}');
DELETE FROM mq.q_a; DELETE FROM mq.q_b;

-- Delivered like others, and counted.
SELECT mq.publish('di', 'k', '"by exchange"', priority => 1), mq.enqueue('a', '"directly"');
SELECT results_eq($$ SELECT body, headers ->> 'x-routing-key' FROM mq.dequeue('a', 10, auto_ack => true) $$, $$ VALUES ('"by exchange"'::jsonb, 'k'), ('"directly"', NULL) $$, 'dequeue');
SELECT is((SELECT array_agg(body) FROM mq.dequeue('b', 10, auto_ack => true)), '{"\"by exchange\""}', '... in the other queue too');
SELECT is((SELECT count(*) FROM mq.dequeue('a', match => '{"x-exchange": "di"}')), 0::bigint, 'match sees the headers: nothing');
SELECT mq.publish('di', 'k');
SELECT is((SELECT count(*) FROM mq.dequeue('a', match => '{"x-exchange": "di"}', auto_ack => true)), 1::bigint, '... something');
SELECT mq.purge('b');

-- Batches: a count a message, in order, in each queue in the order given.
SELECT is((SELECT array_agg(p ORDER BY n) FROM mq.publish_batch('di', '{k,none,K,"",k,k.k}', '{1,2,3,4,5,6}') WITH ORDINALITY t (p, n)), '{2,0,1,1,2,1}', 'a count each');
SELECT results_eq('SELECT body FROM mq.q_a ORDER BY id', $$ VALUES ('1'::jsonb), ('5'), ('6') $$, 'the order is kept');
SELECT results_eq($$ SELECT headers ->> 'x-routing-key' FROM mq.q_a ORDER BY id $$, $$ VALUES ('k'), ('k'), ('k.k') $$, 'each with its key');
DELETE FROM mq.q_a; DELETE FROM mq.q_b; DELETE FROM mq.q_c; DELETE FROM mq.q_d;
SELECT is((SELECT array_agg(p) FROM mq.publish_batch('di', '{}') p), NULL, 'an empty batch');
SELECT is((SELECT count(*) FROM mq.publish_batch('di', '{}', '{}', '{}', keys => '{}', dedup_ids => '{}', datas => '{}')), 0::bigint, '... of everything');
SELECT is((SELECT array_agg(p) FROM mq.publish_batch('he', '{x,x,x}', headers => ARRAY['{"t": 1}', NULL, '{"t": 2}']::jsonb[], keys => '{k1,NULL,k3}', datas => ARRAY['\x01', '\x02', '\x03']::bytea[], dedup_ids => '{p,p,NULL}', priority => 2) p), '{3,0,2}', 'headers of each');
SELECT results_eq('SELECT headers, key, data, dedup_id, priority::int FROM mq.q_b ORDER BY id', $$ VALUES ('{"t": 1, "x-exchange": "he", "x-routing-key": "x"}'::jsonb, 'k1', '\x01'::bytea, 'p', 2), ('{"t": 2, "x-exchange": "he", "x-routing-key": "x"}', 'k3', '\x03', NULL, 2) $$, '... and parts');
DELETE FROM mq.q_a; DELETE FROM mq.q_b; DELETE FROM mq.q_c; DELETE FROM mq.q_d;
SELECT is((SELECT array_agg(p ORDER BY n) FROM mq.publish_batch('di', '{k,k,K}', '{1,2,3}', dedup_ids => '{z,z,z}') WITH ORDINALITY t (p, n)), '{2,2,1}', 'one dedup_id twice in a batch: got it');
SELECT results_eq('SELECT body FROM mq.q_a', $$ VALUES ('1'::jsonb) $$, '... once');
SELECT is((SELECT sum(p) FROM mq.publish_batch('di', array_fill('k'::text, '{5000}'), array_fill('1'::jsonb, '{5000}')) p), 10000::bigint, 'a large one');
SELECT is((SELECT count(*) FROM mq.q_a) + (SELECT count(*) FROM mq.q_b), 10002::bigint, '... is all there');
DELETE FROM mq.q_a; DELETE FROM mq.q_b; DELETE FROM mq.q_c;

-- A queue that refuses fails the publish whole and is named.
SELECT mq.create_queue('full', dead_letter => '', max_length => 1), mq.create_queue('head', dead_letter => '', max_length => 1, overflow => 'drop_head'), mq.create_queue('ord', dead_letter => '', ordered => true);
SELECT mq.create_exchange('re', 'fanout');
SELECT mq.bind('re', q) FROM unnest('{a,full,head,z}'::text[]) q WHERE q <> 'z';
SELECT is(mq.publish('re', 'k', '1'), 3, 'there is room');
SELECT is((SELECT row(state, message ~ '"full"') FROM pg_temp.raised($$ SELECT mq.publish('re', 'k', '2') $$)), row('53400'::text, true), 'a full queue is named');
SELECT is((SELECT state FROM pg_temp.raised($$ SELECT mq.publish_batch('re', '{k,k}', '{3,4}') $$)), '53400', '... in a batch');
SELECT results_eq('SELECT body FROM mq.q_a UNION ALL SELECT body FROM mq.q_head UNION ALL SELECT body FROM mq.q_full', $$ SELECT '1'::jsonb FROM generate_series(1, 3) $$, 'nothing half-routed, nothing dropped');
SELECT mq.purge('full');
SELECT is(mq.publish('re', 'k', '5'), 3, 'room again');
SELECT is((SELECT array_agg(body) FROM mq.q_head), '{5}', 'drop_head drops');
SELECT mq.unbind('re', 'full'), mq.bind('re', 'ord');
SELECT is((SELECT row(state, message ~ '"ord"') FROM pg_temp.raised(sql)), row('22023'::text, true), 'an ordered queue refuses' || sql) FROM (VALUES ($$ SELECT mq.publish('re', 'k', priority => 1) $$), ($$ SELECT mq.publish('re', 'k', delay => '1 s') $$), ($$ SELECT mq.publish('re', 'k', deliver_at => now()) $$)) t (sql);
SELECT is((SELECT count(*) FROM mq.q_a), 2::bigint, 'nothing half-routed');
SELECT is(mq.publish('re', 'k', '6', key => 'o', delay => '0', priority => NULL), 3, 'without a place it takes it');
SELECT is((SELECT array_agg(key) FROM mq.dequeue('ord', auto_ack => true)), '{o}', '... with the key');
ALTER TABLE mq.q_head ENABLE ROW LEVEL SECURITY;
SELECT is((SELECT row(state, message ~ '"head"') FROM pg_temp.raised($$ SELECT mq.publish('re', 'k') $$)), row('0A000'::text, true), 'a queue with row-level security fails it too');
ALTER TABLE mq.q_head DISABLE ROW LEVEL SECURITY;
SELECT is(mq.publish('re', 'k'), 3, '... while it has');

-- Transactions and savepoints; a transaction sees its own bindings.
SELECT mq.purge(q) FROM unnest('{a,b,c,d,head,ord,full}'::text[]) q;
SELECT mq.create_exchange('tx');
BEGIN;
SELECT mq.bind('tx', 'a');
SELECT is(mq.publish('tx', 'k', '1'), 1, 'a binding of this transaction');
SAVEPOINT s;
SELECT mq.bind('tx', 'b');
SELECT is(mq.publish('tx', 'k', '2'), 2, '... of its savepoint');
ROLLBACK TO s;
SELECT is(mq.publish('tx', 'k', '3'), 1, '... gone with it');
SAVEPOINT t;
SELECT mq.unbind('tx', 'a');
SELECT is(mq.publish('tx', 'k', '4'), 0, 'unbound');
ROLLBACK TO t;
SELECT is(mq.publish('tx', 'k', '5'), 1, '... taken back');
SAVEPOINT u;
SELECT is(mq.publish('tx', 'k', '6'), 1, 'a publish that is');
ROLLBACK TO u;
SAVEPOINT v;
SELECT mq.create_exchange('tx2', 'fanout'), mq.bind_exchange('tx', 'tx2'), mq.bind('tx2', 'c');
SELECT is(mq.publish('tx', 'k', '7'), 2, 'an exchange of this savepoint');
RELEASE v;
SELECT mq.drop_exchange('tx2');
SELECT is(mq.publish('tx', 'k', '8'), 1, '... dropped');
COMMIT;
SELECT is((SELECT array_agg(body ORDER BY id) FROM mq.dequeue('a', 10, auto_ack => true)), '{1,3,5,7,8}', 'what was committed');
SELECT is((SELECT count(*) FROM mq.q_b), 0::bigint, 'what was not');
SELECT is((SELECT array_agg(body) FROM mq.q_c), '{7}');
BEGIN;
SELECT mq.bind('tx', 'b', 'k'), mq.publish('tx', 'k', '9');
ROLLBACK;
SELECT is(mq.publish('tx', 'k', '10'), 1, 'all rolled back');
SELECT is((SELECT mq.publish('tx', 'k') FROM (SELECT count(mq.bind('tx', 'b', 'k')) AS n) x WHERE n >= 0), 2, 'bind and publish in one statement');
SELECT is((SELECT array_agg(p) FROM (SELECT CASE n % 2 WHEN 0 THEN mq.unbind('tx', 'b', 'k')::int ELSE mq.publish('tx', 'k') END AS p FROM generate_series(1, 3) n) x), '{2,1,1}', 'publish, unbind, publish in one statement');
DO $$ BEGIN
    PERFORM mq.bind('tx', 'd', 'k');
    BEGIN
        PERFORM mq.bind('tx', 'b', 'k');
        PERFORM mq.publish('tx', 'k', '"x"');
        RAISE 'undo';
    EXCEPTION WHEN raise_exception THEN
        PERFORM mq.publish('tx', 'k', '"y"');
    END;
END $$;
SELECT is((SELECT array_agg(body) FROM mq.q_d), '{"\"y\""}', 'in an exception block');

-- A queue whose table was dropped by hand is skipped and hidden; one made anew under its name is not bound.
SELECT mq.create_queue('gone', dead_letter => ''), mq.create_exchange('go', 'fanout');
SELECT mq.bind('go', 'gone'), mq.bind('go', 'a');
DROP TABLE mq.q_gone;
SELECT is(mq.publish('go', 'k'), 1, 'a queue whose table is gone is skipped');
SELECT results_eq($$ SELECT queue FROM seen WHERE exchange = 'go' $$, $$ VALUES ('a') $$, '... and hidden');
SELECT is(mq.unbind('go', 'a'), true);
SELECT is(mq.publish('go', 'k'), 0, 'skipped');
SELECT is(pg_temp.state($$ SELECT mq.publish('go', 'k', mandatory => true) $$), '22023', '... is no queue for mandatory');
SELECT mq.create_queue('gone', dead_letter => '');
SELECT is((SELECT count(*) FROM mq.bindings WHERE exchange = 'go'), 0::bigint, 'a new queue of that name is not bound');
SELECT is(mq.publish('go', 'k'), 0, '... and gets nothing');

-- Making and dropping.
SELECT is(pg_temp.state(sql), state, sql) FROM (VALUES
    ($$ SELECT mq.create_exchange(NULL) $$, '22023'), ($$ SELECT mq.create_exchange('1x') $$, '22023'), ($$ SELECT mq.create_exchange('a b') $$, '22023'), ($$ SELECT mq.create_exchange('x''; DROP SCHEMA mq CASCADE; --') $$, '22023'),
    ($$ SELECT mq.create_exchange(repeat('x', 55)) $$, '22023'), ($$ SELECT mq.create_exchange(repeat('x', 54)) $$, '00000'), ($$ SELECT mq.drop_exchange(repeat('x', 54)) $$, '00000'), ($$ SELECT mq.create_exchange('ü') $$, '22023'),
    ($$ SELECT mq.create_exchange('n', 'Topic') $$, '22023'), ($$ SELECT mq.create_exchange('n', '') $$, '22023'), ($$ SELECT mq.create_exchange('n', 'x-delayed-message') $$, '22023'), ($$ SELECT mq.create_exchange('n', 'default') $$, '22023'),
    ($$ SELECT mq.create_exchange('n', NULL) $$, '00000'), ($$ SELECT mq.create_exchange('n') $$, '42710'), ($$ SELECT mq.create_exchange('n', if_not_exists => NULL) $$, '42710'), ($$ SELECT mq.create_exchange('n', if_not_exists => true) $$, '00000'), ($$ SELECT mq.create_exchange('N', 'direct') $$, '00000'),
    ($$ SELECT mq.create_exchange('n2', alternate => 'none') $$, '42704'), ($$ SELECT mq.create_exchange('n2', alternate => 'n2') $$, '22023'), ($$ SELECT mq.create_exchange('n2', alternate => 'n') $$, '00000'), ($$ SELECT mq.create_exchange('a') $$, '00000'),
    ($$ SELECT mq.drop_exchange('n') $$, '2BP01'), ($$ SELECT mq.drop_exchange('n2') $$, '00000'), ($$ SELECT mq.drop_exchange('n') $$, '00000'), ($$ SELECT mq.drop_exchange('n') $$, '42704'), ($$ SELECT mq.drop_exchange('n', true) $$, '00000'), ($$ SELECT mq.drop_exchange('n', NULL) $$, '42704'),
    ($$ SELECT mq.drop_exchange(NULL) $$, '22023'), ($$ SELECT mq.drop_exchange(NULL, true) $$, '22023'), ($$ SELECT mq.drop_exchange('N') $$, '00000'), ($$ SELECT mq.drop_exchange('a') $$, '00000'),
    ($$ SELECT mq.bind(NULL, 'a') $$, '22023'), ($$ SELECT mq.bind('di', NULL) $$, '22023'), ($$ SELECT mq.bind('none', 'a') $$, '42704'), ($$ SELECT mq.bind('di', 'none') $$, '42704'), ($$ SELECT mq.bind('di', 'to') $$, '42704'),
    ($$ SELECT mq.unbind(NULL, 'a') $$, '22023'), ($$ SELECT mq.unbind('di', NULL) $$, '22023'), ($$ SELECT mq.unbind('none', 'a') $$, '42704'),
    ($$ SELECT mq.bind_exchange(NULL, 'to') $$, '22023'), ($$ SELECT mq.bind_exchange('di', NULL) $$, '22023'), ($$ SELECT mq.bind_exchange('none', 'to') $$, '42704'), ($$ SELECT mq.bind_exchange('di', 'none') $$, '42704'), ($$ SELECT mq.bind_exchange('di', 'a') $$, '42704'), ($$ SELECT mq.bind_exchange('di', 'to', repeat('x', 1001)) $$, '22023'), ($$ SELECT mq.bind_exchange('di', 'to', match => '{}') $$, '22023'),
    ($$ SELECT mq.unbind_exchange(NULL, 'to') $$, '22023'), ($$ SELECT mq.unbind_exchange('di', NULL) $$, '22023'), ($$ SELECT mq.unbind_exchange('none', 'to') $$, '42704'), ($$ SELECT mq.unbind_exchange('di', 'none') $$, '42704'),
    ($$ SELECT mq.grant_exchange(NULL, 'public') $$, '22023'), ($$ SELECT mq.grant_exchange('di', NULL) $$, '22023'), ($$ SELECT mq.grant_exchange('none', 'public') $$, '42704'), ($$ SELECT mq.grant_exchange('di', 'mqt_no_such_role') $$, '42704'),
    ($$ SELECT mq.revoke_exchange(NULL, 'public') $$, '22023'), ($$ SELECT mq.revoke_exchange('di', NULL) $$, '22023'), ($$ SELECT mq.revoke_exchange('none', 'public') $$, '42704'), ($$ SELECT mq.revoke_exchange('di', 'mqt_no_such_role') $$, '00000'),
    -- publishing
    ($$ SELECT mq.publish(NULL, 'k') $$, '22023'), ($$ SELECT mq.publish('di', NULL) $$, '22023'), ($$ SELECT mq.publish('none', 'k') $$, '42704'), ($$ SELECT mq.publish('a', 'k') $$, '42704'), ($$ SELECT mq.publish(repeat('x', 10000), 'k') $$, '42704'), ($$ SELECT mq.publish('di''; DROP TABLE mq.q_a; --', 'k') $$, '42704'),
    ($$ SELECT mq.publish('di', 'k', '1', data => 'x') $$, '22023'), ($$ SELECT mq.publish('di', 'k', headers => '[]') $$, '22023'), ($$ SELECT mq.publish('di', 'k', headers => 'null') $$, '22023'), ($$ SELECT mq.publish('di', 'k', delay => '-1 s') $$, '22023'), ($$ SELECT mq.publish('di', 'k', delay => '1 s', deliver_at => now()) $$, '22023'),
    ($$ SELECT mq.publish('di', 'k', deliver_at => 'infinity') $$, '22023'), ($$ SELECT mq.publish('di', 'k', priority => 10) $$, '22023'), ($$ SELECT mq.publish('di', 'k', priority => -1) $$, '22023'), ($$ SELECT mq.publish('di', 'k', ttl => '0') $$, '22023'), ($$ SELECT mq.publish('di', 'k', key => repeat('x', 1001)) $$, '22023'), ($$ SELECT mq.publish('di', 'k', dedup_id => repeat('x', 1001)) $$, '22023'),
    ($$ SELECT mq.publish('di', 'nowhere', '1', data => 'x') $$, '22023'), ($$ SELECT mq.publish('di', 'nowhere', headers => '1') $$, '22023'),
    ($$ SELECT mq.publish_batch(NULL, '{k}') $$, '22023'), ($$ SELECT mq.publish_batch('di', NULL) $$, '22023'), ($$ SELECT mq.publish_batch('none', '{k}') $$, '42704'), ($$ SELECT mq.publish_batch('none', '{}') $$, '42704'), ($$ SELECT mq.publish_batch('di', '{k,NULL}') $$, '22023'), ($$ SELECT mq.publish_batch('di', '{{k},{k}}') $$, '22023'),
    ($$ SELECT mq.publish_batch('di', '{k,k}', '{1}') $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k}', '{1,2}') $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k}', headers => '{}') $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k}', keys => '{a,b}') $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k}', dedup_ids => '{a,b}') $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k}', datas => '{a,b}') $$, '22023'),
    ($$ SELECT mq.publish_batch('di', '{k,k}', '{1,2}', datas => ARRAY[NULL, 'x']::bytea[]) $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k,k}', headers => '{"{}","[]"}') $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k}', delay => '1 s', deliver_at => now()) $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k}', priority => 10) $$, '22023'), ($$ SELECT mq.publish_batch('di', '{k,k}', keys => ARRAY['x', repeat('x', 1001)]) $$, '22023')) t (sql, state);
SELECT is((SELECT hint FROM pg_temp.raised($$ SELECT mq.publish('none', 'k') $$)), 'Create it with mq.create_exchange.', 'the hint');
SELECT is(mq.drop_exchange('n', true), false, 'if_exists');
SELECT mq.create_exchange('to', 'direct', if_not_exists => true);
SELECT is((SELECT type FROM mq.exchanges WHERE name = 'to'), 'topic', 'if_not_exists: an exchange of another type stays as it is');

-- What is referred to stays; what goes takes its bindings along.
SELECT mq.create_exchange('dr', 'fanout'), mq.create_exchange('ds', 'fanout', alternate => 'dr'), mq.create_queue('dq', dead_letter => '', dead_letter_exchange => 'dr');
SELECT is((SELECT row(state, detail) FROM pg_temp.raised($$ SELECT mq.drop_exchange('dr') $$)), row('2BP01'::text, E'Exchange "ds" has it as alternate.\nQueue "dq" has it as dead-letter exchange.'::text), 'drop_exchange is refused');
SELECT mq.alter_queue('dq', unset => '{dead_letter_exchange}');
SELECT is((SELECT detail FROM pg_temp.raised($$ SELECT mq.drop_exchange('dr') $$)), 'Exchange "ds" has it as alternate.', '... still');
SELECT mq.bind('ds', 'dq'), mq.bind('ds', 'dq', 'two'), mq.bind_exchange('ds', 'dr'), mq.bind_exchange('dr', 'ds'), mq.bind('dr', 'a');
SELECT is((SELECT row(state, detail) FROM pg_temp.raised($$ SELECT mq.drop_queue('dq') $$)), row('2BP01'::text, E'Exchange "ds" is bound to it with pattern "#".\nExchange "ds" is bound to it with pattern "two".'::text), 'drop_queue is refused while bound');
SELECT is(mq.drop_exchange('ds'), true, 'dropped');
SELECT is_empty($$ SELECT * FROM mq.bindings WHERE 'ds' IN (exchange, destination) $$, '... with the bindings from and to it');
SELECT results_eq($$ SELECT queue FROM seen WHERE exchange = 'dr' $$, $$ VALUES ('a') $$, '... no others');
SELECT is(mq.drop_queue('dq'), true, 'the queue can be dropped');
SELECT is(mq.publish('dr', 'k'), 1, 'the other exchange works');
SELECT is(mq.drop_exchange('dr'), true, '... and goes');
SELECT is(pg_temp.state($$ SELECT mq.publish('dr', 'k') $$), '42704', 'gone');
SELECT mq.create_exchange('dr', 'direct');
SELECT is(mq.publish('dr', 'k'), 0, 'another one of the same name has no bindings');
SELECT mq.create_queue('dq', dead_letter => '', dead_letter_exchange => 'dr');
DROP TABLE mq.q_dq;
SELECT is(mq.drop_exchange('dr'), true, 'a queue whose table is gone does not keep an exchange');

-- Views.
SELECT results_eq($$ SELECT name COLLATE "default", type COLLATE "default", alternate COLLATE "default", (owner = current_user)::text FROM mq.exchanges WHERE name LIKE 'al_' OR name = 'last' ORDER BY name $$,
    $$ VALUES ('al1', 'direct', 'last', 'true'), ('al2', 'topic', 'al1', 'true'), ('al3', 'headers', 'al2', 'true'), ('last', 'fanout', NULL, 'true') $$, 'mq.exchanges');
SELECT results_eq($$ SELECT * FROM seen WHERE exchange IN ('al3', 'al1') ORDER BY exchange, queue $$,
    $$ VALUES ('al1', 'c', NULL, 'one', NULL::jsonb), ('al3', 'a', NULL, '#', '{"h": 1}'), ('al3', NULL, 'al2', '#', '{"h": 2}') $$, 'mq.bindings');

-- Prepared statements and a plan kept see what changed.
SELECT mq.create_exchange('pr');
PREPARE p AS SELECT mq.publish('pr', 'k');
CREATE FUNCTION pg_temp.send() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN mq.publish('pr', 'k'); END $$;
SELECT is(pg_temp.send(), 0, 'nothing bound');
EXECUTE p \g /dev/null
SELECT mq.bind('pr', q) FROM unnest('{a,b}'::text[]) q;
SELECT is(pg_temp.send(), 2, 'bound');
SELECT mq.purge('a');
EXECUTE p \g /dev/null
SELECT is((SELECT count(*) FROM mq.q_a), 1::bigint, '... for the prepared one');
SELECT mq.drop_exchange('pr');
SELECT is(pg_temp.state('SELECT pg_temp.send()'), '42704', 'dropped');

-- Plain SQL by an administrator on the catalog works too, TRUNCATE included.
SELECT is(mq.publish('bottom', 'k'), 2, 'two are bound');
DELETE FROM mq.binding$ WHERE exchange = 'bottom' AND queue = 'b';
SELECT is(mq.publish('bottom', 'k'), 1, 'a row deleted');
TRUNCATE mq.binding$;
SELECT is(mq.publish('bottom', 'k'), 0, 'truncated');
SELECT is((SELECT sum(mq.publish(name, 'k')) FROM mq.exchanges), 0::bigint, '... for all');

SELECT * FROM finish();
