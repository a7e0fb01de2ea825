/*-------------------------------------------------------------------------
 * lease.h
 *		The lease table.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_LEASE_H
#define MQ_LEASE_H

#include "stats.h"

extern MqLease *mq_lease_find(MqQueue *q, int64 id);
extern bool mq_lease_has_place(MqQueue *q, int lane, MqPos pos);
extern MqLease *mq_lease_new(MqQueue *q, int64 id);
extern void mq_lease_free(MqLease *l);
extern void mq_lease_free_all(MqQueue *q);
extern void mq_lease_hold(MqLease *l, TimestampTz steady);
extern void mq_lease_fail(MqLease *l, MqReason reason, TimestampTz now);
extern void mq_lease_mirror(MqLease *l);
extern void mq_lease_put_back(MqLease *l, TimestampTz until);
extern void mq_lease_put_off(MqLease *l, const MqPlace *place);
extern void mq_lease_moved(MqLease *l, const MqPlace *place, bool other_time,
						   TimestampTz now);
extern bool mq_lease_counts_as_failed(const MqLease *l);
extern void mq_lease_set_timer(MqLease *l);
extern void mq_lease_clear_timer(MqLease *l);
extern void mq_lease_reopen(MqLease *l);
extern void mq_lease_restore(MqLease *l);
extern void mq_lease_settling(MqLease *l, MqVerb verb);
extern void mq_lease_rouse(MqLease *l);
extern void mq_lease_rouse_all(MqQueue *q, TimestampTz now);
extern MqLease *mq_lease_retry(MqQueue *q, int priority, TimestampTz now);
extern int	mq_lease_expire(MqQueue *q, TimestampTz steady);
extern TimestampTz mq_lease_next_deadline(MqQueue *q);
extern TimestampTz mq_lease_next_event(MqQueue *q);
extern bool mq_lease_is_spent(MqLease *l);
extern void mq_lease_set_held(MqLease *l, bool held);
extern void mq_lease_set_dropping(MqLease *l, bool dropping);
extern void mq_lease_expired(MqLease *l, TimestampTz at);
extern MqPlace mq_lease_place(MqLease *l);
extern int64 mq_backoff(const MqPolicy *policy, int attempts);
extern const char *mq_reason_text(MqReason reason);

#endif							/* MQ_LEASE_H */
