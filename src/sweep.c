/*-------------------------------------------------------------------------
 * sweep.c
 *		Expired messages: from their queue to the dead letters.
 *
 * How they are found, and why none is missed or delivered as well, is told in
 * expiry.c.  Here is the work, a batch a transaction:
 *	  1. noted rows whose time has come, then rows from the index;
 *	  2. those that are leased are left to their leases;
 *	  3. the others are deleted and inserted into the dead-letter queue with one
 *		 multi-insert;
 *	  4. the position moves, and rows that somebody held are noted.
 * The rows of one look at the index (a sweep) last for several batches, which
 * go on only while nobody else has moved the position.
 *
 * Each batch is a subtransaction.  If it fails, its rows are done one by one,
 * and one that fails again is put off, so that it does not keep the others; if
 * the first few all fail, the queue is put off.
 */
#include "sweep.h"

#include "access/detoast.h"
#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "clock.h"
#include "expiry.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "try.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#define FOUND_MAX		8192	/* rows of one look at the index, */
#define EXAMINED_MAX	200000	/* ... and entries, by the worker */
#define BATCH			1024
#define BURY			100		/* without a worker, by whoever dequeues */
#define BURY_EXAMINED	1000
#define BATCH_BYTES		(16 * 1024 * 1024)
#define PAUSE			(100 * INT64CONST(1000))
#define HELD_PAUSE		USECS_PER_SEC
#define FAILED_PAUSE	(10 * USECS_PER_SEC)
#define FAILURES_MAX	3
#define ATTACH_PAUSE	(60 * USECS_PER_SEC)

struct MqSweep
{
	bool		scanned;		/* found is what a look at the index gave */
	bool		exhausted;		/* ... and there was no more */
	uint32		resets;
	MqExpiryPos where;			/* the queue's position after the last batch */
	MqExpiryPos last;			/* behind all of found */
	TimestampTz next;
	int64		max_examined;
	bool		complained;
	bool		more;			/* another batch would find some now */
	TimestampTz event;			/* else there may be some then; steady */
	int			max;
	int			n;
	int			at;				/* the next of found to do */
	MqExpiring	found[FLEXIBLE_ARRAY_MEMBER];
};

typedef enum ItemState
{
	ITEM_TODO,
	ITEM_DONE,					/* taken, gone, or somebody else's */
	ITEM_HELD,
	ITEM_FAILED
} ItemState;

typedef struct Candidate
{
	MqExpiring	row;
	bool		noted;
	ItemState	state;
	int			gone;			/* index + 1 of the transaction's record */
} Candidate;

static MqSweep *
make_sweep(int max, int64 max_examined)
{
	MqSweep    *s = palloc0(offsetof(MqSweep, found) + sizeof(MqExpiring) * max);

	s->max = max;
	s->max_examined = max_examined;
	s->event = DT_NOEND;
	return s;
}

/* The worker's, in the current memory context. */
MqSweep *
mq_sweep_new(void)
{
	return make_sweep(FOUND_MAX, EXAMINED_MAX);
}

static bool
same_place(MqExpiryPos a, MqExpiryPos b)
{
	return a.t == b.t && ItemPointerEquals(&a.tid, &b.tid);
}

/* Step 1.  Takes the right; returns how many items there are, -1 without it. */
static int
gather(MqSweep *s, MqDef *def, MqReader *r, int max, TimestampTz upto, Candidate *items)
{
	TimestampTz steady = mq_steady();
	MqQueue    *q = mq_queue_try_attach(def, r->rel);
	bool		scan = false;
	int			n = 0;

	s->more = false;
	if (q == NULL)
		return -1;
	if (!mq_expiry_start(q, upto))
	{
		mq_unlock(q->partition);
		s->event = mq_time_add(steady, PAUSE);
		return -1;
	}
	/* the clock was set back: what the position has passed is not all expired */
	if (q->expiry.t > upto)
		mq_expiry_set_back(q, upto);
	for (int i = 0; i < q->nexpired && n < max; i++)
	{
		MqExpired  *e = &q->expired[i];

		if (e->after > steady)
			continue;
		items[n].row.pos.t = e->at;
		items[n].row.id = e->id;
		items[n].row.tid = e->tid;
		items[n++].noted = true;
	}
	if (!s->scanned || s->at == s->n || s->resets != q->expiry_resets ||
		!same_place(s->where, q->expiry))
	{
		scan = q->next_expiry <= upto;
		if (scan)
			q->expiry_low = DT_NOEND;
		s->resets = q->expiry_resets;
		s->where = q->expiry;
		s->scanned = scan;
		s->n = s->at = 0;
	}
	mq_unlock(q->partition);

	if (scan)
		s->n = mq_storage_expiring(r, s->where, upto, s->found, s->max, s->max_examined,
								   &s->last, &s->exhausted, &s->next);
	for (int i = s->at; i < s->n && n < max; i++)
	{
		items[n].row = s->found[i];
		items[n++].noted = false;
	}
	return n;
}

/* Step 2. */
static void
leave_leased(MqDef *def, Candidate *items, int n)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);

	for (int i = 0; i < n;)
	{
		MqQueue    *q;

		mq_lock(partition);
		q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
		for (int k = 0; q && k < 128 && i < n; k++, i++)
		{
			MqLease    *l = mq_lease_find(q, items[i].row.id);

			items[i].state = l ? ITEM_DONE : ITEM_TODO;
			if (l)
				mq_lease_expired(l, items[i].row.pos.t);
		}
		mq_unlock(partition);
		if (q == NULL)
			break;
	}
}

static Size
column_size(const MqValues *values, MqColumn c)
{
	return values->null[c] ? 0 : toast_raw_datum_size(values->v[c]);
}

/* Step 3.  Returns how many of the items were done before the batch was full. */
static int
move(MqDef *def, MqReader *r, Candidate *items, int n, TimestampTz upto)
{
	MqTouch    *t = mq_xact_touch(def->relid);
	MqValues   *values = palloc(sizeof(MqValues) * Max(n, 1));
	Size		bytes = 0;
	int			ntaken = 0;
	int			i;

	t->hint = def->hint;
	for (i = 0; i < n && bytes < BATCH_BYTES; i++)
	{
		Candidate	   *item = &items[i];
		MqRow		row;

		if (item->state != ITEM_TODO)
			continue;
		CHECK_FOR_INTERRUPTS();
		mq_array_reserve(t->gone, 1);
		switch (mq_row_take_expired(r, item->row.id, &item->row.tid, upto, &row,
									&values[ntaken]))
		{
			case MQ_TAKEN_NOT:
				item->state = ITEM_DONE;
				break;
			case MQ_TAKEN_HELD:
				item->state = ITEM_HELD;
				break;
			case MQ_TAKEN:
				mq_xact_note_gone(t, &row.place, true);
				if (def->ordered)
					mq_xact_gone_key(t, mq_tuple_key_hash(def, RelationGetDescr(r->rel), row.tuple));
				item->gone = t->gone.n;
				bytes += column_size(&values[ntaken], MQ_COL_BODY) +
					column_size(&values[ntaken], MQ_COL_DATA) +
					column_size(&values[ntaken], MQ_COL_HEADERS);
				item->state = ITEM_DONE;
				ntaken++;
				break;
		}
	}
	mq_reader_done(r);
	mq_dead_letters(def, values, ntaken, "expired");
	return i;
}

/* Step 4.  Gives up the right. */
static void
advance(MqSweep *s, MqDef *def, MqReader *r, const Candidate *items, int n)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	TimestampTz steady = mq_steady();
	bool		cut = false;
	MqExpiryPos limit = {DT_NOEND, {{0, 0}, 0}};
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q == NULL)
	{
		mq_unlock(partition);
		mq_expiry_abandon(InvalidSubTransactionId);
		return;
	}
	q->n.rows_examined += r->examined;
	if (s->resets == q->expiry_resets)
	{
		for (int i = 0; i < n; i++)
		{
			const Candidate *item = &items[i];

			if (!item->noted)
				s->at++;
			if (item->state == ITEM_DONE)
			{
				if (item->noted)
					mq_expiry_forget(q, item->row.id);
			}
			else if (!mq_expiry_note(q, item->row.id, (ItemPointer) &item->row.tid,
									 item->row.pos.t,
									 mq_time_add(steady, item->state == ITEM_HELD ?
												 HELD_PAUSE : FAILED_PAUSE)) &&
					 !cut)
			{
				cut = true;		/* no room: it is met again */
				limit.t = item->row.pos.t;
			}
		}
		q->expiry_after = DT_NOBEGIN;
		if (s->scanned)
		{
			bool		all = s->at == s->n;
			MqExpiryPos pos = all ? s->last : s->found[s->at - 1].pos;

			if (s->at == 0 && !all)
				pos = s->where; /* noted ones filled the batch */
			if (q->expiry_low <= pos.t && q->expiry_low < limit.t)
				limit.t = q->expiry_low;
			if (limit.t <= pos.t)
				pos = limit;
			q->expiry = s->where = pos;
			if (limit.t != DT_NOEND)
				s->scanned = false;
			if (all && s->exhausted && s->scanned)
			{
				q->next_expiry = Min(s->next, q->expiry_low);
				q->expiry_after = mq_time_add(steady, PAUSE);
			}
			else
				q->next_expiry = DT_NOBEGIN;
		}
		if (cut)
			q->expiry_after = mq_time_add(steady, HELD_PAUSE);
	}
	s->event = mq_expiry_event(q);
	s->more = s->event <= steady;
	mq_expiry_finish(q);
	mq_unlock(partition);
}

/* One batch; with refuse its rows are put off.  Returns how many it dealt with. */
static int
sweep_some(MqSweep *s, MqDef *def, Relation rel, int max, bool refuse)
{
	TimestampTz upto = mq_now();
	Candidate	   *items = palloc0(sizeof(Candidate) * max);
	MqReader	r;
	int			n;

	mq_reader_init(&r, def, rel);
	n = gather(s, def, &r, max, upto, items);
	if (n < 0)
		return 0;
	leave_leased(def, items, n);
	if (!refuse)
		n = move(def, &r, items, n, upto);
	else
		for (int i = 0; i < n; i++)
			if (items[i].state == ITEM_TODO)
				items[i].state = ITEM_FAILED;
	mq_reader_done(&r);
	advance(s, def, &r, items, n);

	/* the position has passed them: from here on an abort has to say so */
	for (int i = 0; i < n; i++)
		if (items[i].gone > 0)
			mq_xact_touch(def->relid)->gone.a[items[i].gone - 1].expires_at = items[i].row.pos.t;
	pfree(items);
	return n;
}

typedef struct Step
{
	MqSweep    *sweep;
	MqDef	   *def;
	Relation	rel;
	int			max;
	bool		refuse;
	int			n;
} Step;

static void
sweep_step(void *arg)
{
	Step	   *s = arg;

	s->n = sweep_some(s->sweep, s->def, s->rel, s->max, s->refuse);
}

/* The same in a subtransaction; -1 if it failed, *fatal if for all to come. */
static int
try_some(MqSweep *s, MqDef *def, Relation rel, int max, bool refuse, bool *fatal)
{
	Step		step = {s, def, rel, max, refuse, 0};
	ErrorData  *error;
	MqTry		result = mq_try(sweep_step, &step, &error);

	if (result == MQ_TRY_DONE)
		return step.n;
	*fatal = result == MQ_TRY_FAILED_ALL;
	if ((max == 1 || *fatal) && !s->complained)
		ereport(LOG,
				(errmsg("queue \"%s\": could not move expired messages to the dead letters: %s",
						def->name, error->message)));
	s->complained |= max == 1 || *fatal;
	FreeErrorData(error);
	s->scanned = false;
	return -1;
}

/* None of them can be moved for a while. */
static void
put_off(MqSweep *s, Oid relid)
{
	int			partition = mq_partition_of(MyDatabaseId, relid);
	MqQueue    *q;

	s->more = false;
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, relid, NULL);
	if (q)
	{
		q->expiry_after = mq_time_add(mq_steady(), FAILED_PAUSE);
		s->event = mq_expiry_event(q);
	}
	mq_unlock(partition);
}

/* A batch, or if that fails its rows one by one. */
static int
sweep(MqSweep *s, MqDef *def, Relation rel, int max)
{
	bool		fatal = false;
	int			n = try_some(s, def, rel, max, false, &fatal);
	int			done = 0;
	int			failures = 0;

	if (n >= 0)
		return n;
	s->more = true;
	for (int i = 0; i < max && !fatal && s->more; i++)
	{
		n = try_some(s, def, rel, 1, false, &fatal);
		if (n >= 0)
		{
			done += n;
			continue;
		}
		s->more = true;
		if (fatal || (done == 0 && ++failures >= FAILURES_MAX))
		{
			put_off(s, def->relid);
			break;
		}
		else if (try_some(s, def, rel, 1, true, &fatal) < 0)
			fatal = true;
	}
	if (fatal)
		put_off(s, def->relid);
	return done;
}

/*
 * Moves a batch of a queue's expired messages to the dead letters.  rel is
 * locked with RowExclusiveLock.  Returns whether there are more, else *next is
 * lowered to when there may be (steady).  Waits for nobody, raises no error for
 * what a message or the dead-letter queue cause.
 */
bool
mq_sweep_batch(MqSweep *s, MqDef *def, Relation rel, TimestampTz *next)
{
	(void) sweep(s, def, rel, BATCH);
	if (!s->more)
		*next = Min(*next, s->event);
	return s->more;
}

/*
 * Without a worker: a bounded number, in the transaction of whoever dequeues.
 * Returns how many rows it dealt with.
 */
int
mq_sweep_bury(MqDef *def)
{
	MqSweep    *s;
	Relation	rel;
	MqDef	   *again;
	int			n;

	if (!ConditionalLockRelationOid(def->relid, RowExclusiveLock))
		return 0;
	rel = mq_queue_try_open(def->name, NoLock, &again);
	if (rel == NULL)
		return 0;
	s = make_sweep(BURY, BURY_EXAMINED);
	n = sweep(s, again, rel, BURY);
	pfree(s);
	relation_close(rel, NoLock);
	return n;
}

/* ------------------------------------------- queues nobody has touched yet */

static TimestampTz attached = DT_NOBEGIN;

/* Whether it is time for mq_sweep_attach. */
bool
mq_sweep_attach_due(void)
{
	return attached == DT_NOBEGIN || mq_steady() - attached >= ATTACH_PAUSE;
}

/* Whether the queue has state in memory. */
static bool
has_slot(Oid relid)
{
	int			partition = mq_partition_of(MyDatabaseId, relid);
	bool		found;

	mq_lock(partition);
	found = mq_queue_find(MyDatabaseId, relid, NULL) != NULL;
	mq_unlock(partition);
	return found;
}

/* One queue by its table; skipped if somebody has locked that. */
static void
attach_one(Oid relid)
{
	MqDef	   *def;
	Relation	rel;

	if (has_slot(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	def = mq_def_by_relid(relid);
	rel = def && def->refused == NULL ? try_relation_open(relid, NoLock) : NULL;
	if (rel && OidIsValid(def->index[MQ_INDEX_EXPIRY]))
	{
		Relation	index = index_open(def->index[MQ_INDEX_EXPIRY], AccessShareLock);

		/* one that has never had an entry is its metapage only */
		if (RelationGetNumberOfBlocks(index) > 1)
		{
			MqQueue    *q = mq_queue_try_attach(def, rel);

			if (q)
				mq_unlock(q->partition);
		}
		index_close(index, AccessShareLock);
	}
	if (rel)
		relation_close(rel, NoLock);
}

/*
 * The worker looks after the queues that have state in memory: gives it to
 * those that have, or had, messages that expire (after a restart, or when their
 * slot went to another queue).  To be called outside a transaction.
 */
void
mq_sweep_attach(void)
{
	Oid			catalog;
	List	   *relids = NIL;
	ListCell   *lc;

	attached = mq_steady();
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	catalog = mq_catalog_table("queue$", true);
	if (OidIsValid(catalog))
	{
		Relation	rel = table_open(catalog, AccessShareLock);
		SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
		AttrNumber	name = get_attnum(catalog, "name");
		HeapTuple	tup;

		while (HeapTupleIsValid(tup = systable_getnext(scan)))
		{
			bool		isnull;
			Datum		d = heap_getattr(tup, name, RelationGetDescr(rel), &isnull);
			Oid			relid = isnull ? InvalidOid :
				get_relname_relid(psprintf(MQ_TABLE_PREFIX "%s", TextDatumGetCString(d)),
								  mq_schema_oid(false));

			if (OidIsValid(relid))
				relids = lappend_oid(relids, relid);
		}
		systable_endscan(scan);
		table_close(rel, AccessShareLock);
	}
	foreach(lc, relids)
		attach_one(lfirst_oid(lc));
	CommitTransactionCommand();
}
