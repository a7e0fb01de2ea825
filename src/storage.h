/*-------------------------------------------------------------------------
 * storage.h
 *		Reading and writing message rows.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_STORAGE_H
#define MQ_STORAGE_H

#include "catalog.h"
#include "xact.h"

#include "storage/buf.h"
#include "utils/snapshot.h"

/*
 * A reader keeps the page it last looked at pinned, since messages that are
 * delivered together mostly lie together.
 */
typedef struct MqReader
{
	MqDef	   *def;
	Relation	rel;
	BlockNumber nblocks;		/* InvalidBlockNumber: not asked yet */
	Buffer		buffer;
	int64		examined;		/* rows looked at, an index entry and what it
								 * leads to being one */
} MqReader;

/* A row as a look found it; tuple is a copy in the caller's memory context. */
typedef struct MqRow
{
	MqPlace		place;
	int32		attempts;
	TimestampTz expires_at;		/* DT_NOEND: never */
	HeapTuple	tuple;
} MqRow;

typedef enum MqLook
{
	MQ_LOOK_OK,
	MQ_LOOK_GONE,				/* deleted, or not committed */
	MQ_LOOK_HELD				/* another transaction, or ours, is changing or
								 * locking it */
} MqLook;

typedef struct MqHolder
{
	TransactionId xid;
	bool		multi;
} MqHolder;

/* One index entry met by a lane scan. */
typedef struct MqSeen
{
	MqPos		pos;
	MqPlace		place;			/* valid if look isn't GONE */
	MqLook		look;
	MqHolder	holder;
} MqSeen;

/* An entry of the expiry index whose row is there. */
typedef struct MqExpiring
{
	MqExpiryPos pos;
	int64		id;
	ItemPointerData tid;
} MqExpiring;

/* What became of a row that was to be taken without waiting. */
typedef enum MqTaken
{
	MQ_TAKEN,
	MQ_TAKEN_NOT,				/* gone, or not to be taken any more */
	MQ_TAKEN_HELD
} MqTaken;

typedef struct MqScan
{
	MqReader   *reader;
	Relation	index;
	IndexScanDesc desc;
	Snapshot	snapshot;
	int			lane;
	MqPos		from;
	int			phase;
	bool		kill;
	bool		as_seen;		/* what the snapshot sees is MQ_LOOK_OK, whatever
								 * has become of it since */
} MqScan;

/* Values of a row in the order of MqColumn. */
typedef struct MqValues
{
	Datum		v[MQ_NCOLS];
	bool		null[MQ_NCOLS];
} MqValues;

extern void mq_reader_init(MqReader *r, MqDef *def, Relation rel);
extern void mq_reader_done(MqReader *r);
extern MqLook mq_row_look(MqReader *r, int64 id, ItemPointer tid, MqRow *row,
						  MqHolder *holder);
extern bool mq_holder_ended(TransactionId xid, bool multi);

extern bool mq_row_key(MqReader *r, int64 id, ItemPointer tid, text **key);
extern bool mq_row_first_of_key(MqReader *r, const char *key, int len, int64 from,
								int64 stop, TimestampTz now, MqSeen *seen);

extern void mq_scan_begin(MqScan *s, MqReader *r, int lane, MqPos from, int64 hi,
						  Snapshot snapshot);
extern bool mq_scan_next(MqScan *s, MqSeen *seen);
extern void mq_scan_end(MqScan *s);

extern bool mq_row_by_dedup(MqReader *r, Datum dedup_id, int64 *id);
extern void mq_row_choose_id(MqDef *def, MqValues *values);
extern int	mq_storage_expiring(MqReader *r, MqExpiryPos from, TimestampTz upto,
								MqExpiring *found, int max, int64 max_examined,
								MqExpiryPos *last, bool *exhausted,
								TimestampTz *next);
extern bool mq_row_insert(MqDef *def, Relation rel, MqValues *values, int64 *id);
extern void mq_rows_insert(MqDef *def, Relation rel, MqValues *values, int n,
						   int64 *ids, bool *inserted);
extern bool mq_row_delete(MqReader *r, int64 id, ItemPointer tid, MqPlace *was,
						  MqValues *taken);
extern MqTaken mq_row_take_expired(MqReader *r, int64 id, ItemPointer tid,
								   TimestampTz upto, MqRow *row, MqValues *taken);
extern bool mq_row_fail(MqReader *r, int64 id, ItemPointer tid, int32 attempts,
						TimestampTz ready_at, const char *error);
extern void mq_row_values(MqReader *r, HeapTuple tuple, MqValues *values);
extern MqPlace mq_tuple_place(MqDef *def, TupleDesc desc, HeapTuple tuple);
extern text *mq_tuple_key(MqDef *def, TupleDesc desc, HeapTuple tuple);
extern uint64 mq_tuple_key_hash(MqDef *def, TupleDesc desc, HeapTuple tuple);
extern bool mq_same_key(MqDef *def, TupleDesc desc, HeapTuple a, HeapTuple b);
extern int64 mq_storage_count(MqReader *r, TimestampTz upto, int64 *later,
							  Snapshot snapshot, const TransactionId *xids, int nxids,
							  int64 *uncommitted);
extern int64 mq_storage_count_due(MqReader *r, TimestampTz after, TimestampTz upto,
								  TimestampTz *next, Snapshot snapshot);

/* What mq is doing through the executor, for the table's triggers. */
typedef struct MqOwnDelete
{
	Oid			relid;
	int64		id;
} MqOwnDelete;

extern MqOwnDelete mq_own_delete;	/* this row's delivery is being settled */
extern Oid	mq_own_insert;		/* into this table */

extern void mq_run_as_owner(Oid owner, const char *sql, int nargs, Oid *types,
							Datum *values, const char *nulls, int expect,
							bool latest);

#endif							/* MQ_STORAGE_H */
