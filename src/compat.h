/*-------------------------------------------------------------------------
 * compat.h
 *		The one place that knows about PostgreSQL's major versions.
 *
 * The rest of mq is written against the newest signatures; this header maps
 * them onto older servers.  No other file tests PG_VERSION_NUM.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_COMPAT_H
#define MQ_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000 || PG_VERSION_NUM >= 190000
#error "mq supports PostgreSQL 15 to 18"
#endif

#include "access/genam.h"
#include "access/heapam.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/rel.h"

/*
 * The library is built with hidden visibility, so that none of its functions
 * can meet libc's mq_send, mq_receive, mq_open ...  PostgreSQL 15's
 * PGDLLEXPORT exports nothing by itself; 16 and later do it this way.
 */
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))

/* A function callable from SQL; 15 does not export it by itself. */
#define MQ_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

/* Relation file numbers and locators got their names in 16. */
#if PG_VERSION_NUM < 160000
typedef Oid RelFileNumber;
#define InvalidRelFileNumber InvalidOid
#define MqRelFileNumber(rel) ((rel)->rd_node.relNode)
#else
#define MqRelFileNumber(rel) ((rel)->rd_locator.relNumber)
#endif

/* This process's number among all PGPROCs. */
#if PG_VERSION_NUM < 170000
#define MqMyProcNumber() (MyProc->pgprocno)
#define MqVxidIsRecovered(vxid) VirtualTransactionIdIsRecoveredPreparedXact(vxid)
#else
#define MqMyProcNumber() MyProcNumber
#define MqVxidIsRecovered(vxid) VirtualTransactionIdIsRecoveredPreparedXact(vxid)
#endif

/* heap_update says which indexes want entries since 16. */
static inline TM_Result
mq_compat_heap_update(Relation rel, ItemPointer otid, HeapTuple newtup,
					  CommandId cid, TM_FailureData *tmfd,
					  LockTupleMode *lockmode, bool *new_entries)
{
#if PG_VERSION_NUM < 160000
	TM_Result	r = heap_update(rel, otid, newtup, cid, InvalidSnapshot, true,
								tmfd, lockmode);

	*new_entries = !HeapTupleIsHeapOnly(newtup);
	return r;
#else
	TU_UpdateIndexes ui;
	TM_Result	r = heap_update(rel, otid, newtup, cid, InvalidSnapshot, true,
								tmfd, lockmode, &ui);

	*new_entries = (ui != TU_None);
	return r;
#endif
}

/* index_beginscan takes instrumentation since 18. */
static inline IndexScanDesc
mq_compat_index_beginscan(Relation heap, Relation index, Snapshot snapshot,
						  int nkeys)
{
#if PG_VERSION_NUM < 180000
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#endif
}

/*
 * libpq/libpq.h can't be included without the GSSAPI headers the server was
 * built with.
 */
extern bool pq_check_connection(void);

/* Ownership checks were unified in 16. */
#if PG_VERSION_NUM < 160000
#define mq_compat_owns_database(db, role) pg_database_ownercheck(db, role)
#else
#define mq_compat_owns_database(db, role) object_ownercheck(DatabaseRelationId, db, role)
#endif

/* The pg_database row of a database whose DROP was interrupted (16, backpatched). */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB (-2)
#endif

#endif							/* MQ_COMPAT_H */
