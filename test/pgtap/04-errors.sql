-- The contract's table of errors: SQLSTATE, hint, nothing half-done; and NULL arguments.
\ir setup.psql
SELECT mq.create_queue('er', dead_letter => '');

-- No such queue.
CREATE TEMP TABLE noqueue (sql text);
INSERT INTO noqueue VALUES
    ($$SELECT mq.enqueue('nope', '1')$$), ($$SELECT mq.enqueue_batch('nope', '{1}')$$), ($$SELECT * FROM mq.dequeue('nope')$$),
    ($$SELECT * FROM mq.dequeue('nope', wait => '1 h')$$), ($$SELECT mq.ack('nope', 1, 1)$$),
    ($$SELECT mq.ack(ROW('nope', 1, 1, 1, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::mq.message)$$),
    ($$SELECT mq.ack_batch('nope', '{1}', '{1}')$$), ($$SELECT mq.nack('nope', 1, 1)$$), ($$SELECT mq.nack_batch('nope', '{1}', '{1}')$$),
    ($$SELECT mq.reject('nope', 1, 1)$$), ($$SELECT mq.reject_batch('nope', '{1}', '{1}')$$), ($$SELECT mq.release('nope', 1, 1)$$),
    ($$SELECT mq.release_batch('nope', '{1}', '{1}')$$), ($$SELECT mq.extend('nope', 1, 1, '1 s')$$),
    ($$SELECT mq.extend_batch('nope', '{1}', '{1}', '1 s')$$), ($$SELECT * FROM mq.ack_dequeue('nope', '{1}', '{1}')$$),
    ($$SELECT mq.delete('nope', '{1}')$$), ($$SELECT mq.redrive('nope')$$), ($$SELECT * FROM mq.browse('nope')$$),
    ($$SELECT mq.status('nope', 1)$$), ($$SELECT mq.purge('nope')$$), ($$SELECT mq.pause('nope')$$), ($$SELECT mq.resume('nope')$$),
    ($$SELECT mq.alter_queue('nope', lease => '1 s')$$), ($$SELECT mq.drop_queue('nope')$$),
    ($$SELECT mq.grant('nope', 'postgres', 'send')$$), ($$SELECT mq.revoke('nope', 'postgres', 'send')$$),
    ($$SELECT mq.listen('nope')$$), ($$CALL mq.wait('nope', '1 h')$$);
CREATE TEMP TABLE answers AS SELECT sql, r.* FROM noqueue, pg_temp.raised(sql) r WHERE sql NOT LIKE 'CALL%';
SELECT is(state, '42704', sql) FROM answers;
SELECT matches(hint, 'mq\.create_queue', 'hint: ' || sql) FROM answers;
SELECT matches(message, 'nope', 'it names the queue: ' || sql) FROM answers;
-- mq.wait does not run inside a function.
\set ON_ERROR_STOP off
\o /dev/null
CALL mq.wait('nope', '1 h');
\o
\set ON_ERROR_STOP on
SELECT is(:'SQLSTATE'::text, '42704', 'mq.wait: no such queue');

-- Bad values, each naming nothing half-done: the queue stays empty.
CREATE TEMP TABLE bad (sql text);
INSERT INTO bad VALUES
    ($$SELECT mq.enqueue('er', '1', priority => -1)$$), ($$SELECT mq.enqueue('er', '1', priority => 10)$$),
    ($$SELECT mq.enqueue('er', '1', priority => 70000)$$),
    ($$SELECT mq.enqueue('er', '1', delay => '-1 s')$$), ($$SELECT mq.enqueue('er', '1', delay => '1 s', deliver_at => now())$$),
    ($$SELECT mq.enqueue('er', '1', data => '\x00')$$), ($$SELECT mq.enqueue('er', '1', headers => '[1]')$$),
    ($$SELECT mq.enqueue('er', '1', headers => '"x"')$$), ($$SELECT mq.enqueue('er', '1', headers => 'null')$$),
    ($$SELECT mq.enqueue('er', '1', key => repeat('k', 1001))$$),
    ($$SELECT mq.enqueue_batch('er', '{1,2}', headers => ARRAY['{}', '[]']::jsonb[])$$),
    ($$SELECT mq.enqueue_batch('er', '{1,2}', headers => ARRAY['{}']::jsonb[])$$),
    ($$SELECT mq.enqueue_batch('er', '{1,2}', keys => '{a}')$$), ($$SELECT mq.enqueue_batch('er', '{1,2}', keys => '{a,b,c}')$$),
    ($$SELECT mq.enqueue_batch('er', '{1,2}', datas => ARRAY[NULL, '\x00'::bytea])$$),
    ($$SELECT mq.enqueue_batch('er', '{1}', datas => ARRAY[NULL, '\x00'::bytea])$$),
    ($$SELECT mq.enqueue_batch('er', '{1,2}', priority => 10)$$), ($$SELECT mq.enqueue_batch('er', '{1,2}', delay => '-1 s')$$),
    ($$SELECT mq.enqueue_batch('er', '{1,2}', delay => '1 s', deliver_at => now())$$),
    ($$SELECT * FROM mq.dequeue('er', 0)$$), ($$SELECT * FROM mq.dequeue('er', -1)$$), ($$SELECT * FROM mq.dequeue('er', lease => '-1 s')$$),
    ($$SELECT * FROM mq.dequeue('er', wait => '-1 s')$$), ($$SELECT * FROM mq.ack_dequeue('er', '{}', '{}', 0)$$),
    ($$SELECT * FROM mq.ack_dequeue('er', '{}', '{}', wait => '-1 s')$$),
    ($$SELECT mq.ack_batch('er', '{1,2,3}', '{1,2}')$$), ($$SELECT mq.nack_batch('er', '{1,2,3}', '{1,2}')$$),
    ($$SELECT mq.reject_batch('er', '{1,2,3}', '{1,2}')$$), ($$SELECT mq.release_batch('er', '{1,2,3}', '{1,2}')$$),
    ($$SELECT mq.extend_batch('er', '{1,2,3}', '{1,2}', '1 s')$$), ($$SELECT * FROM mq.ack_dequeue('er', '{1,2,3}', '{1,2}')$$),
    ($$SELECT mq.nack('er', 1, 1, delay => '-1 s')$$), ($$SELECT mq.extend('er', 1, 1, '-1 s')$$),
    ($$SELECT * FROM mq.browse('er', 0)$$), ($$SELECT mq.redrive('er', max => 0)$$),
    ($$SELECT mq.grant('er', 'postgres', 'everything')$$), ($$SELECT mq.revoke('er', 'postgres', 'everything')$$);
SELECT is(pg_temp.state(sql), '22023', sql) FROM bad;
SELECT is((SELECT count(*) FROM mq.q_er), 0::bigint, 'none of them left a row');

-- NULL for an argument without default.
CREATE TEMP TABLE nulls (sql text);
INSERT INTO nulls VALUES
    ($$SELECT mq.enqueue(NULL, '1')$$), ($$SELECT mq.enqueue_batch(NULL, '{1}')$$), ($$SELECT * FROM mq.dequeue(NULL)$$),
    ($$SELECT mq.ack(NULL, 1, 1)$$), ($$SELECT mq.ack('er', 1, NULL)$$), ($$SELECT mq.ack_batch(NULL, '{1}', '{1}')$$),
    ($$SELECT mq.ack_batch('er', '{1}', NULL)$$), ($$SELECT mq.nack(NULL, 1, 1)$$), ($$SELECT mq.nack('er', 1, NULL)$$),
    ($$SELECT mq.nack_batch(NULL, '{1}', '{1}')$$), ($$SELECT mq.reject(NULL, 1, 1)$$), ($$SELECT mq.reject('er', 1, NULL)$$),
    ($$SELECT mq.reject_batch(NULL, '{1}', '{1}')$$), ($$SELECT mq.release(NULL, 1, 1)$$), ($$SELECT mq.release('er', 1, NULL)$$),
    ($$SELECT mq.release_batch(NULL, '{1}', '{1}')$$), ($$SELECT mq.extend(NULL, 1, 1, '1 s')$$), ($$SELECT mq.extend('er', 1, NULL, '1 s')$$),
    ($$SELECT mq.extend('er', 1, 1, NULL)$$), ($$SELECT mq.extend_batch(NULL, '{1}', '{1}', '1 s')$$),
    ($$SELECT mq.extend_batch('er', '{1}', '{1}', NULL)$$), ($$SELECT * FROM mq.ack_dequeue(NULL, '{1}', '{1}')$$),
    ($$SELECT mq.delete(NULL, '{1}')$$), ($$SELECT mq.redrive(NULL)$$), ($$SELECT * FROM mq.browse(NULL)$$), ($$SELECT mq.status(NULL, 1)$$),
    ($$SELECT mq.purge(NULL)$$), ($$SELECT mq.pause(NULL)$$), ($$SELECT mq.resume(NULL)$$), ($$SELECT mq.alter_queue(NULL, lease => '1 s')$$),
    ($$SELECT mq.create_queue(NULL)$$), ($$SELECT mq.drop_queue(NULL)$$), ($$SELECT mq.grant(NULL, 'postgres', 'send')$$),
    ($$SELECT mq.grant('er', NULL, 'send')$$), ($$SELECT mq.grant('er', 'postgres', NULL)$$), ($$SELECT mq.revoke(NULL, 'postgres', 'send')$$),
    ($$SELECT mq.listen(NULL)$$), ($$SELECT mq.unlisten(NULL)$$);
SELECT is(pg_temp.state(sql), '22023', sql) FROM nulls;
\set ON_ERROR_STOP off
\o /dev/null
CALL mq.wait(NULL, '1 s');
\set wait_queue :SQLSTATE
CALL mq.wait('er', NULL);
\set wait_timeout :SQLSTATE
CALL mq.wait('er', '-1 s');
\set wait_negative :SQLSTATE
\o
\set ON_ERROR_STOP on
SELECT is(:'wait_queue'::text, '22023', 'mq.wait for no queue');
SELECT is(:'wait_timeout'::text, '22023', 'mq.wait for no time');
SELECT is(:'wait_negative'::text, '22023', 'mq.wait for a negative time');

-- NULL for one with a default means the default.
SELECT isnt(mq.enqueue('er', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), NULL, 'enqueue with nothing but the queue');
SELECT results_eq('SELECT priority, ready_at, key, headers, body, data, attempts FROM mq.q_er',
    $$ VALUES (0::smallint, NULL::timestamptz, NULL::text, NULL::jsonb, NULL::jsonb, NULL::bytea, 0) $$, '... is an empty message');
SELECT is((SELECT count(*) FROM mq.dequeue('er', NULL, NULL, NULL, NULL, NULL, NULL, NULL)), 1::bigint, 'dequeue with NULLs');
SELECT is((SELECT count(*) FROM mq.browse('er', NULL)), 1::bigint, 'browse with a NULL');
SELECT is(mq.delete('er', ARRAY(SELECT id FROM mq.q_er)), 1, 'gone again');

-- Ids that are not there, or NULL, or twice.
SELECT is(mq.ack('er', NULL, 1), false, 'ack of a NULL id');
SELECT is(mq.nack('er', NULL, 1), false, 'nack of a NULL id');
SELECT is(mq.reject('er', NULL, 1), false, 'reject of a NULL id');
SELECT is(mq.release('er', NULL, 1), false, 'release of a NULL id');
SELECT is(mq.extend('er', NULL, 1, '1 s'), false, 'extend of a NULL id');
SELECT is(mq.ack_batch('er', NULL, '{1}'), 0, 'ack_batch of NULL');
SELECT is(mq.ack_batch('er', '{}', '{}'), 0, 'ack_batch of nothing');
SELECT is(mq.ack_batch('er', '{NULL}', '{1}'), 0, 'ack_batch of a NULL id');
SELECT is(mq.nack_batch('er', NULL, '{1}') + mq.nack_batch('er', '{}', '{}'), 0, 'nack_batch of nothing');
SELECT is(mq.reject_batch('er', NULL, '{1}') + mq.reject_batch('er', '{}', '{}'), 0, 'reject_batch of nothing');
SELECT is(mq.release_batch('er', NULL, '{1}') + mq.release_batch('er', '{}', '{}'), 0, 'release_batch of nothing');
SELECT is(mq.extend_batch('er', NULL, '{1}', '1 s') + mq.extend_batch('er', '{}', '{}', '1 s'), 0, 'extend_batch of nothing');
SELECT is(mq.delete('er', '{}'), 0, 'delete of nothing');
SELECT is(mq.ack('er', 12345, 12345), false, 'ack of an unknown id');
SELECT is(mq.ack('er', -1, -1), false, 'ack of a negative id');
SELECT is(mq.ack('er', 9223372036854775807, 9223372036854775807), false, 'ack of the largest number');
SELECT is(mq.status('er', 12345), NULL, 'status of an unknown id');

-- A delivery no longer current, with strict.
CREATE TEMP TABLE stale (sql text);
INSERT INTO stale VALUES ($$SELECT mq.ack('er', 1, 1, strict => true)$$), ($$SELECT mq.ack_batch('er', '{1}', '{1}', strict => true)$$),
    ($$SELECT mq.ack(ROW('er', 1, 1, 1, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::mq.message, strict => true)$$),
    ($$SELECT mq.nack('er', 1, 1, strict => true)$$), ($$SELECT mq.nack_batch('er', '{1}', '{1}', strict => true)$$),
    ($$SELECT mq.reject('er', 1, 1, strict => true)$$), ($$SELECT mq.reject_batch('er', '{1}', '{1}', strict => true)$$),
    ($$SELECT mq.release('er', 1, 1, strict => true)$$), ($$SELECT mq.release_batch('er', '{1}', '{1}', strict => true)$$),
    ($$SELECT mq.extend('er', 1, 1, '1 s', strict => true)$$), ($$SELECT mq.extend_batch('er', '{1}', '{1}', '1 s', strict => true)$$);
SELECT is(pg_temp.state(sql), '55000', sql) FROM stale;
SELECT mq.enqueue_batch('er', '{1,2}');
CREATE TEMP TABLE got AS SELECT * FROM mq.dequeue('er', 2);
SELECT is(pg_temp.state($$ SELECT mq.ack_batch('er', (SELECT array_agg(id) || 999::bigint FROM got), (SELECT array_agg(receipt) || 999::bigint FROM got), strict => true) $$),
    '55000', 'one stale delivery in a strict batch');
SELECT is((SELECT count(*) FROM mq.q_er), 2::bigint, '... acknowledges none');
SELECT is(mq.ack_batch('er', (SELECT array_agg(id) || 999::bigint FROM got), (SELECT array_agg(receipt) || 999::bigint FROM got)), 2,
    '... and without strict is left out');

-- Read-only transactions.
SELECT mq.enqueue('er', '1');
SELECT id, receipt FROM mq.dequeue('er') \gset m_
CREATE TEMP TABLE writes (sql text);
INSERT INTO writes VALUES ($$SELECT mq.enqueue('er', '1')$$), ($$SELECT mq.enqueue_batch('er', '{1}')$$),
    ($$SELECT * FROM mq.dequeue('er', auto_ack => true)$$), (format('SELECT mq.ack(''er'', %s, %s)', :m_id, :m_receipt)),
    (format('SELECT mq.ack_batch(''er'', ''{%s}'', ''{%s}'')', :m_id, :m_receipt)), (format('SELECT mq.nack(''er'', %s, %s)', :m_id, :m_receipt)),
    (format('SELECT mq.reject(''er'', %s, %s)', :m_id, :m_receipt)), ($$SELECT mq.purge('er')$$), ($$SELECT mq.delete('er', '{1}')$$),
    ($$SELECT mq.create_queue('er2')$$), ($$SELECT mq.drop_queue('er')$$), ($$SELECT mq.pause('er')$$);
BEGIN READ ONLY;
SELECT string_agg(format('%s => %s', sql, pg_temp.state(sql)), E'\n' ORDER BY sql) AS list FROM writes \gset ro_
SELECT count(*) AS browsed FROM mq.browse('er') \gset ro_
SELECT mq.status('er', :m_id) AS status \gset ro_
COMMIT;
SELECT is(:'ro_list'::text, (SELECT string_agg(sql || ' => 25006', E'\n' ORDER BY sql) FROM writes), 'write verbs in a read-only transaction');
SELECT is(:ro_browsed, 1, 'browse works there');
SELECT is(:'ro_status'::text, 'leased', 'and status');
SELECT is(mq.ack('er', :m_id, :m_receipt), true, 'the delivery is current as before');

SELECT mq.drop_queue('er');
SELECT * FROM finish();
