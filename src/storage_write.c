/*-------------------------------------------------------------------------
 * storage_write.c
 *		Writing message rows.
 *
 * Plain tables (catalog.c) are written with heap_insert, heap_delete,
 * heap_update and index_insert, for the others see storage_owner.c.  Each write
 * notes what the transaction's end has to know of it (xact.c).
 *-------------------------------------------------------------------------
 */
#include "storage_private.h"

#include "commands/sequence.h"
#include "executor/executor.h"
#include "storage/bufmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

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

/* Where a row with these values stands; its tid is left to the caller. */
static MqPlace
place_of(const MqValues *values)
{
	MqPlace		p = {0};

	p.id = DatumGetInt64(values->v[MQ_COL_ID]);
	p.priority = DatumGetInt16(values->v[MQ_COL_PRIORITY]);
	p.timed = !values->null[MQ_COL_READY_AT];
	p.ready_at = p.timed ? mq_finite_time(DatumGetTimestampTz(values->v[MQ_COL_READY_AT])) : 0;
	return p;
}

static void
note_row(MqTouch *t, const MqValues *values, ItemPointer tid)
{
	MqPlace		p = place_of(values);

	p.tid = *tid;
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
		return mq_owner_insert(def, rel, values, id);
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

/*
 * Finds the version to write, keeping it pinned and unlocked: by its TID or by
 * key.  False if there is none.
 */
static bool
find_for_write(MqReader *r, int64 id, ItemPointer tid, ItemPointer found,
			   MqPlace *place, HeapTuple copy)
{
	HeapTupleData tuple;

	if (mq_row_at_tid(r, id, tid, &tuple))
	{
		if (HeapTupleSatisfiesUpdate(&tuple, GetCurrentCommandId(false), r->buffer) == TM_Invisible)
		{
			LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
			if (!mq_row_by_key(r, id, &tuple))
				return false;
		}
	}
	else if (!mq_row_by_key(r, id, &tuple))
		return false;
	*found = tuple.t_self;
	if (place)
		*place = mq_tuple_place(r->def, RelationGetDescr(r->rel), &tuple);
	if (copy)
		*copy = *heap_copytuple(&tuple);
	LockBuffer(r->buffer, BUFFER_LOCK_UNLOCK);
	return true;
}

/*
 * Deletes message id; where it stood goes to *was, the row as it was to *taken if
 * that is given (in the current memory context).  Waits for whoever holds the row,
 * as a DELETE does; follows it if it was updated.  False if it is gone.
 */
bool
mq_row_delete(MqReader *r, int64 id, ItemPointer tid, MqPlace *was, MqValues *taken)
{
	ItemPointerData at = *tid;

	if (!r->def->plain)
	{
		MqValues	values;

		if (taken == NULL)
			taken = &values;
		if (!mq_owner_delete(r, id, taken))
			return false;
		*was = place_of(taken);
		ItemPointerSetInvalid(&was->tid);
		return true;
	}

	CheckCmdReplicaIdentity(r->rel, CMD_DELETE);
	for (;;)
	{
		TM_FailureData tmfd;
		ItemPointerData found;
		HeapTupleData old;
		TM_Result	result;

		if (!find_for_write(r, id, &at, &found, was, taken ? &old : NULL))
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
		return mq_owner_delete(r, id, taken) ? MQ_TAKEN : MQ_TAKEN_HELD;
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
		return mq_owner_fail(r, id, attempts, ready_at, error);

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

		if (!find_for_write(r, id, &at, &found, NULL, &old))
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
