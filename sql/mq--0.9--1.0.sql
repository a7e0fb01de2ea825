\echo Use "ALTER EXTENSION mq UPDATE TO '1.0'" to load this file. \quit

-- Names below resolve here, whatever the path of the session that installs.
SET LOCAL search_path TO pg_catalog, pg_temp;


--
-- Options that this version serves
--

CREATE OR REPLACE FUNCTION mq.check_options$(options mq.queue$)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    longest CONSTANT interval := '1000 years';
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
         'empty or the name of an exchange'),
        ('dead_letter_key', octet_length(options.dead_letter_key) <= 1000, 'at most 1000 bytes')
    ) AS rule (option, kept, wanted)
    WHERE NOT rule.kept
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% must be %', wrong.option, wrong.wanted USING ERRCODE = 'invalid_parameter_value';
    END IF;

    IF options.dead_letter_key IS NOT NULL AND options.dead_letter_exchange IS NULL THEN
        RAISE EXCEPTION 'dead_letter_key needs a dead_letter_exchange' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;


--
-- Deduplication. Records come and go at the rate of the enqueues that use it,
-- so both tables are vacuumed by what changed, not by a fifth of what is there.
--

ALTER TABLE mq.dedup$ SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);

-- A crash that empties an unlogged queue empties what is remembered of it.
CREATE UNLOGGED TABLE mq.dedup_unlogged$ (
    queue    text COLLATE "C" NOT NULL,
    dedup_id text COLLATE "C" NOT NULL,
    id       bigint NOT NULL,
    until    timestamptz NOT NULL,
    CONSTRAINT dedup_unlogged$pkey PRIMARY KEY (queue, dedup_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
CREATE INDEX dedup_unlogged$until ON mq.dedup_unlogged$ (until);
COMMENT ON TABLE mq.dedup_unlogged$ IS 'mq.dedup$ for queues that are unlogged';
COMMENT ON COLUMN mq.dedup_unlogged$.id IS 'the message that was enqueued with it first';
COMMENT ON COLUMN mq.dedup_unlogged$.until IS 'remembered until then';

SELECT pg_catalog.pg_extension_config_dump('mq.dedup_unlogged$', '');

CREATE FUNCTION mq.dedup_forget$(queue text)
RETURNS void LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_dedup_forget';
REVOKE ALL ON FUNCTION mq.dedup_forget$(text) FROM PUBLIC;
COMMENT ON FUNCTION mq.dedup_forget$(text) IS 'forgets the dedup_ids of a queue whose table is gone; also those its last transactions added';

CREATE OR REPLACE FUNCTION mq.forget$(queue text)
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known boolean;
BEGIN
    DELETE FROM mq.queue$ q WHERE q.name = forget$.queue;
    known := FOUND;
    PERFORM mq.dedup_forget$(queue);
    IF to_regclass(format('mq.%I', 'a_' || queue)) IS NOT NULL THEN
        EXECUTE format('DROP TABLE mq.%I', 'a_' || queue);
    END IF;
    RETURN known;
END
$$;

CREATE OR REPLACE FUNCTION mq.drop_queue$(caller oid, name text, if_exists boolean)
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
                  HINT = 'Drop, alter or unbind them first.';
    END IF;

    -- The row goes first, so that the table is still found by its triggers; the dedup_ids last, when nobody can be adding any.
    DELETE FROM mq.queue$ q WHERE q.name = drop_queue$.name;
    IF mq.relation$(name) IS NOT NULL THEN
        EXECUTE format('DROP TABLE mq.%I', 'q_' || name);
    END IF;
    IF to_regclass(format('mq.%I', 'a_' || name)) IS NOT NULL THEN
        EXECUTE format('DROP TABLE mq.%I', 'a_' || name);
    END IF;
    PERFORM mq.dedup_forget$(name);
    RETURN true;
END
$$;


--
-- The archive. mq.a_<queue> belongs to the queue's owner and is partitioned by
-- the time of the ack. Its partitions are mq.a_<queue>$<minute the partition
-- begins, base 36>; the default one, mq.a_<queue>$d, takes what no other does.
--

CREATE FUNCTION mq.archive_width$(retain interval)
RETURNS interval LANGUAGE sql IMMUTABLE
RETURN make_interval(secs => 60 * ceil(greatest(60, least(extract(epoch FROM retain) / 4,
                                                          greatest(86400, extract(epoch FROM retain) / 100))) / 60)::double precision);
COMMENT ON FUNCTION mq.archive_width$(interval) IS
'length of an archive''s partitions: a quarter of retain, from a minute to a day, or a hundredth where that is more';

CREATE FUNCTION mq.archive_leaf_name$(queue text, lo timestamptz)
RETURNS text LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    minute bigint := floor(extract(epoch FROM lo) / 60);
    digits text := '';
BEGIN
    IF lo IS NULL THEN
        RETURN format('a_%s$d', queue);
    END IF;
    WHILE minute > 0 LOOP
        digits := substr('0123456789abcdefghijklmnopqrstuvwxyz', (minute % 36)::integer + 1, 1) || digits;
        minute := minute / 36;
    END LOOP;
    RETURN format('a_%s$%s', queue, digits);
END
$$;
COMMENT ON FUNCTION mq.archive_leaf_name$(text, timestamptz) IS 'name of the partition that begins then, NULL = the default one';

CREATE FUNCTION mq.archive_parts$(archive regclass)
RETURNS TABLE (leaf regclass, lo timestamptz, hi timestamptz, other boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
SET timezone = 'UTC'
AS $$
BEGIN
    RETURN QUERY
    SELECT p.oid::regclass,
           CASE p.bound[1] WHEN 'MINVALUE' THEN '-infinity' ELSE trim('''' FROM p.bound[1])::timestamptz END,
           CASE p.bound[2] WHEN 'MAXVALUE' THEN 'infinity' ELSE trim('''' FROM p.bound[2])::timestamptz END,
           p.bound IS NULL
    FROM (SELECT c.oid, regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \((.*)\) TO \((.*)\)') AS bound
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = archive AND NOT i.inhdetachpending) p
    ORDER BY 3;
END
$$;
REVOKE ALL ON FUNCTION mq.archive_parts$(regclass) FROM PUBLIC;
COMMENT ON FUNCTION mq.archive_parts$(regclass) IS 'the partitions of an archive with their bounds; other: the default one';

-- Not a SELECT: planning one could run what the owner hung on the table, as whoever plans.
CREATE FUNCTION mq.archive_newest$(leaf regclass)
RETURNS timestamptz LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_archive_newest';
REVOKE ALL ON FUNCTION mq.archive_newest$(regclass) FROM PUBLIC;
COMMENT ON FUNCTION mq.archive_newest$(regclass) IS 'the last ack a partition holds; NULL: it is empty';

CREATE FUNCTION mq.archive_leaf$(queue text, lo timestamptz)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET default_tablespace = ''
AS $$
DECLARE
    leaf     CONSTANT text := mq.archive_leaf_name$(queue, lo);
    unlogged boolean;
    owner    name;
BEGIN
    SELECT c.relpersistence = 'u' INTO unlogged FROM pg_class c WHERE c.oid = mq.relation$(queue);
    SELECT pg_get_userbyid(c.relowner) INTO owner FROM pg_class c WHERE c.oid = format('mq.%I', 'a_' || queue)::regclass;
    EXECUTE format('CREATE %s TABLE mq.%I (LIKE mq.%I) USING heap',
                   CASE WHEN unlogged THEN 'UNLOGGED' END, leaf, 'a_' || queue);
    EXECUTE format('ALTER TABLE mq.%I OWNER TO %I', leaf, owner);
END
$$;
REVOKE ALL ON FUNCTION mq.archive_leaf$(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION mq.archive_leaf$(text, timestamptz) IS 'makes a partition of an archive, not yet attached, for its owner; without what could run his code: the columns only';

CREATE FUNCTION mq.archive_own$(queue text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    archive CONSTANT regclass := format('mq.%I', 'a_' || queue)::regclass;
    part    regclass;
    owner   name;
BEGIN
    SELECT pg_get_userbyid(c.relowner) INTO owner FROM pg_class c WHERE c.oid = mq.relation$(queue);
    FOR part IN SELECT t.relid FROM pg_partition_tree(archive) t LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO %I', part, owner);
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION mq.archive_own$(text) FROM PUBLIC;
COMMENT ON FUNCTION mq.archive_own$(text) IS 'gives an archive to the queue''s owner';

CREATE FUNCTION mq.archive_plan$(queue text)
RETURNS TABLE (owner oid, as_worker text, as_owner text)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
SET timezone = 'UTC'
AS $$
DECLARE
    name     CONSTANT text := 'a_' || queue;
    archive  CONSTANT regclass := to_regclass(format('mq.%I', name));
    relation CONSTANT regclass := mq.relation$(queue);
    present  CONSTANT timestamptz := clock_timestamp();
    epoch    CONSTANT timestamptz := '2000-01-01 00:00+00';
    retain   interval;
    width    interval;
    checks   text;
    fallback regclass;
    newest   timestamptz;
    lo       timestamptz;
    hi       timestamptz;
    part     record;
BEGIN
    SELECT q.retain INTO retain FROM mq.queue$ q WHERE q.name = archive_plan$.queue;
    IF retain IS NULL OR relation IS NULL THEN
        RETURN;
    ELSIF archive IS NULL THEN
        as_worker := format('SELECT mq.archive_make$(%L)', queue);
        RETURN NEXT;
        RETURN;
    END IF;
    width := mq.archive_width$(retain);
    SELECT c.relowner INTO owner FROM pg_class c WHERE c.oid = archive;
    IF owner <> (SELECT c.relowner FROM pg_class c WHERE c.oid = relation) THEN
        as_worker := format('SELECT mq.archive_own$(%L)', queue);
        RETURN NEXT;
        RETURN;
    END IF;

    -- Ahead: from where the last one ends, or at once; what the default partition holds cannot be in another one.
    SELECT p.leaf INTO fallback FROM mq.archive_parts$(archive) p WHERE p.other;
    newest := mq.archive_newest$(fallback);
    lo := date_bin(width, present, epoch);
    IF newest >= lo THEN
        lo := date_bin(width, greatest(present, newest), epoch) + width;
    END IF;
    lo := greatest(lo, (SELECT max(p.hi) FROM mq.archive_parts$(archive) p));
    -- A partition needs the archive's CHECKs, which are the owner's code.
    SELECT string_agg(format('ADD CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ', ' ORDER BY k.conname) INTO checks
    FROM pg_constraint k WHERE k.conrelid = archive AND k.contype = 'c';
    WHILE lo < present + 3 * width LOOP
        hi := date_bin(width, lo, epoch) + width;
        as_worker := format('SELECT mq.archive_leaf$(%L, %L)', queue, lo);
        as_owner := concat(CASE WHEN checks IS NOT NULL THEN format('ALTER TABLE mq.%I %s; ', mq.archive_leaf_name$(queue, lo), checks) END,
                           format('ALTER TABLE mq.%I ATTACH PARTITION mq.%I FOR VALUES FROM (%L) TO (%L)',
                                  name, mq.archive_leaf_name$(queue, lo), lo, hi));
        RETURN NEXT;
        lo := hi;
    END LOOP;

    as_worker := NULL;
    FOR part IN SELECT p.leaf FROM mq.archive_parts$(archive) p WHERE p.hi <= present - retain ORDER BY p.hi LOOP
        as_owner := format('DROP TABLE %s', part.leaf);
        RETURN NEXT;
    END LOOP;
    IF newest <= present - retain THEN
        as_owner := format('DROP TABLE %s', fallback);
        RETURN NEXT;
        fallback := NULL;
    END IF;
    IF fallback IS NULL THEN
        as_worker := format('SELECT mq.archive_leaf$(%L, NULL)', queue);
        as_owner := concat(CASE WHEN checks IS NOT NULL THEN format('ALTER TABLE mq.%I %s; ', mq.archive_leaf_name$(queue, NULL), checks) END,
                           format('ALTER TABLE mq.%I ATTACH PARTITION mq.%I DEFAULT', name, mq.archive_leaf_name$(queue, NULL)));
        RETURN NEXT;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.archive_plan$(text) FROM PUBLIC;
COMMENT ON FUNCTION mq.archive_plan$(text) IS
'what an archive needs: partitions ahead, old ones dropped; in steps, each run by the worker as itself and then as the archive''s owner';

CREATE FUNCTION mq.archive_make$(queue text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET default_tablespace = ''
AS $$
DECLARE
    name CONSTANT text := 'a_' || queue;
    step record;
BEGIN
    IF to_regclass(format('mq.%I', name)) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format($query$
        CREATE TABLE mq.%I (
            id          bigint NOT NULL,
            enqueued_at timestamptz NOT NULL,
            attempts    integer NOT NULL,
            priority    smallint NOT NULL,
            ready_at    timestamptz,
            expires_at  timestamptz,
            key         text,
            dedup_id    text,
            headers     jsonb,
            body        jsonb,
            data        bytea,
            last_error  text,
            acked_at    timestamptz NOT NULL,
            consumer    text
        ) PARTITION BY RANGE (acked_at)$query$, name);
    EXECUTE format('CREATE INDEX %I ON mq.%I (id)', name || '$id', name);
    PERFORM mq.archive_own$(queue);
    FOR step IN SELECT p.as_worker, p.as_owner FROM mq.archive_plan$(queue) p LOOP
        EXECUTE step.as_worker;
        EXECUTE step.as_owner;
    END LOOP;
END
$$;
REVOKE ALL ON FUNCTION mq.archive_make$(text) FROM PUBLIC;
COMMENT ON FUNCTION mq.archive_make$(text) IS 'makes the archive of a queue whose option retain is set, unless it has one';

CREATE OR REPLACE FUNCTION mq.make_queue$(owner oid, options mq.queue$)
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
    IF options.dead_letter_exchange <> '' THEN
        PERFORM mq.use_exchange$(owner, options.dead_letter_exchange);
    END IF;
    PERFORM mq.make_table$(owner, options.name, options.unlogged);
    IF options.retain IS NOT NULL THEN
        PERFORM mq.archive_make$(options.name);
    END IF;
    RETURN true;
END
$$;

CREATE OR REPLACE FUNCTION mq.alter_queue$(
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
    IF dead_letter_exchange <> '' THEN
        PERFORM mq.use_exchange$(c.relowner, dead_letter_exchange) FROM pg_class c WHERE c.oid = relation;
    END IF;

    UPDATE mq.queue$ q
    SET lease = options.lease, max_attempts = options.max_attempts, backoff = options.backoff,
        backoff_limit = options.backoff_limit, dead_letter = options.dead_letter, ttl = options.ttl,
        max_length = options.max_length, overflow = options.overflow, ordered = options.ordered,
        dedup_window = options.dedup_window, retain = options.retain, max_in_flight = options.max_in_flight,
        rate_limit = options.rate_limit, dead_letter_exchange = options.dead_letter_exchange,
        dead_letter_key = options.dead_letter_key
    WHERE q.name = alter_queue$.name;
    IF options.retain IS NOT NULL THEN
        PERFORM mq.archive_make$(name);
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION mq.status$(queue text, id bigint)
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
    IF state IS NULL AND to_regclass(format('mq.%I', 'a_' || queue)) IS NOT NULL THEN
        EXECUTE format('SELECT ''archived'' FROM mq.%I a WHERE a.id = $1 LIMIT 1', 'a_' || queue) INTO state USING id;
    END IF;
    RETURN state;
END
$$;

CREATE OR REPLACE FUNCTION mq.replay(queue text, since timestamptz, until timestamptz DEFAULT NULL)
RETURNS bigint LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_queue_owner';
COMMENT ON FUNCTION mq.replay(text, timestamptz, timestamptz) IS
'Enqueues archived messages again, as new ones; returns how many. since, until: acknowledged from then on and before then, until NULL = now. Owner only.';

CREATE FUNCTION mq.replay$(queue text, since timestamptz, until timestamptz)
RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    replayed bigint;
BEGIN
    PERFORM mq.require$(queue);
    IF since IS NULL THEN
        RAISE EXCEPTION 'since must not be null' USING ERRCODE = 'invalid_parameter_value';
    ELSIF to_regclass(format('mq.%I', 'a_' || queue)) IS NULL THEN
        RAISE EXCEPTION 'queue "%" has no archive', queue
            USING ERRCODE = 'undefined_object', HINT = 'mq.alter_queue with retain makes one.';
    END IF;
    EXECUTE format($query$
        SELECT count(mq.enqueue($1, a.body, a.headers, priority => a.priority, key => a.key, data => a.data))
        FROM (SELECT * FROM mq.%I m WHERE m.acked_at >= $2 AND m.acked_at < $3 ORDER BY m.acked_at, m.id) a
        $query$, 'a_' || queue)
        INTO replayed USING queue, since, coalesce(until, clock_timestamp());
    RETURN replayed;
END
$$;
COMMENT ON FUNCTION mq.replay$(text, timestamptz, timestamptz) IS 'mq.replay with the caller''s own privileges';


--
-- Several queues with one wait
--

CREATE OR REPLACE FUNCTION mq.dequeue_any(
    queues   text[],
    max      integer DEFAULT 1,
    lease    interval DEFAULT NULL,
    wait     interval DEFAULT '0',
    auto_ack boolean DEFAULT false,
    session  boolean DEFAULT false,
    consumer text DEFAULT NULL,
    match    jsonb DEFAULT NULL)
RETURNS SETOF mq.message LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'mq_sql_dequeue_any';


--
-- Messages that expire; queues of limited length
--

CREATE FUNCTION mq.enqueue_redriven$(queue text, body jsonb, headers jsonb, priority smallint, key text, data bytea)
RETURNS bigint LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_enqueue_redriven';
COMMENT ON FUNCTION mq.enqueue_redriven$(text, jsonb, jsonb, smallint, text, bytea) IS
'mq.enqueue for mq.redrive: the message does not expire';

CREATE OR REPLACE FUNCTION mq.redrive$(dead_queue text, max bigint, target text)
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
        SELECT count(mq.enqueue_redriven$(d.origin, d.body, d.headers, d.priority, d.key, d.data)), max(d.id)
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

COMMENT ON COLUMN mq.stats.ready IS 'messages that can be delivered now, expired ones not yet moved included';
COMMENT ON COLUMN mq.stats.delayed IS 'messages that are not due yet, expired ones not yet moved included';
COMMENT ON COLUMN mq.stats.rows_examined IS 'rows that deliveries and expiries looked at since then';


--
-- Exchanges and bindings. Whoever uses an exchange holds FOR KEY SHARE on its
-- row, so that mq.drop_exchange, which takes FOR UPDATE before it looks for
-- users, meets all of them.
--

CREATE FUNCTION mq.routing_changed$() RETURNS trigger
LANGUAGE C AS 'MODULE_PATHNAME', 'mq_sql_routing_changed';
REVOKE ALL ON FUNCTION mq.routing_changed$() FROM PUBLIC;
COMMENT ON FUNCTION mq.routing_changed$() IS 'makes every session compile the exchanges it uses again';

CREATE TRIGGER mq$changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON mq.exchange$
    FOR EACH STATEMENT EXECUTE FUNCTION mq.routing_changed$();
CREATE TRIGGER mq$changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON mq.exchange_grant$
    FOR EACH STATEMENT EXECUTE FUNCTION mq.routing_changed$();
CREATE TRIGGER mq$changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON mq.binding$
    FOR EACH STATEMENT EXECUTE FUNCTION mq.routing_changed$();
ALTER TABLE mq.exchange$ ENABLE ALWAYS TRIGGER mq$changed;
ALTER TABLE mq.exchange_grant$ ENABLE ALWAYS TRIGGER mq$changed;
ALTER TABLE mq.binding$ ENABLE ALWAYS TRIGGER mq$changed;

-- A queue's row takes its bindings along, at every isolation level those that were committed since too.
ALTER TABLE mq.binding$ ADD CONSTRAINT binding$queue_fkey FOREIGN KEY (queue) REFERENCES mq.queue$ ON DELETE CASCADE;

-- pg_restore -j fills these tables in any order, as it forgets the references between an extension's tables: what is added is
-- not checked, mq's functions having done so; what is deleted takes the rest along.
DO $$
DECLARE
    unchecked record;
BEGIN
    FOR unchecked IN SELECT t.tgrelid::regclass AS relation, t.tgname
                     FROM pg_trigger t JOIN pg_constraint c ON c.oid = t.tgconstraint AND c.conrelid = t.tgrelid
                     WHERE c.contype = 'f' AND c.conrelid IN ('mq.exchange_grant$'::regclass, 'mq.binding$'::regclass) LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', unchecked.relation, unchecked.tgname);
    END LOOP;
END
$$;

CREATE INDEX exchange$alternate ON mq.exchange$ (alternate) WHERE alternate IS NOT NULL;
CREATE INDEX queue$dead_letter_exchange ON mq.queue$ (dead_letter_exchange) WHERE dead_letter_exchange IS NOT NULL;

CREATE FUNCTION mq.owns_exchange$(role oid, exchange text)
RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM mq.exchange$ e
                   LEFT JOIN pg_roles r ON r.rolname = e.owner
                   WHERE e.name = exchange
                     AND (pg_has_role(role, r.oid, 'USAGE')
                          OR (SELECT me.rolsuper FROM pg_roles me WHERE me.oid = role)))
$$;
REVOKE ALL ON FUNCTION mq.owns_exchange$(oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.owns_exchange$(oid, text) IS 'whether a role may bind, grant and drop an exchange';

CREATE FUNCTION mq.may_publish$(role oid, exchange text)
RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT mq.owns_exchange$(role, exchange)
        OR EXISTS (SELECT FROM mq.exchange_grant$ g
                   LEFT JOIN pg_roles r ON r.rolname = g.role
                   WHERE g.exchange = may_publish$.exchange
                     AND (g.role = 'public' OR pg_has_role(may_publish$.role, r.oid, 'USAGE')))
$$;
REVOKE ALL ON FUNCTION mq.may_publish$(oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.may_publish$(oid, text) IS 'whether a role may publish to an exchange';

CREATE FUNCTION mq.exchange_type$(argument text, exchange text)
RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type text;
BEGIN
    IF exchange IS NULL THEN
        RAISE EXCEPTION '% must not be null', argument USING ERRCODE = 'invalid_parameter_value';
    ELSIF exchange = '' THEN
        RAISE EXCEPTION 'the default exchange has no bindings of its own' USING ERRCODE = 'invalid_parameter_value',
            HINT = 'It routes to the queue that the routing key names.';
    END IF;
    SELECT e.type INTO type FROM mq.exchange$ e WHERE e.name = exchange FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'exchange "%" does not exist', exchange
            USING ERRCODE = 'undefined_object', HINT = 'Create it with mq.create_exchange.';
    END IF;
    RETURN type;
END
$$;
REVOKE ALL ON FUNCTION mq.exchange_type$(text, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.exchange_type$(text, text) IS
'the type of the exchange given as this argument, kept from being dropped; raises 42704 if there is none, 22023 for NULL';

CREATE FUNCTION mq.own_exchange$(caller oid, argument text, exchange text)
RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type CONSTANT text := mq.exchange_type$(argument, exchange);
BEGIN
    IF NOT mq.owns_exchange$(caller, exchange) THEN
        RAISE EXCEPTION 'must be owner of exchange "%"', exchange USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN type;
END
$$;
REVOKE ALL ON FUNCTION mq.own_exchange$(oid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.own_exchange$(oid, text, text) IS 'the same; raises 42501 unless the caller owns the exchange';

CREATE FUNCTION mq.use_exchange$(role oid, exchange text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.exchange_type$('exchange', exchange);
    IF NOT mq.may_publish$(role, exchange) THEN
        RAISE EXCEPTION 'permission denied for exchange "%"', exchange
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('Role %s may not publish to it.', quote_ident(pg_get_userbyid(role))),
                  HINT = 'Its owner can grant it with mq.grant_exchange.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.use_exchange$(oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.use_exchange$(oid, text) IS
'raises 42704 or 42501 unless there is such an exchange and the role may publish to it; it is kept from being dropped';

CREATE OR REPLACE FUNCTION mq.create_exchange(
    name text, type text DEFAULT 'topic', alternate text DEFAULT NULL, if_not_exists boolean DEFAULT false)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.create_exchange(text, text, text, boolean) IS
'Makes an exchange, owned by the caller. type: direct, topic, fanout or headers. alternate: exchange for messages that no binding takes; it exists and the caller may publish to it. if_not_exists: leave one that exists as it is, with a notice if it is another.';

CREATE FUNCTION mq.create_exchange$(caller oid, name text, type text, alternate text, if_not_exists boolean)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted  CONSTANT text := coalesce(type, 'topic');
    present mq.exchange$;
BEGIN
    PERFORM mq.check_name$(name);
    IF wanted NOT IN ('direct', 'topic', 'fanout', 'headers') THEN
        RAISE EXCEPTION 'type must be "direct", "topic", "fanout" or "headers", not "%"', wanted
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF alternate = name COLLATE "C" THEN
        RAISE EXCEPTION 'exchange "%" cannot be its own alternate', name USING ERRCODE = 'invalid_parameter_value';
    ELSIF alternate IS NOT NULL THEN
        PERFORM mq.use_exchange$(caller, alternate);
    END IF;

    INSERT INTO mq.exchange$ VALUES (name, wanted, alternate, pg_get_userbyid(caller)) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        RETURN;
    ELSIF if_not_exists IS NOT TRUE THEN
        RAISE EXCEPTION 'exchange "%" already exists', name USING ERRCODE = 'duplicate_object';
    END IF;
    SELECT e.* INTO present FROM mq.exchange$ e WHERE e.name = create_exchange$.name;
    IF present.type <> wanted OR present.alternate IS DISTINCT FROM create_exchange$.alternate COLLATE "C" THEN
        RAISE NOTICE 'exchange "%" already exists with another type or alternate, nothing changed', name
            USING DETAIL = format('Its type is %s, its alternate %s.', present.type, coalesce(quote_ident(present.alternate), 'none'));
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.create_exchange$(oid, text, text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.create_exchange$(oid, text, text, text, boolean) IS 'mq.create_exchange, run as the extension''s owner';

CREATE OR REPLACE FUNCTION mq.drop_exchange(name text, if_exists boolean DEFAULT false)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.drop_exchange(text, boolean) IS
'Drops an exchange with its bindings, also those that lead to it. Refused (2BP01) while it is another one''s alternate or takes dead letters. if_exists: return false instead of an error where there is none. Owner only.';

CREATE FUNCTION mq.drop_exchange$(caller oid, name text, if_exists boolean)
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    referrer text;
BEGIN
    PERFORM FROM mq.exchange$ e WHERE e.name = drop_exchange$.name FOR UPDATE;
    IF NOT FOUND AND if_exists AND name IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM mq.own_exchange$(caller, 'name', name);

    SELECT string_agg(reference.text, E'\n' ORDER BY reference.text) INTO referrer
    FROM (SELECT format('Exchange "%s" has it as alternate.', e.name)
          FROM mq.exchange$ e
          WHERE e.alternate = drop_exchange$.name
          UNION ALL
          SELECT format('Queue "%s" has it as dead-letter exchange.', q.name)
          FROM mq.queue$ q
          WHERE q.dead_letter_exchange = drop_exchange$.name AND mq.relation$(q.name) IS NOT NULL) AS reference (text);
    IF referrer IS NOT NULL THEN
        RAISE EXCEPTION 'cannot drop exchange "%" because others refer to it', name
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = referrer,
                  HINT = 'Drop or alter them first.';
    END IF;
    DELETE FROM mq.exchange$ e WHERE e.name = drop_exchange$.name;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION mq.drop_exchange$(oid, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION mq.drop_exchange$(oid, text, boolean) IS 'mq.drop_exchange, run as the extension''s owner';

CREATE FUNCTION mq.check_binding$(exchange text, type text, pattern text, match jsonb)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kinds CONSTANT text[] := '{all,any,all-with-x,any-with-x}';
BEGIN
    IF octet_length(pattern) > 1000 THEN
        RAISE EXCEPTION 'pattern is longer than 1000 bytes' USING ERRCODE = 'invalid_parameter_value';
    ELSIF type = 'direct' AND pattern = '#' THEN
        RAISE NOTICE 'binding to exchange "%" takes only the routing key "#"', exchange
            USING DETAIL = 'A direct exchange compares keys as they are.', HINT = 'Give the key as pattern.';
    END IF;
    IF match IS NULL THEN
        RETURN;
    ELSIF type <> 'headers' THEN
        RAISE EXCEPTION 'match is for exchanges of type headers, and exchange "%" is %', exchange, type
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(match) <> 'object' THEN
        RAISE EXCEPTION 'match must be an object' USING ERRCODE = 'invalid_parameter_value',
            DETAIL = 'It holds the headers that messages must have.';
    ELSIF match ? 'x-match' AND (match ->> 'x-match' = ANY (kinds)) IS NOT TRUE THEN
        RAISE EXCEPTION 'x-match must be "all", "any", "all-with-x" or "any-with-x", not %', match -> 'x-match'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF pg_column_size(match) > 1000 THEN
        RAISE EXCEPTION 'match is larger than 1000 bytes' USING ERRCODE = 'invalid_parameter_value';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.check_binding$(text, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mq.check_binding$(text, text, text, jsonb) IS 'raises 22023 for what no binding of an exchange of this type can have';

CREATE OR REPLACE FUNCTION mq.bind(exchange text, queue text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.bind(text, text, text, jsonb) IS
'Lets an exchange send to a queue, at commit; again is the same as once. pattern: of the routing key; topic: words between dots, * one word, # zero or more; direct: the key itself; else not looked at. match: headers wanted by an exchange of type headers, null = any value, with x-match all, any, all-with-x or any-with-x. Takes ownership of the exchange and INSERT on the queue.';

CREATE FUNCTION mq.bind$(caller oid, exchange text, queue text, pattern text, match jsonb)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type     CONSTANT text := mq.own_exchange$(caller, 'exchange', exchange);
    wanted   CONSTANT text := coalesce(pattern, '#');
BEGIN
    PERFORM mq.require$(queue);
    -- keeps mq.drop_queue away until this transaction ends; where that came first, caches may still know the table
    PERFORM FROM mq.queue$ q WHERE q.name = queue FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'queue "%" does not exist', queue
            USING ERRCODE = 'undefined_object', HINT = 'Create it with mq.create_queue.';
    ELSIF NOT has_table_privilege(caller, mq.require$(queue), 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for queue "%"', queue
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = 'Binding takes INSERT on the queue.', HINT = 'Its owner can grant it with mq.grant.';
    END IF;
    PERFORM mq.check_binding$(exchange, type, wanted, match);
    INSERT INTO mq.binding$ (exchange, queue, pattern, match)
    VALUES (bind$.exchange, bind$.queue, wanted, bind$.match)
    ON CONFLICT ON CONSTRAINT binding$unique DO NOTHING;
END
$$;
REVOKE ALL ON FUNCTION mq.bind$(oid, text, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mq.bind$(oid, text, text, text, jsonb) IS 'mq.bind, run as the extension''s owner';

CREATE OR REPLACE FUNCTION mq.unbind(exchange text, queue text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.unbind(text, text, text, jsonb) IS
'Removes a binding made with the same arguments, at commit; false if there is none. For the owner of the exchange or of the queue.';

CREATE FUNCTION mq.unbind$(caller oid, exchange text, queue text, pattern text, match jsonb)
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.exchange_type$('exchange', exchange);
    IF queue IS NULL THEN
        RAISE EXCEPTION 'queue must not be null' USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT mq.owns_exchange$(caller, exchange)
          AND NOT EXISTS (SELECT FROM pg_class c
                          WHERE c.oid = mq.relation$(queue) AND pg_has_role(caller, c.relowner, 'USAGE')) THEN
        RAISE EXCEPTION 'must be owner of exchange "%" or of queue "%"', exchange, queue USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM mq.binding$ b
    WHERE b.exchange = unbind$.exchange AND b.queue = unbind$.queue AND b.destination IS NULL
      AND b.pattern = coalesce(unbind$.pattern, '#') AND b.match IS NOT DISTINCT FROM unbind$.match;
    RETURN FOUND;
END
$$;
REVOKE ALL ON FUNCTION mq.unbind$(oid, text, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mq.unbind$(oid, text, text, text, jsonb) IS 'mq.unbind, run as the extension''s owner';

CREATE OR REPLACE FUNCTION mq.bind_exchange(source text, destination text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.bind_exchange(text, text, text, jsonb) IS
'Lets exchange source send to exchange destination, at commit; circles are allowed. pattern, match: as in mq.bind. Takes ownership of source and the right to publish to destination.';

CREATE FUNCTION mq.bind_exchange$(caller oid, source text, destination text, pattern text, match jsonb)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    type   CONSTANT text := mq.own_exchange$(caller, 'source', source);
    wanted CONSTANT text := coalesce(pattern, '#');
BEGIN
    PERFORM mq.exchange_type$('destination', destination);
    PERFORM mq.use_exchange$(caller, destination);
    PERFORM mq.check_binding$(source, type, wanted, match);
    INSERT INTO mq.binding$ (exchange, destination, pattern, match)
    VALUES (source, bind_exchange$.destination, wanted, bind_exchange$.match)
    ON CONFLICT ON CONSTRAINT binding$unique DO NOTHING;
END
$$;
REVOKE ALL ON FUNCTION mq.bind_exchange$(oid, text, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mq.bind_exchange$(oid, text, text, text, jsonb) IS 'mq.bind_exchange, run as the extension''s owner';

CREATE OR REPLACE FUNCTION mq.unbind_exchange(source text, destination text, pattern text DEFAULT '#', match jsonb DEFAULT NULL)
RETURNS boolean LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.unbind_exchange(text, text, text, jsonb) IS
'Removes a binding made with the same arguments, at commit; false if there is none. For the owner of either exchange.';

CREATE FUNCTION mq.unbind_exchange$(caller oid, source text, destination text, pattern text, match jsonb)
RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.exchange_type$('source', source);
    PERFORM mq.exchange_type$('destination', destination);
    IF NOT mq.owns_exchange$(caller, source) AND NOT mq.owns_exchange$(caller, destination) THEN
        RAISE EXCEPTION 'must be owner of exchange "%" or "%"', source, destination USING ERRCODE = 'insufficient_privilege';
    END IF;
    DELETE FROM mq.binding$ b
    WHERE b.exchange = source AND b.destination = unbind_exchange$.destination AND b.queue IS NULL
      AND b.pattern = coalesce(unbind_exchange$.pattern, '#') AND b.match IS NOT DISTINCT FROM unbind_exchange$.match;
    RETURN FOUND;
END
$$;
REVOKE ALL ON FUNCTION mq.unbind_exchange$(oid, text, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION mq.unbind_exchange$(oid, text, text, text, jsonb) IS 'mq.unbind_exchange, run as the extension''s owner';

CREATE OR REPLACE FUNCTION mq.grant_exchange(exchange text, role name)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.grant_exchange(text, name) IS
'Lets a role publish to an exchange, public = everybody; it needs no right on the queues behind, and gets none. Owner only.';

CREATE FUNCTION mq.grant_exchange$(caller oid, exchange text, role name)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.own_exchange$(caller, 'exchange', exchange);
    IF role IS NULL THEN
        RAISE EXCEPTION 'role must not be null' USING ERRCODE = 'invalid_parameter_value';
    ELSIF role <> 'public' AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role) THEN
        RAISE EXCEPTION 'role "%" does not exist', role USING ERRCODE = 'undefined_object';
    END IF;
    INSERT INTO mq.exchange_grant$ VALUES (exchange, role) ON CONFLICT DO NOTHING;
END
$$;
REVOKE ALL ON FUNCTION mq.grant_exchange$(oid, text, name) FROM PUBLIC;
COMMENT ON FUNCTION mq.grant_exchange$(oid, text, name) IS 'mq.grant_exchange, run as the extension''s owner';

CREATE OR REPLACE FUNCTION mq.revoke_exchange(exchange text, role name)
RETURNS void LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.revoke_exchange(text, name) IS 'Takes back mq.grant_exchange. Owner only.';

CREATE FUNCTION mq.revoke_exchange$(caller oid, exchange text, role name)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.own_exchange$(caller, 'exchange', exchange);
    IF role IS NULL THEN
        RAISE EXCEPTION 'role must not be null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    DELETE FROM mq.exchange_grant$ g WHERE g.exchange = revoke_exchange$.exchange AND g.role = revoke_exchange$.role;
END
$$;
REVOKE ALL ON FUNCTION mq.revoke_exchange$(oid, text, name) FROM PUBLIC;
COMMENT ON FUNCTION mq.revoke_exchange$(oid, text, name) IS 'mq.revoke_exchange, run as the extension''s owner';

-- A binding whose queue's table was dropped by hand leads nowhere.
CREATE OR REPLACE VIEW mq.bindings WITH (security_barrier) AS
SELECT b.exchange, b.queue, b.destination, b.pattern, b.match
FROM mq.binding$ b
WHERE (EXISTS (SELECT FROM mq.exchanges e WHERE e.name = b.exchange) OR EXISTS (SELECT FROM mq.queues q WHERE q.name = b.queue))
  AND (b.queue IS NULL OR mq.relation$(b.queue) IS NOT NULL);
COMMENT ON VIEW mq.bindings IS 'bindings of the exchanges in mq.exchanges, and those that lead to the queues in mq.queues';

CREATE FUNCTION mq.leads_to$(exchange text, queue text)
RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reached AS (
        SELECT leads_to$.exchange COLLATE "C" AS name
        UNION
        SELECT next.name
        FROM reached r
        CROSS JOIN LATERAL (SELECT b.destination AS name FROM mq.binding$ b WHERE b.exchange = r.name AND b.destination IS NOT NULL
                            UNION ALL
                            SELECT e.alternate FROM mq.exchange$ e WHERE e.name = r.name AND e.alternate IS NOT NULL) next
    )
    SELECT EXISTS (SELECT FROM mq.binding$ b JOIN reached r ON r.name = b.exchange WHERE b.queue = leads_to$.queue)
$$;
REVOKE ALL ON FUNCTION mq.leads_to$(text, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.leads_to$(text, text) IS 'whether some binding leads from an exchange to a queue, directly or through other exchanges';

CREATE OR REPLACE FUNCTION mq.redrivable$(dead_queue text, origin text)
RETURNS boolean LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    q mq.queue$;
BEGIN
    SELECT * INTO q FROM mq.queue$ o WHERE o.name = origin;
    RETURN FOUND AND mq.relation$(origin) IS NOT NULL AND origin <> dead_queue COLLATE "C"
           AND (q.dead_letter = dead_queue
                OR CASE q.dead_letter_exchange WHEN '' THEN coalesce(q.dead_letter_key, q.name) = dead_queue
                                               ELSE mq.leads_to$(q.dead_letter_exchange, dead_queue) END) IS TRUE;
END
$$;


--
-- Publishing
--

CREATE OR REPLACE FUNCTION mq.publish(
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
AS 'MODULE_PATHNAME', 'mq_sql_publish';

CREATE OR REPLACE FUNCTION mq.publish_batch(
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
AS 'MODULE_PATHNAME', 'mq_sql_publish_batch';
