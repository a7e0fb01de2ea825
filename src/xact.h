/*-------------------------------------------------------------------------
 * xact.h
 *		What this transaction will do to the queues at its end.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_XACT_H
#define MQ_XACT_H

#include "key.h"

#include "access/xact.h"

/* Rows without priority and time, enqueued here: ids lo .. hi, n of them. */
typedef struct MqFresh
{
	int64		lo;
	int64		hi;
	int64		n;
	ItemPointerData tid;		/* of lo */
	SubTransactionId sub;
} MqFresh;

/* A row with priority or time enqueued, or a row written anew. */
typedef struct MqMove
{
	MqPlace		place;			/* where it stands after the commit */
	bool		is_new;
	bool		new_to_key;		/* walks of its key may have passed it */
	bool		is_void;		/* the row was there before, and is gone again */
	MqPlace		was;			/* !is_new: where it stood */
	SubTransactionId sub;
} MqMove;

/* A row deleted by somebody who did not lease it. */
typedef struct MqGone
{
	MqPlace		was;
	int			nmoves;			/* how many moves had been noted by then */
	bool		dead;			/* it went to the dead letters */
	TimestampTz expires_at;		/* ... because of this, and the expiry position
								 * has passed it; else DT_NOEND */
	uint64		key;			/* hash of its key; MQ_KEY_HASH_NONE: it has none,
								 * MQ_KEY_HASH_ANY: not known */
	SubTransactionId sub;
} MqGone;

/* Rows that expire, written here: the least of their times. */
typedef struct MqExpires
{
	TimestampTz at;
	int64		id;				/* of the row if it is one, else 0 */
	ItemPointerData tid;
	SubTransactionId sub;
} MqExpires;

/* A lease taken here. */
typedef struct MqClaim
{
	MqLease    *lease;
	int64		id;
	int64		receipt;
	int64		tokens;			/* the queue's tokens_taken before its own */
	bool		dropping;		/* to make room: never handed out */
	bool		handed_out;		/* the dequeue returned it to its caller */
	bool		settled;		/* an MqSettle of this transaction decides */
	SubTransactionId sub;
} MqClaim;

/* A delivery settled here. */
typedef struct MqSettle
{
	MqLease    *lease;
	int64		id;
	int64		receipt;
	int			claim;			/* index of this transaction's claim, or -1 */
	MqVerb		verb;
	bool		dead;			/* it went to the dead letters */
	bool		row_gone;		/* the row leaves the table */
	int			nmoves;			/* row_gone: how many moves had been noted by then */
	MqPlace		was;			/* row_gone: where it stood */
	SubTransactionId sub;
} MqSettle;

/* Places in the length of a queue taken here; see length.c. */
typedef struct MqReserve
{
	int64		n;
	SubTransactionId sub;
} MqReserve;

/* The queue's definition was changed here. */
typedef struct MqChange
{
	bool		paused;
	bool		ordered;
	bool		dropped;
	MqThrottle	throttle;
	SubTransactionId sub;
} MqChange;

#define MQ_ARRAY(type)	struct { type *a; int n; int max; }

/* All that this transaction did to one queue. */
typedef struct MqTouch
{
	struct MqTouch *next;
	Oid			dboid;
	Oid			relid;
	MqQueue    *hint;
	int			depth;			/* nested calls that are still adding */
	MQ_ARRAY(MqFresh) fresh;
	MQ_ARRAY(MqMove) moves;
	MQ_ARRAY(MqGone) gone;
	int64		deleted_low;	/* least id deleted here, but for what had been
								 * delivered; 0: none */
	MQ_ARRAY(MqExpires) expires;
	MQ_ARRAY(MqReserve) reserves;
	MQ_ARRAY(MqClaim) claims;
	MQ_ARRAY(MqSettle) settles;
	bool		swept;			/* it has moved the expiry position */
	SubTransactionId truncated; /* emptied under this subtransaction */
	MQ_ARRAY(MqChange) changes; /* the last one counts */
	MqPrepared *prepared;		/* reserved at PRE_PREPARE */
} MqTouch;

#define mq_array_reserve(arr, more) \
	mq_array_grow((void **) &(arr).a, &(arr).max, (arr).n, (more), sizeof(*(arr).a))

/*
 * What the layers above do with a touched queue.  None of these may fail,
 * except reserve.
 */
typedef struct MqXactOps
{
	void		(*commit) (MqTouch *t, TransactionId xid);
	void		(*abort) (MqTouch *t);
	void		(*subabort) (MqTouch *t, SubTransactionId sub);
	void		(*precommit) (MqTouch *t);	/* may fail, like reserve */
	void		(*reserve) (MqTouch *t);
	void		(*prepare) (MqTouch *t, TransactionId xid);
	void		(*ended) (void);	/* after all touches of an end */
	void		(*cleanup) (SubTransactionId sub);	/* any end: a scan or wait
													 * that was cut short */
} MqXactOps;

extern void mq_xact_init(const MqXactOps *ops);
extern MqTouch *mq_xact_touch(Oid relid);
extern MqTouch *mq_xact_touched(Oid relid);
extern void mq_xact_note_fresh(MqTouch *t, int64 id, ItemPointer tid);
extern void mq_xact_note_new(MqTouch *t, const MqPlace *place);
extern void mq_xact_note_move(MqTouch *t, const MqPlace *was, const MqPlace *place);
extern void mq_xact_note_deleted(MqTouch *t, int64 id);
extern void mq_xact_note_gone(MqTouch *t, const MqPlace *was, bool dead);
extern void mq_xact_note_expires(MqTouch *t, TimestampTz at, int64 id, ItemPointer tid);
extern void mq_xact_gone_key(MqTouch *t, uint64 key);
extern bool mq_xact_wrote(MqTouch *t, int64 id);
extern void mq_xact_want_end(void);
/* Called once at this transaction's end; a prepared one is not committed. */
typedef void (*MqXactCallback) (bool committed);
extern void mq_xact_at_end(MqXactCallback callback);
extern void mq_array_grow(void **a, int *max, int n, int more, Size size);

#endif							/* MQ_XACT_H */
