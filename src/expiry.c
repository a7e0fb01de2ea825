/*-------------------------------------------------------------------------
 * expiry.c
 *		When messages expire, and where those that have are known.
 *
 * A message expires ttl after it comes due, its own ttl or its queue's, the
 * earlier; its row says when (expires_at).  From then on no claim delivers it
 * (dequeue_take.c looks at each row's time), and somebody takes it to the dead
 * letters: the worker (sweep.c), or without one whoever dequeues.
 *
 * Rows that expire stand in a partial index by time.  Walked from its start for
 * each batch, it would be one more queue whose head is dead entries.  So each
 * queue has a position in it, like a lane's cursor.  The promise: each live row
 * that has expired is above the position, or
 *	  noted		on a short list: somebody held the row when we looked, or it was
 *				committed or given back after the position had passed
 *	  leased	its lease says so (expires_at), and whatever ends the lease
 *				without ending the row notes it (mq_expiry_left)
 *	  taken		by a transaction that is still open; its abort notes it
 *	  prepared	by a prepared transaction, whose end notes it or starts again
 *	and nothing above it expires before next_expiry.
 *
 * Advancing the position, by whoever has the right to (expirer, a process
 * number, as with a lane's scan):
 *	  1. Under the partition's lock: expirer := me, expiry_low := infinity,
 *		 expired_upto := now.
 *	  2. Without it: the latest snapshot, then the index from the position up to
 *		 that time.
 *	  3. Under it: expired rows that are leased are left to their leases.
 *	  4. Without it: the others are deleted, waiting for nobody, and inserted
 *		 into the dead-letter queue.
 *	  5. Under it: those that were held are noted, the position moves to the last
 *		 one examined, but below expiry_low, and the right is given up.
 *	Every commit that makes a row with expires_at visible comes here after that
 *	and under the lock: it lowers expiry_low, and if the position has passed
 *	notes the row or sets the position back.  No row is lost, for the reason
 *	given in lane.c.  An error before step 5 leaves the position where it was;
 *	an abort after it notes the rows again (outcome.c).  Whoever dies takes the
 *	shared state with it: the first look starts from the beginning.
 *
 * A row is not both delivered and expired: a claimer that took it before step 3
 * is seen there; one that takes it later reads expired_upto under the same lock
 * as its lease and goes by that, whatever its own clock says.  Step 4's deletes
 * are made when the right is given up, and speak for themselves from then on.
 *
 * All functions from mq_expiry_set_back on but mq_expiry_abandon: the partition
 * is locked by the caller.
 */
#include "expiry.h"

#include "clock.h"

/* ttl microseconds after a message of that ready_at (if timed) comes due. */
static TimestampTz
expires_at(bool timed, TimestampTz ready_at, int64 ttl)
{
	TimestampTz now = mq_now();

	return mq_time_add(timed && ready_at > now ? ready_at : now, ttl);
}

/*
 * Gives a new message its time: ttl microseconds (0: none) or the queue's, if
 * that is earlier, after it comes due by the other values.
 */
void
mq_expiry_values(const MqDef *def, int64 ttl, MqValues *values)
{
	bool		timed = !values->null[MQ_COL_READY_AT];

	if (def->ttl > 0 && (ttl == 0 || def->ttl < ttl))
		ttl = def->ttl;
	values->null[MQ_COL_EXPIRES_AT] = ttl == 0;
	if (ttl > 0)
		values->v[MQ_COL_EXPIRES_AT] =
			TimestampTzGetDatum(expires_at(timed,
										   timed ? DatumGetTimestampTz(values->v[MQ_COL_READY_AT]) : 0,
										   ttl));
}

/*
 * The same for a row that plain SQL inserts, which may bring a time of its own.
 * Returns the row, or a copy with the queue's time.
 */
HeapTuple
mq_expiry_tuple(const MqDef *def, TupleDesc desc, HeapTuple tuple)
{
	bool		null;
	bool		untimed;
	int			att = def->att[MQ_COL_EXPIRES_AT];
	TimestampTz ready_at;
	TimestampTz own;
	Datum		by_queue;

	if (def->ttl == 0)
		return tuple;
	ready_at = DatumGetTimestampTz(heap_getattr(tuple, def->att[MQ_COL_READY_AT], desc, &untimed));
	own = DatumGetTimestampTz(heap_getattr(tuple, att, desc, &null));
	by_queue = TimestampTzGetDatum(expires_at(!untimed, ready_at, def->ttl));
	if (!null && own <= DatumGetTimestampTz(by_queue))
		return tuple;
	null = false;
	return heap_modify_tuple_by_cols(tuple, desc, 1, &att, &by_queue, &null);
}

/* The scan starts again from this time. */
void
mq_expiry_set_back(MqQueue *q, TimestampTz at)
{
	if (at <= q->expiry.t)
	{
		q->expiry.t = at;
		ItemPointerSetInvalid(&q->expiry.tid);
	}
	q->expiry_low = Min(q->expiry_low, at);
	q->next_expiry = Min(q->next_expiry, at);
}

/*
 * A row behind the position, which expired at `at`, is to be looked at again
 * after this (steady) time.  False if there is no room for one more.
 */
bool
mq_expiry_note(MqQueue *q, int64 id, ItemPointer tid, TimestampTz at,
			   TimestampTz after)
{
	MqExpired  *e;

	for (int i = 0; i < q->nexpired; i++)
		if (q->expired[i].id == id)
		{
			e = &q->expired[i];
			e->after = after;
			e->at = Min(e->at, at);
			if (ItemPointerIsValid(tid))
				e->tid = *tid;
			return true;
		}
	if (q->nexpired >= MQ_EXPIRED_MAX)
		return false;
	e = &q->expired[q->nexpired++];
	e->id = id;
	e->tid = *tid;
	e->at = at;
	e->after = after;
	return true;
}

/*
 * Rows that expire from `at` on have become visible, or free again: the one
 * with this id, or many (0).  Returns whether the worker has to know.
 */
bool
mq_expiry_add(MqQueue *q, TimestampTz at, int64 id, ItemPointer tid)
{
	bool		poke = at < q->next_expiry || q->next_expiry == DT_NOBEGIN;

	if (at > q->expiry.t)
	{
		q->expiry_low = Min(q->expiry_low, at);
		q->next_expiry = Min(q->next_expiry, at);
		return poke;
	}
	if (id == 0 || !mq_expiry_note(q, id, tid, at, DT_NOBEGIN))
		mq_expiry_set_back(q, at);
	return true;
}

/* The lease ends while its row stays: if that has expired, nobody else knows. */
void
mq_expiry_left(MqLease *l)
{
	MqPlace		p;

	if (l->expires_at == DT_NOEND)
		return;
	p = mq_lease_place(l);
	(void) mq_expiry_add(l->queue, l->expires_at, p.id, &p.tid);
}

/*
 * When there is something to take to the dead letters, by the steady clock, as
 * far as is known; DT_NOEND: never.
 */
TimestampTz
mq_expiry_event(MqQueue *q)
{
	TimestampTz t = q->next_expiry == DT_NOEND ? DT_NOEND : mq_steady_of(q->next_expiry);

	for (int i = 0; i < q->nexpired; i++)
		t = Min(t, q->expired[i].after);
	return t == DT_NOEND ? t : Max(t, q->expiry_after);
}

/* ----------------------------------------------------------- the right */

/* What this process is moving, so that an error can give the right up. */
static struct
{
	bool		active;
	Oid			relid;
	SubTransactionId sub;
}			running;

/* Takes the right to move what has expired at upto; false if somebody has it. */
bool
mq_expiry_start(MqQueue *q, TimestampTz upto)
{
	/* a trigger of the owner's may lead here from another queue */
	if (q->expirer != -1 || running.active)
		return false;
	q->expirer = MqMyProcNumber();
	q->expired_upto = upto;
	running.active = true;
	running.relid = q->relid;
	running.sub = GetCurrentSubTransactionId();
	mq_xact_want_end();
	return true;
}

/* The right is given up, the deletes having been made. */
void
mq_expiry_finish(MqQueue *q)
{
	q->expirer = -1;
	q->expired_upto = DT_NOBEGIN;
	running.active = false;
}

/* A note is not needed any more. */
void
mq_expiry_forget(MqQueue *q, int64 id)
{
	for (int i = 0; i < q->nexpired; i++)
		if (q->expired[i].id == id)
		{
			q->expired[i] = q->expired[--q->nexpired];
			return;
		}
}

/*
 * Gives up the right after an error under this subtransaction (invalid: any);
 * the position has not moved.  Takes the partition's lock.
 */
void
mq_expiry_abandon(SubTransactionId sub)
{
	int			partition;
	MqQueue    *q;

	if (!running.active || (sub != InvalidSubTransactionId && sub != running.sub))
		return;
	running.active = false;
	partition = mq_partition_of(MyDatabaseId, running.relid);
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, running.relid, NULL);
	if (q && q->expirer == MqMyProcNumber())
	{
		mq_expiry_finish(q);
		q->next_expiry = DT_NOBEGIN;
		q->expiry_after = mq_time_add(mq_steady(), USECS_PER_SEC);
	}
	mq_unlock(partition);
}
