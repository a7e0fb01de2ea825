/*-------------------------------------------------------------------------
 * order.h
 *		Claims of ordered queues: whose turn it is.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_ORDER_H
#define MQ_ORDER_H

#include "wake.h"

typedef enum MqOrder
{
	MQ_ORDER_FIRST,				/* it is this message's turn */
	MQ_ORDER_PARKED,			/* it is not: it waits behind its key */
	MQ_ORDER_FULL				/* no room to keep track of its key */
} MqOrder;

extern MqOrder mq_order_claim(MqReader *r, MqLease *l, int64 id, int64 receipt,
							  const MqRow *row, TimestampTz now);
extern bool mq_order_begin(MqQueue *q);
extern void mq_order_walk(MqReader *r, TimestampTz now);
extern MqKey *mq_order_end(MqQueue *q, TimestampTz now, MqCandidate *cand);
extern void mq_order_list_ready(MqReader *r, TimestampTz now, int64 *budget);
extern bool mq_order_may(MqReader *r, const MqRow *row, TimestampTz now);
extern void mq_order_abandon(void);
extern int	mq_order_parked(MqReader *r, MqCandidate *cand, int max);
extern bool mq_order_learn(MqReader *r);

#endif							/* MQ_ORDER_H */
