/*-------------------------------------------------------------------------
 * maint.h
 *		One bounded pass of upkeep.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_MAINT_H
#define MQ_MAINT_H

#include "dequeue.h"

extern TimestampTz mq_maint_queue(Oid relid, bool listened);
extern void mq_maint_recount(MqDef *def, Relation rel);
extern void mq_maint_count_due(MqDef *def, Relation rel);
extern TimestampTz mq_maint_oldest(MqDef *def, Relation rel);

/* An error that comes now is that of a notification. */
extern bool mq_maint_notifying;

#endif							/* MQ_MAINT_H */
