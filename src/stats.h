/*-------------------------------------------------------------------------
 * stats.h
 *		Counters of a queue.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_STATS_H
#define MQ_STATS_H

#include "catalog.h"

extern void mq_count_row(MqQueue *q, const MqPlace *place, int n);
extern void mq_count_leased(MqQueue *q, TimestampTz ready_at, int n);
extern int64 mq_count_ready(MqQueue *q);
extern int64 mq_count_length(MqQueue *q);
extern int64 mq_count_delayed(MqQueue *q);
extern bool mq_count_seen(MqQueue *q, TransactionId xid);
extern void mq_count_log(MqQueue *q, TransactionId xid, int64 rows, int64 delayed);

#endif							/* MQ_STATS_H */
