/*-------------------------------------------------------------------------
 * dedup.h
 *		dedup_id: one message of several enqueued with the same id.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_DEDUP_H
#define MQ_DEDUP_H

#include "wake.h"

/* Makes room for n messages about to be inserted, or raises an error. */
typedef void (*MqDedupReserve) (MqDef *def, Relation rel, int64 n);

extern void mq_dedup_init(void);
extern void mq_dedup_insert(MqDef *def, Relation rel, MqValues *values, int n,
							int64 *ids, bool *inserted, MqDedupReserve reserve);
extern void mq_dedup_forget(const char *queue);
extern TimestampTz mq_dedup_clean(void);

#endif							/* MQ_DEDUP_H */
