/*-------------------------------------------------------------------------
 * dedup.c
 *		dedup_id: one message of several enqueued with the same id.
 *
 * The memory of ids is mq.dedup$: (queue, dedup_id) -> id of the message, until
 * when it is remembered.  For queues whose table is unlogged it is
 * mq.dedup_unlogged$, so that a crash that takes the messages takes the memory.
 * An enqueue with a dedup_id writes its record in the same transaction as the
 * message and before it; so rollback, savepoints, PREPARE and crashes need no
 * code here.  An enqueue without one never gets here.
 *
 * Enqueueing with an id
 *	  1. The message gets its id from the sequence.
 *	  2. One of 64 LWLocks is taken, chosen by the hash of (database, table,
 *		 dedup_id).  It makes step 3 and 4 one step among all who enqueue.
 *	  3. The record is looked up by the primary key with a dirty snapshot: that
 *		 is the latest state at every isolation level, what is not committed
 *		 included, and leaves no SIREAD locks.
 *		   a. Another transaction has written or is deleting it: the lock is
 *			  released, then we wait for that transaction as for any row lock
 *			  (so a deadlock is found, a prepared one is waited for, and a
 *			  cancel is heard), and begin again at 2.
 *		   b. It is committed or ours and still remembered: its id is the
 *			  answer and nothing is added.
 *	  4. Otherwise an expired record is deleted and ours inserted; the lock is
 *		 released.
 *	  5. The message is inserted by whatever way its table needs.
 *
 * So the LWLock is held for one look-up and one insert of a small row, never
 * while anything waits for a transaction or runs a user's code; no commit or
 * abort takes it; an error under it is an error of the transaction, which
 * releases it.  No heavyweight lock is taken for an id, so a batch of any size
 * needs no room in the lock table.  A unique violation cannot happen, as nobody
 * inserts without having looked under the same lock.  Nothing is compared with
 * the transaction's snapshot, so nothing is raised at REPEATABLE READ either.
 *
 * Two transactions at once: the second sleeps in 3a.  When the first has
 * committed, its record counts whatever its time (the window may have passed
 * while we slept); when it has rolled back there is none.
 *
 * A batch asks in the order of its dedup_ids, so that two batches cannot lock
 * each other out, but has taken the messages' ids in the order of the messages.
 * Equal ids within it meet by the sorting; within the transaction or statement
 * by the record, which is ours.
 *
 * Window '0': remembered while the message exists
 *	  The record is then only what makes others wait for this transaction: it is
 *	  written with the present as its time, and whether the id is remembered is
 *	  asked of the queue's own index on dedup_id, between 3a and 4.  Whoever has
 *	  passed 3a sees all that committed, since the record's transaction is the
 *	  row's.  A row whose ack is not yet committed exists; one that we deleted
 *	  ourselves does not.
 *
 * The records of a dropped queue go with it (mq_dedup_forget), after its table
 * has been dropped: by then nobody can be writing any.
 *
 * Cleaning
 *	  The worker deletes expired records through the index on until, some at a
 *	  time, each batch in a transaction of its own, and waits for no lock.  It is
 *	  told when the next is due by a number per database in shared memory: who
 *	  inserts a record lowers it afterwards; the worker sets it to infinity
 *	  before it looks.  Either the worker's look meets the entry in the index, or
 *	  the lowering comes after it.  It begins where it ended last, so that a
 *	  pinned horizon does not make it walk the dead entries again and again; for
 *	  clocks set back and for restored records it looks at all once an hour.
 *	  Nothing depends on it: an expired record counts as none.
 *-------------------------------------------------------------------------
 */
#include "dedup.h"

#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "clock.h"
#include "common/hashfn.h"
#include "executor/tuptable.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define TRANCHE			"mq dedup"
#define DEDUP_LOCKS		64
#define CLEAN_BATCH		1000
#define CLEAN_PAUSE		(5 * USECS_PER_SEC)
#define CLEAN_HELD		(60 * USECS_PER_SEC)	/* somebody's transaction is open */
#define CLEAN_LAG		(60 * USECS_PER_SEC)
#define CLEAN_ALL		(3600 * USECS_PER_SEC)

/* The columns of both tables. */
enum
{
	DEDUP_QUEUE = 1, DEDUP_ID, DEDUP_MESSAGE, DEDUP_UNTIL, DEDUP_NATTS = DEDUP_UNTIL
};

static const char *const table_names[2] = {"dedup$", "dedup_unlogged$"};
static const char *const until_names[2] = {"dedup$until", "dedup_unlogged$until"};

typedef struct DedupShared
{
	LWLockPadded *locks;
	pg_atomic_uint64 due[MQ_DATABASES]; /* by the database's entry: nothing has
										 * to be cleaned before; wall clock */
} DedupShared;

static DedupShared *shared = NULL;
static shmem_request_hook_type prev_request = NULL;
static shmem_startup_hook_type prev_startup = NULL;

static void
request(void)
{
	if (prev_request)
		prev_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(DedupShared)));
	RequestNamedLWLockTranche(TRANCHE, DEDUP_LOCKS);
}

static void
startup(void)
{
	bool		found;

	if (prev_startup)
		prev_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct(TRANCHE, sizeof(DedupShared), &found);
	if (!found)
	{
		shared->locks = GetNamedLWLockTranche(TRANCHE);
		for (int i = 0; i < MQ_DATABASES; i++)
			pg_atomic_init_u64(&shared->due[i], (uint64) DT_NOEND);
	}
	LWLockRelease(AddinShmemInitLock);
}

/* Installs the hooks; called while the library is preloaded. */
void
mq_dedup_init(void)
{
	prev_request = shmem_request_hook;
	shmem_request_hook = request;
	prev_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/* When this database's worker has to look again; NULL: there is no room to say. */
static pg_atomic_uint64 *
due_here(void)
{
	MqDatabase *d = mq_this_database();

	return d ? &shared->due[d - mq_shared->databases] : NULL;
}

/* True if it was later. */
static bool
lower_due(TimestampTz until)
{
	pg_atomic_uint64 *due = due_here();
	uint64		seen;

	if (due == NULL)
		return false;
	seen = pg_atomic_read_u64(due);
	while ((TimestampTz) seen > until)
		if (pg_atomic_compare_exchange_u64(due, &seen, (uint64) until))
			return true;
	return false;
}

/* ------------------------------------------------------------- remembering */

/* The table of records, open for the enqueues of one queue. */
typedef struct Memory
{
	MqDef	   *def;
	MqReader   *reader;			/* of the queue's table */
	Relation	rel;
	Relation	pkey;
	CatalogIndexState indexes;
	TupleTableSlot *slot;
	Datum		queue;			/* its name */
} Memory;

/* What a look found. */
typedef struct Record
{
	bool		found;
	TransactionId wait;			/* that transaction decides whether there is one */
	ItemPointerData tid;
	TransactionId xmin;
	int64		id;
	TimestampTz until;
} Record;

static void
memory_open(Memory *m, MqDef *def, Relation queue, MqReader *reader)
{
	bool		unlogged = queue->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED;
	Oid			relid = mq_catalog_table(table_names[unlogged], true);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("queue \"%s\" cannot remember a dedup_id", def->name),
				 errhint("ALTER EXTENSION mq UPDATE makes the table for it.")));
	(void) due_here();			/* it may take a lock of mq's, so not later */
	m->def = def;
	m->reader = reader;
	m->rel = table_open(relid, RowExclusiveLock);
	m->pkey = index_open(RelationGetPrimaryKeyIndex(m->rel), RowExclusiveLock);
	m->indexes = CatalogOpenIndexes(m->rel);
	m->slot = table_slot_create(m->rel, NULL);
	m->queue = CStringGetTextDatum(def->name);
}

static void
memory_close(Memory *m)
{
	ExecDropSingleTupleTableSlot(m->slot);
	CatalogCloseIndexes(m->indexes);
	index_close(m->pkey, NoLock);
	table_close(m->rel, NoLock);
}

static LWLock *
lock_of(Memory *m, Datum dedup_id)
{
	text	   *t = (text *) DatumGetPointer(dedup_id);
	uint32		h = hash_bytes((const unsigned char *) VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));

	h = hash_combine(h, murmurhash32(m->def->relid));
	h = hash_combine(h, murmurhash32(MyDatabaseId));
	return &shared->locks[h % DEDUP_LOCKS].lock;
}

static IndexScanDesc
begin_scan(Relation rel, Relation pkey, Snapshot snapshot, Datum queue, Datum *dedup_id)
{
	int			n = dedup_id ? 2 : 1;
	IndexScanDesc scan = mq_compat_index_beginscan(rel, pkey, snapshot, n);
	ScanKeyData keys[2];

	/* ScanKeyInit means the collation of both columns, "C" */
	ScanKeyInit(&keys[0], 1, BTEqualStrategyNumber, F_TEXTEQ, queue);
	if (dedup_id)
		ScanKeyInit(&keys[1], 2, BTEqualStrategyNumber, F_TEXTEQ, *dedup_id);
	index_rescan(scan, keys, n, NULL, 0);
	return scan;
}

/* Step 3: the record as it is this moment. */
static void
look(Memory *m, Datum dedup_id, Record *rec)
{
	SnapshotData dirty;
	IndexScanDesc scan;

	memset(rec, 0, sizeof(*rec));
	InitDirtySnapshot(dirty);
	scan = begin_scan(m->rel, m->pkey, &dirty, m->queue, &dedup_id);
	if (index_getnext_slot(scan, ForwardScanDirection, m->slot))
	{
		bool		isnull;
		bool		should_free;
		HeapTuple	tuple = ExecFetchSlotHeapTuple(m->slot, false, &should_free);

		rec->found = true;
		rec->wait = TransactionIdIsValid(dirty.xmin) ? dirty.xmin : dirty.xmax;
		rec->tid = m->slot->tts_tid;
		rec->xmin = HeapTupleHeaderGetRawXmin(tuple->t_data);
		rec->id = DatumGetInt64(slot_getattr(m->slot, DEDUP_MESSAGE, &isnull));
		rec->until = DatumGetTimestampTz(slot_getattr(m->slot, DEDUP_UNTIL, &isnull));
	}
	ExecClearTuple(m->slot);
	index_endscan(scan);
}

static void
insert_record(Memory *m, Datum dedup_id, int64 id, TimestampTz until)
{
	Datum		v[DEDUP_NATTS];
	bool		null[DEDUP_NATTS] = {false};
	HeapTuple	tuple;

	v[DEDUP_QUEUE - 1] = m->queue;
	v[DEDUP_ID - 1] = dedup_id;
	v[DEDUP_MESSAGE - 1] = Int64GetDatum(id);
	v[DEDUP_UNTIL - 1] = TimestampTzGetDatum(until);
	tuple = heap_form_tuple(RelationGetDescr(m->rel), v, null);
	CatalogTupleInsertWithInfo(m->rel, tuple, m->indexes);
	heap_freetuple(tuple);
	if (lower_due(until))
		mq_worker_poke(mq_time_add(mq_steady_of(until), CLEAN_PAUSE));
}

/*
 * Deletes a record nobody needs any more.  Whatever the result but TM_Ok, the
 * caller looks again.  With wait, waits for who locks it.
 */
static TM_Result
delete_record(Relation rel, ItemPointer tid, bool wait)
{
	TM_FailureData tmfd;

	return heap_delete(rel, tid, GetCurrentCommandId(true), InvalidSnapshot, wait, &tmfd, false);
}

/*
 * Steps 2 to 4.  True if the id is the message's now; false if it is
 * remembered, *first being whose it is.  Waits for transactions that have
 * enqueued with this id and are still open.
 */
static bool
remember(Memory *m, Datum dedup_id, int64 id, int64 *first)
{
	LWLock	   *lock = lock_of(m, dedup_id);
	TransactionId waited = InvalidTransactionId;
	bool		counted = false;
	int			held = 0;

	for (;;)
	{
		Record		rec;
		TimestampTz now;
		TM_Result	result = TM_Ok;

		LWLockAcquire(lock, LW_EXCLUSIVE);
		now = mq_now();
		look(m, dedup_id, &rec);
		if (TransactionIdIsValid(rec.wait))
		{
			LWLockRelease(lock);
			XactLockTableWait(rec.wait, m->rel, &rec.tid, XLTW_InsertIndex);
			CHECK_FOR_INTERRUPTS();
			waited = rec.wait;
			continue;
		}
		if (m->def->dedup_window == 0)
		{
			if (mq_row_by_dedup(m->reader, dedup_id, first))
			{
				LWLockRelease(lock);
				return false;
			}
		}
		else if (rec.found && (rec.until > now || rec.xmin == waited))
		{
			LWLockRelease(lock);
			*first = rec.id;
			return false;
		}
		if (rec.found && !counted && TransactionIdIsCurrentTransactionId(rec.xmin))
		{
			/* ours, expired: perhaps written by this very command */
			LWLockRelease(lock);
			CommandCounterIncrement();
			counted = true;
			continue;
		}
		if (rec.found)
			result = delete_record(m->rel, &rec.tid, false);
		if (result == TM_Ok)
		{
			insert_record(m, dedup_id, id, mq_time_add(now, m->def->dedup_window));
			LWLockRelease(lock);
			return true;
		}
		LWLockRelease(lock);
		CHECK_FOR_INTERRUPTS();
		if (result == TM_BeingModified && held++ > 0)
			(void) delete_record(m->rel, &rec.tid, true);	/* locked by hand */
	}
}

/* A trigger of the owner's kept the message out: the id is nobody's. */
static void
take_back(Memory *m, Datum dedup_id, int64 id)
{
	Record		rec;

	CommandCounterIncrement();
	look(m, dedup_id, &rec);
	if (rec.found && rec.id == id && TransactionIdIsCurrentTransactionId(rec.xmin))
		(void) delete_record(m->rel, &rec.tid, false);
}

typedef struct Asked
{
	text	   *dedup_id;
	int			i;				/* index of the message */
} Asked;

/* By dedup_id, then by the messages' order. */
static int
compare_asked(const void *a, const void *b)
{
	const Asked *x = a;
	const Asked *y = b;
	int			nx = VARSIZE_ANY_EXHDR(x->dedup_id);
	int			ny = VARSIZE_ANY_EXHDR(y->dedup_id);
	int			c = memcmp(VARDATA_ANY(x->dedup_id), VARDATA_ANY(y->dedup_id), Min(nx, ny));

	if (c == 0)
		c = nx - ny;
	return c != 0 ? c : x->i - y->i;
}

/*
 * Inserts n messages, some of them with a dedup_id.  rel is the queue's table,
 * locked with RowExclusiveLock.  ids[i] becomes the message's id, or that of
 * the first with its dedup_id; inserted[i] says whether it has one (a trigger
 * of the owner's may keep a row out).  Calls reserve for those that are new,
 * and for no others, before it inserts them.  Waits for open transactions that have
 * enqueued with one of the ids; raises 40P01 if they wait for us.
 */
void
mq_dedup_insert(MqDef *def, Relation rel, MqValues *values, int n,
				int64 *ids, bool *inserted, MqDedupReserve reserve)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "mq dedup",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Asked	   *asked = MemoryContextAllocHuge(context, sizeof(Asked) * (Size) Max(n, 1));
	MqValues   *fresh = MemoryContextAllocHuge(context, sizeof(MqValues) * (Size) Max(n, 1));
	int		   *owner = palloc(sizeof(int) * n);	/* whose insert decides; -1: remembered */
	int		   *place = palloc(sizeof(int) * n);	/* in fresh */
	int64	   *fresh_ids = palloc(sizeof(int64) * n);
	bool	   *fresh_in = palloc(sizeof(bool) * n);
	int			nasked = 0;
	int			nfresh = 0;
	MqReader	reader;
	Memory		m;

	for (int i = 0; i < n; i++)
	{
		mq_row_choose_id(def, &values[i]);
		owner[i] = i;
		if (values[i].null[MQ_COL_DEDUP_ID])
			continue;
		asked[nasked].dedup_id = DatumGetTextPP(values[i].v[MQ_COL_DEDUP_ID]);
		asked[nasked++].i = i;
	}
	qsort(asked, nasked, sizeof(Asked), compare_asked);

	mq_reader_init(&reader, def, rel);
	memory_open(&m, def, rel, &reader);
	for (int k = 0; k < nasked; k++)
	{
		int			i = asked[k].i;
		Asked	   *before = k > 0 ? &asked[k - 1] : NULL;

		if (before &&
			VARSIZE_ANY_EXHDR(before->dedup_id) == VARSIZE_ANY_EXHDR(asked[k].dedup_id) &&
			memcmp(VARDATA_ANY(before->dedup_id), VARDATA_ANY(asked[k].dedup_id),
				   VARSIZE_ANY_EXHDR(asked[k].dedup_id)) == 0)
		{
			owner[i] = owner[before->i];
			ids[i] = ids[before->i];
		}
		else if (!remember(&m, PointerGetDatum(asked[k].dedup_id),
						   DatumGetInt64(values[i].v[MQ_COL_ID]), &ids[i]))
			owner[i] = -1;
	}
	mq_reader_done(&reader);

	for (int i = 0; i < n; i++)
		if (owner[i] == i)
		{
			place[i] = nfresh;
			fresh[nfresh++] = values[i];
		}
	if (nfresh > 0)
	{
		reserve(def, rel, nfresh);
		mq_rows_insert(def, rel, fresh, nfresh, fresh_ids, fresh_in);
	}
	for (int i = 0; i < n; i++)
	{
		inserted[i] = owner[i] < 0 || fresh_in[place[owner[i]]];
		if (owner[i] >= 0)
			ids[i] = fresh_ids[place[owner[i]]];
		if (owner[i] == i && !inserted[i] && !values[i].null[MQ_COL_DEDUP_ID])
			take_back(&m, values[i].v[MQ_COL_DEDUP_ID], DatumGetInt64(values[i].v[MQ_COL_ID]));
	}
	memory_close(&m);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/*
 * Forgets all ids of a queue.  Its table is gone or locked exclusively by the
 * caller, so nobody is enqueueing.  Waits for who deletes some of them.
 */
void
mq_dedup_forget(const char *queue)
{
	CommandCounterIncrement();
	for (int t = 0; t < 2; t++)
	{
		Oid			relid = mq_catalog_table(table_names[t], true);
		Relation	rel;
		Relation	pkey;
		TupleTableSlot *slot;
		SnapshotData dirty;
		IndexScanDesc scan;

		if (!OidIsValid(relid))
			continue;
		rel = table_open(relid, RowExclusiveLock);
		pkey = index_open(RelationGetPrimaryKeyIndex(rel), RowExclusiveLock);
		slot = table_slot_create(rel, NULL);
		InitDirtySnapshot(dirty);
		scan = begin_scan(rel, pkey, &dirty, CStringGetTextDatum(queue), NULL);
		while (index_getnext_slot(scan, ForwardScanDirection, slot))
		{
			ItemPointerData tid = slot->tts_tid;

			CHECK_FOR_INTERRUPTS();
			ExecClearTuple(slot);
			(void) delete_record(rel, &tid, true);
		}
		index_endscan(scan);
		ExecDropSingleTupleTableSlot(slot);
		index_close(pkey, NoLock);
		table_close(rel, NoLock);
	}
}

/* ---------------------------------------------------------------- cleaning */

/* Where cleaning a table goes on. */
typedef struct Sweep
{
	TimestampTz from;			/* nothing expired stands before */
	TimestampTz next;			/* when there will be something */
	bool		more;			/* it stopped because it had done enough */
} Sweep;

/* One batch of one table, inside a transaction. */
static void
clean_table(int t, Sweep *s)
{
	Oid			relid = mq_catalog_table(table_names[t], true);
	Oid			indexid = OidIsValid(relid) ? get_relname_relid(until_names[t], mq_schema_oid(false)) : InvalidOid;
	TimestampTz now = mq_now();
	TimestampTz from = Max(s->from, now - CLEAN_LAG);	/* after this batch */
	Relation	rel;
	Relation	index;
	TupleTableSlot *slot;
	SnapshotData dirty;
	IndexScanDesc scan;
	ScanKeyData key;
	int			n = 0;

	s->next = DT_NOEND;
	s->more = false;
	if (!OidIsValid(indexid))
		return;
	/* never wait, nor be waited for by who takes a lock on the table first */
	if (!ConditionalLockRelationOid(relid, RowExclusiveLock))
	{
		s->next = mq_time_add(now, CLEAN_PAUSE);
		return;
	}
	if (!ConditionalLockRelationOid(indexid, AccessShareLock))
	{
		UnlockRelationOid(relid, RowExclusiveLock);
		s->next = mq_time_add(now, CLEAN_PAUSE);
		return;
	}
	rel = try_relation_open(relid, NoLock);
	if (rel == NULL)
		return;
	index = try_relation_open(indexid, NoLock);
	if (index == NULL)
	{
		relation_close(rel, NoLock);
		return;
	}
	slot = table_slot_create(rel, NULL);
	InitDirtySnapshot(dirty);
	scan = mq_compat_index_beginscan(rel, index, &dirty, 1);
	ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE, TimestampTzGetDatum(s->from));
	index_rescan(scan, &key, 1, NULL, 0);
	while (index_getnext_slot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		TimestampTz until = DatumGetTimestampTz(slot_getattr(slot, DEDUP_UNTIL, &isnull));
		ItemPointerData tid = slot->tts_tid;
		bool		held = TransactionIdIsValid(dirty.xmin) || TransactionIdIsValid(dirty.xmax);

		CHECK_FOR_INTERRUPTS();
		ExecClearTuple(slot);
		if (until > now)
		{
			s->next = Min(s->next, until);
			break;
		}
		if (n == CLEAN_BATCH)
		{
			s->more = true;
			from = Min(from, until);
			break;
		}
		if (!held && delete_record(rel, &tid, false) == TM_Ok)
			n++;
		else
		{
			/* somebody's transaction decides on it */
			s->next = Min(s->next, mq_time_add(now, CLEAN_HELD));
			from = Min(from, until);
		}
	}
	s->from = from;
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	relation_close(index, NoLock);
	relation_close(rel, NoLock);
}

/*
 * Deletes expired records, if some are due; by the worker.  Returns when (by
 * the steady clock) to call again.  Runs its own transaction if it needs one;
 * waits for no lock.
 */
TimestampTz
mq_dedup_clean(void)
{
	static TimestampTz cleaned = DT_NOBEGIN;	/* steady */
	static TimestampTz all = DT_NOBEGIN;	/* steady: when it began at the start */
	static Sweep sweeps[2] = {{DT_NOBEGIN, DT_NOEND, false}, {DT_NOBEGIN, DT_NOEND, false}};
	pg_atomic_uint64 *due = due_here();
	TimestampTz steady = mq_steady();
	TimestampTz now = mq_now();
	bool		whole = all == DT_NOBEGIN || steady - all >= CLEAN_ALL;
	bool		more = false;
	TimestampTz next;

	if (due == NULL)
		return DT_NOEND;
	if (!whole)
	{
		next = (TimestampTz) pg_atomic_read_u64(due);
		if (next > now)
		{
			next = mq_steady_of(next);
			return Min(next, mq_time_add(all, CLEAN_ALL));
		}
		if (steady - cleaned < CLEAN_PAUSE && !(sweeps[0].more || sweeps[1].more))
			return mq_time_add(cleaned, CLEAN_PAUSE);
	}
	else
	{
		all = steady;
		sweeps[0].from = sweeps[1].from = DT_NOBEGIN;
	}

	/* who inserts a record from now on says so */
	pg_atomic_exchange_u64(due, (uint64) DT_NOEND);
	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		for (int t = 0; t < 2; t++)
		{
			clean_table(t, &sweeps[t]);
			more |= sweeps[t].more;
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		sweeps[0].from = sweeps[1].from = DT_NOBEGIN;
		(void) lower_due(mq_time_add(now, CLEAN_PAUSE));
		PG_RE_THROW();
	}
	PG_END_TRY();
	cleaned = steady;
	if (more)
	{
		(void) lower_due(now);
		return DT_NOBEGIN;
	}
	(void) lower_due(Min(sweeps[0].next, sweeps[1].next));
	next = mq_steady_of((TimestampTz) pg_atomic_read_u64(due));
	next = Max(next, mq_time_add(steady, CLEAN_PAUSE));
	return Min(next, mq_time_add(all, CLEAN_ALL));
}
