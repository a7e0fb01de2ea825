\ir setup.psql
-- Ordered queues: one message of a key at a time, in the order of ids.

SELECT mq.create_queue('o', ordered => true, lease => '1 h', backoff => '0', max_attempts => 3);
SELECT is((SELECT ordered FROM mq.queues WHERE name = 'o'), true, 'mq.queues shows it');

-- What key and body a dequeue gets, in its order.
CREATE FUNCTION pg_temp.got(most integer DEFAULT 100, OUT text) LANGUAGE plpgsql AS $$
BEGIN
    SELECT coalesce(string_agg(coalesce(m.key, '-') || (m.body #>> '{}'), ' ' ORDER BY m.n), '') INTO $2
    FROM (SELECT * FROM mq.dequeue('o', most) WITH ORDINALITY AS m (queue, id, receipt, attempt, enqueued_at, lease_until,
          priority, key, headers, body, data, dedup_id, expires_at, last_error, n)) m;
END $$;
-- Settles what is leased of a key, by the verb.
CREATE FUNCTION pg_temp.settle(verb text, of text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    yes boolean;
BEGIN
    EXECUTE format('SELECT mq.%s(''o'', f.id, f.receipt) FROM mq.in_flight f JOIN mq.q_o q USING (id) '
                   'WHERE f.queue = ''o'' AND q.key = $1', verb) INTO STRICT yes USING of;
    RETURN yes;
END $$;

SELECT mq.enqueue_batch('o', '{1,2,3,4,5,6,7,8}', keys => '{a,a,b,NULL,a,NULL,b,c}');
SELECT is(pg_temp.got(), 'a1 b3 -4 -6 c8', 'one of each key, and all without key');
SELECT is(pg_temp.got(), '', 'the others wait');
SELECT ok(pg_temp.settle('ack', 'a'), 'the first of a is acknowledged');
SELECT is(pg_temp.got(), 'a2', 'the second of a comes');
SELECT is(pg_temp.got(), '', '... and no other');
SELECT mq.enqueue('o', '9', key => 'a');
SELECT mq.enqueue('o', '10', key => 'd');
SELECT is(pg_temp.got(), 'd10', 'a key with one in flight keeps new messages back');
SELECT ok(pg_temp.settle('ack', 'a'), 'the second is acknowledged');
SELECT is(pg_temp.got(), 'a5', 'the one enqueued before comes first');
SELECT ok(pg_temp.settle('ack', 'a'), 'the third');
SELECT is(pg_temp.got(), 'a9', '... then the one enqueued later');

SELECT ok(pg_temp.settle('release', 'b'), 'released');
SELECT is(pg_temp.got(), 'b3', 'a release gives the place back');
SELECT ok(pg_temp.settle($$nack$$, 'b'), 'nacked, due at once');
SELECT is(pg_temp.got(), 'b3', 'a failed one is tried before what is behind it');
SELECT mq.nack('o', f.id, f.receipt, delay => '1 h') FROM mq.in_flight f JOIN mq.q_o q USING (id) WHERE q.key = 'c';
SELECT mq.enqueue('o', '11', key => 'c');
SELECT mq.enqueue('o', '12', key => 'e');
SELECT is(pg_temp.got(), 'e12', 'a key whose message waits for its backoff waits with it');
SELECT is((SELECT count(*) FROM mq.q_o WHERE key = 'c'), 2::bigint, 'both are there');
UPDATE mq.q_o SET ready_at = NULL WHERE key = 'c' AND body = '8';
SELECT is(pg_temp.got(), 'c8', 'called back by an UPDATE');
SELECT ok(pg_temp.settle('reject', 'c'), 'rejected');
SELECT is(pg_temp.got(), 'c11', 'the dead letters free the key');
SELECT ok(pg_temp.settle('nack', 'b'), 'nacked again');
SELECT is(pg_temp.got(), 'b3', 'the last attempt');
SELECT ok(pg_temp.settle('nack', 'b'), 'it fails');
SELECT is(pg_temp.got(), 'b7', 'attempts used up free the key');
SELECT is((SELECT count(*) FROM mq.q_o_dead), 2::bigint, 'two are dead');

-- Taken away by others.
SELECT mq.enqueue_batch('o', '{20,21,22,23}', keys => '{x,x,x,x}');
SELECT is(pg_temp.got(), 'x20', 'the head of x');
DELETE FROM mq.q_o WHERE body = '21';
SELECT ok(pg_temp.settle('ack', 'x'), 'acknowledged');
SELECT is(pg_temp.got(), 'x22', 'a deleted next is passed over');
DELETE FROM mq.q_o WHERE body = '22';
SELECT is(pg_temp.got(), 'x23', 'a deleted head frees its key');
SELECT is(mq.delete('o', array_agg(id)), 1, 'mq.delete of a head') FROM mq.q_o WHERE body = '23';
SELECT mq.enqueue_batch('o', '{30,31,32}', keys => '{y,y,y}');
SELECT is(pg_temp.got(), 'y30', 'the head of y');
SELECT is(mq.purge('o'), 2::bigint, 'mq.purge leaves what is leased');
SELECT mq.enqueue('o', '33', key => 'y');
SELECT is(pg_temp.got(), '', '... and its key');
SELECT ok(pg_temp.settle('ack', 'y'), 'acknowledged');
SELECT is(pg_temp.got(), 'y33', 'what came after the purge');
-- The head waits for its backoff, and is deleted.
SELECT mq.enqueue('o', '34', key => 'y');
SELECT ok(pg_temp.settle($$nack$$, 'y'), 'nacked');
UPDATE mq.q_o SET ready_at = now() + interval '1 h' WHERE body = '33';
SELECT is(pg_temp.got(), '', 'y waits');
DELETE FROM mq.q_o WHERE body = '33';
SELECT is(pg_temp.got(), 'y34', 'the end of a waiting head frees its key');
TRUNCATE mq.q_o;
SELECT mq.enqueue_batch('o', '{40,41}', keys => '{y,y}');
SELECT is(pg_temp.got(), 'y40', 'TRUNCATE frees all keys');
SELECT ok(pg_temp.settle('ack', 'y'), 'acknowledged');
SELECT is(pg_temp.got(), 'y41', 'and order goes on');
TRUNCATE mq.q_o;

-- Keys of all lengths, and keys that begin alike.
SELECT count(mq.enqueue('o', to_jsonb(i * 10 + j), key => repeat('k', i))) FROM generate_series(1, 1000, 37) i, generate_series(1, 2) j \gset
SELECT is((SELECT count(*) FROM mq.dequeue('o', 1000)), (SELECT count(DISTINCT key) FROM mq.q_o), 'one of each key, however long');
SELECT is((SELECT count(*) FROM mq.dequeue('o', 1000)), 0::bigint, '... and no more');
SELECT is(mq.ack_batch('o', array_agg(id), array_agg(receipt)), 28, 'all acknowledged') FROM mq.in_flight WHERE queue = 'o';
SELECT is((SELECT count(*) FROM mq.dequeue('o', 1000)), 28::bigint, 'then the other of each');
TRUNCATE mq.q_o;
ALTER TABLE mq.q_o DROP CONSTRAINT "key$check";
INSERT INTO mq.q_o (key, body) VALUES (repeat('x', 2000), '1'), (repeat('x', 2000), '2'), (repeat('x', 1000), '3'), (repeat('x', 1000), '4');
SELECT is((SELECT array_agg(body::text) FROM mq.dequeue('o', 10)), '{1,2,3}', 'a key that is too long, its CHECK dropped, is none');
TRUNCATE mq.q_o;
ALTER TABLE mq.q_o ADD CONSTRAINT "key$check" CHECK (octet_length(key) <= 1000);
SELECT mq.enqueue('o', '1', key => '');
SELECT mq.enqueue('o', '2', key => '');
SELECT is(pg_temp.got(), '1', 'the empty string is a key');
TRUNCATE mq.q_o;

-- In one transaction.
SELECT mq.enqueue_batch('o', '{1,2}', keys => '{t,t}');
BEGIN;
SELECT is((SELECT body FROM mq.dequeue('o', auto_ack => true)), '1'::jsonb, 'auto_ack');
SELECT is(pg_temp.got(), '', 'the next of the key comes only after the commit');
COMMIT;
SELECT is(pg_temp.got(), 't2', '... then it does');
BEGIN;
SELECT mq.enqueue('o', '3', key => 't');
SAVEPOINT s;
SELECT is(pg_temp.settle('ack', 't'), true, 'acked under a savepoint');
ROLLBACK TO s;
COMMIT;
SELECT is(pg_temp.got(), '', 'a rolled back ack holds the key');
SELECT is(pg_temp.settle('ack', 't'), true, 'acked');
BEGIN;
SAVEPOINT s;
SELECT is(pg_temp.got(), 't3', 'dequeued under a savepoint');
ROLLBACK TO s;
SELECT is((SELECT attempt FROM mq.dequeue('o')), 2, 'rolled back: a failed attempt');
COMMIT;
TRUNCATE mq.q_o;

-- Many rows of one transaction; a transaction's own deletes are done for it.
SELECT mq.enqueue_batch('o', '{1,2,3}', keys => '{u,u,u}');
BEGIN;
DELETE FROM mq.q_o WHERE body = '1';
SELECT is(pg_temp.got(), 'u2', 'own deleted rows are gone');
ROLLBACK;
TRUNCATE mq.q_o;

-- ... and for nobody once it is rolled back. The second has a time, so that it is met first.
SELECT mq.enqueue_batch('o', '{1,2}', keys => '{u,u}');
SELECT mq.release('o', id, receipt) FROM mq.dequeue('o', 10);
UPDATE mq.q_o SET ready_at = now() WHERE body = '2';
BEGIN;
DELETE FROM mq.q_o WHERE body = '1';
CALL mq.wait('o', '0');
ROLLBACK;
SELECT is(pg_temp.got(), 'u1', 'what a rollback brings back comes first');
TRUNCATE mq.q_o;
SELECT mq.enqueue_batch('o', '{1,2}', keys => '{u,u}');
SELECT mq.release('o', id, receipt) FROM mq.dequeue('o', 10);
UPDATE mq.q_o SET ready_at = now() WHERE body = '2';
BEGIN;
SAVEPOINT s;
DELETE FROM mq.q_o WHERE body = '1';
CALL mq.wait('o', '0');
ROLLBACK TO s;
SELECT is(pg_temp.got(), 'u1', '... of a savepoint, too');
COMMIT;
TRUNCATE mq.q_o;

-- What an ordered queue refuses.
SELECT is(pg_temp.state($$SELECT mq.enqueue('o', '1', priority => 1)$$), '22023', 'priority');
SELECT is(pg_temp.state($$SELECT mq.enqueue('o', '1', delay => '1 s')$$), '22023', 'delay');
SELECT is(pg_temp.state($$SELECT mq.enqueue('o', '1', deliver_at => now())$$), '22023', 'deliver_at');
SELECT is(pg_temp.state($$SELECT mq.enqueue('o', '1', delay => '0')$$), '00000', 'a delay of nothing is none');
SELECT is(pg_temp.state($$SELECT mq.enqueue_batch('o', '{1}', priority => 1)$$), '22023', 'priority of a batch');
SELECT is(pg_temp.state($$SELECT mq.enqueue_batch('o', '{1}', delay => '1 s')$$), '22023', 'delay of a batch');
SELECT is(pg_temp.state($$INSERT INTO mq.q_o (priority) VALUES (1)$$), '22023', 'priority by a plain INSERT');
SELECT is(pg_temp.state($$INSERT INTO mq.q_o (ready_at) VALUES (now())$$), '22023', 'a time by a plain INSERT');
SELECT is(pg_temp.state($$INSERT INTO mq.q_o (key) VALUES ('p')$$), '00000', 'a plain INSERT without');
SELECT is(pg_temp.state($$UPDATE mq.q_o SET key = 'other' WHERE key = 'p'$$), '0A000', 'another key');
TRUNCATE mq.q_o;

-- The dead letters may be ordered, whatever comes.
SELECT mq.alter_queue('o_dead', ordered => true);
SELECT mq.create_queue('od2', dead_letter => 'o_dead');
SELECT mq.enqueue('od2', '1', priority => 5, key => 'z');
SELECT is((SELECT mq.reject('od2', id, receipt) FROM mq.dequeue('od2')), true, 'a message with a priority dies into an ordered queue');
SELECT mq.drop_queue('od2');

-- A queue with messages becomes ordered, and is so no more.
SELECT mq.alter_queue('o', ordered => false);
SELECT mq.enqueue_batch('o', '{1,2,3,4}', keys => '{a,a,a,b}');
SELECT mq.enqueue('o', '5', key => 'a', priority => 9);
SELECT mq.enqueue('o', '6', key => 'c', delay => '1 h');
SELECT mq.enqueue('o', '7', key => 'c');
SELECT is(pg_temp.got(2), 'a5 a1', 'unordered: two of one key');
SELECT mq.alter_queue('o', ordered => true);
SELECT is(pg_temp.got(), 'b4', 'ordered: what was leased before holds its key, and a delayed message of before holds its own');
SELECT is((SELECT mq.ack('o', f.id, f.receipt) FROM mq.in_flight f JOIN mq.q_o q USING (id) WHERE q.body = '5'), true, 'one of the two');
SELECT is(pg_temp.got(), '', 'the other still holds');
SELECT is((SELECT mq.release('o', f.id, f.receipt) FROM mq.in_flight f JOIN mq.q_o q USING (id) WHERE q.body = '1'), true, 'released');
SELECT is(pg_temp.got(), 'a1', 'the lowest id');
SELECT is(pg_temp.settle('ack', 'a'), true, 'acked');
SELECT is(pg_temp.got(), 'a2', 'the next');
SELECT mq.alter_queue('o', ordered => false);
SELECT is(pg_temp.got(), 'a3 c7', 'unordered again: what was parked comes');
SELECT is(mq.purge('o') + mq.delete('o', array_agg(id)), 5::bigint, 'all gone') FROM mq.in_flight WHERE queue = 'o';
SELECT mq.enqueue('o', '1', key => 'a', priority => 1);
SELECT mq.enqueue('o', '0', key => 'a');
SELECT mq.alter_queue('o', ordered => true);
UPDATE mq.q_o SET priority = 0 WHERE body = '0';
SELECT is(pg_temp.got(), 'a1', 'a priority of before does not overtake a lower id, nor does a lower priority');
DELETE FROM mq.q_o;
SELECT mq.alter_queue('o', ordered => false);
SELECT mq.enqueue('o', '0', key => 'a');
SELECT mq.enqueue('o', '1', key => 'a', priority => 1);
SELECT mq.alter_queue('o', ordered => true);
SELECT is(pg_temp.got(), 'a0', 'the lower id first, though the other has the priority');
SELECT ok(pg_temp.settle('ack', 'a'), 'acked');
SELECT is(pg_temp.got(), 'a1', 'then the other');
-- A later message that was leased before holds the key as well.
SELECT mq.alter_queue('o', ordered => false);
SELECT mq.enqueue_batch('o', '{7,8}', keys => '{v,v}');
SELECT is(pg_temp.got(), 'v7 v8', 'unordered: both');
SELECT is((SELECT mq.release('o', f.id, f.receipt) FROM mq.in_flight f JOIN mq.q_o q USING (id) WHERE q.body = '7'), true, 'the first is released');
SELECT mq.alter_queue('o', ordered => true);
SELECT is(pg_temp.got(), '', 'ordered: it waits for the second');
SELECT is(pg_temp.settle('ack', 'v'), true, 'which is acked');
SELECT is(pg_temp.got(), 'v7', 'then it comes');
BEGIN;
SELECT mq.alter_queue('o', ordered => false);
ROLLBACK;
SELECT mq.enqueue('o', '2', key => 'a');
SELECT is(pg_temp.got(), '', 'an alter_queue that is rolled back changes nothing');
DELETE FROM mq.q_o;

-- A chain in order, through all verbs that end a delivery well.
SELECT count(mq.enqueue('o', to_jsonb(i), key => 'chain' || i % 3)) FROM generate_series(1, 300) i \gset
CREATE TEMP TABLE chain (n bigserial, key text, id bigint);
DO $$
DECLARE
    m mq.message;
    r bigint;
    n integer := 0;
BEGIN
    LOOP
        n := n + 1;
        SELECT * INTO m FROM mq.dequeue('o');
        EXIT WHEN m.id IS NULL;
        COMMIT;
        IF n % 7 = 0 THEN
            PERFORM mq.release('o', m.id, m.receipt);
        ELSIF n % 11 = 0 THEN
            PERFORM mq.nack('o', m.id, m.receipt);
        ELSE
            PERFORM mq.ack('o', m.id, m.receipt);
            INSERT INTO chain (key, id) VALUES (m.key, m.id);
        END IF;
        COMMIT;
    END LOOP;
END $$;
SELECT is((SELECT count(*) FROM chain), 300::bigint, 'a chain is consumed whole');
SELECT is((SELECT count(*) FROM (SELECT id < lag(id) OVER (PARTITION BY key ORDER BY n) AS wrong FROM chain) c WHERE wrong), 0::bigint, '... each key in order');

-- Nothing is ready when all that there is waits behind its key.
SELECT mq.enqueue_batch('o', '{1,2}', keys => '{w,w}');
SELECT is(pg_temp.got(), 'w1', 'one');
CALL mq.wait('o', '0.05 s');
SELECT is(pg_temp.got(), '', 'mq.wait returns after its time');
TRUNCATE mq.q_o;

-- What is on its last attempt ends no batch while it is another's turn.
SELECT mq.alter_queue('o', max_attempts => 2);
SELECT mq.enqueue_batch('o', '{2,3,4}', keys => '{w,w,NULL}');
UPDATE mq.q_o SET attempts = 1, ready_at = now() - interval '1 min' WHERE body = '3';
UPDATE mq.q_o SET ready_at = now() - interval '1 h' WHERE body = '4';
SELECT is(pg_temp.got(), '-4 w2', 'the first comes with others, whatever the second''s attempts');
SELECT mq.drop_queue('o');
SELECT mq.drop_queue('o_dead');
SELECT * FROM finish();
