\echo Use "ALTER EXTENSION mq UPDATE TO '1.0'" to load this file. \quit

-- What 1.0 adds to 0.9. CREATE EXTENSION runs 0.9 and then this.

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
