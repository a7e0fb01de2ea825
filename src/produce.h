/*-------------------------------------------------------------------------
 * produce.h
 *		What enqueue and publish have in common: messages into a queue.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_PRODUCE_H
#define MQ_PRODUCE_H

#include "args.h"

extern void mq_produce_prepare(MqDef *def, Relation rel, const MqEnqueue *e);
extern void mq_produce(MqDef *def, Relation rel, const MqEnqueue *e, MqValues *values,
					   int n, bool dedup, int64 *ids, bool *inserted);

#endif							/* MQ_PRODUCE_H */
