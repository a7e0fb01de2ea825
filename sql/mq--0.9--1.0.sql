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
    PERFORM mq.dedup_forget$(name);
    RETURN true;
END
$$;
