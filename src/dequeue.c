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
 *
 * A message on its last attempt is delivered alone: it ends the batch before
 * it, or is the only one.
 */
#include "dequeue.h"

#include "mb/pg_wchar.h"

#include "clock.h"
#include "guc.h"
#include "pgstat.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/inval.h"

#define BATCH	256				/* candidates taken in one go */

typedef struct Taken
{
	MqLease    *lease;
	int			claim;
	int64		id;
	ItemPointerData tid;
	ItemPointerData was;		/* the lease's, untouched: an UPDATE changes it */
	int			lane;
	MqPos		pos;
	MqHolder	holder;
	MqLook		look;
	bool		from_failed;
	bool		early;			/* its time has not come: place says when */
	MqPlace		place;
	MqReason	reason;
	int32		attempts;
} Taken;

/* A claim in progress. */
typedef struct Claimer
{
	const MqDequeue *d;
	MqDef	   *def;
	Relation	rel;
	MqTouch    *touch;
	MqReader	reader;
	int64		receipt;
	int64		duration;
	int			got;
	MqDelivery *out;
	int			max_out;
	bool		peek;			/* only look whether there is one */
	bool		full;			/* the lease table is full */
	bool		ended;			/* the batch is complete */
	bool		buried;			/* some went to the dead letters, which makes
								 * room once this transaction has committed */
	int64		blocks;
} Claimer;

static int64
blocks_touched(void)
{
	return pgBufferUsage.shared_blks_hit + pgBufferUsage.shared_blks_read;
}

/* The lease is ours from here on; the record says so. The partition is locked. */
static void
open_lease(Claimer *c, MqLease *l, TimestampTz now, Taken *t)
{
	MqTouch    *touch = c->touch;
	MqClaim    *record = &touch->claims.a[touch->claims.n];

	/* one for the whole dequeue, and none for one that finds nothing */
	if (c->receipt == 0)
		c->receipt = mq_next_receipt();

	l->receipt = c->receipt;
	l->leased_at = now;
	l->duration = c->duration;
	l->session = c->d->session;
	l->holder = MqMyProcNumber();
	l->settler = MqMyProcNumber();
	l->pid = MyProcPid;
	l->claim = touch->claims.n;
	l->until = DT_NOEND;
	strlcpy(l->consumer, c->d->consumer,
			pg_mbcliplen(c->d->consumer, strlen(c->d->consumer), NAMEDATALEN - 1) + 1);

	record->lease = l;
	record->id = l->id;
	record->receipt = c->receipt;
	record->handed_out = false;
	record->settled = false;
	record->sub = GetCurrentSubTransactionId();
	t->lease = l;
	t->claim = touch->claims.n++;
	t->id = l->id;
}

/*
 * Step 2.  Returns how many candidates were leased; if none, *next says what is
 * to be done instead.  The partition is locked.
 */
static int
take(Claimer *c, MqQueue *q, TimestampTz now, Taken *taken, int want,
	 MqNext *next, MqScanJob *job)
{
	int			n = 0;

	*next = MQ_NEXT_NONE;
	while (n < want)
	{
		MqLease    *retry = mq_lease_retry(q, now);
		MqCandidate cand;
		MqLease    *l;
		Taken	   *t = &taken[n];
		int			limit = retry ? MQ_LANE_DUE(retry->priority) : MQ_NLANES;

		*next = mq_lane_next(q, now, limit, &cand, job);
		if (*next == MQ_NEXT_NONE && retry)
		{
			t->tid = mq_lease_place(retry).tid;
			t->was = retry->tid;
			t->lane = MQ_LANE_DUE(retry->priority);
			t->pos = (MqPos) {retry->until, retry->id};
			t->from_failed = true;
			t->attempts = retry->attempts;
			t->reason = retry->reason;
			mq_lease_reopen(retry);
			open_lease(c, retry, now, t);
			n++;
			continue;
		}
		if (*next != MQ_NEXT_ROW)
			break;
		if (mq_lease_find(q, cand.pos.id) != NULL)
			continue;			/* listed twice; the lease's end lists it anew */
		l = mq_lease_new(q, cand.pos.id);
		if (l == NULL)
		{
			MqPlace		p;

			p.id = cand.pos.id;
			p.tid = cand.tid;
			p.priority = MQ_LANE_PRIORITY(cand.lane);
			p.timed = MQ_LANE_IS_DUE(cand.lane);
			p.ready_at = cand.pos.t;
			mq_lane_add(q, &p);
			c->full = true;
			*next = MQ_NEXT_NONE;
			break;
		}
		l->attempts = 0;
		l->tid = cand.tid;
		l->relnode = q->relnode;
		l->priority = MQ_LANE_PRIORITY(cand.lane);
		l->ready_at = MQ_LANE_IS_DUE(cand.lane) ? cand.pos.t : DT_NOBEGIN;
		mq_count_leased(q, l->ready_at, 1);
		t->tid = t->was = cand.tid;
		t->lane = cand.lane;
		t->pos = cand.pos;
		t->from_failed = false;
		t->reason = MQ_REASON_NONE;
		t->attempts = 0;
		open_lease(c, l, now, t);
		n++;
	}
	/* a scan taken on together with candidates is for the next round */
	return n;
}

static void
add_delivery(Claimer *c, Taken *t, const MqRow *row)
{
	MqDelivery *d;

	if (c->got >= c->max_out)
	{
		c->max_out = Max(c->max_out * 2, 16);
		c->out = c->out ? repalloc_huge(c->out, c->max_out * sizeof(MqDelivery)) :
			palloc(c->max_out * sizeof(MqDelivery));
	}
	d = &c->out[c->got++];
	d->row = *row;
	d->claim = t->claim;
	d->attempts = t->attempts;
	d->reason = t->reason;
	d->receipt = c->receipt;
}

/*
 * Step 3: looks at the rows, then under the lock keeps or gives back.  Returns
 * with the lock released.
 */
static void
sift(Claimer *c, Taken *taken, int n, TimestampTz now)
{
	int			partition = mq_partition_of(MyDatabaseId, c->def->relid);
	int32		max_attempts = c->def->policy.max_attempts;
	int			kept = 0;
	int			keep_until = n; /* candidates from here on go back unseen */
	int			first = c->got;
	MqQueue    *q;
	MqWakeList	wake = {0};

	for (int i = 0; i < n; i++)
	{
		Taken	   *t = &taken[i];
		MqRow		row;

		t->early = false;
		t->look = mq_row_look(&c->reader, t->id, &t->tid, &row, &t->holder);
		if (t->look != MQ_LOOK_OK)
			continue;
		if (row.expires_at <= now)
		{
			t->look = MQ_LOOK_GONE;
			continue;
		}

		/*
		 * Its time has not come, or an UPDATE has moved it to where others may
		 * come before it; or, after a crash, the row knows of the failure and
		 * when to try again.
		 */
		if (!t->from_failed ? (row.place.timed && row.place.ready_at > now) ||
			mq_place_lane(&row.place) != t->lane ||
			(row.place.timed && row.place.ready_at != t->pos.t) :
			row.attempts >= t->attempts)
		{
			t->look = MQ_LOOK_GONE;
			t->early = true;
			t->place = row.place;
			continue;
		}
		if (!t->from_failed)
			t->attempts = row.attempts;
		if (max_attempts > 0 && t->attempts + 1 >= max_attempts && c->got > 0)
		{
			keep_until = i;
			c->ended = true;
			break;
		}
		add_delivery(c, t, &row);
		kept++;
		if (max_attempts > 0 && t->attempts + 1 >= max_attempts)
		{
			keep_until = i + 1;
			c->ended = true;
			break;
		}
	}

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, c->def->relid, c->def->hint);
	for (int i = 0, k = first; q && i < n; i++)
	{
		Taken	   *t = &taken[i];
		MqClaim    *record = &c->touch->claims.a[t->claim];
		MqLease    *l = t->lease;
		bool		moved;

		if (!mq_claim_is_mine(q, record))
		{
			/* dropped by a delete that came in between */
			if (i < keep_until && t->look == MQ_LOOK_OK)
				k++;
			continue;
		}
		moved = memcmp(&l->tid, &t->was, sizeof(ItemPointerData)) != 0;
		if (i >= keep_until || (t->look != MQ_LOOK_OK && moved))
		{
			/*
			 * Not wanted now, or an UPDATE has committed since we looked, which
			 * left it to the lease to know where the row stands.
			 */
			mq_return_claim(q, l);
			record->lease = NULL;
		}
		else if (t->look == MQ_LOOK_OK)
		{
			MqRow	   *row = &c->out[k++].row;

			if (!moved)
			{
				l->tid = row->place.tid;
				l->relnode = q->relnode;
				l->priority = row->place.priority;
			}
			if (!t->from_failed && !moved)
			{
				mq_count_leased(q, l->ready_at, -1);
				l->ready_at = row->place.timed ? row->place.ready_at : DT_NOBEGIN;
				mq_count_leased(q, l->ready_at, 1);
			}
			l->attempts = t->attempts;
			if (!c->peek)
			{
				mq_lease_mirror(l);
				q->n.delivered++;
				if (t->attempts > 0)
					q->n.redelivered++;
			}
		}
		else
		{
			if (t->look == MQ_LOOK_HELD)
			{
				if (t->from_failed)
					mq_lease_put_back(l, mq_time_add(now, USECS_PER_SEC));
				else
				{
					mq_count_leased(q, l->ready_at, -1);
					mq_lease_free(l);
					mq_lane_block(q, t->lane, t->pos, t->id, &t->tid, &t->holder);
				}
			}
			else
			{
				if (!t->from_failed)
					mq_count_leased(q, l->ready_at, -1);
				mq_lease_free(l);
				if (t->early)
					mq_lane_defer(q, &t->place);
			}
			record->lease = NULL;
		}
	}
	if (q)
	{
		int64		b = blocks_touched();

		q->n.rows_examined += c->reader.examined;
		q->n.blocks_touched += b - c->blocks;
		c->reader.examined = 0;
		c->blocks = b;
		if (keep_until < n)
			mq_wake_pick(q, n - keep_until, &wake);
	}
	mq_unlock(partition);
	mq_wake_send(&wake);
}

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

	LWLockAcquire(lock, LW_SHARED);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	empty = q && q->attached && q->signature == def->signature &&
		(q->paused ||
		 (q->nblocked == 0 && q->nprepared == 0 && q->nfailed == 0 &&
		  mq_lease_next_deadline(q) > steady && !mq_lane_has_work(q, now)));
	if (empty)
		q->dequeued = steady;	/* whoever writes it last is right */
	LWLockRelease(lock);
	return empty;
}

/*
 * Claims up to max messages that are there now.  The table is locked.
 */
static void
claim(Claimer *c)
{
	Taken	   *taken;
	static MqScanJob job;		/* large, and a process scans one lane at a time */
	bool		retired = false;
	bool		helped = false;

	taken = palloc(sizeof(Taken) * Min(c->d->max, BATCH));
	mq_reader_init(&c->reader, c->def, c->rel);
	c->blocks = blocks_touched();
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
		if (q->paused)
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
		mq_lease_expire(q, steady);
		if (!c->peek && !helped && q->nfailed > 0 && !mq_worker_alive_hint())
		{
			/* nobody else would take the spent ones to the dead letters */
			mq_unlock(q->partition);
			c->buried |= mq_retry_bury(c->def) > 0;
			helped = true;
			continue;
		}
		n = take(c, q, now, taken, want, &next, &job);
		if (n == 0 && next == MQ_NEXT_WAIT)
		{
			wait_for_scan(q);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		mq_unlock(q->partition);
		if (n > 0)
			sift(c, taken, n, now);
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
		c->full = false;		/* what was taken may have made room */
	}
	mq_reader_done(&c->reader);
	if (c->full && c->got == 0 && !c->peek && !c->buried)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room to lease messages of queue \"%s\"", c->def->name),
				 errhint("Too many messages are in flight; settle some, or raise mq.max_in_flight (now %d).",
						 mq_max_in_flight)));
	pfree(taken);
}

/*
 * Joins the waiters unless there is something to do at once.  Returns how long
 * to sleep in milliseconds, or -1.  The deadline is by the steady clock.
 */
static long
prepare_to_wait(MqDef *def, Relation rel, TimestampTz deadline)
{
	TimestampTz steady = mq_steady();
	TimestampTz until;
	MqQueue    *q;
	long		ms = -1;

	mq_wait_leave_other(def->relid);
	q = mq_queue_attach(def, rel);

	if (q->paused ||
		(!mq_lane_has_work(q, mq_now()) && mq_lease_next_event(q) > steady))
	{
		mq_wait_enter(q);
		until = Min(deadline, Min(mq_steady_of(mq_lane_next_due(q)), mq_lease_next_event(q)));
		if (q->paused)
			until = deadline;
		/* without a deadline of its own a sleep is cut to look around */
		ms = mq_ms_until(until, steady, 1000);
	}
	mq_unlock(q->partition);
	return ms;
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

static void
open_queue(Claimer *c)
{
	c->rel = mq_queue_open(c->d->queue, AccessShareLock, &c->def);
	mq_require(c->def, ACL_SELECT | ACL_DELETE);
	c->duration = c->d->session ? -1 :
		c->d->lease >= 0 ? c->d->lease : c->def->policy.lease;
	c->touch = mq_xact_touch(c->def->relid);
}

/*
 * Takes up to max messages, waiting for the first if asked to.  The deliveries
 * are allocated in the current memory context.  The caller calls mq_handed_out
 * when nothing can fail any more.  Holds AccessShareLock on the table until
 * the transaction ends if something was delivered, and none while asleep.
 */
int
mq_dequeue(const MqDequeue *d, MqDelivery **deliveries, MqDef **def)
{
	Claimer		c = {0};
	TimestampTz deadline = d->wait > 0 ? mq_time_add(mq_steady(), d->wait) : DT_NOBEGIN;

	mq_check_writable("mq.dequeue()");
	if (d->wait == 0)
	{
		/* a look that needs no lock on the table, as it touches nothing of it */
		AcceptInvalidationMessages();
		*def = mq_def_lookup(d->queue, false);
		if ((*def)->refused == NULL)
		{
			mq_require(*def, ACL_SELECT | ACL_DELETE);
			mq_worker_ensure();
			if (known_empty(*def))
				return 0;
		}
	}
	c.d = d;
	open_queue(&c);
	mq_worker_ensure();
	claim(&c);
	while (c.got == 0 && d->wait > 0 && mq_steady() < deadline && !(c.full && c.buried))
	{
		long		ms = prepare_to_wait(c.def, c.rel, deadline);

		if (ms >= 0)
		{
			relation_close(c.rel, AccessShareLock);
			c.rel = NULL;
			mq_wait_sleep(ms);
			check_client();
			AcceptInvalidationMessages();
			open_queue(&c);
			if (mq_steady() >= deadline)
				break;
		}
		else
			CHECK_FOR_INTERRUPTS();
		claim(&c);
	}
	mq_wait_leave();
	if (c.got > 0)
		relation_close(c.rel, NoLock);
	else
		relation_close(c.rel, AccessShareLock);

	for (int i = 0; i < c.got; i++)
		c.out[i].until = c.duration < 0 || d->auto_ack ? DT_NOEND :
			mq_time_add(mq_now(), c.duration);
	if (d->auto_ack && c.got > 0)
	{
		int64	   *ids = palloc(sizeof(int64) * c.got);
		MqSettleArgs a = {0};
		Relation	rel = mq_queue_open(d->queue, RowExclusiveLock, &c.def);

		for (int i = 0; i < c.got; i++)
			ids[i] = c.out[i].row.place.id;
		a.verb = MQ_ACK;
		a.n = c.got;
		a.ids = ids;
		a.receipts = &c.receipt;
		a.one_receipt = true;
		a.settled = palloc0(sizeof(bool) * c.got);
		mq_settle(c.def, rel, &a);
		relation_close(rel, NoLock);

		/* somebody may have deleted a row since we looked */
		{
			int			k = 0;

			for (int i = 0; i < c.got; i++)
				if (a.settled[i])
					c.out[k++] = c.out[i];
			c.got = k;
		}
	}
	*deliveries = c.out;
	*def = c.def;
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
			record->lease = NULL;
		}
	}
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
	d.queue = queue;
	d.max = 1;
	d.lease = -1;
	d.consumer = "";
	c.d = &d;
	c.peek = true;
	for (;;)
	{
		long		ms = -1;

		PushActiveSnapshot(GetTransactionSnapshot());
		open_queue(&c);
		mq_worker_ensure();
		c.receipt = 0;
		claim(&c);
		if (c.got > 0)
			give_back(&c);
		else if (!c.full && mq_steady() < deadline)
			ms = prepare_to_wait(c.def, c.rel, deadline);
		relation_close(c.rel, AccessShareLock);
		PopActiveSnapshot();
		InvalidateCatalogSnapshot();
		/* there is one, even if the lease table has no room for it now */
		if (c.got > 0 || c.full || mq_steady() >= deadline)
			break;
		if (ms >= 0)
			mq_wait_sleep(ms);
		else
			CHECK_FOR_INTERRUPTS();
	}
	mq_wait_leave();
}
