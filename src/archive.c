/*-------------------------------------------------------------------------
 * archive.c
 *		Acknowledged messages: into the archive, and its partitions.
 *
 * A queue with option retain has a table mq.a_<queue>, partitioned by range of
 * acked_at, that belongs to the queue's owner: the message's columns, acked_at
 * and consumer.  An ack inserts the row it deletes, in its own transaction.
 *
 * Inserting
 *	  Old partitions are dropped whole, which takes the strongest lock on the
 *	  partitioned table itself; with consumers whose transactions overlap, a
 *	  lock that each of them held on it until its end would keep that away for
 *	  ever.  So an ack locks only the partition it writes:
 *	  1. Which partition holds the present is known from a copy of the bounds,
 *		 one per archive and backend, read under a lock that is given back at
 *		 once, and invalidated by any change of the partitioned table.
 *	  2. The partition is locked as by any INSERT.  By then the invalidation of
 *		 whoever dropped or detached it has arrived: the copy is read anew.
 *	  3. The row and its index entries are written directly.
 *	  That is for archives on which nothing of the owner's hangs.  With triggers,
 *	  CHECKs, further columns, row-level security or sub-partitions the
 *	  executor inserts as the owner, and locks what it locks.
 *	  A default partition takes what no other does, so that no ack fails because
 *	  the worker was away.  Who drops the archive has none until the worker makes
 *	  it again; acks go on.
 *
 * Upkeep, by the worker, once a minute in databases that have such queues
 *	  mq.archive_plan$ says what is to be done: partitions to make ahead, old
 *	  ones to drop, a default partition to replace once all it holds is old.
 *	  Each step is a transaction of its own that waits no longer than a
 *	  millisecond for a lock, else it is tried again later.  An empty partition
 *	  is made by the worker as a copy of the archive's columns and given to the
 *	  owner; his CHECKs are added, it is attached, and others are dropped as the
 *	  owner, restricted, since that may run what he hung on the archive.
 *	  New partitions are attached, not made in place, since that lets readers
 *	  and writers of the archive go on.
 *-------------------------------------------------------------------------
 */
#include "archive.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "clock.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "nodes/value.h"
#include "parser/parse_func.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

#define UPKEEP_PAUSE	(60 * USECS_PER_SEC)
#define UPKEEP_RETRY	(3 * USECS_PER_SEC)
#define STEP_TIMEOUT_MS	5000

enum
{
	COL_ACKED_AT = MQ_NCOLS, COL_CONSUMER, ARCHIVE_NCOLS
};

static const char *const extra_columns[2] = {"acked_at", "consumer"};
static const Oid extra_types[2] = {TIMESTAMPTZOID, TEXTOID};

static const char *
column_name(int c)
{
	return c < MQ_NCOLS ? mq_column_names[c] : extra_columns[c - MQ_NCOLS];
}

static Oid
column_type(int c)
{
	return c < MQ_NCOLS ? mq_column_types[c] : extra_types[c - MQ_NCOLS];
}

/* -------------------------------------------------- which partition is it */

/*
 * The bounds of an archive: leaf[i] holds times below upper[i] and not below
 * upper[i - 1].
 */
typedef struct Bounds
{
	Oid			relid;			/* hash key */
	bool		valid;
	bool		plain;			/* nothing of the owner's on the archive itself */
	MemoryContext context;
	int			n;
	TimestampTz *upper;			/* n of them, ascending */
	Oid		   *leaf;			/* n + 1; InvalidOid: a gap */
	Oid			other;			/* the default partition, if there is one */
} Bounds;

static HTAB *all_bounds = NULL;

static void
relcache_callback(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	Bounds	   *b;

	if (OidIsValid(relid))
	{
		if ((b = hash_search(all_bounds, &relid, HASH_FIND, NULL)) != NULL)
			b->valid = false;
		return;
	}
	hash_seq_init(&seq, all_bounds);
	while ((b = hash_seq_search(&seq)) != NULL)
		b->valid = false;
}

/* Reads the bounds; false if this is no archive (any more). */
static bool
load_bounds(Bounds *b, Relation rel)
{
	PartitionKey key;
	PartitionDesc desc;
	PartitionBoundInfo info;

	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return false;
	key = RelationGetPartitionKey(rel);
	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->parttypid[0] != TIMESTAMPTZOID)
		return false;
	b->plain = rel->trigdesc == NULL && rel->rd_rules == NULL && !rel->rd_rel->relrowsecurity &&
		key->partattrs[0] == get_attnum(RelationGetRelid(rel), "acked_at");
	desc = RelationGetPartitionDesc(rel, true);
	info = desc->nparts > 0 ? desc->boundinfo : NULL;
	b->n = info ? info->ndatums : 0;
	b->upper = MemoryContextAlloc(b->context, sizeof(TimestampTz) * (b->n + 1));
	b->leaf = MemoryContextAlloc(b->context, sizeof(Oid) * (b->n + 1));
	b->leaf[b->n] = InvalidOid;
	b->other = info && info->default_index >= 0 ? desc->oids[info->default_index] : InvalidOid;
	for (int i = 0; i < b->n; i++)
	{
		PartitionRangeDatumKind kind = info->kind[i][0];

		b->upper[i] = kind == PARTITION_RANGE_DATUM_MINVALUE ? DT_NOBEGIN :
			kind == PARTITION_RANGE_DATUM_MAXVALUE ? DT_NOEND :
			DatumGetTimestampTz(info->datums[i][0]);
	}
	for (int i = 0; info && i <= b->n; i++)
		b->leaf[i] = info->indexes[i] >= 0 ? desc->oids[info->indexes[i]] : InvalidOid;
	return true;
}

/* The bounds of an archive, or NULL. */
static Bounds *
bounds_of(Oid relid)
{
	Bounds	   *b;
	Relation	rel;
	bool		found;
	bool		ok;

	if (all_bounds == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(Bounds);
		ctl.hcxt = TopMemoryContext;
		all_bounds = hash_create("mq archives", 16, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	}
	b = hash_search(all_bounds, &relid, HASH_ENTER, &found);
	if (!found)
	{
		b->valid = false;
		b->context = NULL;
	}
	if (b->valid)
		return b;
	if (b->context == NULL)
		b->context = AllocSetContextCreate(TopMemoryContext, "mq archive", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(b->context);
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		return NULL;
	b->valid = true;			/* what invalidates it while it loads shall be seen */
	PG_TRY();
	{
		ok = load_bounds(b, rel);
	}
	PG_CATCH();
	{
		b->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!ok)
		b->valid = false;
	relation_close(rel, AccessShareLock);	/* not to the end: see above */
	return ok ? b : NULL;
}

static Oid
leaf_for(const Bounds *b, TimestampTz t)
{
	int			lo = 0;
	int			hi = b->n;

	while (lo < hi)
	{
		int			mid = (lo + hi) / 2;

		if (t < b->upper[mid])
			hi = mid;
		else
			lo = mid + 1;
	}
	return OidIsValid(b->leaf[lo]) ? b->leaf[lo] : b->other;
}

/* Whether rows may be written directly; fills in where the columns stand. */
static bool
leaf_is_plain(Relation leaf, AttrNumber *att)
{
	TupleDesc	desc = RelationGetDescr(leaf);
	List	   *indexes;
	ListCell   *lc;
	int			n = 0;
	bool		plain = true;

	if (leaf->rd_rel->relkind != RELKIND_RELATION || leaf->rd_rel->relam != HEAP_TABLE_AM_OID ||
		leaf->rd_rel->relrowsecurity || leaf->rd_rules != NULL || leaf->trigdesc != NULL ||
		(desc->constr && (desc->constr->num_check > 0 || desc->constr->has_generated_stored)))
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(desc, i);

		if (a->attisdropped)
			continue;
		for (int c = 0; c < ARCHIVE_NCOLS; c++)
			if (strcmp(NameStr(a->attname), column_name(c)) == 0)
			{
				if (a->atttypid != column_type(c) ||
					(a->attnotnull && c > MQ_COL_PRIORITY && c != COL_ACKED_AT))
					return false;
				att[c] = a->attnum;
				n++;
				break;
			}
			else if (c == ARCHIVE_NCOLS - 1)
				return false;
	}
	if (n != ARCHIVE_NCOLS)
		return false;
	indexes = RelationGetIndexList(leaf);
	foreach(lc, indexes)
	{
		Relation	index = index_open(lfirst_oid(lc), AccessShareLock);

		if (!index->rd_index->indisready || !index->rd_index->indimmediate ||
			index->rd_index->indisexclusion ||
			!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) ||
			!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
			plain = false;
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return plain;
}

/* ---------------------------------------------------------------- writing */

/*
 * Opens the archive of a queue that has option retain, for rows acknowledged
 * now.  Locks the partition that takes them with RowExclusiveLock, if it may
 * be written directly.
 */
void
mq_archive_open(MqArchive *a, MqDef *def)
{
	char		name[NAMEDATALEN * 2];

	a->def = def;
	a->leaf = NULL;
	a->acked_at = mq_now();
	snprintf(name, sizeof(name), MQ_ARCHIVE_PREFIX "%s", def->name);
	a->relid = get_relname_relid(name, mq_schema_oid(false));
	while (OidIsValid(a->relid))
	{
		Bounds	   *b = bounds_of(a->relid);
		Oid			leaf;

		CHECK_FOR_INTERRUPTS();
		if (b == NULL)
			a->relid = InvalidOid;	/* dropped by its owner */
		else if (!b->plain)
			return;
		else if (!OidIsValid(leaf = leaf_for(b, a->acked_at)))
		{
			ereport(WARNING,
					(errmsg("queue \"%s\" cannot archive what is acknowledged: no partition takes it",
							def->name)));
			a->relid = InvalidOid;
		}
		else
		{
			a->leaf = try_relation_open(leaf, RowExclusiveLock);
			if (a->leaf == NULL)
				b->valid = false;
			else if (!b->valid)
			{
				relation_close(a->leaf, RowExclusiveLock);
				a->leaf = NULL;
			}
			else
			{
				if (leaf_is_plain(a->leaf, a->att))
					a->indexes = CatalogOpenIndexes(a->leaf);
				else
				{
					relation_close(a->leaf, RowExclusiveLock);
					a->leaf = NULL;
				}
				return;
			}
		}
	}
}

void
mq_archive_close(MqArchive *a)
{
	if (a->leaf == NULL)
		return;
	CatalogCloseIndexes(a->indexes);
	relation_close(a->leaf, NoLock);
	a->leaf = NULL;
}

/* The executor's way: as the archive's owner, with all that hangs on it. */
static void
insert_by_executor(MqArchive *a, Datum *v, bool *null)
{
	char	   *table = psprintf(MQ_ARCHIVE_PREFIX "%s", a->def->name);
	HeapTuple	class = SearchSysCache1(RELOID, ObjectIdGetDatum(a->relid));
	StringInfoData sql;
	Oid			types[ARCHIVE_NCOLS];
	char		nulls[ARCHIVE_NCOLS];
	Oid			owner;

	if (!HeapTupleIsValid(class))
		return;
	owner = ((Form_pg_class) GETSTRUCT(class))->relowner;
	ReleaseSysCache(class);
	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (", quote_qualified_identifier(MQ_SCHEMA, table));
	for (int c = 0; c < ARCHIVE_NCOLS; c++)
	{
		appendStringInfo(&sql, "%s%s", c > 0 ? ", " : "", column_name(c));
		types[c] = column_type(c);
		nulls[c] = null[c] ? 'n' : ' ';
	}
	appendStringInfoString(&sql, ") VALUES (");
	for (int c = 0; c < ARCHIVE_NCOLS; c++)
		appendStringInfo(&sql, "%s$%d", c > 0 ? ", " : "", c + 1);
	appendStringInfoChar(&sql, ')');
	SPI_connect();
	mq_run_as_owner(owner, sql.data, ARCHIVE_NCOLS, types, v, nulls, SPI_OK_INSERT, false);
	SPI_finish();
}

/*
 * Adds a row just acknowledged; consumer is who had leased it.  Raises what the
 * owner's triggers and CHECKs on the archive raise.
 */
void
mq_archive_row(MqArchive *a, const MqValues *row, const char *consumer)
{
	Datum		v[ARCHIVE_NCOLS];
	bool		null[ARCHIVE_NCOLS];
	Datum	   *fv;
	bool	   *fnull;
	TupleDesc	desc;
	HeapTuple	tuple;

	if (!OidIsValid(a->relid))
		return;
	memcpy(v, row->v, sizeof(row->v));
	memcpy(null, row->null, sizeof(row->null));
	v[COL_ACKED_AT] = TimestampTzGetDatum(a->acked_at);
	null[COL_ACKED_AT] = false;
	v[COL_CONSUMER] = CStringGetTextDatum(consumer);
	null[COL_CONSUMER] = consumer[0] == '\0';
	if (a->leaf == NULL)
	{
		insert_by_executor(a, v, null);
		return;
	}
	desc = RelationGetDescr(a->leaf);
	fv = palloc(sizeof(Datum) * desc->natts);
	fnull = palloc(sizeof(bool) * desc->natts);
	memset(fnull, true, sizeof(bool) * desc->natts);
	for (int c = 0; c < ARCHIVE_NCOLS; c++)
	{
		fv[a->att[c] - 1] = v[c];
		fnull[a->att[c] - 1] = null[c];
	}
	tuple = heap_form_tuple(desc, fv, fnull);
	CatalogTupleInsertWithInfo(a->leaf, tuple, a->indexes);
}

/* ----------------------------------------------------------------- upkeep */

/*
 * The last acked_at in a partition, by the latest state; DT_NOBEGIN if it is
 * empty, or no table.  Reads all of it.
 */
TimestampTz
mq_archive_newest(Oid leaf)
{
	Relation	rel = try_relation_open(leaf, AccessShareLock);
	AttrNumber	att = rel ? get_attnum(leaf, "acked_at") : InvalidAttrNumber;
	TimestampTz newest = DT_NOBEGIN;

	if (AttributeNumberIsValid(att) && rel->rd_rel->relkind == RELKIND_RELATION &&
		TupleDescAttr(RelationGetDescr(rel), att - 1)->atttypid == TIMESTAMPTZOID)
	{
		Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
		TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
		TupleTableSlot *slot = table_slot_create(rel, NULL);

		while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		{
			bool		isnull;
			TimestampTz t = DatumGetTimestampTz(slot_getattr(slot, att, &isnull));

			CHECK_FOR_INTERRUPTS();
			if (!isnull)
				newest = Max(newest, t);
		}
		ExecDropSingleTupleTableSlot(slot);
		table_endscan(scan);
		UnregisterSnapshot(snapshot);
	}
	if (rel)
		relation_close(rel, AccessShareLock);
	return newest;
}

/* One step of mq.archive_plan$, in this order. */
typedef struct Step
{
	char	   *as_worker;		/* SQL, or NULL */
	char	   *as_owner;		/* SQL to run as the archive's owner, or NULL */
	Oid			owner;
} Step;

static char *
column_text(int i, int c)
{
	return SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, c);
}

/*
 * Runs work in a transaction that waits for no lock; false if it failed, which
 * is logged unless somebody held a lock.
 */
static bool
in_transaction(void (*work) (void *arg), void *arg, const char *queue)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool done = true;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		(void) set_config_option("lock_timeout", "1", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_connect();
		enable_timeout_after(STATEMENT_TIMEOUT, STEP_TIMEOUT_MS);
		work(arg);
		disable_timeout(STATEMENT_TIMEOUT, false);
		SPI_finish();
		if (ActiveSnapshotSet())
			PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		disable_timeout(STATEMENT_TIMEOUT, false);
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
			ereport(LOG,
					(errmsg("could not keep up the archive of %s%s: %s",
							queue ? "queue " : "the queues", queue ? queue : "", error->message)));
		FreeErrorData(error);
		done = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return done;
}

typedef struct Names
{
	MemoryContext context;
	List	   *list;
	const char *queue;			/* for find_steps */
} Names;

/* The queues that have an archive, or shall have one. */
static void
find_queues(void *arg)
{
	Names	   *names = arg;
	Oid			types[1] = {TEXTOID};

	/* before ALTER EXTENSION UPDATE there are none */
	if (!OidIsValid(mq_schema_oid(true)) ||
		!OidIsValid(LookupFuncName(list_make2(makeString(MQ_SCHEMA), makeString("archive_plan$")),
								   1, types, true)))
		return;
	if (SPI_execute("SELECT q.name FROM mq.queue$ q WHERE q.retain IS NOT NULL", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "the queues with an archive cannot be read");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *name = column_text(i, 1);
		MemoryContext old = MemoryContextSwitchTo(names->context);

		names->list = lappend(names->list, pstrdup(name));
		MemoryContextSwitchTo(old);
	}
}

static void
find_steps(void *arg)
{
	Names	   *names = arg;
	Oid			type = TEXTOID;
	Datum		v = CStringGetTextDatum(names->queue);

	if (SPI_execute_with_args("SELECT p.owner, p.as_worker, p.as_owner FROM mq.archive_plan$($1) p",
							  1, &type, &v, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "mq.archive_plan$ cannot be read");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(names->context);
		Step	   *s = palloc0(sizeof(Step));
		char	   *text;
		bool		isnull;

		s->owner = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		if ((text = column_text(i, 2)) != NULL)
			s->as_worker = pstrdup(text);
		if ((text = column_text(i, 3)) != NULL)
			s->as_owner = pstrdup(text);
		names->list = lappend(names->list, s);
		MemoryContextSwitchTo(old);
	}
}

static void
take_step(void *arg)
{
	Step	   *s = arg;

	if (s->as_worker)
	{
		int			result = SPI_execute(s->as_worker, false, 0);

		if (result < 0)
			elog(ERROR, "SPI_execute returned %d for: %s", result, s->as_worker);
	}
	if (s->as_owner)
		mq_run_as_owner(s->owner, s->as_owner, 0, NULL, NULL, NULL, SPI_OK_UTILITY, false);
}

/*
 * Makes partitions ahead and drops old ones; by the worker, outside of a
 * transaction.  Returns when (by the steady clock) to call again.  Waits for no
 * lock longer than a millisecond; raises nothing for a queue's sake.
 */
TimestampTz
mq_archive_upkeep(void)
{
	static TimestampTz again = DT_NOBEGIN;
	Names		queues = {CurrentMemoryContext, NIL, NULL};
	ListCell   *qc;

	if (mq_steady() < again)
		return again;
	again = mq_time_add(mq_steady(), UPKEEP_PAUSE);
	(void) in_transaction(find_queues, &queues, NULL);
	foreach(qc, queues.list)
	{
		Names		steps = {CurrentMemoryContext, NIL, lfirst(qc)};
		bool		done = in_transaction(find_steps, &steps, steps.queue);
		ListCell   *sc;

		foreach(sc, steps.list)
		{
			CHECK_FOR_INTERRUPTS();
			done &= in_transaction(take_step, lfirst(sc), steps.queue);
		}
		/* failed, or there may be a next step */
		if (!done || steps.list != NIL)
			again = Min(again, mq_time_add(mq_steady(), UPKEEP_RETRY));
	}
	return again;
}
