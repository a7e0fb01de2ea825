/*-------------------------------------------------------------------------
 * lease.c
 *		The lease table: who has which message, and until when.
 *
 * A claim is an entry here and nothing else: no row is written.  The entries
 * of a queue live in the buckets of its partition, so that one lock covers
 * the queue's lanes, lists and leases, and a message moves between them in one
 * critical section.  The free list is common to all, under a spinlock.
 *
 *		 claim          commit           ack: commit
 *	free -----> OPEN ---------> HELD ----> SETTLING ------> free
 *				 |				 | ^		   |
 *				 | abort		 | |  abort	   |
 *				 |				 | +-----------+
 *				 v	   deadline	 v
 *				 +--> FAILED <---+
 *				  |		  |
 *		 claim	  |		  | worker writes the row, commits
 *		when due: OPEN	  v
 *						free
 *
 * OPEN -> SETTLING happens too (dequeue and ack in one transaction).  Only the
 * transaction that opened or settles an entry may end that state; until then it
 * does not expire and nobody else can settle it.
 *
 * A FAILED entry is delivered again from here once it is due, whether or not
 * the worker has written the failure into the row; one that has used up its
 * attempts or has expired ("spent") waits for its way to the dead letters.
 *
 * Its position is the one the row will have: by due time and id among what came
 * due in its priority.  The heap of each priority and that priority's due lane
 * are read as one sequence (lane.c).  An entry whose row somebody held when a
 * claimer came sleeps for a moment in a heap of its own, and keeps its position.
 *
 * All functions: the queue's partition is locked by the caller.
 *-------------------------------------------------------------------------
 */
#include "lease.h"

#include "clock.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "common/pg_prng.h"
#include "guc.h"
#include "mirror.h"

#define WRITE_PAUSE	(250 * INT64CONST(1000))

/* Deadlines and retries: the earliest first, by id within one time. */
static int
compare_until(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	const MqLease *la = pairingheap_const_container(MqLease, timer, a);
	const MqLease *lb = pairingheap_const_container(MqLease, timer, b);

	return mq_pos_cmp((MqPos) {lb->until, lb->id}, (MqPos) {la->until, la->id});
}

/*
 * The heap's root is in shared memory, its comparator is not: a pointer to
 * code has no business there.
 */
static void
heap_add(pairingheap_node **root, pairingheap_node *node)
{
	pairingheap heap = {compare_until, NULL, *root};

	pairingheap_add(&heap, node);
	*root = heap.ph_root;
}

static void
heap_remove(pairingheap_node **root, pairingheap_node *node)
{
	pairingheap heap = {compare_until, NULL, *root};

	pairingheap_remove(&heap, node);
	*root = heap.ph_root;
}

static MqLease **
bucket_of(MqQueue *q, int64 id)
{
	uint32		h = (uint32) id + (uint32) (id >> 32) * 31 +
		murmurhash32((uint32) (q - mq_queues));

	return &mq_buckets[(Size) q->partition * (mq_bucket_mask + 1) + (h & mq_bucket_mask)];
}

/* The lease of message id, in whatever state, or NULL. */
MqLease *
mq_lease_find(MqQueue *q, int64 id)
{
	for (MqLease *l = *bucket_of(q, id); l; l = l->next)
		if (l->id == id && l->queue == q)
			return l;
	return NULL;
}

/*
 * Whether this place of a message may be taken off the lists since it is leased:
 * the lease's end lists it anew.  While who leased it has not looked at the row,
 * the end lists the place where it was met, and the row may stand at another.
 */
bool
mq_lease_has_place(MqQueue *q, int lane, MqPos pos)
{
	MqLease    *l = mq_lease_find(q, pos.id);
	MqPlace		p;

	if (l == NULL || !l->unseen)
		return l != NULL;
	p = mq_lease_place(l);
	return mq_place_lane(&p) == lane && mq_pos_cmp(mq_place_pos(&p), pos) == 0;
}

/*
 * A new lease in state OPEN; NULL if the table is full or this queue holds
 * half of it.  The caller has made sure that there is none for this id.
 */
MqLease *
mq_lease_new(MqQueue *q, int64 id)
{
	MqLease    *l;
	MqLease   **bucket;

	if (q->nleases >= mq_max_in_flight / 2)
		return NULL;
	SpinLockAcquire(&mq_shared->free_lock);
	l = mq_shared->free_leases;
	if (l)
	{
		mq_shared->free_leases = l->next;
		mq_shared->nfree--;
	}
	SpinLockRelease(&mq_shared->free_lock);
	if (l == NULL)
		return NULL;

	bucket = bucket_of(q, id);
	l->id = id;
	l->queue = q;
	l->next = *bucket;
	*bucket = l;
	l->state = MQ_LEASE_OPEN;
	l->timed_in = MQ_TIMER_NONE;
	l->unwritten = false;
	l->xid = l->gone_xid = InvalidTransactionId;
	l->dead = false;
	l->reason = MQ_REASON_NONE;
	l->write_after = DT_NOBEGIN;
	l->due = DT_NOBEGIN;
	l->expires_at = DT_NOEND;
	l->held = l->dropping = l->unseen = l->astray = l->is_later = false;
	l->ready_at = DT_NOBEGIN;
	ItemPointerSetInvalid(&l->behind);
	mq_key_lease_new(l);
	dlist_push_tail(&q->leases, &l->node);
	q->nleases++;
	return l;
}

static pairingheap_node **
heap_of(MqLease *l)
{
	switch ((MqTimer) l->timed_in)
	{
		case MQ_TIMER_DEADLINE:
			return &l->queue->deadlines;
		case MQ_TIMER_RETRY:
			return &l->queue->retries[l->priority];
		case MQ_TIMER_ASLEEP:
			return &l->queue->asleep;
		case MQ_TIMER_NONE:
			break;
	}
	return NULL;
}

/* Puts the lease into the heap that its state and times ask for, if any. */
void
mq_lease_set_timer(MqLease *l)
{
	if (l->timed_in != MQ_TIMER_NONE || l->until == DT_NOEND)
		return;
	if (l->state == MQ_LEASE_HELD)
		l->timed_in = MQ_TIMER_DEADLINE;
	else if (l->state == MQ_LEASE_FAILED && !mq_lease_is_spent(l))
		l->timed_in = l->until > l->due ? MQ_TIMER_ASLEEP : MQ_TIMER_RETRY;
	else
		return;
	heap_add(heap_of(l), &l->timer);
}

/* To be called before the priority changes: it says which heap it is in. */
void
mq_lease_clear_timer(MqLease *l)
{
	if (l->timed_in == MQ_TIMER_NONE)
		return;
	heap_remove(heap_of(l), &l->timer);
	l->timed_in = MQ_TIMER_NONE;
}

/* Whether a FAILED lease counts as such: also while the worker writes it. */
bool
mq_lease_counts_as_failed(const MqLease *l)
{
	return l->state == MQ_LEASE_FAILED ||
		(l->state == MQ_LEASE_SETTLING && l->from == MQ_LEASE_FAILED);
}

/*
 * What a crash of the server from now on makes of this message: called when it
 * is about to be handed out, and when its failure is known here only.
 */
void
mq_lease_mirror(MqLease *l)
{
	MqMirrored	m;

	if (l->queue->unlogged)
		return;					/* its ids may be given again after a crash */
	m.id = l->id;
	m.dboid = l->queue->dboid;
	m.relid = l->queue->relid;
	m.priority = l->priority;
	if (mq_lease_counts_as_failed(l))
	{
		m.attempts = l->attempts;
		m.reason = l->reason;
		m.due = l->due;
	}
	else
	{
		m.attempts = l->attempts < PG_INT32_MAX ? l->attempts + 1 : l->attempts;
		m.reason = MQ_REASON_CRASH;
		m.due = DT_NOBEGIN;
	}
	mq_mirror_set(l - mq_leases, &m);
}

/* Whether the message is a consumer's whose dequeue has committed. */
void
mq_lease_set_held(MqLease *l, bool held)
{
	l->queue->nheld += (int) held - (int) l->held;
	l->held = held;
}

/* Whether it is taken to make room for others (dequeue.c): then it is not in flight. */
void
mq_lease_set_dropping(MqLease *l, bool dropping)
{
	l->queue->ndropping += (int) dropping - (int) l->dropping;
	l->dropping = dropping;
}

/* The message is nobody's any more (gone, or back in its lane). */
void
mq_lease_free(MqLease *l)
{
	MqQueue    *q = l->queue;
	MqLease   **p = bucket_of(q, l->id);

	mq_lease_set_held(l, false);
	mq_lease_set_dropping(l, false);
	mq_lease_clear_timer(l);
	mq_count_lease(l, DT_NOBEGIN);
	while (*p != l)
		p = &(*p)->next;
	*p = l->next;
	dlist_delete(&l->node);
	q->nleases--;
	if (mq_lease_counts_as_failed(l))
		q->nfailed--;
	mq_mirror_clear(l - mq_leases);
	mq_key_lease_free(l);
	l->state = MQ_LEASE_FREE;
	l->queue = NULL;
	l->receipt = 0;
	SpinLockAcquire(&mq_shared->free_lock);
	l->next = mq_shared->free_leases;
	mq_shared->free_leases = l;
	mq_shared->nfree++;
	SpinLockRelease(&mq_shared->free_lock);
}

/* Drops all leases: the table was emptied or dropped. */
void
mq_lease_free_all(MqQueue *q)
{
	while (!dlist_is_empty(&q->leases))
		mq_lease_free(dlist_head_element(MqLease, node, &q->leases));
	while (!dlist_is_empty(&q->failed))
		mq_lease_free(dlist_head_element(MqLease, node, &q->failed));
}

/* The transaction that took it has committed: from now on the clock runs. */
void
mq_lease_hold(MqLease *l, TimestampTz steady)
{
	l->state = MQ_LEASE_HELD;
	mq_lease_set_held(l, true);
	l->until = l->session ? DT_NOEND : mq_time_add(steady, l->duration);
	mq_lease_set_timer(l);
}

/* Whether the message is not to be tried again: no attempts left, or expired. */
bool
mq_lease_is_spent(MqLease *l)
{
	return l->expires_at != DT_NOEND ||
		(l->queue->policy.max_attempts > 0 &&
		 l->attempts >= l->queue->policy.max_attempts);
}

/*
 * The row has expired while leased: still to be settled, but if the delivery
 * fails there is no other.
 */
void
mq_lease_expired(MqLease *l, TimestampTz at)
{
	l->expires_at = at;
	if (l->state == MQ_LEASE_FAILED)
	{
		mq_lease_clear_timer(l);
		l->write_after = DT_NOBEGIN;
	}
}

/*
 * The delay before the next attempt after that many failures, microseconds:
 * doubling, limited, with a jitter of ten percent to either side.
 */
int64
mq_backoff(const MqPolicy *policy, int attempts)
{
	int64		us = policy->backoff;

	if (us == 0)
		return 0;
	for (int i = 1; i < attempts && us < policy->backoff_limit; i++)
		if (pg_mul_s64_overflow(us, 2, &us))
			us = policy->backoff_limit;
	us = Min(us, policy->backoff_limit);
	return us - us / 10 + (int64) (pg_prng_double(&pg_global_prng_state) * (us / 5));
}

/*
 * When the worker may write a failure, by the steady clock: of one that is due at
 * once it lets a claimer have the message rather than meet its write.
 */
static TimestampTz
write_pause(MqLease *l, TimestampTz now)
{
	return l->until <= now + WRITE_PAUSE && !mq_lease_is_spent(l) ?
		mq_time_add(mq_steady(), 2 * WRITE_PAUSE) : DT_NOBEGIN;
}

/*
 * The delivery failed at `now` by the wall clock: one more attempt is counted and
 * the message waits for its retry.  A session's end is nobody's slowness: no
 * backoff.
 */
void
mq_lease_fail(MqLease *l, MqReason reason, TimestampTz now)
{
	MqQueue    *q = l->queue;

	mq_lease_set_held(l, false);
	mq_lease_set_dropping(l, false);
	mq_lease_clear_timer(l);
	if (!mq_lease_counts_as_failed(l))
		q->nfailed++;
	if (l->attempts < PG_INT32_MAX)
		l->attempts++;
	l->unwritten = true;
	l->reason = reason;
	l->state = MQ_LEASE_FAILED;
	l->xid = InvalidTransactionId;
	l->due = l->until = reason == MQ_REASON_SESSION ? now :
		mq_time_add(now, mq_backoff(&q->policy, l->attempts));

	l->write_after = write_pause(l, now);
	dlist_delete(&l->node);
	dlist_push_tail(&q->failed, &l->node);
	mq_lease_set_timer(l);
	mq_lease_mirror(l);
}

/*
 * An entry that had been FAILED is so again, nothing counted, in its old position;
 * no claimer has it before `until` (wall clock).
 */
void
mq_lease_put_back(MqLease *l, TimestampTz until)
{
	MqQueue    *q = l->queue;

	mq_lease_set_held(l, false);
	mq_lease_set_dropping(l, false);
	mq_lease_clear_timer(l);
	if (!mq_lease_counts_as_failed(l))
		q->nfailed++;
	l->state = MQ_LEASE_FAILED;
	l->xid = InvalidTransactionId;
	l->until = Max(l->due, until);
	l->write_after = write_pause(l, mq_now());
	dlist_delete(&l->node);
	dlist_push_tail(&q->failed, &l->node);
	mq_lease_set_timer(l);
	mq_lease_mirror(l);
}

/* The same when its row has got another place, where it may be tried again. */
void
mq_lease_put_off(MqLease *l, const MqPlace *place)
{
	l->tid = place->tid;
	l->relnode = l->queue->relnode;
	l->priority = place->priority;
	l->due = place->ready_at;
	mq_count_lease(l, place->ready_at);
	mq_lease_put_back(l, DT_NOBEGIN);
}

/*
 * The row has been written anew, by one who has ended, and stands at this place; its
 * tid may be invalid.  other_time: it has got another ready_at by that.
 */
void
mq_lease_moved(MqLease *l, const MqPlace *place, bool other_time, TimestampTz now)
{
	mq_lease_clear_timer(l);
	l->tid = place->tid;
	l->relnode = l->queue->relnode;
	l->priority = place->priority;
	mq_count_lease(l, mq_place_time(place));
	/* what he says comes after the failure */
	if (l->unwritten && other_time)
		l->due = place->timed ? place->ready_at : now;
	if (mq_lease_counts_as_failed(l))
		l->until = l->due;
	/* the row may say otherwise now; if not, the next look finds it */
	l->expires_at = DT_NOEND;
	mq_lease_set_timer(l);
}

/* A FAILED entry is delivered again. */
void
mq_lease_reopen(MqLease *l)
{
	MqQueue    *q = l->queue;

	mq_lease_clear_timer(l);
	q->nfailed--;
	l->state = MQ_LEASE_OPEN;
	dlist_delete(&l->node);
	dlist_push_tail(&q->leases, &l->node);
}

/* This transaction begins to settle it. */
void
mq_lease_settling(MqLease *l, MqVerb verb)
{
	mq_lease_clear_timer(l);
	l->from = l->state;
	l->state = MQ_LEASE_SETTLING;
	l->verb = verb;
	l->xid = InvalidTransactionId;
}

/* The settling was rolled back: as before. */
void
mq_lease_restore(MqLease *l)
{
	l->state = l->from;
	mq_lease_set_timer(l);
}

/* A FAILED entry that was kept back is not any more: whoever held its row is gone. */
void
mq_lease_rouse(MqLease *l)
{
	if (l->timed_in != MQ_TIMER_ASLEEP)
		return;
	mq_lease_clear_timer(l);
	l->until = l->due;
	mq_lease_set_timer(l);
}

/* The same for all whose time to be kept back is over by the wall clock. */
void
mq_lease_rouse_all(MqQueue *q, TimestampTz now)
{
	while (q->asleep)
	{
		MqLease    *l = pairingheap_container(MqLease, timer, q->asleep);

		if (l->until > now)
			break;
		mq_lease_rouse(l);
	}
}

/* The first message of a priority whose retry is due by the wall clock, or NULL. */
MqLease *
mq_lease_retry(MqQueue *q, int priority, TimestampTz now)
{
	while (q->retries[priority])
	{
		MqLease    *l = pairingheap_container(MqLease, timer, q->retries[priority]);

		if (!mq_lease_is_spent(l))
			return l->until <= now ? l : NULL;
		mq_lease_clear_timer(l);	/* max_attempts is less than it was */
	}
	return NULL;
}

/* Fails the leases whose time is over by the steady clock; returns how many. */
int
mq_lease_expire(MqQueue *q, TimestampTz steady)
{
	int			n = 0;

	while (q->deadlines)
	{
		MqLease    *l = pairingheap_container(MqLease, timer, q->deadlines);

		if (l->until > steady)
			break;
		mq_lease_fail(l, MQ_REASON_LEASE, mq_now());
		q->n.expired++;
		n++;
	}
	return n;
}

/* When a lease ends next, by the steady clock; DT_NOEND: never. */
TimestampTz
mq_lease_next_deadline(MqQueue *q)
{
	return q->deadlines ?
		pairingheap_container(MqLease, timer, q->deadlines)->until : DT_NOEND;
}

/*
 * When a lease ends or a retry comes due next, by the steady clock; DT_NOEND:
 * never.
 */
TimestampTz
mq_lease_next_event(MqQueue *q)
{
	TimestampTz t = mq_lease_next_deadline(q);
	TimestampTz wall = DT_NOEND;

	for (int p = 0; p <= MQ_PRIORITY_MAX; p++)
		if (q->retries[p])
			wall = Min(wall, pairingheap_container(MqLease, timer, q->retries[p])->until);
	if (q->asleep)
		wall = Min(wall, pairingheap_container(MqLease, timer, q->asleep)->until);
	return wall == DT_NOEND ? t : Min(t, mq_steady_of(wall));
}

/* Where the leased row stands in its table. */
MqPlace
mq_lease_place(MqLease *l)
{
	MqPlace		p;

	p.id = l->id;
	p.tid = l->tid;
	if (l->relnode != l->queue->relnode)
		ItemPointerSetInvalid(&p.tid);
	p.priority = l->priority;
	p.timed = l->ready_at != DT_NOBEGIN;
	p.ready_at = p.timed ? l->ready_at : 0;
	return p;
}

/* What last_error says of a delivery that ended without a nack. */
const char *
mq_reason_text(MqReason reason)
{
	switch (reason)
	{
		case MQ_REASON_NONE:
			break;
		case MQ_REASON_ABORT:
			return "the consumer's transaction rolled back";
		case MQ_REASON_LEASE:
			return "the lease ended without an ack";
		case MQ_REASON_SESSION:
			return "the consumer's session ended";
		case MQ_REASON_CRASH:
			return "the server crashed during the delivery";
	}
	return NULL;
}
