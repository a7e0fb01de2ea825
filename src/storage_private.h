/*-------------------------------------------------------------------------
 * storage_private.h
 *		What the files storage*.c share.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_STORAGE_PRIVATE_H
#define MQ_STORAGE_PRIVATE_H

#include "storage.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "utils/snapmgr.h"

/* Minus infinity means "none" in the shared state; one later is due as well. */
static inline TimestampTz
mq_finite_time(TimestampTz t)
{
	return t == DT_NOBEGIN ? DT_NOBEGIN + 1 : t;
}

/* Whether this transaction has written the version. */
static inline bool
mq_row_is_own(HeapTupleHeader header)
{
	TransactionId xmin;

	if (HeapTupleHeaderXminCommitted(header) || HeapTupleHeaderXminInvalid(header))
		return false;
	xmin = HeapTupleHeaderGetRawXmin(header);
	return TransactionIdIsCurrentTransactionId(xmin);
}

/* The latest snapshot; never the transaction's. */
static inline Snapshot
mq_latest_snapshot(void)
{
	return RegisterSnapshot(GetLatestSnapshot());
}

/* storage.c */
extern int64 mq_row_tuple_id(MqReader *r, HeapTuple tuple);
extern MqLook mq_row_judge(HeapTuple tuple, Buffer buffer, MqHolder *holder);
extern bool mq_row_at_tid(MqReader *r, int64 id, ItemPointer tid, HeapTuple tuple);
extern bool mq_row_chain_visible(MqReader *r, ItemPointer tid, Snapshot snapshot,
								 HeapTuple tuple, bool *all_dead);
extern bool mq_row_by_key(MqReader *r, int64 id, HeapTuple tuple);
extern void mq_row_read(MqReader *r, HeapTuple tuple, MqRow *row);

/* storage_owner.c */
extern bool mq_owner_insert(MqDef *def, Relation rel, MqValues *values, int64 *id);
extern bool mq_owner_delete(MqReader *r, int64 id, MqValues *taken);
extern bool mq_owner_fail(MqReader *r, int64 id, int32 attempts, TimestampTz ready_at,
						  const char *error);

#endif							/* MQ_STORAGE_PRIVATE_H */
