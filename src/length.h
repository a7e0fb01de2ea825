/*-------------------------------------------------------------------------
 * length.h
 *		Queues of limited length.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_LENGTH_H
#define MQ_LENGTH_H

#include "maint.h"

extern void mq_length_reserve(MqDef *def, Relation rel, int64 n);

#endif							/* MQ_LENGTH_H */
