/*-------------------------------------------------------------------------
 * dedup.h
 *		dedup_id: one message of several enqueued with the same id.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_DEDUP_H
#define MQ_DEDUP_H

#include "wake.h"

extern void mq_dedup_init(void);
extern void mq_dedup_insert(MqDef *def, Relation rel, MqValues *values, int n,
							int64 *ids, bool *inserted);
extern void mq_dedup_forget(const char *queue);
extern TimestampTz mq_dedup_clean(void);

#endif							/* MQ_DEDUP_H */
