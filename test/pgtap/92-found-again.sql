-- What a lane has to be scanned again for: a later delay behind the first, rows that no trigger has seen.
\ir setup.psql

SELECT mq.create_queue('fa', dead_letter => '', lease => '1 h');

-- Several delays, each found when it comes due, though the scan for the first has met the others.
SELECT mq.enqueue('fa', '1', delay => '100 ms');
SELECT mq.enqueue('fa', '2', delay => '300 ms');
SELECT mq.enqueue('fa', '3', delay => '500 ms', priority => 0);
SELECT mq.enqueue('fa', '4', delay => '1 h');
SELECT is((SELECT body FROM mq.dequeue('fa', wait => '10 s', auto_ack => true)), '1'::jsonb, 'the first delay');
SELECT is((SELECT body FROM mq.dequeue('fa', wait => '10 s', auto_ack => true)), '2'::jsonb, 'the second delay');
SELECT is((SELECT body FROM mq.dequeue('fa', wait => '10 s', auto_ack => true)), '3'::jsonb, 'the third delay');
SELECT is((SELECT count(*) FROM mq.dequeue('fa', wait => '100 ms')), 0::bigint, 'the last is not due');
SELECT is(mq.purge('fa'), 1::bigint, 'purged');

-- Rows that come while the triggers are disabled.
SELECT mq.enqueue('fa', '5');
SELECT is((SELECT body FROM mq.dequeue('fa', auto_ack => true)), '5'::jsonb, 'a message');
SELECT is((SELECT count(*) FROM mq.dequeue('fa')), 0::bigint, '... then none, and that is known');
ALTER TABLE mq.q_fa DISABLE TRIGGER ALL;
INSERT INTO mq.q_fa (body, priority) VALUES ('6', 0), ('7', 4);
ALTER TABLE mq.q_fa ENABLE TRIGGER ALL;
SELECT results_eq($$ SELECT body FROM mq.dequeue('fa', 10, auto_ack => true) $$, $$ VALUES ('7'::jsonb), ('6') $$, 'what came unseen by the triggers is found');

SELECT mq.drop_queue('fa');
SELECT * FROM finish();
