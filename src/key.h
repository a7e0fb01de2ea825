/*-------------------------------------------------------------------------
 * key.h
 *		The keys of ordered queues: which are held, which may go on.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_KEY_H
#define MQ_KEY_H

#include "shmem.h"

/* Hashes that are no key's. */
#define MQ_KEY_HASH_NONE	UINT64CONST(0)
#define MQ_KEY_HASH_ANY		UINT64CONST(1)

/* What was known when a walk began. */
typedef struct MqKeyWalk
{
	int64		from;			/* its first id */
	int64		high;
	uint64		seq;
} MqKeyWalk;

extern uint64 mq_key_hash(const char *text, int len);
extern MqKey *mq_key_find(MqQueue *q, uint64 hash, const char *text, int len);
extern MqKey *mq_key_new(MqQueue *q, uint64 hash, const char *text, int len);
extern void mq_key_text(const MqKey *e, char *text);

extern void mq_key_lease_new(MqLease *l);
extern void mq_key_lease_free(MqLease *l);
extern void mq_key_set_known(MqLease *l, MqKeyKnown known);
extern void mq_key_attach(MqKey *e, MqLease *l);
extern void mq_key_row_gone(MqLease *l);
extern void mq_key_park(MqKey *e, int64 id);
extern void mq_key_passed(MqKey *e, int64 id);

extern int64 mq_key_walk_from(const MqKey *e);
extern void mq_key_walk_begin(MqKey *e, MqKeyWalk *w);
extern void mq_key_walk_end(MqKey *e, const MqKeyWalk *w, int64 first);
extern MqKey *mq_key_begin_next(MqQueue *q);
extern void mq_key_end_next(MqKey *e, MqKeyState state);

extern void mq_key_gone(MqQueue *q, uint64 hash);
extern void mq_key_late(MqQueue *q, int64 lo);
extern void mq_key_recheck(MqQueue *q);
extern void mq_key_set_ordered(MqQueue *q, bool ordered);
extern bool mq_key_has_work(MqQueue *q);
extern int	mq_key_freed(MqQueue *q);

#endif							/* MQ_KEY_H */
