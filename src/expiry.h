/*-------------------------------------------------------------------------
 * expiry.h
 *		When messages expire, and where those that have are known.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_EXPIRY_H
#define MQ_EXPIRY_H

#include "lane.h"

extern void mq_expiry_values(const MqDef *def, int64 ttl, MqValues *values);
extern HeapTuple mq_expiry_tuple(const MqDef *def, TupleDesc desc, HeapTuple tuple);

extern bool mq_expiry_add(MqQueue *q, TimestampTz at, int64 id, ItemPointer tid);
extern void mq_expiry_left(MqLease *l);
extern bool mq_expiry_note(MqQueue *q, int64 id, ItemPointer tid, TimestampTz at,
						   TimestampTz after);
extern void mq_expiry_set_back(MqQueue *q, TimestampTz at);
extern TimestampTz mq_expiry_event(MqQueue *q);

extern bool mq_expiry_start(MqQueue *q, TimestampTz upto);
extern void mq_expiry_finish(MqQueue *q);
extern void mq_expiry_forget(MqQueue *q, int64 id);
extern void mq_expiry_abandon(SubTransactionId sub);

#endif							/* MQ_EXPIRY_H */
