/*-------------------------------------------------------------------------
 * storage_owner.c
 *		Statements that run as a table's owner.
 *
 * Tables that are not plain (catalog.c) are written by the executor, as their
 * owner and security-restricted, so that no code the owner hung on the table
 * gets more than the owner's rights.
 *-------------------------------------------------------------------------
 */
#include "storage_private.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

MqOwnDelete mq_own_delete = {InvalidOid, 0};
Oid			mq_own_insert = InvalidOid;

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
bool
mq_owner_insert(MqDef *def, Relation rel, MqValues *values, int64 *id)
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

/* The executor's way to delete; the row goes to *taken. */
bool
mq_owner_delete(MqReader *r, int64 id, MqValues *taken)
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
	if (done)
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

/* The executor's way to write a failed delivery: as mq_row_fail. */
bool
mq_owner_fail(MqReader *r, int64 id, int32 attempts, TimestampTz ready_at,
			  const char *error)
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
