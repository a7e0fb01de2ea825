-- Receipts fence every verb, one by one and in batches, with strict and without; strangers, NULLs and duplicates in a batch.
\ir setup.psql
SELECT mq.create_queue('fe', max_attempts => 9, backoff => '0', lease => '1 h');
CREATE FUNCTION pg_temp.run(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    result text;
BEGIN
    EXECUTE 'SELECT ' || call INTO result;
    RETURN result;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END $$;
CREATE TEMP TABLE verbs (verb text, single text, batch text, leaves text);
INSERT INTO verbs VALUES
    ('ack', 'mq.ack(''fe'', %s, %s%s)', 'mq.ack_batch(''fe'', %L::bigint[], %L::bigint[]%s)', NULL),
    ('nack', 'mq.nack(''fe'', %s, %s, ''1 h'', ''no''%s)', 'mq.nack_batch(''fe'', %L::bigint[], %L::bigint[], ''1 h'', ''no''%s)', 'delayed'),
    ('reject', 'mq.reject(''fe'', %s, %s, ''no''%s)', 'mq.reject_batch(''fe'', %L::bigint[], %L::bigint[], ''no''%s)', NULL),
    ('release', 'mq.release(''fe'', %s, %s%s)', 'mq.release_batch(''fe'', %L::bigint[], %L::bigint[]%s)', 'ready'),
    ('extend', 'mq.extend(''fe'', %s, %s, ''2 h''%s)', 'mq.extend_batch(''fe'', %L::bigint[], %L::bigint[], ''2 h''%s)', 'leased');

-- The receipt of an earlier delivery, while a second one is current.
SELECT mq.enqueue('fe', '"m"') AS id \gset
SELECT receipt AS old FROM mq.dequeue('fe') \gset
SELECT mq.nack('fe', :id, :old, '0', 'first') AS ok \gset
SELECT receipt AS cur FROM mq.dequeue('fe') \gset
SELECT cmp_ok(:cur::bigint, '>', :old::bigint, 'receipts grow');
SELECT is(pg_temp.run(format(single, :id, :old, '')), 'false', verb || ' with an old receipt') FROM verbs;
SELECT is(pg_temp.run(format(single, :id, :cur + 1, '')), 'false', verb || ' with a receipt never given') FROM verbs;
SELECT is(pg_temp.run(format(single, :id, :old, ', strict => true')), '55000', verb || ', strict, with an old receipt') FROM verbs;
SELECT is(pg_temp.run(format(batch, ARRAY[:id], ARRAY[:old], '')), '0', verb || '_batch with an old receipt') FROM verbs;
SELECT is(pg_temp.run(format(batch, ARRAY[:id], ARRAY[:old], ', strict => true')), '55000', verb || '_batch, strict, with an old receipt') FROM verbs;
SELECT results_eq($$ SELECT receipt, attempt, lease_until BETWEEN now() + '50 min' AND now() + '61 min' FROM mq.in_flight WHERE queue = 'fe' $$,
    format('VALUES (%s::bigint, 2, true)', :cur), 'and the current delivery is as it was');
SELECT is((SELECT count(*) FROM mq.ack_dequeue('fe', ARRAY[:id], ARRAY[:old])), 0::bigint, 'ack_dequeue with an old receipt');
SELECT is((SELECT count(*) FROM mq.q_fe), 1::bigint, '... acknowledges nothing');
SELECT is(mq.delete('fe', ARRAY[:id]), 1, 'the operator deletes it while it is leased');
SELECT is(pg_temp.run(format(single, :id, :cur, '')), 'false', verb || ' of what was deleted meanwhile') FROM verbs;
SELECT is(pg_temp.run(format(single, :id, :cur, ', strict => true')), '55000', verb || ', strict, of what was deleted meanwhile') FROM verbs;

-- In a batch: its own once, whatever stands beside it; strict is all or nothing.
CREATE TEMP TABLE outcomes (verb text, what text, result text, state text);
DO $$
DECLARE
    v verbs; w record; i bigint; r bigint; got text;
BEGIN
    FOR v IN SELECT * FROM verbs LOOP
        FOR w IN VALUES ('mixed', '{NULL,999999,%1$s,NULL}', '{%2$s}', ''), ('twice', '{%1$s,%1$s}', '{%2$s}', ''),
                        ('both receipts', '{%1$s,%1$s,%1$s}', '{5,%2$s,5}', ''), ('NULL receipt', '{%1$s,%1$s}', '{NULL,%2$s}', ''),
                        ('strict, own', '{%1$s}', '{%2$s}', ', strict => true'),
                        ('strict, twice', '{%1$s,%1$s}', '{%2$s}', ', strict => true'),
                        ('strict, mixed', '{%1$s,999999}', '{%2$s}', ', strict => true') LOOP
            i := mq.enqueue('fe', '"b"');
            COMMIT;
            SELECT receipt INTO STRICT r FROM mq.dequeue('fe') WHERE id = i;
            COMMIT;
            got := pg_temp.run(format(v.batch, format(w.column2, i, r), format(w.column3, i, r), w.column4));
            COMMIT;
            INSERT INTO outcomes VALUES (v.verb, w.column1, got, mq.status('fe', i));
            PERFORM mq.delete('fe', ARRAY[i]);
            COMMIT;
        END LOOP;
    END LOOP;
END $$;
SELECT is(result, CASE what WHEN 'strict, mixed' THEN '55000' ELSE '1' END, format('%s_batch, %s', verb, what)) FROM outcomes;
SELECT is(state, CASE what WHEN 'strict, mixed' THEN 'leased' ELSE leaves END, format('... after %s_batch, %s', verb, what)) FROM outcomes JOIN verbs USING (verb);
SELECT is((SELECT count(*) FROM mq.q_fe_dead), (SELECT count(*) FROM outcomes WHERE verb = 'reject' AND result = '1'), 'the dead letters have the rejected');
SELECT is(pg_temp.state($$ SELECT mq.ack_batch('fe', '{1}', '{}') $$), '22023', 'an id without a receipt');
SELECT is(pg_temp.state($$ SELECT mq.ack_batch('fe', '{{1,2},{3,4}}', '{1}') $$), '22023', 'ids in two dimensions');
SELECT is(mq.ack_batch('fe', '{}', '{}', strict => true), 0, 'nothing, strictly');

-- A message without an id, as a LEFT JOIN gives it.
SELECT is(mq.ack(ROW('fe', NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::mq.message), false, 'a message with a NULL id');

-- A receipt of one queue is none in another, and receipts are unique over queues.
SELECT mq.create_queue('fe2', dead_letter => '');
SELECT mq.enqueue('fe', '1');
SELECT mq.enqueue('fe2', '1');
ALTER TABLE mq.q_fe2 ALTER COLUMN id RESTART WITH 5000;
ALTER TABLE mq.q_fe ALTER COLUMN id RESTART WITH 5000;
SELECT mq.purge('fe'), mq.purge('fe2');
SELECT mq.enqueue('fe', '1'), mq.enqueue('fe2', '1');
SELECT id, receipt FROM mq.dequeue('fe') \gset a_
SELECT id, receipt FROM mq.dequeue('fe2') \gset b_
SELECT is(:a_id || ' ' || (:a_receipt <> :b_receipt), '5000 true', 'one id in two queues has two receipts');
SELECT is(mq.ack('fe2', :a_id, :a_receipt), false, '... of which each acknowledges its own');
SELECT is(mq.ack('fe2', :b_id, :b_receipt) AND mq.ack('fe', :a_id, :a_receipt), true, '... only');

SELECT mq.drop_queue(q) FROM unnest('{fe,fe_dead,fe2}'::text[]) q;
SELECT * FROM finish();
