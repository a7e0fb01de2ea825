/*-------------------------------------------------------------------------
 * stats.h
 *		Counters of a queue.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_STATS_H
#define MQ_STATS_H

#include "catalog.h"

#include "utils/snapshot.h"

extern void mq_count_row(MqQueue *q, const MqPlace *place, int n);
extern void mq_count_leased(MqQueue *q, TimestampTz ready_at, int n);
extern int64 mq_count_ready(MqQueue *q);
extern int64 mq_count_length(MqQueue *q);
extern int64 mq_count_delayed(MqQueue *q);
extern FullTransactionId mq_full_xid(TransactionId xid);
extern bool mq_count_seen_by(MqQueue *q, Snapshot snapshot, FullTransactionId xmax);
extern bool mq_count_has(MqQueue *q, FullTransactionId xid);
extern void mq_count_log(MqQueue *q, TransactionId xid, int64 rows, int64 delayed);

#endif							/* MQ_STATS_H */
