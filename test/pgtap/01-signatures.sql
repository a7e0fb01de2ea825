-- The contract's functions, by name, arguments, defaults and results: the
-- contract is written down here once more as stubs of its own and compared.
\ir setup.psql
SET check_function_bodies = off;
CREATE SCHEMA contract;

SELECT set_eq(
    $$ SELECT attnum::int, attname::text, format_type(atttypid, atttypmod)
         FROM pg_attribute WHERE attrelid = 'mq.message'::regclass AND attnum > 0 AND NOT attisdropped $$,
    $$ VALUES (1, 'queue', 'text'), (2, 'id', 'bigint'), (3, 'receipt', 'bigint'),
              (4, 'attempt', 'integer'), (5, 'enqueued_at', 'timestamp with time zone'),
              (6, 'lease_until', 'timestamp with time zone'), (7, 'priority', 'smallint'),
              (8, 'key', 'text'), (9, 'headers', 'jsonb'), (10, 'body', 'jsonb'), (11, 'data', 'bytea'),
              (12, 'dedup_id', 'text'), (13, 'expires_at', 'timestamp with time zone'),
              (14, 'last_error', 'text') $$,
    'mq.message has the contract''s columns in the contract''s order');

CREATE FUNCTION contract.create_queue(name text, lease interval DEFAULT '30 seconds', max_attempts integer DEFAULT 20,
    backoff interval DEFAULT '1 second', backoff_limit interval DEFAULT '1 hour', dead_letter text DEFAULT '%_dead',
    ttl interval DEFAULT NULL, max_length bigint DEFAULT NULL, overflow text DEFAULT 'reject', ordered boolean DEFAULT false,
    dedup_window interval DEFAULT '5 minutes', retain interval DEFAULT NULL, unlogged boolean DEFAULT false,
    max_in_flight bigint DEFAULT NULL, rate_limit double precision DEFAULT NULL, dead_letter_exchange text DEFAULT NULL,
    dead_letter_key text DEFAULT NULL, if_not_exists boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.alter_queue(name text, lease interval DEFAULT NULL, max_attempts integer DEFAULT NULL,
    backoff interval DEFAULT NULL, backoff_limit interval DEFAULT NULL, dead_letter text DEFAULT NULL,
    ttl interval DEFAULT NULL, max_length bigint DEFAULT NULL, overflow text DEFAULT NULL, ordered boolean DEFAULT NULL,
    dedup_window interval DEFAULT NULL, retain interval DEFAULT NULL, max_in_flight bigint DEFAULT NULL,
    rate_limit double precision DEFAULT NULL, dead_letter_exchange text DEFAULT NULL, dead_letter_key text DEFAULT NULL,
    unset text[] DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.drop_queue(name text, if_exists boolean DEFAULT false) RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.purge(queue text) RETURNS bigint LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.pause(queue text) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.resume(queue text) RETURNS void LANGUAGE plpgsql AS '';

CREATE FUNCTION contract.enqueue(queue text, body jsonb DEFAULT NULL, headers jsonb DEFAULT NULL,
    delay interval DEFAULT NULL, priority integer DEFAULT 0, key text DEFAULT NULL,
    dedup_id text DEFAULT NULL, ttl interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, data bytea DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.enqueue_batch(queue text, bodies jsonb[] DEFAULT NULL, headers jsonb[] DEFAULT NULL,
    delay interval DEFAULT NULL, priority integer DEFAULT 0, keys text[] DEFAULT NULL,
    dedup_ids text[] DEFAULT NULL, ttl interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, datas bytea[] DEFAULT NULL) RETURNS SETOF bigint LANGUAGE plpgsql AS '';

CREATE FUNCTION contract.dequeue(queue text, max integer DEFAULT 1, lease interval DEFAULT NULL, wait interval DEFAULT '0',
    auto_ack boolean DEFAULT false, session boolean DEFAULT false, consumer text DEFAULT NULL, match jsonb DEFAULT NULL)
    RETURNS SETOF mq.message LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.dequeue_any(queues text[], max integer DEFAULT 1, lease interval DEFAULT NULL, wait interval DEFAULT '0',
    auto_ack boolean DEFAULT false, session boolean DEFAULT false, consumer text DEFAULT NULL, match jsonb DEFAULT NULL)
    RETURNS SETOF mq.message LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.ack(message mq.message, strict boolean DEFAULT false) RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.ack(queue text, id bigint, receipt bigint, strict boolean DEFAULT false) RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.ack_batch(queue text, ids bigint[], receipts bigint[], strict boolean DEFAULT false)
    RETURNS integer LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.nack(queue text, id bigint, receipt bigint, delay interval DEFAULT NULL, reason text DEFAULT NULL,
    strict boolean DEFAULT false) RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.nack_batch(queue text, ids bigint[], receipts bigint[], delay interval DEFAULT NULL,
    reason text DEFAULT NULL, strict boolean DEFAULT false) RETURNS integer LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.reject(queue text, id bigint, receipt bigint, reason text DEFAULT NULL,
    strict boolean DEFAULT false) RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.reject_batch(queue text, ids bigint[], receipts bigint[], reason text DEFAULT NULL,
    strict boolean DEFAULT false) RETURNS integer LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.release(queue text, id bigint, receipt bigint, strict boolean DEFAULT false)
    RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.release_batch(queue text, ids bigint[], receipts bigint[], strict boolean DEFAULT false)
    RETURNS integer LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.extend(queue text, id bigint, receipt bigint, lease interval, strict boolean DEFAULT false)
    RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.extend_batch(queue text, ids bigint[], receipts bigint[], lease interval, strict boolean DEFAULT false)
    RETURNS integer LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.ack_dequeue(queue text, ids bigint[], receipts bigint[], max integer DEFAULT 1,
    lease interval DEFAULT NULL, wait interval DEFAULT '0', auto_ack boolean DEFAULT false, session boolean DEFAULT false,
    consumer text DEFAULT NULL, match jsonb DEFAULT NULL) RETURNS SETOF mq.message LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.delete(queue text, ids bigint[]) RETURNS integer LANGUAGE plpgsql AS '';
CREATE PROCEDURE contract.wait(queue text, timeout interval) LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.redrive(dead_queue text, max bigint DEFAULT NULL, target text DEFAULT NULL)
    RETURNS bigint LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.status(queue text, id bigint) RETURNS text LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.replay(queue text, since timestamptz, until timestamptz DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.listen(queue text) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.unlisten(queue text) RETURNS void LANGUAGE plpgsql AS '';

CREATE FUNCTION contract.create_exchange(name text, type text DEFAULT 'topic', alternate text DEFAULT NULL,
    if_not_exists boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.drop_exchange(name text, if_exists boolean DEFAULT false) RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.bind(exchange text, queue text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.unbind(exchange text, queue text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
    RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.bind_exchange(source text, destination text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
    RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.unbind_exchange(source text, destination text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
    RETURNS boolean LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.publish(exchange text, routing_key text, body jsonb DEFAULT NULL, headers jsonb DEFAULT NULL,
    delay interval DEFAULT NULL, priority integer DEFAULT 0, key text DEFAULT NULL, dedup_id text DEFAULT NULL,
    ttl interval DEFAULT NULL, deliver_at timestamptz DEFAULT NULL, data bytea DEFAULT NULL,
    mandatory boolean DEFAULT false) RETURNS integer LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.publish_batch(exchange text, routing_keys text[], bodies jsonb[] DEFAULT NULL,
    headers jsonb[] DEFAULT NULL, delay interval DEFAULT NULL, priority integer DEFAULT 0, keys text[] DEFAULT NULL,
    dedup_ids text[] DEFAULT NULL, ttl interval DEFAULT NULL, deliver_at timestamptz DEFAULT NULL,
    datas bytea[] DEFAULT NULL, mandatory boolean DEFAULT false) RETURNS SETOF integer LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.import_definitions(definitions jsonb, dry_run boolean DEFAULT false)
    RETURNS TABLE (kind text, name text, action text, note text) LANGUAGE plpgsql AS '';

CREATE FUNCTION contract."grant"(queue text, role name, privilege text) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.revoke(queue text, role name, privilege text) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.grant_exchange(exchange text, role name) RETURNS void LANGUAGE plpgsql AS '';
CREATE FUNCTION contract.revoke_exchange(exchange text, role name) RETURNS void LANGUAGE plpgsql AS '';

-- One test a function, so that a failure names it.
SELECT is(
    (SELECT string_agg(format('%s (%s) -> %s', p.prokind, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)),
                       E'\n' ORDER BY p.pronargs)
       FROM pg_proc p WHERE p.pronamespace = 'mq'::regnamespace AND p.proname = c.proname),
    c.signature, 'mq.' || c.proname)
  FROM (SELECT p.proname, string_agg(format('%s (%s) -> %s', p.prokind, pg_get_function_arguments(p.oid),
                                            pg_get_function_result(p.oid)), E'\n' ORDER BY p.pronargs) AS signature
          FROM pg_proc p WHERE p.pronamespace = 'contract'::regnamespace GROUP BY p.proname) c
 ORDER BY c.proname COLLATE "C";

SELECT is(pg_get_function_identity_arguments('mq.browse(text, integer)'::regprocedure),
    'queue text, max integer', 'mq.browse takes a queue and how many at most');
SELECT is((SELECT proargdefaults IS NOT NULL AND pronargdefaults = 1 FROM pg_proc WHERE oid = 'mq.browse(text, integer)'::regprocedure),
    true, 'mq.browse needs only the queue');
-- A column may not be called as an argument, so the result's first column is compared by type and the rest by name too.
SELECT ok(pg_get_function_result('mq.browse(text, integer)'::regprocedure) LIKE
    '%id bigint, receipt bigint, attempt integer, enqueued_at timestamp with time zone, '
    'lease_until timestamp with time zone, priority smallint, key text, headers jsonb, body jsonb, data bytea, '
    'dedup_id text, expires_at timestamp with time zone, last_error text, state text)',
    'mq.browse gives mq.message''s columns and the state');

SELECT set_eq(
    $$ SELECT DISTINCT proname::text FROM pg_proc
        WHERE pronamespace = 'mq'::regnamespace AND proname NOT LIKE '%$' $$,
    $$ SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'contract'::regnamespace
       UNION ALL SELECT 'browse' $$,
    'mq has these functions and no others that a user would call');

SELECT is((SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = ('mq.' || v.name)::regclass AND attnum > 0 AND NOT attisdropped), v.columns, 'mq.' || v.name || ' has its columns')
  FROM (VALUES
    ('in_flight', 'queue id receipt consumer pid attempt leased_at lease_until')) v(name, columns);
SELECT ok((SELECT array_agg(attname::text) @> '{queue,ready,delayed,in_flight,oldest_ready_age,enqueued,delivered,acked,nacked,expired,redelivered,dead,consumers_waiting,exact,since}'
             FROM pg_attribute WHERE attrelid = 'mq.stats'::regclass AND attnum > 0), 'mq.stats has its columns');
SELECT ok((SELECT array_agg(attname::text) @> '{name,lease,max_attempts,backoff,backoff_limit,dead_letter,ttl,max_length,overflow,ordered,dedup_window,retain,unlogged,max_in_flight,rate_limit,dead_letter_exchange,dead_letter_key,paused,relation,owner,channel}'
             FROM pg_attribute WHERE attrelid = 'mq.queues'::regclass AND attnum > 0), 'mq.queues has a column for every option');
SELECT has_view('mq'::name, 'exchanges'::name, 'mq.exchanges is there');
SELECT has_view('mq'::name, 'bindings'::name, 'mq.bindings is there');

SELECT mq.create_queue('sig');
SELECT results_eq(
    $$ SELECT attname::text COLLATE "default", format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
        WHERE attrelid = 'mq.q_sig'::regclass AND attnum > 0 ORDER BY attnum $$,
    $$ VALUES ('id', 'bigint', true), ('enqueued_at', 'timestamp with time zone', true), ('attempts', 'integer', true),
              ('priority', 'smallint', true), ('ready_at', 'timestamp with time zone', false),
              ('expires_at', 'timestamp with time zone', false), ('key', 'text', false), ('dedup_id', 'text', false),
              ('headers', 'jsonb', false), ('body', 'jsonb', false), ('data', 'bytea', false), ('last_error', 'text', false) $$,
    'the queue''s table has the contract''s columns');
SELECT is((SELECT attidentity::text FROM pg_attribute WHERE attrelid = 'mq.q_sig'::regclass AND attname = 'id'), 'a',
    'id is generated always as identity');
SELECT is((SELECT relkind::text || relpersistence::text FROM pg_class WHERE oid = 'mq.q_sig'::regclass), 'rp', 'it is a plain table');
SELECT is((SELECT amname::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam WHERE c.oid = 'mq.q_sig'::regclass), 'heap', 'a heap');
SELECT is((SELECT count(*) FROM pg_depend WHERE objid = 'mq.q_sig'::regclass AND deptype = 'e'), 0::bigint,
    'it is no member of the extension');
SELECT is((SELECT count(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
            WHERE i.indrelid = 'mq.q_sig'::regclass AND a.attname = 'expires_at' AND i.indpred IS NOT NULL), 1::bigint,
    'a partial index stands on expires_at');
SELECT is((SELECT indisprimary FROM pg_index WHERE indexrelid = 'mq.q_sig$pkey'::regclass), true, 'the primary key is on id');
SELECT is((SELECT max_value FROM pg_sequences WHERE schemaname = 'mq' AND sequencename = 'q_sig$id'), 9007199254740991,
    'ids stay below 2^53');

-- Every object says what it is for.
SELECT is_empty(
    $$ SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'mq'::regnamespace AND proname NOT LIKE '%$'
          AND obj_description(p.oid, 'pg_proc') IS NULL $$, 'every function has its comment');

SELECT mq.drop_queue('sig');
SELECT mq.drop_queue('sig_dead');
DROP SCHEMA contract CASCADE;
SELECT * FROM finish();
