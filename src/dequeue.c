/*-------------------------------------------------------------------------
 * dequeue.c
 *		Choose and lease.
 *
 * A claim, without writing anything:
 *	  1. Room for the local records is made.
 *	  2. Under the partition's lock candidates are taken off the lists in the
 *		 order of lanes, and each becomes an OPEN lease with a local record.
 *		 When a list is empty and its lane is not, the lane is scanned first
 *		 (lane.c), without the lock.
 *	  3. Without the lock each candidate's row is looked at once more: one that
 *		 is gone is dropped, one that somebody holds is put on the blocked list,
 *		 one whose time has not come is left to its lane.
 *	  4. What is left is handed to the caller.  Only when the whole dequeue has
 *		 succeeded are the claims marked as handed out: an error before that
 *		 gives them back uncounted.
 *	  The transaction's end decides about them (outcome.c).
 * In an ordered queue step 3 also asks whose turn it is (order.c), and before the
 * fresh lane come the keys that are known to have a message.
 *
 * A message on its last attempt is delivered alone: it ends the batch before
 * it, or is the only one.
 *
 * With match, step 2 leases what match.c has found by looking, and what turns out
 * not to fit any more goes back like what is not wanted.
 */
#include "dequeue.h"

#include "mb/pg_wchar.h"

#include "clock.h"
#include "expiry.h"
#include "guc.h"
#include "order.h"
#include "throttle.h"
#include "pgstat.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/inval.h"

#define BATCH	256				/* candidates taken in one go */

typedef struct Taken
{
	MqLease    *lease;
	int			claim;
	int64		id;
	ItemPointerData tid;
	ItemPointerData was;		/* the lease's, untouched: an UPDATE changes it */
	int			lane;
	MqPos		pos;
	MqHolder	holder;
	MqLook		look;
	bool		from_failed;
	bool		early;			/* its time has not come: place says when */
	bool		back;			/* it goes back where it was */
	bool		expired;
	TimestampTz expires_at;
	uint64		key;			/* expired in an ordered queue: hash of its key */
	MqPlace		place;
	MqReason	reason;
	int32		attempts;
} Taken;

/* One of the queues of a claim. */
typedef struct Source
{
	MqDef	   *def;
	Relation	rel;
	MqTouch    *touch;
	int64		duration;		/* of its leases */
	int			got;			/* deliveries so far */
	TimestampTz next;			/* with match: when another comes due; wall */
} Source;

/* A claim in progress. */
typedef struct Claimer
{
	const MqDequeue *d;
	Source	   *sources;		/* d->nqueues of them */
	MqDef	   *def;			/* of the one that is being claimed from */
	Relation	rel;
	MqTouch    *touch;
	MqReader	reader;
	int64		receipt;
	int64		duration;
	MqMatch		match;			/* if d->match */
	int			got;			/* over all of them */
	MqDelivery *out;
	int			max_out;
	bool		peek;			/* only look whether there is one */
	bool		drop;			/* take them to make room; peek is set as well */
	bool		ordered;		/* the queue was when we last looked */
	bool		full;			/* the lease table is full, or that of keys */
	MqDef	   *full_def;		/* ... for this queue */
	bool		ended;			/* the batch is complete */
	bool		buried;			/* some went to the dead letters, which makes
								 * room once this transaction has committed */
	int64		blocks;
	TimestampTz expired_upto;	/* what others are taking away as expired */
} Claimer;

static int64
blocks_touched(void)
{
	return pgBufferUsage.shared_blks_hit + pgBufferUsage.shared_blks_read;
}

/*
 * Somebody is refused by the queue's limits, not knowing whether there is
 * anything.  The partition is locked, at least shared.
 */
static void
note_held(MqQueue *q, TimestampTz steady)
{
	TimestampTz next = mq_throttle_next(q, steady);

	if (next == DT_NOEND)
		q->refused = true;
	else
		mq_wake_listeners(q, next);
}

/* The lease is ours from here on; the record says so. The partition is locked. */
static void
open_lease(Claimer *c, MqLease *l, TimestampTz now, Taken *t)
{
	MqTouch    *touch = c->touch;
	MqClaim    *record = &touch->claims.a[touch->claims.n];

	/* one for the whole dequeue, and none for one that finds nothing */
	if (c->receipt == 0)
		c->receipt = mq_next_receipt();

	l->receipt = c->receipt;
	l->leased_at = now;
	l->duration = c->duration;
	l->session = c->d->session;
	l->holder = MqMyProcNumber();
	l->settler = MqMyProcNumber();
	l->pid = MyProcPid;
	l->claim = touch->claims.n;
	l->until = DT_NOEND;
	strlcpy(l->consumer, c->d->consumer,
			pg_mbcliplen(c->d->consumer, strlen(c->d->consumer), NAMEDATALEN - 1) + 1);

	record->lease = l;
	record->id = l->id;
	record->receipt = c->receipt;
	record->handed_out = false;
	record->dropped = c->drop;
	record->settled = false;
	record->sub = GetCurrentSubTransactionId();
	t->lease = l;
	t->claim = touch->claims.n++;
	t->id = l->id;
}

/*
 * How many of the candidates wanted the queue's limits allow now.  Under a rate
 * limit *now is looked up again: waiting for the lock shall not make two
 * deliveries look closer than they are.  The partition is locked.
 */
static int
allowed(MqQueue *q, int want, TimestampTz *now)
{
	TimestampTz steady = 0;
	int64		room;

	if (q->throttle.rate_limit > 0)
	{
		steady = mq_steady();
		*now = mq_now();
	}
	room = mq_throttle_room(q, steady);
	if (room == 0)
		note_held(q, steady);
	return (int) Min(want, room);
}

/* Leases a failed delivery again. The partition is locked. */
static void
take_retry(Claimer *c, MqLease *l, TimestampTz now, Taken *t)
{
	t->tid = mq_lease_place(l).tid;
	t->was = l->tid;
	t->lane = MQ_LANE_DUE(l->priority);
	t->pos = (MqPos) {l->until, l->id};
	t->from_failed = true;
	t->attempts = l->attempts;
	t->reason = l->reason;
	mq_lease_reopen(l);
	open_lease(c, l, now, t);
}

/*
 * Leases a message that is not leased; false if there is no room.  The
 * partition is locked.
 */
static bool
take_new(Claimer *c, MqQueue *q, int lane, MqPos pos, ItemPointer tid,
		 TimestampTz now, Taken *t)
{
	MqLease    *l = mq_lease_new(q, pos.id);

	if (l == NULL)
	{
		c->full = true;
		return false;
	}
	l->attempts = 0;
	l->tid = *tid;
	l->relnode = q->relnode;
	l->priority = MQ_LANE_PRIORITY(lane);
	l->ready_at = MQ_LANE_IS_DUE(lane) ? pos.t : DT_NOBEGIN;
	if (q->ordered)
		mq_key_set_known(l, c->drop ? MQ_KEY_KNOWN : MQ_KEY_PENDING);
	mq_count_leased(q, l->ready_at, 1);
	t->tid = t->was = *tid;
	t->lane = lane;
	t->pos = pos;
	t->from_failed = false;
	t->reason = MQ_REASON_NONE;
	t->attempts = 0;
	open_lease(c, l, now, t);
	return true;
}

/*
 * Step 2.  Returns how many candidates were leased; if none, *next says what is
 * to be done instead.  The partition is locked.
 */
static int
take(Claimer *c, MqQueue *q, TimestampTz now, Taken *taken, int want,
	 MqNext *next, MqScanJob *job)
{
	int			n = 0;

	*next = MQ_NEXT_NONE;
	/* what is to be dropped is no delivery */
	if (!c->drop)
		want = allowed(q, want, &now);
	while (n < want)
	{
		MqLease    *retry = mq_lease_retry(q, now);
		MqCandidate cand;

		/* keys that may go on come before what is fresh */
		int			limit = retry ? MQ_LANE_DUE(retry->priority) :
			mq_key_has_work(q) ? MQ_LANE_FRESH : MQ_NLANES;

		/* and what waits in them is older than what stands in a lane */
		if (c->drop && mq_key_has_work(q))
			break;

		*next = c->drop ? mq_lane_lowest(q, now, &cand, job) :
			mq_lane_next(q, now, limit, &cand, job);
		if (*next == MQ_NEXT_NONE && retry)
		{
			take_retry(c, retry, now, &taken[n++]);
			continue;
		}
		if (*next != MQ_NEXT_ROW)
			break;
		if (mq_lease_find(q, cand.pos.id) != NULL)
			continue;			/* listed twice; the lease's end lists it anew */
		if (!take_new(c, q, cand.lane, cand.pos, &cand.tid, now, &taken[n]))
		{
			MqPlace		p;

			p.id = cand.pos.id;
			p.tid = cand.tid;
			p.priority = MQ_LANE_PRIORITY(cand.lane);
			p.timed = MQ_LANE_IS_DUE(cand.lane);
			p.ready_at = cand.pos.t;
			mq_lane_add(q, &p);
			*next = MQ_NEXT_NONE;
			break;
		}
		n++;
	}
	if (n > 0 && !c->drop && q->throttle.rate_limit > 0)
		mq_throttle_take(q, mq_steady(), n);
	/* a scan taken on together with candidates is for the next round */
	return n;
}

/*
 * Step 2 with match: leases those found by it that still can be.  The partition
 * is locked.
 */
static int
take_found(Claimer *c, MqQueue *q, TimestampTz now, Taken *taken,
		   const MqFound *found, int nfound)
{
	int			want = allowed(q, nfound, &now);
	int			n = 0;

	for (int i = 0; i < nfound && n < want && !q->paused; i++)
	{
		const MqFound *f = &found[i];
		MqLease    *l = mq_lease_find(q, f->id);
		ItemPointerData tid = f->tid;

		if (f->failed)
		{
			if (l && l->state == MQ_LEASE_FAILED && l->until <= now && !mq_lease_is_spent(l))
				take_retry(c, l, now, &taken[n++]);
		}
		else if (l == NULL)
		{
			if (!take_new(c, q, f->lane, f->pos, &tid, now, &taken[n]))
				break;
			n++;
		}
	}
	if (n > 0 && q->throttle.rate_limit > 0)
		mq_throttle_take(q, mq_steady(), n);
	return n;
}

/*
 * Whether one more may be delivered; note_held if not.  The partition is locked.
 */
static bool
one_allowed(Claimer *c, MqQueue *q)
{
	TimestampTz now;

	return c->drop || allowed(q, 1, &now) > 0;
}

/*
 * Step 2 for a key of an ordered queue that may go on: its first row is sought
 * and leased.  Called with the partition locked, returns with it unlocked.
 * Returns how many were leased, 0 or 1.
 */
static int
take_of_key(Claimer *c, MqQueue *q, TimestampTz now, Taken *t)
{
	MqCandidate cand;
	MqKey	   *key;
	int			n = 0;

	if (!mq_order_begin(q))
	{
		mq_unlock(q->partition);
		return 0;
	}
	mq_unlock(q->partition);
	mq_order_walk(&c->reader, now);
	q = mq_queue_attach(c->def, c->rel);
	key = mq_order_end(q, now, &cand);
	c->expired_upto = q->expired_upto;
	if (key && !one_allowed(c, q))
		mq_key_end_next(key, MQ_KEY_READY); /* others were faster */
	else if (key && take_new(c, q, cand.lane, cand.pos, &cand.tid, now, t))
	{
		mq_key_attach(key, t->lease);
		mq_key_end_next(key, MQ_KEY_HELD);
		if (!c->drop && q->throttle.rate_limit > 0)
			mq_throttle_take(q, mq_steady(), 1);
		n = 1;
	}
	else if (key)
		mq_key_end_next(key, MQ_KEY_READY);
	mq_unlock(q->partition);
	return n;
}

static void
add_delivery(Claimer *c, Taken *t, const MqRow *row)
{
	MqDelivery *d;

	if (c->got >= c->max_out)
	{
		c->max_out = Max(c->max_out * 2, 16);
		c->out = c->out ? repalloc_huge(c->out, c->max_out * sizeof(MqDelivery)) :
			palloc(c->max_out * sizeof(MqDelivery));
	}
	d = &c->out[c->got++];
	d->row = *row;
	d->def = c->def;
	d->duration = c->duration;
	d->attempts = t->attempts;
	d->reason = t->reason;
	d->receipt = c->receipt;
}

/*
 * Step 3: looks at the rows, then under the lock keeps or gives back.  Returns
 * with the lock released.
 */
static void
sift(Claimer *c, Taken *taken, int n, TimestampTz now)
{
	int			partition = mq_partition_of(MyDatabaseId, c->def->relid);
	int32		max_attempts = c->drop ? 0 : c->def->policy.max_attempts;
	int			kept = 0;
	int			keep_until = n; /* candidates from here on go back unseen */
	int			first = c->got;
	int			given = 0;		/* candidates that were not delivered */
	bool		buried_later = false;
	MqQueue    *q;
	MqWakeList	wake = {0};

	for (int i = 0; i < n; i++)
	{
		Taken	   *t = &taken[i];
		MqRow		row;

		t->early = t->back = t->expired = false;
		t->look = mq_row_look(&c->reader, t->id, &t->tid, &row, &t->holder);

		/* found by match, it may still be on a list: what holds it is not noted */
		if (c->d->match && !t->from_failed && t->look == MQ_LOOK_HELD)
			t->back = true;
		if (t->look != MQ_LOOK_OK)
			continue;
		if (c->d->match && !mq_match_fits(&c->reader, row.tuple, c->d->match))
		{
			t->back = true;
			continue;
		}
		if (row.expires_at <= now || row.expires_at <= c->expired_upto)
		{
			/* the way to the dead letters is the expiry scan's, or a failure's */
			t->look = MQ_LOOK_GONE;
			t->expired = true;
			t->expires_at = row.expires_at;
			if (c->ordered)
				t->key = mq_tuple_key_hash(c->def, RelationGetDescr(c->rel), row.tuple);
			continue;
		}

		/*
		 * Its time has not come, or an UPDATE has moved it to where others may
		 * come before it; or, after a crash, the row knows of the failure and
		 * when to try again.
		 */
		if (!t->from_failed ? (row.place.timed && row.place.ready_at > now) ||
			mq_place_lane(&row.place) != t->lane ||
			(row.place.timed && row.place.ready_at != t->pos.t) :
			row.attempts >= t->attempts)
		{
			t->look = MQ_LOOK_GONE;
			t->early = true;
			t->place = row.place;

			/* it is due in its new place, and those behind it here may come after it there */
			if (c->d->match == NULL && !(row.place.timed && row.place.ready_at > now))
			{
				keep_until = i + 1;
				break;
			}
			continue;
		}
		if (!t->from_failed)
			t->attempts = row.attempts;
		if (max_attempts > 0 && t->attempts + 1 >= max_attempts && c->got > 0)
		{
			keep_until = i;
			c->ended = true;
			break;
		}
		if (c->ordered && !c->drop)
		{
			MqOrder		order = mq_order_claim(&c->reader, t->lease, t->id, c->receipt, &row, now);

			if (order == MQ_ORDER_FULL)
			{
				keep_until = i;
				c->ended = c->full = true;
				break;
			}
			if (order == MQ_ORDER_PARKED)
			{
				t->look = MQ_LOOK_GONE; /* and its lease with it */
				c->touch->claims.a[t->claim].lease = NULL;
				heap_freetuple(row.tuple);
				continue;
			}
		}
		add_delivery(c, t, &row);
		kept++;
		if (max_attempts > 0 && t->attempts + 1 >= max_attempts)
		{
			keep_until = i + 1;
			c->ended = true;
			break;
		}
	}

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, c->def->relid, c->def->hint);
	for (int i = 0, k = first; q && i < n; i++)
	{
		Taken	   *t = &taken[i];
		MqClaim    *record = &c->touch->claims.a[t->claim];
		MqLease    *l = t->lease;
		bool		moved;

		if (!mq_claim_is_mine(q, record))
		{
			/* dropped by a delete that came in between */
			if (i < keep_until && t->look == MQ_LOOK_OK && !t->back)
				k++;
			else
				given++;
			continue;
		}
		moved = memcmp(&l->tid, &t->was, sizeof(ItemPointerData)) != 0;
		if (i >= keep_until || t->back || (t->look != MQ_LOOK_OK && moved))
		{
			/*
			 * Not wanted now, or an UPDATE has committed since we looked, which
			 * left it to the lease to know where the row stands.
			 */
			mq_return_claim(q, l);
			record->lease = NULL;
			given++;
		}
		else if (t->look == MQ_LOOK_OK)
		{
			MqRow	   *row = &c->out[k++].row;

			if (!moved)
			{
				l->tid = row->place.tid;
				l->relnode = q->relnode;
				l->priority = row->place.priority;
			}
			if (!t->from_failed && !moved)
			{
				mq_count_leased(q, l->ready_at, -1);
				l->ready_at = row->place.timed ? row->place.ready_at : DT_NOBEGIN;
				mq_count_leased(q, l->ready_at, 1);
			}
			l->attempts = t->attempts;
			if (!c->peek)
			{
				mq_lease_mirror(l);
				q->n.delivered++;
				if (t->attempts > 0)
					q->n.redelivered++;
			}
		}
		else
		{
			if (t->look == MQ_LOOK_HELD)
			{
				if (t->from_failed)
					mq_lease_put_back(l, mq_time_add(now, USECS_PER_SEC));
				else
				{
					mq_count_leased(q, l->ready_at, -1);
					mq_expiry_left(l);
					mq_lease_free(l);
					mq_lane_block(q, t->lane, t->pos, t->id, &t->tid, &t->holder);
				}
			}
			else if (t->expired && t->from_failed)
			{
				mq_lease_put_back(l, now);
				mq_lease_expired(l, t->expires_at);
				buried_later = true;
			}
			else
			{
				if (!t->from_failed)
					mq_count_leased(q, l->ready_at, -1);
				if (t->early || t->expired)
					mq_expiry_left(l);
				mq_lease_free(l);
				if (t->early)
					mq_lane_defer(q, &t->place);
				else if (t->expired && c->ordered)
					mq_key_gone(q, t->key); /* nothing waits for it any more */
			}
			record->lease = NULL;
			given++;
		}
	}
	if (q)
	{
		int64		b = blocks_touched();

		q->n.rows_examined += c->reader.examined;
		q->n.blocks_touched += b - c->blocks;
		c->reader.examined = 0;
		c->blocks = b;
		if (!c->drop)
			mq_throttle_give(q, given);
		if (keep_until < n)
			mq_wake_pick(q, n - keep_until, &wake);
		else if (given > 0 && (q->throttle.rate_limit > 0 || c->d->match))
			mq_wake_pick(q, 1, &wake);	/* a token is there sooner; it can be taken */
		if (c->ordered)
			mq_wake_pick(q, mq_key_freed(q), &wake);
		mq_wake_freed(q, &wake);
	}
	mq_unlock(partition);
	mq_wake_send(&wake);
	if (buried_later)
		mq_worker_poke(DT_NOBEGIN);

	/* parked rows are many behind a busy key: their records are needless */
	while (c->ordered && c->touch->claims.n > 0)
	{
		MqClaim    *last = &c->touch->claims.a[c->touch->claims.n - 1];

		if (last->lease != NULL || last->handed_out || last->settled)
			break;
		c->touch->claims.n--;
	}
}

/* Waits until whoever scans this queue has finished; the partition is locked. */
static void
wait_for_scan(MqQueue *q)
{
	ConditionVariable *scanned = &mq_shared->scanned[q->partition];

	ConditionVariablePrepareToSleep(scanned);
	mq_unlock(q->partition);
	ConditionVariableTimedSleep(scanned, 100, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

/*
 * Whether the queue's limits allow nothing now, as def has them too if that
 * is what counts.
 */
static bool
is_held(MqQueue *q, MqDef *def, TimestampTz steady)
{
	return (q->throttle_known ||
			(q->throttle.max_in_flight == def->throttle.max_in_flight &&
			 q->throttle.rate_limit == def->throttle.rate_limit)) &&
		mq_throttle_room(q, steady) == 0;
}

/*
 * Whether there is certainly nothing to claim: known without a page and without
 * keeping others from looking as well.
 */
static bool
known_empty(MqDef *def)
{
	LWLock	   *lock = mq_partition_lock(mq_partition_of(MyDatabaseId, def->relid));
	TimestampTz now = mq_now();
	TimestampTz steady = mq_steady();
	MqQueue    *q;
	bool		empty;
	bool		held = false;

	LWLockAcquire(lock, LW_SHARED);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	empty = q && q->attached && q->signature == def->signature &&
		(q->paused ||
		 (q->nblocked == 0 && q->nprepared == 0 && q->nfailed == 0 &&
		  mq_lease_next_deadline(q) > steady &&
		  (!mq_lane_has_work(q, now) || (held = is_held(q, def, steady))))) &&
		(mq_worker_alive_hint() || mq_expiry_event(q) > steady);
	if (held)
		note_held(q, steady);
	if (empty)
		q->dequeued = steady;	/* whoever writes it last is right */
	LWLockRelease(lock);
	return empty;
}

/*
 * One round of a claim with match; whether there may be more.
 */
static bool
claim_found(Claimer *c, TimestampTz now, Taken *taken, MqFound *found, int want)
{
	MqQueue    *q;
	int			nfound;
	int			n;

	if (c->ordered)
		mq_order_list_ready(&c->reader, now, &c->match.budget);
	nfound = mq_match_find(&c->match, &c->reader, now, want, found);
	if (nfound == 0)
		return false;
	c->full = false;
	q = mq_queue_attach(c->def, c->rel);
	n = take_found(c, q, now, taken, found, nfound);
	c->expired_upto = q->expired_upto;
	mq_unlock(q->partition);
	if (n > 0)
		sift(c, taken, n, now);
	return nfound == want && !c->full;
}

/*
 * Claims up to max messages that are there now.  The table is locked.
 */
static void
claim(Claimer *c)
{
	Taken	   *taken;
	MqFound    *found = NULL;
	static MqScanJob job;		/* large, and a process scans one lane at a time */
	bool		retired = false;
	bool		helped = false;

	taken = palloc(sizeof(Taken) * Min(c->d->max, BATCH));
	if (c->d->match)
	{
		found = palloc(sizeof(MqFound) * Min(c->d->max, BATCH));
		c->match.headers = c->d->match;
		c->match.budget = MQ_MATCH_ROWS;
		c->match.next = DT_NOEND;
	}
	mq_reader_init(&c->reader, c->def, c->rel);
	c->blocks = blocks_touched();
	c->full = c->ended = false;
	while (c->got < c->d->max && !c->ended)
	{
		int			want = Min(c->d->max - c->got, BATCH);
		TimestampTz now = mq_now();
		TimestampTz steady = mq_steady();
		MqNext		next;
		MqQueue    *q;
		int			n;

		CHECK_FOR_INTERRUPTS();
		/* one drawn before a wait would be older than those of deliveries since */
		if (c->got == 0)
			c->receipt = 0;
		mq_array_reserve(c->touch->claims, want);
		q = mq_queue_attach(c->def, c->rel);
		c->touch->hint = q;
		q->dequeued = steady;
		mq_wait_unwatch(q);
		if (q->paused && !c->drop)
		{
			mq_unlock(q->partition);
			break;
		}
		if (!retired && (q->nblocked > 0 || q->nprepared > 0))
		{
			mq_unlock(q->partition);
			mq_outcome_retire(c->def->relid);
			retired = true;
			continue;
		}
		c->ordered = q->ordered;
		if (c->ordered && q->keys_recheck)
			mq_key_recheck(q);
		if (c->ordered && q->nkey_unknown > 0)
		{
			mq_unlock(q->partition);
			if (!mq_order_learn(&c->reader))
			{
				c->full = true;
				break;
			}
			continue;
		}
		mq_lease_expire(q, steady);
		if (!helped && (q->nfailed > 0 || mq_expiry_event(q) <= steady))
		{
			helped = true;
			if (mq_worker_alive_hint())
				mq_worker_poke(mq_expiry_event(q));
			else if (!c->peek)
			{
				/* nobody else would take them to the dead letters */
				mq_unlock(q->partition);
				c->buried |= mq_retry_bury(c->def) > 0;
				c->buried |= mq_sweep_bury(c->def) > 0;
				continue;
			}
		}
		if (c->d->match)
		{
			want = allowed(q, want, &now);
			mq_unlock(q->partition);
			if (want > 0 && claim_found(c, now, taken, found, want))
				continue;
			break;
		}
		n = take(c, q, now, taken, want, &next, &job);
		c->expired_upto = q->expired_upto;
		if (n == 0 && next == MQ_NEXT_WAIT)
		{
			wait_for_scan(q);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		if (n == 0 && next == MQ_NEXT_NONE && !c->full && mq_key_has_work(q) && one_allowed(c, q))
		{
			n = take_of_key(c, q, now, taken);
			if (n == 0 && !c->full)
				continue;
		}
		else
			mq_unlock(q->partition);
		if (n > 0)
			sift(c, taken, n, now);
		if (next == MQ_NEXT_SCAN)
		{
			mq_lane_scan(&job, &c->reader);
			q = mq_queue_attach(c->def, c->rel);
			mq_lane_merge(q, &job);
			mq_unlock(q->partition);
		}
		else if (n == 0)
			break;
		if (c->full && n == 0)
			break;
		if (c->ended)
			break;
		c->full = false;		/* what was taken may have made room */
	}
	mq_reader_done(&c->reader);
	if (c->full)
		c->full_def = c->def;
	pfree(taken);
}

/*
 * The same from each queue in order, max over all.  Raises 53400 if that is
 * nothing for want of room.
 */
static void
claim_all(Claimer *c)
{
	c->full_def = NULL;
	for (int i = 0; i < c->d->nqueues && c->got < c->d->max; i++)
	{
		Source	   *s = &c->sources[i];
		int			before = c->got;

		c->def = s->def;
		c->rel = s->rel;
		c->touch = s->touch;
		c->duration = s->duration;
		claim(c);
		s->got += c->got - before;
		s->next = c->match.next;
		if (c->ended)
			break;
	}
	if (c->full_def && c->got == 0 && !c->peek && !c->buried)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room to lease messages of queue \"%s\"", c->full_def->name),
				 errhint("Too many messages are in flight; settle some, or raise mq.max_in_flight (now %d).",
						 mq_max_in_flight)));
}

/*
 * Joins the queue's waiters unless there is something to do at once.  Returns how
 * long to sleep in milliseconds, or -1.  The deadline is by the steady clock.
 */
static long
join_waiters(MqDef *def, Relation rel, TimestampTz deadline)
{
	TimestampTz steady = mq_steady();
	TimestampTz until;
	TimestampTz next;
	MqQueue    *q;
	bool		idle;
	long		ms = -1;

	q = mq_queue_attach(def, rel);
	idle = q->paused ||
		(!mq_lane_has_work(q, mq_now()) && mq_lease_next_event(q) > steady);
	next = mq_throttle_next(q, steady);
	if (idle || (next > steady && mq_lease_next_deadline(q) > steady))
	{
		mq_wait_enter(q, false);
		if (q->paused)
			until = deadline;
		else if (idle)
			until = Min(deadline, Min(mq_steady_of(mq_lane_next_due(q)), mq_lease_next_event(q)));
		else if (next == DT_NOEND)
		{
			q->refused = true;
			until = Min(deadline, mq_lease_next_deadline(q));
		}
		else
			until = mq_wait_watch(q) ? Min(deadline, next) : deadline;
		/* without a deadline of its own a sleep is cut to look around */
		ms = mq_ms_until(until, steady, 1000);
	}
	mq_unlock(q->partition);
	return ms;
}

/*
 * The same with match.  Whether there is something for us no look at the queue
 * can say, so whoever was not yet among the waiters has to claim once more.
 */
static long
join_matchers(Source *s, TimestampTz deadline)
{
	MqQueue    *q = mq_queue_attach(s->def, s->rel);
	TimestampTz steady = mq_steady();
	TimestampTz until = deadline;
	long		ms = -1;

	if (mq_wait_enter(q, true))
	{
		TimestampTz next = mq_throttle_next(q, steady);

		if (!q->paused)
			until = Min(until, Min(mq_steady_of(s->next), mq_lease_next_deadline(q)));
		if (next == DT_NOEND)
			q->refused = true;
		else if (next > steady)
			until = Min(deadline, next);
		ms = mq_ms_until(until, steady, 1000);
	}
	mq_unlock(q->partition);
	return ms;
}

/* The same for all queues of the claim. */
static long
prepare_to_wait(Claimer *c, TimestampTz deadline)
{
	Oid			relids[MQ_WAIT_QUEUES];
	long		ms = 1000;
	bool		again = false;

	for (int i = 0; i < c->d->nqueues; i++)
		relids[i] = c->sources[i].def->relid;
	mq_wait_leave_others(relids, c->d->nqueues);
	for (int i = 0; i < c->d->nqueues; i++)
	{
		Source	   *s = &c->sources[i];
		long		one = c->d->match ? join_matchers(s, deadline) :
			join_waiters(s->def, s->rel, deadline);

		again |= one < 0;
		if (again && !c->d->match)
			break;
		ms = Min(ms, one);
	}
	return again ? -1 : ms;
}

/* Before claiming for somebody who may have gone while we slept. */
static void
check_client(void)
{
	if (MyProcPort && whereToSendOutput == DestRemote && !pq_check_connection())
		ereport(FATAL,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to client lost")));
}

/* Opens all queues of the claim before anything is taken from one. */
static void
open_queues(Claimer *c)
{
	for (int i = 0; i < c->d->nqueues; i++)
	{
		Source	   *s = &c->sources[i];

		s->rel = mq_queue_open(c->d->queues[i], AccessShareLock, &s->def);
		mq_require(s->def, ACL_SELECT | ACL_DELETE);
		s->duration = c->d->session ? -1 :
			c->d->lease >= 0 ? c->d->lease : s->def->policy.lease;
		s->touch = mq_xact_touch(s->def->relid);
	}
}

/* Keeps the lock of those that delivered something. */
static void
close_queues(Claimer *c)
{
	for (int i = 0; i < c->d->nqueues; i++)
	{
		relation_close(c->sources[i].rel, c->sources[i].got > 0 ? NoLock : AccessShareLock);
		c->sources[i].rel = NULL;
	}
}

/*
 * Whether all queues are known to be empty: a look that needs no lock on their
 * tables, as it touches nothing of them.
 */
static bool
all_known_empty(const MqDequeue *d)
{
	bool		empty = true;

	AcceptInvalidationMessages();
	for (int i = 0; i < d->nqueues; i++)
	{
		MqDef	   *def = mq_def_lookup(d->queues[i], false);

		if (def->refused)
			return false;		/* opening it says why */
		mq_require(def, ACL_SELECT | ACL_DELETE);
		if (i == 0)
			mq_worker_ensure();
		empty = empty && known_empty(def);
	}
	return empty;
}

/* Deletes what was claimed from one queue: deliveries from .. to - 1. */
static int
ack_some(Claimer *c, int from, int to, int kept)
{
	MqDef	   *def;
	Relation	rel = mq_queue_open(c->out[from].def->name, RowExclusiveLock, &def);
	int64	   *ids = palloc(sizeof(int64) * (to - from));
	MqSettleArgs a = {0};

	for (int i = from; i < to; i++)
		ids[i - from] = c->out[i].row.place.id;
	a.verb = MQ_ACK;
	a.n = to - from;
	a.ids = ids;
	a.receipts = &c->receipt;
	a.one_receipt = true;
	a.settled = palloc0(sizeof(bool) * a.n);
	mq_settle(def, rel, &a);
	relation_close(rel, NoLock);

	/* somebody may have deleted a row since we looked */
	for (int i = from; i < to; i++)
		if (a.settled[i - from])
			c->out[kept++] = c->out[i];
	return kept;
}

/* auto_ack, queue by queue. */
static void
ack_all(Claimer *c)
{
	int			kept = 0;

	for (int from = 0, to; from < c->got; from = to)
	{
		for (to = from + 1; to < c->got && c->out[to].def == c->out[from].def; to++)
			;
		kept = ack_some(c, from, to, kept);
	}
	c->got = kept;
}

/*
 * Takes up to max messages, from the queues in the order given, waiting for the
 * first if asked to.  The deliveries are allocated in the current memory context,
 * those of one queue together.  The caller calls mq_handed_out for each queue
 * when nothing can fail any more.  Holds AccessShareLock until the transaction
 * ends on the tables of which something was delivered, and none while asleep.
 * Raises what opening one of them raises before anything is claimed.
 */
int
mq_dequeue(const MqDequeue *d, MqDelivery **deliveries)
{
	Claimer		c = {0};
	TimestampTz deadline = d->wait > 0 ? mq_time_add(mq_steady(), d->wait) : DT_NOBEGIN;

	mq_check_writable("mq.dequeue()");
	if (d->wait == 0 && all_known_empty(d))
		return 0;
	c.d = d;
	c.sources = palloc0(sizeof(Source) * d->nqueues);
	open_queues(&c);
	mq_worker_ensure();
	claim_all(&c);
	while (c.got == 0 && d->wait > 0 && mq_steady() < deadline && !(c.full_def && c.buried))
	{
		long		ms = prepare_to_wait(&c, deadline);

		if (ms >= 0)
		{
			close_queues(&c);
			mq_wait_sleep(ms);
			check_client();
			AcceptInvalidationMessages();
			open_queues(&c);
			if (mq_steady() >= deadline)
				break;
		}
		else
			CHECK_FOR_INTERRUPTS();
		claim_all(&c);
	}
	mq_wait_leave();
	close_queues(&c);

	for (int i = 0; i < c.got; i++)
		c.out[i].until = c.out[i].duration < 0 || d->auto_ack ? DT_NOEND :
			mq_time_add(mq_now(), c.out[i].duration);
	if (d->auto_ack)
		ack_all(&c);
	*deliveries = c.out;
	return c.got;
}

/* The dequeue has succeeded: from now on an abort counts an attempt. */
void
mq_handed_out(Oid relid)
{
	MqTouch    *t = mq_xact_touched(relid);

	for (int i = t ? t->claims.n - 1 : -1; i >= 0 && !t->claims.a[i].handed_out; i--)
		t->claims.a[i].handed_out = !t->claims.a[i].dropped;
}

/* Says that messages were dropped for good, once a second and session. */
static void
log_dropped(MqDef *def, int64 n)
{
	static Oid	relid = InvalidOid;
	static int64 dropped = 0;
	static TimestampTz logged = DT_NOBEGIN;
	TimestampTz steady = mq_steady();

	if (relid != def->relid)
	{
		relid = def->relid;
		dropped = 0;
		logged = DT_NOBEGIN;
	}
	dropped += n;
	if (logged != DT_NOBEGIN && steady - logged < USECS_PER_SEC)
		return;
	logged = steady;
	ereport(LOG,
			(errmsg("queue \"%s\" dropped %lld messages (maxlen): it has no dead-letter queue",
					def->name, (long long) dropped)));
	dropped = 0;
}

/*
 * For a producer that has to make room (length.c): leases up to n ready
 * messages, the oldest of the lowest priority first, and takes them to the dead
 * letters as `maxlen` in this transaction.  Returns how many.
 */
int64
mq_drop_head(MqDef *def, Relation rel, int64 n)
{
	MqDequeue	d = {0};
	Claimer		c = {0};
	MqSettleArgs a = {0};
	int64	   *ids;

	d.max = (int) Min(n, PG_INT32_MAX);
	d.consumer = "";
	c.d = &d;
	c.def = def;
	c.rel = rel;
	c.touch = mq_xact_touch(def->relid);
	c.peek = c.drop = true;
	c.duration = def->policy.lease;
	claim(&c);
	if (c.got < d.max && c.ordered)
	{
		MqQueue    *q = mq_queue_attach(def, rel);
		bool		parked = q->nparked_keys > 0;

		/* what waits behind keys that are held is found by a new scan only */
		if (parked)
			mq_queue_init_lanes(q);
		mq_unlock(q->partition);
		if (parked)
			claim(&c);
	}
	if (c.got == 0)
		return 0;
	ids = palloc(sizeof(int64) * c.got);
	for (int i = 0; i < c.got; i++)
	{
		ids[i] = c.out[i].row.place.id;
		heap_freetuple(c.out[i].row.tuple);
	}
	a.verb = MQ_DROP;
	a.n = c.got;
	a.ids = ids;
	a.receipts = &c.receipt;
	a.one_receipt = true;
	c.got = mq_settle(def, rel, &a);
	if (def->dead_letter[0] == '\0' && c.got > 0)
		log_dropped(def, c.got);
	pfree(ids);
	pfree(c.out);
	return c.got;
}

/* Gives back what a look claimed. */
static void
give_back(Claimer *c)
{
	int			partition = mq_partition_of(MyDatabaseId, c->def->relid);
	MqWakeList	wake = {0};
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, c->def->relid, c->def->hint);
	if (q)
		mq_wake_pick(q, 1, &wake);	/* who looked meanwhile did not see it */
	for (int i = 0; i < c->touch->claims.n; i++)
	{
		MqClaim    *record = &c->touch->claims.a[i];

		if (c->receipt != 0 && record->receipt == c->receipt && q && mq_claim_is_mine(q, record))
		{
			mq_return_claim(q, record->lease);
			mq_throttle_give(q, 1);
			record->lease = NULL;
		}
	}
	if (q)
		mq_wake_freed(q, &wake);
	mq_unlock(partition);
	mq_wake_send(&wake);
}

/*
 * Returns when a message is ready, or after timeout microseconds.  Holds
 * neither snapshot nor lock while it sleeps.
 */
void
mq_wait(const char *queue, int64 timeout)
{
	MqDequeue	d = {0};
	Claimer		c = {0};
	TimestampTz deadline = mq_time_add(mq_steady(), timeout);

	mq_check_writable("mq.wait()");
	d.queues = &queue;
	d.nqueues = 1;
	d.max = 1;
	d.lease = -1;
	d.consumer = "";
	c.d = &d;
	c.sources = palloc0(sizeof(Source));
	c.peek = true;
	for (;;)
	{
		long		ms = -1;

		PushActiveSnapshot(GetTransactionSnapshot());
		open_queues(&c);
		mq_worker_ensure();
		c.receipt = 0;
		claim_all(&c);
		if (c.got > 0)
			give_back(&c);
		else if (!c.full_def && mq_steady() < deadline)
			ms = prepare_to_wait(&c, deadline);
		relation_close(c.sources[0].rel, AccessShareLock);
		PopActiveSnapshot();
		InvalidateCatalogSnapshot();
		/* there is one, even if the lease table has no room for it now */
		if (c.got > 0 || c.full_def || mq_steady() >= deadline)
			break;
		if (ms >= 0)
			mq_wait_sleep(ms);
		else
			CHECK_FOR_INTERRUPTS();
	}
	mq_wait_leave();
}
