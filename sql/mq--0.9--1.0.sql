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

CREATE FUNCTION mq.referrers$(exchange boolean, name text)
RETURNS text LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_referrers';
REVOKE ALL ON FUNCTION mq.referrers$(boolean, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.referrers$(boolean, text) IS
'what refers to a queue, or to an exchange, a line each, NULL = nothing; by the latest committed state at every isolation level';

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

    referrer := mq.referrers$(false, name);
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
        IF FOUND THEN
            -- nothing that was bound to another one of this name
            DELETE FROM mq.binding$ b WHERE b.queue = options.name;
            EXIT;
        END IF;
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
            END IF;
        END IF;
    END LOOP;
    IF mq.relation$(options.name) IS NOT NULL THEN
        RAISE EXCEPTION 'relation % already exists and is no queue''s', mq.relation$(options.name)
            USING ERRCODE = 'duplicate_object';
    END IF;
    PERFORM mq.name_dead_exchange$(owner, options);
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
    IF num_nonnulls(dead_letter_exchange, dead_letter_key) > 0 THEN
        PERFORM mq.name_dead_exchange$(c.relowner, options) FROM pg_class c WHERE c.oid = relation;
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
    origins  CONSTANT text[] := mq.origins$(dead_queue);
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
            WHERE ($2 IS NOT NULL OR m.headers -> 'x-death' -> 0 ->> 'queue' = ANY ($3))
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
        INTO moved, last_id USING relation, target, origins, max;

    IF target IS NULL THEN
        EXECUTE format($query$
            SELECT count(*) FROM mq.%I m
            WHERE ($2 IS NULL OR m.id < $2)
              AND (m.headers -> 'x-death' -> 0 ->> 'queue' = ANY ($1)) IS NOT TRUE
            $query$, 'q_' || dead_queue)
            INTO left_out USING origins, CASE WHEN moved = max THEN last_id END;
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
        RAISE EXCEPTION '% must not be the default exchange', argument USING ERRCODE = 'invalid_parameter_value',
            HINT = 'That one has no bindings: it routes to the queue that the routing key names.';
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

CREATE FUNCTION mq.use_exchange$(role oid, argument text, exchange text)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM mq.exchange_type$(argument, exchange);
    IF NOT mq.may_publish$(role, exchange) THEN
        RAISE EXCEPTION 'permission denied for exchange "%"', exchange
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('Role %s may not publish to it.', quote_ident(pg_get_userbyid(role))),
                  HINT = 'Its owner can grant it with mq.grant_exchange.';
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.use_exchange$(oid, text, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.use_exchange$(oid, text, text) IS
'raises 42704 or 42501 unless there is such an exchange and the role may publish to it; it is kept from being dropped';

CREATE FUNCTION mq.name_dead_exchange$(owner oid, options mq.queue$)
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target CONSTANT text := coalesce(options.dead_letter_key, options.name);
BEGIN
    IF options.dead_letter_exchange <> '' THEN
        PERFORM mq.use_exchange$(owner, 'dead_letter_exchange', options.dead_letter_exchange);
    ELSIF options.dead_letter_exchange = '' AND target <> options.name THEN
        -- keeps mq.drop_queue away until this transaction ends
        PERFORM FROM mq.queue$ q WHERE q.name = target FOR KEY SHARE;
        IF NOT has_table_privilege(owner, mq.relation$(target), 'INSERT') THEN
            RAISE EXCEPTION 'permission denied for queue "%"', target
                USING ERRCODE = 'insufficient_privilege',
                      DETAIL = format('The owner of queue "%s" needs INSERT on the queue that its dead letters go to.', options.name),
                      HINT = 'Its owner can grant it with mq.grant.';
        END IF;
    END IF;
END
$$;
REVOKE ALL ON FUNCTION mq.name_dead_exchange$(oid, mq.queue$) FROM PUBLIC;
COMMENT ON FUNCTION mq.name_dead_exchange$(oid, mq.queue$) IS
'raises 42704 or 42501 unless a queue''s owner may send where its dead_letter_exchange says; by the default one a queue need not exist yet';

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
        PERFORM mq.use_exchange$(caller, 'alternate', alternate);
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

    referrer := mq.referrers$(true, name);
    IF referrer IS NOT NULL THEN
        RAISE EXCEPTION 'cannot drop exchange "%" because others refer to it', name
            USING ERRCODE = 'dependent_objects_still_exist', DETAIL = referrer,
                  HINT = 'Alter those queues, and drop those exchanges, first.';
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
    kind  CONSTANT text := coalesce(match ->> 'x-match', 'all');
    skipped   text;
    looked_at integer;
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

    SELECT string_agg(quote_ident(h.name), ', ' ORDER BY h.name) FILTER (WHERE h.name LIKE 'x-%'),
           count(*) FILTER (WHERE h.name NOT LIKE 'x-%')
    INTO skipped, looked_at
    FROM jsonb_object_keys(match) h (name) WHERE h.name <> 'x-match';
    IF kind LIKE '%-with-x' THEN
        looked_at := looked_at + (skipped IS NOT NULL)::integer;
    ELSIF skipped IS NOT NULL THEN
        RAISE NOTICE 'match does not look at headers that begin with x-: %', skipped
            USING HINT = 'With x-match "all-with-x" or "any-with-x" it does.';
    END IF;
    IF kind LIKE 'any%' AND looked_at = 0 THEN
        RAISE NOTICE 'binding takes no message: it wants any of no headers';
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
    PERFORM mq.use_exchange$(caller, 'destination', destination);
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

-- Where a message died is what its sender may have written: only a queue whose dead letters do come here is believed.
CREATE FUNCTION mq.origins$(dead_queue text)
RETURNS text[] LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'mq_sql_as_extension';
COMMENT ON FUNCTION mq.origins$(text) IS 'the queues whose dead letters may come to this one; for its owner';

CREATE FUNCTION mq.origins$$(caller oid, dead_queue text)
RETURNS text[] LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    origins text[];
BEGIN
    PERFORM mq.require_owner$(caller, dead_queue);
    WITH RECURSIVE upstream AS (
        SELECT b.exchange AS name FROM mq.binding$ b WHERE b.queue = dead_queue
        UNION
        SELECT before.name
        FROM upstream u
        CROSS JOIN LATERAL (SELECT b.exchange AS name FROM mq.binding$ b WHERE b.destination = u.name
                            UNION ALL
                            SELECT e.name FROM mq.exchange$ e WHERE e.alternate = u.name) before
    )
    SELECT array_agg(q.name) INTO origins
    FROM mq.queue$ q
    WHERE q.name <> dead_queue AND mq.relation$(q.name) IS NOT NULL
      AND (q.dead_letter = dead_queue
           OR q.dead_letter_exchange = '' AND q.dead_letter_key = dead_queue
           OR q.dead_letter_exchange IN (SELECT u.name FROM upstream u));
    RETURN coalesce(origins, '{}');
END
$$;
REVOKE ALL ON FUNCTION mq.origins$$(oid, text) FROM PUBLIC;
COMMENT ON FUNCTION mq.origins$$(oid, text) IS 'mq.origins$, run as the extension''s owner';

DROP FUNCTION mq.redrivable$(text, text);


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


-- Import. A definitions file of RabbitMQ is read in steps: checked as a whole;
-- queues and exchanges as items, with what arguments and policies say together;
-- then rows, which tell what becomes of each and carry the statements that do
-- it. All of that only looks, and sees what the caller may. The statements are
-- run by mq.import_definitions as the caller, so what they need is asked of him.
--

CREATE TYPE mq.import_item$ AS (
    kind       text,
    nr         bigint,
    vhost      text,
    source     text,
    type       text,
    name       text,
    present    boolean,
    served     boolean,
    item       jsonb,
    args       jsonb,
    settings   jsonb,
    policies   bigint[],
    definition jsonb
);
COMMENT ON TYPE mq.import_item$ IS 'a queue or exchange that a definitions file declares or mentions';
COMMENT ON COLUMN mq.import_item$.nr IS 'place in the file, NULL: only mentioned';
COMMENT ON COLUMN mq.import_item$.source IS 'name in RabbitMQ';
COMMENT ON COLUMN mq.import_item$.type IS 'RabbitMQ''s; NULL: only mentioned';
COMMENT ON COLUMN mq.import_item$.name IS 'name here';
COMMENT ON COLUMN mq.import_item$.present IS 'is there before the import';
COMMENT ON COLUMN mq.import_item$.served IS 'is there after the import';
COMMENT ON COLUMN mq.import_item$.settings IS 'what arguments, without their x-, and policies say together';
COMMENT ON COLUMN mq.import_item$.policies IS 'places of the policy and the operator policy that apply';
COMMENT ON COLUMN mq.import_item$.definition IS 'what these two say together';

CREATE TYPE mq.import_policy$ AS (
    kind       text,
    nr         bigint,
    vhost      text,
    name       text,
    pattern    text,
    apply_to   text,
    priority   numeric,
    definition jsonb
);
COMMENT ON TYPE mq.import_policy$ IS 'a policy or operator policy of a definitions file';
COMMENT ON COLUMN mq.import_policy$.pattern IS 'as a regular expression of PostgreSQL, NULL: not understood';

CREATE TYPE mq.import_row$ AS (
    kind   text,
    name   text,
    action text,
    note   text,
    make   text,
    link   text
);
COMMENT ON TYPE mq.import_row$ IS 'a row of mq.import_definitions';
COMMENT ON COLUMN mq.import_row$.make IS 'statement that makes the object';
COMMENT ON COLUMN mq.import_row$.link IS 'statement that makes it refer to others, run when all are made';

CREATE FUNCTION mq.import_section$(definitions jsonb, section text)
RETURNS TABLE (nr bigint, item jsonb) LANGUAGE sql IMMUTABLE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.nr, e.item
    FROM jsonb_array_elements(CASE jsonb_typeof(definitions -> section) WHEN 'array' THEN definitions -> section ELSE '[]' END)
         WITH ORDINALITY AS e (item, nr)
$$;
COMMENT ON FUNCTION mq.import_section$(jsonb, text) IS 'the objects of one section of a definitions file';

-- RabbitMQ writes some tables as lists of pairs.
CREATE FUNCTION mq.import_object$(value jsonb)
RETURNS jsonb LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN value IS NULL OR value = 'null' THEN '{}'
    WHEN jsonb_typeof(value) = 'object' THEN value
    WHEN jsonb_typeof(value) = 'array'
         AND NOT jsonb_path_exists(value, 'strict $[*] ? (@.type() != "array" || @.size() != 2 || @[0].type() != "string")')
    THEN (SELECT coalesce(jsonb_object_agg(pair.value ->> 0, pair.value -> 1), '{}') FROM jsonb_array_elements(value) AS pair)
END;
COMMENT ON FUNCTION mq.import_object$(jsonb) IS 'a table of a definitions file as an object, NULL: it is none';

CREATE FUNCTION mq.import_unique$(name text, seed text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN left(name, 45) || '_' || left(encode(sha256(convert_to(seed, 'UTF8')), 'hex'), 8);
COMMENT ON FUNCTION mq.import_unique$(text, text) IS 'a name of at most 54 characters that others hardly meet';

CREATE FUNCTION mq.import_name$(name text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN (SELECT CASE WHEN length(whole.name) <= 54 THEN whole.name ELSE mq.import_unique$(whole.name, import_name$.name) END
        FROM (SELECT regexp_replace(import_name$.name COLLATE "C", '[^A-Za-z0-9_.-]', '_', 'g')) AS plain (name)
        CROSS JOIN LATERAL (SELECT CASE WHEN plain.name ~ '^[A-Za-z_]' THEN '' ELSE '_' END || plain.name) AS whole (name));
COMMENT ON FUNCTION mq.import_name$(text) IS 'the name a queue or exchange gets here: itself where mq can have it';

CREATE FUNCTION mq.import_pattern$(pattern text)
RETURNS text LANGUAGE plpgsql IMMUTABLE
SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $$
DECLARE
    translated CONSTANT text := regexp_replace(regexp_replace(pattern, '((?:^|[^\\])(?:\\\\)*)\\b', '\1\\y', 'g'),
                                               '((?:^|[^\\])(?:\\\\)*)\\z', '\1\\Z', 'g');
    rest       CONSTANT text := regexp_replace(regexp_replace(translated, '\\([dDwWsSyAZ]|[^A-Za-z0-9])', '', 'g'),
                                               '^\(\?i\)|\(\?[:=!]', '', 'g');
BEGIN
    -- what is left of escapes and groups of Perl's means something else to PostgreSQL
    IF rest ~ '\\|\(\?|^\*\*\*' THEN
        RETURN NULL;
    END IF;
    PERFORM '' ~ translated;
    RETURN translated;
EXCEPTION WHEN invalid_regular_expression THEN
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION mq.import_pattern$(text) IS 'a policy''s pattern as a regular expression of PostgreSQL, NULL: not understood';

CREATE FUNCTION mq.import_overlay$(under jsonb, over jsonb)
RETURNS jsonb LANGUAGE sql IMMUTABLE
RETURN (SELECT coalesce(jsonb_object_agg(key, CASE
            WHEN u.value IS NULL THEN o.value
            WHEN o.value IS NULL THEN u.value
            WHEN jsonb_typeof(u.value) <> 'number' OR jsonb_typeof(o.value) <> 'number' THEN o.value
            WHEN key = 'delivery-limit' AND least(u.value::numeric, o.value::numeric) < 0 THEN greatest(u.value, o.value)
            ELSE least(u.value, o.value) END), '{}')
        FROM jsonb_each(under) AS u FULL JOIN jsonb_each(over) AS o USING (key));
COMMENT ON FUNCTION mq.import_overlay$(jsonb, jsonb) IS
'two tables of settings together, as RabbitMQ does: of two numbers the smaller, of limits on deliveries not the one that means none';

CREATE FUNCTION mq.import_applies$(kind text, type text, policy mq.import_policy$)
RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN kind = 'exchange' THEN (policy).kind = 'policy' AND (policy).apply_to IN ('all', 'exchanges')
    ELSE (policy).apply_to IN ('all', 'queues', type || '_queues', type || 's')
         -- a policy with a key that queues of this type do not know is not for them
         AND NOT (policy).definition ?| CASE type
             WHEN 'classic' THEN '{max-age,stream-max-segment-size-bytes,initial-cluster-size,delivery-limit,dead-letter-strategy,target-group-size}'
             WHEN 'quorum' THEN '{max-priority,queue-mode,ha-mode,ha-params,ha-sync-mode,ha-promote-on-shutdown,ha-promote-on-failure,queue-master-locator,max-age,stream-max-segment-size-bytes,initial-cluster-size}'
             ELSE '{}' END::text[]
END;
COMMENT ON FUNCTION mq.import_applies$(text, text, mq.import_policy$) IS 'whether a policy is for queues or exchanges of this type, its pattern aside';

CREATE FUNCTION mq.import_hint$(key text)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN CASE
    WHEN key = 'expires' THEN 'a queue stays until mq.drop_queue'
    WHEN key = 'max-length-bytes' THEN 'only the number of messages can be limited: max_length'
    WHEN key IN ('queue-mode', 'queue-version', 'max-in-memory-length', 'max-in-memory-bytes') THEN 'not needed, messages are stored in a table'
    WHEN key IN ('queue-master-locator', 'queue-leader-locator', 'quorum-initial-group-size', 'quorum-target-group-size', 'target-group-size',
                 'initial-cluster-size', 'member-placement-tag') OR key LIKE 'ha-%' THEN 'not needed, PostgreSQL replicates the whole database'
    WHEN key = 'dead-letter-strategy' THEN 'not needed, a dead message moves in one transaction'
    WHEN key = 'max-age' OR key LIKE 'stream-%' THEN 'of streams; see retain and mq.replay'
    WHEN key LIKE 'delayed-retry-%' THEN 'see backoff and backoff_limit'
    WHEN key = 'consumer-disconnected-timeout' THEN 'the lease says how long a delivery stays with its consumer'
    WHEN key LIKE 'federation-%' THEN 'mq does not federate; see logical replication'
    WHEN key = 'auto_delete' THEN 'it stays until it is dropped'
    WHEN key = 'exclusive' THEN 'whoever has the privilege may consume; see mq.grant'
    WHEN key = 'internal' THEN 'who may publish is decided by mq.grant_exchange'
    ELSE 'not known to mq'
END;
COMMENT ON FUNCTION mq.import_hint$(text) IS 'what to do about a setting that has no counterpart';

CREATE FUNCTION mq.import_check$(definitions jsonb)
RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wrong text;
BEGIN
    wrong := CASE WHEN definitions IS NULL THEN 'must not be null'
                  WHEN jsonb_typeof(definitions) <> 'object' THEN 'must be an object' END;

    wrong := coalesce(wrong, (
        SELECT format('.%s must be an array of objects', s.section)
        FROM unnest('{queues,exchanges,bindings,policies,parameters,global_parameters,vhosts,users,permissions,topic_permissions}'::text[])
             AS s (section)
        WHERE CASE jsonb_typeof(definitions -> s.section)
                  WHEN 'array' THEN jsonb_path_exists(definitions -> s.section, 'strict $[*] ? (@.type() != "object")')
                  ELSE definitions -> s.section <> 'null' END
        LIMIT 1));

    wrong := coalesce(wrong, (
        SELECT format('.%s[%s].%s must be %s %s', rule.section, e.nr - 1, rule.field,
                      CASE rule.type WHEN 'object' THEN 'an' ELSE 'a' END, rule.type)
        FROM (VALUES
            ('queues', 'name', 'string', true), ('queues', 'vhost', 'string', false), ('queues', 'type', 'string', false),
            ('queues', 'durable', 'boolean', false), ('queues', 'auto_delete', 'boolean', false), ('queues', 'arguments', 'object', false),
            ('exchanges', 'name', 'string', true), ('exchanges', 'vhost', 'string', false), ('exchanges', 'type', 'string', true),
            ('exchanges', 'durable', 'boolean', false), ('exchanges', 'auto_delete', 'boolean', false),
            ('exchanges', 'internal', 'boolean', false), ('exchanges', 'arguments', 'object', false),
            ('bindings', 'source', 'string', true), ('bindings', 'destination', 'string', true),
            ('bindings', 'destination_type', 'string', true), ('bindings', 'vhost', 'string', false),
            ('bindings', 'routing_key', 'string', false), ('bindings', 'arguments', 'object', false),
            ('policies', 'name', 'string', true), ('policies', 'vhost', 'string', false), ('policies', 'pattern', 'string', true),
            ('policies', 'apply-to', 'string', false), ('policies', 'priority', 'number', false), ('policies', 'definition', 'object', true),
            ('parameters', 'component', 'string', true), ('parameters', 'name', 'string', true), ('parameters', 'vhost', 'string', false),
            ('global_parameters', 'name', 'string', true), ('vhosts', 'name', 'string', true), ('users', 'name', 'string', true),
            ('permissions', 'user', 'string', true), ('permissions', 'vhost', 'string', false),
            ('topic_permissions', 'user', 'string', true), ('topic_permissions', 'vhost', 'string', false)
        ) AS rule (section, field, type, needed)
        CROSS JOIN LATERAL mq.import_section$(definitions, rule.section) AS e
        WHERE CASE WHEN coalesce(e.item -> rule.field, 'null') = 'null' THEN rule.needed
                   WHEN rule.type = 'object' THEN mq.import_object$(e.item -> rule.field) IS NULL
                   ELSE jsonb_typeof(e.item -> rule.field) <> rule.type END
        LIMIT 1));

    wrong := coalesce(wrong, (
        SELECT format('.parameters[%s].value must be an operator policy', e.nr - 1)
        FROM mq.import_section$(definitions, 'parameters') AS e
        CROSS JOIN LATERAL mq.import_object$(e.item -> 'value') AS policy (value)
        WHERE e.item ->> 'component' = 'operator_policy'
          AND (jsonb_typeof(policy.value -> 'pattern') = 'string' AND mq.import_object$(policy.value -> 'definition') IS NOT NULL
               AND coalesce(jsonb_typeof(policy.value -> 'priority'), 'number') = 'number'
               AND coalesce(jsonb_typeof(policy.value -> 'apply-to'), 'string') = 'string') IS NOT TRUE
        LIMIT 1));

    wrong := coalesce(wrong, (
        SELECT format('.bindings[%s].destination_type must be "queue" or "exchange"', e.nr - 1)
        FROM mq.import_section$(definitions, 'bindings') AS e
        WHERE e.item ->> 'destination_type' NOT IN ('queue', 'exchange')
        LIMIT 1));

    wrong := coalesce(wrong, (
        SELECT format('%s.%s must be %s', given.place, given.key,
                      CASE rule.type WHEN 'number' THEN format('a whole number from %s to %s', rule.least, rule.most) ELSE 'a ' || rule.type END)
        FROM (SELECT format('.queues[%s].arguments', e.nr - 1), a.key, substring(a.key FROM '^x-(.*)$'), a.value
              FROM mq.import_section$(definitions, 'queues') AS e
              CROSS JOIN LATERAL jsonb_each(mq.import_object$(e.item -> 'arguments')) AS a
              UNION ALL
              SELECT format('.exchanges[%s].arguments', e.nr - 1), a.key, a.key, a.value
              FROM mq.import_section$(definitions, 'exchanges') AS e
              CROSS JOIN LATERAL jsonb_each(mq.import_object$(e.item -> 'arguments')) AS a
              WHERE a.key = 'alternate-exchange'
              UNION ALL
              SELECT format('.policies[%s].definition', e.nr - 1), a.key, a.key, a.value
              FROM mq.import_section$(definitions, 'policies') AS e
              CROSS JOIN LATERAL jsonb_each(mq.import_object$(e.item -> 'definition')) AS a
              UNION ALL
              SELECT format('.parameters[%s].value.definition', e.nr - 1), a.key, a.key, a.value
              FROM mq.import_section$(definitions, 'parameters') AS e
              CROSS JOIN LATERAL jsonb_each(mq.import_object$(mq.import_object$(e.item -> 'value') -> 'definition')) AS a
              WHERE e.item ->> 'component' = 'operator_policy') AS given (place, key, setting, value)
        JOIN (VALUES
            ('message-ttl', 'number', 0, 4294967295), ('max-length', 'number', 0, 9007199254740991),
            ('delivery-limit', 'number', -1, 2147483646), ('max-priority', 'number', 0, 255), ('consumer-timeout', 'number', 0, 4294967295),
            ('overflow', 'string', NULL, NULL), ('dead-letter-exchange', 'string', NULL, NULL),
            ('dead-letter-routing-key', 'string', NULL, NULL), ('alternate-exchange', 'string', NULL, NULL),
            ('queue-type', 'string', NULL, NULL), ('single-active-consumer', 'boolean', NULL, NULL)
        ) AS rule (setting, type, least, most) USING (setting)
        WHERE CASE WHEN jsonb_typeof(given.value) <> rule.type THEN true
                   WHEN rule.type = 'number' THEN given.value::numeric NOT BETWEEN rule.least AND rule.most OR given.value::numeric % 1 <> 0 END
        LIMIT 1));

    wrong := coalesce(wrong, (
        SELECT format('.%s has "%s" of one vhost twice', s.section, e.item ->> 'name')
        FROM (VALUES ('queues'), ('exchanges')) AS s (section)
        CROSS JOIN LATERAL mq.import_section$(definitions, s.section) AS e
        GROUP BY s.section, e.item -> 'vhost', e.item ->> 'name'
        HAVING count(*) > 1
        LIMIT 1));

    wrong := coalesce(wrong, (
        SELECT format('.queues[%s].name must not be empty', e.nr - 1)
        FROM mq.import_section$(definitions, 'queues') AS e
        WHERE e.item ->> 'name' = ''
        LIMIT 1));

    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'definitions%', CASE WHEN wrong LIKE '.%' THEN wrong ELSE ' ' || wrong END
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Give what "rabbitmqctl export_definitions" writes. Nothing was changed.';
    END IF;
END
$$;
COMMENT ON FUNCTION mq.import_check$(jsonb) IS 'raises 22023 unless this is a definitions file';

CREATE FUNCTION mq.import_vhost$(definitions jsonb, item jsonb)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN coalesce(item ->> 'vhost', definitions ->> 'original_vhost_name', '/');
COMMENT ON FUNCTION mq.import_vhost$(jsonb, jsonb) IS 'vhost of an object; a file of one vhost does not name it';

CREATE FUNCTION mq.import_policies$(definitions jsonb)
RETURNS SETOF mq.import_policy$ LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.kind, p.nr, mq.import_vhost$(definitions, p.item), p.item ->> 'name', mq.import_pattern$(p.said ->> 'pattern'),
           coalesce(p.said ->> 'apply-to', 'all'), coalesce((p.said ->> 'priority')::numeric, 0), mq.import_object$(p.said -> 'definition')
    FROM (SELECT 'policy', e.nr, e.item, e.item FROM mq.import_section$(definitions, 'policies') AS e
          UNION ALL
          SELECT 'operator policy', e.nr, e.item, mq.import_object$(e.item -> 'value') FROM mq.import_section$(definitions, 'parameters') AS e
          WHERE e.item ->> 'component' = 'operator_policy') AS p (kind, nr, item, said)
$$;
COMMENT ON FUNCTION mq.import_policies$(jsonb) IS 'policies and operator policies of a definitions file';

CREATE FUNCTION mq.import_exchange_type$(type text, args jsonb)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN (SELECT known.type FROM (VALUES ('direct'), ('topic'), ('fanout'), ('headers')) AS known (type)
        WHERE known.type = CASE import_exchange_type$.type WHEN 'x-delayed-message' THEN args ->> 'x-delayed-type' ELSE import_exchange_type$.type END);
COMMENT ON FUNCTION mq.import_exchange_type$(text, jsonb) IS 'type of exchange here, NULL: it has no counterpart';

CREATE FUNCTION mq.import_items$(definitions jsonb)
RETURNS SETOF mq.import_item$ LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH listed AS MATERIALIZED (
        SELECT 'queue' AS kind, e.nr, mq.import_vhost$(definitions, e.item) AS vhost, e.item ->> 'name' AS source,
               coalesce(a.args ->> 'x-queue-type', e.item ->> 'type', 'classic') AS type, e.item, a.args,
               (SELECT coalesce(jsonb_object_agg(substr(s.key, 3), s.value), '{}') FROM jsonb_each(a.args) AS s
                WHERE s.key LIKE 'x-%') AS settings
        FROM mq.import_section$(definitions, 'queues') AS e
        CROSS JOIN LATERAL mq.import_object$(e.item -> 'arguments') AS a (args)
        UNION ALL
        SELECT 'exchange', e.nr, mq.import_vhost$(definitions, e.item), e.item ->> 'name', e.item ->> 'type', e.item, a.args, a.args
        FROM mq.import_section$(definitions, 'exchanges') AS e
        CROSS JOIN LATERAL mq.import_object$(e.item -> 'arguments') AS a (args)
    ), applied AS MATERIALIZED (
        SELECT DISTINCT ON (l.kind, l.nr, p.kind) l.kind, l.nr, p.kind AS by, p.nr AS policy, p.definition
        FROM listed AS l
        JOIN mq.import_policies$(definitions) AS p ON p.vhost = l.vhost AND l.source COLLATE "C" ~ p.pattern
        WHERE mq.import_applies$(l.kind, l.type, p)
        ORDER BY l.kind, l.nr, p.kind, p.priority DESC, p.nr
    ), declared AS MATERIALIZED (
        SELECT l.kind, l.nr, l.vhost, l.source, l.type, l.item, l.args, ARRAY[p.policy, o.policy] AS policies, d.definition,
               -- in a quorum queue the policy's overflow wins
               mq.import_overlay$(d.definition, CASE WHEN l.type = 'quorum' AND d.definition ? 'overflow' THEN l.settings - 'overflow'
                                                     ELSE l.settings END) AS settings
        FROM listed AS l
        LEFT JOIN applied AS p ON p.kind = l.kind AND p.nr = l.nr AND p.by = 'policy'
        LEFT JOIN applied AS o ON o.kind = l.kind AND o.nr = l.nr AND o.by = 'operator policy'
        CROSS JOIN LATERAL mq.import_overlay$(coalesce(p.definition, '{}'), coalesce(o.definition, '{}')) AS d (definition)
    ), mentioned AS (
        SELECT 'exchange' AS kind, mq.import_vhost$(definitions, e.item) AS vhost, e.item ->> 'source' AS source
        FROM mq.import_section$(definitions, 'bindings') AS e
        UNION
        SELECT e.item ->> 'destination_type', mq.import_vhost$(definitions, e.item), e.item ->> 'destination'
        FROM mq.import_section$(definitions, 'bindings') AS e
        UNION
        SELECT 'exchange', d.vhost, d.settings ->> CASE d.kind WHEN 'queue' THEN 'dead-letter-exchange' ELSE 'alternate-exchange' END
        FROM declared AS d
        EXCEPT
        SELECT d.kind, d.vhost, d.source FROM declared AS d
    ), predeclared (source, type) AS (
        VALUES ('amq.direct', 'direct'), ('amq.topic', 'topic'), ('amq.fanout', 'fanout'), ('amq.headers', 'headers'),
               ('amq.match', 'headers'), ('amq.rabbitmq.trace', 'topic')
    ), known AS MATERIALIZED (
        SELECT d.*, CASE WHEN d.vhost <> '/' AND min(d.vhost) OVER () <> max(d.vhost) OVER () THEN d.vhost || '.' ELSE '' END || d.source AS full_name
        FROM (SELECT d.kind, d.nr, d.vhost, d.source, d.type, d.item, d.args, d.settings, d.policies, d.definition FROM declared AS d
              UNION ALL
              SELECT m.kind, NULL, m.vhost, m.source, p.type, '{}', '{}', '{}', '{}', '{}'
              FROM mentioned AS m LEFT JOIN predeclared AS p ON m.kind = 'exchange' AND p.source = m.source
              WHERE m.source <> '') AS d
    ), named AS (
        SELECT k.*, CASE WHEN k.source = '' THEN ''
                         -- two that would meet are told apart, unless one of them had the name in RabbitMQ
                         WHEN count(*) OVER (PARTITION BY k.kind, n.name) > 1 AND n.name <> k.source THEN
                             mq.import_unique$(n.name, k.vhost || '/' || k.source)
                         ELSE n.name END AS name
        FROM known AS k
        CROSS JOIN LATERAL mq.import_name$(k.full_name) AS n (name)
    )
    SELECT n.kind, n.nr, n.vhost, n.source, n.type, n.name, p.present,
           p.present OR CASE n.kind WHEN 'queue' THEN coalesce(n.type IN ('classic', 'quorum'), false)
                                    ELSE mq.import_exchange_type$(n.type, n.args) IS NOT NULL END,
           n.item, n.args, n.settings, n.policies, n.definition
    FROM named AS n
    LEFT JOIN mq.exchanges AS x ON n.kind = 'exchange' AND x.name = n.name
    CROSS JOIN LATERAL (SELECT CASE n.kind WHEN 'queue' THEN mq.relation$(n.name) IS NOT NULL ELSE x.name IS NOT NULL END) AS p (present)
    ORDER BY n.nr, n.vhost, n.source
$$;
COMMENT ON FUNCTION mq.import_items$(jsonb) IS 'queues and exchanges of a definitions file, those that it only mentions last';

CREATE FUNCTION mq.import_renamed$(item mq.import_item$)
RETURNS SETOF mq.import_row$ LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (item).kind, (item).name, 'renamed', format('was "%s" of vhost "%s"%s', (item).source, (item).vhost,
           CASE (item).kind WHEN 'queue' THEN '; who publishes to it through the default exchange names it so' ELSE '; publishers name it so' END),
           NULL, NULL
    WHERE (item).name <> (item).source
$$;
COMMENT ON FUNCTION mq.import_renamed$(mq.import_item$) IS 'the row for an object that gets another name';

CREATE FUNCTION mq.import_arguments$(options jsonb)
RETURNS text LANGUAGE sql IMMUTABLE
RETURN (SELECT string_agg(format('%I => %s', o.key, CASE jsonb_typeof(o.value) WHEN 'string' THEN quote_literal(o.value #>> '{}') ELSE o.value::text END),
                          ', ' ORDER BY o.key)
        FROM jsonb_each(jsonb_strip_nulls(options)) AS o);
COMMENT ON FUNCTION mq.import_arguments$(jsonb) IS 'options as arguments of a call';

-- Messages of the importer may go there, and somebody may have taken the name first.
CREATE FUNCTION mq.import_owner$(owner name)
RETURNS text LANGUAGE sql STABLE
RETURN CASE WHEN owner <> current_user THEN format('it belongs to %I', owner) END;
COMMENT ON FUNCTION mq.import_owner$(name) IS 'note on an object of another role';

CREATE FUNCTION mq.import_exchanges$(items mq.import_item$[])
RETURNS SETOF mq.import_row$ LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    x       record;
    present mq.exchanges;
    type    text;
BEGIN
    -- an alternate exchange is made before those that name it; who is in a circle of them has no depth
    FOR x IN
        WITH RECURSIVE own AS MATERIALIZED (
            SELECT i AS item, i.name, CASE WHEN i.served AND a.served AND a.name <> i.name THEN a.name END AS alternate
            FROM unnest(items) AS i
            LEFT JOIN unnest(items) AS a ON a.kind = 'exchange' AND a.vhost = i.vhost AND a.source = i.settings ->> 'alternate-exchange'
            WHERE i.kind = 'exchange'
        ), ordered (name, depth) AS (
            SELECT o.name, 0 FROM own AS o WHERE o.alternate IS NULL
            UNION ALL
            SELECT o.name, r.depth + 1 FROM own AS o JOIN ordered AS r ON o.alternate = r.name
        )
        SELECT o.item, CASE WHEN r.depth IS NOT NULL THEN o.alternate END AS alternate, r.depth IS NULL AS circle
        FROM own AS o LEFT JOIN ordered AS r USING (name)
        ORDER BY r.depth, (o.item).nr, o.name
    LOOP
        type := mq.import_exchange_type$((x.item).type, (x.item).args);
        SELECT e.* INTO present FROM mq.exchanges AS e WHERE e.name = (x.item).name;
        IF (x.item).source = '' THEN
            RETURN NEXT ROW('exchange', '', 'exists', 'the default exchange leads to the queue that the key names', NULL, NULL)::mq.import_row$;
            CONTINUE;
        ELSIF NOT (x.item).served THEN
            RETURN NEXT ROW('exchange', (x.item).source, 'skipped', CASE WHEN (x.item).nr IS NOT NULL THEN
                format('type %s has no counterpart', (x.item).type)
                ELSE format('only mentioned, as RabbitMQ does not export internal exchanges: make "%s" with mq.create_exchange and import again',
                            (x.item).name) END, NULL, NULL)::mq.import_row$;
            CONTINUE;
        ELSIF present.name IS NULL THEN
            RETURN NEXT ROW('exchange', (x.item).name, 'created',
                mq.import_arguments$(jsonb_build_object('type', type, 'alternate', x.alternate)),
                format('SELECT mq.create_exchange(%L, type => %L, alternate => %L)', (x.item).name, type, x.alternate), NULL)::mq.import_row$;
        ELSIF type IS NULL OR (present.type = type AND present.alternate IS NOT DISTINCT FROM x.alternate) THEN
            RETURN NEXT ROW('exchange', (x.item).name, 'exists',
                nullif(concat_ws('; ',
                    CASE WHEN type IS NULL AND (x.item).nr IS NOT NULL THEN format('type %s here, %s in the file', present.type, (x.item).type) END,
                    mq.import_owner$(present.owner)), ''), NULL, NULL)::mq.import_row$;
        ELSE
            RETURN NEXT ROW('exchange', (x.item).name, 'differs', concat_ws('; ',
                CASE WHEN present.type <> type THEN format('type is %s, in the file %s', present.type, type) END,
                CASE WHEN present.alternate IS DISTINCT FROM x.alternate THEN
                    format('alternate is %s, in the file %s', coalesce(present.alternate, 'not set'), coalesce(x.alternate, 'not set')) END,
                'nothing changed', mq.import_owner$(present.owner)), NULL, NULL)::mq.import_row$;
        END IF;
        RETURN QUERY SELECT * FROM mq.import_renamed$(x.item);
        IF x.alternate IS NULL AND (x.item).settings ? 'alternate-exchange' THEN
            RETURN NEXT ROW('exchange argument', (x.item).name, 'skipped',
                format('alternate-exchange %s: %s, so what no binding takes is dropped', (x.item).settings -> 'alternate-exchange',
                       CASE WHEN x.circle THEN 'it is in a circle of alternates or leads to one'
                            WHEN (x.item).settings ->> 'alternate-exchange' = (x.item).source THEN 'it is the exchange itself'
                            ELSE 'there is no such exchange' END), NULL, NULL)::mq.import_row$;
        END IF;
        IF (x.item).type = 'x-delayed-message' THEN
            RETURN NEXT ROW('exchange argument', (x.item).name, 'adapted',
                'type x-delayed-message: publishers give delay to mq.publish instead of the header x-delay', NULL, NULL)::mq.import_row$;
        END IF;
        RETURN QUERY SELECT * FROM mq.import_left$(x.item, '{alternate-exchange,x-delayed-type}');
    END LOOP;
END
$$;
COMMENT ON FUNCTION mq.import_exchanges$(mq.import_item$[]) IS 'rows for the exchanges, in the order in which they can be made';

CREATE FUNCTION mq.import_left$(item mq.import_item$, used text[])
RETURNS SETOF mq.import_row$ LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (item).kind || ' argument', (item).name, 'skipped', format('%s %s: %s', a.key, a.value, mq.import_hint$(regexp_replace(a.key, '^x-', ''))),
           NULL, NULL
    FROM (SELECT a.key, a.value FROM jsonb_each((item).args) AS a WHERE a.key <> ALL (used)
          UNION ALL
          SELECT f.key, f.value FROM jsonb_each((item).item) AS f
          WHERE f.key NOT IN ('name', 'vhost', 'type', 'durable', 'arguments') AND f.value NOT IN ('false', 'null')) AS a (key, value)
    ORDER BY a.key
$$;
COMMENT ON FUNCTION mq.import_left$(mq.import_item$, text[]) IS 'rows for arguments and fields other than those used';

CREATE FUNCTION mq.import_queue$(item mq.import_item$, dead mq.import_item$, version integer)
RETURNS SETOF mq.import_row$ LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET intervalstyle = 'postgres'
AS $$
DECLARE
    s        CONSTANT jsonb := (item).settings;
    quorum   CONSTANT boolean := (item).type = 'quorum';
    exchange CONSTANT text := s ->> 'dead-letter-exchange';
    key      CONSTANT text := s ->> 'dead-letter-routing-key';
    options  jsonb := '{"max_attempts": 0}';            -- for mq.create_queue
    deaths   jsonb := '{"dead_letter": ""}';            -- for mq.alter_queue, when all is made
    adapted  text[] := '{}';
    skipped  text[] := '{}';
    existing mq.queues;
    differ   text;
BEGIN
    IF (item).type IN ('classic', 'quorum') IS NOT TRUE THEN
        RETURN NEXT ROW('queue', CASE WHEN (item).present THEN (item).name ELSE (item).source END,
            CASE WHEN (item).present THEN 'exists' ELSE 'skipped' END,
            CASE WHEN (item).nr IS NULL THEN 'only mentioned, as RabbitMQ does not export exclusive queues'
                 WHEN (item).type <> 'stream' THEN format('type %s has no counterpart', (item).type)
                 ELSE 'a stream: make a queue for each of its readers, bound to the same exchange; retain and mq.replay keep what was consumed' END,
            NULL, NULL)::mq.import_row$;
        RETURN;
    END IF;

    IF (s -> 'message-ttl')::bigint > 0 THEN
        options := options || jsonb_build_object('ttl', make_interval(secs => (s -> 'message-ttl')::double precision / 1000));
    ELSIF s ? 'message-ttl' THEN
        skipped := skipped || 'message-ttl 0: no message is delivered without waiting in the queue'::text;
    END IF;
    IF (s -> 'max-length')::bigint > 0 THEN
        options := options || jsonb_build_object('max_length', (s -> 'max-length')::bigint);
    ELSIF s ? 'max-length' THEN
        skipped := skipped || 'max-length 0: no message is delivered without waiting in the queue'::text;
    END IF;
    IF s ->> 'overflow' = 'reject-publish-dlx' AND NOT quorum THEN
        adapted := adapted || 'overflow reject-publish-dlx: reject, an error for the sender; what is refused does not go to the dead letters'::text;
        options := options || '{"overflow": "reject"}';
    ELSIF s ->> 'overflow' = 'reject-publish' THEN
        options := options || '{"overflow": "reject"}';
    ELSIF s ? 'overflow' AND s ->> 'overflow' <> 'drop-head' THEN
        skipped := skipped || format('overflow %s: not known for %s queues, so drop_head', s -> 'overflow', (item).type);
    END IF;
    IF options ? 'max_length' OR s ? 'overflow' THEN
        options := '{"overflow": "drop_head"}' || options;
    END IF;

    IF quorum AND s ? 'delivery-limit' THEN
        -- it counts the returns after the first delivery
        options := options || jsonb_build_object('max_attempts', greatest((s -> 'delivery-limit')::integer + 1, 0));
    ELSIF quorum AND version IS NULL THEN
        adapted := adapted || 'delivery-limit is not set: max_attempts => 0, no limit; the file names no version, and RabbitMQ 4 has a limit of 20'::text;
    ELSIF quorum AND version >= 4 THEN
        options := options || '{"max_attempts": 21}';
    ELSIF s ? 'delivery-limit' AND NOT quorum THEN
        skipped := skipped || format('delivery-limit %s: only quorum queues have it', s -> 'delivery-limit');
    END IF;
    IF (s -> 'max-priority')::integer > 9 THEN
        adapted := adapted || format('max-priority %s: priorities go from 0 to 9, and a higher one is an error for the sender', s -> 'max-priority');
    END IF;
    IF s -> 'single-active-consumer' = 'true' THEN
        options := options || '{"max_in_flight": 1}';
        adapted := adapted || 'single-active-consumer: max_in_flight => 1, one message at a time over all consumers; a failed one lets others pass while it waits for its retry'::text;
    END IF;
    IF (s -> 'consumer-timeout')::bigint > 0 THEN
        options := options || jsonb_build_object('lease', make_interval(secs => (s -> 'consumer-timeout')::double precision / 1000));
        adapted := adapted || format('consumer-timeout %s: the lease, which each dequeue can choose', s -> 'consumer-timeout');
    END IF;
    IF (item).item -> 'durable' = 'false' THEN
        options := options || '{"unlogged": true}';
        adapted := adapted || 'durable false: unlogged, so kept over a restart, emptied by a crash and not there on standbys'::text;
    END IF;

    IF exchange = '' AND key IS NULL THEN
        skipped := skipped || 'dead-letter-exchange "" without a key leads back to the queue a message was sent to: dead messages are dropped'::text;
    ELSIF exchange = '' AND (dead).name = (item).name THEN
        skipped := skipped || format('dead-letter-routing-key %s is the queue itself: dead messages are dropped', s -> 'dead-letter-routing-key');
    ELSIF exchange = '' AND (dead).served IS NOT TRUE THEN
        skipped := skipped || format('dead-letter-routing-key %s: there is no such queue, so dead messages are dropped', s -> 'dead-letter-routing-key');
    ELSIF exchange = '' THEN
        deaths := jsonb_build_object('dead_letter', (dead).name);
    ELSIF exchange IS NOT NULL AND (dead).served IS NOT TRUE THEN
        skipped := skipped || format('dead-letter-exchange %s: there is no such exchange, so dead messages are dropped', s -> 'dead-letter-exchange');
    ELSIF exchange IS NOT NULL THEN
        deaths := jsonb_build_object('dead_letter', '', 'dead_letter_exchange', (dead).name, 'dead_letter_key', key);
        IF key IS NULL AND coalesce((SELECT e.type FROM mq.exchanges AS e WHERE e.name = (dead).name),
                                    mq.import_exchange_type$((dead).type, (dead).args)) IN ('direct', 'topic') THEN
            adapted := adapted || format('dead-letter-exchange %s without a key: dead messages get the key "%s", not the one they were sent with',
                                         s -> 'dead-letter-exchange', (item).name);
        END IF;
    ELSIF key IS NOT NULL THEN
        skipped := skipped || format('dead-letter-routing-key %s without an exchange', s -> 'dead-letter-routing-key');
    END IF;

    IF NOT (item).present THEN
        RETURN NEXT ROW('queue', (item).name, 'created', mq.import_arguments$(options || deaths),
            format('SELECT mq.create_queue(%L, %s, dead_letter => '''')', (item).name, mq.import_arguments$(options)),
            CASE WHEN deaths <> '{"dead_letter": ""}' THEN
                format('SELECT mq.alter_queue(%L, %s)', (item).name, mq.import_arguments$(deaths)) END)::mq.import_row$;
    ELSE
        SELECT q.* INTO existing FROM mq.queues AS q WHERE q.name = (item).name;
        SELECT string_agg(format('%s is %s, in the file %s', now.key, coalesce(now.value #>> '{}', 'not set'), coalesce(wanted.text, 'not set')),
                          '; ' ORDER BY now.key)
        INTO differ
        FROM jsonb_each(to_jsonb(existing)) AS now
        JOIN jsonb_each(to_jsonb(jsonb_populate_record(NULL::mq.queues, '{"unlogged": false}' || options || deaths))) AS file USING (key)
        CROSS JOIN LATERAL nullif(file.value #>> '{}', '') AS wanted (text)
        WHERE now.value #>> '{}' IS DISTINCT FROM wanted.text AND existing.name IS NOT NULL
          AND (options ? now.key OR now.key IN ('dead_letter', 'dead_letter_exchange', 'dead_letter_key', 'ttl', 'max_length', 'unlogged'));
        RETURN NEXT ROW('queue', (item).name, CASE WHEN differ IS NULL THEN 'exists' ELSE 'differs' END,
            CASE WHEN existing.name IS NULL THEN 'not yours to see, so its options are not compared'
                 ELSE nullif(concat_ws('; ', differ || '; nothing changed', mq.import_owner$(existing.owner)), '') END,
            NULL, NULL)::mq.import_row$;
    END IF;
    RETURN QUERY SELECT * FROM mq.import_renamed$(item);
    RETURN QUERY SELECT 'queue argument', (item).name, d.action, d.note, NULL, NULL
                 FROM (SELECT 'adapted', unnest(adapted) UNION ALL SELECT 'skipped', unnest(skipped)) AS d (action, note);
    RETURN QUERY SELECT * FROM mq.import_left$(item, '{x-queue-type,x-message-ttl,x-max-length,x-overflow,x-delivery-limit,x-max-priority,'
        'x-single-active-consumer,x-consumer-timeout,x-dead-letter-exchange,x-dead-letter-routing-key}');
END
$$;
COMMENT ON FUNCTION mq.import_queue$(mq.import_item$, mq.import_item$, integer) IS
'rows for a queue; dead: the exchange or, behind the default exchange, the queue its dead messages go to; version: of RabbitMQ';

CREATE FUNCTION mq.import_bindings$(definitions jsonb, items mq.import_item$[])
RETURNS SETOF mq.import_row$ LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    b       record;
    label   text;
    type    text;
    route   text;
    kind    text;
    wanted  jsonb;
    here    boolean;
BEGIN
    FOR b IN
        SELECT e.nr, s AS source, d AS destination, e.item ->> 'destination_type' = 'queue' AS to_queue, e.item ->> 'source' AS source_name,
               e.item ->> 'destination' AS destination_name, coalesce(e.item ->> 'routing_key', '') AS key, a.args
        FROM mq.import_section$(definitions, 'bindings') AS e
        CROSS JOIN LATERAL mq.import_object$(e.item -> 'arguments') AS a (args)
        CROSS JOIN LATERAL mq.import_vhost$(definitions, e.item) AS v (vhost)
        LEFT JOIN unnest(items) AS s ON s.kind = 'exchange' AND s.vhost = v.vhost AND s.source = e.item ->> 'source'
        LEFT JOIN unnest(items) AS d ON d.kind = e.item ->> 'destination_type' AND d.vhost = v.vhost AND d.source = e.item ->> 'destination'
        ORDER BY e.nr
    LOOP
        kind := CASE WHEN b.to_queue THEN 'binding' ELSE 'exchange binding' END;
        label := format('%s -> %s', CASE WHEN (b.source).served THEN (b.source).name ELSE b.source_name END,
                        CASE WHEN (b.destination).served THEN (b.destination).name ELSE b.destination_name END);
        IF b.source_name = '' THEN
            RETURN NEXT ROW(kind, label, 'exists', 'the default exchange leads to the queue that the key names', NULL, NULL)::mq.import_row$;
            CONTINUE;
        ELSIF (b.source).served IS NOT TRUE OR (b.destination).served IS NOT TRUE THEN
            RETURN NEXT ROW(kind, label, 'skipped', format('key "%s": %s "%s" is skipped', b.key,
                CASE WHEN (b.source).served IS NOT TRUE THEN 'exchange' WHEN b.to_queue THEN 'queue' ELSE 'exchange' END,
                CASE WHEN (b.source).served IS NOT TRUE THEN b.source_name ELSE b.destination_name END), NULL, NULL)::mq.import_row$;
            CONTINUE;
        END IF;

        type := coalesce((SELECT e.type FROM mq.exchanges AS e WHERE e.name = (b.source).name),
                         mq.import_exchange_type$((b.source).type, (b.source).args));
        route := CASE WHEN type IN ('direct', 'topic') THEN b.key ELSE '#' END;
        wanted := CASE WHEN type = 'headers' AND b.args <> '{}' THEN b.args END;
        IF wanted ->> 'x-match' NOT IN ('all', 'any', 'all-with-x', 'any-with-x') OR pg_column_size(wanted) > 1000 THEN
            RETURN NEXT ROW(kind, label, 'skipped', CASE WHEN pg_column_size(wanted) > 1000 THEN 'its headers take more than 1000 bytes'
                ELSE format('x-match %s is not known', wanted -> 'x-match') END, NULL, NULL)::mq.import_row$;
            CONTINUE;
        END IF;

        here := EXISTS (
            SELECT FROM mq.bindings AS e
            WHERE e.exchange = (b.source).name AND e.pattern = route AND e.match IS NOT DISTINCT FROM wanted
              AND CASE WHEN b.to_queue THEN e.queue ELSE e.destination END = (b.destination).name);
        RETURN NEXT ROW(kind, label, CASE WHEN here THEN 'exists' ELSE 'bound' END,
            mq.import_arguments$(jsonb_build_object('pattern', route, 'match', wanted::text)), NULL,
            CASE WHEN NOT here THEN
                format('SELECT mq.%s(%L, %L, pattern => %L, match => %L)', CASE WHEN b.to_queue THEN 'bind' ELSE 'bind_exchange' END,
                       (b.source).name, (b.destination).name, route, wanted) END)::mq.import_row$;
        IF type <> 'headers' THEN
            RETURN QUERY
            SELECT kind || ' argument', label, 'skipped', format('%s %s: means nothing to a %s exchange', a.key, a.value, type), NULL, NULL
            FROM jsonb_each(b.args) AS a
            ORDER BY a.key;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION mq.import_bindings$(jsonb, mq.import_item$[]) IS 'rows for the bindings';

CREATE FUNCTION mq.import_policy_rows$(definitions jsonb, items mq.import_item$[])
RETURNS SETOF mq.import_row$ LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH used AS MATERIALIZED (
        SELECT p.kind, p.nr, count(*) FILTER (WHERE i.kind = 'queue') AS queues, count(*) FILTER (WHERE i.kind = 'exchange') AS exchanges
        FROM mq.import_policies$(definitions) AS p
        JOIN unnest(items) AS i ON i.served AND i.policies[CASE p.kind WHEN 'policy' THEN 1 ELSE 2 END] = p.nr
        GROUP BY p.kind, p.nr
    ), said AS (
        SELECT p.kind, p.nr, '' AS key, p.kind AS row_kind, p.name,
               CASE WHEN u.nr IS NULL THEN 'skipped' ELSE 'applied' END AS action,
               CASE WHEN p.pattern IS NULL THEN 'its pattern cannot be read here; alter by hand what it is for'
                    WHEN u.nr IS NULL THEN 'there is nothing that it is for, or another policy has priority'
                    ELSE format('in vhost "%s", queues: %s, exchanges: %s; what is made later does not get it', p.vhost, u.queues, u.exchanges) END AS note
        FROM mq.import_policies$(definitions) AS p LEFT JOIN used AS u USING (kind, nr)
        UNION ALL
        SELECT p.kind, p.nr, d.key, p.kind || ' argument', p.name, 'skipped', format('%s %s: %s', d.key, d.value, mq.import_hint$(d.key))
        FROM mq.import_policies$(definitions) AS p
        JOIN used AS u USING (kind, nr)
        CROSS JOIN LATERAL jsonb_each(p.definition) AS d
        WHERE d.key NOT IN ('message-ttl', 'max-length', 'overflow', 'delivery-limit', 'max-priority', 'single-active-consumer', 'consumer-timeout',
                            'dead-letter-exchange', 'dead-letter-routing-key', 'alternate-exchange')
    )
    SELECT r.row_kind, r.name, r.action, r.note, NULL, NULL FROM said AS r ORDER BY r.kind DESC, r.nr, r.key
$$;
COMMENT ON FUNCTION mq.import_policy_rows$(jsonb, mq.import_item$[]) IS 'rows for policies and operator policies';

CREATE FUNCTION mq.import_others$(definitions jsonb, items mq.import_item$[])
RETURNS SETOF mq.import_row$ LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT o.kind, o.name, o.action, o.note, NULL, NULL
    FROM (
        SELECT 1, e.nr, 'vhost', e.item ->> 'name', 'skipped',
               'mq has no vhosts: ' || CASE
                   WHEN NOT EXISTS (SELECT FROM unnest(items) AS i WHERE i.vhost = e.item ->> 'name') THEN 'nothing is in it'
                   WHEN e.item ->> 'name' = '/' OR NOT EXISTS (SELECT FROM unnest(items) AS i WHERE i.vhost <> e.item ->> 'name') THEN 'names in it are kept'
                   ELSE 'names in it get its name and a dot in front' END
               || CASE WHEN coalesce(e.item -> 'limits', '{}') IN ('{}', '[]', 'null') THEN '' ELSE format('; limits %s are not kept', e.item -> 'limits') END
        FROM mq.import_section$(definitions, 'vhosts') AS e
        UNION ALL
        SELECT 2, e.nr, 'user', e.item ->> 'name', 'skipped', 'see CREATE ROLE'
        FROM mq.import_section$(definitions, 'users') AS e
        UNION ALL
        SELECT 3, e.nr, 'permission', e.item ->> 'user', 'skipped',
               format('vhost "%s", configure "%s", write "%s", read "%s": see mq.grant and mq.grant_exchange; configure is EXECUTE on mq.create_queue and mq.create_exchange',
                      mq.import_vhost$(definitions, e.item), e.item ->> 'configure', e.item ->> 'write', e.item ->> 'read')
        FROM mq.import_section$(definitions, 'permissions') AS e
        UNION ALL
        SELECT 4, e.nr, 'topic permission', e.item ->> 'user', 'skipped',
               format('vhost "%s", exchange "%s", write "%s", read "%s": privileges do not look at keys; use an exchange for each group of publishers',
                      mq.import_vhost$(definitions, e.item), e.item ->> 'exchange', e.item ->> 'write', e.item ->> 'read')
        FROM mq.import_section$(definitions, 'topic_permissions') AS e
        UNION ALL
        -- without their values, which may hold passwords
        SELECT 5, e.nr, 'parameter', format('%s %s', e.item ->> 'component', e.item ->> 'name'), 'skipped',
               format('vhost "%s": ', mq.import_vhost$(definitions, e.item)) || CASE e.item ->> 'component'
                   WHEN 'shovel' THEN 'a consumer that enqueues elsewhere does this'
                   WHEN 'federation-upstream' THEN 'mq does not federate; see logical replication'
                   WHEN 'federation-upstream-set' THEN 'mq does not federate; see logical replication'
                   WHEN 'vhost-limits' THEN 'mq has no vhosts'
                   ELSE 'not known to mq' END
        FROM mq.import_section$(definitions, 'parameters') AS e
        WHERE e.item ->> 'component' <> 'operator_policy'
        UNION ALL
        SELECT 6, e.nr, 'global parameter', e.item ->> 'name', 'skipped', 'not known to mq'
        FROM mq.import_section$(definitions, 'global_parameters') AS e
        UNION ALL
        SELECT 7, 0, 'section', s.name, 'skipped', 'not known to mq'
        FROM jsonb_object_keys(definitions) AS s (name)
        WHERE s.name <> ALL ('{queues,exchanges,bindings,policies,parameters,global_parameters,vhosts,users,permissions,topic_permissions,'
                             'rabbit_version,rabbitmq_version,product_name,product_version,rabbitmq_definition_format,original_cluster_name,'
                             'original_vhost_name,explanation}'::text[])
    ) AS o (part, nr, kind, name, action, note)
    ORDER BY o.part, o.nr, o.name
$$;
COMMENT ON FUNCTION mq.import_others$(jsonb, mq.import_item$[]) IS 'rows for all that has no counterpart as a whole';

CREATE FUNCTION mq.import_plan$(definitions jsonb)
RETURNS SETOF mq.import_row$ LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    version CONSTANT integer := substring(coalesce(definitions ->> 'rabbitmq_version', definitions ->> 'rabbit_version',
                                                   definitions ->> 'product_version') FROM '^(\d{1,3})\.');
    items   mq.import_item$[];
    q       record;
    wrong   text;
BEGIN
    PERFORM mq.import_check$(definitions);
    items := array(SELECT i FROM mq.import_items$(definitions) AS i);
    SELECT string_agg(format('"%s" of vhost "%s"', i.source, i.vhost), ' and ') INTO wrong
    FROM unnest(items) AS i WHERE i.source <> '' GROUP BY i.kind, i.name HAVING count(*) > 1 LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'no names can be found that tell % apart', wrong
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Rename one in the file. Nothing was changed.';
    END IF;

    RETURN QUERY SELECT * FROM mq.import_exchanges$(items);
    FOR q IN
        SELECT i AS item, d AS dead
        FROM unnest(items) AS i
        LEFT JOIN unnest(items) AS d
            ON d.vhost = i.vhost
            AND d.kind = CASE i.settings ->> 'dead-letter-exchange' WHEN '' THEN 'queue' ELSE 'exchange' END
            AND d.source = CASE i.settings ->> 'dead-letter-exchange' WHEN '' THEN i.settings ->> 'dead-letter-routing-key'
                                                                      ELSE i.settings ->> 'dead-letter-exchange' END
        WHERE i.kind = 'queue'
        ORDER BY i.nr, i.vhost, i.source
    LOOP
        RETURN QUERY SELECT * FROM mq.import_queue$(q.item, q.dead, version);
    END LOOP;
    -- of bindings that have become the same the first is made
    RETURN QUERY
    SELECT b.kind, b.name, CASE WHEN b.action = 'bound' AND row_number() OVER (PARTITION BY b.link ORDER BY b.nr) > 1 THEN 'exists' ELSE b.action END,
           b.note, b.make, b.link
    FROM mq.import_bindings$(definitions, items) WITH ORDINALITY AS b (kind, name, action, note, make, link, nr)
    ORDER BY b.nr;
    RETURN QUERY SELECT * FROM mq.import_policy_rows$(definitions, items);
    RETURN QUERY SELECT * FROM mq.import_others$(definitions, items);
END
$$;
COMMENT ON FUNCTION mq.import_plan$(jsonb) IS 'what mq.import_definitions would do';

CREATE OR REPLACE FUNCTION mq.import_definitions(definitions jsonb, dry_run boolean DEFAULT false)
RETURNS TABLE (kind text, name text, action text, note text)
LANGUAGE plpgsql VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    rows      CONSTANT mq.import_row$[] := array(SELECT p FROM mq.import_plan$(definitions) AS p);
    statement text;
BEGIN
    IF dry_run IS NOT TRUE THEN
        FOR statement IN
            SELECT s.statement
            FROM unnest(rows) WITH ORDINALITY AS r (kind, name, action, note, make, link, nr)
            CROSS JOIN LATERAL (VALUES (1, r.make), (2, r.link)) AS s (pass, statement)
            WHERE s.statement IS NOT NULL
            ORDER BY s.pass, r.nr
        LOOP
            EXECUTE statement;
        END LOOP;
    END IF;
    RETURN QUERY SELECT r.kind, r.name, r.action, r.note FROM unnest(rows) AS r;
END
$$;
COMMENT ON FUNCTION mq.import_definitions(jsonb, boolean) IS
'Makes the queues, exchanges and bindings of a file that "rabbitmqctl export_definitions" wrote; returns what became of each thing in it: created, bound, exists, differs (nothing changed), renamed, applied, adapted or skipped, with a note. dry_run: only say it.';
