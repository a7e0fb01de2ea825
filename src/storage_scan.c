/*-------------------------------------------------------------------------
 * storage_scan.c
 *		Finding message rows by an index: of a lane, of a key, by dedup_id, by
 *		when they expire; and counting them.
 *
 * What is found is judged as storage.c tells.  An index entry may be of an older
 * version of its row, so the row has the last word on where it stands.  Entries
 * whose rows nobody will ever see are marked as killed on the way.
 *-------------------------------------------------------------------------
 */
#include "storage_private.h"

#include "access/relscan.h"
#include "access/subtrans.h"
#include "stats.h"
#include "storage/bufmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"

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
	snapshot = mq_latest_snapshot();
	snapshot->curcid = GetCurrentCommandId(false) + 1;
	ScanKeyEntryInitialize(&key, 0, 1, BTEqualStrategyNumber, InvalidOid,
						   index->rd_indcollation[0], F_TEXTEQ, dedup_id);
	desc = mq_compat_index_beginscan(r->rel, index, SnapshotAny, 1);
	index_rescan(desc, &key, 1, NULL, 0);
	while (!found && (tid = index_getnext_tid(desc, ForwardScanDirection)) != NULL)
	{
		bool		all_dead;

		found = mq_row_chain_visible(r, tid, snapshot, &tuple, &all_dead);
		if (!found && all_dead)
			desc->kill_prior_tuple = true;
	}
	if (found)
	{
		*id = mq_row_tuple_id(r, &tuple);
		LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	}
	index_endscan(desc);
	index_close(index, AccessShareLock);
	UnregisterSnapshot(snapshot);
	return found;
}

/* What a walk of a key makes of a version that its snapshot sees. */
static MqLook
judge_for_key(HeapTuple tuple, Buffer buffer, MqHolder *holder)
{
	HeapTupleHeader h = tuple->t_data;

	/* our own new version of a row that others still see as it was */
	if (mq_row_is_own(h) && (h->t_infomask & HEAP_UPDATED))
	{
		holder->xid = HeapTupleHeaderGetRawXmin(h);
		holder->multi = false;
		return MQ_LOOK_HELD;
	}
	return mq_row_judge(tuple, buffer, holder);
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
		Snapshot	snapshot = mq_latest_snapshot();
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
			if (!mq_row_chain_visible(r, tid, snapshot, &tuple, &all_dead))
			{
				if (all_dead && !RecoveryInProgress())
					scan->kill_prior_tuple = true;
				continue;
			}
			seen->look = judge_for_key(&tuple, r->buffer, &seen->holder);
			if (seen->look == MQ_LOOK_GONE)
			{
				/* written since the snapshot: what is there now?  Or our own */
				again = !mq_row_is_own(tuple.t_data);
				from = id;
				LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
				continue;
			}
			own = mq_row_is_own(tuple.t_data);
			copy = heap_copytuple(&tuple);
			LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
			mq_row_read(r, copy, &row);
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
 * hi.  Without a snapshot it takes the latest: whoever committed before this call is
 * seen, and what has become of a row since then counts.  With one, what that sees
 * is MQ_LOOK_OK.
 */
void
mq_scan_begin(MqScan *s, MqReader *r, int lane, MqPos from, int64 hi, Snapshot snapshot)
{
	s->reader = r;
	s->lane = lane;
	s->from = from;
	s->phase = 0;
	s->as_seen = snapshot != NULL;
	s->desc = NULL;
	s->index = index_open(r->def->index[lane == MQ_LANE_FRESH ? MQ_INDEX_PKEY : MQ_INDEX_READY],
						  AccessShareLock);
	s->snapshot = snapshot ? RegisterSnapshot(snapshot) : mq_latest_snapshot();
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

			seen->pos.t = isnull ? 0 : mq_finite_time(DatumGetTimestampTz(t));
			seen->pos.id = DatumGetInt64(index_getattr(s->desc->xs_itup, 3, s->desc->xs_itupdesc, &isnull));
		}
		seen->look = MQ_LOOK_GONE;
		if (!mq_row_chain_visible(r, tid, s->snapshot, &tuple, &all_dead))
		{
			s->kill = all_dead && !RecoveryInProgress();
			return true;
		}
		seen->look = s->as_seen ? MQ_LOOK_OK : mq_row_judge(&tuple, r->buffer, &seen->holder);
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
 * Counts the rows the snapshot sees, and as later those of them due after upto; and
 * for each of nxids prepared transactions those it has inserted.  Walks the whole
 * table: for a recount only.
 */
int64
mq_storage_count(MqReader *r, TimestampTz upto, int64 *later, Snapshot snapshot,
				 const TransactionId *xids, int nxids, int64 *uncommitted)
{
	BlockNumber nblocks = RelationGetNumberOfBlocks(r->rel);
	BufferAccessStrategy strategy = GetAccessStrategy(BAS_BULKREAD);
	TupleDesc	desc = RelationGetDescr(r->rel);
	int64		rows = 0;

	*later = 0;
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
					if (p.timed && p.ready_at > upto)
						(*later)++;
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
 * Counts the rows the snapshot sees that come due after `after` and not after
 * `upto`; *next becomes the first time behind upto.
 */
int64
mq_storage_count_due(MqReader *r, TimestampTz after, TimestampTz upto,
					 TimestampTz *next, Snapshot snapshot)
{
	int64		n = 0;

	*next = DT_NOEND;
	for (int p = 0; p <= MQ_PRIORITY_MAX; p++)
	{
		MqScan		scan;
		MqSeen		seen;

		mq_scan_begin(&scan, r, MQ_LANE_DUE(p), (MqPos) {after, PG_INT64_MAX}, PG_INT64_MAX, snapshot);
		while (mq_scan_next(&scan, &seen))
		{
			CHECK_FOR_INTERRUPTS();
			if (seen.look == MQ_LOOK_GONE)
				continue;
			if (seen.pos.t > upto)
			{
				*next = Min(*next, Min(seen.pos.t, MQ_COUNT_NEVER));
				break;
			}
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
	snapshot = mq_latest_snapshot();
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
		if (mq_row_chain_visible(r, &entry, snapshot, &tuple, &all_dead))
		{
			TimestampTz row_at;

			look = mq_row_judge(&tuple, r->buffer, &holder);
			row_at = DatumGetTimestampTz(heap_getattr(&tuple, r->def->att[MQ_COL_EXPIRES_AT],
													  desc, &isnull));
			if (look != MQ_LOOK_GONE && !isnull && row_at == at)
			{
				e->pos.t = at;
				e->pos.tid = entry;
				e->id = mq_row_tuple_id(r, &tuple);
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
