/*-------------------------------------------------------------------------
 * mq.h
 *		Domain types and limits shared by every layer.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_H
#define MQ_H

#include "compat.h"

#include "datatype/timestamp.h"
#include "storage/itemptr.h"

#define MQ_SCHEMA			"mq"
#define MQ_TABLE_PREFIX		"q_"
#define MQ_ARCHIVE_PREFIX	"a_"
#define MQ_CHANNEL_PREFIX	"mq_"

#define MQ_NAME_MAX			54	/* bytes in a queue's name */
#define MQ_PRIORITY_MAX		9
#define MQ_TEXT_KEY_MAX		1000	/* bytes in key and dedup_id */
#define MQ_ID_MAX			((INT64CONST(1) << 53) - 1)
#define MQ_LAYOUT			1	/* the queue tables' layout this library knows */

/*
 * Lanes, in the order in which a dequeue looks at them: for each priority
 * from 9 down to 0 first the messages that have a time (delayed, retried),
 * then those without.
 */
#define MQ_NLANES			(2 * (MQ_PRIORITY_MAX + 1))
#define MQ_LANE_DUE(prio)	(2 * (MQ_PRIORITY_MAX - (prio)))
#define MQ_LANE_NOW(prio)	(2 * (MQ_PRIORITY_MAX - (prio)) + 1)
#define MQ_LANE_FRESH		MQ_LANE_NOW(0)
#define MQ_LANE_IS_DUE(l)	(((l) & 1) == 0)
#define MQ_LANE_PRIORITY(l) (MQ_PRIORITY_MAX - (l) / 2)

/*
 * A message's place in its lane.  Lanes without time have t = 0 throughout,
 * so that one comparison serves both kinds.
 */
typedef struct MqPos
{
	TimestampTz t;
	int64		id;
} MqPos;

#define MQ_POS_MIN	((MqPos) {DT_NOBEGIN, 0})
#define MQ_POS_MAX	((MqPos) {DT_NOEND, PG_INT64_MAX})

static inline int
mq_pos_cmp(MqPos a, MqPos b)
{
	if (a.t != b.t)
		return a.t < b.t ? -1 : 1;
	if (a.id != b.id)
		return a.id < b.id ? -1 : 1;
	return 0;
}

/* The greatest position below p; ids are positive, so id - 1 is enough. */
static inline MqPos
mq_pos_before(MqPos p)
{
	return (MqPos) {p.t, p.id - 1};
}

/* What places a message: enough to find its lane and its position there. */
typedef struct MqPlace
{
	int64		id;
	ItemPointerData tid;		/* a hint only; may be invalid */
	int16		priority;
	bool		timed;			/* ready_at is not null */
	TimestampTz ready_at;		/* valid if timed */
} MqPlace;

static inline int
mq_place_lane(const MqPlace *p)
{
	return p->timed ? MQ_LANE_DUE(p->priority) : MQ_LANE_NOW(p->priority);
}

/* When a row there is due; DT_NOBEGIN: it has no time (none is due at that one). */
static inline TimestampTz
mq_place_time(const MqPlace *p)
{
	return p->timed ? p->ready_at : DT_NOBEGIN;
}

static inline MqPos
mq_place_pos(const MqPlace *p)
{
	return (MqPos) {p->timed ? p->ready_at : 0, p->id};
}

/* Why a delivery ended without an ack; the text goes to last_error. */
typedef enum MqReason
{
	MQ_REASON_NONE,
	MQ_REASON_ABORT,			/* its transaction rolled back */
	MQ_REASON_LEASE,			/* its lease ended */
	MQ_REASON_SESSION,			/* its session ended */
	MQ_REASON_CRASH				/* the server died */
} MqReason;

/* How a delivery is settled. */
typedef enum MqVerb
{
	MQ_ACK,
	MQ_NACK,
	MQ_REJECT,
	MQ_RELEASE,
	MQ_DROP						/* taken by a producer, to make room */
} MqVerb;

#endif							/* MQ_H */
