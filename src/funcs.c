/*-------------------------------------------------------------------------
 * funcs.c
 *		SQL entry points of the verbs: check, unpack, call, pack.
 *-------------------------------------------------------------------------
 */
#include "produce.h"
#include "utility.h"

#include "length.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "clock.h"
#include "dedup.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

MQ_FUNCTION(mq_sql_enqueue);
MQ_FUNCTION(mq_sql_enqueue_batch);
MQ_FUNCTION(mq_sql_enqueue_redriven);
MQ_FUNCTION(mq_sql_dequeue);
MQ_FUNCTION(mq_sql_dequeue_any);
MQ_FUNCTION(mq_sql_ack_dequeue);
MQ_FUNCTION(mq_sql_ack);
MQ_FUNCTION(mq_sql_ack_message);
MQ_FUNCTION(mq_sql_ack_batch);
MQ_FUNCTION(mq_sql_nack);
MQ_FUNCTION(mq_sql_nack_batch);
MQ_FUNCTION(mq_sql_reject);
MQ_FUNCTION(mq_sql_reject_batch);
MQ_FUNCTION(mq_sql_release);
MQ_FUNCTION(mq_sql_release_batch);
MQ_FUNCTION(mq_sql_extend);
MQ_FUNCTION(mq_sql_extend_batch);
MQ_FUNCTION(mq_sql_wait);
MQ_FUNCTION(mq_sql_not_yet);

/* --------------------------------------------------------------- enqueue */

static Relation
open_for_enqueue(const char *queue, const MqEnqueue *e, MqDef **def)
{
	Relation	rel = mq_queue_open(queue, RowExclusiveLock, def);

	mq_require(*def, ACL_INSERT);
	mq_produce_prepare(*def, rel, e);
	return rel;
}

Datum
mq_sql_enqueue(PG_FUNCTION_ARGS)
{
	const char *queue = mq_arg_queue(fcinfo);
	MqEnqueue	e = mq_arg_enqueue(fcinfo, 0, "mq.enqueue()");
	MqMessage	m;
	MqValues	values;
	MqDef	   *def;
	Relation	rel;
	int64		id;
	bool		inserted;

	m.body = PG_GETARG_DATUM(1);
	m.body_null = PG_ARGISNULL(1);
	m.headers = PG_GETARG_DATUM(2);
	m.headers_null = PG_ARGISNULL(2);
	m.key = PG_GETARG_DATUM(5);
	m.key_null = PG_ARGISNULL(5);
	m.dedup_id = PG_GETARG_DATUM(6);
	m.dedup_id_null = PG_ARGISNULL(6);
	m.data = PG_GETARG_DATUM(9);
	m.data_null = PG_ARGISNULL(9);

	rel = open_for_enqueue(queue, &e, &def);
	mq_enqueue_values(&e, &m, &values);
	mq_produce(def, rel, &e, &values, 1, !m.dedup_id_null, &id, &inserted);
	relation_close(rel, NoLock);
	if (!inserted)
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}

/*
 * mq.redrive's enqueue: queue, body, headers, priority, key, data; the message
 * does not expire, and no dedup_id comes with it.
 */
Datum
mq_sql_enqueue_redriven(PG_FUNCTION_ARGS)
{
	const char *queue = mq_arg_queue(fcinfo);
	MqEnqueue	e = {0};
	MqMessage	m;
	MqValues	values;
	MqDef	   *def;
	Relation	rel;
	int64		id;
	bool		inserted;

	mq_check_writable("mq.redrive()");
	m.body = PG_GETARG_DATUM(1);
	m.body_null = PG_ARGISNULL(1);
	m.headers = PG_GETARG_DATUM(2);
	m.headers_null = PG_ARGISNULL(2);
	m.key = PG_GETARG_DATUM(4);
	m.key_null = PG_ARGISNULL(4);
	m.dedup_id = (Datum) 0;
	m.dedup_id_null = true;
	m.data = PG_GETARG_DATUM(5);
	m.data_null = PG_ARGISNULL(5);

	rel = open_for_enqueue(queue, &e, &def);
	/* the queue may have become ordered since */
	if (!PG_ARGISNULL(3) && !def->ordered)
		e.priority = PG_GETARG_INT16(3);
	mq_enqueue_values(&e, &m, &values);
	mq_length_reserve(def, rel, 1);
	inserted = mq_row_insert(def, rel, &values, &id);
	relation_close(rel, NoLock);
	if (!inserted)
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}

Datum
mq_sql_enqueue_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *queue = mq_arg_queue(fcinfo);
	MqEnqueue	e = mq_arg_enqueue(fcinfo, 0, "mq.enqueue()");
	MqArray	bodies = mq_arg_array(fcinfo, 1, "bodies");
	MqArray	headers = mq_arg_array(fcinfo, 2, "headers");
	MqArray	keys = mq_arg_array(fcinfo, 5, "keys");
	MqArray	dedup_ids = mq_arg_array(fcinfo, 6, "dedup_ids");
	MqArray	datas = mq_arg_array(fcinfo, 9, "datas");
	int			n = -1;
	MqValues   *values;
	MqDef	   *def;
	Relation	rel;
	int64	   *ids;
	bool	   *inserted;

	mq_arg_same_length(&n, &bodies, "bodies");
	mq_arg_same_length(&n, &headers, "headers");
	mq_arg_same_length(&n, &keys, "keys");
	mq_arg_same_length(&n, &dedup_ids, "dedup_ids");
	mq_arg_same_length(&n, &datas, "datas");
	n = Max(n, 0);				/* array_agg over no rows is null */

	rel = open_for_enqueue(queue, &e, &def);
	values = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MqValues) * (Size) Max(n, 1));
	ids = palloc(sizeof(int64) * Max(n, 1));
	inserted = palloc(sizeof(bool) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		MqMessage	m;

		mq_array_part(&bodies, i, &m.body, &m.body_null);
		mq_array_part(&headers, i, &m.headers, &m.headers_null);
		mq_array_part(&keys, i, &m.key, &m.key_null);
		mq_array_part(&dedup_ids, i, &m.dedup_id, &m.dedup_id_null);
		mq_array_part(&datas, i, &m.data, &m.data_null);
		mq_enqueue_values(&e, &m, &values[i]);
	}
	mq_produce(def, rel, &e, values, n, dedup_ids.n > 0, ids, inserted);
	relation_close(rel, NoLock);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < n; i++)
	{
		Datum		v = Int64GetDatum(ids[i]);
		bool		null = !inserted[i];

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &v, &null);
	}
	return (Datum) 0;
}

/* --------------------------------------------------------------- dequeue */

/* The columns of mq.message, in order. */
enum
{
	MSG_QUEUE, MSG_ID, MSG_RECEIPT, MSG_ATTEMPT, MSG_ENQUEUED_AT,
	MSG_LEASE_UNTIL, MSG_PRIORITY, MSG_KEY, MSG_HEADERS, MSG_BODY, MSG_DATA,
	MSG_DEDUP_ID, MSG_EXPIRES_AT, MSG_LAST_ERROR, MSG_NCOLS
};

/*
 * A column of the row, safe to keep when the row is deleted.
 */
static void
copy_column(const MqValues *from, MqColumn c, Datum *v, bool *null)
{
	*v = from->v[c];
	*null = from->null[c];
	if (!*null && VARATT_IS_EXTERNAL(DatumGetPointer(*v)))
		*v = PointerGetDatum(detoast_external_attr((struct varlena *) DatumGetPointer(*v)));
}

static void
put_delivery(ReturnSetInfo *rsinfo, MqReader *r, Datum queue, const MqDelivery *d)
{
	Datum		v[MSG_NCOLS];
	bool		null[MSG_NCOLS] = {false};
	MqValues	row;

	mq_row_values(r, d->row.tuple, &row);
	v[MSG_QUEUE] = queue;
	v[MSG_ID] = Int64GetDatum(d->row.place.id);
	v[MSG_RECEIPT] = Int64GetDatum(d->receipt);
	v[MSG_ATTEMPT] = Int32GetDatum(d->attempts + 1);
	v[MSG_ENQUEUED_AT] = row.v[MQ_COL_ENQUEUED_AT];
	null[MSG_ENQUEUED_AT] = row.null[MQ_COL_ENQUEUED_AT];
	v[MSG_LEASE_UNTIL] = TimestampTzGetDatum(d->until);
	null[MSG_LEASE_UNTIL] = d->until == DT_NOEND;
	v[MSG_PRIORITY] = Int16GetDatum(d->row.place.priority);
	copy_column(&row, MQ_COL_KEY, &v[MSG_KEY], &null[MSG_KEY]);
	copy_column(&row, MQ_COL_HEADERS, &v[MSG_HEADERS], &null[MSG_HEADERS]);
	copy_column(&row, MQ_COL_BODY, &v[MSG_BODY], &null[MSG_BODY]);
	copy_column(&row, MQ_COL_DATA, &v[MSG_DATA], &null[MSG_DATA]);
	copy_column(&row, MQ_COL_DEDUP_ID, &v[MSG_DEDUP_ID], &null[MSG_DEDUP_ID]);
	v[MSG_EXPIRES_AT] = row.v[MQ_COL_EXPIRES_AT];
	null[MSG_EXPIRES_AT] = row.null[MQ_COL_EXPIRES_AT];
	if (d->reason == MQ_REASON_NONE)
		copy_column(&row, MQ_COL_LAST_ERROR, &v[MSG_LAST_ERROR], &null[MSG_LAST_ERROR]);
	else
		v[MSG_LAST_ERROR] = CStringGetTextDatum(mq_reason_text(d->reason));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, null);
}

/* Puts the deliveries of one queue; its table is locked. */
static void
put_deliveries(ReturnSetInfo *rsinfo, const MqDelivery *d, int n)
{
	MqDef	   *def = d->def;
	Relation	rel = relation_open(def->relid, NoLock);
	Datum		name = CStringGetTextDatum(def->name);
	MqReader	r;

	mq_reader_init(&r, def, rel);
	for (int i = 0; i < n; i++)
		put_delivery(rsinfo, &r, name, &d[i]);
	relation_close(rel, NoLock);
}

/* dequeue's arguments from max on start at position `at`. */
static Datum
dequeue(FunctionCallInfo fcinfo, const char *const *queues, int nqueues, int at)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MqDequeue	d = {0};
	MqDelivery *deliveries;
	int			n;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		!(rsinfo->allowedModes & SFRM_Materialize))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("set-valued function called in context that cannot accept a set"),
				 errhint("Call it in FROM.")));
	d.queues = queues;
	d.nqueues = nqueues;
	d.max = PG_ARGISNULL(at) ? 1 : PG_GETARG_INT32(at);
	if (d.max < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max must be at least 1")));
	d.lease = mq_arg_lease(fcinfo, at + 1, -1);
	d.wait = mq_arg_interval(fcinfo, at + 2, "wait", 0, 0);
	d.auto_ack = !PG_ARGISNULL(at + 3) && PG_GETARG_BOOL(at + 3);
	d.session = !PG_ARGISNULL(at + 4) && PG_GETARG_BOOL(at + 4);
	if (d.session && d.lease >= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease and session cannot be given together")));
	if (d.session && d.auto_ack)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("auto_ack and session cannot be given together")));
	d.consumer = PG_ARGISNULL(at + 5) ? application_name : text_to_cstring(PG_GETARG_TEXT_PP(at + 5));
	if (d.consumer == NULL)
		d.consumer = "";
	d.match = PG_ARGISNULL(at + 6) ? NULL : PG_GETARG_JSONB_P(at + 6);
	if (d.match && !JB_ROOT_IS_OBJECT(d.match))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("match must be an object"),
				 errdetail("It holds the headers that messages must have.")));
	if (d.session)
		mq_utility_init_session();

	n = mq_dequeue(&d, &deliveries);
	rsinfo->returnMode = SFRM_Materialize;
	if (n > 0)
		InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int from = 0, to; from < n; from = to)
	{
		for (to = from + 1; to < n && deliveries[to].def == deliveries[from].def; to++)
			;
		put_deliveries(rsinfo, &deliveries[from], to - from);
	}
	for (int i = 0; i < n; i++)
		if (i == 0 || deliveries[i].def != deliveries[i - 1].def)
			mq_handed_out(deliveries[i].def->relid);
	return (Datum) 0;
}

Datum
mq_sql_dequeue(PG_FUNCTION_ARGS)
{
	const char *queue = mq_arg_queue(fcinfo);

	return dequeue(fcinfo, &queue, 1, 1);
}

/* The names of several queues, each once, in the order given. */
Datum
mq_sql_dequeue_any(PG_FUNCTION_ARGS)
{
	MqArray	names;
	const char *queues[MQ_WAIT_QUEUES];
	int			n = 0;

	mq_require_preload();
	mq_arg_not_null(fcinfo, 0, "queues");
	names = mq_arg_array(fcinfo, 0, "queues");
	if (names.n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queues must not be empty")));
	for (int i = 0; i < names.n; i++)
	{
		const char *name;
		bool		again = false;

		if (names.null[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("queues must not contain nulls")));
		name = mq_text_name(DatumGetTextPP(names.v[i]));
		for (int k = 0; k < n && !again; k++)
			again = strcmp(queues[k], name) == 0;
		if (again)
			continue;
		if (n == MQ_WAIT_QUEUES)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("queues must name at most %d queues", MQ_WAIT_QUEUES)));
		queues[n++] = name;
	}
	return dequeue(fcinfo, queues, n, 1);
}

/* ---------------------------------------------------------------- settle */

static Relation
open_for_settle(const char *queue, MqDef **def)
{
	Relation	rel;

	mq_check_writable("settling a message");
	rel = mq_queue_open(queue, RowExclusiveLock, def);
	mq_require(*def, ACL_SELECT | ACL_DELETE);
	mq_worker_ensure();
	return rel;
}

/* One delivery, by queue, id, receipt. */
static bool
settle_one(const char *queue, bool id_null, int64 id, int64 receipt, MqSettleArgs *a)
{
	MqDef	   *def;
	Relation	rel = open_for_settle(queue, &def);
	bool		settled = false;
	int			n;

	a->n = 1;
	a->ids = &id;
	a->id_nulls = &id_null;
	a->receipts = &receipt;
	a->one_receipt = true;
	a->settled = &settled;
	n = mq_settle(def, rel, a);
	relation_close(rel, NoLock);
	return n > 0;
}

/* ids and receipts at positions 1 and 2; false if there are no ids. */
static bool
arg_deliveries(FunctionCallInfo fcinfo, MqSettleArgs *a)
{
	MqArray	ids = mq_arg_array(fcinfo, 1, "ids");
	MqArray	receipts = mq_arg_array(fcinfo, 2, "receipts");
	int64	   *i8;
	int64	   *r8;

	if (ids.n <= 0)
		return false;
	if (receipts.n < 0)
		mq_arg_not_null(fcinfo, 2, "receipts");
	if (receipts.n != 1 && receipts.n != ids.n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("receipts has %d elements, ids has %d", receipts.n, ids.n),
				 errhint("Give one receipt for all, or one for each id.")));
	i8 = palloc(sizeof(int64) * ids.n);
	r8 = palloc(sizeof(int64) * receipts.n);
	for (int i = 0; i < ids.n; i++)
		i8[i] = ids.null[i] ? 0 : DatumGetInt64(ids.v[i]);
	for (int i = 0; i < receipts.n; i++)
		r8[i] = receipts.null[i] ? 0 : DatumGetInt64(receipts.v[i]);
	a->n = ids.n;
	a->ids = i8;
	a->id_nulls = ids.null;
	a->receipts = r8;
	a->one_receipt = receipts.n == 1;
	a->settled = palloc0(sizeof(bool) * ids.n);
	return true;
}

static int
settle_batch(FunctionCallInfo fcinfo, MqSettleArgs *a)
{
	const char *queue = mq_arg_queue(fcinfo);
	MqDef	   *def;
	Relation	rel = open_for_settle(queue, &def);
	int			n = 0;

	if (arg_deliveries(fcinfo, a))
		n = mq_settle(def, rel, a);
	relation_close(rel, NoLock);
	return n;
}

static bool
arg_strict(FunctionCallInfo fcinfo, int i)
{
	return !PG_ARGISNULL(i) && PG_GETARG_BOOL(i);
}

static Datum
settle_single(FunctionCallInfo fcinfo, MqSettleArgs *a)
{
	const char *queue = mq_arg_queue(fcinfo);

	mq_arg_not_null(fcinfo, 2, "receipt");
	PG_RETURN_BOOL(settle_one(queue, PG_ARGISNULL(1),
							  PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1),
							  PG_GETARG_INT64(2), a));
}

static const char *
arg_reason(FunctionCallInfo fcinfo, int i)
{
	return PG_ARGISNULL(i) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(i));
}

static void
arg_nack_delay(FunctionCallInfo fcinfo, MqSettleArgs *a)
{
	a->has_delay = !PG_ARGISNULL(3);
	a->delay = mq_arg_interval(fcinfo, 3, "delay", 0, 0);
}

Datum
mq_sql_ack(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_ACK, .strict = arg_strict(fcinfo, 3)};

	return settle_single(fcinfo, &a);
}

Datum
mq_sql_ack_message(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_ACK, .strict = arg_strict(fcinfo, 1)};
	HeapTupleHeader t;
	Datum		queue;
	Datum		id;
	Datum		receipt;
	bool		queue_null;
	bool		id_null;
	bool		receipt_null;

	mq_require_preload();
	mq_arg_not_null(fcinfo, 0, "message");
	t = PG_GETARG_HEAPTUPLEHEADER(0);
	queue = GetAttributeByNum(t, MSG_QUEUE + 1, &queue_null);
	id = GetAttributeByNum(t, MSG_ID + 1, &id_null);
	receipt = GetAttributeByNum(t, MSG_RECEIPT + 1, &receipt_null);
	if (queue_null || (receipt_null && !id_null))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("message has no queue or no receipt")));
	PG_RETURN_BOOL(settle_one(mq_text_name(DatumGetTextPP(queue)), id_null,
							  id_null ? 0 : DatumGetInt64(id),
							  receipt_null ? 0 : DatumGetInt64(receipt), &a));
}

Datum
mq_sql_ack_batch(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_ACK, .strict = arg_strict(fcinfo, 3)};

	PG_RETURN_INT32(settle_batch(fcinfo, &a));
}

Datum
mq_sql_nack(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_NACK, .strict = arg_strict(fcinfo, 5),
	.reason = arg_reason(fcinfo, 4)};

	arg_nack_delay(fcinfo, &a);
	return settle_single(fcinfo, &a);
}

Datum
mq_sql_nack_batch(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_NACK, .strict = arg_strict(fcinfo, 5),
	.reason = arg_reason(fcinfo, 4)};

	arg_nack_delay(fcinfo, &a);
	PG_RETURN_INT32(settle_batch(fcinfo, &a));
}

Datum
mq_sql_reject(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_REJECT, .strict = arg_strict(fcinfo, 4),
	.reason = arg_reason(fcinfo, 3)};

	return settle_single(fcinfo, &a);
}

Datum
mq_sql_reject_batch(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_REJECT, .strict = arg_strict(fcinfo, 4),
	.reason = arg_reason(fcinfo, 3)};

	PG_RETURN_INT32(settle_batch(fcinfo, &a));
}

Datum
mq_sql_release(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_RELEASE, .strict = arg_strict(fcinfo, 3)};

	return settle_single(fcinfo, &a);
}

Datum
mq_sql_release_batch(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_RELEASE, .strict = arg_strict(fcinfo, 3)};

	PG_RETURN_INT32(settle_batch(fcinfo, &a));
}

/* extend needs the table only to know who may. */
static int
extend(const char *queue, MqSettleArgs *a, int64 duration)
{
	MqDef	   *def;
	Relation	rel;
	int			n;

	mq_check_writable("mq.extend()");
	rel = mq_queue_open(queue, AccessShareLock, &def);
	mq_require(def, ACL_SELECT | ACL_DELETE);
	mq_worker_ensure();
	n = mq_extend(def, rel, a, duration);
	relation_close(rel, AccessShareLock);
	return n;
}

static int64
arg_lease(FunctionCallInfo fcinfo, int i)
{
	mq_arg_not_null(fcinfo, i, "lease");
	return mq_arg_lease(fcinfo, i, 0);
}

Datum
mq_sql_extend(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.strict = arg_strict(fcinfo, 4)};
	const char *queue = mq_arg_queue(fcinfo);
	int64		duration = arg_lease(fcinfo, 3);
	int64		id = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	bool		id_null = PG_ARGISNULL(1);
	int64		receipt;

	mq_arg_not_null(fcinfo, 2, "receipt");
	receipt = PG_GETARG_INT64(2);
	a.n = 1;
	a.ids = &id;
	a.id_nulls = &id_null;
	a.receipts = &receipt;
	a.one_receipt = true;
	PG_RETURN_BOOL(extend(queue, &a, duration) > 0);
}

Datum
mq_sql_extend_batch(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.strict = arg_strict(fcinfo, 4)};
	const char *queue = mq_arg_queue(fcinfo);
	int64		duration = arg_lease(fcinfo, 3);

	if (!arg_deliveries(fcinfo, &a))
		a.n = 0;
	PG_RETURN_INT32(extend(queue, &a, duration));
}

Datum
mq_sql_ack_dequeue(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_ACK};

	const char *queue = mq_arg_queue(fcinfo);

	(void) settle_batch(fcinfo, &a);
	return dequeue(fcinfo, &queue, 1, 3);
}

/* ------------------------------------------------------------------ wait */

static void
cannot_wait(const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
			 errmsg("mq.wait cannot be called %s", why),
			 errhint("Call it at the top level, at READ COMMITTED; it must not keep a snapshot while it waits.")));
}

Datum
mq_sql_wait(PG_FUNCTION_ARGS)
{
	const char *queue = mq_arg_queue(fcinfo);
	int64		timeout;

	mq_arg_not_null(fcinfo, 1, "timeout");
	timeout = mq_arg_interval(fcinfo, 1, "timeout", 0, 0);
	mq_check_writable("mq.wait()");
	if (IsolationUsesXactSnapshot())
		cannot_wait("at REPEATABLE READ or SERIALIZABLE");
	if (ActivePortal && ActivePortal->createSubid != GetCurrentSubTransactionId())
		cannot_wait("inside an exception block");
	if (ActiveSnapshotSet() &&
		(ActivePortal == NULL || ActivePortal->portalSnapshot != GetActiveSnapshot()))
		cannot_wait("inside a function");
	if (ActiveSnapshotSet())
		ForgetPortalSnapshots();
	mq_wait(queue, timeout);
	PG_RETURN_VOID();
}

/* What later versions will do. */
Datum
mq_sql_not_yet(PG_FUNCTION_ARGS)
{
	char	   *name = get_func_name(fcinfo->flinfo->fn_oid);

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("mq.%s is not supported by this version of mq", name ? name : "function")));
	PG_RETURN_NULL();
}
