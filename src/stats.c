/*-------------------------------------------------------------------------
 * stats.c
 *		Counters of a queue: constant time for every event and every reader.
 *
 * rows counts the committed rows, later those of them that come due after
 * counted_until.  A delayed message becomes ready without any event, so whoever
 * reads the counters (or the worker) first moves counted_until forward to now and
 * subtracts the rows it passes: each message is passed once (maint.c).
 *
 * Leases are counted on their own, each by the time at which it was taken: delayed
 * is later less the leases of rows due after counted_until.  What happens to rows
 * is told by the callbacks of those who did it, which may come late and in another
 * order than they became visible; what happens to leases happens here and now.  As
 * the two are only added up, the order does not matter.  While a callback is still
 * to come, either may be less than nothing.  While rows are being walked, leases are
 * counted as of before (leases_until), since the rows that come due still are; what
 * commits in that time makes the numbers about right only.
 *
 * The walk over the rows that came due takes its snapshot together with
 * counted_until, under the lock.  A transaction that the snapshot sees, but whose
 * callback comes only later, has had its rows passed before they were added: the
 * queue keeps the snapshot, so that the callback counts as if counted_until had not
 * moved (mq_count_horizon).  Only the last walk is known: a callback that comes
 * later than two, for a row that the first one passed, leaves the count wrong by
 * that row, as does one of more than MQ_COUNTED_XIP transactions open at once.
 *
 * After a crash, or for a queue whose slot went to another, the rows are
 * counted anew by walking the table once.  Transactions that end meanwhile
 * log their changes with their xid; when the walk is done, those its snapshot
 * did not see are added.  A transaction that the snapshot saw, but whose
 * callback comes only after the walk, has been counted by it: the queue keeps
 * that snapshot too, so that such a callback leaves rows and later alone.
 *
 * All functions but mq_count_release and mq_count_abandon: the queue's partition is
 * locked by the caller.
 */
#include "stats.h"

#include "access/transam.h"
#include "access/xact.h"
#include "xact.h"

/* The rows that this process is counting, so that an error or its end gives it up. */
static struct
{
	bool		active;
	bool		anew;			/* all of them, being mq_shared->recount */
	Oid			relid;
	uint32		walk;
}			running;

/* The time after which this committed transaction's rows are later. */
TimestampTz
mq_count_horizon(MqQueue *q, FullTransactionId xid)
{
	return mq_count_has(&q->passed_by, xid) ? q->n.count_from : q->n.counted_until;
}

/* n rows come to (or, negative, leave) this place, by a commit with this horizon. */
void
mq_count_row(MqQueue *q, const MqPlace *place, int n, TimestampTz horizon)
{
	TimestampTz at = Min(place->ready_at, MQ_COUNT_NEVER);

	q->n.rows += n;
	if (!place->timed || place->ready_at <= horizon)
		return;
	q->n.later += n;
	if (n > 0 && at > q->n.counted_until && at < q->n.count_next)
		q->n.count_next = at;
}

/* The lease's row is known to be due at this time; DT_NOBEGIN: it has none, or is gone. */
void
mq_count_lease(MqLease *l, TimestampTz ready_at)
{
	MqQueue    *q = l->queue;
	bool		is_later = ready_at > q->n.leases_until;

	l->ready_at = ready_at;
	if (is_later == l->is_later)
		return;
	l->is_later = is_later;
	if (is_later)
	{
		dlist_push_tail(&q->later, &l->later);
		q->nlater++;
	}
	else
	{
		dlist_delete(&l->later);
		q->nlater--;
	}
}

/* Moves leases_until. */
void
mq_count_leases_until(MqQueue *q, TimestampTz until)
{
	dlist_mutable_iter iter;
	dlist_head *lists[] = {&q->leases, &q->failed};
	bool		back = until < q->n.leases_until;

	q->n.leases_until = until;
	if (back)
		for (int i = 0; i < 2; i++)
			dlist_foreach_modify(iter, lists[i])
			{
				MqLease    *l = dlist_container(MqLease, node, iter.cur);

				mq_count_lease(l, l->ready_at);
			}
	else
		dlist_foreach_modify(iter, &q->later)
		{
			MqLease    *l = dlist_container(MqLease, later, iter.cur);

			mq_count_lease(l, l->ready_at);
		}
}

/* This process begins to walk the rows: those that came due, or all anew. */
void
mq_count_begin(MqQueue *q, bool anew)
{
	q->n.walks++;
	q->n.counting = !anew;		/* a walk under way has counted for nothing */
	q->n.recounting = anew;
	running.active = true;
	running.anew = anew;
	running.relid = q->relid;
	running.walk = q->n.walks;
	mq_xact_want_end();
}

/*
 * It has walked them; false if all have been counted anew meanwhile.  After a
 * recount the caller has still to release the right to one.
 */
bool
mq_count_end(MqQueue *q)
{
	bool		last = q->n.walks == running.walk;

	running.active = running.anew;
	if (last)
		q->n.counting = q->n.recounting = false;
	return last;
}

/* Others may recount their queues.  No lock is held by the caller. */
void
mq_count_release(void)
{
	running.active = false;
	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	mq_shared->recount = NULL;
	LWLockRelease(mq_shared->registry);
}

/*
 * An error, or this process ends: the rows are to be counted anew, true then.  No
 * lock is held by the caller.
 */
bool
mq_count_abandon(void)
{
	int			partition;
	MqQueue    *q;

	if (!running.active)
		return false;
	running.active = false;
	partition = mq_partition_of(MyDatabaseId, running.relid);
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, running.relid, NULL);
	if (q && q->n.walks == running.walk)
	{
		q->n.counting = q->n.recounting = q->n.exact = false;
		if (running.anew)
			q->n.rows_exact = false;
	}
	mq_unlock(partition);
	if (running.anew)
		mq_count_release();
	return true;
}

/* Rows that are not leased and come due after leases_until. */
static int64
count_delayed(MqQueue *q)
{
	return Max(q->n.later - q->nlater, 0);
}

/* Messages that could be delivered at leases_until. */
int64
mq_count_ready(MqQueue *q)
{
	int64		n = q->n.rows - count_delayed(q) - q->nleases;

	return Max(n, 0);
}

/*
 * Messages that max_length counts: all but those that a committed dequeue has
 * leased.  One that an open transaction has taken or acked still counts, so
 * that its rollback brings none back.
 */
int64
mq_count_length(MqQueue *q)
{
	return q->n.rows - q->nheld;
}

/* Messages that wait for their time, those known only to the leases included. */
int64
mq_count_delayed(MqQueue *q)
{
	return count_delayed(q) + q->nfailed;
}

/* A transaction id with its epoch, less than 2^31 away from one that is known. */
FullTransactionId
mq_full_xid(FullTransactionId known, TransactionId xid)
{
	int32		away = (int32) (xid - XidFromFullTransactionId(known));

	return FullTransactionIdFromU64(U64FromFullTransactionId(known) + away);
}

/*
 * Rows are counted as this snapshot, whose xmax is given, sees them.  What the
 * caller's own transaction did is left to its end; no snapshot names it.  False,
 * and nobody is known to be counted, if there were too many transactions open to
 * remember them.
 */
bool
mq_count_by(MqCountedBy *by, Snapshot snapshot, FullTransactionId xmax)
{
	TransactionId own = GetTopTransactionIdIfAny();

	by->xmax = InvalidFullTransactionId;
	if (snapshot->xcnt > MQ_COUNTED_XIP - 1)
		return false;
	by->xmax = xmax;
	by->nxip = snapshot->xcnt;
	memcpy(by->xip, snapshot->xip, sizeof(TransactionId) * by->nxip);
	if (TransactionIdIsValid(own))
		by->xip[by->nxip++] = own;
	return true;
}

/* Whether that count has what this transaction did. */
bool
mq_count_has(const MqCountedBy *by, FullTransactionId xid)
{
	if (!FullTransactionIdIsValid(xid) || !FullTransactionIdPrecedes(xid, by->xmax))
		return false;
	for (int i = 0; i < by->nxip; i++)
		if (by->xip[i] == XidFromFullTransactionId(xid))
			return false;
	return true;
}

/* Records what a transaction changed while the rows are being counted. */
void
mq_count_log(MqQueue *q, TransactionId xid, int64 rows, int64 later)
{
	if (mq_shared->nrecount >= MQ_RECOUNT_LOG)
		mq_shared->recount_overflow = true;
	else
	{
		MqRecountDelta *d = &mq_shared->recount_log[mq_shared->nrecount++];

		d->xid = xid;
		d->rows = rows;
		d->later = later;
	}
}
