/*-------------------------------------------------------------------------
 * admin.c
 *		Entry points of administration and of the views.
 *-------------------------------------------------------------------------
 */
#include "worker.h"

#include "archive.h"
#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "clock.h"
#include "commands/extension.h"
#include "dedup.h"
#include "throttle.h"
#include "executor/spi.h"
#include "utils/memutils.h"
#include "fmgr.h"
#include "funcapi.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "access/genam.h"
#include "access/table.h"
#include "access/xlog.h"

MQ_FUNCTION(mq_sql_as_extension);
MQ_FUNCTION(mq_sql_as_queue_owner);
MQ_FUNCTION(mq_sql_as_queue_reader);
MQ_FUNCTION(mq_sql_browse);
MQ_FUNCTION(mq_sql_lease_state);
MQ_FUNCTION(mq_sql_leases);
MQ_FUNCTION(mq_sql_stats);
MQ_FUNCTION(mq_sql_worker_start);
MQ_FUNCTION(mq_sql_dedup_forget);
MQ_FUNCTION(mq_sql_archive_newest);
MQ_FUNCTION(mq_sql_referrers);

/* Who owns the extension. */
static Oid
extension_owner(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tup;
	Oid			owner = InvalidOid;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("mq"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tup = systable_getnext(scan)))
		owner = ((Form_pg_extension) GETSTRUCT(tup))->extowner;
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (!OidIsValid(owner))
		elog(ERROR, "extension mq does not exist");
	return owner;
}

/*
 * Runs the inner call; an error comes without the inner function's context,
 * which tells its caller nothing.
 */
static void
run_without_context(Oid role, const char *sql, int nargs, Oid *types,
					Datum *values, const char *nulls)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		mq_run_as_owner(role, sql, nargs, types, values, nulls, SPI_OK_SELECT, false);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		error->context = NULL;
		ReThrowError(error);
	}
	PG_END_TRY();
}

/*
 * Calls the function of the same name with a `$` behind it as another role,
 * with the same arguments, after `caller` if that is valid.
 */
static Datum
call_inner(FunctionCallInfo fcinfo, Oid role, Oid caller)
{
	Oid			fn = fcinfo->flinfo->fn_oid;
	HeapTuple	tup = SearchSysCache1(PROCOID, ObjectIdGetDatum(fn));
	Form_pg_proc proc;
	StringInfoData sql;
	int			nargs = 0;
	Oid			types[FUNC_MAX_ARGS + 1];
	Datum		values[FUNC_MAX_ARGS + 1];
	char		nulls[FUNC_MAX_ARGS + 1];
	Datum		result = (Datum) 0;
	Oid			rettype;

	if (!HeapTupleIsValid(tup))
		elog(ERROR, "cache lookup failed for function %u", fn);
	proc = (Form_pg_proc) GETSTRUCT(tup);
	rettype = proc->prorettype;
	if (OidIsValid(caller))
	{
		types[nargs] = OIDOID;
		values[nargs] = ObjectIdGetDatum(caller);
		nulls[nargs++] = ' ';
	}
	for (int i = 0; i < proc->pronargs; i++)
	{
		types[nargs] = proc->proargtypes.values[i];
		values[nargs] = PG_GETARG_DATUM(i);
		nulls[nargs++] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s(",
					 quote_qualified_identifier(MQ_SCHEMA, psprintf("%s$", NameStr(proc->proname))));
	for (int i = 0; i < nargs; i++)
		appendStringInfo(&sql, "%s$%d", i > 0 ? ", " : "", i + 1);
	appendStringInfoChar(&sql, ')');
	ReleaseSysCache(tup);

	SPI_connect();
	run_without_context(role, sql.data, nargs, types, values, nulls);
	fcinfo->isnull = rettype == VOIDOID;
	if (rettype != VOIDOID && SPI_processed == 1)
	{
		int16		len;
		bool		byval;

		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &fcinfo->isnull);
		get_typlenbyval(rettype, &len, &byval);
		if (!fcinfo->isnull)
			result = SPI_datumTransfer(result, byval, len);
	}
	SPI_finish();
	if (rettype == VOIDOID)
		PG_RETURN_VOID();
	return result;
}

/*
 * Administration that needs the extension owner's rights (nobody else may
 * create in schema mq); the inner function checks the caller's.
 */
Datum
mq_sql_as_extension(PG_FUNCTION_ARGS)
{
	mq_require_preload();
	mq_check_writable("mq administration");
	return call_inner(fcinfo, extension_owner(), GetUserId());
}

/*
 * Administration for a queue's owner or a superuser that touches rows, and so
 * may run what the owner hung on the table: always as the owner.
 */
Datum
mq_sql_as_queue_owner(PG_FUNCTION_ARGS)
{
	MqDef	   *def;
	Relation	rel;

	mq_require_preload();
	mq_check_writable("mq administration");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queue must not be null")));
	rel = mq_queue_open(mq_text_name(PG_GETARG_TEXT_PP(0)), AccessShareLock, &def);
	relation_close(rel, NoLock);
	if (!mq_is_owner(def, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of queue \"%s\"", def->name)));
	return call_inner(fcinfo, def->owner, InvalidOid);
}

/*
 * The queue whose rows the caller wants to see.  Even planning a SELECT can
 * run what its owner hung on the table, so that is done as the owner, and a
 * table that is no queue's any more is not read at all.
 */
static MqDef *
queue_to_read(FunctionCallInfo fcinfo)
{
	MqDef	   *def;
	Relation	rel;

	mq_require_preload();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queue must not be null")));
	rel = mq_queue_open(mq_text_name(PG_GETARG_TEXT_PP(0)), AccessShareLock, &def);
	mq_require(def, ACL_SELECT);
	relation_close(rel, NoLock);
	return def;
}

Datum
mq_sql_as_queue_reader(PG_FUNCTION_ARGS)
{
	MqDef	   *def = queue_to_read(fcinfo);

	return call_inner(fcinfo, def->owner, InvalidOid);
}

Datum
mq_sql_browse(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MqDef	   *def = queue_to_read(fcinfo);
	Oid			types[2] = {TEXTOID, INT4OID};
	Datum		v[2] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)};
	char		nulls[2] = {' ', PG_ARGISNULL(1) ? 'n' : ' '};

	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	run_without_context(def->owner, "SELECT * FROM mq.browse$($1, $2)", 2, types, v, nulls);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
	return (Datum) 0;
}

static bool
has_failed(const MqLease *l)
{
	return l->state == MQ_LEASE_FAILED ||
		(l->state == MQ_LEASE_SETTLING && l->from == MQ_LEASE_FAILED);
}

static const char *
lease_state(const MqLease *l)
{
	return !has_failed(l) ? "leased" : l->until > mq_now() ? "delayed" : "ready";
}

/* Whether the current user may see what happens in this queue. */
static bool
may_look(Oid relid)
{
	bool		missing = false;

	return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR) ||
		pg_class_aclcheck_ext(relid, GetUserId(),
							  ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE,
							  &missing) == ACLCHECK_OK;
}

/*
 * What the lease table says of a message: leased, delayed or ready (a failed
 * delivery known to memory only), or null.
 */
Datum
mq_sql_lease_state(PG_FUNCTION_ARGS)
{
	const char *state = NULL;
	Oid			relid;
	int			partition;
	MqQueue    *q;
	MqLease    *l;

	mq_require_preload();
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	relid = PG_GETARG_OID(0);
	if (!may_look(relid))
		PG_RETURN_NULL();
	partition = mq_partition_of(MyDatabaseId, relid);
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, relid, NULL);
	l = q ? mq_lease_find(q, PG_GETARG_INT64(1)) : NULL;
	if (l)
		state = lease_state(l);
	mq_unlock(partition);
	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(state));
}

typedef struct Found
{
	Oid			relid;
	MqLease		lease;
} Found;

/*
 * The entries of the lease table that the caller may see, of one relation or
 * (null) of this database.
 */
Datum
mq_sql_leases(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			only = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	Found	   *found = NULL;
	int			n = 0;
	int			max = 0;

	mq_require_preload();
	InitMaterializedSRF(fcinfo, 0);
	for (int p = 0; p < MQ_PARTITIONS; p++)
	{
		int			want = 0;
		dlist_iter	qi;

		if (OidIsValid(only) && p != mq_partition_of(MyDatabaseId, only))
			continue;

		/* count, make room without the lock, then copy what fits */
		mq_lock(p);
		dlist_foreach(qi, &mq_shared->partition[p])
			want += dlist_container(MqQueue, node, qi.cur)->nleases;
		mq_unlock(p);
		if (want == 0)
			continue;
		want += want / 8 + 16;
		if (n + want > max)
		{
			max = n + want;
			found = found ? repalloc_huge(found, max * sizeof(Found)) :
				MemoryContextAllocHuge(CurrentMemoryContext, max * sizeof(Found));
		}
		mq_lock(p);
		dlist_foreach(qi, &mq_shared->partition[p])
		{
			MqQueue    *q = dlist_container(MqQueue, node, qi.cur);
			dlist_iter	li;

			if (q->dboid != MyDatabaseId || (OidIsValid(only) && q->relid != only))
				continue;
			for (int list = 0; list < 2; list++)
				dlist_foreach(li, list == 0 ? &q->leases : &q->failed)
				{
					MqLease    *l = dlist_container(MqLease, node, li.cur);

					if (n == max)
						break;
					/* for mq.in_flight what makes room for others is not */
					if (l->dropping && !OidIsValid(only))
						continue;
					found[n].relid = q->relid;
					found[n++].lease = *l;
				}
		}
		mq_unlock(p);
	}
	for (int i = 0; i < n; i++)
	{
		MqLease    *l = &found[i].lease;
		Datum		v[9];
		bool		null[9] = {false};
		bool		failed = has_failed(l);
		bool		open = l->state == MQ_LEASE_OPEN ||
			(l->state == MQ_LEASE_SETTLING && l->from == MQ_LEASE_OPEN);

		if (i == 0 || found[i].relid != found[i - 1].relid)
			if (!may_look(found[i].relid))
			{
				while (i + 1 < n && found[i + 1].relid == found[i].relid)
					i++;
				continue;
			}
		v[0] = ObjectIdGetDatum(found[i].relid);
		v[1] = Int64GetDatum(l->id);
		v[2] = CStringGetTextDatum(lease_state(l));
		v[3] = Int64GetDatum(l->receipt);
		v[4] = CStringGetTextDatum(l->consumer);
		v[5] = Int32GetDatum(l->pid);
		v[6] = Int32GetDatum(l->attempts + 1);
		v[7] = TimestampTzGetDatum(l->leased_at);
		v[8] = TimestampTzGetDatum(mq_wall_of(l->until));
		null[3] = null[4] = null[5] = null[7] = failed;
		null[8] = failed || open || l->session || l->until == DT_NOEND;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, v, null);
	}
	return (Datum) 0;
}

/* The counters of one queue; all null if the relation is none (any more). */
Datum
mq_sql_stats(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	Datum		v[17];
	bool		null[17];
	Oid			relid;
	MqDef	   *def = NULL;
	Relation	rel = NULL;
	MqQueue    *q = NULL;

	mq_require_preload();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	memset(null, true, sizeof(null));
	relid = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	/* whoever has locked his table shall not keep others from their statistics */
	if (OidIsValid(relid) && may_look(relid) && ConditionalLockRelationOid(relid, AccessShareLock))
	{
		rel = try_relation_open(relid, NoLock);
		if (rel == NULL)
			UnlockRelationOid(relid, AccessShareLock);
	}
	if (rel)
		def = mq_def_by_relid(relid);
	if (def && def->refused == NULL && !RecoveryInProgress())
	{
		TimestampTz oldest;

		mq_worker_ensure();
		mq_maint_count_due(def, rel);
		oldest = mq_maint_oldest(def, rel);
		q = mq_queue_try_attach(def, rel);
		if (q)
		{
			int			expired = mq_lease_expire(q, mq_steady());
			MqCounters	n = q->n;
			int64		ready = mq_count_ready(q);
			int64		delayed = mq_count_delayed(q);
			int64		in_flight = mq_throttle_in_flight(q);
			int			waiting = q->nwaiters;

			mq_unlock(q->partition);
			if (expired > 0 || !n.exact)
				mq_worker_poke(DT_NOBEGIN); /* to write them, to count */
			memset(null, false, sizeof(null));
			v[0] = Int64GetDatum(ready);
			v[1] = Int64GetDatum(delayed);
			v[2] = Int64GetDatum(in_flight);
			null[3] = oldest == DT_NOEND || ready == 0;
			if (!null[3])
			{
				Interval   *age = palloc0(sizeof(Interval));

				age->time = Max(0, mq_now() - oldest);
				v[3] = IntervalPGetDatum(age);
			}
			v[4] = Int64GetDatum(n.enqueued);
			v[5] = Int64GetDatum(n.delivered);
			v[6] = Int64GetDatum(n.acked);
			v[7] = Int64GetDatum(n.nacked);
			v[8] = Int64GetDatum(n.expired);
			v[9] = Int64GetDatum(n.redelivered);
			v[10] = Int64GetDatum(n.dead);
			v[11] = Int64GetDatum(waiting);
			v[12] = BoolGetDatum(n.exact);
			v[13] = TimestampTzGetDatum(n.since);
			v[14] = Int64GetDatum(n.rows_examined);
			v[15] = Int64GetDatum(n.blocks_touched);
		}
	}
	if (rel)
		relation_close(rel, AccessShareLock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), v, null)));
}

/*
 * The extension's script asks for a worker, from its commit on; without the
 * library preloaded it ends here.
 */
Datum
mq_sql_worker_start(PG_FUNCTION_ARGS)
{
	mq_require_preload();
	mq_worker_want();
	PG_RETURN_VOID();
}

/* The dedup_ids of a queue whose table is gone; nobody but mq's own functions may. */
Datum
mq_sql_dedup_forget(PG_FUNCTION_ARGS)
{
	mq_require_preload();
	mq_dedup_forget(mq_text_name(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/* The last ack that a partition of an archive holds. */
Datum
mq_sql_archive_newest(PG_FUNCTION_ARGS)
{
	TimestampTz newest = mq_archive_newest(PG_GETARG_OID(0));

	if (newest == DT_NOBEGIN)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(newest);
}

/*
 * What refers to a queue, or to an exchange, a line each; null if nothing does.
 * The latest committed state is asked: a transaction whose snapshot is older
 * than the lock it waited for must not drop what has come to be referred to.
 * For mq's own functions, as the extension's owner.
 */
Datum
mq_sql_referrers(PG_FUNCTION_ARGS)
{
	static const char *const of_queue =
		"SELECT pg_catalog.string_agg(r.line, E'\\n' ORDER BY r.line) FROM ("
		"SELECT pg_catalog.format('Queue \"%s\" has it as dead-letter queue.', q.name) FROM mq.queue$ q "
		"WHERE q.dead_letter OPERATOR(pg_catalog.=) $1 AND mq.relation$(q.name) IS NOT NULL "
		"UNION ALL "
		"SELECT pg_catalog.format('Queue \"%s\" has it as dead_letter_key of the default exchange.', q.name) FROM mq.queue$ q "
		"WHERE q.dead_letter_exchange OPERATOR(pg_catalog.=) '' AND q.dead_letter_key OPERATOR(pg_catalog.=) $1 "
		"AND q.name OPERATOR(pg_catalog.<>) $1 AND mq.relation$(q.name) IS NOT NULL "
		"UNION ALL "
		"SELECT pg_catalog.format('Exchange \"%s\" is bound to it with pattern \"%s\".', b.exchange, b.pattern) FROM mq.binding$ b "
		"WHERE b.queue OPERATOR(pg_catalog.=) $1) r (line)";
	static const char *const of_exchange =
		"SELECT pg_catalog.string_agg(r.line, E'\\n' ORDER BY r.line) FROM ("
		"SELECT pg_catalog.format('Exchange \"%s\" has it as alternate.', e.name) FROM mq.exchange$ e "
		"WHERE e.alternate OPERATOR(pg_catalog.=) $1 "
		"UNION ALL "
		"SELECT pg_catalog.format('Queue \"%s\" has it as dead-letter exchange.', q.name) FROM mq.queue$ q "
		"WHERE q.dead_letter_exchange OPERATOR(pg_catalog.=) $1 AND mq.relation$(q.name) IS NOT NULL) r (line)";
	bool		exchange = PG_GETARG_BOOL(0);
	Oid			type = TEXTOID;
	Datum		name = PG_GETARG_DATUM(1);
	MemoryContext caller = CurrentMemoryContext;
	text	   *lines = NULL;
	bool		isnull;
	Datum		d;

	SPI_connect();
	mq_run_as_owner(GetUserId(), exchange ? of_exchange : of_queue, 1, &type, &name, NULL,
					SPI_OK_SELECT, true);
	d = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
	{
		MemoryContext spi = MemoryContextSwitchTo(caller);

		lines = DatumGetTextPCopy(d);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	if (lines == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(lines);
}
