/*-------------------------------------------------------------------------
 * storage.c
 *		The only file that reads or writes message rows.
 *
 * Reading.  A consumer must see the latest committed state at every isolation
 * level, must not wait for anybody, and must leave no SIREAD locks.  So rows
 * are found by walking the index without a snapshot and judged one by one
 * under the buffer's share lock: HeapTupleSatisfiesVisibility with a snapshot
 * taken just now says whether a scan sees the row, HeapTupleSatisfiesUpdate
 * says whether somebody is changing or locking it this moment.  Neither writes
 * more than hint bits.  Rows of the reader's own transaction are never seen.
 *
 * A TID is a hint.  It may have been given to another message since.  Before
 * it is believed the block must exist, the line pointer be normal and the id
 * be equal; the pin is kept until the write that follows, so that nothing can
 * prune the page in between.  Otherwise the primary key decides.
 *
 * Writing.  Plain tables (catalog.c) are written with heap_insert,
 * heap_delete, heap_update and index_insert; for the others the executor runs
 * a statement as the table's owner, security-restricted, so that no code the
 * owner hung on the table gets more than the owner's rights.
 *-------------------------------------------------------------------------
 */
#include "storage.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/multixact.h"
#include "access/nbtree.h"
#include "access/relscan.h"
#include "access/subtrans.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "lib/stringinfo.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

MqOwnDelete mq_own_delete = {InvalidOid, 0};
Oid			mq_own_insert = InvalidOid;

/* ---------------------------------------------------------------- reading */

void
mq_reader_init(MqReader *r, MqDef *def, Relation rel)
{
	r->def = def;
	r->rel = rel;
	r->nblocks = InvalidBlockNumber;
	r->buffer = InvalidBuffer;
	r->examined = 0;
}

void
mq_reader_done(MqReader *r)
{
	if (BufferIsValid(r->buffer))
		ReleaseBuffer(r->buffer);
	r->buffer = InvalidBuffer;
}

/* Pins the block, if it exists. */
static bool
pin_block(MqReader *r, BlockNumber block)
{
	if (BufferIsValid(r->buffer) && BufferGetBlockNumber(r->buffer) == block)
		return true;
	if (r->nblocks == InvalidBlockNumber || block >= r->nblocks)
	{
		r->nblocks = RelationGetNumberOfBlocks(r->rel);
		if (block >= r->nblocks)
			return false;
	}
	r->buffer = ReleaseAndReadBuffer(r->buffer, r->rel, block);
	return true;
}

static int64
tuple_id(MqReader *r, HeapTuple tuple)
{
	bool		isnull;

	return DatumGetInt64(heap_getattr(tuple, r->def->att[MQ_COL_ID],
									  RelationGetDescr(r->rel), &isnull));
}

/* Minus infinity means "none" in the shared state; one later is due as well. */
static TimestampTz
finite_time(TimestampTz t)
{
	return t == DT_NOBEGIN ? DT_NOBEGIN + 1 : t;
}

/* Where a row stands, by its columns. */
MqPlace
mq_tuple_place(MqDef *def, TupleDesc desc, HeapTuple tuple)
{
	MqPlace		p;
	bool		isnull;
	Datum		d;

	p.id = DatumGetInt64(heap_getattr(tuple, def->att[MQ_COL_ID], desc, &isnull));
	p.tid = tuple->t_self;
	p.priority = DatumGetInt16(heap_getattr(tuple, def->att[MQ_COL_PRIORITY], desc, &isnull));
	if (isnull || p.priority < 0)
		p.priority = 0;
	if (p.priority > MQ_PRIORITY_MAX)
		p.priority = MQ_PRIORITY_MAX;
	d = heap_getattr(tuple, def->att[MQ_COL_READY_AT], desc, &isnull);
	p.timed = !isnull;
	p.ready_at = isnull ? 0 : finite_time(DatumGetTimestampTz(d));
	return p;
}

/*
 * The row's key, NULL if it has none; not with a buffer locked.  One that is
 * longer than keys may be, its owner having dropped the CHECK, is none.
 */
text *
mq_tuple_key(MqDef *def, TupleDesc desc, HeapTuple tuple)
{
	bool		isnull;
	Datum		d = heap_getattr(tuple, def->att[MQ_COL_KEY], desc, &isnull);
	text	   *key = isnull ? NULL : DatumGetTextPP(d);

	return key && VARSIZE_ANY_EXHDR(key) <= MQ_TEXT_KEY_MAX ? key : NULL;
}

/* The same as MqGone wants it. */
uint64
mq_tuple_key_hash(MqDef *def, TupleDesc desc, HeapTuple tuple)
{
	text	   *key = mq_tuple_key(def, desc, tuple);

	return key ? mq_key_hash(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key)) : MQ_KEY_HASH_NONE;
}

/* Whether two rows have the same key, or both none. */
bool
mq_same_key(MqDef *def, TupleDesc desc, HeapTuple a, HeapTuple b)
{
	text	   *ka = mq_tuple_key(def, desc, a);
	text	   *kb = mq_tuple_key(def, desc, b);

	if (ka == NULL || kb == NULL)
		return ka == kb;
	return VARSIZE_ANY_EXHDR(ka) == VARSIZE_ANY_EXHDR(kb) &&
		memcmp(VARDATA_ANY(ka), VARDATA_ANY(kb), VARSIZE_ANY_EXHDR(ka)) == 0;
}

static bool
is_own_row(HeapTupleHeader header)
{
	TransactionId xmin;

	if (HeapTupleHeaderXminCommitted(header) || HeapTupleHeaderXminInvalid(header))
		return false;
	xmin = HeapTupleHeaderGetRawXmin(header);
	return TransactionIdIsCurrentTransactionId(xmin);
}

/*
 * Whether the tuple may be delivered now; the buffer is share-locked.  Our own
 * lock on a row is no reason to skip it, our own change is.
 */
static MqLook
judge(HeapTuple tuple, Buffer buffer, MqHolder *holder)
{
	HeapTupleHeader h = tuple->t_data;

	if (is_own_row(h))
		return MQ_LOOK_GONE;
	switch (HeapTupleSatisfiesUpdate(tuple, GetCurrentCommandId(false), buffer))
	{
		case TM_Ok:
			return MQ_LOOK_OK;
		case TM_BeingModified:
		case TM_SelfModified:
			holder->xid = HeapTupleHeaderGetRawXmax(h);
			holder->multi = (h->t_infomask & HEAP_XMAX_IS_MULTI) != 0;
			if (!holder->multi &&
				HEAP_XMAX_IS_LOCKED_ONLY(h->t_infomask) &&
				TransactionIdIsCurrentTransactionId(holder->xid))
				return MQ_LOOK_OK;
			return MQ_LOOK_HELD;
		default:
			return MQ_LOOK_GONE;
	}
}

/* Whether nobody holds any more what a blocked row was waiting for. */
bool
mq_holder_ended(TransactionId xid, bool multi)
{
	if (multi)
	{
		MultiXactId oldest;
		MultiXactId next;

		/* one so old that its members are forgotten has no running ones */
		ReadMultiXactIdRange(&oldest, &next);
		return MultiXactIdPrecedes(xid, oldest) || !MultiXactIdIsRunning(xid, false);
	}
	return !TransactionIdIsInProgress(xid);
}

/*
 * The tuple at exactly this TID, if it is a version of message id.  The buffer
 * is pinned and share-locked on success, only (maybe) pinned otherwise.
 */
static bool
at_tid(MqReader *r, int64 id, ItemPointer tid, HeapTuple tuple)
{
	Page		page;
	ItemId		lp;
	OffsetNumber off;

	if (!ItemPointerIsValid(tid) || !pin_block(r, ItemPointerGetBlockNumber(tid)))
		return false;
	LockBuffer(r->buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(r->buffer);
	off = ItemPointerGetOffsetNumber(tid);
	r->examined++;
	if (!PageIsNew(page) && off >= FirstOffsetNumber && off <= PageGetMaxOffsetNumber(page))
	{
		lp = PageGetItemId(page, off);
		if (ItemIdIsNormal(lp))
		{
			tuple->t_data = (HeapTupleHeader) PageGetItem(page, lp);
			tuple->t_len = ItemIdGetLength(lp);
			tuple->t_tableOid = RelationGetRelid(r->rel);
			tuple->t_self = *tid;
			if (tuple_id(r, tuple) == id)
				return true;
		}
	}
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	return false;
}

/*
 * Walks the HOT chain that starts at tid for the version the snapshot sees.
 * On success the buffer is pinned and share-locked.  *all_dead says that
 * nobody will ever see any of them.
 */
static bool
chain_visible(MqReader *r, ItemPointer tid, Snapshot snapshot, HeapTuple tuple,
			  bool *all_dead)
{
	BlockNumber block = ItemPointerGetBlockNumber(tid);
	OffsetNumber off = ItemPointerGetOffsetNumber(tid);
	TransactionId prev_xmax = InvalidTransactionId;
	bool		at_start = true;
	bool		other_page;
	Page		page;
	GlobalVisState *vistest = NULL;

	*all_dead = true;
	other_page = !BufferIsValid(r->buffer) || BufferGetBlockNumber(r->buffer) != block;
	if (other_page)
	{
		r->buffer = ReleaseAndReadBuffer(r->buffer, r->rel, block);
		heap_page_prune_opt(r->rel, r->buffer);
	}
	LockBuffer(r->buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(r->buffer);
	for (;;)
	{
		ItemId		lp;

		if (off < FirstOffsetNumber || off > PageGetMaxOffsetNumber(page))
			break;
		lp = PageGetItemId(page, off);
		if (!ItemIdIsNormal(lp))
		{
			if (ItemIdIsRedirected(lp) && at_start)
			{
				off = ItemIdGetRedirect(lp);
				at_start = false;
				continue;
			}
			break;
		}
		tuple->t_data = (HeapTupleHeader) PageGetItem(page, lp);
		tuple->t_len = ItemIdGetLength(lp);
		tuple->t_tableOid = RelationGetRelid(r->rel);
		ItemPointerSet(&tuple->t_self, block, off);
		if (at_start && HeapTupleIsHeapOnly(tuple))
			break;
		if (TransactionIdIsValid(prev_xmax) &&
			!TransactionIdEquals(prev_xmax, HeapTupleHeaderGetXmin(tuple->t_data)))
			break;
		if (TransactionIdIsValid(prev_xmax))
			r->examined++;		/* the first counts with its index entry */
		if (HeapTupleSatisfiesVisibility(tuple, snapshot, r->buffer))
		{
			*all_dead = false;
			return true;
		}
		if (*all_dead)
		{
			if (vistest == NULL)
				vistest = GlobalVisTestFor(r->rel);
			if (!HeapTupleIsSurelyDead(tuple, vistest))
				*all_dead = false;
		}
		if (!HeapTupleIsHotUpdated(tuple))
			break;
		off = ItemPointerGetOffsetNumber(&tuple->t_data->t_ctid);
		at_start = false;
		prev_xmax = HeapTupleHeaderGetUpdateXid(tuple->t_data);
	}
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	return false;
}

/* The latest snapshot; never the transaction's. */
static Snapshot
latest_snapshot(void)
{
	return RegisterSnapshot(GetLatestSnapshot());
}

/*
 * Finds the visible version of message id by the primary key.  On success the
 * buffer is pinned and share-locked.
 */
static bool
by_key(MqReader *r, int64 id, HeapTuple tuple)
{
	Relation	index = index_open(r->def->index[MQ_INDEX_PKEY], AccessShareLock);
	IndexScanDesc desc;
	ScanKeyData key;
	Snapshot	snapshot = latest_snapshot();
	ItemPointer tid;
	bool		found = false;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	desc = mq_compat_index_beginscan(r->rel, index, SnapshotAny, 1);
	index_rescan(desc, &key, 1, NULL, 0);
	while (!found && (tid = index_getnext_tid(desc, ForwardScanDirection)) != NULL)
	{
		bool		all_dead;

		found = chain_visible(r, tid, snapshot, tuple, &all_dead);
		if (!found && all_dead && !RecoveryInProgress())
			desc->kill_prior_tuple = true;
	}
	if (found)
		LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	index_endscan(desc);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(snapshot);
	/* the pin kept the version where it is */
	if (found)
	{
		ItemPointerData self = tuple->t_self;

		return at_tid(r, id, &self, tuple);
	}
	return false;
}

/*
 * Whether a message with this dedup_id exists: committed and not deleted by a
 * committed transaction, or inserted and not deleted by this one, be it by the
 * running command.  Its id goes to *id.  Waits for nobody; raises 0A000 if the
 * owner dropped the index.
 */
bool
mq_row_by_dedup(MqReader *r, Datum dedup_id, int64 *id)
{
	Relation	index;
	IndexScanDesc desc;
	ScanKeyData key;
	Snapshot	snapshot;
	ItemPointer tid;
	HeapTupleData tuple;
	bool		found = false;

	if (!OidIsValid(r->def->index[MQ_INDEX_DEDUP]))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" cannot take a dedup_id: an index of its table is missing",
						r->def->name)));
	index = index_open(r->def->index[MQ_INDEX_DEDUP], AccessShareLock);
	snapshot = latest_snapshot();
	snapshot->curcid = GetCurrentCommandId(false) + 1;
	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[0], F_TEXTEQ, dedup_id);
	desc = mq_compat_index_beginscan(r->rel, index, SnapshotAny, 1);
	index_rescan(desc, &key, 1, NULL, 0);
	while (!found && (tid = index_getnext_tid(desc, ForwardScanDirection)) != NULL)
	{
		bool		all_dead;

		found = chain_visible(r, tid, snapshot, &tuple, &all_dead);
		if (!found && all_dead)
			desc->kill_prior_tuple = true;
	}
	if (found)
	{
		*id = tuple_id(r, &tuple);
		LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	}
	index_endscan(desc);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(snapshot);
	return found;
}

static void
read_row(MqReader *r, HeapTuple tuple, MqRow *row)
{
	TupleDesc	desc = RelationGetDescr(r->rel);
	bool		isnull;
	Datum		d;

	row->place = mq_tuple_place(r->def, desc, tuple);
	row->attempts = DatumGetInt32(heap_getattr(tuple, r->def->att[MQ_COL_ATTEMPTS], desc, &isnull));
	if (isnull)
		row->attempts = 0;
	row->attempts = Min(Max(row->attempts, 0), PG_INT32_MAX - 1);	/* one more can be counted */
	d = heap_getattr(tuple, r->def->att[MQ_COL_EXPIRES_AT], desc, &isnull);
	row->expires_at = isnull ? DT_NOEND : DatumGetTimestampTz(d);
}

/*
 * Looks at message id once more, by its TID if that still leads to it.  On
 * MQ_LOOK_OK fills *row; on MQ_LOOK_HELD fills *holder.  Waits for nobody.
 */
MqLook
mq_row_look(MqReader *r, int64 id, ItemPointer tid, MqRow *row, MqHolder *holder)
{
	HeapTupleData tuple;
	MqLook		look = MQ_LOOK_GONE;
	bool		found = at_tid(r, id, tid, &tuple);

	if (found)
	{
		look = judge(&tuple, r->buffer, holder);
		if (look == MQ_LOOK_GONE && !is_own_row(tuple.t_data))
		{
			/* an old version, perhaps; the key knows */
			LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
			found = false;
		}
	}
	while (!found)
	{
		if (!by_key(r, id, &tuple))
			return MQ_LOOK_GONE;
		look = judge(&tuple, r->buffer, holder);
		found = look != MQ_LOOK_GONE || is_own_row(tuple.t_data);
		if (!found)
		{
			/* updated since the snapshot: the newer version, then */
			LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
			CHECK_FOR_INTERRUPTS();
		}
	}
	if (look == MQ_LOOK_OK)
	{
		row->tuple = heap_copytuple(&tuple);
		LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
		read_row(r, row->tuple, row);
		return look;
	}
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	return look;
}

/*
 * The key of message id, whoever holds it: *key is NULL if it has none.  False
 * if the row is gone.
 */
bool
mq_row_key(MqReader *r, int64 id, ItemPointer tid, text **key)
{
	HeapTupleData tuple;
	HeapTuple	copy;

	if (!at_tid(r, id, tid, &tuple) && !by_key(r, id, &tuple))
		return false;
	copy = heap_copytuple(&tuple);
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	*key = mq_tuple_key(r->def, RelationGetDescr(r->rel), copy);
	if (*key)
		*key = cstring_to_text_with_len(VARDATA_ANY(*key), VARSIZE_ANY_EXHDR(*key));
	heap_freetuple(copy);
	return true;
}

/* What a walk of a key makes of a version that its snapshot sees. */
static MqLook
judge_for_key(HeapTuple tuple, Buffer buffer, MqHolder *holder)
{
	HeapTupleHeader h = tuple->t_data;

	/* our own new version of a row that others still see as it was */
	if (is_own_row(h) && (h->t_infomask & HEAP_UPDATED))
	{
		holder->xid = HeapTupleHeaderGetRawXmin(h);
		holder->multi = false;
		return MQ_LOOK_HELD;
	}
	return judge(tuple, buffer, holder);
}

/*
 * The first row of a key, from id `from` on, that is there: committed, not
 * expired at `now`, be it free (MQ_LOOK_OK) or held by a transaction
 * (MQ_LOOK_HELD).  At id `stop` the walk ends without a look, that row being the
 * caller's own (0: there is none).  False if there is none.  Waits for nobody;
 * takes the latest snapshot.
 */
bool
mq_row_first_of_key(MqReader *r, const char *key, int len, int64 from,
					int64 stop, TimestampTz now, MqSeen *seen)
{
	Relation	index = index_open(r->def->index[MQ_INDEX_KEY], AccessShareLock);
	TupleDesc	desc = RelationGetDescr(r->rel);
	text	   *t = cstring_to_text_with_len(key, len);
	bool		found = false;
	bool		again;

	do
	{
		Snapshot	snapshot = latest_snapshot();
		IndexScanDesc scan;
		ScanKeyData keys[2];
		ItemPointer tid;

		again = false;
		ScanKeyEntryInitialize(&keys[0], 0, 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[0], F_TEXTEQ, PointerGetDatum(t));
		ScanKeyInit(&keys[1], 2, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(from));
		scan = mq_compat_index_beginscan(r->rel, index, SnapshotAny, 2);
		scan->xs_want_itup = true;
		index_rescan(scan, keys, 2, NULL, 0);
		while (!found && !again && (tid = index_getnext_tid(scan, ForwardScanDirection)) != NULL)
		{
			HeapTupleData tuple;
			HeapTuple	copy;
			MqRow		row;
			text	   *k;
			bool		isnull;
			bool		all_dead;
			bool		own;
			int64		id = DatumGetInt64(index_getattr(scan->xs_itup, 2, scan->xs_itupdesc, &isnull));

			CHECK_FOR_INTERRUPTS();
			if (id == stop)
			{
				seen->place.id = id;
				seen->look = MQ_LOOK_OK;
				found = true;
				break;
			}
			r->examined++;
			if (!chain_visible(r, tid, snapshot, &tuple, &all_dead))
			{
				if (all_dead && !RecoveryInProgress())
					scan->kill_prior_tuple = true;
				continue;
			}
			seen->look = judge_for_key(&tuple, r->buffer, &seen->holder);
			if (seen->look == MQ_LOOK_GONE)
			{
				/* written since the snapshot: what is there now?  Or our own */
				again = !is_own_row(tuple.t_data);
				from = id;
				LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
				continue;
			}
			own = is_own_row(tuple.t_data);
			copy = heap_copytuple(&tuple);
			LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
			read_row(r, copy, &row);
			k = mq_tuple_key(r->def, desc, copy);

			/*
			 * That our own version has expired holds for nobody else; an entry
			 * of an older version may lead to a row of another key.
			 */
			found = (own || row.expires_at > now) && k != NULL && VARSIZE_ANY_EXHDR(k) == (Size) len &&
				memcmp(VARDATA_ANY(k), key, len) == 0;
			seen->place = row.place;
			heap_freetuple(copy);
		}
		index_endscan(scan);
		UnregisterSnapshot(snapshot);
	} while (again);
	index_close(index, AccessShareLock);
	pfree(t);
	if (found)
		seen->pos = mq_place_pos(&seen->place);
	return found;
}

/* (Re)starts the index scan for the phase. */
static void
start_phase(MqScan *s, int64 hi)
{
	ScanKeyData keys[3];
	int			n = 0;
	TimestampTz from = s->from.t == DT_NOBEGIN + 1 ? DT_NOBEGIN : s->from.t;	/* see finite_time */

	if (s->lane == MQ_LANE_FRESH)
	{
		ScanKeyInit(&keys[n++], 1, BTGreaterStrategyNumber, F_INT8GT,
					Int64GetDatum(s->from.id));
		if (hi != PG_INT64_MAX)
			ScanKeyInit(&keys[n++], 1, BTLessEqualStrategyNumber, F_INT8LE,
						Int64GetDatum(hi));
	}
	else
	{
		ScanKeyInit(&keys[n++], 1, BTEqualStrategyNumber, F_INT2EQ,
					Int16GetDatum(MQ_LANE_PRIORITY(s->lane)));
		if (!MQ_LANE_IS_DUE(s->lane))
			ScanKeyEntryInitialize(&keys[n++], SK_ISNULL | SK_SEARCHNULL, 2,
								   InvalidStrategy, InvalidOid, InvalidOid,
								   InvalidOid, (Datum) 0);
		else if (s->phase == 0)
			ScanKeyInit(&keys[n++], 2, BTEqualStrategyNumber, F_TIMESTAMPTZ_EQ,
						TimestampTzGetDatum(from));
		else
			ScanKeyInit(&keys[n++], 2, BTGreaterStrategyNumber, F_TIMESTAMPTZ_GT,
						TimestampTzGetDatum(from));
		if (!MQ_LANE_IS_DUE(s->lane) || s->phase == 0)
			ScanKeyInit(&keys[n++], 3, BTGreaterStrategyNumber, F_INT8GT,
						Int64GetDatum(s->from.id));
	}
	if (s->desc)
		index_endscan(s->desc);
	s->desc = mq_compat_index_beginscan(s->reader->rel, s->index, SnapshotAny, n);
	s->desc->xs_want_itup = true;
	index_rescan(s->desc, keys, n, NULL, 0);
	s->kill = false;
}

/*
 * Starts a scan of a lane behind position `from`; for the fresh lane up to id
 * hi.  Takes the latest snapshot: whoever committed before this call is seen.
 */
void
mq_scan_begin(MqScan *s, MqReader *r, int lane, MqPos from, int64 hi)
{
	s->reader = r;
	s->lane = lane;
	s->from = from;
	s->phase = 0;
	s->desc = NULL;
	s->index = index_open(r->def->index[lane == MQ_LANE_FRESH ? MQ_INDEX_PKEY : MQ_INDEX_READY],
						  AccessShareLock);
	s->snapshot = latest_snapshot();
	start_phase(s, hi);
}

/*
 * The next index entry of the lane, whatever became of its row; false at the
 * end.  In due lanes the caller stops at the first time it does not want.
 */
bool
mq_scan_next(MqScan *s, MqSeen *seen)
{
	MqReader   *r = s->reader;
	TupleDesc	desc = RelationGetDescr(r->rel);

	for (;;)
	{
		ItemPointer tid;
		HeapTupleData tuple;
		bool		isnull;
		bool		all_dead;

		if (s->kill)
			s->desc->kill_prior_tuple = true;
		s->kill = false;
		tid = index_getnext_tid(s->desc, ForwardScanDirection);
		if (tid == NULL)
		{
			if (MQ_LANE_IS_DUE(s->lane) && s->phase == 0)
			{
				s->phase = 1;
				start_phase(s, PG_INT64_MAX);
				continue;
			}
			return false;
		}
		r->examined++;
		if (s->lane == MQ_LANE_FRESH)
			seen->pos = (MqPos) {0, DatumGetInt64(index_getattr(s->desc->xs_itup, 1, s->desc->xs_itupdesc, &isnull))};
		else
		{
			Datum		t = index_getattr(s->desc->xs_itup, 2, s->desc->xs_itupdesc, &isnull);

			seen->pos.t = isnull ? 0 : finite_time(DatumGetTimestampTz(t));
			seen->pos.id = DatumGetInt64(index_getattr(s->desc->xs_itup, 3, s->desc->xs_itupdesc, &isnull));
		}
		seen->look = MQ_LOOK_GONE;
		if (!chain_visible(r, tid, s->snapshot, &tuple, &all_dead))
		{
			s->kill = all_dead && !RecoveryInProgress();
			return true;
		}
		seen->look = judge(&tuple, r->buffer, &seen->holder);
		if (seen->look != MQ_LOOK_GONE)
			seen->place = mq_tuple_place(r->def, desc, &tuple);
		LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);

		/* an entry of an older version leads to a row that stands elsewhere */
		if (seen->look != MQ_LOOK_GONE &&
			(mq_place_lane(&seen->place) != s->lane ||
			 mq_pos_cmp(mq_place_pos(&seen->place), seen->pos) != 0))
			seen->look = MQ_LOOK_GONE;
		return true;
	}
}

void
mq_scan_end(MqScan *s)
{
	index_endscan(s->desc);
	index_close(s->index, AccessShareLock);
	UnregisterSnapshot(s->snapshot);
}

/* Which of these transactions, not ended for the snapshot, inserted the row; -1: none. */
static int
inserted_by(HeapTupleHeader header, const TransactionId *xids, int n)
{
	TransactionId xid = HeapTupleHeaderGetRawXmin(header);

	if (n == 0 || HeapTupleHeaderXminCommitted(header) ||
		HeapTupleHeaderXminInvalid(header) || !TransactionIdIsNormal(xid) ||
		!TransactionIdIsInProgress(xid))
		return -1;
	if (TransactionIdFollowsOrEquals(xid, TransactionXmin))
		xid = SubTransGetTopmostTransaction(xid);
	for (int i = 0; i < n; i++)
		if (xids[i] == xid)
			return i;
	return -1;
}

/*
 * Counts the rows the snapshot sees, and those of them due after upto that
 * skip() does not name; and for each of nxids prepared transactions those it
 * has inserted.  Walks the whole table: for a recount only.
 */
int64
mq_storage_count(MqReader *r, TimestampTz upto, int64 *delayed, Snapshot snapshot,
				 bool (*skip) (MqReader *r, int64 id),
				 const TransactionId *xids, int nxids, int64 *uncommitted)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(r->rel);
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	TupleDesc	desc = RelationGetDescr(r->rel);
	int64		rows = 0;

	*delayed = 0;
	for (BlockNumber b = 0; b < nblocks; b++)
	{
		Buffer		buffer;
		Page		page;

		CHECK_FOR_INTERRUPTS();
		buffer = ReadBufferExtended(r->rel, MAIN_FORKNUM, b, RBM_NORMAL, strategy);
		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		page = BufferGetPage(buffer);
		if (!PageIsNew(page))
		{
			OffsetNumber max = PageGetMaxOffsetNumber(page);

			for (OffsetNumber off = FirstOffsetNumber; off <= max; off++)
			{
				ItemId		lp = PageGetItemId(page, off);
				HeapTupleData tuple;

				if (!ItemIdIsNormal(lp))
					continue;
				tuple.t_data = (HeapTupleHeader) PageGetItem(page, lp);
				tuple.t_len = ItemIdGetLength(lp);
				tuple.t_tableOid = RelationGetRelid(r->rel);
				ItemPointerSet(&tuple.t_self, b, off);
				if (HeapTupleSatisfiesVisibility(&tuple, snapshot, buffer))
				{
					MqPlace		p = mq_tuple_place(r->def, desc, &tuple);

					rows++;
					if (p.timed && p.ready_at > upto && !skip(r, p.id))
						(*delayed)++;
				}
				else
				{
					int			k = inserted_by(tuple.t_data, xids, nxids);

					if (k >= 0)
						uncommitted[k]++;
				}
			}
		}
		UnlockReleaseBuffer(buffer);
	}
	FreeAccessStrategy(strategy);
	return rows;
}

/*
 * Counts the rows that come due after `after` and not after `upto`, leaving
 * out those skip() names; *next becomes the first time behind upto.
 */
int64
mq_storage_count_due(MqReader *r, TimestampTz after, TimestampTz upto,
					 TimestampTz *next, bool (*skip) (MqReader *r, int64 id))
{
	int64		n = 0;

	*next = DT_NOEND;
	for (int p = 0; p <= MQ_PRIORITY_MAX; p++)
	{
		MqScan		scan;
		MqSeen		seen;

		mq_scan_begin(&scan, r, MQ_LANE_DUE(p), (MqPos) {after, PG_INT64_MAX}, PG_INT64_MAX);
		while (mq_scan_next(&scan, &seen))
		{
			CHECK_FOR_INTERRUPTS();
			if (seen.look == MQ_LOOK_GONE)
				continue;
			if (seen.pos.t > upto)
			{
				*next = Min(*next, seen.pos.t);
				break;
			}
			if (!skip(r, seen.pos.id))
				n++;
		}
		mq_scan_end(&scan);
	}
	mq_reader_done(r);
	return n;
}

/*
 * Walks the expiry index behind `from` for rows that have expired at upto, at
 * most max of them and about max_examined entries.  *last becomes the last
 * entry examined; *exhausted says that there are no more, and *next when to look
 * again then (DT_NOEND: never): the time of the next row, or of an entry before
 * it if there are many dead ones.
 */
int
mq_storage_expiring(MqReader *r, MqExpiryPos from, TimestampTz upto,
					MqExpiring *found, int max, int64 max_examined,
					MqExpiryPos *last, bool *exhausted, TimestampTz *next)
{
	TupleDesc	desc = RelationGetDescr(r->rel);
	int64		stop = r->examined + max_examined;
	int			beyond = 64;
	int			n = 0;
	bool		kill = false;
	Relation	index;
	Snapshot	snapshot;
	IndexScanDesc scan;
	ScanKeyData key;

	*last = from;
	*exhausted = true;
	*next = DT_NOEND;
	if (!OidIsValid(r->def->index[MQ_INDEX_EXPIRY]))
		return 0;				/* its owner dropped it */
	index = index_open(r->def->index[MQ_INDEX_EXPIRY], AccessShareLock);
	snapshot = latest_snapshot();
	ScanKeyInit(&key, 1, BTGreaterEqualStrategyNumber, F_TIMESTAMPTZ_GE,
				TimestampTzGetDatum(from.t));
	scan = mq_compat_index_beginscan(r->rel, index, SnapshotAny, 1);
	scan->xs_want_itup = true;
	index_rescan(scan, &key, 1, NULL, 0);
	for (;;)
	{
		MqExpiring *e = &found[n];
		ItemPointerData entry;
		ItemPointer tid;
		HeapTupleData tuple;
		MqHolder	holder;
		MqLook		look;
		TimestampTz at;
		bool		isnull;
		bool		all_dead;

		CHECK_FOR_INTERRUPTS();
		if (n == max || r->examined >= stop)
		{
			*exhausted = false;
			break;
		}
		if (kill)
			scan->kill_prior_tuple = true;
		kill = false;
		tid = index_getnext_tid(scan, ForwardScanDirection);
		if (tid == NULL)
			break;
		entry = *tid;
		at = DatumGetTimestampTz(index_getattr(scan->xs_itup, 1, scan->xs_itupdesc, &isnull));
		/* entries of one time stand in the order of their TIDs */
		if (at == from.t && ItemPointerIsValid(&from.tid) &&
			ItemPointerCompare(&entry, &from.tid) <= 0)
			continue;
		r->examined++;
		if (at == DT_NOEND)
			break;
		if (at > upto && --beyond <= 0)
		{
			*next = at;
			break;
		}
		if (chain_visible(r, &entry, snapshot, &tuple, &all_dead))
		{
			TimestampTz row_at;

			look = judge(&tuple, r->buffer, &holder);
			row_at = DatumGetTimestampTz(heap_getattr(&tuple, r->def->att[MQ_COL_EXPIRES_AT],
													  desc, &isnull));
			if (look != MQ_LOOK_GONE && !isnull && row_at == at)
			{
				e->pos.t = at;
				e->pos.tid = entry;
				e->id = tuple_id(r, &tuple);
				e->tid = tuple.t_self;
				LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
				if (at > upto)
				{
					*next = at;
					break;
				}
				n++;
			}
			else
				LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
		}
		else
			kill = all_dead && !RecoveryInProgress();
		if (at <= upto)
		{
			last->t = at;
			last->tid = entry;
		}
	}
	index_endscan(scan);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(snapshot);
	return n;
}

/* ---------------------------------------------------------------- writing */

/*
 * Runs one statement as the owner of a table: restricted, with a pinned
 * search_path, so that nothing hung on the table can reach the caller's
 * rights.  With latest it sees the latest committed rows at every isolation
 * level.  Raises an error unless it ends as expected (SPI_OK_...).  The
 * caller is connected to SPI.
 */
void
mq_run_as_owner(Oid owner, const char *sql, int nargs, Oid *types,
				Datum *values, const char *nulls, int expect, bool latest)
{
	Oid			save_user;
	int			save_context;
	int			nest = NewGUCNestLevel();
	int			result;
	SPIPlanPtr	plan;

	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&save_user, &save_context);
	SetUserIdAndSecContext(owner, save_context | SECURITY_LOCAL_USERID_CHANGE |
						   SECURITY_RESTRICTED_OPERATION);
	plan = SPI_prepare(sql, nargs, types);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare returned %d for: %s", SPI_result, sql);
	result = SPI_execute_snapshot(plan, values, nulls,
								  latest ? GetLatestSnapshot() : InvalidSnapshot,
								  InvalidSnapshot, false, true, 0);
	SetUserIdAndSecContext(save_user, save_context);
	AtEOXact_GUC(false, nest);
	if (result != expect)
		elog(ERROR, "SPI_execute_snapshot returned %d for: %s", result, sql);
}

/* Deferred triggers would run after the owner's restrictions have ended. */
static void
refuse_deferred(MqDef *def, Relation rel)
{
	for (int i = 0; rel->trigdesc && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *t = &rel->trigdesc->triggers[i];

		/* those of foreign keys run the server's code */
		if (t->tgdeferrable && RI_FKey_trigger_type(t->tgfoid) == RI_TRIGGER_NONE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("queue \"%s\" cannot be used: trigger \"%s\" on its table is deferrable",
							def->name, t->tgname)));
	}
}

static char *
queue_table_name(Relation rel)
{
	return quote_qualified_identifier(MQ_SCHEMA, RelationGetRelationName(rel));
}

/* The executor's way: as the owner, with everything hung on the table. */
static bool
insert_by_executor(MqDef *def, Relation rel, MqValues *values, int64 *id)
{
	StringInfoData sql;
	char		nulls[MQ_NCOLS];
	bool		inserted;
	MemoryContext caller = CurrentMemoryContext;
	Oid			outer = mq_own_insert;	/* a trigger there may enqueue here */
	const int	first = values->null[MQ_COL_ID] ? 1 : 0;	/* id is column 0 */

	refuse_deferred(def, rel);
	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (", queue_table_name(rel));
	for (int c = first; c < MQ_NCOLS; c++)
		appendStringInfo(&sql, "%s%s", c > first ? ", " : "", mq_column_names[c]);
	appendStringInfo(&sql, ") %sVALUES (", first == 0 ? "OVERRIDING SYSTEM VALUE " : "");
	for (int c = first; c < MQ_NCOLS; c++)
		appendStringInfo(&sql, "%s$%d", c > first ? ", " : "", c - first + 1);
	appendStringInfoString(&sql, ") RETURNING id");
	for (int c = 0; c < MQ_NCOLS; c++)
		nulls[c] = values->null[c] ? 'n' : ' ';

	SPI_connect();
	mq_own_insert = def->relid;
	PG_TRY();
	{
		mq_run_as_owner(def->owner, sql.data, MQ_NCOLS - first,
						(Oid *) mq_column_types + first, values->v + first, nulls + first,
						SPI_OK_INSERT_RETURNING, true);
	}
	PG_FINALLY();
	{
		mq_own_insert = outer;
	}
	PG_END_TRY();
	inserted = SPI_processed > 0;
	if (inserted)
	{
		bool		isnull;

		*id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	SPI_finish();
	MemoryContextSwitchTo(caller);
	return inserted;
}

/* Which indexes a row stands in. */
static bool
wants_index(MqIndex i, const MqValues *values)
{
	switch (i)
	{
		case MQ_INDEX_PKEY:
			return true;
		case MQ_INDEX_READY:
			return DatumGetInt16(values->v[MQ_COL_PRIORITY]) != 0 ||
				!values->null[MQ_COL_READY_AT];
		case MQ_INDEX_EXPIRY:
			return !values->null[MQ_COL_EXPIRES_AT];
		case MQ_INDEX_KEY:
			return !values->null[MQ_COL_KEY];
		case MQ_INDEX_DEDUP:
			return !values->null[MQ_COL_DEDUP_ID];
		default:
			return false;
	}
}

static void
add_index_entry(MqIndex i, Relation index, Relation rel, const MqValues *values,
				ItemPointer tid)
{
	static IndexInfo *info = NULL;
	Datum		v[3];
	bool		null[3] = {false, false, false};

	if (info == NULL)
	{
		/* B-trees look at none of it; they only want one */
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		info = makeNode(IndexInfo);
		MemoryContextSwitchTo(old);
	}
	switch (i)
	{
		case MQ_INDEX_PKEY:
			v[0] = values->v[MQ_COL_ID];
			break;
		case MQ_INDEX_READY:
			v[0] = values->v[MQ_COL_PRIORITY];
			v[1] = values->v[MQ_COL_READY_AT];
			null[1] = values->null[MQ_COL_READY_AT];
			v[2] = values->v[MQ_COL_ID];
			break;
		case MQ_INDEX_EXPIRY:
			v[0] = values->v[MQ_COL_EXPIRES_AT];
			break;
		case MQ_INDEX_KEY:
			v[0] = values->v[MQ_COL_KEY];
			v[1] = values->v[MQ_COL_ID];
			break;
		case MQ_INDEX_DEDUP:
			v[0] = values->v[MQ_COL_DEDUP_ID];
			break;
		case MQ_NINDEXES:
			return;
	}
	index_insert(index, v, null, tid, rel,
				 i == MQ_INDEX_PKEY ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
				 false, info);
}

/* Adds the index entries of n rows just written. */
static void
add_index_entries(MqDef *def, Relation rel, const MqValues *values,
				  const ItemPointerData *tids, int n)
{
	for (int i = 0; i < MQ_NINDEXES; i++)
	{
		Relation	index = NULL;

		for (int k = 0; k < n; k++)
		{
			ItemPointerData tid = tids[k];

			if (!wants_index(i, &values[k]))
				continue;
			if (index == NULL)
			{
				if (!OidIsValid(def->index[i]))
					break;		/* its owner dropped it */
				index = index_open(def->index[i], RowExclusiveLock);
			}
			add_index_entry(i, index, rel, &values[k], &tid);
		}
		if (index)
			index_close(index, RowExclusiveLock);
	}
}

static HeapTuple
form_tuple(MqDef *def, Relation rel, MqValues *values)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum		v[64];
	bool		null[64];
	Datum	   *vp = v;
	bool	   *np = null;

	if (desc->natts > 64)
	{
		vp = palloc(sizeof(Datum) * desc->natts);
		np = palloc(sizeof(bool) * desc->natts);
	}
	memset(np, true, sizeof(bool) * desc->natts);
	for (int c = 0; c < MQ_NCOLS; c++)
	{
		vp[def->att[c] - 1] = values->v[c];
		np[def->att[c] - 1] = values->null[c];
	}
	return heap_form_tuple(desc, vp, np);
}

static void
note_row(MqTouch *t, const MqValues *values, ItemPointer tid)
{
	MqPlace		p;

	p.id = DatumGetInt64(values->v[MQ_COL_ID]);
	p.tid = *tid;
	p.priority = DatumGetInt16(values->v[MQ_COL_PRIORITY]);
	p.timed = !values->null[MQ_COL_READY_AT];
	p.ready_at = p.timed ? finite_time(DatumGetTimestampTz(values->v[MQ_COL_READY_AT])) : 0;
	if (mq_place_lane(&p) == MQ_LANE_FRESH)
		mq_xact_note_fresh(t, p.id, tid);
	else
		mq_xact_note_new(t, &p);
	if (!values->null[MQ_COL_EXPIRES_AT])
		mq_xact_note_expires(t, DatumGetTimestampTz(values->v[MQ_COL_EXPIRES_AT]), p.id, tid);
}

/*
 * Takes the message's id from the queue's sequence, for an insert to come;
 * without this (id null) the insert does.
 */
void
mq_row_choose_id(MqDef *def, MqValues *values)
{
	values->v[MQ_COL_ID] = Int64GetDatum(nextval_internal(def->sequence, false));
	values->null[MQ_COL_ID] = false;
}

/*
 * Inserts one message; it gets an id unless one was chosen.  rel is locked with
 * RowExclusiveLock.  False if a trigger of the owner's kept the row out.
 */
bool
mq_row_insert(MqDef *def, Relation rel, MqValues *values, int64 *id)
{
	HeapTuple	tuple;

	if (!def->plain)
		return insert_by_executor(def, rel, values, id);
	if (values->null[MQ_COL_ID])
		mq_row_choose_id(def, values);
	tuple = form_tuple(def, rel, values);
	heap_insert(rel, tuple, GetCurrentCommandId(true), 0, NULL);
	add_index_entries(def, rel, values, &tuple->t_self, 1);
	note_row(mq_xact_touch(def->relid), values, &tuple->t_self);
	*id = DatumGetInt64(values->v[MQ_COL_ID]);
	heap_freetuple(tuple);
	return true;
}

/* The same for n messages at once, with one WAL record a page. */
void
mq_rows_insert(MqDef *def, Relation rel, MqValues *values, int n,
			   int64 *ids, bool *inserted)
{
	MemoryContext batch;
	MemoryContext old;
	const int	chunk = 200;
	TupleTableSlot **slots;
	TupleDesc	desc;
	ItemPointerData tids[200];
	MqTouch    *touch;

	if (!def->plain)
	{
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			inserted[i] = mq_row_insert(def, rel, &values[i], &ids[i]);
		}
		return;
	}
	touch = mq_xact_touch(def->relid);
	batch = AllocSetContextCreate(CurrentMemoryContext, "mq batch", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(batch);
	slots = palloc(sizeof(TupleTableSlot *) * chunk);
	/* a copy, since it is not reference-counted a slot at a time */
	desc = CreateTupleDescCopy(RelationGetDescr(rel));
	for (int i = 0; i < Min(n, chunk); i++)
		slots[i] = MakeSingleTupleTableSlot(desc, &TTSOpsHeapTuple);
	for (int done = 0; done < n; done += chunk)
	{
		int			m = Min(chunk, n - done);

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < m; i++)
		{
			if (values[done + i].null[MQ_COL_ID])
				mq_row_choose_id(def, &values[done + i]);
			ExecStoreHeapTuple(form_tuple(def, rel, &values[done + i]), slots[i], true);
		}
		heap_multi_insert(rel, slots, m, GetCurrentCommandId(true), 0, NULL);
		for (int i = 0; i < m; i++)
			tids[i] = slots[i]->tts_tid;
		add_index_entries(def, rel, &values[done], tids, m);
		for (int i = 0; i < m; i++)
		{
			note_row(touch, &values[done + i], &tids[i]);
			ids[done + i] = DatumGetInt64(values[done + i].v[MQ_COL_ID]);
			inserted[done + i] = true;
			ExecClearTuple(slots[i]);
		}
	}
	for (int i = 0; i < Min(n, chunk); i++)
		ExecDropSingleTupleTableSlot(slots[i]);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(batch);
}

/* Splits a tuple into values in the order of MqColumn. */
void
mq_row_values(MqReader *r, HeapTuple tuple, MqValues *values)
{
	TupleDesc	desc = RelationGetDescr(r->rel);

	for (int c = 0; c < MQ_NCOLS; c++)
		values->v[c] = heap_getattr(tuple, r->def->att[c], desc, &values->null[c]);
}

/*
 * Finds the version to write, keeping it pinned and unlocked: by its TID or by
 * key.  False if there is none.
 */
static bool
find_for_write(MqReader *r, int64 id, ItemPointer tid, ItemPointer found,
			   HeapTuple copy)
{
	HeapTupleData tuple;

	if (at_tid(r, id, tid, &tuple))
	{
		if (HeapTupleSatisfiesUpdate(&tuple, GetCurrentCommandId(false), r->buffer) == TM_Invisible)
		{
			LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
			if (!by_key(r, id, &tuple))
				return false;
		}
	}
	else if (!by_key(r, id, &tuple))
		return false;
	*found = tuple.t_self;
	if (copy)
		*copy = *heap_copytuple(&tuple);
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	return true;
}

/* The executor's way to delete; the row goes to *taken if wanted. */
static bool
delete_by_executor(MqReader *r, int64 id, MqValues *taken)
{
	StringInfoData sql;
	Oid			type = INT8OID;
	Datum		v = Int64GetDatum(id);
	MemoryContext caller = CurrentMemoryContext;
	const MqOwnDelete outer = mq_own_delete;
	bool		done;

	mq_reader_done(r);
	refuse_deferred(r->def, r->rel);
	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %s WHERE id OPERATOR(pg_catalog.=) $1 RETURNING ",
					 queue_table_name(r->rel));
	for (int c = 0; c < MQ_NCOLS; c++)
		appendStringInfo(&sql, "%s%s", c > 0 ? ", " : "", mq_column_names[c]);
	SPI_connect();
	mq_own_delete = (MqOwnDelete) {r->def->relid, id};
	PG_TRY();
	{
		mq_run_as_owner(r->def->owner, sql.data, 1, &type, &v, NULL,
						SPI_OK_DELETE_RETURNING, true);
	}
	PG_FINALLY();
	{
		mq_own_delete = outer;
	}
	PG_END_TRY();
	done = SPI_processed > 0;
	if (done && taken)
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);
		HeapTuple	tuple = heap_copytuple(SPI_tuptable->vals[0]);

		for (int c = 0; c < MQ_NCOLS; c++)
			taken->v[c] = heap_getattr(tuple, c + 1, SPI_tuptable->tupdesc, &taken->null[c]);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return done;
}

/*
 * Deletes message id; the row as it was goes to *taken if that is given (in
 * the current memory context).  Waits for whoever holds the row, as a DELETE
 * does; follows it if it was updated.  False if it is gone.
 */
bool
mq_row_delete(MqReader *r, int64 id, ItemPointer tid, MqValues *taken)
{
	ItemPointerData at = *tid;

	if (!r->def->plain)
		return delete_by_executor(r, id, taken);

	CheckCmdReplicaIdentity(r->rel, CMD_DELETE);
	for (;;)
	{
		TM_FailureData tmfd;
		ItemPointerData found;
		HeapTupleData old;
		TM_Result	result;

		if (!find_for_write(r, id, &at, &found, taken ? &old : NULL))
			return false;
		result = heap_delete(r->rel, &found, GetCurrentCommandId(true),
							 InvalidSnapshot, true, &tmfd, false);
		switch (result)
		{
			case TM_Ok:
				if (taken)
					mq_row_values(r, &old, taken);
				return true;
			case TM_Updated:
				at = tmfd.ctid;
				CHECK_FOR_INTERRUPTS();
				break;
			default:
				return false;
		}
	}
}

/*
 * Deletes message id if it has expired at upto, waiting for nobody if the table
 * is plain.  On MQ_TAKEN the row as it was is in *row and *taken.
 */
MqTaken
mq_row_take_expired(MqReader *r, int64 id, ItemPointer tid, TimestampTz upto,
					MqRow *row, MqValues *taken)
{
	TM_FailureData tmfd;
	MqHolder	holder;

	switch (mq_row_look(r, id, tid, row, &holder))
	{
		case MQ_LOOK_GONE:
			return MQ_TAKEN_NOT;
		case MQ_LOOK_HELD:
			return MQ_TAKEN_HELD;
		case MQ_LOOK_OK:
			break;
	}
	if (row->expires_at > upto)
		return MQ_TAKEN_NOT;
	if (!r->def->plain)
		return delete_by_executor(r, id, taken) ? MQ_TAKEN : MQ_TAKEN_HELD;
	CheckCmdReplicaIdentity(r->rel, CMD_DELETE);
	/* the pin of the look keeps this version where it is */
	switch (heap_delete(r->rel, &row->place.tid, GetCurrentCommandId(true),
						InvalidSnapshot, false, &tmfd, false))
	{
		case TM_Ok:
			mq_row_values(r, row->tuple, taken);
			return MQ_TAKEN;
		case TM_Deleted:
			return MQ_TAKEN_NOT;
		default:
			return MQ_TAKEN_HELD;
	}
}

/*
 * Writes a failed delivery into the row: attempts, ready_at, last_error
 * (NULL: none).  Notes where the row stands from now on.  Waits for whoever
 * holds the row.  False if it is gone.
 */
bool
mq_row_fail(MqReader *r, int64 id, ItemPointer tid, int32 attempts,
			TimestampTz ready_at, const char *error)
{
	ItemPointerData at = *tid;
	TupleDesc	desc = RelationGetDescr(r->rel);

	if (!r->def->plain)
	{
		char	   *sql = psprintf("UPDATE %s SET attempts = $2, ready_at = $3, last_error = $4 "
								   "WHERE id OPERATOR(pg_catalog.=) $1", queue_table_name(r->rel));
		Oid			types[4] = {INT8OID, INT4OID, TIMESTAMPTZOID, TEXTOID};
		Datum		v[4];
		bool		done;

		v[0] = Int64GetDatum(id);
		v[1] = Int32GetDatum(attempts);
		v[2] = TimestampTzGetDatum(ready_at);
		v[3] = error ? CStringGetTextDatum(error) : (Datum) 0;
		mq_reader_done(r);
		refuse_deferred(r->def, r->rel);
		SPI_connect();
		mq_run_as_owner(r->def->owner, sql, 4, types, v, error ? "    " : "   n",
						SPI_OK_UPDATE, true);
		done = SPI_processed > 0;
		SPI_finish();
		return done;
	}

	CheckCmdReplicaIdentity(r->rel, CMD_UPDATE);
	for (;;)
	{
		TM_FailureData tmfd;
		LockTupleMode lockmode;
		ItemPointerData found;
		HeapTupleData old;
		HeapTuple	new;
		MqValues	values;
		MqPlace		was;
		TM_Result	result;
		bool		new_entries;

		if (!find_for_write(r, id, &at, &found, &old))
			return false;
		was = mq_tuple_place(r->def, desc, &old);
		mq_row_values(r, &old, &values);
		values.v[MQ_COL_ATTEMPTS] = Int32GetDatum(attempts);
		values.v[MQ_COL_READY_AT] = TimestampTzGetDatum(ready_at);
		values.null[MQ_COL_READY_AT] = false;
		values.v[MQ_COL_LAST_ERROR] = error ? CStringGetTextDatum(error) : (Datum) 0;
		values.null[MQ_COL_LAST_ERROR] = (error == NULL);
		new = form_tuple(r->def, r->rel, &values);
		new->t_self = found;
		result = mq_compat_heap_update(r->rel, &found, new, GetCurrentCommandId(true),
									   &tmfd, &lockmode, &new_entries);
		switch (result)
		{
			case TM_Ok:
				{
					MqPlace		place = mq_tuple_place(r->def, desc, new);

					if (new_entries)
						add_index_entries(r->def, r->rel, &values, &new->t_self, 1);
					mq_xact_note_move(mq_xact_touch(r->def->relid), &was, &place);
					if (!values.null[MQ_COL_EXPIRES_AT])
						mq_xact_note_expires(mq_xact_touch(r->def->relid),
											 DatumGetTimestampTz(values.v[MQ_COL_EXPIRES_AT]),
											 id, &place.tid);
					return true;
				}
			case TM_Updated:
				at = tmfd.ctid;
				CHECK_FOR_INTERRUPTS();
				break;
			default:
				return false;
		}
	}
}
