/*-------------------------------------------------------------------------
 * outcome.c
 *		What the end of a transaction does to the queues it touched.
 *
 * Commit, in one critical section a queue:
 *	  settled		the lease goes; the row is gone, or returns to its place
 *	  claimed		OPEN -> HELD, its clock starts now
 *	  deleted, updated, inserted rows: off the leases, into the lanes
 *	  then as many waiters are picked as messages became deliverable.
 * Abort, and abort of a subtransaction for what was done under it:
 *	  settled		the lease is as before
 *	  claimed		handed out: FAILED, the attempt counted; else back in place
 *	  deleted, updated rows stand where they stood: listed again, as others
 *					have put them aside when they met our lock.
 * Prepare: leases name the xid instead of this process, the rest goes to an
 * MqPrepared reserved before (outcome_prepared.c).
 *
 * A record points to its lease.  The lease may have been dropped meanwhile (an
 * operator deleted the row, TRUNCATE) and the entry given to another message:
 * it counts only if id, receipt, queue and holder still agree.
 *
 * Nothing here allocates, reads a catalog or raises an error, but for what is done
 * before the commit (precommit).
 */
#include "outcome_private.h"

#include "announce.h"
#include "clock.h"
#include "expiry.h"
#include "order.h"
#include "throttle.h"

/* Whether this transaction still has what it claimed. */
bool
mq_claim_is_mine(MqQueue *q, const MqClaim *c)
{
	MqLease    *l = c->lease;

	return l != NULL && l->queue == q && l->id == c->id && l->receipt == c->receipt &&
		l->settler == MqMyProcNumber();
}

bool
mq_settle_is_mine(MqQueue *q, const MqSettle *s)
{
	MqLease    *l = s->lease;

	return l != NULL && l->queue == q && l->id == s->id && l->receipt == s->receipt &&
		l->state == MQ_LEASE_SETTLING && l->settler == MqMyProcNumber();
}

/*
 * A leased message goes back to its place, no attempt counted.  Failures not
 * yet written into the row stay known here.
 */
void
mq_return_claim(MqQueue *q, MqLease *l)
{
	if (l->unwritten)
		mq_lease_put_back(l, DT_NOBEGIN);
	else
	{
		MqPlace		p = mq_lease_place(l);
		bool		astray = l->astray;

		mq_expiry_left(l);
		mq_lease_free(l);
		if (astray)
			mq_queue_init_lanes(q);
		else
			mq_lane_add(q, &p);
	}
}

/* What a settled delivery becomes.  Returns 1 if it can be delivered again. */
static int
settle_commit(MqQueue *q, const MqSettle *s, TimestampTz horizon)
{
	MqLease    *l = s->lease;
	bool		counted = l->from != MQ_LEASE_FAILED;

	if (s->verb == MQ_RELEASE)
	{
		mq_return_claim(q, l);
		return 1;
	}
	if (s->verb == MQ_ACK)
		q->n.acked++;
	else if (counted && s->verb != MQ_DROP)
		q->n.nacked++;
	if (s->dead)
		q->n.dead++;
	if (s->row_gone)
	{
		mq_count_row(q, &s->was, -1, horizon);
		mq_key_row_gone(l);
	}
	mq_lease_free(l);
	return 0;
}

/* A row was deleted by somebody without a lease of his own. */
static void
gone_commit(MqQueue *q, const MqGone *g, TimestampTz horizon)
{
	MqLease    *l = mq_lease_find(q, g->was.id);

	if (g->dead)
		q->n.dead++;
	if (l)
		mq_lease_free(l);
	mq_count_row(q, &g->was, -1, horizon);
	mq_key_gone(q, g->key);
}

/*
 * The row of this lease was written anew.  If the lease knows neither the version
 * that was nor the one that came, another's callback is still to come or has come
 * first: the lease follows, but does not know any more whether that is the last.
 */
static void
move_leased(MqQueue *q, MqLease *l, const MqMove *m, TimestampTz now)
{
	ItemPointerData was = m->was.tid;
	ItemPointerData tid = m->place.tid;

	if (l->relnode == q->relnode && ItemPointerIsValid(&l->tid) &&
		!ItemPointerEquals(&l->tid, &was) && !ItemPointerEquals(&l->tid, &tid))
	{
		if (l->astray && ItemPointerEquals(&l->behind, &was))
		{
			l->behind = tid;
			return;
		}
		l->astray = true;
		l->behind = l->tid;
	}
	mq_lease_moved(l, &m->place, mq_place_time(&m->place) != mq_place_time(&m->was), now);
}

/* Returns 1 if the row can be delivered from now on, 0 if later or never. */
static int
move_commit(MqQueue *q, const MqMove *m, TimestampTz now, TimestampTz horizon)
{
	MqLease    *l = m->is_new ? NULL : mq_lease_find(q, m->place.id);

	if (m->new_to_key)
		mq_key_late(q, m->place.id);
	if (m->is_new)
		q->n.enqueued++;
	else
		mq_count_row(q, &m->was, -1, horizon);
	mq_count_row(q, &m->place, 1, horizon);
	if (l)
	{
		move_leased(q, l, m, now);
		return 0;
	}
	mq_lane_add(q, &m->place);
	return !m->place.timed || m->place.ready_at <= now;
}

/* A notification is due if the queue had nothing ready and now has. */
void
mq_outcome_want_notify(MqQueue *q, int64 ready_before)
{
	if (q->notify || ready_before > 0 || (mq_count_ready(q) <= 0 && !q->n.counting))
		return;
	q->notify = true;
	mq_worker_poke(q->notified + 50 * 1000);
}

/* A row that leaves the table, for void_moves. */
typedef struct Leaving
{
	int64		id;
	int			nmoves;			/* moves noted before */
	bool		met;
	bool		is_new;
	MqPlace    *was;			/* where it stood when it left */
} Leaving;

static int
leaving_cmp(const void *a, const void *b)
{
	const Leaving *x = a;
	const Leaving *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->nmoves < y->nmoves ? -1 : x->nmoves > y->nmoves;
}

/* The first that leaves by this id after move i; NULL if none does. */
static Leaving *
first_leaving(Leaving *leaving, int n, int64 id, int i)
{
	int			lo = 0;
	int			hi = n;

	while (lo < hi)
	{
		int			mid = lo + (hi - lo) / 2;

		if (leaving[mid].id < id || (leaving[mid].id == id && leaving[mid].nmoves <= i))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && leaving[lo].id == id ? &leaving[lo] : NULL;
}

/*
 * A row that was written anew and then deleted or settled never comes to its new
 * place: it leaves the first one.  (One id may come and leave several times.)
 * Before the commit, since this allocates, and may raise an error.
 */
static void
void_moves(MqTouch *t)
{
	Leaving    *leaving;
	int			n = 0;

	if (t->moves.n == 0 || t->gone.n + t->settles.n == 0)
		return;
	leaving = palloc_extended(sizeof(Leaving) * ((Size) t->gone.n + t->settles.n),
							  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < t->gone.n; i++)
	{
		leaving[n].id = t->gone.a[i].was.id;
		leaving[n].nmoves = t->gone.a[i].nmoves;
		leaving[n++].was = &t->gone.a[i].was;
	}
	for (int i = 0; i < t->settles.n; i++)
		if (t->settles.a[i].row_gone && t->settles.a[i].verb != MQ_RELEASE)
		{
			leaving[n].id = t->settles.a[i].id;
			leaving[n].nmoves = t->settles.a[i].nmoves;
			leaving[n++].was = &t->settles.a[i].was;
		}
	qsort(leaving, n, sizeof(Leaving), leaving_cmp);
	for (int i = 0; n > 0 && i < t->moves.n; i++)
	{
		MqMove	   *m = &t->moves.a[i];
		Leaving    *l = first_leaving(leaving, n, m->place.id, i);

		if (l == NULL)
			continue;
		/* what a trigger did within it was noted before */
		if (!l->met || (!m->is_new && ItemPointerEquals(&l->was->tid, &m->place.tid)))
		{
			l->met = true;
			l->is_new = m->is_new;
			if (!m->is_new)
				*l->was = m->was;
		}
		/* unless it brings the row that the first one has moved within it */
		m->is_void = !l->is_new && !m->is_new;
	}
	pfree(leaving);
}

static void
precommit(MqTouch *t)
{
	int64		lowest = 0;		/* of the new rows that are delivered by id */

	void_moves(t);
	if (t->fresh.n > 0)
		lowest = t->fresh.a[0].lo;
	for (int i = 0; i < t->moves.n; i++)
		if (t->moves.a[i].is_new && !t->moves.a[i].place.timed)
		{
			int64		id = t->moves.a[i].place.id;

			lowest = lowest == 0 ? id : Min(lowest, id);
			break;				/* ids of one transaction ascend */
		}
	/* one row has no order to keep */
	if (lowest > 0 && (t->fresh.n > 1 || t->moves.n > 0 || t->fresh.a[0].n > 1))
		mq_announce(t->relid, lowest, GetTopTransactionId());
}

/* The last n places in the queue's length are not, or no longer, reserved. */
static void
release_places(MqQueue *q, MqTouch *t, int n)
{
	for (int i = t->reserves.n - n; i < t->reserves.n; i++)
		q->reserved -= t->reserves.a[i].n;
}

static void
commit(MqTouch *t, TransactionId xid)
{
	int			partition = mq_partition_of(t->dboid, t->relid);
	MqQueue    *q;
	MqWakeList	wake = {0};
	TimestampTz now = 0;
	TimestampTz steady = 0;
	int64		nready = 0;
	int64		woken = 0;
	int64		rows;
	int64		later;
	int64		ready;
	TimestampTz horizon;
	TimestampTz first_event = DT_NOEND;
	MqChange   *change = t->changes.n > 0 ? &t->changes.a[t->changes.n - 1] : NULL;
	bool		dropped = change && change->dropped;

	if (t->fresh.n == 0 && t->moves.n == 0 && t->gone.n == 0 && t->claims.n == 0 &&
		t->settles.n == 0 && t->reserves.n == 0 && t->truncated == InvalidSubTransactionId && change == NULL)
		return;					/* it looked and found nothing */

	mq_lock(partition);
	q = mq_queue_find(t->dboid, t->relid, t->hint);
	if (q == NULL)
	{
		mq_unlock(partition);
		return;
	}
	rows = q->n.rows;
	later = q->n.later;
	horizon = mq_count_horizon(q, GetTopFullTransactionIdIfAny());
	ready = q->ordered && !mq_lane_has_work(q, mq_now()) ? 0 : mq_count_ready(q);
	if (t->moves.n > 0)
		now = mq_now();
	if (t->claims.n > 0 || mq_wake_wanted(q))
		steady = mq_steady();

	if (t->truncated != InvalidSubTransactionId || dropped)
	{
		mq_lease_free_all(q);
		mq_queue_init_lanes(q);
		q->n.rows = q->n.later = 0;
		/* what came before the TRUNCATE is noted too */
		q->n.exact = q->n.rows_exact = false;
	}
	for (int i = 0; i < t->settles.n; i++)
	{
		MqSettle   *s = &t->settles.a[i];

		if (mq_settle_is_mine(q, s))
			nready += settle_commit(q, s, horizon);
	}
	for (int i = 0; i < t->claims.n; i++)
	{
		MqClaim    *c = &t->claims.a[i];

		if (!c->settled && mq_claim_is_mine(q, c) && c->lease->state == MQ_LEASE_OPEN)
		{
			mq_lease_hold(c->lease, steady);
			first_event = Min(first_event, c->lease->until);
		}
	}
	for (int i = 0; i < t->gone.n; i++)
		gone_commit(q, &t->gone.a[i], horizon);
	for (int i = 0; i < t->moves.n; i++)
	{
		int			n;

		if (t->moves.a[i].is_void)
			continue;
		n = move_commit(q, &t->moves.a[i], now, horizon);
		nready += n;
		if (n == 0 && t->moves.a[i].place.timed)
			first_event = Min(first_event, mq_steady_of(t->moves.a[i].place.ready_at));
	}
	for (int i = 0; i < t->fresh.n; i++)
	{
		MqFresh    *f = &t->fresh.a[i];

		q->n.rows += f->n;
		q->n.enqueued += f->n;
		mq_lane_add_range(q, f->lo, f->hi, f->n, &f->tid);
		nready += f->n;
	}
	release_places(q, t, t->reserves.n);
	for (int i = 0; i < t->expires.n; i++)
	{
		MqExpires  *e = &t->expires.a[i];

		if (mq_expiry_add(q, e->at, e->id, &e->tid))
			first_event = Min(first_event, mq_expiry_event(q));
	}
	nready += mq_key_freed(q);
	if (mq_count_has(&q->recounted_by, GetTopFullTransactionIdIfAny()))
	{
		q->n.rows = rows;
		q->n.later = later;
	}
	else if (q->n.recounting)
		mq_count_log(q, xid, q->n.rows - rows, q->n.later - later);

	if (change)
	{
		q->paused = change->paused;
		q->paused_known = true;
		mq_throttle_set(q, &change->throttle, true);
		mq_key_set_ordered(q, change->ordered);
		q->ordered_known = true;
		mq_wake_all(q, &wake);
		nready = mq_count_ready(q);
	}
	else if (q->paused)
		nready = 0;
	if (mq_wake_wanted(q))
	{
		/* one more to watch a time before that at which it looks around anyway */
		if (first_event < steady + USECS_PER_SEC || q->nblocked > 0)
			nready = Max(nready, 1);
		woken = mq_wake_pick(q, nready, &wake);
	}
	if (nready > woken && !q->paused)
		mq_outcome_want_notify(q, ready);
	mq_wake_freed(q, &wake);
	mq_unlock(partition);

	mq_wake_send(&wake);
	if (first_event != DT_NOEND)
		mq_worker_poke(first_event);
	if (dropped)
		mq_queue_remove(t->dboid, t->relid);
}

/*
 * A row stands where it stood: others have put it aside when they met our lock.
 * Returns how many can be delivered again.
 */
static int
listed_again(MqQueue *q, const MqPlace *was)
{
	MqLease    *l = mq_lease_find(q, was->id);

	if (l == NULL)
		mq_lane_add(q, was);
	else if (l->state == MQ_LEASE_FAILED)
		mq_lease_rouse(l);
	else
		return 0;
	return 1;
}

/*
 * Undoes what was done under this subtransaction, all of it if sub is
 * invalid.
 */
static void
undo(MqTouch *t, SubTransactionId sub)
{
	int			partition;
	MqQueue    *q;
	MqWakeList	wake = {0};
	TimestampTz first_event = DT_NOEND;
	TimestampTz now = mq_now();
	int64		nready = 0;
	bool		all = sub == InvalidSubTransactionId;
	bool		other = false;	/* than what the expiry scan has moved */
	int			nreserves = 0;
	int64		given = 0;
	int64		before = PG_INT64_MAX;

#define UNDONE(arr, i) ((i) >= 0 && (all || (arr).a[i].sub == sub))
	if (!UNDONE(t->settles, t->settles.n - 1) && !UNDONE(t->claims, t->claims.n - 1) &&
		!UNDONE(t->gone, t->gone.n - 1) && !UNDONE(t->moves, t->moves.n - 1) &&
		!UNDONE(t->reserves, t->reserves.n - 1))
		return;

	partition = mq_partition_of(t->dboid, t->relid);
	mq_lock(partition);
	q = mq_queue_find(t->dboid, t->relid, t->hint);
	if (q == NULL)
	{
		mq_unlock(partition);
		return;
	}
	while (UNDONE(t->reserves, t->reserves.n - 1 - nreserves))
		nreserves++;
	release_places(q, t, nreserves);
	other = UNDONE(t->settles, t->settles.n - 1) || UNDONE(t->moves, t->moves.n - 1);
	for (int i = t->settles.n - 1; UNDONE(t->settles, i); i--)
	{
		MqSettle   *s = &t->settles.a[i];

		if (mq_settle_is_mine(q, s))
			mq_lease_restore(s->lease);
		if (s->claim >= 0)
			t->claims.a[s->claim].settled = false;
	}
	for (int i = t->claims.n - 1; UNDONE(t->claims, i); i--)
	{
		MqClaim    *c = &t->claims.a[i];

		if (!mq_claim_is_mine(q, c) || c->lease->state != MQ_LEASE_OPEN)
			continue;
		if (c->handed_out)
		{
			/* the last one first: in the order they were delivered in */
			mq_lease_fail(c->lease, MQ_REASON_ABORT, now--);
			first_event = DT_NOBEGIN;
			nready++;
		}
		else
		{
			mq_return_claim(q, c->lease);
			if (!c->dropping)	/* what makes room takes no token */
			{
				given++;
				before = Min(before, c->tokens);
			}
			nready++;
		}
	}
	if (given > 0)
		mq_throttle_give(q, given, before);
	for (int i = t->gone.n - 1; UNDONE(t->gone, i); i--)
	{
		MqGone	   *g = &t->gone.a[i];

		other |= !g->dead;
		if (g->expires_at != DT_NOEND &&
			mq_expiry_add(q, g->expires_at, g->was.id, &g->was.tid))
			first_event = DT_NOBEGIN;
		nready += listed_again(q, &g->was);
	}
	for (int i = t->moves.n - 1; UNDONE(t->moves, i); i--)
		if (!t->moves.a[i].is_new)
			nready += listed_again(q, &t->moves.a[i].was);
	/* its own looks took what it had written for gone, and passed it */
	if (t->swept && other)
	{
		mq_expiry_set_back(q, DT_NOBEGIN);
		first_event = DT_NOBEGIN;
	}
	nready += mq_key_freed(q);
	if (!q->paused)
		mq_wake_pick(q, Max(nready, q->nblocked > 0), &wake);
	mq_wake_freed(q, &wake);
	mq_unlock(partition);

	mq_wake_send(&wake);
	if (first_event != DT_NOEND)
		mq_worker_poke(first_event);
#undef UNDONE
}

static void
abort_all(MqTouch *t)
{
	undo(t, InvalidSubTransactionId);
	if (t->prepared)
	{
		int			partition = mq_partition_of(t->dboid, t->relid);

		mq_lock(partition);
		mq_outcome_unreserve(mq_queue_find(t->dboid, t->relid, t->hint), t);
		mq_unlock(partition);
	}
}

/* Any end: a scan or a wait that was cut short. */
static void
cleanup(SubTransactionId sub)
{
	mq_lane_scan_abandon();
	mq_expiry_abandon(sub);
	mq_order_abandon();
	mq_wait_leave();
	if (mq_count_abandon())
		mq_worker_poke(DT_NOBEGIN);
}

static void
ended(void)
{
	mq_announce_done();
}

const MqXactOps mq_outcome_ops = {
	.precommit = precommit,
	.commit = commit,
	.ended = ended,
	.abort = abort_all,
	.subabort = undo,
	.reserve = mq_outcome_reserve,
	.prepare = mq_outcome_prepare,
	.cleanup = cleanup
};
