/*-------------------------------------------------------------------------
 * mirror.h
 *		What is in flight, in a file that outlives the server's processes.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_MIRROR_H
#define MQ_MIRROR_H

#include "mq.h"

#include "utils/timestamp.h"

/* What would be true of a message if the server died now. */
typedef struct MqMirrored
{
	int64		id;				/* 0: nothing */
	TimestampTz due;			/* of its retry; DT_NOBEGIN: at once */
	Oid			dboid;
	Oid			relid;
	int32		attempts;		/* failed deliveries, this one included */
	int16		priority;
	uint8		reason;			/* MqReason */
	uint8		unused;
	uint32		check;
} MqMirrored;

extern MqMirrored *mq_mirror_open(int *n, int64 *last_receipt);
extern void mq_mirror_close(void);
extern void mq_mirror_set(int slot, MqMirrored *m);
extern void mq_mirror_clear(int slot);
extern void mq_mirror_receipt(int64 receipt);

#endif							/* MQ_MIRROR_H */
