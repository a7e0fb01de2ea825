/*-------------------------------------------------------------------------
 * storage.c
 *		Looking at message rows.
 *
 * The files storage*.c are the only ones that read or write message rows:
 *	  storage.c			judges rows, found by their TIDs or ids
 *	  storage_scan.c	finds rows by walking an index, and counts them
 *	  storage_write.c	writes them
 *	  storage_owner.c	... through the executor, as the table's owner
 *
 * A consumer must see the latest committed state at every isolation level,
 * must not wait for anybody, and must leave no SIREAD locks.  So rows are found
 * by walking the index without a snapshot and judged one by one under the
 * buffer's share lock: HeapTupleSatisfiesVisibility with a snapshot taken just
 * now says whether a scan sees the row, HeapTupleSatisfiesUpdate says whether
 * somebody is changing or locking it this moment.  Neither writes more than
 * hint bits.  Rows of the reader's own transaction are never seen.
 *
 * A TID is a hint.  It may have been given to another message since.  Before
 * it is believed the block must exist, the line pointer be normal and the id
 * be equal; the pin is kept until the write that follows, so that nothing can
 * prune the page in between.  Otherwise the primary key decides.
 *-------------------------------------------------------------------------
 */
#include "storage_private.h"

#include "access/multixact.h"
#include "access/relscan.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

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

int64
mq_row_tuple_id(MqReader *r, HeapTuple tuple)
{
	bool		isnull;

	return DatumGetInt64(heap_getattr(tuple, r->def->att[MQ_COL_ID],
									  RelationGetDescr(r->rel), &isnull));
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
	p.ready_at = isnull ? 0 : mq_finite_time(DatumGetTimestampTz(d));
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

/*
 * Whether the tuple may be delivered now; the buffer is share-locked.  Our own
 * lock on a row is no reason to skip it, our own change is.
 */
MqLook
mq_row_judge(HeapTuple tuple, Buffer buffer, MqHolder *holder)
{
	HeapTupleHeader h = tuple->t_data;

	if (mq_row_is_own(h))
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
bool
mq_row_at_tid(MqReader *r, int64 id, ItemPointer tid, HeapTuple tuple)
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
			if (mq_row_tuple_id(r, tuple) == id)
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
bool
mq_row_chain_visible(MqReader *r, ItemPointer tid, Snapshot snapshot, HeapTuple tuple,
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

/*
 * Finds the visible version of message id by the primary key.  On success the
 * buffer is pinned and share-locked.
 */
bool
mq_row_by_key(MqReader *r, int64 id, HeapTuple tuple)
{
	Relation	index = index_open(r->def->index[MQ_INDEX_PKEY], AccessShareLock);
	IndexScanDesc desc;
	ScanKeyData key;
	Snapshot	snapshot = mq_latest_snapshot();
	ItemPointer tid;
	bool		found = false;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(id));
	desc = mq_compat_index_beginscan(r->rel, index, SnapshotAny, 1);
	index_rescan(desc, &key, 1, NULL, 0);
	while (!found && (tid = index_getnext_tid(desc, ForwardScanDirection)) != NULL)
	{
		bool		all_dead;

		found = mq_row_chain_visible(r, tid, snapshot, tuple, &all_dead);
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

		return mq_row_at_tid(r, id, &self, tuple);
	}
	return false;
}

void
mq_row_read(MqReader *r, HeapTuple tuple, MqRow *row)
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
	bool		found = mq_row_at_tid(r, id, tid, &tuple);

	if (found)
	{
		look = mq_row_judge(&tuple, r->buffer, holder);
		if (look == MQ_LOOK_GONE && !mq_row_is_own(tuple.t_data))
		{
			/* an old version, perhaps; the key knows */
			LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
			found = false;
		}
	}
	while (!found)
	{
		if (!mq_row_by_key(r, id, &tuple))
			return MQ_LOOK_GONE;
		look = mq_row_judge(&tuple, r->buffer, holder);
		found = look != MQ_LOOK_GONE || mq_row_is_own(tuple.t_data);
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
		mq_row_read(r, row->tuple, row);
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

	if (!mq_row_at_tid(r, id, tid, &tuple) && !mq_row_by_key(r, id, &tuple))
		return false;
	copy = heap_copytuple(&tuple);
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	*key = mq_tuple_key(r->def, RelationGetDescr(r->rel), copy);
	if (*key)
		*key = cstring_to_text_with_len(VARDATA_ANY(*key), VARSIZE_ANY_EXHDR(*key));
	heap_freetuple(copy);
	return true;
}

/* Splits a tuple into values in the order of MqColumn. */
void
mq_row_values(MqReader *r, HeapTuple tuple, MqValues *values)
{
	TupleDesc	desc = RelationGetDescr(r->rel);

	for (int c = 0; c < MQ_NCOLS; c++)
		values->v[c] = heap_getattr(tuple, r->def->att[c], desc, &values->null[c]);
}
