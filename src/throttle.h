/*-------------------------------------------------------------------------
 * throttle.h
 *		How many more messages a queue may deliver now.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_THROTTLE_H
#define MQ_THROTTLE_H

#include "shmem.h"

extern void mq_throttle_set(MqQueue *q, const MqThrottle *t, bool committed);
extern int	mq_throttle_in_flight(const MqQueue *q);
extern int64 mq_throttle_slots(const MqQueue *q);
extern int64 mq_throttle_room(const MqQueue *q, TimestampTz steady);
extern TimestampTz mq_throttle_next(const MqQueue *q, TimestampTz steady);
extern void mq_throttle_take(MqQueue *q, TimestampTz steady, int64 n);
extern void mq_throttle_give(MqQueue *q, int64 n, int64 before);

#endif							/* MQ_THROTTLE_H */
