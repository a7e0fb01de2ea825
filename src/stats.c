/*-------------------------------------------------------------------------
 * stats.c
 *		Counters of a queue: constant time for every event and every reader.
 *
 * rows counts the committed rows, delayed those of them that are not leased
 * and come due after counted_until.  A delayed message becomes ready without
 * any event, so whoever reads the counters (or the worker) first moves
 * counted_until forward to now and subtracts the rows it passes: each message
 * is passed once (maint.c).  Leased messages are counted by the lease table.
 *
 * After a crash, or for a queue whose slot went to another, the rows are
 * counted anew by walking the table once.  Transactions that end meanwhile
 * log their changes with their xid; when the walk is done, those its snapshot
 * did not see are added.  A transaction that the snapshot saw, but whose
 * callback comes only after the walk, has been counted by it: the queue keeps
 * the snapshot, so that such a callback leaves rows and delayed alone.
 *
 * All functions: the queue's partition is locked by the caller.
 */
#include "stats.h"

#include "access/transam.h"
#include "access/xact.h"

/* n rows come to (or, negative, leave) this place, not being leased. */
void
mq_count_row(MqQueue *q, const MqPlace *place, int n)
{
	q->n.rows += n;
	if (place->timed)
		mq_count_leased(q, place->ready_at, -n);
}

/* n rows with this ready_at become leased (or, negative, free again). */
void
mq_count_leased(MqQueue *q, TimestampTz ready_at, int n)
{
	if (ready_at == DT_NOBEGIN)
		return;
	if (ready_at <= q->n.counted_until)
	{
		if (q->n.counting && ready_at > q->n.count_from)
			q->n.dirty = true;
		return;
	}
	q->n.delayed -= n;
	if (n < 0 && ready_at < q->n.count_next)
		q->n.count_next = ready_at;
}

/* Messages that could be delivered at counted_until. */
int64
mq_count_ready(MqQueue *q)
{
	int64		n = q->n.rows - q->n.delayed - q->nleases;

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
	int64		n = q->n.delayed + q->nfailed;

	return Max(n, 0);
}

/* A recent transaction id with its epoch.  No partition is locked. */
FullTransactionId
mq_full_xid(TransactionId xid)
{
	FullTransactionId next = ReadNextFullTransactionId();
	uint32		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next))
		epoch--;
	return FullTransactionIdFromEpochAndXid(epoch, xid);
}

/*
 * The rows have been counted as this snapshot, whose xmax is given, sees them.
 * What the caller's own transaction did is left to its end; no snapshot names it.
 * False if there were too many transactions open to remember them.
 */
bool
mq_count_seen_by(MqQueue *q, Snapshot snapshot, FullTransactionId xmax)
{
	TransactionId own = GetTopTransactionIdIfAny();

	q->counted_xmax = xmax;
	q->ncounted_xip = Min(snapshot->xcnt, MQ_COUNTED_XIP - 1);
	memcpy(q->counted_xip, snapshot->xip, sizeof(TransactionId) * q->ncounted_xip);
	if (TransactionIdIsValid(own))
		q->counted_xip[q->ncounted_xip++] = own;
	return snapshot->xcnt <= MQ_COUNTED_XIP - 1;
}

/* Whether the last recount has counted what this transaction did. */
bool
mq_count_has(MqQueue *q, FullTransactionId xid)
{
	if (!FullTransactionIdIsValid(xid) || !FullTransactionIdPrecedes(xid, q->counted_xmax))
		return false;
	for (int i = 0; i < q->ncounted_xip; i++)
		if (q->counted_xip[i] == XidFromFullTransactionId(xid))
			return false;
	return true;
}

/* Records what a transaction changed while the rows are being counted. */
void
mq_count_log(MqQueue *q, TransactionId xid, int64 rows, int64 delayed)
{
	if (mq_shared->nrecount >= MQ_RECOUNT_LOG)
		mq_shared->recount_overflow = true;
	else
	{
		MqRecountDelta *d = &mq_shared->recount_log[mq_shared->nrecount++];

		d->xid = xid;
		d->rows = rows;
		d->delayed = delayed;
	}
}
