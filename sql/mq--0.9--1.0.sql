\echo Use "ALTER EXTENSION mq UPDATE TO '1.0'" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;


--
-- Messages that expire; queues of limited length
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
