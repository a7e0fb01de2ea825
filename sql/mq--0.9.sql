\echo Use "CREATE EXTENSION mq" to load this file. \quit

-- Names below resolve here, whatever the path of the session that installs.
SET LOCAL search_path TO pg_catalog, pg_temp;

CREATE SCHEMA mq;
GRANT USAGE ON SCHEMA mq TO PUBLIC;
COMMENT ON SCHEMA mq IS 'message queues; names with a $ are internal';


--
-- The catalog. Definitions are keyed by queue name, so that a dump restores
-- them; nothing here is readable by PUBLIC, the views below are.
--

CREATE TABLE mq.queue$ (
    name                 text COLLATE "C" NOT NULL,
    layout               smallint NOT NULL DEFAULT 1,
    lease                interval NOT NULL,
    max_attempts         integer NOT NULL,
    backoff              interval NOT NULL,
    backoff_limit        interval NOT NULL,
    dead_letter          text COLLATE "C",
    ttl                  interval,
    max_length           bigint,
    overflow             text COLLATE "C" NOT NULL,
    ordered              boolean NOT NULL,
    dedup_window         interval NOT NULL,
    retain               interval,
    unlogged             boolean NOT NULL,
    max_in_flight        bigint,
    rate_limit           double precision,
    dead_letter_exchange text COLLATE "C",
    dead_letter_key      text COLLATE "C",
    paused               boolean NOT NULL DEFAULT false,
    CONSTRAINT queue$pkey PRIMARY KEY (name)
);
CREATE INDEX queue$dead_letter ON mq.queue$ (dead_letter) WHERE dead_letter IS NOT NULL;
COMMENT ON TABLE mq.queue$ IS 'one row a queue: its options, resolved; the queue exists while its table mq.q_<name> does too';
COMMENT ON COLUMN mq.queue$.layout IS 'version of the layout of the queue''s table';
COMMENT ON COLUMN mq.queue$.dead_letter IS 'queue for dead messages, NULL = none: they are dropped';
COMMENT ON COLUMN mq.queue$.paused IS 'deliveries are stopped';

CREATE TABLE mq.exchange$ (
    name      text COLLATE "C" NOT NULL,
    type      text COLLATE "C" NOT NULL CHECK (type IN ('direct', 'topic', 'fanout', 'headers')),
    alternate text COLLATE "C",
    owner     name NOT NULL,
    CONSTRAINT exchange$pkey PRIMARY KEY (name)
);
COMMENT ON TABLE mq.exchange$ IS 'one row an exchange';
COMMENT ON COLUMN mq.exchange$.alternate IS 'exchange for messages that no binding takes';
COMMENT ON COLUMN mq.exchange$.owner IS 'role that may bind, grant and drop';

CREATE TABLE mq.exchange_grant$ (
    exchange text COLLATE "C" NOT NULL REFERENCES mq.exchange$ ON DELETE CASCADE,
    role     name NOT NULL,
    CONSTRAINT exchange_grant$pkey PRIMARY KEY (exchange, role)
);
COMMENT ON TABLE mq.exchange_grant$ IS 'roles that may publish to an exchange; public = everybody';

CREATE TABLE mq.binding$ (
    id          bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME mq.binding$id),
    exchange    text COLLATE "C" NOT NULL REFERENCES mq.exchange$ ON DELETE CASCADE,
    queue       text COLLATE "C",
    destination text COLLATE "C" REFERENCES mq.exchange$ ON DELETE CASCADE,
    pattern     text COLLATE "C" NOT NULL,
    match       jsonb,
    CONSTRAINT binding$pkey PRIMARY KEY (id),
    CONSTRAINT binding$target CHECK (num_nonnulls(queue, destination) = 1),
    CONSTRAINT binding$unique UNIQUE NULLS NOT DISTINCT (exchange, queue, destination, pattern, match)
);
CREATE INDEX binding$queue ON mq.binding$ (queue) WHERE queue IS NOT NULL;
CREATE INDEX binding$destination ON mq.binding$ (destination) WHERE destination IS NOT NULL;
COMMENT ON TABLE mq.binding$ IS 'one row a binding of an exchange to a queue or to another exchange';
COMMENT ON COLUMN mq.binding$.destination IS 'the other exchange';
COMMENT ON COLUMN mq.binding$.match IS 'headers wanted, with x-match all or any';

CREATE TABLE mq.dedup$ (
    queue    text COLLATE "C" NOT NULL,
    dedup_id text COLLATE "C" NOT NULL,
    id       bigint NOT NULL,
    until    timestamptz NOT NULL,
    CONSTRAINT dedup$pkey PRIMARY KEY (queue, dedup_id)
);
CREATE INDEX dedup$until ON mq.dedup$ (until);
COMMENT ON TABLE mq.dedup$ IS 'dedup_ids still remembered';
COMMENT ON COLUMN mq.dedup$.id IS 'the message that was enqueued with it first';
COMMENT ON COLUMN mq.dedup$.until IS 'remembered until then';

SELECT pg_catalog.pg_extension_config_dump('mq.queue$', '');
SELECT pg_catalog.pg_extension_config_dump('mq.exchange$', '');
SELECT pg_catalog.pg_extension_config_dump('mq.exchange_grant$', '');
SELECT pg_catalog.pg_extension_config_dump('mq.binding$', '');
SELECT pg_catalog.pg_extension_config_dump('mq.binding$id', '');
SELECT pg_catalog.pg_extension_config_dump('mq.dedup$', '');


--
-- Triggers of the queues' tables and of the catalog. Whoever makes them is
-- the extension's owner; nobody else may hang them anywhere.
--

CREATE FUNCTION mq.queue_before$() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'mq_sql_queue_before';
COMMENT ON FUNCTION mq.queue_before$() IS 'checks rows that plain SQL writes to a queue''s table';

CREATE FUNCTION mq.queue_after$() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'mq_sql_queue_after';
COMMENT ON FUNCTION mq.queue_after$() IS 'notices rows that plain SQL wrote to a queue''s table';

CREATE FUNCTION mq.queue_truncate$() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'mq_sql_queue_truncate';
COMMENT ON FUNCTION mq.queue_truncate$() IS 'forgets leases and places of a truncated queue';

CREATE FUNCTION mq.queue_changed$() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'mq_sql_queue_changed';
COMMENT ON FUNCTION mq.queue_changed$() IS 'makes every session load the queue''s definition again';

REVOKE ALL ON FUNCTION mq.queue_before$(), mq.queue_after$(), mq.queue_truncate$(), mq.queue_changed$() FROM PUBLIC;

CREATE TRIGGER mq$changed AFTER INSERT OR UPDATE OR DELETE ON mq.queue$
    FOR EACH ROW EXECUTE FUNCTION mq.queue_changed$();
ALTER TABLE mq.queue$ ENABLE ALWAYS TRIGGER mq$changed;


--
-- Messages and the verbs
--

CREATE TYPE mq.message AS (
    queue        text,
    id           bigint,
    receipt      bigint,
    attempt      integer,
    enqueued_at  timestamptz,
    lease_until  timestamptz,
    priority     smallint,
    key          text,
    headers      jsonb,
    body         jsonb,
    data         bytea,
    dedup_id     text,
    expires_at   timestamptz,
    last_error   text
);
COMMENT ON TYPE mq.message IS 'a delivery: a message and the lease on it';
COMMENT ON COLUMN mq.message.id IS 'unique in its queue, below 2^53, never reused';
COMMENT ON COLUMN mq.message.receipt IS 'names this delivery; settling needs it; one for all messages of a dequeue';
COMMENT ON COLUMN mq.message.attempt IS 'number of this delivery: failed ones before it, plus one';
COMMENT ON COLUMN mq.message.enqueued_at IS 'clock time of the enqueue';
COMMENT ON COLUMN mq.message.lease_until IS 'when the lease ends; NULL = its transaction is open or its session holds it';
COMMENT ON COLUMN mq.message.priority IS '0 to 9, higher is delivered first';
COMMENT ON COLUMN mq.message.key IS 'ordering key, at most 1000 bytes';
COMMENT ON COLUMN mq.message.headers IS 'an object, or NULL';
COMMENT ON COLUMN mq.message.data IS 'a body that is not JSON';
COMMENT ON COLUMN mq.message.dedup_id IS 'at most 1000 bytes';
COMMENT ON COLUMN mq.message.expires_at IS 'NULL = never';
COMMENT ON COLUMN mq.message.last_error IS 'why the last delivery failed';

CREATE FUNCTION mq.enqueue(
    queue      text,
    body       jsonb DEFAULT NULL,
    headers    jsonb DEFAULT NULL,
    delay      interval DEFAULT NULL,
    priority   integer DEFAULT 0,
    key        text DEFAULT NULL,
    dedup_id   text DEFAULT NULL,
    ttl        interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL,
    data       bytea DEFAULT NULL)
RETURNS bigint LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_enqueue';
COMMENT ON FUNCTION mq.enqueue(text, jsonb, jsonb, interval, integer, text, text, interval, timestamptz, bytea) IS
'Adds a message that exists once this transaction commits; returns its id. body: JSON, or data: bytes, or neither. headers: a JSON object. delay: not delivered before this long from now; or deliver_at: before this time. priority: 0 to 9, higher first. key: ordering key, at most 1000 bytes. dedup_id: while it is remembered nothing is added and the first id returned. ttl: dead this long after it comes due.';

CREATE FUNCTION mq.enqueue_batch(
    queue      text,
    bodies     jsonb[] DEFAULT NULL,
    headers    jsonb[] DEFAULT NULL,
    delay      interval DEFAULT NULL,
    priority   integer DEFAULT 0,
    keys       text[] DEFAULT NULL,
    dedup_ids  text[] DEFAULT NULL,
    ttl        interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL,
    datas      bytea[] DEFAULT NULL)
RETURNS SETOF bigint LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'mq_sql_enqueue_batch';
COMMENT ON FUNCTION mq.enqueue_batch(text, jsonb[], jsonb[], interval, integer, text[], text[], interval, timestamptz, bytea[]) IS
'Adds many messages; returns their ids in order. bodies, headers, keys, dedup_ids, datas: arrays of one length, or NULL. delay, priority, ttl, deliver_at: as in mq.enqueue, the same for all.';

CREATE FUNCTION mq.dequeue(
    queue    text,
    max      integer DEFAULT 1,
    lease    interval DEFAULT NULL,
    wait     interval DEFAULT '0',
    auto_ack boolean DEFAULT false,
    session  boolean DEFAULT false,
    consumer text DEFAULT NULL,
    match    jsonb DEFAULT NULL)
RETURNS SETOF mq.message LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'mq_sql_dequeue';
COMMENT ON FUNCTION mq.dequeue(text, integer, interval, interval, boolean, boolean, text, jsonb) IS
'Leases and returns messages. max: at most so many. lease: invisible this long from the commit on, NULL = the queue''s. wait: block up to this long for a first message. auto_ack: delete in this transaction. session: leased until this session settles it, ends or does DISCARD ALL. consumer: name shown in mq.in_flight, NULL = application_name. match: only messages whose headers contain this (@>).';

CREATE FUNCTION mq.dequeue_any(
    queues   text[],
    max      integer DEFAULT 1,
    lease    interval DEFAULT NULL,
    wait     interval DEFAULT '0',
    auto_ack boolean DEFAULT false,
    session  boolean DEFAULT false,
    consumer text DEFAULT NULL,
    match    jsonb DEFAULT NULL)
RETURNS SETOF mq.message LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.dequeue_any(text[], integer, interval, interval, boolean, boolean, text, jsonb) IS
'Leases and returns messages of several queues, in the order given. queues: their names; the other arguments as in mq.dequeue.';

CREATE FUNCTION mq.ack(message mq.message, strict boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_ack_message';
COMMENT ON FUNCTION mq.ack(mq.message, boolean) IS
'Deletes a delivered message in this transaction; false if the delivery is no longer current. message: a row of mq.dequeue. strict: raise 55000 instead of returning false.';

CREATE FUNCTION mq.ack(queue text, id bigint, receipt bigint, strict boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_ack';
COMMENT ON FUNCTION mq.ack(text, bigint, bigint, boolean) IS
'Deletes a delivered message in this transaction; false if the delivery is no longer current. id, receipt: of the delivery. strict: raise 55000 instead of returning false.';

CREATE FUNCTION mq.ack_batch(queue text, ids bigint[], receipts bigint[], strict boolean DEFAULT false)
RETURNS integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_ack_batch';
COMMENT ON FUNCTION mq.ack_batch(text, bigint[], bigint[], boolean) IS
'Deletes delivered messages; returns how many deliveries were current. receipts: one for all, or one each. strict: raise 55000 if one was not.';

CREATE FUNCTION mq.nack(
    queue text, id bigint, receipt bigint, delay interval DEFAULT NULL, reason text DEFAULT NULL, strict boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_nack';
COMMENT ON FUNCTION mq.nack(text, bigint, bigint, interval, text, boolean) IS
'Gives a delivery back as failed, at commit. delay: until the next attempt, NULL = the queue''s backoff. reason: kept in last_error. strict: raise 55000 if the delivery is no longer current.';

CREATE FUNCTION mq.nack_batch(
    queue text, ids bigint[], receipts bigint[], delay interval DEFAULT NULL, reason text DEFAULT NULL,
    strict boolean DEFAULT false)
RETURNS integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_nack_batch';
COMMENT ON FUNCTION mq.nack_batch(text, bigint[], bigint[], interval, text, boolean) IS
'mq.nack for many; returns how many deliveries were current. receipts: one for all, or one each.';

CREATE FUNCTION mq.reject(queue text, id bigint, receipt bigint, reason text DEFAULT NULL, strict boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_reject';
COMMENT ON FUNCTION mq.reject(text, bigint, bigint, text, boolean) IS
'Moves a delivered message to the dead letters, at commit. reason: kept in last_error. strict: raise 55000 if the delivery is no longer current.';

CREATE FUNCTION mq.reject_batch(
    queue text, ids bigint[], receipts bigint[], reason text DEFAULT NULL, strict boolean DEFAULT false)
RETURNS integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_reject_batch';
COMMENT ON FUNCTION mq.reject_batch(text, bigint[], bigint[], text, boolean) IS
'mq.reject for many; returns how many deliveries were current. receipts: one for all, or one each.';

CREATE FUNCTION mq.release(queue text, id bigint, receipt bigint, strict boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_release';
COMMENT ON FUNCTION mq.release(text, bigint, bigint, boolean) IS
'Puts a delivered message back to its place, at commit; no attempt is counted. strict: raise 55000 if the delivery is no longer current.';

CREATE FUNCTION mq.release_batch(queue text, ids bigint[], receipts bigint[], strict boolean DEFAULT false)
RETURNS integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_release_batch';
COMMENT ON FUNCTION mq.release_batch(text, bigint[], bigint[], boolean) IS
'mq.release for many; returns how many deliveries were current. receipts: one for all, or one each.';

CREATE FUNCTION mq.extend(queue text, id bigint, receipt bigint, lease interval, strict boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_extend';
COMMENT ON FUNCTION mq.extend(text, bigint, bigint, interval, boolean) IS
'Lets a lease end this long from now, at once and for good. lease: from now. strict: raise 55000 if the delivery is no longer current.';

CREATE FUNCTION mq.extend_batch(queue text, ids bigint[], receipts bigint[], lease interval, strict boolean DEFAULT false)
RETURNS integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_extend_batch';
COMMENT ON FUNCTION mq.extend_batch(text, bigint[], bigint[], interval, boolean) IS
'mq.extend for many; returns how many deliveries were current. receipts: one for all, or one each.';

CREATE FUNCTION mq.ack_dequeue(
    queue    text,
    ids      bigint[],
    receipts bigint[],
    max      integer DEFAULT 1,
    lease    interval DEFAULT NULL,
    wait     interval DEFAULT '0',
    auto_ack boolean DEFAULT false,
    session  boolean DEFAULT false,
    consumer text DEFAULT NULL,
    match    jsonb DEFAULT NULL)
RETURNS SETOF mq.message LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'mq_sql_ack_dequeue';
COMMENT ON FUNCTION mq.ack_dequeue(text, bigint[], bigint[], integer, interval, interval, boolean, boolean, text, jsonb) IS
'mq.ack_batch of the last batch, then mq.dequeue of the next. ids, receipts: of the last batch; the other arguments as in mq.dequeue.';

CREATE PROCEDURE mq.wait(queue text, timeout interval)
LANGUAGE C AS 'MODULE_PATHNAME', 'mq_sql_wait';
COMMENT ON PROCEDURE mq.wait(text, interval) IS
'Returns when the queue has something ready, or after timeout; holds no snapshot and no lock while it waits.';

CREATE FUNCTION mq.replay(queue text, since timestamptz, until timestamptz DEFAULT NULL)
RETURNS bigint LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.replay(text, timestamptz, timestamptz) IS
'Enqueues archived messages again, as new ones; returns how many. since, until: acknowledged between these times, until NULL = now.';


--
-- Routing
--

CREATE FUNCTION mq.create_exchange(
    name text, type text DEFAULT 'topic', alternate text DEFAULT NULL, if_not_exists boolean DEFAULT false)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
REVOKE ALL ON FUNCTION mq.create_exchange(text, text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.create_exchange(text, text, text, boolean) IS
'Makes an exchange. type: direct, topic, fanout or headers. alternate: exchange for messages that no binding takes. if_not_exists: leave one that exists as it is.';

CREATE FUNCTION mq.drop_exchange(name text, if_exists boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.drop_exchange(text, boolean) IS
'Drops an exchange with its bindings. if_exists: return false instead of an error where there is none.';

CREATE FUNCTION mq.bind(exchange text, queue text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.bind(text, text, text, jsonb) IS
'Lets an exchange send to a queue; again is the same as once. pattern: of the routing key, words between dots, * one word, # zero or more. match: headers wanted, with x-match all or any.';

CREATE FUNCTION mq.unbind(exchange text, queue text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.unbind(text, text, text, jsonb) IS
'Removes a binding made with the same arguments; false if there is none.';

CREATE FUNCTION mq.bind_exchange(source text, destination text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.bind_exchange(text, text, text, jsonb) IS
'Lets exchange source send to exchange destination. pattern, match: as in mq.bind.';

CREATE FUNCTION mq.unbind_exchange(source text, destination text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.unbind_exchange(text, text, text, jsonb) IS
'Removes a binding made with the same arguments; false if there is none.';

CREATE FUNCTION mq.publish(
    exchange    text,
    routing_key text,
    body        jsonb DEFAULT NULL,
    headers     jsonb DEFAULT NULL,
    delay       interval DEFAULT NULL,
    priority    integer DEFAULT 0,
    key         text DEFAULT NULL,
    dedup_id    text DEFAULT NULL,
    ttl         interval DEFAULT NULL,
    deliver_at  timestamptz DEFAULT NULL,
    data        bytea DEFAULT NULL,
    mandatory   boolean DEFAULT false)
RETURNS integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.publish(text, text, jsonb, jsonb, interval, integer, text, text, interval, timestamptz, bytea, boolean) IS
'Enqueues a message into every queue the exchange routes it to; returns how many. exchange: its name, empty = the queue named by the key. routing_key: what bindings look at. mandatory: an error if no queue takes it. The other arguments as in mq.enqueue.';

CREATE FUNCTION mq.publish_batch(
    exchange     text,
    routing_keys text[],
    bodies       jsonb[] DEFAULT NULL,
    headers      jsonb[] DEFAULT NULL,
    delay        interval DEFAULT NULL,
    priority     integer DEFAULT 0,
    keys         text[] DEFAULT NULL,
    dedup_ids    text[] DEFAULT NULL,
    ttl          interval DEFAULT NULL,
    deliver_at   timestamptz DEFAULT NULL,
    datas        bytea[] DEFAULT NULL,
    mandatory    boolean DEFAULT false)
RETURNS SETOF integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.publish_batch(text, text[], jsonb[], jsonb[], interval, integer, text[], text[], interval, timestamptz,
    bytea[], boolean) IS
'mq.publish for many; returns the number of queues for each, in order. Arrays have one length, or are NULL.';

CREATE FUNCTION mq.import_definitions(definitions jsonb, dry_run boolean DEFAULT false)
RETURNS TABLE (kind text, name text, action text, note text)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.import_definitions(jsonb, boolean) IS
'Makes the queues, exchanges and bindings of a RabbitMQ definitions file; returns what was done with each. dry_run: only say it.';

CREATE FUNCTION mq.grant_exchange(exchange text, role name)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.grant_exchange(text, name) IS 'Lets a role publish to an exchange.';

CREATE FUNCTION mq.revoke_exchange(exchange text, role name)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_not_yet';
COMMENT ON FUNCTION mq.revoke_exchange(text, name) IS 'Takes back mq.grant_exchange.';


--
-- What shared memory knows. These check the caller's privileges themselves.
--

CREATE FUNCTION mq.lease_state$(relation regclass, id bigint)
RETURNS text LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_lease_state';
COMMENT ON FUNCTION mq.lease_state$(regclass, bigint) IS
'leased; delayed or ready: failed, but not yet written to the row; NULL: not in the lease table';

CREATE TYPE mq.lease$ AS (
    relation    oid,
    id          bigint,
    state       text,
    receipt     bigint,
    consumer    text,
    pid         integer,
    attempt     integer,
    leased_at   timestamptz,
    lease_until timestamptz
);
COMMENT ON TYPE mq.lease$ IS 'an entry of the lease table; state and attempt of the current or next delivery as in mq.browse';

CREATE FUNCTION mq.leases$(relation regclass)
RETURNS SETOF mq.lease$ LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 1000
AS 'MODULE_PATHNAME', 'mq_sql_leases';
COMMENT ON FUNCTION mq.leases$(regclass) IS
'the leases of this queue''s table, NULL = of this database, those that have failed and are not yet written to their rows included';

CREATE FUNCTION mq.stats$(
    relation oid,
    OUT ready bigint, OUT delayed bigint, OUT in_flight bigint, OUT oldest_ready_age interval,
    OUT enqueued bigint, OUT delivered bigint, OUT acked bigint, OUT nacked bigint, OUT expired bigint,
    OUT redelivered bigint, OUT dead bigint, OUT consumers_waiting bigint, OUT exact boolean, OUT since timestamptz,
    OUT rows_examined bigint, OUT blocks_touched bigint)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_stats';
COMMENT ON FUNCTION mq.stats$(oid) IS 'counters of the queue with this table; see mq.stats';

CREATE FUNCTION mq.worker_start$()
RETURNS void LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_worker_start';
REVOKE ALL ON FUNCTION mq.worker_start$() FROM PUBLIC;
COMMENT ON FUNCTION mq.worker_start$() IS 'asks for this database''s worker, at commit';


--
-- Names
--

CREATE FUNCTION mq.is_name$(name text)
RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN name COLLATE "C" ~ '^[A-Za-z_][A-Za-z0-9_.-]{0,53}$';
COMMENT ON FUNCTION mq.is_name$(text) IS 'whether this can be the name of a queue or exchange';

CREATE FUNCTION mq.relation$(queue text)
RETURNS regclass LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN mq.is_name$(queue) THEN to_regclass(format('mq.%I', 'q_' || queue)) END;
COMMENT ON FUNCTION mq.relation$(text) IS 'a queue''s table, NULL if there is none';

CREATE FUNCTION mq.check_name$(name text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION 'a name must not be null' USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT mq.is_name$(name) THEN
        RAISE EXCEPTION '"%" is not a valid name', name
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'A name is 1 to 54 ASCII letters, digits, "_", "-" and ".", starting with a letter or "_".';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.check_name$(text) FROM PUBLIC;
COMMENT ON FUNCTION mq.check_name$(text) IS 'raises 22023 unless this can be the name of a queue or exchange';

CREATE FUNCTION mq.require$(queue text)
RETURNS regclass LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT regclass := mq.relation$(queue);
BEGIN
    IF queue IS NULL THEN
        RAISE EXCEPTION 'queue must not be null' USING ERRCODE = 'invalid_parameter_value';
    ELSIF relation IS NULL THEN
        RAISE EXCEPTION 'queue "%" does not exist', queue
            USING ERRCODE = 'undefined_object', HINT = 'Create it with mq.create_queue.';
    END IF;
    RETURN relation;
END
$$;
COMMENT ON FUNCTION mq.require$(text) IS 'a queue''s table; raises 42704 if there is none, 22023 for NULL';


--
-- Administration. What users call checks nothing: it calls the function of
-- the same name with a $ as the extension's owner, the caller's role first.
--

CREATE FUNCTION mq.create_queue(
    name                 text,
    lease                interval DEFAULT '30 seconds',
    max_attempts         integer DEFAULT 20,
    backoff              interval DEFAULT '1 second',
    backoff_limit        interval DEFAULT '1 hour',
    dead_letter          text DEFAULT '%_dead',
    ttl                  interval DEFAULT NULL,
    max_length           bigint DEFAULT NULL,
    overflow             text DEFAULT 'reject',
    ordered              boolean DEFAULT false,
    dedup_window         interval DEFAULT '5 minutes',
    retain               interval DEFAULT NULL,
    unlogged             boolean DEFAULT false,
    max_in_flight        bigint DEFAULT NULL,
    rate_limit           double precision DEFAULT NULL,
    dead_letter_exchange text DEFAULT NULL,
    dead_letter_key      text DEFAULT NULL,
    if_not_exists        boolean DEFAULT false)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
REVOKE ALL ON FUNCTION mq.create_queue(text, interval, integer, interval, interval, text, interval, bigint, text, boolean, interval,
    interval, boolean, bigint, double precision, text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.create_queue(text, interval, integer, interval, interval, text, interval, bigint, text, boolean, interval,
    interval, boolean, bigint, double precision, text, text, boolean) IS
'Makes a queue, owned by the caller. name: 1 to 54 letters, digits, _, - and . starting with a letter or _. lease: how long a delivery stays invisible. max_attempts: failed deliveries before the dead letters, 0 = no limit. backoff: delay before the second attempt, doubling up to backoff_limit. dead_letter: queue for dead messages, % = this name, made when missing, empty = none. ttl: a message not consumed this long after it came due is dead. max_length: messages, ready and delayed. overflow: past that reject or drop_head. ordered: messages of one key one at a time. dedup_window: how long a dedup_id is remembered, 0 = while its message exists. retain: how long acknowledged messages stay in the archive. unlogged: fast, emptied by a crash. max_in_flight: leased messages at most. rate_limit: deliveries a second. dead_letter_exchange, dead_letter_key: publish dead messages there instead. if_not_exists: leave one that exists as it is, with a notice if its options differ.';

CREATE FUNCTION mq.alter_queue(
    name                 text,
    lease                interval DEFAULT NULL,
    max_attempts         integer DEFAULT NULL,
    backoff              interval DEFAULT NULL,
    backoff_limit        interval DEFAULT NULL,
    dead_letter          text DEFAULT NULL,
    ttl                  interval DEFAULT NULL,
    max_length           bigint DEFAULT NULL,
    overflow             text DEFAULT NULL,
    ordered              boolean DEFAULT NULL,
    dedup_window         interval DEFAULT NULL,
    retain               interval DEFAULT NULL,
    max_in_flight        bigint DEFAULT NULL,
    rate_limit           double precision DEFAULT NULL,
    dead_letter_exchange text DEFAULT NULL,
    dead_letter_key      text DEFAULT NULL,
    unset                text[] DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.alter_queue(text, interval, integer, interval, interval, text, interval, bigint, text, boolean, interval,
    interval, bigint, double precision, text, text, text[]) IS
'Changes options of a queue; NULL leaves an option as it is. unset: names of options to put back to NULL. The other arguments as in mq.create_queue. Owner only.';

CREATE FUNCTION mq.drop_queue(name text, if_exists boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.drop_queue(text, boolean) IS
'Drops a queue with its messages; its dead-letter queue stays. Refused while another queue or a binding refers to it. if_exists: return false instead of an error where there is none. Owner only.';

CREATE FUNCTION mq.pause(queue text)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.pause(text) IS 'Stops deliveries of a queue, at commit; enqueue goes on. Owner only.';

CREATE FUNCTION mq.resume(queue text)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.resume(text) IS 'Ends mq.pause, at commit. Owner only.';

CREATE FUNCTION mq.grant(queue text, role name, privilege text)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.grant(text, name, text) IS
'Grants on a queue''s table. role: who gets it, public = everybody. privilege: send (INSERT), receive (SELECT, DELETE) or browse (SELECT). Owner only.';

CREATE FUNCTION mq.revoke(queue text, role name, privilege text)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.revoke(text, name, text) IS
'Revokes on a queue''s table. role: from whom, public = everybody. privilege: send (INSERT), receive (SELECT, DELETE) or browse (SELECT). Owner only.';

CREATE FUNCTION mq.defaults$()
RETURNS mq.queue$ LANGUAGE sql STABLE
RETURN ROW(NULL, 1::smallint, '30 seconds'::interval, 20, '1 second'::interval, '1 hour'::interval, '%_dead', NULL::interval,
           NULL::bigint, 'reject', false, '5 minutes'::interval, NULL::interval, false, NULL::bigint,
           NULL::double precision, NULL, NULL, false)::mq.queue$;
REVOKE ALL ON FUNCTION mq.defaults$() FROM PUBLIC;
COMMENT ON FUNCTION mq.defaults$() IS 'the defaults of mq.create_queue, dead_letter not yet resolved';

CREATE FUNCTION mq.check_options$(options mq.queue$)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    longest CONSTANT interval := '1000 years';
    usual   CONSTANT mq.queue$ := mq.defaults$();
    wrong   record;
BEGIN
    SELECT rule.option, rule.wanted INTO wrong
    FROM (VALUES
        ('lease', options.lease > '0' AND options.lease <= longest, 'more than 0 and at most 1000 years'),
        ('max_attempts', options.max_attempts >= 0, '0 or more'),
        ('backoff', options.backoff >= '0' AND options.backoff <= longest, '0 or more and at most 1000 years'),
        ('backoff_limit', options.backoff_limit >= '0' AND options.backoff_limit <= longest, '0 or more and at most 1000 years'),
        ('ttl', options.ttl > '0' AND options.ttl <= longest, 'more than 0 and at most 1000 years'),
        ('max_length', options.max_length >= 1, '1 or more'),
        ('overflow', options.overflow IN ('reject', 'drop_head'), '"reject" or "drop_head"'),
        ('dedup_window', options.dedup_window >= '0' AND options.dedup_window <= longest, '0 or more and at most 1000 years'),
        ('retain', options.retain > '0' AND options.retain <= longest, 'more than 0 and at most 1000 years'),
        ('max_in_flight', options.max_in_flight >= 1, '1 or more'),
        ('rate_limit', options.rate_limit > 0 AND options.rate_limit < 'Infinity', 'more than 0 and finite'),
        ('dead_letter_exchange', options.dead_letter_exchange = '' OR mq.is_name$(options.dead_letter_exchange),
         'empty or the name of an exchange')
    ) AS rule (option, kept, wanted)
    WHERE NOT rule.kept
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% must be %', wrong.option, wrong.wanted USING ERRCODE = 'invalid_parameter_value';
    END IF;

    SELECT later.option INTO wrong
    FROM (VALUES
        ('ttl', options.ttl IS NOT NULL),
        ('max_length', options.max_length IS NOT NULL),
        ('overflow', options.overflow <> usual.overflow),
        ('ordered', options.ordered),
        ('dedup_window', options.dedup_window <> usual.dedup_window),
        ('retain', options.retain IS NOT NULL),
        ('max_in_flight', options.max_in_flight IS NOT NULL),
        ('rate_limit', options.rate_limit IS NOT NULL),
        ('dead_letter_exchange', options.dead_letter_exchange IS NOT NULL),
        ('dead_letter_key', options.dead_letter_key IS NOT NULL)
    ) AS later (option, used)
    WHERE later.used
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% is not supported yet', wrong.option USING ERRCODE = 'feature_not_supported';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.check_options$(mq.queue$) FROM PUBLIC;
COMMENT ON FUNCTION mq.check_options$(mq.queue$) IS
'raises 22023 for a value no queue can have, 0A000 for one this version cannot serve';

CREATE FUNCTION mq.dead_letter$(queue text, dead_letter text)
RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    resolved CONSTANT text := replace(dead_letter, '%', queue);
BEGIN
    IF resolved = '' THEN
        RETURN NULL;
    ELSIF NOT mq.is_name$(resolved) THEN
        RAISE EXCEPTION 'name of the dead-letter queue is not valid: "%"', resolved
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Choose one with dead_letter, '''' for none. A name is 1 to 54 ASCII letters, digits, "_", "-" and ".", '
                         'starting with a letter or "_".';
    ELSIF resolved = queue COLLATE "C" THEN
        RAISE EXCEPTION 'queue "%" cannot be its own dead-letter queue', queue USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN resolved;
END
$$;
REVOKE ALL ON FUNCTION mq.dead_letter$(text, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.dead_letter$(text, text) IS
'the dead-letter queue that a queue''s option dead_letter means, NULL = none';

CREATE FUNCTION mq.forget$(queue text)
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known boolean;
BEGIN
    DELETE FROM mq.queue$ q WHERE q.name = forget$.queue;
    known := FOUND;
    DELETE FROM mq.dedup$ d WHERE d.queue = forget$.queue;
    RETURN known;
END
$$;
REVOKE ALL ON FUNCTION mq.forget$(text) FROM PUBLIC;
COMMENT ON FUNCTION mq.forget$(text) IS 'removes a queue from the catalog; whether it was there';

CREATE FUNCTION mq.make_table$(owner oid, queue text, unlogged boolean)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET default_tablespace = ''
AS $$
DECLARE
    relation CONSTANT text := 'q_' || queue;
BEGIN
    EXECUTE format($query$
        CREATE %s TABLE mq.%I (
            id          bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME mq.%I MAXVALUE 9007199254740991),
            enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            attempts    integer NOT NULL DEFAULT 0 CONSTRAINT attempts$check CHECK (attempts >= 0),
            priority    smallint NOT NULL DEFAULT 0 CONSTRAINT priority$check CHECK (priority BETWEEN 0 AND 9),
            ready_at    timestamptz,
            expires_at  timestamptz,
            key         text CONSTRAINT key$check CHECK (octet_length(key) <= 1000),
            dedup_id    text CONSTRAINT dedup_id$check CHECK (octet_length(dedup_id) <= 1000),
            headers     jsonb CONSTRAINT headers$check CHECK (jsonb_typeof(headers) = 'object'),
            body        jsonb,
            data        bytea,
            last_error  text,
            CONSTRAINT body$check CHECK (body IS NULL OR data IS NULL),
            CONSTRAINT %I PRIMARY KEY (id)
        ) USING heap WITH (
            autovacuum_vacuum_scale_factor = 0,
            autovacuum_vacuum_threshold = 5000,
            autovacuum_vacuum_insert_scale_factor = 0.2
        )$query$, CASE WHEN unlogged THEN 'UNLOGGED' END, relation, relation || '$id', relation || '$pkey');
    EXECUTE format('CREATE INDEX %I ON mq.%I (priority, ready_at, id) WHERE priority <> 0 OR ready_at IS NOT NULL',
                   relation || '$ready', relation);
    EXECUTE format('CREATE INDEX %I ON mq.%I (expires_at) WHERE expires_at IS NOT NULL', relation || '$expiry', relation);
    EXECUTE format('CREATE INDEX %I ON mq.%I (key, id) WHERE key IS NOT NULL', relation || '$key', relation);
    EXECUTE format('CREATE INDEX %I ON mq.%I (dedup_id) WHERE dedup_id IS NOT NULL', relation || '$dedup', relation);
    EXECUTE format('CREATE TRIGGER mq$before BEFORE INSERT OR UPDATE ON mq.%I FOR EACH ROW EXECUTE FUNCTION mq.queue_before$()',
                   relation);
    EXECUTE format('CREATE TRIGGER mq$after AFTER INSERT OR UPDATE OR DELETE ON mq.%I '
                   'FOR EACH ROW EXECUTE FUNCTION mq.queue_after$()', relation);
    EXECUTE format('CREATE TRIGGER mq$truncate AFTER TRUNCATE ON mq.%I FOR EACH STATEMENT EXECUTE FUNCTION mq.queue_truncate$()',
                   relation);
    EXECUTE format('ALTER TABLE mq.%I ENABLE ALWAYS TRIGGER mq$before, ENABLE ALWAYS TRIGGER mq$after, '
                   'ENABLE ALWAYS TRIGGER mq$truncate', relation);
    IF unlogged THEN
        -- a crash empties the table; the ids it had handed out must not come again
        EXECUTE format('ALTER SEQUENCE mq.%I SET LOGGED', relation || '$id');
    END IF;
    EXECUTE format('ALTER TABLE mq.%I OWNER TO %I', relation, pg_get_userbyid(owner));
END
$$;
REVOKE ALL ON FUNCTION mq.make_table$(oid, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.make_table$(oid, text, boolean) IS 'makes the table of a queue for its owner';

CREATE FUNCTION mq.make_queue$(owner oid, options mq.queue$)
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The catalog row decides between sessions that make the same queue.
    LOOP
        INSERT INTO mq.queue$ SELECT options.* ON CONFLICT (name) DO NOTHING;
        EXIT WHEN FOUND;
        IF mq.relation$(options.name) IS NOT NULL THEN
            -- keeps mq.drop_queue away until this transaction ends
            PERFORM FROM mq.queue$ q WHERE q.name = options.name FOR KEY SHARE;
            IF FOUND AND mq.relation$(options.name) IS NOT NULL THEN
                RETURN false;
            END IF;
        ELSE
            -- its owner dropped the table: the row is a leftover
            PERFORM FROM mq.queue$ q WHERE q.name = options.name FOR UPDATE;
            IF FOUND AND mq.relation$(options.name) IS NULL THEN
                PERFORM mq.forget$(options.name);
                DELETE FROM mq.binding$ b WHERE b.queue = options.name;
            END IF;
        END IF;
    END LOOP;
    IF mq.relation$(options.name) IS NOT NULL THEN
        RAISE EXCEPTION 'relation % already exists and is no queue''s', mq.relation$(options.name)
            USING ERRCODE = 'duplicate_object';
    END IF;
    PERFORM mq.make_table$(owner, options.name, options.unlogged);
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION mq.make_queue$(oid, mq.queue$) FROM PUBLIC;
COMMENT ON FUNCTION mq.make_queue$(oid, mq.queue$) IS 'makes a queue with these options; false if it exists';

CREATE FUNCTION mq.name_dead_letter$(owner oid, options mq.queue$, generated boolean)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    dead mq.queue$ := mq.defaults$();
BEGIN
    IF options.dead_letter IS NULL THEN
        RETURN;
    END IF;
    dead.name := options.dead_letter;
    dead.dead_letter := NULL;
    dead.max_attempts := 0;
    IF NOT mq.make_queue$(owner, dead)
       AND NOT has_table_privilege(owner, mq.relation$(dead.name), 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for queue "%"', dead.name
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('The owner of queue "%s" needs INSERT on its dead-letter queue.', options.name),
                  HINT = 'Its owner can grant it with mq.grant.';
    ELSIF generated
          AND (SELECT c.relowner FROM pg_class c WHERE c.oid = mq.relation$(dead.name)) <> owner THEN
        -- whoever took the name first shall not get what dies here without having been named
        RAISE EXCEPTION 'queue "%" belongs to another role', dead.name
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Name it, or another one, with dead_letter.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.name_dead_letter$(oid, mq.queue$, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.name_dead_letter$(oid, mq.queue$, boolean) IS
'makes a queue''s dead-letter queue where it is missing; else raises 42501 unless the queue''s owner may send there';

CREATE FUNCTION mq.create_queue$(
    caller oid, name text, lease interval, max_attempts integer, backoff interval, backoff_limit interval, dead_letter text,
    ttl interval, max_length bigint, overflow text, ordered boolean, dedup_window interval, retain interval, unlogged boolean,
    max_in_flight bigint, rate_limit double precision, dead_letter_exchange text, dead_letter_key text, if_not_exists boolean)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    options mq.queue$ := mq.defaults$();
    present mq.queue$;
    differ  text;
BEGIN
    PERFORM mq.check_name$(name);
    options.name := name;
    options.lease := coalesce(lease, options.lease);
    options.max_attempts := coalesce(max_attempts, options.max_attempts);
    options.backoff := coalesce(backoff, options.backoff);
    options.backoff_limit := coalesce(backoff_limit, options.backoff_limit);
    options.ttl := ttl;
    options.max_length := max_length;
    options.overflow := coalesce(overflow, options.overflow);
    options.ordered := coalesce(ordered, options.ordered);
    options.dedup_window := coalesce(dedup_window, options.dedup_window);
    options.retain := retain;
    options.unlogged := coalesce(unlogged, options.unlogged);
    options.max_in_flight := max_in_flight;
    options.rate_limit := rate_limit;
    options.dead_letter_exchange := dead_letter_exchange;
    options.dead_letter_key := dead_letter_key;
    options.dead_letter := mq.dead_letter$(name, coalesce(dead_letter, options.dead_letter));
    PERFORM mq.check_options$(options);

    IF mq.make_queue$(caller, options) THEN
        PERFORM mq.name_dead_letter$(caller, options, coalesce(dead_letter, '%') LIKE '%\%%');
        RETURN;
    ELSIF if_not_exists IS NOT TRUE THEN
        RAISE EXCEPTION 'queue "%" already exists', name USING ERRCODE = 'duplicate_object';
    END IF;
    SELECT q.* INTO present FROM mq.queue$ q WHERE q.name = create_queue$.name;
    SELECT string_agg(wanted.key, ', ' ORDER BY wanted.key) INTO differ
    FROM jsonb_each(to_jsonb(options) - '{layout,paused}'::text[]) AS wanted (key, value)
    WHERE wanted.value IS DISTINCT FROM to_jsonb(present) -> wanted.key;
    IF differ IS NOT NULL THEN
        RAISE NOTICE 'queue "%" already exists with other options, nothing changed', name
            USING DETAIL = format('These differ: %s.', differ), HINT = 'Change them with mq.alter_queue.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.create_queue$(oid, text, interval, integer, interval, interval, text, interval, bigint, text, boolean,
    interval, interval, boolean, bigint, double precision, text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.create_queue$(oid, text, interval, integer, interval, interval, text, interval, bigint, text, boolean,
    interval, interval, boolean, bigint, double precision, text, text, boolean) IS 'mq.create_queue, run as the extension''s owner';

CREATE FUNCTION mq.require_owner$(caller oid, queue text)
RETURNS regclass LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT regclass := mq.require$(queue);
BEGIN
    PERFORM FROM pg_class c WHERE c.oid = relation AND pg_has_role(caller, c.relowner, 'USAGE');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'must be owner of queue "%"', queue USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN relation;
END
$$;
REVOKE ALL ON FUNCTION mq.require_owner$(oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.require_owner$(oid, text) IS
'a queue''s table; raises 42704 if there is none, 42501 if the caller does not own it';

CREATE FUNCTION mq.alter_queue$(
    caller oid, name text, lease interval, max_attempts integer, backoff interval, backoff_limit interval, dead_letter text,
    ttl interval, max_length bigint, overflow text, ordered boolean, dedup_window interval, retain interval,
    max_in_flight bigint, rate_limit double precision, dead_letter_exchange text, dead_letter_key text, unset text[])
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation  CONSTANT regclass := mq.require_owner$(caller, name);
    clearable CONSTANT text[] := '{ttl,max_length,retain,max_in_flight,rate_limit,dead_letter_exchange,dead_letter_key}';
    given     CONSTANT jsonb := jsonb_strip_nulls(jsonb_build_object(
        'ttl', ttl, 'max_length', max_length, 'retain', retain, 'max_in_flight', max_in_flight, 'rate_limit', rate_limit,
        'dead_letter_exchange', dead_letter_exchange, 'dead_letter_key', dead_letter_key));
    options   mq.queue$;
    before    text;
    option    text;
BEGIN
    SELECT q.* INTO options FROM mq.queue$ q WHERE q.name = alter_queue$.name FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', name
            USING ERRCODE = 'undefined_object', HINT = 'Create it with mq.create_queue.';
    END IF;
    before := options.dead_letter;
    options.lease := coalesce(lease, options.lease);
    options.max_attempts := coalesce(max_attempts, options.max_attempts);
    options.backoff := coalesce(backoff, options.backoff);
    options.backoff_limit := coalesce(backoff_limit, options.backoff_limit);
    options.ttl := coalesce(ttl, options.ttl);
    options.max_length := coalesce(max_length, options.max_length);
    options.overflow := coalesce(overflow, options.overflow);
    options.ordered := coalesce(ordered, options.ordered);
    options.dedup_window := coalesce(dedup_window, options.dedup_window);
    options.retain := coalesce(retain, options.retain);
    options.max_in_flight := coalesce(max_in_flight, options.max_in_flight);
    options.rate_limit := coalesce(rate_limit, options.rate_limit);
    options.dead_letter_exchange := coalesce(dead_letter_exchange, options.dead_letter_exchange);
    options.dead_letter_key := coalesce(dead_letter_key, options.dead_letter_key);
    IF dead_letter IS NOT NULL THEN
        options.dead_letter := mq.dead_letter$(name, dead_letter);
    END IF;
    FOREACH option IN ARRAY coalesce(unset, '{}') LOOP
        IF option IS NULL OR option <> ALL (clearable) THEN
            RAISE EXCEPTION 'option cannot be unset: %', quote_nullable(option)
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = format('These can: %s.', array_to_string(clearable, ', '));
        ELSIF given ? option THEN
            RAISE EXCEPTION '% is both set and unset', option USING ERRCODE = 'invalid_parameter_value';
        END IF;
        options := jsonb_populate_record(options, jsonb_build_object(option, NULL));
    END LOOP;
    PERFORM mq.check_options$(options);
    IF options.dead_letter IS DISTINCT FROM before THEN
        PERFORM mq.name_dead_letter$(c.relowner, options, dead_letter LIKE '%\%%') FROM pg_class c WHERE c.oid = relation;
    END IF;

    UPDATE mq.queue$ q
    SET lease = options.lease, max_attempts = options.max_attempts, backoff = options.backoff,
        backoff_limit = options.backoff_limit, dead_letter = options.dead_letter, ttl = options.ttl,
        max_length = options.max_length, overflow = options.overflow, ordered = options.ordered,
        dedup_window = options.dedup_window, retain = options.retain, max_in_flight = options.max_in_flight,
        rate_limit = options.rate_limit, dead_letter_exchange = options.dead_letter_exchange,
        dead_letter_key = options.dead_letter_key
    WHERE q.name = alter_queue$.name;
END
$$;
REVOKE ALL ON FUNCTION mq.alter_queue$(oid, text, interval, integer, interval, interval, text, interval, bigint, text, boolean,
    interval, interval, bigint, double precision, text, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION mq.alter_queue$(oid, text, interval, integer, interval, interval, text, interval, bigint, text, boolean,
    interval, interval, bigint, double precision, text, text, text[]) IS 'mq.alter_queue, run as the extension''s owner';

CREATE FUNCTION mq.drop_queue$(caller oid, name text, if_exists boolean)
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known    boolean;
    referrer text;
BEGIN
    IF name IS NULL THEN
        RAISE EXCEPTION 'name must not be null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- whoever names this queue holds FOR KEY SHARE on the row: look for references only after the lock
    PERFORM FROM mq.queue$ q WHERE q.name = drop_queue$.name FOR UPDATE;
    known := FOUND;
    IF mq.relation$(name) IS NOT NULL THEN
        PERFORM mq.require_owner$(caller, name);
    ELSIF NOT known THEN
        IF if_exists THEN
            RETURN false;
        END IF;
        PERFORM mq.require$(name);
    END IF;

    SELECT string_agg(reference.text, E'\n' ORDER BY reference.text) INTO referrer
    FROM (SELECT format('Queue "%s" has it as dead-letter queue.', q.name)
          FROM mq.queue$ q
          WHERE q.dead_letter = drop_queue$.name AND mq.relation$(q.name) IS NOT NULL
          UNION ALL
          SELECT format('Exchange "%s" is bound to it with pattern "%s".', b.exchange, b.pattern)
          FROM mq.binding$ b
          WHERE b.queue = drop_queue$.name) AS reference (text);
    IF referrer IS NOT NULL THEN
        RAISE EXCEPTION 'cannot drop queue "%" because others refer to it', name
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = referrer,
                  HINT = 'Drop or alter them first.';
    END IF;

    PERFORM mq.forget$(name);
    IF mq.relation$(name) IS NOT NULL THEN
        EXECUTE format('DROP TABLE mq.%I', 'q_' || name);
    END IF;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION mq.drop_queue$(oid, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.drop_queue$(oid, text, boolean) IS 'mq.drop_queue, run as the extension''s owner';

CREATE FUNCTION mq.pause$(caller oid, queue text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.require_owner$(caller, queue);
    UPDATE mq.queue$ q SET paused = true WHERE q.name = pause$.queue AND NOT q.paused;
END
$$;
REVOKE ALL ON FUNCTION mq.pause$(oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.pause$(oid, text) IS 'mq.pause, run as the extension''s owner';

CREATE FUNCTION mq.resume$(caller oid, queue text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.require_owner$(caller, queue);
    UPDATE mq.queue$ q SET paused = false WHERE q.name = resume$.queue AND q.paused;
END
$$;
REVOKE ALL ON FUNCTION mq.resume$(oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.resume$(oid, text) IS 'mq.resume, run as the extension''s owner';

CREATE FUNCTION mq.rights$(role name, privilege text, OUT rights text, OUT grantee text)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    rights := CASE privilege WHEN 'send' THEN 'INSERT' WHEN 'receive' THEN 'SELECT, DELETE' WHEN 'browse' THEN 'SELECT' END;
    grantee := CASE role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(role) END;
    IF rights IS NULL THEN
        RAISE EXCEPTION 'privilege must be "send", "receive" or "browse", not %', quote_nullable(privilege)
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF grantee IS NULL THEN
        RAISE EXCEPTION 'role must not be null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.rights$(name, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.rights$(name, text) IS 'what send, receive and browse mean in GRANT, and the role as it is written there';

CREATE FUNCTION mq.grant$(caller oid, queue text, role name, privilege text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT regclass := mq.require_owner$(caller, queue);
    give     CONSTANT record := mq.rights$(role, privilege);
BEGIN
    EXECUTE format('GRANT %s ON TABLE %s TO %s', give.rights, relation, give.grantee);
END
$$;
REVOKE ALL ON FUNCTION mq.grant$(oid, text, name, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.grant$(oid, text, name, text) IS 'mq.grant, run as the extension''s owner';

CREATE FUNCTION mq.revoke$(caller oid, queue text, role name, privilege text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT regclass := mq.require_owner$(caller, queue);
    take     CONSTANT record := mq.rights$(role, privilege);
BEGIN
    EXECUTE format('REVOKE %s ON TABLE %s FROM %s', take.rights, relation, take.grantee);
END
$$;
REVOKE ALL ON FUNCTION mq.revoke$(oid, text, name, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.revoke$(oid, text, name, text) IS 'mq.revoke, run as the extension''s owner';


--
-- The operator's verbs: the library checks that the caller owns the queue and
-- runs the function of the same name with a $ as the table's owner. A row is
-- locked first and its lease looked at then: a consumer that leases it later
-- finds it locked and passes on.
--

CREATE FUNCTION mq.purge(queue text)
RETURNS bigint LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_queue_owner';
COMMENT ON FUNCTION mq.purge(text) IS
'Deletes a queue''s ready and delayed messages, not leased ones; returns how many. Owner only.';

CREATE FUNCTION mq.redrive(dead_queue text, max bigint DEFAULT NULL, target text DEFAULT NULL)
RETURNS bigint LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_queue_owner';
COMMENT ON FUNCTION mq.redrive(text, bigint, text) IS
'Sends dead messages back to the queues where they died, due now; returns how many. max: at most so many, oldest first. target: all to this queue instead. Owner only.';

CREATE FUNCTION mq.delete(queue text, ids bigint[])
RETURNS integer LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_queue_owner';
COMMENT ON FUNCTION mq.delete(text, bigint[]) IS
'Deletes messages, whoever holds them; returns how many. ids: which. Owner only.';

CREATE FUNCTION mq.purge$(queue text)
RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT regclass := mq.require$(queue);
    purged   bigint;
BEGIN
    EXECUTE format($query$
        WITH locked AS MATERIALIZED (
            SELECT m.id FROM mq.%1$I m
            WHERE mq.lease_state$($1, m.id) IS DISTINCT FROM 'leased'
            FOR UPDATE SKIP LOCKED)
        DELETE FROM mq.%1$I m USING locked l
        WHERE m.id = l.id AND mq.lease_state$($1, l.id) IS DISTINCT FROM 'leased'
        $query$, 'q_' || queue) USING relation;
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION mq.purge$(text) IS 'mq.purge with the caller''s own privileges';

CREATE FUNCTION mq.redrive$(dead_queue text, max bigint, target text)
RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT regclass := mq.require$(dead_queue);
    moved    bigint;
    last_id  bigint;
    left_out bigint;
BEGIN
    IF max < 1 THEN
        RAISE EXCEPTION 'max must be 1 or more' USING ERRCODE = 'invalid_parameter_value';
    ELSIF target IS NOT NULL THEN
        PERFORM mq.require$(target);
        IF target = dead_queue COLLATE "C" THEN
            RAISE EXCEPTION 'queue "%" cannot be redriven into itself', dead_queue USING ERRCODE = 'invalid_parameter_value';
        END IF;
    END IF;

    EXECUTE format($query$
        WITH locked AS MATERIALIZED (
            SELECT m.id, coalesce($2, m.headers -> 'x-death' -> 0 ->> 'queue') AS origin
            FROM mq.%1$I m
            WHERE ($2 IS NOT NULL OR mq.redrivable$($3, m.headers -> 'x-death' -> 0 ->> 'queue'))
              AND mq.lease_state$($1, m.id) IS DISTINCT FROM 'leased'
            ORDER BY m.id
            FOR UPDATE SKIP LOCKED
        ), chosen AS MATERIALIZED (
            SELECT l.id, l.origin FROM locked l
            WHERE mq.lease_state$($1, l.id) IS DISTINCT FROM 'leased'
            LIMIT $4
        ), moved AS (
            DELETE FROM mq.%1$I m USING chosen c
            WHERE m.id = c.id
            RETURNING c.origin, m.id, m.body, m.headers, m.priority, m.key, m.data
        )
        SELECT count(mq.enqueue(d.origin, d.body, d.headers, priority => d.priority, key => d.key, data => d.data)), max(d.id)
        FROM (SELECT * FROM moved ORDER BY id) d
        $query$, 'q_' || dead_queue)
        INTO moved, last_id USING relation, target, dead_queue, max;

    IF target IS NULL THEN
        EXECUTE format($query$
            SELECT count(*) FROM mq.%I m
            WHERE ($2 IS NULL OR m.id < $2)
              AND mq.redrivable$($1, m.headers -> 'x-death' -> 0 ->> 'queue') IS NOT TRUE
            $query$, 'q_' || dead_queue)
            INTO left_out USING dead_queue, CASE WHEN moved = max THEN last_id END;
        IF left_out > 0 THEN
            RAISE NOTICE 'messages left in queue "%" because the queue they came from is unknown or gone: %', dead_queue, left_out
                USING HINT = 'Give target to send them elsewhere.';
        END IF;
    END IF;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION mq.redrive$(text, bigint, text) IS 'mq.redrive with the caller''s own privileges';

-- Where a message died is what its sender may have written: only a queue whose dead letters do come here is believed.
CREATE FUNCTION mq.redrivable$(dead_queue text, origin text)
RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM mq.queue$ q
                   WHERE q.name = origin AND q.dead_letter = dead_queue AND mq.relation$(q.name) IS NOT NULL);
END
$$;
COMMENT ON FUNCTION mq.redrivable$(text, text) IS 'whether a dead message can go back where it came from';

CREATE FUNCTION mq.delete$(queue text, ids bigint[])
RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deleted integer;
BEGIN
    PERFORM mq.require$(queue);
    IF array_ndims(ids) > 1 THEN
        RAISE EXCEPTION 'ids must be a one-dimensional array' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('DELETE FROM mq.%I m WHERE m.id = ANY ($1)', 'q_' || queue) USING ids;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION mq.delete$(text, bigint[]) IS 'mq.delete with the caller''s own privileges';


--
-- Looking. Browsing locks nothing and needs SELECT on the queue's table.
--

CREATE FUNCTION mq.state$(lease_state text, ready_at timestamptz, expires_at timestamptz)
RETURNS text LANGUAGE sql VOLATILE
RETURN CASE
    WHEN lease_state = 'leased' THEN 'leased'
    WHEN expires_at <= clock_timestamp() THEN 'expired'
    WHEN lease_state IS NOT NULL THEN lease_state
    WHEN ready_at > clock_timestamp() THEN 'delayed'
    ELSE 'ready'
END;
COMMENT ON FUNCTION mq.state$(text, timestamptz, timestamptz) IS
'a message''s state from the lease table''s word (mq.lease_state$) and its row';

CREATE FUNCTION mq.browse$(source text, most integer)
RETURNS TABLE (queue text, id bigint, receipt bigint, attempt integer, enqueued_at timestamptz, lease_until timestamptz,
               priority smallint, key text, headers jsonb, body jsonb, data bytea, dedup_id text, expires_at timestamptz,
               last_error text, state text)
LANGUAGE plpgsql VOLATILE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    relation CONSTANT regclass := mq.require$(source);
    leases   mq.lease$[];
BEGIN
    IF most < 1 THEN
        RAISE EXCEPTION 'max must be 1 or more' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Before the snapshot that sees the rows: a failure written into its row meanwhile is in one of them at least.
    leases := array(SELECT l FROM mq.leases$(relation) l);
    -- Fresh messages in the order of the primary key, the others through their own index: neither reads all of a long queue.
    RETURN QUERY EXECUTE format($query$
        SELECT $2, m.id, f.receipt, greatest(f.attempt, least(m.attempts, 2147483646) + 1), m.enqueued_at, f.lease_until,
               m.priority, m.key, m.headers, m.body, m.data, m.dedup_id, m.expires_at, m.last_error,
               mq.state$(f.state, m.ready_at, m.expires_at)
        FROM (SELECT c.* FROM (
                  (SELECT q.* FROM mq.%1$I q WHERE q.priority = 0 AND q.ready_at IS NULL ORDER BY q.id LIMIT $3)
                  UNION ALL
                  (SELECT q.* FROM mq.%1$I q WHERE q.priority <> 0 OR q.ready_at IS NOT NULL
                   ORDER BY coalesce(q.ready_at > $4, false), q.priority DESC, q.ready_at, q.id LIMIT $3)) c
              ORDER BY coalesce(c.ready_at > $4, false), c.priority DESC, c.ready_at, c.id
              LIMIT $3) m
        LEFT JOIN unnest($1) f ON f.id = m.id
        ORDER BY coalesce(m.ready_at > $4, false), m.priority DESC, m.ready_at, m.id
        $query$, 'q_' || source) USING leases, source, coalesce(most, 100), clock_timestamp();
END
$$;
COMMENT ON FUNCTION mq.browse$(text, integer) IS 'mq.browse, with argument names that do not meet the result''s';

CREATE FUNCTION mq.browse(queue text, max integer DEFAULT 100)
RETURNS TABLE (queue text, id bigint, receipt bigint, attempt integer, enqueued_at timestamptz, lease_until timestamptz,
               priority smallint, key text, headers jsonb, body jsonb, data bytea, dedup_id text, expires_at timestamptz,
               last_error text, state text)
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100
AS 'MODULE_PATHNAME', 'mq_sql_browse';
COMMENT ON FUNCTION mq.browse(text, integer) IS
'Shows messages in the order of delivery, those not yet due last; takes no lease and no lock. max: at most so many. attempt: number of the current or next delivery. receipt, lease_until: of a leased message. state: ready, delayed, leased or expired.';

CREATE FUNCTION mq.status(queue text, id bigint)
RETURNS text LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_queue_reader';

CREATE FUNCTION mq.status$(queue text, id bigint)
RETURNS text LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- before the snapshot that sees the row, as in mq.browse$
    held  CONSTANT text := mq.lease_state$(mq.require$(queue), id);
    state text;
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION 'id must not be null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('SELECT mq.state$($1, m.ready_at, m.expires_at) FROM mq.%I m WHERE m.id = $2', 'q_' || queue)
        INTO state USING held, id;
    RETURN state;
END
$$;
COMMENT ON FUNCTION mq.status$(text, bigint) IS 'mq.status with the caller''s own privileges';
COMMENT ON FUNCTION mq.status(text, bigint) IS
'State of a message: ready, delayed, leased, expired or archived; NULL = gone.';

CREATE FUNCTION mq.listen(queue text)
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.require$(queue);
    EXECUTE format('LISTEN %I', 'mq_' || queue);
END
$$;
COMMENT ON FUNCTION mq.listen(text) IS
'LISTENs on a queue''s channel: a notification soon after a queue that had nothing ready gets something.';

CREATE FUNCTION mq.unlisten(queue text)
RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF queue IS NULL THEN
        RAISE EXCEPTION 'queue must not be null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('UNLISTEN %I', 'mq_' || queue);
END
$$;
COMMENT ON FUNCTION mq.unlisten(text) IS 'Ends mq.listen, also of a queue that is gone.';

-- Every other view of queues builds on this one, so it alone decides who sees what.
CREATE VIEW mq.queues WITH (security_barrier) AS
SELECT q.name, q.lease, q.max_attempts, q.backoff, q.backoff_limit, q.dead_letter, q.ttl, q.max_length, q.overflow, q.ordered,
       q.dedup_window, q.retain, q.unlogged, q.max_in_flight, q.rate_limit, q.dead_letter_exchange, q.dead_letter_key, q.paused,
       c.oid::regclass AS relation, pg_get_userbyid(c.relowner) AS owner, 'mq_' || q.name AS channel
FROM mq.queue$ q
JOIN pg_class c ON c.relname = 'q_' || q.name AND c.relkind = 'r' AND c.relnamespace = 'mq'::regnamespace
WHERE has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
   OR pg_has_role(c.relowner, 'USAGE')
   OR pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW mq.queues IS 'queues on which the caller has some privilege; pg_monitor sees all';
COMMENT ON COLUMN mq.queues.lease IS 'how long a delivery stays invisible if the consumer says nothing';
COMMENT ON COLUMN mq.queues.max_attempts IS 'failed deliveries before a message is dead, 0 = no limit';
COMMENT ON COLUMN mq.queues.backoff IS 'delay before the second attempt, doubles with each further one';
COMMENT ON COLUMN mq.queues.backoff_limit IS 'longest delay between attempts';
COMMENT ON COLUMN mq.queues.dead_letter IS 'queue for dead messages, NULL = none: they are dropped';
COMMENT ON COLUMN mq.queues.ttl IS 'a message not consumed this long after it came due is dead, NULL = never';
COMMENT ON COLUMN mq.queues.max_length IS 'ready and delayed messages at most, NULL = no limit';
COMMENT ON COLUMN mq.queues.overflow IS 'past max_length: reject or drop_head';
COMMENT ON COLUMN mq.queues.ordered IS 'messages of one key are delivered one at a time, in order';
COMMENT ON COLUMN mq.queues.dedup_window IS 'how long a dedup_id is remembered, 0 = while its message exists';
COMMENT ON COLUMN mq.queues.retain IS 'how long acknowledged messages stay in the archive, NULL = they do not';
COMMENT ON COLUMN mq.queues.unlogged IS 'emptied by a crash';
COMMENT ON COLUMN mq.queues.max_in_flight IS 'leased messages at most, NULL = no limit';
COMMENT ON COLUMN mq.queues.rate_limit IS 'deliveries a second, NULL = no limit';
COMMENT ON COLUMN mq.queues.dead_letter_exchange IS 'exchange that dead messages are published to instead';
COMMENT ON COLUMN mq.queues.dead_letter_key IS 'their routing key, NULL = the queue''s name';
COMMENT ON COLUMN mq.queues.paused IS 'deliveries are stopped';
COMMENT ON COLUMN mq.queues.relation IS 'the table with the messages';
COMMENT ON COLUMN mq.queues.channel IS 'what to LISTEN on; mq.listen does';

CREATE VIEW mq.stats WITH (security_barrier) AS
SELECT q.name AS queue, s.ready, s.delayed, s.in_flight, s.oldest_ready_age, s.enqueued, s.delivered, s.acked, s.nacked, s.expired,
       s.redelivered, s.dead, s.consumers_waiting, s.exact, s.since, s.rows_examined, s.blocks_touched
FROM mq.queues q
CROSS JOIN LATERAL mq.stats$(q.relation) s;
COMMENT ON VIEW mq.stats IS 'counters of the queues in mq.queues, from memory: no message is read';
COMMENT ON COLUMN mq.stats.ready IS 'messages that can be delivered now';
COMMENT ON COLUMN mq.stats.delayed IS 'messages that are not due yet';
COMMENT ON COLUMN mq.stats.in_flight IS 'messages leased';
COMMENT ON COLUMN mq.stats.oldest_ready_age IS 'how long the oldest ready message has been waiting';
COMMENT ON COLUMN mq.stats.enqueued IS 'messages enqueued since then';
COMMENT ON COLUMN mq.stats.delivered IS 'deliveries since then, repeated ones too';
COMMENT ON COLUMN mq.stats.acked IS 'messages acknowledged since then';
COMMENT ON COLUMN mq.stats.nacked IS 'deliveries given back with nack or reject since then';
COMMENT ON COLUMN mq.stats.expired IS 'deliveries whose lease ended since then';
COMMENT ON COLUMN mq.stats.redelivered IS 'deliveries after the first of their message since then';
COMMENT ON COLUMN mq.stats.dead IS 'messages moved to the dead letters or dropped since then';
COMMENT ON COLUMN mq.stats.consumers_waiting IS 'sessions waiting for a message';
COMMENT ON COLUMN mq.stats.exact IS 'false after a crash until the messages have been counted again';
COMMENT ON COLUMN mq.stats.since IS 'when the counters began';
COMMENT ON COLUMN mq.stats.rows_examined IS 'rows that deliveries looked at since then';
COMMENT ON COLUMN mq.stats.blocks_touched IS 'shared blocks of 8 kB that deliveries looked at since then';

CREATE VIEW mq.in_flight WITH (security_barrier) AS
SELECT q.name AS queue, f.id, f.receipt, f.consumer, f.pid, f.attempt, f.leased_at, f.lease_until
FROM mq.leases$(NULL) f
JOIN mq.queues q ON q.relation = f.relation
WHERE f.state = 'leased';
COMMENT ON VIEW mq.in_flight IS 'leased messages of the queues in mq.queues';
COMMENT ON COLUMN mq.in_flight.receipt IS 'what the consumer settles with';
COMMENT ON COLUMN mq.in_flight.consumer IS 'the name it gave to mq.dequeue, else its application_name';
COMMENT ON COLUMN mq.in_flight.pid IS 'process that took the lease; it may have ended';
COMMENT ON COLUMN mq.in_flight.attempt IS 'number of this delivery, from 1';
COMMENT ON COLUMN mq.in_flight.lease_until IS 'NULL = the transaction that took it is open';

CREATE VIEW mq.exchanges WITH (security_barrier) AS
SELECT e.name, e.type, e.alternate, e.owner
FROM mq.exchange$ e
WHERE pg_has_role('pg_monitor', 'USAGE')
   OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname = e.owner AND pg_has_role(r.oid, 'USAGE'))
   OR EXISTS (SELECT FROM mq.exchange_grant$ g
              LEFT JOIN pg_roles r ON r.rolname = g.role
              WHERE g.exchange = e.name AND (g.role = 'public' OR pg_has_role(r.oid, 'USAGE')));
COMMENT ON VIEW mq.exchanges IS 'exchanges that the caller owns or may publish to; pg_monitor sees all';
COMMENT ON COLUMN mq.exchanges.type IS 'direct, topic, fanout or headers';
COMMENT ON COLUMN mq.exchanges.alternate IS 'exchange for messages that no binding takes';

CREATE VIEW mq.bindings WITH (security_barrier) AS
SELECT b.exchange, b.queue, b.destination, b.pattern, b.match
FROM mq.binding$ b
JOIN mq.exchanges e ON e.name = b.exchange;
COMMENT ON VIEW mq.bindings IS 'bindings of the exchanges in mq.exchanges';
COMMENT ON COLUMN mq.bindings.queue IS 'queue it leads to, or';
COMMENT ON COLUMN mq.bindings.destination IS 'exchange it leads to';
COMMENT ON COLUMN mq.bindings.pattern IS 'of the routing key';
COMMENT ON COLUMN mq.bindings.match IS 'headers wanted, with x-match all or any';

GRANT SELECT ON mq.queues, mq.stats, mq.in_flight, mq.exchanges, mq.bindings TO PUBLIC;


SELECT mq.worker_start$();
