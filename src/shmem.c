/*-------------------------------------------------------------------------
 * shmem.c
 *		Layout of the shared state, its hooks, and the order of its locks.
 *
 * The tables are the truth; everything here can be rebuilt from them.  A
 * crash of any backend makes the postmaster start again with empty shared
 * memory, so no step below has to survive the death of its process.
 *
 * What there is
 *	  MqQueue	one slot for each queue used lately, found by (database,
 *				relation).  Holds lanes, lists, counters, waiters.
 *	  MqLease	one for each message in flight or waiting in memory for its
 *				retry, in a hash table that is divided among the partitions.
 *	  MqKey		one for each key of an ordered queue with something to
 *				remember, in a hash table like that of the leases; see key.c.
 *	  MqWaiter	some for each process, indexed by its process number.
 *	  MqAnnounced one for each process about to commit; see announce.c.
 *	  MqDatabase one for each database seen, for the launcher.
 *
 * Locks, in the order in which they may be taken
 *	  1. registry		which slots and databases exist.
 *	  2. partition[i]	all state of the queues of partition i: lanes, lists,
 *						leases, buckets, counters, waiters.  Exclusive, the
 *						sections being short; shared only to see that a queue is
 *						empty.  Never two at once.
 *	  3. spinlocks		free leases and keys, free prepared records; a condition
 *						variable's own.
 *	Under a partition lock nothing is allocated, no catalog is read, no buffer
 *	is touched and nothing raises an error, because commit and abort callbacks
 *	take it.  ProcArrayLock may be taken under it (TransactionIdIsInProgress);
 *	nobody takes ours while holding that.
 *
 * A slot may be given to another queue whenever it is idle and its partition
 * unlocked: whoever comes back to a queue finds it again by its key, the
 * remembered pointer being only a hint.  A slot with leases, waiters, a running
 * scan, reserved places, prepared transactions or a rate limit that has just
 * been used is not idle.
 *-------------------------------------------------------------------------
 */
#include "shmem.h"

#include "clock.h"
#include "common/hashfn.h"
#include "guc.h"
#include "mirror.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#define TRANCHE		"mq"

/* Prepared transactions times queues they touched, at most. */
#define N_PREPARED	(1024)

MqShared   *mq_shared = NULL;
MqQueue    *mq_queues;
MqLease    *mq_leases;
MqLease   **mq_buckets;
MqKey	  **mq_key_buckets;
MqWaiter   *mq_waiters;
MqAnnounced *mq_announced;
pg_atomic_uint32 *mq_announced_xids;
uint32		mq_bucket_mask;

static shmem_request_hook_type prev_request = NULL;
static shmem_startup_hook_type prev_startup = NULL;

/* Buckets of one partition: a power of two, about 1/8 of all leases. */
static uint32
buckets_per_partition(void)
{
	uint32		n = 64;

	while (n < (uint32) mq_max_in_flight / 8)
		n *= 2;
	return n;
}

/* Ordinary backends and background workers; no auxiliary process waits. */
static int
n_waiters(void)
{
	return MaxBackends;
}

static Size
shared_size(void)
{
	Size		size = MAXALIGN(sizeof(MqShared));

	size = add_size(size, MAXALIGN(mul_size(mq_max_queues, sizeof(MqQueue))));
	size = add_size(size, MAXALIGN(mul_size(mq_max_in_flight, sizeof(MqLease))));
	size = add_size(size, MAXALIGN(mul_size(mul_size(buckets_per_partition(), MQ_PARTITIONS), sizeof(MqLease *))));
	size = add_size(size, MAXALIGN(mul_size(mq_max_in_flight, sizeof(MqKey))));
	size = add_size(size, MAXALIGN(mul_size(mul_size(buckets_per_partition(), MQ_PARTITIONS), sizeof(MqKey *))));
	size = add_size(size, MAXALIGN(mul_size(n_waiters() * MQ_WAIT_QUEUES, sizeof(MqWaiter))));
	size = add_size(size, MAXALIGN(mul_size(n_waiters(), sizeof(MqAnnounced))));
	size = add_size(size, MAXALIGN(mul_size(n_waiters(), sizeof(pg_atomic_uint32))));
	size = add_size(size, MAXALIGN(mul_size(N_PREPARED, sizeof(MqPrepared))));
	return size;
}

static void
request(void)
{
	if (prev_request)
		prev_request();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(TRANCHE, MQ_PARTITIONS + 1);
}

static void
startup(void)
{
	bool		found;
	char	   *p;
	MqKey	   *keys;

	if (prev_startup)
		prev_startup();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	p = ShmemInitStruct("mq", shared_size(), &found);
	mq_shared = (MqShared *) p;
	p += MAXALIGN(sizeof(MqShared));
	mq_queues = (MqQueue *) p;
	p += MAXALIGN(mq_max_queues * sizeof(MqQueue));
	mq_leases = (MqLease *) p;
	p += MAXALIGN(mq_max_in_flight * sizeof(MqLease));
	mq_buckets = (MqLease **) p;
	p += MAXALIGN((Size) buckets_per_partition() * MQ_PARTITIONS * sizeof(MqLease *));
	keys = (MqKey *) p;
	p += MAXALIGN(mq_max_in_flight * sizeof(MqKey));
	mq_key_buckets = (MqKey **) p;
	p += MAXALIGN((Size) buckets_per_partition() * MQ_PARTITIONS * sizeof(MqKey *));
	mq_waiters = (MqWaiter *) p;
	p += MAXALIGN(n_waiters() * MQ_WAIT_QUEUES * sizeof(MqWaiter));
	mq_announced = (MqAnnounced *) p;
	p += MAXALIGN(n_waiters() * sizeof(MqAnnounced));
	mq_announced_xids = (pg_atomic_uint32 *) p;
	p += MAXALIGN(n_waiters() * sizeof(pg_atomic_uint32));
	mq_bucket_mask = buckets_per_partition() - 1;

	if (!found)
	{
		MqPrepared *prepared = (MqPrepared *) p;

		memset(mq_shared, 0, shared_size());
		mq_shared->locks = GetNamedLWLockTranche(TRANCHE);
		mq_shared->registry = &mq_shared->locks[MQ_PARTITIONS].lock;
		pg_atomic_init_u64(&mq_shared->last_receipt, 0);
		SpinLockInit(&mq_shared->free_lock);
		SpinLockInit(&mq_shared->prepared_lock);
		mq_shared->launcher = -1;
		ConditionVariableInit(&mq_shared->worker_gone);
		for (int i = 0; i < MQ_DATABASES; i++)
		{
			pg_atomic_init_u32(&mq_shared->databases[i].worker, 0);
			pg_atomic_init_u64(&mq_shared->databases[i].next_wake, 0);
		}

		dlist_init(&mq_shared->free_queues);
		for (int i = 0; i < MQ_PARTITIONS; i++)
		{
			dlist_init(&mq_shared->partition[i]);
			ConditionVariableInit(&mq_shared->scanned[i]);
		}
		for (int i = 0; i < mq_max_queues; i++)
			dlist_push_tail(&mq_shared->free_queues, &mq_queues[i].node);
		for (int i = mq_max_in_flight - 1; i >= 0; i--)
		{
			mq_leases[i].next = mq_shared->free_leases;
			mq_shared->free_leases = &mq_leases[i];
		}
		mq_shared->nfree = mq_max_in_flight;
		for (int i = mq_max_in_flight - 1; i >= 0; i--)
		{
			keys[i].next = mq_shared->free_keys;
			mq_shared->free_keys = &keys[i];
		}
		mq_shared->nfree_keys = mq_max_in_flight;
		if (!pg_strong_random(&mq_shared->key_seed, sizeof(mq_shared->key_seed)))
			mq_shared->key_seed = (uint64) mq_now();
		for (int i = 0; i < n_waiters(); i++)
		{
			SpinLockInit(&mq_announced[i].lock);
			pg_atomic_init_u32(&mq_announced_xids[i], InvalidTransactionId);
		}
		for (int i = 0; i < n_waiters() * MQ_WAIT_QUEUES; i++)
			mq_waiters[i].procno = i / MQ_WAIT_QUEUES;
		ConditionVariableInit(&mq_shared->announce_done);
		pg_atomic_init_u32(&mq_shared->announce_waiters, 0);
		dlist_init(&mq_shared->free_prepared);
		for (int i = 0; i < N_PREPARED; i++)
			dlist_push_tail(&mq_shared->free_prepared, &prepared[i].node);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Installs the hooks; called while the library is preloaded. */
void
mq_shmem_init(void)
{
	prev_request = shmem_request_hook;
	shmem_request_hook = request;
	prev_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/* Raises 55000 unless the library was preloaded. */
void
mq_require_preload(void)
{
	if (mq_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("mq must be loaded via shared_preload_libraries"),
				 errhint("Add this line to postgresql.conf and restart the server: shared_preload_libraries = 'mq'")));
}

int
mq_partition_of(Oid dboid, Oid relid)
{
	return hash_combine(murmurhash32(dboid), murmurhash32(relid)) % MQ_PARTITIONS;
}

LWLock *
mq_partition_lock(int partition)
{
	return &mq_shared->locks[partition].lock;
}

void
mq_lock(int partition)
{
	LWLockAcquire(&mq_shared->locks[partition].lock, LW_EXCLUSIVE);
}

void
mq_unlock(int partition)
{
	LWLockRelease(&mq_shared->locks[partition].lock);
}

/*
 * The slot of a queue, or NULL.  The caller holds the partition's lock; hint
 * is where the slot was last seen, or NULL.
 */
MqQueue *
mq_queue_find(Oid dboid, Oid relid, MqQueue *hint)
{
	int			partition;
	dlist_iter	iter;

	if (hint && hint->used && hint->relid == relid && hint->dboid == dboid)
		return hint;
	partition = mq_partition_of(dboid, relid);
	Assert(LWLockHeldByMe(mq_partition_lock(partition)));
	dlist_foreach(iter, &mq_shared->partition[partition])
	{
		MqQueue    *q = dlist_container(MqQueue, node, iter.cur);

		if (q->relid == relid && q->dboid == dboid)
			return q;
	}
	return NULL;
}

static bool
queue_is_idle(MqQueue *q)
{
	if (q->nleases > 0 || q->nwaiters > 0 || q->nprepared > 0 ||
		mq_shared->recount == q || q->n.counting ||
		(q->throttle.rate_limit > 0 && q->bucket_full > mq_steady()))
		return false;
	if (q->expirer != -1 || q->reserved != 0)
		return false;
	for (int i = 0; i < MQ_NLANES; i++)
		if (q->lanes[i].scanner != -1)
			return false;
	return true;
}

/* Puts all lanes back to "nothing known": the next claim scans. */
void
mq_queue_init_lanes(MqQueue *q)
{
	for (int i = 0; i < MQ_NLANES; i++)
	{
		MqLane	   *lane = &q->lanes[i];

		lane->cursor = MQ_POS_MIN;
		lane->low = MQ_POS_MAX;
		lane->next_due = DT_NOBEGIN;
		lane->empty = false;
		lane->stuck = false;
		lane->resets++;
		lane->stock_head = lane->stock_n = 0;
	}
	q->nlate = 0;
	q->nblocked = 0;
	q->expiry.t = q->next_expiry = q->expiry_after = DT_NOBEGIN;
	ItemPointerSetInvalid(&q->expiry.tid);
	q->expiry_low = DT_NOEND;
	q->expiry_resets++;
	q->nexpired = 0;
	q->keys_recheck = q->keys_rebase = true;
}

/* Forgets a key, whatever it knows. */
void
mq_key_free(MqKey *e)
{
	MqQueue    *q = e->queue;
	MqKey	  **p = &mq_key_buckets[(Size) q->partition * (mq_bucket_mask + 1) +
								   ((uint32) e->hash & mq_bucket_mask)];

	while (*p != e)
		p = &(*p)->next;
	*p = e->next;
	dlist_delete(&e->node);
	if (e->parked)
		q->nparked_keys--;
	SpinLockAcquire(&mq_shared->free_lock);
	for (MqKey *rest = e->more; rest;)
	{
		MqKey	   *more = ((MqKeyRest *) rest)->more;

		rest->next = mq_shared->free_keys;
		mq_shared->free_keys = rest;
		mq_shared->nfree_keys++;
		rest = more;
	}
	e->next = mq_shared->free_keys;
	mq_shared->free_keys = e;
	mq_shared->nfree_keys++;
	SpinLockRelease(&mq_shared->free_lock);
}

/* Forgets all keys of a queue; no lease points to one. */
void
mq_keys_free_all(MqQueue *q)
{
	for (int s = 0; s < MQ_KEY_STATES; s++)
		while (!dlist_is_empty(&q->keys[s]))
			mq_key_free(dlist_head_element(MqKey, node, &q->keys[s]));
}

static void
free_slot(MqQueue *q)
{
	mq_keys_free_all(q);
	dlist_delete(&q->node);
	q->used = false;
	q->dboid = q->relid = InvalidOid;
	dlist_push_tail(&mq_shared->free_queues, &q->node);
}

/* Takes the slot away from the queue that has been idle for longest. */
static bool
evict_one(void)
{
	Oid			dboid = InvalidOid;
	Oid			relid = InvalidOid;
	TimestampTz oldest = DT_NOEND;

	for (int p = 0; p < MQ_PARTITIONS; p++)
	{
		dlist_iter	iter;

		mq_lock(p);
		dlist_foreach(iter, &mq_shared->partition[p])
		{
			MqQueue    *q = dlist_container(MqQueue, node, iter.cur);

			if (q->last_used < oldest && queue_is_idle(q))
			{
				oldest = q->last_used;
				dboid = q->dboid;
				relid = q->relid;
			}
		}
		mq_unlock(p);
	}
	if (relid != InvalidOid)
	{
		int			p = mq_partition_of(dboid, relid);
		MqQueue    *q;
		bool		done = false;

		mq_lock(p);
		q = mq_queue_find(dboid, relid, NULL);
		if (q && queue_is_idle(q))
		{
			free_slot(q);
			done = true;
		}
		mq_unlock(p);
		return done;
	}
	return false;
}

/*
 * The slot of a queue, made if missing, its partition locked; NULL and nothing
 * locked when all slots are busy.  A new slot's lanes know nothing and its
 * counters are not exact.
 */
MqQueue *
mq_queue_create(Oid dboid, Oid relid, bool *created)
{
	int			partition = mq_partition_of(dboid, relid);
	MqQueue    *q;
	int			tries = 0;

	*created = false;
	mq_lock(partition);
	q = mq_queue_find(dboid, relid, NULL);
	if (q)
		return q;
	mq_unlock(partition);

	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	while (dlist_is_empty(&mq_shared->free_queues))
		if (!evict_one() && ++tries > 3)
		{
			LWLockRelease(mq_shared->registry);
			return NULL;
		}
	mq_lock(partition);
	q = mq_queue_find(dboid, relid, NULL);
	if (q == NULL)
	{
		q = dlist_container(MqQueue, node, dlist_pop_head_node(&mq_shared->free_queues));
		memset(q, 0, sizeof(MqQueue));
		q->dboid = dboid;
		q->relid = relid;
		q->used = true;
		q->partition = partition;
		for (int i = 0, other = 0; i < MQ_NLANES; i++)
		{
			MqLane	   *lane = &q->lanes[i];

			lane->scanner = -1;
			lane->stock = i == MQ_LANE_FRESH ? q->stock_fresh : q->stock_other[other++];
			lane->stock_max = i == MQ_LANE_FRESH ? MQ_STOCK_FRESH : MQ_STOCK_OTHER;
		}
		mq_queue_init_lanes(q);
		q->expirer = -1;
		q->expired_upto = DT_NOBEGIN;
		for (int s = 0; s < MQ_KEY_STATES; s++)
			dlist_init(&q->keys[s]);
		dlist_init(&q->leases);
		dlist_init(&q->failed);
		dlist_init(&q->later);
		dlist_init(&q->prepared);
		dlist_init(&q->waiters);
		dlist_init(&q->matchers);
		q->n.counted_until = q->n.leases_until = DT_NOBEGIN;
		q->n.count_next = DT_NOBEGIN;
		q->audit_sum = -1;
		q->write_after = DT_NOBEGIN;
		q->n.since = q->last_used = mq_now();
		dlist_push_head(&mq_shared->partition[partition], &q->node);
		*created = true;
	}
	LWLockRelease(mq_shared->registry);
	return q;
}

/* Gives a slot up for good; its leases have been dropped by the caller. */
void
mq_queue_remove(Oid dboid, Oid relid)
{
	int			partition = mq_partition_of(dboid, relid);
	MqQueue    *q;

	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	mq_lock(partition);
	q = mq_queue_find(dboid, relid, NULL);
	if (q)
		q->bucket_full = 0;
	if (q && queue_is_idle(q))
		free_slot(q);
	mq_unlock(partition);
	LWLockRelease(mq_shared->registry);
}

/* A record for a prepared transaction, zeroed, or NULL if there are no more. */
MqPrepared *
mq_prepared_new(void)
{
	MqPrepared *p = NULL;

	SpinLockAcquire(&mq_shared->prepared_lock);
	if (!dlist_is_empty(&mq_shared->free_prepared))
		p = dlist_container(MqPrepared, node,
							dlist_pop_head_node(&mq_shared->free_prepared));
	SpinLockRelease(&mq_shared->prepared_lock);
	if (p)
	{
		memset(p, 0, sizeof(MqPrepared));
		p->expires_at = DT_NOEND;
	}
	return p;
}

void
mq_prepared_free(MqPrepared *p)
{
	SpinLockAcquire(&mq_shared->prepared_lock);
	dlist_push_tail(&mq_shared->free_prepared, &p->node);
	SpinLockRelease(&mq_shared->prepared_lock);
}

/*
 * A prepared transaction that a restart brought back: when it ends the queue is
 * scanned again.  The partition is locked (or nobody else is there yet).  False
 * if there is no record left for it.
 */
bool
mq_queue_await(MqQueue *q, TransactionId xid)
{
	MqPrepared *p;
	dlist_iter	iter;

	dlist_foreach(iter, &q->prepared)
		if (dlist_container(MqPrepared, node, iter.cur)->xid == xid)
			return true;
	p = mq_prepared_new();
	if (p == NULL)
		return false;
	p->xid = xid;
	p->rescan = p->unknown = true;
	q->n.rows_exact = false;	/* its rows count for the length, too */
	dlist_push_tail(&q->prepared, &p->node);
	q->nprepared++;
	return true;
}

/*
 * A receipt: greater than all before it, also over crashes, and over failovers
 * and restores unless the clock goes back further than they took.
 */
int64
mq_next_receipt(void)
{
	uint64		clock = (uint64) mq_now_unix_us();
	uint64		last = pg_atomic_read_u64(&mq_shared->last_receipt);

	for (;;)
	{
		uint64		next = Max(last + 1, clock);

		if (pg_atomic_compare_exchange_u64(&mq_shared->last_receipt, &last, next))
		{
			mq_mirror_receipt((int64) next);
			return (int64) next;
		}
	}
}
