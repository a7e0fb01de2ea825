/*-------------------------------------------------------------------------
 * dequeue.c
 *		Choose and lease.
 *
 * A claim, without writing anything:
 *	  1. Room for the local records is made.
 *	  2. Under the partition's lock candidates are taken off the lists in the
 *		 order of lanes, and each becomes an OPEN lease with a local record.
 *		 When a list is empty and its lane is not, the lane is scanned first
 *		 (lane.c), without the lock.
 *	  3. Without the lock each candidate's row is looked at once more: one that
 *		 is gone is dropped, one that somebody holds is put on the blocked list,
 *		 one whose time has not come is left to its lane.
 *	  4. What is left is handed to the caller.  Only when the whole dequeue has
 *		 succeeded are the claims marked as handed out: an error before that
 *		 gives them back uncounted.
 *	  The transaction's end decides about them (outcome.c).
 * In an ordered queue step 3 also asks whose turn it is (order.c), and before the
 * fresh lane come the keys that are known to have a message.
 *
 * A message on its last attempt is delivered alone: it ends the batch before
 * it, or is the only one.
 *
 * With match, step 2 leases what match.c has found by looking, and what turns out
 * not to fit any more goes back like what is not wanted.
 */
#include "dequeue_private.h"

#include "clock.h"
#include "expiry.h"
#include "guc.h"
#include "order.h"
#include "pgstat.h"
#include "throttle.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"

#define BATCH	256				/* candidates taken in one go */

/* Waits until whoever scans this queue has finished; the partition is locked. */
static void
wait_for_scan(MqQueue *q)
{
	ConditionVariable *scanned = &mq_shared->scanned[q->partition];

	ConditionVariablePrepareToSleep(scanned);
	mq_unlock(q->partition);
	ConditionVariableTimedSleep(scanned, 100, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

/*
 * Whether the queue's limits allow nothing now, as def has them too if that
 * is what counts.
 */
static bool
is_held(MqQueue *q, MqDef *def, TimestampTz steady)
{
	return (q->throttle_known ||
			(q->throttle.max_in_flight == def->throttle.max_in_flight &&
			 q->throttle.rate_limit == def->throttle.rate_limit)) &&
		mq_throttle_room(q, steady) == 0;
}

/*
 * Whether there is certainly nothing to claim: known without a page and without
 * keeping others from looking as well.
 */
static bool
known_empty(MqDef *def)
{
	LWLock	   *lock = mq_partition_lock(mq_partition_of(MyDatabaseId, def->relid));
	TimestampTz now = mq_now();
	TimestampTz steady = mq_steady();
	MqQueue    *q;
	bool		empty;
	bool		held = false;

	LWLockAcquire(lock, LW_SHARED);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	empty = q && q->attached && q->signature == def->signature &&
		(q->paused ||
		 (q->nblocked == 0 && q->nprepared == 0 && q->nfailed == 0 &&
		  mq_lease_next_deadline(q) > steady &&
		  (!mq_lane_has_work(q, now) || (held = is_held(q, def, steady))))) &&
		(mq_worker_alive_hint() || mq_expiry_event(q) > steady);
	if (held)
		mq_claim_note_held(q, steady);
	if (empty)
		q->dequeued = steady;	/* whoever writes it last is right */
	LWLockRelease(lock);
	return empty;
}

/*
 * One round of a claim with match; whether there may be more.
 */
static bool
claim_found(Claimer *c, TimestampTz now, Taken *taken, MqFound *found, int want)
{
	MqQueue    *q;
	int			nfound;
	int			n;

	if (c->ordered)
		mq_order_list_ready(&c->reader, now, &c->match.budget);
	nfound = mq_match_find(&c->match, &c->reader, now, want, found);
	if (nfound == 0)
		return false;
	c->full = false;
	q = mq_queue_attach(c->def, c->rel);
	n = mq_claim_take_found(c, q, now, taken, found, nfound);
	c->expired_upto = q->expired_upto;
	mq_unlock(q->partition);
	if (n > 0)
		mq_claim_sift(c, taken, n, now);
	return nfound == want && !c->full;
}

/*
 * Claims up to max messages that are there now.  The table is locked.
 */
void
mq_claim(Claimer *c)
{
	Taken	   *taken;
	MqFound    *found = NULL;
	static MqScanJob job;		/* large, and a process scans one lane at a time */
	bool		retired = false;
	bool		helped = false;

	taken = palloc(sizeof(Taken) * Min(c->d->max, BATCH));
	if (c->d->match)
	{
		found = palloc(sizeof(MqFound) * Min(c->d->max, BATCH));
		c->match.headers = c->d->match;
		c->match.budget = MQ_MATCH_ROWS;
		c->match.next = DT_NOEND;
	}
	mq_reader_init(&c->reader, c->def, c->rel);
	c->blocks = mq_claim_blocks_touched();
	c->full = c->ended = false;
	while (c->got < c->d->max && !c->ended)
	{
		int			want = Min(c->d->max - c->got, BATCH);
		TimestampTz now = mq_now();
		TimestampTz steady = mq_steady();
		MqNext		next;
		MqQueue    *q;
		int			n;

		CHECK_FOR_INTERRUPTS();
		/* one drawn before a wait would be older than those of deliveries since */
		if (c->got == 0)
			c->receipt = 0;
		mq_array_reserve(c->touch->claims, want);
		q = mq_queue_attach(c->def, c->rel);
		c->touch->hint = q;
		q->dequeued = steady;
		mq_wait_unwatch(q);
		if (q->paused && !c->drop)
		{
			mq_unlock(q->partition);
			break;
		}
		if (!retired && (q->nblocked > 0 || q->nprepared > 0))
		{
			mq_unlock(q->partition);
			mq_outcome_retire(c->def->relid);
			retired = true;
			continue;
		}
		c->ordered = q->ordered;
		if (c->ordered && q->keys_recheck)
			mq_key_recheck(q);
		if (c->ordered && q->nkey_unknown > 0)
		{
			mq_unlock(q->partition);
			if (!mq_order_learn(&c->reader))
			{
				c->full = true;
				break;
			}
			continue;
		}
		mq_lease_expire(q, steady);
		if (!helped && (q->nfailed > 0 || mq_expiry_event(q) <= steady))
		{
			helped = true;
			if (mq_worker_alive_hint())
				mq_worker_poke(mq_expiry_event(q));
			else if (!c->peek)
			{
				/* nobody else would take them to the dead letters */
				mq_unlock(q->partition);
				c->buried |= mq_retry_bury(c->def) > 0;
				c->buried |= mq_sweep_bury(c->def) > 0;
				continue;
			}
		}
		if (c->d->match)
		{
			want = mq_claim_allowed(q, want, &now);
			mq_unlock(q->partition);
			if (want > 0 && claim_found(c, now, taken, found, want))
				continue;
			break;
		}
		n = mq_claim_take(c, q, now, taken, want, &next, &job);
		c->expired_upto = q->expired_upto;
		if (n == 0 && next == MQ_NEXT_WAIT)
		{
			wait_for_scan(q);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		if (n == 0 && next == MQ_NEXT_NONE && !c->full && mq_key_has_work(q) && mq_claim_one_allowed(c, q))
		{
			n = mq_claim_take_of_key(c, q, now, taken);
			if (n == 0 && !c->full)
				continue;
		}
		else
			mq_unlock(q->partition);
		if (n > 0)
			mq_claim_sift(c, taken, n, now);
		if (next == MQ_NEXT_SCAN)
		{
			mq_lane_scan(&job, &c->reader);
			q = mq_queue_attach(c->def, c->rel);
			mq_lane_merge(q, &job);
			mq_unlock(q->partition);
		}
		else if (n == 0)
			break;
		if (c->full && n == 0)
			break;
		if (c->ended)
			break;
		c->full = false;		/* what was taken may have made room */
	}
	mq_reader_done(&c->reader);
	if (c->full)
		c->full_def = c->def;
	pfree(taken);
}

/*
 * The same from each queue in order, max over all.  Raises 53400 if that is
 * nothing for want of room.
 */
void
mq_claim_all(Claimer *c)
{
	c->full_def = NULL;
	for (int i = 0; i < c->d->nqueues && c->got < c->d->max; i++)
	{
		Source	   *s = &c->sources[i];
		int			before = c->got;

		c->def = s->def;
		c->rel = s->rel;
		c->touch = s->touch;
		c->duration = s->duration;
		mq_claim(c);
		s->got += c->got - before;
		s->next = c->match.next;
		if (c->ended)
			break;
	}
	if (c->full_def && c->got == 0 && !c->peek && !c->buried)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room to lease messages of queue \"%s\"", c->full_def->name),
				 errhint("Too many messages are in flight; settle some, or raise mq.max_in_flight (now %d).",
						 mq_max_in_flight)));
}

/* Before claiming for somebody who may have gone while we slept. */
static void
check_client(void)
{
	if (MyProcPort && whereToSendOutput == DestRemote && !pq_check_connection())
		ereport(FATAL,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to client lost")));
}

/* Opens all queues of the claim before anything is taken from one. */
void
mq_claim_open_queues(Claimer *c)
{
	for (int i = 0; i < c->d->nqueues; i++)
	{
		Source	   *s = &c->sources[i];

		s->rel = mq_queue_open(c->d->queues[i], AccessShareLock, &s->def);
		mq_require(s->def, ACL_SELECT | ACL_DELETE);
		s->duration = c->d->session ? -1 :
			c->d->lease >= 0 ? c->d->lease : s->def->policy.lease;
		s->touch = mq_xact_touch(s->def->relid);
	}
}

/* Keeps the lock of those that delivered something. */
static void
close_queues(Claimer *c)
{
	for (int i = 0; i < c->d->nqueues; i++)
	{
		relation_close(c->sources[i].rel, c->sources[i].got > 0 ? NoLock : AccessShareLock);
		c->sources[i].rel = NULL;
	}
}

/*
 * Whether all queues are known to be empty: a look that needs no lock on their
 * tables, as it touches nothing of them.
 */
static bool
all_known_empty(const MqDequeue *d)
{
	bool		empty = true;

	AcceptInvalidationMessages();
	for (int i = 0; i < d->nqueues; i++)
	{
		MqDef	   *def = mq_def_lookup(d->queues[i], false);

		if (def->refused)
			return false;		/* opening it says why */
		mq_require(def, ACL_SELECT | ACL_DELETE);
		if (i == 0)
			mq_worker_ensure();
		empty = empty && known_empty(def);
	}
	return empty;
}

/* Deletes what was claimed from one queue: deliveries from .. to - 1. */
static int
ack_some(Claimer *c, int from, int to, int kept)
{
	MqDef	   *def;
	Relation	rel = mq_queue_open(c->out[from].def->name, RowExclusiveLock, &def);
	int64	   *ids = palloc(sizeof(int64) * (to - from));
	MqSettleArgs a = {0};

	for (int i = from; i < to; i++)
		ids[i - from] = c->out[i].row.place.id;
	a.verb = MQ_ACK;
	a.n = to - from;
	a.ids = ids;
	a.receipts = &c->receipt;
	a.one_receipt = true;
	a.settled = palloc0(sizeof(bool) * a.n);
	mq_settle(def, rel, &a);
	relation_close(rel, NoLock);

	/* somebody may have deleted a row since we looked */
	for (int i = from; i < to; i++)
		if (a.settled[i - from])
			c->out[kept++] = c->out[i];
	return kept;
}

/* auto_ack, queue by queue. */
static void
ack_all(Claimer *c)
{
	int			kept = 0;

	for (int from = 0, to; from < c->got; from = to)
	{
		for (to = from + 1; to < c->got && c->out[to].def == c->out[from].def; to++)
			;
		kept = ack_some(c, from, to, kept);
	}
	c->got = kept;
}

/*
 * Takes up to max messages, from the queues in the order given, waiting for the
 * first if asked to.  The deliveries are allocated in the current memory context,
 * those of one queue together.  The caller calls mq_handed_out for each queue
 * when nothing can fail any more.  Holds AccessShareLock until the transaction
 * ends on the tables of which something was delivered, and none while asleep.
 * Raises what opening one of them raises before anything is claimed.
 */
int
mq_dequeue(const MqDequeue *d, MqDelivery **deliveries)
{
	Claimer		c = {0};
	TimestampTz deadline = d->wait > 0 ? mq_time_add(mq_steady(), d->wait) : DT_NOBEGIN;

	mq_check_writable("mq.dequeue()");
	if (d->wait == 0 && all_known_empty(d))
		return 0;
	c.d = d;
	c.sources = palloc0(sizeof(Source) * d->nqueues);
	mq_claim_open_queues(&c);
	mq_worker_ensure();
	mq_claim_all(&c);
	while (c.got == 0 && d->wait > 0 && mq_steady() < deadline && !(c.full_def && c.buried))
	{
		long		ms = mq_claim_prepare_to_wait(&c, deadline);

		if (ms >= 0)
		{
			close_queues(&c);
			mq_wait_sleep(ms);
			check_client();
			AcceptInvalidationMessages();
			mq_claim_open_queues(&c);
			if (mq_steady() >= deadline)
				break;
		}
		else
			CHECK_FOR_INTERRUPTS();
		mq_claim_all(&c);
	}
	mq_wait_leave();
	close_queues(&c);

	for (int i = 0; i < c.got; i++)
		c.out[i].until = c.out[i].duration < 0 || d->auto_ack ? DT_NOEND :
			mq_time_add(mq_now(), c.out[i].duration);
	if (d->auto_ack)
		ack_all(&c);
	*deliveries = c.out;
	return c.got;
}

/* The dequeue has succeeded: from now on an abort counts an attempt. */
void
mq_handed_out(Oid relid)
{
	MqTouch    *t = mq_xact_touched(relid);

	for (int i = t ? t->claims.n - 1 : -1; i >= 0 && !t->claims.a[i].handed_out; i--)
		t->claims.a[i].handed_out = true;
}
