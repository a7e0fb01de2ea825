/*-------------------------------------------------------------------------
 * args.c
 *		Arguments of SQL functions, unpacked and checked.
 *
 * What is wrong raises 22023 and names the argument.
 *-------------------------------------------------------------------------
 */
#include "args.h"

#include "clock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#define LONGEST_LEASE	(1000 * 12 * DAYS_PER_MONTH * USECS_PER_DAY)

/* Raises 22023 if argument i is null. */
void
mq_arg_not_null(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be null", name)));
}

/* Argument 0, a queue's name. */
const char *
mq_arg_queue(FunctionCallInfo fcinfo)
{
	mq_require_preload();
	mq_arg_not_null(fcinfo, 0, "queue");
	return mq_text_name(PG_GETARG_TEXT_PP(0));
}

/* An interval in microseconds, at least `least`; `missing` if null. */
int64
mq_arg_interval(FunctionCallInfo fcinfo, int i, const char *name, int64 least, int64 missing)
{
	int64		us;

	if (PG_ARGISNULL(i))
		return missing;
	us = mq_interval_us(PG_GETARG_INTERVAL_P(i));
	if (us < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 least > 0 ? errmsg("%s must be greater than zero", name) :
				 errmsg("%s must not be negative", name)));
	return us;
}

/* The length of a lease in microseconds, as mq.create_queue takes it. */
int64
mq_arg_lease(FunctionCallInfo fcinfo, int i, int64 missing)
{
	int64		us = mq_arg_interval(fcinfo, i, "lease", 1, missing);

	if (us > LONGEST_LEASE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be at most 1000 years")));
	return us;
}

/* A one-dimensional array. */
MqArray
mq_arg_array(FunctionCallInfo fcinfo, int i, const char *name)
{
	MqArray	a = {-1, NULL, NULL};
	ArrayType  *array;
	int16		typlen;
	bool		typbyval;
	char		typalign;

	if (PG_ARGISNULL(i))
		return a;
	array = PG_GETARG_ARRAYTYPE_P(i);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array", name)));
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &a.v, &a.null, &a.n);
	return a;
}

/*
 * The arguments that all producing verbs share: 3 delay, 4 priority, 7 ttl,
 * 8 deliver_at, each `shift` further.
 */
MqEnqueue
mq_arg_enqueue(FunctionCallInfo fcinfo, int shift, const char *verb)
{
	MqEnqueue	e = {0};
	int			delay_at = shift + 3;
	int			priority_at = shift + 4;
	int			deliver_at = shift + 8;

	mq_check_writable(verb);
	if (!PG_ARGISNULL(delay_at) && !PG_ARGISNULL(deliver_at))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and deliver_at cannot be given together")));
	if (!PG_ARGISNULL(delay_at))
	{
		int64		delay = mq_arg_interval(fcinfo, delay_at, "delay", 0, 0);

		e.timed = delay > 0;
		e.ready_at = mq_time_add(mq_now(), delay);
	}
	if (!PG_ARGISNULL(deliver_at))
	{
		e.timed = true;
		e.ready_at = PG_GETARG_TIMESTAMPTZ(deliver_at);
		if (TIMESTAMP_NOT_FINITE(e.ready_at))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("deliver_at must be finite")));
	}
	e.priority = PG_ARGISNULL(priority_at) ? 0 : PG_GETARG_INT32(priority_at);
	if (e.priority < 0 || e.priority > MQ_PRIORITY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority %d is out of range", e.priority),
				 errhint("Priorities are 0 to %d, the higher the sooner.", MQ_PRIORITY_MAX)));
	e.ttl = mq_arg_interval(fcinfo, shift + 7, "ttl", 1, 0);
	return e;
}

/* One array of messages' parts has to agree in length with the others. */
void
mq_arg_same_length(int *n, const MqArray *a, const char *name)
{
	if (a->n < 0)
		return;
	if (*n >= 0 && a->n != *n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has %d elements, other arrays have %d", name, a->n, *n)));
	*n = a->n;
}

/* Element i, null if there is no array. */
void
mq_array_part(const MqArray *a, int i, Datum *v, bool *null)
{
	*null = a->n < 0 || a->null[i];
	*v = *null ? (Datum) 0 : a->v[i];
}
