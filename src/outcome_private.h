/*-------------------------------------------------------------------------
 * outcome_private.h
 *		What the files outcome*.c share.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_OUTCOME_PRIVATE_H
#define MQ_OUTCOME_PRIVATE_H

#include "outcome.h"

/* outcome.c */
extern bool mq_settle_is_mine(MqQueue *q, const MqSettle *s);
extern void mq_outcome_want_notify(MqQueue *q, int64 ready_before);

/* outcome_prepared.c */
extern void mq_outcome_reserve(MqTouch *t);
extern void mq_outcome_unreserve(MqQueue *q, MqTouch *t);
extern void mq_outcome_prepare(MqTouch *t, TransactionId xid);

#endif							/* MQ_OUTCOME_PRIVATE_H */
