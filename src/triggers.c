/*-------------------------------------------------------------------------
 * triggers.c
 *		The triggers on queue tables and on mq's catalog: how writes that do not
 *		come through mq's functions, and new definitions, are noticed.
 *
 * mq's direct writes fire none of them.  Its writes through the executor do:
 * inserts and updates are noted here like anybody's, a delete that settles a
 * delivery is not, its record being the settling.
 */
#include "worker.h"

#include "expiry.h"
#include "length.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

MQ_FUNCTION(mq_sql_queue_before);
MQ_FUNCTION(mq_sql_queue_after);
MQ_FUNCTION(mq_sql_queue_truncate);
MQ_FUNCTION(mq_sql_queue_changed);
MQ_FUNCTION(mq_sql_routing_changed);

static TriggerData *
trigger_data(FunctionCallInfo fcinfo)
{
	mq_require_preload();
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger")));
	return (TriggerData *) fcinfo->context;
}

/* The queue whose table fired the trigger. */
static MqDef *
trigger_queue(TriggerData *data)
{
	MqDef	   *def = mq_def_by_relid(RelationGetRelid(data->tg_relation));

	if (def == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not the table of a queue",
						RelationGetRelationName(data->tg_relation)),
				 errhint("A queue's table is mq.q_<name>; renamed, it can't be written until it has its name back.")));
	if (def->refused)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" cannot be used: %s", def->name, def->refused)));
	return def;
}

/* An UPDATE may take a dedup_id away; a new one nobody would have checked. */
static void
refuse_other_dedup_id(MqDef *def, TupleDesc desc, HeapTuple before, HeapTuple after)
{
	AttrNumber	att = def->att[MQ_COL_DEDUP_ID];
	bool		isnull;
	bool		was_null;
	Datum		is = heap_getattr(after, att, desc, &isnull);
	Datum		was = heap_getattr(before, att, desc, &was_null);

	if (!isnull &&
		(was_null || !DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, was, is))))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the dedup_id of a message cannot be changed")));
}

/*
 * BEFORE INSERT OR UPDATE FOR EACH ROW: refuses what mq can't keep track of.
 * The rest is left to the table's constraints.
 */
Datum
mq_sql_queue_before(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	MqDef	   *def = trigger_queue(data);
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	bool		update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	HeapTuple	tuple = update ? data->tg_newtuple : data->tg_trigtuple;
	bool		isnull;
	int64		id = DatumGetInt64(heap_getattr(tuple, def->att[MQ_COL_ID], desc, &isnull));

	if (!isnull && (id < 1 || id > MQ_ID_MAX))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message id %lld is out of range", (long long) id)));
	if (update)
	{
		bool		was_null;
		int64		was = DatumGetInt64(heap_getattr(data->tg_trigtuple, def->att[MQ_COL_ID],
													 desc, &was_null));

		if (was != id)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the id of a message cannot be changed")));
		refuse_other_dedup_id(def, desc, data->tg_trigtuple, tuple);
		if (def->ordered && !mq_same_key(def, desc, data->tg_trigtuple, tuple))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("the key of a message cannot be changed in an ordered queue")));
	}
	else if (mq_own_insert != def->relid)
	{
		(void) heap_getattr(tuple, def->att[MQ_COL_DEDUP_ID], desc, &isnull);
		if (!isnull)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("dedup_id cannot be given in a plain INSERT"),
					 errhint("Use mq.enqueue.")));
		if (def->ordered)
			mq_require_no_place(def, mq_tuple_place(def, desc, tuple));
		tuple = mq_expiry_tuple(def, desc, tuple);
		mq_length_reserve(def, data->tg_relation, 1);
	}
	return PointerGetDatum(tuple);
}

/* Notes when a row written here expires, if it does. */
static void
note_expires(MqDef *def, MqTouch *t, TupleDesc desc, HeapTuple tuple, MqPlace *place)
{
	bool		isnull;
	Datum		at = heap_getattr(tuple, def->att[MQ_COL_EXPIRES_AT], desc, &isnull);

	if (!isnull)
		mq_xact_note_expires(t, DatumGetTimestampTz(at), place->id, &place->tid);
}

/*
 * Whether walks of the row's key may have passed it as it was: expired, or of
 * another key, which only an UPDATE can do that began before the queue was
 * ordered.
 */
static bool
is_new_to_key(MqDef *def, TupleDesc desc, HeapTuple before, HeapTuple after)
{
	AttrNumber	att = def->att[MQ_COL_EXPIRES_AT];
	bool		isnull;
	bool		was_null;
	TimestampTz is = DatumGetTimestampTz(heap_getattr(after, att, desc, &isnull));
	TimestampTz was = DatumGetTimestampTz(heap_getattr(before, att, desc, &was_null));

	return (!was_null && (isnull || is > was)) || !mq_same_key(def, desc, before, after);
}

/* AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW: notes what was done. */
Datum
mq_sql_queue_after(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	MqDef	   *def = trigger_queue(data);
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	MqTouch    *t = mq_xact_touch(def->relid);
	MqPlace		place = mq_tuple_place(def, desc, data->tg_trigtuple);

	mq_worker_ensure();
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		mq_queue_expect(def, data->tg_relation);
		if (mq_place_lane(&place) == MQ_LANE_FRESH)
			mq_xact_note_fresh(t, place.id, &place.tid);
		else
			mq_xact_note_new(t, &place);
		note_expires(def, t, desc, data->tg_trigtuple, &place);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		MqPlace		after = mq_tuple_place(def, desc, data->tg_newtuple);

		mq_xact_note_move(t, &place, &after);
		t->moves.a[t->moves.n - 1].new_to_key =
			is_new_to_key(def, desc, data->tg_trigtuple, data->tg_newtuple);
		note_expires(def, t, desc, data->tg_newtuple, &after);
	}
	else if (TRIGGER_FIRED_BY_DELETE(data->tg_event) &&
			 !(mq_own_delete.relid == def->relid && mq_own_delete.id == place.id))
	{
		mq_xact_note_gone(t, &place, false);
		if (def->ordered)
			mq_xact_gone_key(t, mq_tuple_key_hash(def, desc, data->tg_trigtuple));
	}
	return PointerGetDatum(NULL);
}

/* AFTER TRUNCATE: at commit leases and lanes are dropped. */
Datum
mq_sql_queue_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	MqDef	   *def = trigger_queue(data);
	MqTouch    *t = mq_xact_touch(def->relid);

	if (t->truncated == InvalidSubTransactionId)
		t->truncated = GetCurrentSubTransactionId();
	return PointerGetDatum(NULL);
}

/*
 * On mq.queue$: other sessions forget what they know, and at commit waiters
 * look again.
 */
Datum
mq_sql_queue_changed(PG_FUNCTION_ARGS)
{
	TriggerData *data = trigger_data(fcinfo);
	TupleDesc	desc = RelationGetDescr(data->tg_relation);
	bool		update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	HeapTuple	tuple = update ? data->tg_newtuple : data->tg_trigtuple;
	Oid			self = RelationGetRelid(data->tg_relation);
	bool		isnull;
	char	   *name = TextDatumGetCString(heap_getattr(tuple, get_attnum(self, "name"), desc, &isnull));
	char	   *table = psprintf(MQ_TABLE_PREFIX "%s", name);
	Oid			relid = get_relname_relid(table, mq_schema_oid(false));

	CacheInvalidateRelcacheByRelid(self);
	if (OidIsValid(relid) && !TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		MqTouch    *t = mq_xact_touch(relid);
		MqChange   *c;
		bool		created;
		MqQueue    *q;

		mq_array_reserve(t->changes, 1);
		c = &t->changes.a[t->changes.n++];
		c->sub = GetCurrentSubTransactionId();
		c->dropped = !update;
		c->paused = DatumGetBool(heap_getattr(tuple, get_attnum(self, "paused"), desc, &isnull));
		c->throttle = mq_throttle_columns(tuple, desc, self);
		c->ordered = DatumGetBool(heap_getattr(tuple, get_attnum(self, "ordered"), desc, &isnull));

		/* the commit shall find the slot: a cache may lag behind the catalog */
		if (update && (q = mq_queue_create(MyDatabaseId, relid, &created)) != NULL)
			mq_unlock(q->partition);
	}
	return PointerGetDatum(NULL);
}

/*
 * On mq.exchange$, mq.exchange_grant$ and mq.binding$, for each statement: every
 * session compiles the exchanges it uses again (route.c).
 */
Datum
mq_sql_routing_changed(PG_FUNCTION_ARGS)
{
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger_data(fcinfo)->tg_relation));
	return PointerGetDatum(NULL);
}
