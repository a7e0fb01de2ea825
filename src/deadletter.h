/*-------------------------------------------------------------------------
 * deadletter.h
 *		The way of a message to the dead letters.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_DEADLETTER_H
#define MQ_DEADLETTER_H

#include "outcome.h"

extern bool mq_dead_letter(MqReader *r, int64 id, ItemPointer tid, int32 attempts,
						   const char *reason, const char *error,
						   bool nowait, MqPlace *was);
extern void mq_dead_letters(MqDef *def, MqValues *values, int n, const char *reason);

#endif							/* MQ_DEADLETTER_H */
