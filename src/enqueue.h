/*-------------------------------------------------------------------------
 * enqueue.h
 *		Validate and insert.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_ENQUEUE_H
#define MQ_ENQUEUE_H

#include "deadletter.h"

#include "utils/jsonb.h"

/* What is common to all messages of one enqueue. */
typedef struct MqEnqueue
{
	bool		timed;
	TimestampTz ready_at;
	int			priority;
	int64		ttl;			/* microseconds; 0: the queue's only */
} MqEnqueue;

/* One message; Datum 0 with the null flag set: not given. */
typedef struct MqMessage
{
	Datum		body;
	Datum		headers;
	Datum		data;
	Datum		key;
	Datum		dedup_id;
	bool		body_null;
	bool		headers_null;
	bool		data_null;
	bool		key_null;
	bool		dedup_id_null;
} MqMessage;

extern void mq_enqueue_values(const MqEnqueue *e, const MqMessage *m, MqValues *values);
extern void mq_require_no_place(MqDef *def, MqPlace place);
extern void mq_check_writable(const char *verb);

#endif							/* MQ_ENQUEUE_H */
