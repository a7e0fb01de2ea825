/*-------------------------------------------------------------------------
 * lane.h
 *		Cursors, their lists, and the scans that move them.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_LANE_H
#define MQ_LANE_H

#include "lease.h"
#include "storage.h"

typedef enum MqNext
{
	MQ_NEXT_NONE,				/* nothing deliverable */
	MQ_NEXT_ROW,				/* a candidate, taken off its list, or a retry */
	MQ_NEXT_SCAN,				/* a scan has to find more first */
	MQ_NEXT_WAIT				/* somebody else is scanning */
} MqNext;

typedef struct MqCandidate
{
	int			lane;
	MqPos		pos;
	ItemPointerData tid;
	MqLease    *retry;			/* a failed one that only its lease knows of;
								 * else NULL */
} MqCandidate;

/* A scan this process has the right to. */
typedef struct MqScanJob
{
	Oid			relid;
	int			lane;
	MqPos		from;
	int64		hi;				/* last id of a late range, or PG_INT64_MAX */
	bool		range;
	uint32		resets;
	int			room;
	TimestampTz upto;
	int			nfound;
	MqSeen		found[MQ_STOCK_FRESH];
	MqPos		last;			/* last position examined */
	bool		exhausted;
	TimestampTz next_due;
} MqScanJob;

/* What a lane's lists hold, copied. */
typedef struct MqLaneList
{
	int			n;
	MqLate		e[MQ_STOCK_FRESH + MQ_LATE_MAX];	/* in no order */
	bool		more;			/* there may be rows behind the cursor */
	MqPos		cursor;
	TimestampTz next_due;		/* DT_NOEND: not known, or there are more */
} MqLaneList;

extern void mq_lane_add(MqQueue *q, const MqPlace *place);
extern void mq_lane_add_range(MqQueue *q, int64 lo, int64 hi, int64 n, ItemPointer tid);
extern void mq_lane_defer(MqQueue *q, const MqPlace *place);
extern void mq_lane_block(MqQueue *q, int lane, MqPos pos, int64 hi, ItemPointer tid,
						  const MqHolder *holder);
extern MqNext mq_lane_next(MqQueue *q, TimestampTz now, int limit,
						   MqCandidate *cand, MqScanJob *job);
extern MqNext mq_lane_lowest(MqQueue *q, TimestampTz now, MqCandidate *cand,
							 MqScanJob *job);
extern MqNext mq_lane_head(MqQueue *q, int l, TimestampTz now, MqCandidate *cand,
						   MqScanJob *job);
extern void mq_lane_forget(MqQueue *q, int l, const MqPos *gone, int ngone);
extern bool mq_lane_list(MqQueue *q, int l, TimestampTz now, bool ahead,
						 MqLaneList *list, MqScanJob *job);
extern void mq_lane_scan(MqScanJob *job, MqReader *r);
extern bool mq_lane_merge(MqQueue *q, MqScanJob *job);
extern void mq_lane_scan_abandon(void);
extern bool mq_lane_has_work(MqQueue *q, TimestampTz now);
extern TimestampTz mq_lane_next_due(MqQueue *q);
extern bool mq_lane_scanning(MqQueue *q);
extern void mq_lane_unblock(MqQueue *q, TransactionId xid, bool multi);

#endif							/* MQ_LANE_H */
