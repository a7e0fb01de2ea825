/*-------------------------------------------------------------------------
 * retry.h
 *		Failed deliveries: from the lease table into the rows.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_RETRY_H
#define MQ_RETRY_H

#include "deadletter.h"

extern int	mq_retry_write(MqDef *def, Relation rel, int max, bool only_spent);
extern int	mq_retry_bury(MqDef *def);

#endif							/* MQ_RETRY_H */
