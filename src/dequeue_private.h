/*-------------------------------------------------------------------------
 * dequeue_private.h
 *		What the files dequeue*.c share: a claim in progress.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_DEQUEUE_PRIVATE_H
#define MQ_DEQUEUE_PRIVATE_H

#include "dequeue.h"

#define MQ_CLAIM_BATCH	256		/* candidates taken in one go */

/* A candidate that is leased but not delivered yet. */
typedef struct Taken
{
	MqLease    *lease;
	int			claim;
	int64		id;
	ItemPointerData tid;
	ItemPointerData was;		/* the lease's, untouched: an UPDATE changes it */
	int			lane;
	MqPos		pos;
	MqHolder	holder;
	MqLook		look;
	bool		from_failed;
	bool		early;			/* its time has not come: place says when */
	bool		put_off;		/* failed, and its row says so since */
	TimestampTz ready_at;		/* from_failed: of the row, as far as was known */
	bool		back;			/* it goes back where it was */
	bool		ours;			/* a failed one that this transaction has written */
	bool		expired;
	TimestampTz expires_at;
	uint64		key;			/* expired in an ordered queue: hash of its key */
	MqPlace		place;
	MqReason	reason;
	int32		attempts;
} Taken;

/* One of the queues of a claim. */
typedef struct Source
{
	MqDef	   *def;
	Relation	rel;
	MqTouch    *touch;
	int64		duration;		/* of its leases */
	int			got;			/* deliveries so far */
	TimestampTz next;			/* with match: when another comes due; wall */
} Source;

/* A claim in progress. */
typedef struct Claimer
{
	const MqDequeue *d;
	Source	   *sources;		/* d->nqueues of them */
	MqDef	   *def;			/* of the one that is being claimed from */
	Relation	rel;
	MqTouch    *touch;
	MqReader	reader;
	int64		receipt;
	int64		duration;
	MqMatch		match;			/* if d->match */
	int			got;			/* over all of them */
	MqDelivery *out;
	int			max_out;
	bool		peek;			/* only look whether there is one */
	bool		drop;			/* take them to make room; peek is set as well */
	bool		ordered;		/* the queue was when we last looked */
	bool		full;			/* the lease table is full, or that of keys */
	MqDef	   *full_def;		/* ... for this queue */
	bool		ended;			/* the batch is complete */
	bool		buried;			/* some went to the dead letters, which makes
								 * room once this transaction has committed */
	int64		blocks;
	TimestampTz expired_upto;	/* what others are taking away as expired */
} Claimer;

/* dequeue.c */
extern void mq_claim(Claimer *c);
extern void mq_claim_all(Claimer *c);
extern void mq_claim_open_queues(Claimer *c);

/* dequeue_take.c */
extern int64 mq_claim_blocks_touched(void);
extern void mq_claim_note_held(MqQueue *q, TimestampTz steady);
extern int	mq_claim_allowed(MqQueue *q, int want, TimestampTz *now);
extern bool mq_claim_one_allowed(Claimer *c, MqQueue *q);
extern int	mq_claim_take(Claimer *c, MqQueue *q, TimestampTz now, Taken *taken, int want,
						  MqNext *next, MqScanJob *job);
extern bool mq_claim_take_new(Claimer *c, MqQueue *q, int lane, MqPos pos, ItemPointer tid,
							  TimestampTz now, Taken *t);
extern int	mq_claim_take_found(Claimer *c, MqQueue *q, TimestampTz now, Taken *taken,
								const MqFound *found, int nfound);
extern int	mq_claim_take_of_key(Claimer *c, MqQueue *q, TimestampTz now, Taken *t);
extern void mq_claim_sift(Claimer *c, Taken *taken, int n, TimestampTz now);

/* dequeue_wait.c */
extern long mq_claim_prepare_to_wait(Claimer *c, TimestampTz deadline);

#endif							/* MQ_DEQUEUE_PRIVATE_H */
