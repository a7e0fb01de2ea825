/*-------------------------------------------------------------------------
 * forget.c
 *		The ends of a session, of a queue's table and of a database.
 *-------------------------------------------------------------------------
 */
#include "forget.h"

#include "clock.h"

/*
 * Gives back what this session leased "as long as it lives": at its end, after
 * its last transaction has, or at DISCARD ALL.
 */
void
mq_release_session(MqReason reason)
{
	if (mq_shared == NULL || MyProc == NULL)
		return;
	for (int partition = 0; partition < MQ_PARTITIONS; partition++)
	{
		MqWakeList	wake = {0};
		dlist_iter	qi;
		bool		any = false;

		mq_lock(partition);
		dlist_foreach(qi, &mq_shared->partition[partition])
		{
			MqQueue    *q = dlist_container(MqQueue, node, qi.cur);
			dlist_mutable_iter li;
			int			n = 0;

			if (q->dboid != MyDatabaseId)
				continue;
			dlist_foreach_modify(li, &q->leases)
			{
				MqLease    *l = dlist_container(MqLease, node, li.cur);

				if (!l->session || l->holder != MqMyProcNumber() || l->pid != MyProcPid)
					continue;
				if (l->state == MQ_LEASE_HELD)
				{
					mq_lease_fail(l, reason);
					n++;
				}
				else if (l->state == MQ_LEASE_SETTLING && l->from == MQ_LEASE_HELD)
				{
					/*
					 * Another session, or a prepared transaction, is settling
					 * it.  If that fails, it ends like any lease.
					 */
					l->session = false;
					l->until = mq_steady();
				}
			}
			if (n > 0)
			{
				mq_wake_pick(q, n, &wake);
				mq_wake_freed(q, &wake);
			}
			any |= n > 0;
		}
		mq_unlock(partition);
		mq_wake_send(&wake);
		if (any)
			mq_worker_poke(DT_NOBEGIN);
	}
}

/*
 * The queue's table is gone: so are its leases and what was known of it.  Takes
 * the partition's lock, then the registry's.
 */
void
mq_forget_queue(Oid dboid, Oid relid)
{
	int			partition = mq_partition_of(dboid, relid);
	MqWakeList	wake = {0};
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(dboid, relid, NULL);
	if (q)
	{
		mq_lease_free_all(q);
		q->reserved = 0;
		while (!dlist_is_empty(&q->prepared))
		{
			MqPrepared *p = dlist_container(MqPrepared, node, dlist_pop_head_node(&q->prepared));

			q->nprepared--;
			mq_prepared_free(p);
		}
		mq_wake_all(q, &wake);
	}
	mq_unlock(partition);
	mq_wake_send(&wake);
	mq_queue_remove(dboid, relid);
}

/* The same for all queues of databases that are gone. */
void
mq_forget_databases(bool (*gone) (Oid dboid))
{
	for (int p = 0; p < MQ_PARTITIONS; p++)
		for (;;)
		{
			Oid			dboid = InvalidOid;
			Oid			relid = InvalidOid;
			dlist_iter	iter;

			mq_lock(p);
			dlist_foreach(iter, &mq_shared->partition[p])
			{
				MqQueue    *q = dlist_container(MqQueue, node, iter.cur);

				/* one that somebody still waits for stays for now */
				if (q->nwaiters == 0 && gone(q->dboid))
				{
					dboid = q->dboid;
					relid = q->relid;
					break;
				}
			}
			mq_unlock(p);
			if (!OidIsValid(relid))
				break;
			mq_forget_queue(dboid, relid);
		}
}
