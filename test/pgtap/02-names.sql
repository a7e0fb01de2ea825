-- Queue names: letters, digits, underscore, dash, dot; case matters; 1 to 54 of them.
\ir setup.psql

CREATE TEMP TABLE good (name text);
INSERT INTO good VALUES ('a.b-C_9'), ('_x'), ('x'), ('NameOrders'), ('nameorders'), ('name.'), ('name-'), ('select'),
    (rpad('full', 54, 'l')), (rpad('Full-.', 54, 'L'));

SELECT is(pg_temp.state(format('SELECT mq.create_queue(%L, dead_letter => '''')', name)), '00000', 'create ' || name) FROM good;
SELECT is(to_regclass(format('mq.%I', 'q_' || name)) IS NOT NULL, true, 'the table of ' || name) FROM good;
SELECT is((SELECT relation FROM mq.queues q WHERE q.name = g.name), format('mq.%I', 'q_' || g.name)::regclass,
    'mq.queues knows the table of ' || name) FROM good g;
SELECT isnt(mq.enqueue(name, to_jsonb(name)), NULL, 'enqueue to ' || name) FROM good;
CREATE TEMP TABLE got AS SELECT g.name, m.* FROM good g, mq.dequeue(g.name) m;
SELECT results_eq('SELECT name, queue, body FROM got ORDER BY name COLLATE "C"',
    'SELECT name, name, to_jsonb(name) FROM good ORDER BY name COLLATE "C"', 'each gives back its own message under its own name');
SELECT is((SELECT count(*) FROM mq.in_flight f JOIN good g ON g.name = f.queue), (SELECT count(*) FROM good),
    'mq.in_flight names each');
SELECT is((SELECT count(*) FROM got WHERE mq.ack(name, id, receipt)), (SELECT count(*) FROM good), 'each is acknowledged');
SELECT is(mq.drop_queue(name), true, 'drop ' || name) FROM good;
SELECT is(to_regclass(format('mq.%I', 'q_' || name)), NULL, 'no table is left of ' || name) FROM good;

CREATE TEMP TABLE bad (name text);
INSERT INTO bad VALUES (''), ('1st'), ('-x'), ('.x'), ('a b'), ('a/b'), ('a"b'), ('a''b'), ('a;b'), ('a$b'), ('tür'), (E'a\nb'),
    ('a%b'), (rpad('toolong', 55, 'g'));
SELECT is(pg_temp.state(format('SELECT mq.create_queue(%L, dead_letter => '''')', name)), '22023',
    'no queue ' || quote_literal(replace(name, E'\n', '\n'))) FROM bad;
SELECT is(pg_temp.state(format('SELECT mq.create_queue(''names'', dead_letter => %L)', name)), '22023',
    'no dead-letter queue ' || quote_literal(replace(name, E'\n', '\n'))) FROM bad WHERE name NOT IN ('', 'a%b');
SELECT is(pg_temp.state('SELECT mq.create_queue(NULL)'), '22023', 'a name is needed');

-- The generated dead-letter name must fit too.
SELECT is(pg_temp.state(format('SELECT mq.create_queue(%L)', rpad('n', 50, 'n'))), '22023', '50 letters and _dead are too many');
SELECT is(to_regclass(format('mq.%I', 'q_' || rpad('n', 50, 'n'))), NULL, '... and nothing is half-done');
SELECT is((SELECT count(*) FROM mq.queues), 0::bigint, 'no queue came of all that');
SELECT is(pg_temp.state(format('SELECT mq.create_queue(%L)', rpad('n', 49, 'n'))), '00000', '49 letters and _dead fit');
SELECT is((SELECT dead_letter FROM mq.queues WHERE name = rpad('n', 49, 'n')), rpad('n', 49, 'n') || '_dead', 'its dead-letter queue');
SELECT is((SELECT count(*) FROM mq.queues), 2::bigint, 'two queues');

-- Names meet no auxiliary relation of another queue.
SELECT lives_ok($$ SELECT mq.create_queue(n, dead_letter => '') FROM unnest('{aux,aux_pkey,aux_id,aux.id,aux_ready,queue,exchange,binding,dedup,stats,in_flight}'::text[]) n $$,
    'names that look like indexes, sequences and views of mq');
SELECT lives_ok($$ SELECT mq.drop_queue(n) FROM unnest('{aux,aux_pkey,aux_id,aux.id,aux_ready,queue,exchange,binding,dedup,stats,in_flight}'::text[]) n $$,
    '... are dropped again');

SELECT mq.drop_queue(rpad('n', 49, 'n'));
SELECT mq.drop_queue(rpad('n', 49, 'n') || '_dead');
SELECT * FROM finish();
