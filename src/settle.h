/*-------------------------------------------------------------------------
 * settle.h
 *		ack, nack, reject, release, extend.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_SETTLE_H
#define MQ_SETTLE_H

#include "enqueue.h"
#include "sweep.h"

typedef struct MqSettleArgs
{
	MqVerb		verb;
	int			n;
	const int64 *ids;
	const bool *id_nulls;		/* may be NULL */
	const int64 *receipts;		/* one, or n of them */
	bool		one_receipt;
	bool		has_delay;		/* nack */
	int64		delay;			/* microseconds */
	const char *reason;
	bool		strict;
	bool	   *settled;		/* which of them were; false before the call */
} MqSettleArgs;

extern int	mq_settle(MqDef *def, Relation rel, const MqSettleArgs *a);
extern int	mq_extend(MqDef *def, Relation rel, const MqSettleArgs *a, int64 duration);
extern void mq_not_current(MqDef *def, int64 id);

#endif							/* MQ_SETTLE_H */
