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
 * did not see are added.  One that it saw may come to its callback only after
 * that: the snapshot stays with the queue for a minute, and whoever is visible
 * in it has been counted (mq_count_seen).
 *
 * All functions: the queue's partition is locked by the caller.
 */
#include "stats.h"

#include "access/transam.h"
#include "clock.h"

#define KEEP_SNAPSHOT	(60 * USECS_PER_SEC)

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

/* Whether the last recount has counted what this transaction did. */
bool
mq_count_seen(MqQueue *q, TransactionId xid)
{
	if (!TransactionIdIsValid(q->counted_xmax) || !TransactionIdIsValid(xid) ||
		q->n.recounting)
		return false;
	if (mq_steady() - q->n.recounted > KEEP_SNAPSHOT)
	{
		q->counted_xmax = InvalidTransactionId;
		return false;
	}
	if (!TransactionIdPrecedes(xid, q->counted_xmax))
		return false;
	for (int i = 0; i < q->ncounted; i++)
		if (q->counted_xip[i] == xid)
			return false;
	return true;
}
