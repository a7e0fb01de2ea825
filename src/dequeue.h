/*-------------------------------------------------------------------------
 * dequeue.h
 *		Choose and lease.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_DEQUEUE_H
#define MQ_DEQUEUE_H

#include "settle.h"

typedef struct MqDequeue
{
	const char *queue;
	int			max;
	int64		lease;			/* microseconds; < 0: the queue's */
	int64		wait;			/* microseconds; 0: do not wait */
	bool		auto_ack;
	bool		session;
	const char *consumer;
} MqDequeue;

/* One delivery: the row and what the lease adds. */
typedef struct MqDelivery
{
	MqRow		row;
	int			claim;			/* index in the touch's claims */
	int32		attempts;		/* failed deliveries before this one */
	MqReason	reason;			/* why the last one failed, if the row doesn't know */
	int64		receipt;
	TimestampTz until;			/* lease_until; DT_NOEND: no deadline */
} MqDelivery;

extern int	mq_dequeue(const MqDequeue *d, MqDelivery **deliveries, MqDef **def);
extern int64 mq_drop_head(MqDef *def, Relation rel, int64 n);
extern void mq_handed_out(Oid relid);
extern void mq_wait(const char *queue, int64 timeout);

#endif							/* MQ_DEQUEUE_H */
