/*-------------------------------------------------------------------------
 * outcome.h
 *		What the end of a transaction does to the queues it touched.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_OUTCOME_H
#define MQ_OUTCOME_H

#include "wake.h"

extern const MqXactOps mq_outcome_ops;

extern void mq_outcome_retire(Oid relid);
extern void mq_return_claim(MqQueue *q, MqLease *l);
extern bool mq_claim_is_mine(MqQueue *q, const MqClaim *c);

#endif							/* MQ_OUTCOME_H */
