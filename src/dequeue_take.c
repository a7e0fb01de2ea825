/*-------------------------------------------------------------------------
 * dequeue_take.c
 *		Candidates of a claim: leased under the lock, then looked at without.
 *
 * These are steps 2 and 3 of a claim; dequeue.c has the whole of it.
 *-------------------------------------------------------------------------
 */
#include "dequeue_private.h"

#include "clock.h"
#include "expiry.h"
#include "mb/pg_wchar.h"
#include "order.h"
#include "throttle.h"

#define HELD_PAUSE	USECS_PER_SEC	/* until a failed one is tried again whose row is held */

/* Buffers this process has looked at so far. */
int64
mq_claim_blocks_touched(void)
{
	return pgBufferUsage.shared_blks_hit + pgBufferUsage.shared_blks_read;
}

/*
 * Somebody is refused by the queue's limits, not knowing whether there is
 * anything.  The partition is locked, at least shared.
 */
void
mq_claim_note_held(MqQueue *q, TimestampTz steady)
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
	mq_lease_set_dropping(l, c->drop);
	l->until = DT_NOEND;
	strlcpy(l->consumer, c->d->consumer,
			pg_mbcliplen(c->d->consumer, strlen(c->d->consumer), NAMEDATALEN - 1) + 1);

	record->lease = l;
	record->id = l->id;
	record->receipt = c->receipt;
	record->tokens = l->queue->tokens_taken;
	record->dropping = c->drop;
	record->handed_out = false;
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
int
mq_claim_allowed(MqQueue *q, int want, TimestampTz *now)
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
		mq_claim_note_held(q, steady);
	return (int) Min(want, room);
}

/* Leases a failed delivery again. The partition is locked. */
static void
take_retry(Claimer *c, MqLease *l, TimestampTz now, Taken *t)
{
	t->tid = mq_lease_place(l).tid;
	t->was = l->tid;
	t->lane = MQ_LANE_DUE(l->priority);
	t->pos = (MqPos) {l->due, l->id};
	t->from_failed = true;
	t->ready_at = l->ready_at;
	t->attempts = l->attempts;
	t->reason = l->reason;
	mq_lease_reopen(l);
	open_lease(c, l, now, t);
}

/*
 * Leases a message that is not leased; false if there is no room.  The
 * partition is locked.
 */
bool
mq_claim_take_new(Claimer *c, MqQueue *q, int lane, MqPos pos, ItemPointer tid,
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
	mq_count_lease(l, MQ_LANE_IS_DUE(lane) ? pos.t : DT_NOBEGIN);
	if (q->ordered)
		mq_key_set_known(l, c->drop ? MQ_KEY_KNOWN : MQ_KEY_PENDING);
	t->tid = t->was = *tid;
	t->lane = lane;
	t->pos = pos;
	t->from_failed = false;
	t->reason = MQ_REASON_NONE;
	t->attempts = 0;
	l->unseen = true;
	open_lease(c, l, now, t);
	return true;
}

/* Where the lists say that a candidate stands. */
static MqPlace
place_of(const MqCandidate *cand)
{
	return (MqPlace) {
		.id = cand->pos.id,
		.tid = cand->tid,
		.priority = MQ_LANE_PRIORITY(cand->lane),
		.timed = MQ_LANE_IS_DUE(cand->lane),
		.ready_at = cand->pos.t
	};
}

/*
 * Step 2.  Returns how many candidates were leased; if none, *next says what is
 * to be done instead.  The partition is locked.
 */
int
mq_claim_take(Claimer *c, MqQueue *q, TimestampTz now, Taken *taken, int want,
			  MqNext *next, MqScanJob *job)
{
	int			n = 0;
	MqPlace		aside[8];
	int			naside = 0;

	*next = MQ_NEXT_NONE;
	/* what is to be dropped is no delivery */
	if (!c->drop)
		want = mq_claim_allowed(q, want, &now);
	while (n < want)
	{
		MqCandidate cand;

		/* keys that may go on come before what is fresh */
		int			limit = mq_key_has_work(q) ? MQ_LANE_FRESH : MQ_NLANES;

		/* and what waits in them is older than what stands in a lane */
		if (c->drop && mq_key_has_work(q))
			break;

		*next = c->drop ? mq_lane_lowest(q, now, &cand, job) :
			mq_lane_next(q, now, limit, &cand, job);
		if (*next != MQ_NEXT_ROW)
			break;
		if (cand.retry)
		{
			take_retry(c, cand.retry, now, &taken[n++]);
			continue;
		}
		if (mq_lease_find(q, cand.pos.id) != NULL)
		{
			/* listed twice; the lease's end lists it anew, unless at two places */
			if (!mq_lease_has_place(q, cand.lane, cand.pos))
			{
				MqPlace		p = place_of(&cand);

				if (naside < (int) lengthof(aside))
					aside[naside++] = p;
				else
					mq_lane_defer(q, &p);
			}
			continue;
		}
		if (!mq_claim_take_new(c, q, cand.lane, cand.pos, &cand.tid, now, &taken[n]))
		{
			MqPlace		p = place_of(&cand);

			mq_lane_add(q, &p);
			*next = MQ_NEXT_NONE;
			break;
		}
		n++;
	}
	for (int i = 0; i < naside; i++)
		mq_lane_add(q, &aside[i]);
	if (n > 0 && !c->drop && q->throttle.rate_limit > 0)
		mq_throttle_take(q, mq_steady(), n);
	/* a scan taken on together with candidates is for the next round */
	return n;
}

/*
 * Step 2 with match: leases those found by it that still can be.  The partition
 * is locked.
 */
int
mq_claim_take_found(Claimer *c, MqQueue *q, TimestampTz now, Taken *taken,
					const MqFound *found, int nfound)
{
	int			want = mq_claim_allowed(q, nfound, &now);
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
			if (!mq_claim_take_new(c, q, f->lane, f->pos, &tid, now, &taken[n]))
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
bool
mq_claim_one_allowed(Claimer *c, MqQueue *q)
{
	TimestampTz now;

	return c->drop || mq_claim_allowed(q, 1, &now) > 0;
}

/*
 * Step 2 for a key of an ordered queue that may go on: its first row is sought
 * and leased.  Called with the partition locked, returns with it unlocked.
 * Returns how many were leased, 0 or 1.
 */
int
mq_claim_take_of_key(Claimer *c, MqQueue *q, TimestampTz now, Taken *t)
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
	if (key && !mq_claim_one_allowed(c, q))
		mq_key_end_next(key, MQ_KEY_READY); /* others were faster */
	else if (key && mq_claim_take_new(c, q, cand.lane, cand.pos, &cand.tid, now, t))
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

/* The order of deliveries. */
static bool
is_before(int lane, MqPos pos, int other_lane, MqPos other_pos)
{
	return lane != other_lane ? lane < other_lane : mq_pos_cmp(pos, other_pos) < 0;
}

/*
 * Step 3: looks at the rows, then under the lock keeps or gives back.  Returns
 * with the lock released.
 */
void
mq_claim_sift(Claimer *c, Taken *taken, int n, TimestampTz now)
{
	int			partition = mq_partition_of(MyDatabaseId, c->def->relid);
	int32		max_attempts = c->drop ? 0 : c->def->policy.max_attempts;
	int			kept = 0;
	int			keep_until = n; /* candidates from here on go back unseen */
	int			first = c->got;
	int			given = 0;		/* candidates that were not delivered */
	bool		buried_later = false;
	int			moved_lane = MQ_NLANES;	/* where the first one moved stands now */
	MqPos		moved_pos = MQ_POS_MAX;
	MqQueue    *q;
	MqWakeList	wake = {0};

	for (int i = 0; i < n; i++)
	{
		Taken	   *t = &taken[i];
		MqRow		row;

		/* one that was moved comes before this: the rest goes back */
		if (is_before(moved_lane, moved_pos, t->lane, t->pos) && !c->d->match && !c->drop)
		{
			keep_until = i;
			break;
		}
		t->early = t->back = t->expired = t->ours = t->put_off = false;
		t->look = mq_row_look(&c->reader, t->id, &t->tid, &row, &t->holder);

		/* found by match, it may still be on a list: what holds it is not noted */
		if (c->d->match && !t->from_failed && t->look == MQ_LOOK_HELD)
			t->back = true;
		/* what this transaction has deleted or changed is not gone yet */
		if (t->from_failed && t->look == MQ_LOOK_GONE)
			t->ours = mq_xact_wrote(c->touch, t->id);
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
			if (!(row.place.timed && row.place.ready_at > now) &&
				is_before(mq_place_lane(&row.place), mq_place_pos(&row.place), moved_lane, moved_pos))
			{
				moved_lane = mq_place_lane(&row.place);
				moved_pos = mq_place_pos(&row.place);
			}
			continue;
		}
		/* an UPDATE that is not known here has put it off: one just committed, or prepared */
		if (t->from_failed && row.place.timed && row.place.ready_at > now &&
			row.place.ready_at != t->ready_at)
		{
			t->look = MQ_LOOK_GONE;
			t->put_off = true;
			t->place = row.place;
			continue;
		}
		if (!t->from_failed)
			t->attempts = row.attempts;
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
		/* on its last attempt, and it is its turn: it comes alone */
		if (max_attempts > 0 && t->attempts + 1 >= max_attempts && c->got > 0)
		{
			keep_until = i;
			c->ended = true;
			break;
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
				mq_count_lease(l, mq_place_time(&row->place));
			l->unseen = false;
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
			if (t->from_failed && (t->look == MQ_LOOK_HELD || t->ours))
				mq_lease_put_back(l, mq_time_add(now, HELD_PAUSE));
			else if (t->put_off)
				mq_lease_put_off(l, &t->place);
			else if (t->look == MQ_LOOK_HELD)
			{
				mq_expiry_left(l);
				mq_lease_free(l);
				mq_lane_block(q, t->lane, t->pos, t->id, &t->tid, &t->holder);
			}
			else if (t->expired && t->from_failed)
			{
				mq_lease_put_back(l, DT_NOBEGIN);
				mq_lease_expired(l, t->expires_at);
				buried_later = true;
			}
			else
			{
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
		int64		b = mq_claim_blocks_touched();

		q->n.rows_examined += c->reader.examined;
		q->n.blocks_touched += b - c->blocks;
		c->reader.examined = 0;
		c->blocks = b;
		if (!c->drop)
			mq_throttle_give(q, given, c->touch->claims.a[taken[0].claim].tokens);
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
