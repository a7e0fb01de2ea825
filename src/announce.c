/*-------------------------------------------------------------------------
 * announce.c
 *		Transactions that are about to commit new rows: how the rows of one
 *		transaction keep their order.
 *
 * A transaction becomes visible a moment before its callback puts those of its
 * rows that lie at or below the cursor on the late list.  A scan in that moment
 * sees its other rows, and would hand them out before.  So
 *	  1. before it commits, a producer announces queue, lowest new id and xid in
 *		 its process's own place;
 *	  2. its commit or abort callback, when all is listed, clears the place;
 *	  3. a scan, when it has walked the index, looks for announced transactions
 *		 that its snapshot saw as ended and whose lowest id is at or below the
 *		 cursor it started from, and waits for their callbacks.
 * Whoever is still committing for the scan's snapshot (waiting for the disk or a
 * standby) is not waited for: the scan saw none of its rows.
 *
 * A place has a spinlock for its contents; the xids stand together in an array
 * of their own that is read without a lock, as nearly all readers find nothing.
 * A process that dies takes all of it with it.
 */
#include "announce.h"

#include "pgstat.h"
#include "utils/snapmgr.h"

/* Announces one queue's lowest new id.  Not for callbacks after the commit. */
void
mq_announce(Oid relid, int64 lowest, TransactionId xid)
{
	int			me = MqMyProcNumber();
	MqAnnounced *a = &mq_announced[me];

	SpinLockAcquire(&a->lock);
	if (pg_atomic_read_u32(&mq_announced_xids[me]) == InvalidTransactionId)
		a->n = 0;
	if (a->n < MQ_ANNOUNCED_MAX)
	{
		a->dboid = MyDatabaseId;
		a->relids[a->n] = relid;
		a->lowest[a->n++] = lowest;
	}
	SpinLockRelease(&a->lock);
	pg_atomic_write_u32(&mq_announced_xids[me], xid);
}

/* All rows are listed, or there are none. */
void
mq_announce_done(void)
{
	int			me = MqMyProcNumber();

	if (pg_atomic_read_u32(&mq_announced_xids[me]) == InvalidTransactionId)
		return;
	pg_atomic_write_u32(&mq_announced_xids[me], InvalidTransactionId);
	pg_memory_barrier();
	if (pg_atomic_read_u32(&mq_shared->announce_waiters) > 0)
		ConditionVariableBroadcast(&mq_shared->announce_done);
}

/* Whether this process's announcement concerns the scan. */
static bool
concerns(int proc, TransactionId xid, Oid relid, int64 cursor)
{
	MqAnnounced *a = &mq_announced[proc];
	bool		result = false;

	SpinLockAcquire(&a->lock);
	if (a->dboid == MyDatabaseId)
		for (int i = 0; i < a->n; i++)
			result |= a->relids[i] == relid && a->lowest[i] <= cursor;
	SpinLockRelease(&a->lock);
	return result && pg_atomic_read_u32(&mq_announced_xids[proc]) == xid;
}

/* Sleeps until the process's announcement is no longer this one. */
static void
await_end(pg_atomic_uint32 *place, TransactionId xid)
{
	pg_atomic_fetch_add_u32(&mq_shared->announce_waiters, 1);
	PG_TRY();
	{
		ConditionVariablePrepareToSleep(&mq_shared->announce_done);
		while (pg_atomic_read_u32(place) == xid)
			ConditionVariableTimedSleep(&mq_shared->announce_done, 100, PG_WAIT_EXTENSION);
		ConditionVariableCancelSleep();
	}
	PG_FINALLY();
	{
		pg_atomic_fetch_sub_u32(&mq_shared->announce_waiters, 1);
	}
	PG_END_TRY();
}

/*
 * Waits until the transactions that have ended for the snapshot and have rows
 * at or below the cursor have listed them.  No lock is held.
 */
void
mq_announce_await(Oid relid, int64 cursor, Snapshot snapshot)
{
	for (int proc = 0; proc < MaxBackends; proc++)
	{
		TransactionId xid = pg_atomic_read_u32(&mq_announced_xids[proc]);

		if (xid == InvalidTransactionId || proc == MqMyProcNumber() ||
			XidInMVCCSnapshot(xid, snapshot) || !concerns(proc, xid, relid, cursor))
			continue;

		await_end(&mq_announced_xids[proc], xid);
	}
}
