/*-------------------------------------------------------------------------
 * dequeue.h
 *		Choose and lease.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_DEQUEUE_H
#define MQ_DEQUEUE_H

#include "match.h"
#include "settle.h"

typedef struct MqDequeue
{
	const char *const *queues;	/* no name twice */
	int			nqueues;		/* at most MQ_WAIT_QUEUES */
	int			max;
	int64		lease;			/* microseconds; < 0: the queue's */
	int64		wait;			/* microseconds; 0: do not wait */
	bool		auto_ack;
	bool		session;
	const char *consumer;
	Jsonb	   *match;			/* headers that the messages must contain, or NULL */
} MqDequeue;

/* One delivery: the row and what the lease adds. */
typedef struct MqDelivery
{
	MqRow		row;
	MqDef	   *def;			/* its queue */
	int64		duration;		/* of the lease; < 0: as long as the session */
	int32		attempts;		/* failed deliveries before this one */
	MqReason	reason;			/* why the last one failed, if the row doesn't know */
	int64		receipt;
	TimestampTz until;			/* lease_until; DT_NOEND: no deadline */
} MqDelivery;

extern int	mq_dequeue(const MqDequeue *d, MqDelivery **deliveries);
extern int64 mq_drop_head(MqDef *def, Relation rel, int64 n);
extern void mq_handed_out(Oid relid);
extern void mq_wait(const char *queue, int64 timeout);

#endif							/* MQ_DEQUEUE_H */
