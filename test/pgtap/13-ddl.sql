-- DDL on a queue's table: never a wrong row delivered or acknowledged.
\ir setup.psql
SELECT mq.create_queue(q, dead_letter => '', backoff => '0', lease => '1 h') FROM unnest('{ra,rb}'::text[]) q;

-- VACUUM FULL and CLUSTER move every row.
SELECT mq.enqueue_batch('ra', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 50) i));
SELECT mq.delete('ra', ARRAY(SELECT id FROM mq.q_ra WHERE (body #>> '{}')::int % 2 = 0));
SELECT id, receipt, body FROM mq.dequeue('ra') \gset m_
SELECT id, receipt, body FROM mq.dequeue('ra') \gset n_
VACUUM FULL mq.q_ra;
SELECT is(mq.ack('ra', :m_id, :m_receipt), true, 'an ack after VACUUM FULL');
SELECT is((SELECT count(*) FROM mq.q_ra WHERE body = :'m_body'), 0::bigint, '... deletes its own row');
SELECT is((SELECT count(*) FROM mq.q_ra), 24::bigint, '... only');
CLUSTER mq.q_ra USING q_ra$pkey;
SELECT is(mq.nack('ra', :n_id, :n_receipt), true, 'a nack after CLUSTER');
SELECT is((SELECT count(*) FROM mq.dequeue('ra', 100, wait => '10 s', auto_ack => true)), 24::bigint, 'every message arrives once');
SELECT is((SELECT count(*) FROM mq.q_ra), 0::bigint, 'none is left');

-- An ALTER TABLE that rewrites; adding and dropping columns; storage options; a new index.
SELECT mq.enqueue_batch('ra', '{1,2,3}', priority => 2);
SELECT id, receipt FROM mq.dequeue('ra') \gset m_
ALTER TABLE mq.q_ra ADD COLUMN stamp timestamptz DEFAULT clock_timestamp();
SELECT is(mq.ack('ra', :m_id, :m_receipt), true, 'an ack after a rewrite');
SELECT id, receipt FROM mq.dequeue('ra') \gset m_
ALTER TABLE mq.q_ra DROP COLUMN stamp;
CREATE INDEX ra_body ON mq.q_ra USING gin (body);
REINDEX TABLE mq.q_ra;
SELECT is(mq.ack('ra', :m_id, :m_receipt), true, 'an ack after a column and the indexes changed');
SELECT results_eq($$ SELECT body FROM mq.dequeue('ra', 10, auto_ack => true) $$, $$ VALUES ('3'::jsonb) $$, 'the rest arrives');
DROP INDEX mq.ra_body;
BEGIN;
SELECT mq.enqueue('ra', '"before"');
ALTER TABLE mq.q_ra ADD COLUMN extra int DEFAULT 5;
SELECT mq.enqueue('ra', '"after"');
COMMIT;
SELECT results_eq($$ SELECT body FROM mq.dequeue('ra', 10, auto_ack => true) $$, $$ VALUES ('"before"'::jsonb), ('"after"') $$, 'DDL within an enqueueing transaction');
BEGIN;
ALTER TABLE mq.q_ra ADD COLUMN extra2 int DEFAULT 5;
SELECT mq.enqueue('ra', '"never"');
ROLLBACK;
SELECT mq.enqueue('ra', '"ever"');
SELECT results_eq($$ SELECT body FROM mq.dequeue('ra', 10, auto_ack => true) $$, $$ VALUES ('"ever"'::jsonb) $$, 'and rolled back');
BEGIN;
SELECT mq.enqueue('ra', '"kept"');
SAVEPOINT s;
TRUNCATE mq.q_ra;
ROLLBACK TO s;
COMMIT;
SELECT results_eq($$ SELECT body FROM mq.dequeue('ra', 10, auto_ack => true) $$, $$ VALUES ('"kept"'::jsonb) $$, 'a TRUNCATE that a savepoint takes back');

-- RENAME: two tables change places. The receipts of one never reach the rows of the other.
TRUNCATE mq.q_ra;
ALTER TABLE mq.q_ra ALTER COLUMN id RESTART WITH 1000;
ALTER TABLE mq.q_rb ALTER COLUMN id RESTART WITH 1000;
SELECT mq.enqueue('ra', '"a"');
SELECT mq.enqueue('rb', '"b"');
SELECT id, receipt FROM mq.dequeue('ra') \gset m_
SELECT is(:m_id, 1000, 'both have a message of one id');
ALTER TABLE mq.q_ra RENAME TO tmp;
ALTER TABLE mq.q_rb RENAME TO q_ra;
ALTER TABLE mq.tmp RENAME TO q_rb;
SELECT state AS state FROM pg_temp.raised(format('SELECT mq.ack(''ra'', %s, %s)', :m_id, :m_receipt)) \gset
SELECT is((SELECT count(*) FROM mq.q_ra WHERE body = '"b"'), 1::bigint, 'the receipt of a''s message does not delete b''s (' || :'state' || ')');
SELECT is((SELECT count(*) FROM mq.q_rb WHERE body = '"a"'), 1::bigint, '... nor its own under the wrong name');
ALTER TABLE mq.q_ra RENAME TO tmp;
ALTER TABLE mq.q_rb RENAME TO q_ra;
ALTER TABLE mq.tmp RENAME TO q_rb;
SELECT results_eq($$ SELECT queue, body FROM mq.dequeue('rb', 10, auto_ack => true) $$, $$ VALUES ('rb', '"b"'::jsonb) $$, 'after changing back, each has its own');
SELECT mq.delete('ra', ARRAY(SELECT id FROM mq.q_ra));
-- renamed away, the queue has no table; a table that comes in its place is not taken for one
SELECT mq.enqueue('ra', '"hidden"');
ALTER TABLE mq.q_ra RENAME TO away;
SELECT isnt(pg_temp.state($$ SELECT mq.enqueue('ra', '1') $$), '00000', 'renamed away, enqueue fails');
SELECT is(pg_temp.state($$ SELECT mq.enqueue('ra', '1') $$) LIKE 'XX%', false, '... as an ordinary error');
CREATE TABLE mq.q_ra (id bigint PRIMARY KEY, body text);
INSERT INTO mq.q_ra VALUES (1, 'not a message');
SELECT is(pg_temp.state($$ SELECT * FROM mq.dequeue('ra') $$) LIKE 'XX%', false, 'a strange table in its place is no crash');
SELECT is((SELECT count(*) FROM mq.q_ra), 1::bigint, '... and is left alone');
DROP TABLE mq.q_ra;
ALTER TABLE mq.away RENAME TO q_ra;
SELECT is((SELECT body FROM mq.dequeue('ra', auto_ack => true)), '"hidden"'::jsonb, 'renamed back, all is there');

-- DROP TABLE of a queue's table.
SELECT mq.enqueue_batch('rb', '{1,2}');
SELECT id, receipt FROM mq.dequeue('rb') \gset m_
DROP TABLE mq.q_rb;
SELECT isnt(pg_temp.state($$ SELECT mq.enqueue('rb', '1') $$), '00000', 'without its table a queue takes nothing');
SELECT isnt(pg_temp.state(format('SELECT mq.ack(''rb'', %s, %s)', :m_id, :m_receipt)), 'XX000', 'nor is an ack an internal error');
SELECT is((SELECT count(*) FROM mq.in_flight WHERE queue = 'rb'), 0::bigint, 'its leases are gone');
SELECT lives_ok('SELECT * FROM mq.queues', 'the views live on');
SELECT lives_ok('SELECT * FROM mq.stats', '... both');
SELECT is(pg_temp.state($$ SELECT mq.drop_queue('rb', if_exists => true) $$), '00000', 'and the queue can be dropped');
SELECT mq.create_queue('rb', dead_letter => '');
SELECT mq.enqueue('rb', '"new"');
SELECT is((SELECT body FROM mq.dequeue('rb', auto_ack => true)), '"new"'::jsonb, 'and made again');

SELECT mq.drop_queue(q) FROM unnest('{ra,rb}'::text[]) q;
-- DROP EXTENSION refuses while queues exist.
SELECT mq.create_queue('rx', dead_letter => '');
SELECT is(pg_temp.state('DROP EXTENSION mq'), '2BP01', 'DROP EXTENSION refuses while a queue exists');
SELECT mq.enqueue('rx', '1');
SELECT is((SELECT count(*) FROM mq.dequeue('rx', auto_ack => true)), 1::bigint, '... which goes on working');
SELECT mq.drop_queue('rx');
SELECT * FROM finish();
