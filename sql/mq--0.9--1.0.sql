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
         'empty or the name of an exchange')
    ) AS rule (option, kept, wanted)
    WHERE NOT rule.kept
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% must be %', wrong.option, wrong.wanted USING ERRCODE = 'invalid_parameter_value';
    END IF;

    SELECT later.option INTO wrong
    FROM (VALUES
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
                  HINT = 'Drop or alter them first.';
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
    ordered  boolean;
BEGIN
    PERFORM mq.require$(queue);
    IF since IS NULL THEN
        RAISE EXCEPTION 'since must not be null' USING ERRCODE = 'invalid_parameter_value';
    ELSIF to_regclass(format('mq.%I', 'a_' || queue)) IS NULL THEN
        RAISE EXCEPTION 'queue "%" has no archive', queue
            USING ERRCODE = 'undefined_object', HINT = 'mq.alter_queue with retain makes one.';
    END IF;
    -- it may have become ordered since
    SELECT q.ordered INTO ordered FROM mq.queues q WHERE q.name = replay$.queue;
    EXECUTE format($query$
        SELECT count(mq.enqueue($1, a.body, a.headers, priority => CASE WHEN $4 THEN 0 ELSE a.priority END, key => a.key, data => a.data))
        FROM (SELECT * FROM mq.%I m WHERE m.acked_at >= $2 AND m.acked_at < $3 ORDER BY m.acked_at, m.id) a
        $query$, 'a_' || queue)
        INTO replayed USING queue, since, coalesce(until, clock_timestamp()), ordered;
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
