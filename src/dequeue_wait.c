/*-------------------------------------------------------------------------
 * dequeue_wait.c
 *		Waiting until there is something to claim.
 *
 * Who finds nothing joins the waiters of each of its queues (wake.c) under that
 * queue's lock, unless there is something after all, and sleeps until it is
 * woken or until the next time it knows of.  mq.wait only looks: what it claims
 * to find out goes back uncounted, and it sleeps without a snapshot.
 *-------------------------------------------------------------------------
 */
#include "dequeue_private.h"

#include "clock.h"
#include "throttle.h"
#include "utils/snapmgr.h"

/*
 * Joins the queue's waiters unless there is something to do at once.  Returns how
 * long to sleep in milliseconds, or -1.  The deadline is by the steady clock.
 */
static long
join_waiters(MqDef *def, Relation rel, TimestampTz deadline)
{
	TimestampTz steady = mq_steady();
	TimestampTz until;
	TimestampTz next;
	MqQueue    *q;
	bool		idle;
	long		ms = -1;

	q = mq_queue_attach(def, rel);
	idle = q->paused ||
		(!mq_lane_has_work(q, mq_now()) && mq_lease_next_event(q) > steady);
	next = mq_throttle_next(q, steady);
	if (idle || (next > steady && mq_lease_next_deadline(q) > steady))
	{
		mq_wait_enter(q, false);
		if (q->paused)
			until = deadline;
		else if (idle)
			until = Min(deadline, Min(mq_steady_of(mq_lane_next_due(q)), mq_lease_next_event(q)));
		else if (next == DT_NOEND)
		{
			q->refused = true;
			until = Min(deadline, mq_lease_next_deadline(q));
		}
		else
			until = mq_wait_watch(q) ? Min(deadline, next) : deadline;
		/* without a deadline of its own a sleep is cut to look around */
		ms = mq_ms_until(until, steady, 1000);
	}
	mq_unlock(q->partition);
	return ms;
}

/*
 * The same with match.  Whether there is something for us no look at the queue
 * can say, so whoever was not yet among the waiters has to claim once more.
 */
static long
join_matchers(Source *s, TimestampTz deadline)
{
	MqQueue    *q = mq_queue_attach(s->def, s->rel);
	TimestampTz steady = mq_steady();
	TimestampTz until = deadline;
	long		ms = -1;

	if (mq_wait_enter(q, true))
	{
		TimestampTz next = mq_throttle_next(q, steady);

		if (!q->paused)
			until = Min(until, Min(mq_steady_of(s->next), mq_lease_next_deadline(q)));
		if (next == DT_NOEND)
			q->refused = true;
		else if (next > steady)
			until = Min(deadline, next);
		ms = mq_ms_until(until, steady, 1000);
	}
	mq_unlock(q->partition);
	return ms;
}

/* The same for all queues of the claim. */
long
mq_claim_prepare_to_wait(Claimer *c, TimestampTz deadline)
{
	Oid			relids[MQ_WAIT_QUEUES];
	long		ms = 1000;
	bool		again = false;

	for (int i = 0; i < c->d->nqueues; i++)
		relids[i] = c->sources[i].def->relid;
	mq_wait_leave_others(relids, c->d->nqueues);
	for (int i = 0; i < c->d->nqueues; i++)
	{
		Source	   *s = &c->sources[i];
		long		one = c->d->match ? join_matchers(s, deadline) :
			join_waiters(s->def, s->rel, deadline);

		again |= one < 0;
		if (again && !c->d->match)
			break;
		ms = Min(ms, one);
	}
	return again ? -1 : ms;
}

/* Gives back what a look claimed. */
static void
give_back(Claimer *c)
{
	int			partition = mq_partition_of(MyDatabaseId, c->def->relid);
	MqWakeList	wake = {0};
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, c->def->relid, c->def->hint);
	if (q)
		mq_wake_pick(q, 1, &wake);	/* who looked meanwhile did not see it */
	for (int i = 0; i < c->touch->claims.n; i++)
	{
		MqClaim    *record = &c->touch->claims.a[i];

		if (c->receipt != 0 && record->receipt == c->receipt && q && mq_claim_is_mine(q, record))
		{
			mq_return_claim(q, record->lease);
			mq_throttle_give(q, 1);
			record->lease = NULL;
		}
	}
	if (q)
		mq_wake_freed(q, &wake);
	mq_unlock(partition);
	mq_wake_send(&wake);
}

/*
 * Returns when a message is ready, or after timeout microseconds.  Holds
 * neither snapshot nor lock while it sleeps.
 */
void
mq_wait(const char *queue, int64 timeout)
{
	MqDequeue	d = {0};
	Claimer		c = {0};
	TimestampTz deadline = mq_time_add(mq_steady(), timeout);

	mq_check_writable("mq.wait()");
	d.queues = &queue;
	d.nqueues = 1;
	d.max = 1;
	d.lease = -1;
	d.consumer = "";
	c.d = &d;
	c.sources = palloc0(sizeof(Source));
	c.peek = true;
	for (;;)
	{
		long		ms = -1;

		PushActiveSnapshot(GetTransactionSnapshot());
		mq_claim_open_queues(&c);
		mq_worker_ensure();
		c.receipt = 0;
		mq_claim_all(&c);
		if (c.got > 0)
			give_back(&c);
		else if (!c.full_def && mq_steady() < deadline)
			ms = mq_claim_prepare_to_wait(&c, deadline);
		relation_close(c.sources[0].rel, AccessShareLock);
		PopActiveSnapshot();
		InvalidateCatalogSnapshot();
		/* there is one, even if the lease table has no room for it now */
		if (c.got > 0 || c.full_def || mq_steady() >= deadline)
			break;
		if (ms >= 0)
			mq_wait_sleep(ms);
		else
			CHECK_FOR_INTERRUPTS();
	}
	mq_wait_leave();
}
