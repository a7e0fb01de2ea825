-- mq.max_in_flight: no queue may hold more than half of the lease table; what fits is returned, 53400 only if that is nothing.
\ir setup.psql
SELECT is(current_setting('mq.max_in_flight'), '131072', 'mq.max_in_flight');
SELECT is(current_setting('mq.max_queues'), '1024', 'mq.max_queues');
SELECT is(pg_temp.state('SET mq.max_in_flight = 5'), '55P02', 'fixed at server start');
SELECT is(pg_temp.state('SET mq.max_queues = 5'), '55P02', '... both');
SELECT mq.create_queue('li', dead_letter => '', backoff => '0');
SELECT mq.create_queue('li2', dead_letter => '');
SELECT count(*) FROM mq.enqueue_batch('li', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 66000) i)) \gset
SELECT count(*) AS got, max(receipt) AS receipt FROM mq.dequeue('li', 66000, lease => '1 h') \gset
SELECT cmp_ok(:got, '<=', 65536, 'a queue holds half of the lease table at most');
SELECT cmp_ok(:got, '>=', 60000, '... and about that much');
SELECT state, hint FROM pg_temp.raised($$ SELECT * FROM mq.dequeue('li') $$) \gset r_
SELECT is(:'r_state'::text, '53400', 'nothing fits any more');
SELECT matches(:'r_hint'::text, 'mq\.max_in_flight', '... and the hint names the setting');
SELECT is((SELECT in_flight FROM mq.stats WHERE queue = 'li'), :got::bigint, '... nothing half-done');
SELECT mq.enqueue('li2', '1');
SELECT is((SELECT count(*) FROM mq.dequeue('li2', auto_ack => true)), 1::bigint, 'another queue has room');
SELECT is((SELECT mq.release_batch('li', array_agg(id), ARRAY[:receipt]) FROM (SELECT id FROM mq.in_flight WHERE queue = 'li' LIMIT 100) s), 100, 'a hundred released');
SELECT is((SELECT count(*) FROM mq.dequeue('li', 100, lease => '1 h')), 100::bigint, '... make room for a hundred');
SELECT is((SELECT mq.ack_batch('li', array_agg(id), array_agg(receipt)) FROM mq.in_flight WHERE queue = 'li'), :got, 'all acknowledged at once');
SELECT is((SELECT count(*) FROM mq.dequeue('li', 66000, auto_ack => true)), 66000::bigint - :got, 'the rest arrives');
SELECT is((SELECT count(*) FROM mq.q_li), 0::bigint, 'nothing is left');
SELECT mq.drop_queue(q) FROM unnest('{li,li2}'::text[]) q;
SELECT * FROM finish();
