/*-------------------------------------------------------------------------
 * stats.h
 *		Counters of a queue.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_STATS_H
#define MQ_STATS_H

#include "catalog.h"

#include "utils/snapshot.h"

/* For count_next, as which infinity counts: DT_NOEND says that no row is later. */
#define MQ_COUNT_NEVER	(END_TIMESTAMP - 1)

extern TimestampTz mq_count_horizon(MqQueue *q, FullTransactionId xid);
extern void mq_count_row(MqQueue *q, const MqPlace *place, int n, TimestampTz horizon);
extern void mq_count_lease(MqLease *l, TimestampTz ready_at);
extern void mq_count_leases_until(MqQueue *q, TimestampTz until);
extern void mq_count_begin(MqQueue *q, bool anew);
extern bool mq_count_end(MqQueue *q);
extern void mq_count_release(void);
extern bool mq_count_abandon(void);
extern int64 mq_count_ready(MqQueue *q);
extern int64 mq_count_length(MqQueue *q);
extern int64 mq_count_delayed(MqQueue *q);
extern FullTransactionId mq_full_xid(FullTransactionId known, TransactionId xid);
extern bool mq_count_by(MqCountedBy *by, Snapshot snapshot, FullTransactionId xmax);
extern bool mq_count_has(const MqCountedBy *by, FullTransactionId xid);
extern void mq_count_log(MqQueue *q, TransactionId xid, int64 rows, int64 later);

#endif							/* MQ_STATS_H */
