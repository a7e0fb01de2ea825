/*-------------------------------------------------------------------------
 * funcs.c
 *		SQL entry points of the verbs: check, unpack, call, pack.
 *-------------------------------------------------------------------------
 */
#include "utility.h"

#include "expiry.h"
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

/* ---------------------------------------------------------------- checks */

#define LONGEST_LEASE	(1000 * 12 * DAYS_PER_MONTH * USECS_PER_DAY)

static void
not_null(FunctionCallInfo fcinfo, int i, const char *name)
{
	if (PG_ARGISNULL(i))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be null", name)));
}

static void
not_yet(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s is not supported by this version of mq", what)));
}

static const char *
arg_queue(FunctionCallInfo fcinfo)
{
	mq_require_preload();
	not_null(fcinfo, 0, "queue");
	return mq_text_name(PG_GETARG_TEXT_PP(0));
}

/* An interval in microseconds, at least `least`; `missing` if null. */
static int64
arg_interval(FunctionCallInfo fcinfo, int i, const char *name, int64 least, int64 missing)
{
	int64		us;

	if (PG_ARGISNULL(i))
		return missing;
	us = mq_interval_us(PG_GETARG_INTERVAL_P(i));
	if (us < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 least > 0 ? errmsg("%s must be greater than zero", name) :
				 errmsg("%s must not be negative", name)));
	return us;
}

/* The length of a lease, as mq.create_queue takes it. */
static int64
arg_lease_length(FunctionCallInfo fcinfo, int i, int64 missing)
{
	int64		us = arg_interval(fcinfo, i, "lease", 1, missing);

	if (us > LONGEST_LEASE)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be at most 1000 years")));
	return us;
}

/* An array argument as Datums; null: -1 elements. */
typedef struct ArrayArg
{
	int			n;
	Datum	   *v;
	bool	   *null;
} ArrayArg;

static ArrayArg
arg_array(FunctionCallInfo fcinfo, int i, const char *name)
{
	ArrayArg	a = {-1, NULL, NULL};
	ArrayType  *array;
	int16		typlen;
	bool		typbyval;
	char		typalign;

	if (PG_ARGISNULL(i))
		return a;
	array = PG_GETARG_ARRAYTYPE_P(i);
	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a one-dimensional array", name)));
	get_typlenbyvalalign(ARR_ELEMTYPE(array), &typlen, &typbyval, &typalign);
	deconstruct_array(array, ARR_ELEMTYPE(array), typlen, typbyval, typalign,
					  &a.v, &a.null, &a.n);
	return a;
}

/* --------------------------------------------------------------- enqueue */

/*
 * The arguments that enqueue and enqueue_batch share, at the same positions:
 * 3 delay, 4 priority, 7 ttl, 8 deliver_at.
 */
static MqEnqueue
arg_enqueue(FunctionCallInfo fcinfo)
{
	MqEnqueue	e = {0};

	mq_check_writable("mq.enqueue()");
	if (!PG_ARGISNULL(3) && !PG_ARGISNULL(8))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("delay and deliver_at cannot be given together")));
	if (!PG_ARGISNULL(3))
	{
		int64		delay = arg_interval(fcinfo, 3, "delay", 0, 0);

		e.timed = delay > 0;
		e.ready_at = mq_time_add(mq_now(), delay);
	}
	if (!PG_ARGISNULL(8))
	{
		e.timed = true;
		e.ready_at = PG_GETARG_TIMESTAMPTZ(8);
		if (TIMESTAMP_NOT_FINITE(e.ready_at))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("deliver_at must be finite")));
	}
	e.priority = PG_ARGISNULL(4) ? 0 : PG_GETARG_INT32(4);
	if (e.priority < 0 || e.priority > MQ_PRIORITY_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("priority %d is out of range", e.priority),
				 errhint("Priorities are 0 to %d, the higher the sooner.", MQ_PRIORITY_MAX)));
	e.ttl = arg_interval(fcinfo, 7, "ttl", 1, 0);
	return e;
}

static Relation
open_for_enqueue(const char *queue, const MqEnqueue *e, MqDef **def)
{
	Relation	rel = mq_queue_open(queue, RowExclusiveLock, def);

	mq_require(*def, ACL_INSERT);
	if ((*def)->ordered)
		mq_require_no_place(*def, (MqPlace) {.priority = e->priority, .timed = e->timed});
	mq_queue_expect(*def, rel);
	mq_worker_ensure();
	return rel;
}

Datum
mq_sql_enqueue(PG_FUNCTION_ARGS)
{
	const char *queue = arg_queue(fcinfo);
	MqEnqueue	e = arg_enqueue(fcinfo);
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
	mq_expiry_values(def, e.ttl, &values);
	if (m.dedup_id_null)
	{
		mq_length_reserve(def, rel, 1);
		inserted = mq_row_insert(def, rel, &values, &id);
	}
	else
		mq_dedup_insert(def, rel, &values, 1, &id, &inserted, mq_length_reserve);
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
	const char *queue = arg_queue(fcinfo);
	MqEnqueue	e = {0};
	MqMessage	m;
	MqValues	values;
	MqDef	   *def;
	Relation	rel;
	int64		id;
	bool		inserted;

	mq_check_writable("mq.redrive()");
	e.priority = PG_ARGISNULL(3) ? 0 : PG_GETARG_INT16(3);
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
	mq_enqueue_values(&e, &m, &values);
	mq_length_reserve(def, rel, 1);
	inserted = mq_row_insert(def, rel, &values, &id);
	relation_close(rel, NoLock);
	if (!inserted)
		PG_RETURN_NULL();
	PG_RETURN_INT64(id);
}

/* One array of messages' parts has to agree in length with the others. */
static void
same_length(int *n, const ArrayArg *a, const char *name)
{
	if (a->n < 0)
		return;
	if (*n >= 0 && a->n != *n)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s has %d elements, other arrays have %d", name, a->n, *n)));
	*n = a->n;
}

static void
part(const ArrayArg *a, int i, Datum *v, bool *null)
{
	*null = a->n < 0 || a->null[i];
	*v = *null ? (Datum) 0 : a->v[i];
}

Datum
mq_sql_enqueue_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *queue = arg_queue(fcinfo);
	MqEnqueue	e = arg_enqueue(fcinfo);
	ArrayArg	bodies = arg_array(fcinfo, 1, "bodies");
	ArrayArg	headers = arg_array(fcinfo, 2, "headers");
	ArrayArg	keys = arg_array(fcinfo, 5, "keys");
	ArrayArg	dedup_ids = arg_array(fcinfo, 6, "dedup_ids");
	ArrayArg	datas = arg_array(fcinfo, 9, "datas");
	int			n = -1;
	MqValues   *values;
	MqDef	   *def;
	Relation	rel;
	int64	   *ids;
	bool	   *inserted;

	same_length(&n, &bodies, "bodies");
	same_length(&n, &headers, "headers");
	same_length(&n, &keys, "keys");
	same_length(&n, &dedup_ids, "dedup_ids");
	same_length(&n, &datas, "datas");
	n = Max(n, 0);				/* array_agg over no rows is null */

	rel = open_for_enqueue(queue, &e, &def);
	values = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MqValues) * (Size) Max(n, 1));
	ids = palloc(sizeof(int64) * Max(n, 1));
	inserted = palloc(sizeof(bool) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		MqMessage	m;

		part(&bodies, i, &m.body, &m.body_null);
		part(&headers, i, &m.headers, &m.headers_null);
		part(&keys, i, &m.key, &m.key_null);
		part(&dedup_ids, i, &m.dedup_id, &m.dedup_id_null);
		part(&datas, i, &m.data, &m.data_null);
		mq_enqueue_values(&e, &m, &values[i]);
		mq_expiry_values(def, e.ttl, &values[i]);
	}
	if (n > 0 && dedup_ids.n > 0)
		mq_dedup_insert(def, rel, values, n, ids, inserted, mq_length_reserve);
	else if (n > 0)
	{
		mq_length_reserve(def, rel, n);
		mq_rows_insert(def, rel, values, n, ids, inserted);
	}
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
	d.lease = arg_lease_length(fcinfo, at + 1, -1);
	d.wait = arg_interval(fcinfo, at + 2, "wait", 0, 0);
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
	const char *queue = arg_queue(fcinfo);

	return dequeue(fcinfo, &queue, 1, 1);
}

/* The names of several queues, each once, in the order given. */
Datum
mq_sql_dequeue_any(PG_FUNCTION_ARGS)
{
	ArrayArg	names;
	const char *queues[MQ_WAIT_QUEUES];
	int			n = 0;

	mq_require_preload();
	not_null(fcinfo, 0, "queues");
	names = arg_array(fcinfo, 0, "queues");
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
	ArrayArg	ids = arg_array(fcinfo, 1, "ids");
	ArrayArg	receipts = arg_array(fcinfo, 2, "receipts");
	int64	   *i8;
	int64	   *r8;

	if (ids.n <= 0)
		return false;
	if (receipts.n < 0)
		not_null(fcinfo, 2, "receipts");
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
	const char *queue = arg_queue(fcinfo);
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
	const char *queue = arg_queue(fcinfo);

	not_null(fcinfo, 2, "receipt");
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
	a->delay = arg_interval(fcinfo, 3, "delay", 0, 0);
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
	not_null(fcinfo, 0, "message");
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
	not_null(fcinfo, i, "lease");
	return arg_lease_length(fcinfo, i, 0);
}

Datum
mq_sql_extend(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.strict = arg_strict(fcinfo, 4)};
	const char *queue = arg_queue(fcinfo);
	int64		duration = arg_lease(fcinfo, 3);
	int64		id = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT64(1);
	bool		id_null = PG_ARGISNULL(1);
	int64		receipt;

	not_null(fcinfo, 2, "receipt");
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
	const char *queue = arg_queue(fcinfo);
	int64		duration = arg_lease(fcinfo, 3);

	if (!arg_deliveries(fcinfo, &a))
		a.n = 0;
	PG_RETURN_INT32(extend(queue, &a, duration));
}

Datum
mq_sql_ack_dequeue(PG_FUNCTION_ARGS)
{
	MqSettleArgs a = {.verb = MQ_ACK};

	const char *queue = arg_queue(fcinfo);

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
	const char *queue = arg_queue(fcinfo);
	int64		timeout;

	not_null(fcinfo, 1, "timeout");
	timeout = arg_interval(fcinfo, 1, "timeout", 0, 0);
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

	not_yet(psprintf("mq.%s", name ? name : "function"));
	PG_RETURN_NULL();
}
