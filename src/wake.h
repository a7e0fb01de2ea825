/*-------------------------------------------------------------------------
 * wake.h
 *		Waiters, and how they and the worker are woken.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_WAKE_H
#define MQ_WAKE_H

#include "lane.h"

/* Processes to be woken once the lock is released. */
#define MQ_WAKE_MAX 64
typedef struct MqWakeList
{
	int			n;
	int			procs[MQ_WAKE_MAX];
} MqWakeList;

extern int64 mq_wake_pick(MqQueue *q, int64 n, MqWakeList *list);
extern bool mq_wake_wanted(MqQueue *q);
extern void mq_wake_freed(MqQueue *q, MqWakeList *list);
extern void mq_wake_listeners(MqQueue *q, TimestampTz when);
extern void mq_wake_all(MqQueue *q, MqWakeList *list);
extern void mq_wake_send(MqWakeList *list);
extern bool mq_wait_enter(MqQueue *q, bool matching);
extern bool mq_wait_watch(MqQueue *q);
extern void mq_wait_unwatch(MqQueue *q);
extern void mq_wait_leave(void);
extern void mq_wait_leave_others(const Oid *relids, int n);
extern bool mq_wait_sleep(long timeout_ms);

extern MqDatabase *mq_database(Oid dboid, bool create);
extern MqDatabase *mq_this_database(void);
extern void mq_worker_poke(TimestampTz when);
extern void mq_worker_ensure(void);
extern bool mq_worker_alive_hint(void);
extern void mq_launcher_poke(void);

#endif							/* MQ_WAKE_H */
