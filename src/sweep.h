/*-------------------------------------------------------------------------
 * sweep.h
 *		Expired messages: from their queue to the dead letters.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_SWEEP_H
#define MQ_SWEEP_H

#include "retry.h"

typedef struct MqSweep MqSweep;

extern MqSweep *mq_sweep_new(void);
extern bool mq_sweep_batch(MqSweep *s, MqDef *def, Relation rel, TimestampTz *next);
extern int	mq_sweep_bury(MqDef *def);
extern int64 mq_sweep_for_room(MqDef *def, int64 n);
extern bool mq_sweep_attach_due(void);
extern void mq_sweep_attach(void);

#endif							/* MQ_SWEEP_H */
