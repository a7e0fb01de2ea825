/*-------------------------------------------------------------------------
 * maint.c
 *		One bounded pass of upkeep for one queue, by the worker.
 *
 * In this order: leases that ended, transactions that ended, expired messages,
 * failed deliveries, counters, notifications.  A first look under the lock says
 * whether there is anything to do, so that an idle queue costs no transaction.
 * The worker acts as nobody: rows of plain tables are written directly, the
 * others by the executor as the table's owner.  It takes the table's lock only
 * if it is free.
 */
#include "maint.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "clock.h"
#include "commands/async.h"
#include "expiry.h"
#include "forget.h"
#include "storage/lmgr.h"
#include "throttle.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define WRITE_BATCH		200
#define SWEEP_BATCHES	8
#define MAX_UNKNOWN		64	/* prepared transactions a recount looks for */
#define NOTIFY_PAUSE	(50 * INT64CONST(1000))
#define NOTIFY_REPEAT	(3 * USECS_PER_SEC)
#define RECOUNT_PAUSE	(5 * USECS_PER_SEC)
#define AUDIT_PAUSE		(30 * USECS_PER_SEC)
#define CLOCK_CHECK		(5 * USECS_PER_SEC)

bool		mq_maint_notifying = false;

/*
 * Compares the counters with the lanes: messages that are ready while no lane
 * knows of any have been missed, by a write that no trigger saw or by a fault
 * of ours.  Found twice with nothing having happened in between, the lanes are
 * scanned again; if that does not help either the rows are counted again, as
 * they are if a counter is twice what it cannot be.  The partition is locked.
 */
static void
audit(MqQueue *q, TimestampTz now, TimestampTz steady)
{
	int64		sum = q->n.enqueued + q->n.delivered;
	bool		odd;

	if (steady - q->audited < AUDIT_PAUSE)
		return;
	q->audited = steady;

	/*
	 * What is missing for that long does not come any more.  If counting anew does
	 * not help either, no more of it until the counters have been well.
	 */
	odd = !q->n.counting && (q->n.rows < 0 || q->n.later < q->nlater ||
							 (q->n.later > 0 && q->n.count_next == DT_NOEND));
	if (!odd)
		q->audit_odd = 0;
	else if (q->audit_odd < 2 && ++q->audit_odd == 2)
		q->n.exact = q->n.rows_exact = false;
	if (!q->n.exact || mq_count_ready(q) == 0 || mq_lane_has_work(q, now) ||
		q->nblocked > 0 || q->nprepared > 0 || q->nparked_keys > 0 || mq_lane_scanning(q))
	{
		q->audit_sum = -1;
		return;
	}
	if (q->audit_sum != sum)
	{
		q->audit_sum = sum;
		q->audit_failures = 0;
	}
	else if (q->audit_failures == 0)
	{
		mq_queue_init_lanes(q);
		q->audit_failures = 1;
	}
	else if (q->audit_failures == 1)
	{
		q->n.exact = false;
		q->audit_failures = 2;	/* no more until something happens */
	}
}

/*
 * With the clock set back, rows that came due before are delayed again: they
 * have to be counted anew.
 */
static void
forget_future(MqQueue *q, TimestampTz now)
{
	if (q->n.counted_until > mq_time_add(now, USECS_PER_SEC))
	{
		q->n.exact = false;
		q->n.counted_until = now;
		mq_count_leases_until(q, now);
		q->n.count_next = DT_NOBEGIN;
		q->passed_by.xmax = InvalidFullTransactionId;
	}
}

/* What a look under the lock found. */
typedef struct Todo
{
	bool		gone;			/* no slot */
	bool		retire;
	bool		write;
	bool		recount;
	bool		count_due;
	bool		notify;
	bool		expire;
	bool		more_expired;
	MqSweep    *sweep;
	TimestampTz next;			/* steady */
} Todo;

/*
 * By the counters if they can be trusted, else by the lanes; those alone know
 * what waits behind its key.
 */
static bool
something_ready(MqQueue *q, TimestampTz now)
{
	bool		exact = q->n.exact && !q->n.counting;

	if (exact && mq_count_ready(q) == 0)
		return false;
	return (exact && !q->ordered) || mq_lane_has_work(q, now);
}

static Todo
look(Oid relid, bool listened)
{
	int			partition = mq_partition_of(MyDatabaseId, relid);
	TimestampTz now = mq_now();
	TimestampTz steady = mq_steady();
	MqWakeList	wake = {0};
	Todo		todo = {0};
	MqQueue    *q;

	todo.next = DT_NOEND;
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, relid, NULL);
	if (q == NULL)
		todo.gone = true;
	else
	{
		dlist_iter	iter;

		audit(q, now, steady);
		forget_future(q, now);
		if (mq_lease_expire(q, steady) > 0 && !q->paused)
			mq_wake_pick(q, 1, &wake);
		mq_wake_freed(q, &wake);
		todo.retire = q->nblocked > 0 || q->nprepared > 0;
		if (todo.retire)
			todo.next = mq_time_add(steady, USECS_PER_SEC);
		dlist_foreach(iter, &q->failed)
		{
			MqLease    *l = dlist_container(MqLease, node, iter.cur);

			if (l->state != MQ_LEASE_FAILED)
				continue;
			if (l->write_after <= steady && q->write_after <= steady)
			{
				todo.write = true;
				break;
			}
			todo.next = Min(todo.next, Max(l->write_after, q->write_after));
		}
		todo.next = Min(todo.next, mq_lease_next_deadline(q));
		todo.expire = mq_expiry_event(q) <= steady;
		if (!todo.expire)
			todo.next = Min(todo.next, mq_expiry_event(q));
		if (!q->n.exact && !q->n.counting)
		{
			TimestampTz again = mq_time_add(q->n.recounted, RECOUNT_PAUSE);

			todo.recount = again <= steady;
			if (!todo.recount)
				todo.next = Min(todo.next, again);
		}
		if (listened && !q->paused)
		{
			TimestampTz after = mq_time_add(q->notified, NOTIFY_PAUSE);

			if (q->n.count_next <= now)
				todo.count_due = true;
			else
			{
				todo.next = Min(todo.next, mq_steady_of(q->n.count_next));
				/* should somebody set the clock forward */
				if (q->n.count_next != DT_NOEND)
					todo.next = Min(todo.next, mq_time_add(steady, CLOCK_CHECK));
			}
			if (!todo.count_due && mq_throttle_next(q, steady) != DT_NOBEGIN)
			{
				/* at its limit: nothing is ready before that ends */
				if (mq_throttle_slots(q) <= 0)
				{
					q->refused |= something_ready(q, now);
					q->notify = false;
				}
				else if (something_ready(q, now))
					todo.next = Min(todo.next, mq_throttle_next(q, steady));
			}
			else if (something_ready(q, now) || todo.count_due)
			{
				TimestampTz again = mq_time_add(Max(q->notified, q->dequeued), NOTIFY_REPEAT);

				if (q->notify && after <= steady)
					todo.notify = true;
				else if (q->notify)
					todo.next = Min(todo.next, after);
				else if (again <= steady)
					todo.notify = true;
				else
					todo.next = Min(todo.next, again);
			}
			else
				q->notify = false;
		}
		else
			q->notify = false;
	}
	mq_unlock(partition);
	mq_wake_send(&wake);
	return todo;
}

/*
 * Moves counted_until to now, counting the rows it passes (stats.c).
 */
void
mq_maint_count_due(MqDef *def, Relation rel)
{
	MqReader	r;
	MqQueue    *q;
	TimestampTz now = mq_now();
	TimestampTz from;
	TimestampTz next;
	int64		n;
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	FullTransactionId next_xid = ReadNextFullTransactionId();
	Snapshot	latest;
	Snapshot	snapshot;

	/* a walk knows of its last predecessor only */
	mq_outcome_retire(def->relid);

	/* what it allocates and raises at the first time: nothing is under the lock */
	Assert(ActiveSnapshotSet());
	(void) GetLatestSnapshot();
	q = mq_queue_try_attach(def, rel);
	if (q == NULL)
		return;
	forget_future(q, now);
	from = q->n.counted_until;
	if (q->n.count_next > now || q->n.recounting || q->n.counting || from >= now)
	{
		mq_unlock(q->partition);
		return;
	}
	/* in one moment: a callback has come before, or counts by this snapshot */
	latest = GetLatestSnapshot();
	mq_count_by(&q->passed_by, latest, mq_full_xid(next_xid, latest->xmax));
	q->n.count_from = from;
	q->n.counted_until = now;
	q->n.count_next = DT_NOEND; /* commits lower it from now on */
	mq_count_begin(q, false);
	mq_unlock(q->partition);

	snapshot = RegisterSnapshot(latest);
	snapshot->curcid = FirstCommandId;	/* as others see our own rows */
	mq_reader_init(&r, def, rel);
	n = mq_storage_count_due(&r, from, now, &next, snapshot);
	mq_reader_done(&r);
	UnregisterSnapshot(snapshot);

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	/* its slot has not gone to another queue meanwhile */
	if (q)
	{
		if (mq_count_end(q))
		{
			q->n.later -= n;
			mq_count_leases_until(q, q->n.counted_until);
		}
		q->n.count_next = Min(q->n.count_next, next);
	}
	mq_unlock(partition);
	/* who looked meanwhile may have found nothing ready */
	if (n > 0)
		mq_worker_poke(DT_NOBEGIN);
}

/*
 * Counts all rows of a queue whose counters were lost (stats.c), unless others
 * are being counted.  Those that this transaction has not committed are left to
 * its end.
 */
void
mq_maint_recount(MqDef *def, Relation rel)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	MqReader	r;
	MqQueue    *q;
	Snapshot	snapshot;
	TimestampTz now = mq_now();
	FullTransactionId xmax;
	MqRecountDelta *log;
	int			nlog;
	int64		rows;
	int64		later;
	TransactionId xids[MAX_UNKNOWN];
	int64		uncommitted[MAX_UNKNOWN] = {0};
	int			nxids = 0;
	dlist_iter	iter;

	q = mq_queue_try_attach(def, rel);
	if (q == NULL)
		return;
	mq_unlock(partition);
	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q == NULL || mq_shared->recount != NULL)
	{
		mq_unlock(partition);
		LWLockRelease(mq_shared->registry);
		return;
	}
	mq_shared->recount = q;
	mq_shared->nrecount = 0;
	mq_shared->recount_overflow = false;
	mq_count_begin(q, true);
	q->n.recounted = mq_steady();
	q->n.counted_until = now;
	mq_count_leases_until(q, now);
	q->passed_by.xmax = InvalidFullTransactionId;
	dlist_foreach(iter, &q->prepared)
	{
		MqPrepared *p = dlist_container(MqPrepared, node, iter.cur);

		if (p->unknown && nxids < MAX_UNKNOWN)
			xids[nxids++] = p->xid;
	}
	mq_unlock(partition);
	LWLockRelease(mq_shared->registry);

	/* who becomes visible after this is in the log */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	snapshot->curcid = FirstCommandId;	/* as others see our own rows */
	mq_reader_init(&r, def, rel);
	xmax = mq_full_xid(ReadNextFullTransactionId(), snapshot->xmax);
	rows = mq_storage_count(&r, now, &later, snapshot, xids, nxids, uncommitted);

	/* the log is judged without the lock, until nothing has been added meanwhile */
	log = palloc(sizeof(MqRecountDelta) * MQ_RECOUNT_LOG);
	for (int judged = 0;; judged = nlog)
	{
		mq_lock(partition);
		nlog = mq_shared->nrecount;
		if (nlog == judged)
			break;
		memcpy(log, mq_shared->recount_log, sizeof(MqRecountDelta) * nlog);
		mq_unlock(partition);
		for (int i = judged; i < nlog; i++)
			if (TransactionIdIsValid(log[i].xid) && XidInMVCCSnapshot(log[i].xid, snapshot))
			{
				rows += log[i].rows;
				later += log[i].later;
			}
	}
	q->n.rows = rows;
	q->n.later = later;
	q->n.count_next = DT_NOBEGIN;
	q->n.exact = q->n.rows_exact = mq_count_by(&q->recounted_by, snapshot, xmax) &&
		!mq_shared->recount_overflow;
	mq_count_end(q);
	dlist_foreach(iter, &q->prepared)
	{
		MqPrepared *p = dlist_container(MqPrepared, node, iter.cur);

		for (int i = 0; i < nxids; i++)
			if (p->unknown && p->xid == xids[i])
			{
				q->reserved += uncommitted[i] - p->reserved;
				p->reserved = uncommitted[i];
			}
	}
	mq_unlock(partition);
	UnregisterSnapshot(snapshot);
	mq_count_release();
}

/* A notification, unless it has become needless meanwhile. */
static void
notify(MqDef *def, Relation rel, Todo *todo)
{
	MqQueue    *q = mq_queue_try_attach(def, rel);
	bool		send = false;

	if (q)
	{
		send = something_ready(q, mq_now()) &&
			mq_throttle_next(q, mq_steady()) == DT_NOBEGIN;
		q->notify = false;
		if (send)
			q->notified = mq_steady();
		mq_unlock(q->partition);
	}
	if (!send)
		return;
	mq_maint_notifying = true;
	Async_Notify(psprintf(MQ_CHANNEL_PREFIX "%s", def->name), NULL);
	todo->next = Min(todo->next, mq_time_add(mq_steady(), NOTIFY_REPEAT));
}

static void
count_and_write(MqDef *def, Relation rel, Todo *todo)
{
	MqQueue    *q = mq_queue_try_attach(def, rel);

	if (q)
		mq_unlock(q->partition);
	if (todo->recount)
		mq_maint_recount(def, rel);
	if (todo->count_due)
		mq_maint_count_due(def, rel);
	if (todo->write && mq_retry_write(def, rel, WRITE_BATCH, false) > 0)
		todo->next = DT_NOBEGIN;	/* there may be more */
}

/* A batch of expired messages. */
static void
expire(MqDef *def, Relation rel, Todo *todo)
{
	todo->more_expired = mq_sweep_batch(todo->sweep, def, rel, &todo->next);
}

/* One transaction, if the table's lock is free. */
static void
in_transaction(Oid relid, void (*work) (MqDef *def, Relation rel, Todo *todo), Todo *todo)
{
	MqDef	   *def;
	Relation	rel;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
		todo->next = Min(todo->next, mq_time_add(mq_steady(), USECS_PER_SEC));
	else if (get_rel_namespace(relid) == InvalidOid)
		mq_forget_queue(MyDatabaseId, relid);
	else if ((def = mq_def_by_relid(relid)) != NULL && def->refused == NULL &&
			 (rel = try_relation_open(relid, NoLock)) != NULL)
	{
		work(def, rel, todo);
		relation_close(rel, NoLock);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * One pass.  Returns when (by the steady clock) there will be something to do
 * again as far as is known now.  Runs its own transactions if it needs some; a
 * notification's is its own, as its failure, at the commit, would undo the rest.
 */
TimestampTz
mq_maint_queue(Oid relid, bool listened)
{
	Todo		todo = look(relid, listened);

	if (todo.gone)
		return DT_NOEND;
	if (todo.retire)
	{
		/* in a transaction for the memory it needs */
		StartTransactionCommand();
		mq_outcome_retire(relid);
		CommitTransactionCommand();
	}
	if (todo.expire)
	{
		todo.sweep = mq_sweep_new();
		for (int i = 0; i < SWEEP_BATCHES && (i == 0 || todo.more_expired); i++)
		{
			todo.more_expired = false;
			in_transaction(relid, expire, &todo);
		}
		pfree(todo.sweep);
		if (todo.more_expired)
			todo.next = DT_NOBEGIN;
	}
	if (todo.write || todo.recount || todo.count_due)
		in_transaction(relid, count_and_write, &todo);
	if (todo.notify)
		in_transaction(relid, notify, &todo);
	mq_maint_notifying = false;
	return todo.next;
}

/*
 * When the oldest message that is ready was enqueued, by the heads of the
 * lanes; DT_NOEND if none is.  Costs at most one scan and one row a lane.
 */
TimestampTz
mq_maint_oldest(MqDef *def, Relation rel)
{
	TimestampTz oldest = DT_NOEND;
	MqScanJob  *job = palloc(sizeof(MqScanJob));
	MqReader	r;

	mq_reader_init(&r, def, rel);
	for (int l = 0; l < MQ_NLANES; l++)
		for (int tries = 0; tries < 3; tries++)
		{
			MqQueue    *q = mq_queue_try_attach(def, rel);
			MqCandidate cand;
			MqNext		next;
			MqRow		row;
			MqHolder	holder;

			if (q == NULL)
				break;
			next = mq_lane_head(q, l, mq_now(), &cand, job);
			mq_unlock(q->partition);
			if (next == MQ_NEXT_SCAN)
			{
				mq_lane_scan(job, &r);
				q = mq_queue_try_attach(def, rel);
				if (q == NULL)
					break;
				mq_lane_merge(q, job);
				mq_unlock(q->partition);
				continue;
			}
			if (next == MQ_NEXT_ROW &&
				mq_row_look(&r, cand.pos.id, &cand.tid, &row, &holder) == MQ_LOOK_OK)
			{
				MqValues	values;

				mq_row_values(&r, row.tuple, &values);
				oldest = Min(oldest, DatumGetTimestampTz(values.v[MQ_COL_ENQUEUED_AT]));
			}
			break;
		}
	mq_reader_done(&r);
	pfree(job);
	return oldest;
}
