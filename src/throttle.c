/*-------------------------------------------------------------------------
 * throttle.c
 *		How many more messages a queue may deliver now: max_in_flight and
 *		rate_limit.
 *
 * Slots.  In flight is every lease of the queue that has not failed, but for
 * what a producer takes to make room: taken by an open or a prepared
 * transaction, held, or being settled.  A claim asks for the slots left and
 * makes its leases in one critical section, so there is never one more than
 * max_in_flight, whoever claims.  Nothing is counted apart: a slot is free again
 * with the lease, on whatever way that ends (ack, nack, rollback, deadline,
 * session's end, DELETE, TRUNCATE, or a claim that found the row gone), and what
 * a restart brings back counts as it did.
 *
 * Tokens.  The bucket holds one second's burst, at least one delivery, and is
 * one number: bucket_full, the steady time at which it will be full again.  A
 * token taken moves that by 1/rate seconds, so tokens need no refilling, and
 * none is there while bucket_full lies a whole bucket ahead.  In a window of w
 * seconds no more than rate * w + one bucket are taken.  A candidate that is
 * not delivered after all gives its token back, but never more than makes the
 * bucket what it were without it: those taken after it were at best taken from a
 * full one.  A slot of shared memory is not
 * given to another queue while its bucket is not full, or the limit would begin
 * anew; a restart does fill it.
 *
 * Which limits hold.  A session's cached definition may lag behind the
 * catalog, and one session with the old limit would break the new one for all.
 * So the commit that changes them writes them into the slot (outcome.c), and
 * from then on definitions do not (throttle_known).  Until there is such a
 * commit they come from the definition of whoever attached last.  After an
 * ALTER to less than is in flight, none is delivered until enough have ended.
 *
 * Waiting.  A waiter that meets a full queue notes it: q->refused.  Whoever
 * frees a slot then (wake.c mq_wake_freed) wakes one waiter, who on leaving
 * wakes the next if there is room and work, as ever.  For a token nobody does
 * anything, so one waiter, q->watcher, sleeps no longer than until it is there;
 * the others sleep on, and when the watcher leaves or is woken for something
 * else, the next to look becomes it.  A process that dies here takes the shared
 * state with it; one that fails leaves the list by the transaction's end, which
 * wakes the next.
 *
 * All functions: the queue's partition is locked by the caller, for those that
 * take a const queue at least shared.
 *-------------------------------------------------------------------------
 */
#include "throttle.h"

#include <math.h>

#include "clock.h"

#define SLOWEST	1e18			/* microseconds a token; 30,000 years */

/* Microseconds in which one token comes. */
static double
token_time(const MqQueue *q)
{
	return Min(1e6 / q->throttle.rate_limit, SLOWEST);
}

/* Microseconds in which an empty bucket becomes full. */
static double
bucket_time(const MqQueue *q)
{
	return Max(1e6, token_time(q));
}

/*
 * The limits are now t: by the definition of a caller, or (committed) by the
 * commit that made them so, which no definition overrules.  An empty bucket
 * stays empty, but is not emptier than that.
 */
void
mq_throttle_set(MqQueue *q, const MqThrottle *t, bool committed)
{
	double		rate = q->throttle.rate_limit;

	if (q->throttle_known && !committed)
		return;
	q->throttle = *t;
	q->throttle_known |= committed;
	if (t->rate_limit > 0 && t->rate_limit != rate)
		q->bucket_full = Min(q->bucket_full, (double) mq_steady() + bucket_time(q));
}

/* How many of the queue's messages are in flight. */
int
mq_throttle_in_flight(const MqQueue *q)
{
	return q->nleases - q->nfailed - q->ndropping;
}

/* How many more may be leased; may be negative after an ALTER. */
int64
mq_throttle_slots(const MqQueue *q)
{
	if (q->throttle.max_in_flight == 0)
		return PG_INT64_MAX;
	return q->throttle.max_in_flight - mq_throttle_in_flight(q);
}

/* How many tokens the bucket holds. */
static int64
tokens(const MqQueue *q, TimestampTz steady)
{
	double		n;

	if (q->throttle.rate_limit == 0)
		return PG_INT64_MAX;
	n = (steady + bucket_time(q) - Max(q->bucket_full, (double) steady)) / token_time(q);
	/* a time rounded up to microseconds shall be late enough */
	n = floor(n + 1e-6);
	return n > 1e15 ? PG_INT64_MAX : Max((int64) n, 0);
}

/* How many more may be delivered now, by the steady clock; 0 if none. */
int64
mq_throttle_room(const MqQueue *q, TimestampTz steady)
{
	return Max(Min(mq_throttle_slots(q), tokens(q, steady)), 0);
}

/*
 * When one more may be delivered, by the steady clock: DT_NOBEGIN now, DT_NOEND
 * when a lease ends, else when the next token is there.
 */
TimestampTz
mq_throttle_next(const MqQueue *q, TimestampTz steady)
{
	double		t;

	if (mq_throttle_slots(q) <= 0)
		return DT_NOEND;
	if (tokens(q, steady) > 0)
		return DT_NOBEGIN;
	t = ceil(q->bucket_full + token_time(q) - bucket_time(q));
	return t >= (double) (END_TIMESTAMP - 1) ? END_TIMESTAMP - 1 : Max((TimestampTz) t, steady + 1);
}

/* n messages are about to be delivered; there is room for them. */
void
mq_throttle_take(MqQueue *q, TimestampTz steady, int64 n)
{
	if (q->throttle.rate_limit == 0)
		return;
	q->bucket_full = Max(q->bucket_full, (double) steady) + n * token_time(q);
	q->tokens_taken += n;
	q->token_last = steady;
}

/*
 * n of them are not after all; tokens_taken was `before` when they were taken.
 * Time in which the bucket would have been full without them is lost: it may
 * have filled up since, and the tokens taken from then on count in full.
 */
void
mq_throttle_give(MqQueue *q, int64 n, int64 before)
{
	double		others = Max(q->tokens_taken - before - n, 0);
	double		least = (double) q->token_last + others * token_time(q);

	if (q->throttle.rate_limit > 0 && least < q->bucket_full)
		q->bucket_full = Max(q->bucket_full - n * token_time(q), least);
}
