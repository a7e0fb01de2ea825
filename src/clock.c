/*-------------------------------------------------------------------------
 * clock.c
 *		Now and deadlines: every time mq compares or stores comes from here.
 *
 * All times are TimestampTz (microseconds), all durations int64
 * microseconds.  Additions saturate: no deadline overflows into the past.
 *-------------------------------------------------------------------------
 */
#include "clock.h"

#include "common/int.h"

/* The wall clock now.  May go backwards, as wall clocks do. */
TimestampTz
mq_now(void)
{
	return GetCurrentTimestamp();
}

/* Microseconds since 1970: the base of receipts. */
int64
mq_now_unix_us(void)
{
	return mq_now() +
		((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE)) * USECS_PER_DAY;
}

/* t + us, staying within the range of finite timestamps. */
TimestampTz
mq_time_add(TimestampTz t, int64 us)
{
	TimestampTz r;

	if (TIMESTAMP_NOT_FINITE(t))
		return t;
	if (pg_add_s64_overflow(t, us, &r) || r >= END_TIMESTAMP)
		return END_TIMESTAMP - 1;
	return Max(r, MIN_TIMESTAMP);
}

/*
 * An interval's length in microseconds, a month counting 30 days as
 * PostgreSQL compares them.  Saturates at the largest int64.
 */
int64
mq_interval_us(const Interval *i)
{
	int64		days = (int64) i->month * DAYS_PER_MONTH + i->day;
	int64		us;

	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, i->time, &us))
		return days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return us;
}

/* Whole milliseconds from now until t, rounded up, within 0 .. at_most. */
long
mq_ms_until(TimestampTz t, TimestampTz now, long at_most)
{
	int64		us;

	if (t <= now)
		return 0;
	if (t == DT_NOEND || pg_sub_s64_overflow(t, now, &us))
		return at_most;
	us = us / 1000 + 1;
	return us > at_most ? at_most : (long) us;
}
