/*-------------------------------------------------------------------------
 * clock.h
 *		Now and deadlines.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_CLOCK_H
#define MQ_CLOCK_H

#include "mq.h"

#include "utils/timestamp.h"

extern void mq_clock_remember(int64 ahead);
extern TimestampTz mq_now(void);
extern TimestampTz mq_steady(void);
extern TimestampTz mq_steady_of(TimestampTz wall);
extern TimestampTz mq_wall_of(TimestampTz steady);
extern int64 mq_now_unix_us(void);
extern TimestampTz mq_time_add(TimestampTz t, int64 us);
extern int64 mq_interval_us(const Interval *i);
extern long mq_ms_until(TimestampTz t, TimestampTz now, long at_most);

#endif							/* MQ_CLOCK_H */
