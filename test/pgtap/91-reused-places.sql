-- The places of rows that were read ahead are given to other rows before they are delivered: nobody gets one message for another.
\ir setup.psql

SELECT mq.create_queue('rp', dead_letter => '', lease => '1 h');
SELECT mq.enqueue_batch('rp', '{1,2,3,4,5,6}');
SELECT results_eq($$ SELECT body FROM mq.dequeue('rp') $$, $$ VALUES ('1'::jsonb) $$, 'one is delivered, the others have been read ahead');
CREATE TEMP TABLE places AS SELECT ctid AS place, body FROM mq.q_rp WHERE body IN ('2', '3', '4');
DELETE FROM mq.q_rp WHERE body IN ('2', '3');
UPDATE mq.q_rp SET priority = 2 WHERE body = '4';
VACUUM (INDEX_CLEANUP ON) mq.q_rp;
INSERT INTO mq.q_rp (body) VALUES ('"a"'), ('"b"'), ('"c"');
SELECT is((SELECT count(*) FROM mq.q_rp r JOIN places p ON r.ctid = p.place WHERE r.body IN ('"a"', '"b"', '"c"')), 3::bigint,
    'the places of two deleted and one updated message are others'' now');
SELECT results_eq($$ SELECT body, priority::int FROM mq.dequeue('rp', 10) $$,
    $$ VALUES ('4'::jsonb, 2), ('5', 0), ('6', 0), ('"a"', 0), ('"b"', 0), ('"c"', 0) $$, 'each message is delivered once, as itself');
SELECT is((SELECT count(*) FROM mq.in_flight f JOIN mq.q_rp r USING (id) WHERE f.queue = 'rp'), 7::bigint, '... under its own id');

-- The same for what is leased: its row is moved, and others stand in its place when it is settled.
SELECT id, receipt FROM mq.in_flight WHERE id = (SELECT min(id) FROM mq.q_rp) \gset m_
SELECT ctid AS place FROM mq.q_rp WHERE id = :m_id \gset m_
UPDATE mq.q_rp SET priority = 3 WHERE id = :m_id;
VACUUM (INDEX_CLEANUP ON) mq.q_rp;
INSERT INTO mq.q_rp (body) VALUES ('"d"');
SELECT is((SELECT body FROM mq.q_rp WHERE ctid = :'m_place'), '"d"'::jsonb, 'another message stands where a leased one stood');
SELECT is(mq.ack('rp', :m_id, :m_receipt), true, '... which is acknowledged');
SELECT is((SELECT body FROM mq.dequeue('rp', 10)), '"d"'::jsonb, '... and the other delivered');

SELECT mq.drop_queue('rp');
SELECT * FROM finish();
