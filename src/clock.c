/*-------------------------------------------------------------------------
 * clock.c
 *		Now and deadlines: every time mq compares or stores comes from here.
 *
 * There are two.  The wall clock is what rows hold and users read: ready_at,
 * enqueued_at, receipts.  It jumps when somebody sets it.  The steady clock
 * counts from when the machine was started and never jumps: how long a lease
 * or a wait lasts is measured by it, so that no jump ends a lease early or
 * keeps one for an hour.  A time of one means nothing to the other; those kept
 * in shared memory say which they are of.
 *
 * All times are TimestampTz (microseconds), all durations int64
 * microseconds.  Additions saturate: no deadline overflows into the past.
 *-------------------------------------------------------------------------
 */
#include "clock.h"

#include <time.h>

#include "common/int.h"
#include "guc.h"

#define MAX_SKEW	(10 * INT64CONST(1000))

/* The wall clock now.  May go backwards, as wall clocks do. */
TimestampTz
mq_now(void)
{
	return GetCurrentTimestamp() + mq_test_clock_offset * INT64CONST(1000);
}

/* The steady clock now: microseconds since the machine was started. */
TimestampTz
mq_steady(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (TimestampTz) t.tv_sec * USECS_PER_SEC + t.tv_nsec / 1000;
}

static int64 remembered = 0;

/*
 * How far the wall clock is ahead of the steady one.  Remembered, and from the
 * postmaster inherited, until it is wrong by more than MAX_SKEW: a deadline
 * shall not look a microsecond different each time.
 */
static int64
wall_ahead(void)
{
	int64		ahead = mq_now() - mq_steady();

	if (ahead > remembered + MAX_SKEW || ahead < remembered - MAX_SKEW)
		remembered = ahead;
	return remembered;
}

/*
 * Makes the processes to come agree on that; called in the postmaster.  ahead
 * is what was remembered before, 0 if nothing was.
 */
void
mq_clock_remember(int64 ahead)
{
	remembered = ahead;
	(void) wall_ahead();
}

/* When the steady clock will show what the wall clock shows at this time. */
TimestampTz
mq_steady_of(TimestampTz wall)
{
	return TIMESTAMP_NOT_FINITE(wall) ? wall : mq_time_add(wall, mq_steady() - mq_now());
}

/* What the wall clock shows at this time of the steady one; for people. */
TimestampTz
mq_wall_of(TimestampTz steady)
{
	return TIMESTAMP_NOT_FINITE(steady) ? steady : mq_time_add(steady, wall_ahead());
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
