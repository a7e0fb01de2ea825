-- Session leases: no deadline, until settled or until DISCARD ALL. What DISCARD ALL gives back is recorded in a table
-- first and tested afterwards, since it takes pgTAP's temporary tables along.
\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;
SELECT mq.create_queue('se', dead_letter => '', backoff => '0', lease => '1 ms');
CREATE TABLE found (what text, value text);
SELECT mq.enqueue_batch('se', '{1,2,3}');
SELECT id, receipt FROM mq.dequeue('se', session => true) \gset m_
INSERT INTO found SELECT 'deadline', coalesce(nullif(lease_until, 'infinity')::text, 'none') FROM mq.in_flight WHERE queue = 'se';
SELECT count(*) FROM mq.dequeue('se', 10, session => true) \gset
INSERT INTO found SELECT 'held', count(*)::text FROM mq.in_flight WHERE queue = 'se' AND pid = pg_backend_pid();
INSERT INTO found SELECT 'nothing else', count(*)::text FROM mq.dequeue('se', 10, wait => '50 ms');
INSERT INTO found SELECT 'acked', mq.ack('se', :m_id, :m_receipt)::text;
DISCARD ALL;
INSERT INTO found SELECT 'held after', count(*)::text FROM mq.in_flight WHERE queue = 'se';
INSERT INTO found SELECT 'again', string_agg(format('%s:%s', body, attempt), ',' ORDER BY id) FROM mq.dequeue('se', 10, wait => '10 s', lease => '1 h') m;
-- DISCARD ALL ends session leases only
DISCARD ALL;
INSERT INTO found SELECT 'leases stay', count(*)::text FROM mq.in_flight WHERE queue = 'se';
-- other DISCARDs do nothing to them
SELECT mq.enqueue('se', '4');
SELECT count(*) FROM mq.dequeue('se', session => true) \gset
DISCARD PLANS;
DISCARD TEMP;
DISCARD SEQUENCES;
INSERT INTO found SELECT 'other DISCARDs', count(*)::text FROM mq.in_flight WHERE queue = 'se';

\ir setup.psql
SELECT is((SELECT value FROM found WHERE what = 'deadline'), 'none', 'a session lease has no deadline');
SELECT is((SELECT value FROM found WHERE what = 'held'), '3', 'several can be held');
SELECT is((SELECT value FROM found WHERE what = 'nothing else'), '0', 'they do not end by the clock');
SELECT is((SELECT value FROM found WHERE what = 'acked'), 'true', 'they are settled as others are');
SELECT is((SELECT value FROM found WHERE what = 'held after'), '0', 'DISCARD ALL gives them back');
SELECT is((SELECT value FROM found WHERE what = 'again') LIKE '2:%,3:%', true, '... to be delivered again');
SELECT is((SELECT value FROM found WHERE what = 'leases stay'), '2', 'and leaves other leases alone');
SELECT is((SELECT value FROM found WHERE what = 'other DISCARDs'), '3', 'other DISCARDs do nothing');
SELECT is(mq.nack('se', id, receipt), true, 'nack of a session lease') FROM mq.in_flight WHERE queue = 'se' AND coalesce(lease_until, 'infinity') = 'infinity';
SELECT is((SELECT attempt FROM mq.dequeue('se', session => true, wait => '10 s')), 2, '... comes again');
SELECT is(mq.extend('se', id, receipt, '50 ms'), true, 'extend gives it a deadline') FROM mq.in_flight WHERE queue = 'se' AND coalesce(lease_until, 'infinity') = 'infinity';
SELECT is((SELECT attempt FROM mq.dequeue('se', session => true, wait => '10 s')), 3, '... which ends');
BEGIN;
SELECT mq.enqueue('se', '5');
COMMIT;
BEGIN;
SELECT count(*) FROM mq.dequeue('se', session => true) \gset
ROLLBACK;
SELECT is((SELECT body::text || attempt FROM mq.dequeue('se', session => true, wait => '10 s')), '52', 'a session lease of a transaction that rolls back is given back');
SELECT mq.drop_queue('se');
DROP TABLE found;
SELECT * FROM finish();
