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
 * MqPrepared reserved before; once the xid has ended, whoever comes next
 * (worker, claimer) settles it by mq_outcome_retire.
 *
 * A record points to its lease.  The lease may have been dropped meanwhile (an
 * operator deleted the row, TRUNCATE) and the entry given to another message:
 * it counts only if id, receipt, queue and holder still agree.
 *
 * Nothing here allocates, reads a catalog or raises an error.
 */
#include "outcome.h"

#include "access/transam.h"
#include "announce.h"
#include "clock.h"
#include "expiry.h"
#include "guc.h"
#include "order.h"
#include "storage/procarray.h"
#include "throttle.h"

/* Whether this transaction still has what it claimed. */
bool
mq_claim_is_mine(MqQueue *q, const MqClaim *c)
{
	MqLease    *l = c->lease;

	return l != NULL && l->queue == q && l->id == c->id && l->receipt == c->receipt &&
		l->settler == MqMyProcNumber();
}

static bool
settle_is_mine(MqQueue *q, const MqSettle *s)
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
		mq_lease_put_back(l, mq_now());
	else
	{
		MqPlace		p = mq_lease_place(l);

		mq_count_leased(q, l->ready_at, -1);
		mq_expiry_left(l);
		mq_lease_free(l);
		mq_lane_add(q, &p);
	}
}

/* What a settled delivery becomes.  Returns 1 if it can be delivered again. */
static int
settle_commit(MqQueue *q, MqLease *l, MqVerb verb, bool dead, bool row_gone)
{
	bool		counted = l->from != MQ_LEASE_FAILED;

	if (verb == MQ_RELEASE)
	{
		mq_return_claim(q, l);
		return 1;
	}
	if (verb == MQ_ACK)
		q->n.acked++;
	else if (counted && verb != MQ_DROP)
		q->n.nacked++;
	if (dead)
		q->n.dead++;
	if (row_gone)
	{
		q->n.rows--;
		mq_key_row_gone(l);
	}
	else
		mq_count_leased(q, l->ready_at, -1);
	mq_lease_free(l);
	return 0;
}

/* A row was deleted by somebody without a lease of his own. */
static void
gone_commit(MqQueue *q, const MqGone *g)
{
	MqLease    *l = mq_lease_find(q, g->was.id);

	if (g->dead)
		q->n.dead++;
	if (l)
	{
		q->n.rows--;
		mq_lease_free(l);
	}
	else
		mq_count_row(q, &g->was, -1);
	mq_key_gone(q, g->key);
}

/* Returns 1 if the row can be delivered from now on, 0 if later or never. */
static int
move_commit(MqQueue *q, const MqMove *m, TimestampTz now)
{
	if (m->is_new)
	{
		q->n.enqueued++;
		mq_key_late(q, m->place.id);
	}
	else
	{
		MqLease    *l = mq_lease_find(q, m->place.id);

		if (l)
		{
			l->tid = m->place.tid;
			l->relnode = q->relnode;
			l->priority = m->place.priority;
			l->ready_at = m->place.timed ? m->place.ready_at : DT_NOBEGIN;
			/* the row may say otherwise now; if not, the next look finds it */
			l->expires_at = DT_NOEND;
			mq_lease_set_timer(l);
			return 0;
		}
		mq_count_row(q, &m->was, -1);
	}
	mq_count_row(q, &m->place, 1);
	mq_lane_add(q, &m->place);
	return !m->place.timed || m->place.ready_at <= now;
}

/* A notification is due if the queue had nothing ready and now has. */
static void
want_notify(MqQueue *q, int64 ready_before)
{
	if (q->notify || ready_before > 0 || mq_count_ready(q) <= 0)
		return;
	q->notify = true;
	mq_worker_poke(q->notified + 50 * 1000);
}

/* The lowest of the new rows that are delivered by id. */
static void
precommit(MqTouch *t)
{
	int64		lowest = 0;

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
	int64		delayed;
	int64		ready;
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
	delayed = q->n.delayed;
	ready = q->ordered && !mq_lane_has_work(q, mq_now()) ? 0 : mq_count_ready(q);
	if (t->moves.n > 0)
		now = mq_now();
	if (t->claims.n > 0 || mq_wake_wanted(q))
		steady = mq_steady();

	if (t->truncated != InvalidSubTransactionId || dropped)
	{
		mq_lease_free_all(q);
		mq_queue_init_lanes(q);
		q->n.rows = q->n.delayed = 0;
		/* what came before the TRUNCATE is noted too */
		q->n.exact = q->n.rows_exact = false;
	}
	for (int i = 0; i < t->settles.n; i++)
	{
		MqSettle   *s = &t->settles.a[i];

		if (settle_is_mine(q, s))
			nready += settle_commit(q, s->lease, s->verb, s->dead, s->row_gone);
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
		gone_commit(q, &t->gone.a[i]);
	for (int i = 0; i < t->moves.n; i++)
	{
		int			n = move_commit(q, &t->moves.a[i], now);

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
	if (mq_count_has(q, GetTopFullTransactionIdIfAny()))
	{
		q->n.rows = rows;
		q->n.delayed = delayed;
	}
	else if (q->n.recounting)
		mq_count_log(q, xid, q->n.rows - rows, q->n.delayed - delayed);

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
		want_notify(q, ready);
	mq_wake_freed(q, &wake);
	mq_unlock(partition);

	mq_wake_send(&wake);
	if (first_event != DT_NOEND)
		mq_worker_poke(first_event);
	if (dropped)
		mq_queue_remove(t->dboid, t->relid);
}

static void unreserve(MqQueue *q, MqTouch *t);

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
	int64		nready = 0;
	bool		all = sub == InvalidSubTransactionId;
	int			nreserves = 0;

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
	for (int i = t->settles.n - 1; UNDONE(t->settles, i); i--)
	{
		MqSettle   *s = &t->settles.a[i];

		if (settle_is_mine(q, s))
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
			mq_lease_fail(c->lease, MQ_REASON_ABORT);
			first_event = DT_NOBEGIN;
			nready++;
		}
		else
		{
			mq_return_claim(q, c->lease);
			if (!c->dropped)
				mq_throttle_give(q, 1);
			nready++;
		}
	}
	for (int i = t->gone.n - 1; UNDONE(t->gone, i); i--)
	{
		MqGone	   *g = &t->gone.a[i];

		if (g->expires_at != DT_NOEND &&
			mq_expiry_add(q, g->expires_at, g->was.id, &g->was.tid))
			first_event = DT_NOBEGIN;
		if (mq_lease_find(q, g->was.id) == NULL)
		{
			mq_lane_add(q, &g->was);
			nready++;
		}
	}
	for (int i = t->moves.n - 1; UNDONE(t->moves, i); i--)
		if (!t->moves.a[i].is_new && mq_lease_find(q, t->moves.a[i].was.id) == NULL)
		{
			mq_lane_add(q, &t->moves.a[i].was);
			nready++;
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
		unreserve(mq_queue_find(t->dboid, t->relid, t->hint), t);
		mq_unlock(partition);
	}
}

/* ------------------------------------------------------- two-phase commit */

/*
 * PRE_PREPARE, the last point that may fail: the record is put into the queue's
 * list without an xid, which also keeps the queue's slot in place.
 */
static void
reserve(MqTouch *t)
{
	MqPrepared *p = mq_prepared_new();
	MqQueue    *q;
	bool		created;

	if (p == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many queues in prepared transactions"),
				 errhint("Commit or roll back some of those in pg_prepared_xacts.")));
	q = mq_queue_create(t->dboid, t->relid, &created);
	if (q == NULL)
	{
		mq_prepared_free(p);
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room for the state of a queue in a prepared transaction"),
				 errhint("All slots are busy; raise mq.max_queues (now %d).", mq_max_queues)));
	}
	dlist_push_tail(&q->prepared, &p->node);
	q->nprepared++;
	t->prepared = p;
	mq_unlock(q->partition);
}

/* The PREPARE failed after all. The partition is locked. */
static void
unreserve(MqQueue *q, MqTouch *t)
{
	dlist_delete(&t->prepared->node);
	q->nprepared--;
	mq_prepared_free(t->prepared);
	t->prepared = NULL;
}

static void
prepare(MqTouch *t, TransactionId xid)
{
	int			partition = mq_partition_of(t->dboid, t->relid);
	MqPrepared *p = t->prepared;
	MqQueue    *q;

	p->truncate = t->truncated != InvalidSubTransactionId;
	p->rescan = t->moves.n > 0 || t->gone.n > 0 || p->truncate;
	p->changed = t->changes.n > 0;
	if (p->changed)
	{
		p->paused = t->changes.a[t->changes.n - 1].paused;
		p->throttle = t->changes.a[t->changes.n - 1].throttle;
		p->ordered = t->changes.a[t->changes.n - 1].ordered;
		p->dropped = t->changes.a[t->changes.n - 1].dropped;
	}
	p->fresh_lo = p->fresh_hi = p->rows = p->enqueued = 0;
	for (int i = 0; i < t->fresh.n; i++)
	{
		MqFresh    *f = &t->fresh.a[i];

		if (p->fresh_lo == 0 || f->lo < p->fresh_lo)
			p->fresh_lo = f->lo;
		p->fresh_hi = Max(p->fresh_hi, f->hi);
		p->rows += f->n;
		p->enqueued += f->n;
	}
	for (int i = 0; i < t->expires.n; i++)
		p->expires_at = Min(p->expires_at, t->expires.a[i].at);
	for (int i = 0; i < t->moves.n; i++)
		if (t->moves.a[i].is_new)
		{
			p->rows++;
			p->enqueued++;
		}
	p->rows -= t->gone.n;

	mq_lock(partition);
	q = mq_queue_find(t->dboid, t->relid, t->hint);
	Assert(q != NULL);
	for (int i = 0; i < t->settles.n; i++)
	{
		MqSettle   *s = &t->settles.a[i];

		if (settle_is_mine(q, s))
		{
			if (s->row_gone && s->verb != MQ_RELEASE)
				p->rows--;
			s->lease->xid = xid;
			s->lease->settler = -1;
			s->lease->dead = s->dead;
		}
	}
	for (int i = 0; i < t->claims.n; i++)
	{
		MqClaim    *c = &t->claims.a[i];

		if (!c->settled && mq_claim_is_mine(q, c))
		{
			c->lease->xid = xid;
			c->lease->settler = -1;
			c->lease->holder = -1;
		}
	}
	for (int i = 0; i < t->reserves.n; i++)
		p->reserved += t->reserves.a[i].n;
	for (int i = 0; i < t->gone.n; i++)
	{
		MqLease    *l = mq_lease_find(q, t->gone.a[i].was.id);

		if (l)
			l->gone_xid = xid;
	}
	/* from here on its end is awaited */
	p->xid = xid;
	mq_unlock(partition);
	mq_worker_poke(mq_time_add(mq_steady(), USECS_PER_SEC));
}

/* A prepared transaction has ended. */
static int64
apply_prepared(MqQueue *q, MqPrepared *p, bool committed, FullTransactionId xid)
{
	dlist_mutable_iter iter;
	int64		nready = 0;
	int64		rows;

	for (int pass = 0; pass < 2; pass++)
		dlist_foreach_modify(iter, pass == 0 ? &q->leases : &q->failed)
		{
			MqLease    *l = dlist_container(MqLease, node, iter.cur);
			bool		dropped;

			if (l->gone_xid == p->xid && TransactionIdIsValid(p->xid))
			{
				l->gone_xid = InvalidTransactionId;
				if (committed)
				{
					mq_lease_free(l);
					continue;
				}
			}
			if (l->xid != p->xid || !TransactionIdIsValid(l->xid))
				continue;
			l->xid = InvalidTransactionId;
			dropped = l->state == MQ_LEASE_SETTLING && l->verb == MQ_DROP;
			if (l->state == MQ_LEASE_SETTLING)
			{
				if (committed)
				{
					/* the change of rows is in p */
					if (l->verb == MQ_RELEASE)
						mq_return_claim(q, l);
					else
					{
						if (l->verb == MQ_ACK)
							q->n.acked++;
						else if (l->verb != MQ_DROP)
							q->n.nacked++;
						if (l->dead)
							q->n.dead++;
						mq_lease_free(l);
					}
					nready++;
					continue;
				}
				mq_lease_restore(l);
			}
			if (l->state == MQ_LEASE_OPEN)
			{
				if (l->session)
				{
					l->session = false;
					l->duration = q->policy.lease;
				}
				if (committed)
					mq_lease_hold(l, mq_steady());
				else if (dropped)
					mq_return_claim(q, l);	/* it was no delivery */
				else
					mq_lease_fail(l, MQ_REASON_ABORT);
				nready++;
			}
		}
	if (committed)
	{
		if (p->changed)
		{
			q->paused = p->paused;
			q->paused_known = true;
			mq_throttle_set(q, &p->throttle, true);
			mq_key_set_ordered(q, p->ordered);
			q->ordered_known = true;
		}
		rows = q->n.rows;
		if (p->truncate || p->dropped)
		{
			mq_lease_free_all(q);
			q->n.rows = 0;
			q->n.exact = q->n.rows_exact = false;
		}
		q->n.rows = mq_count_has(q, xid) ? rows : q->n.rows + p->rows;
		q->n.enqueued += p->enqueued;
		if (p->fresh_lo > 0 && !p->rescan)
			mq_lane_add_range(q, p->fresh_lo, p->fresh_hi, p->rows, NULL);
		if (p->expires_at != DT_NOEND)
			mq_expiry_set_back(q, p->expires_at);
	}
	q->reserved -= p->reserved;
	if (p->rescan)
	{
		mq_queue_init_lanes(q);
		q->n.exact = false;
		if (p->unknown && committed)
			q->n.rows_exact = false;
	}
	if (q->n.recounting)
		mq_shared->recount_overflow = true;
	return Max(nready, 1) + p->enqueued;
}

/*
 * Looks whether the transactions this queue waits for have ended: prepared
 * ones, and those that hold blocked rows.  Not for callbacks: reads the
 * transaction logs outside the lock.
 */
void
mq_outcome_retire(Oid relid)
{
	int			partition = mq_partition_of(MyDatabaseId, relid);
	MqQueue    *q;
	MqWakeList	wake = {0};
	struct
	{
		TransactionId xid;
		bool		multi;
		bool		prepared;
	}		   *look;
	int			room = 0;
	int			n = 0;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, relid, NULL);
	if (q)
		room = q->nblocked + q->nprepared;
	mq_unlock(partition);
	if (room == 0)
		return;
	room += 16;
	look = palloc(sizeof(*look) * room);

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, relid, NULL);
	if (q)
	{
		dlist_iter	iter;

		for (int i = 0; i < q->nblocked && n < room; i++)
		{
			bool		known = false;

			for (int k = 0; k < n && !known; k++)
				known = look[k].xid == q->blocked[i].xid && look[k].multi == q->blocked[i].multi;
			if (known)
				continue;
			look[n].xid = q->blocked[i].xid;
			look[n].multi = q->blocked[i].multi;
			look[n++].prepared = false;
		}
		dlist_foreach(iter, &q->prepared)
		{
			TransactionId xid = dlist_container(MqPrepared, node, iter.cur)->xid;

			if (n == room)
				break;
			if (!TransactionIdIsValid(xid))
				continue;		/* it is being prepared */
			look[n].xid = xid;
			look[n].multi = false;
			look[n++].prepared = true;
		}
	}
	mq_unlock(partition);

	for (int i = 0; i < n; i++)
	{
		bool		committed;
		FullTransactionId full;

		if (!mq_holder_ended(look[i].xid, look[i].multi))
			continue;
		committed = look[i].prepared && TransactionIdDidCommit(look[i].xid);
		full = look[i].prepared ? mq_full_xid(look[i].xid) : InvalidFullTransactionId;
		mq_lock(partition);
		q = mq_queue_find(MyDatabaseId, relid, NULL);
		if (q && !look[i].prepared)
		{
			mq_lane_unblock(q, look[i].xid, look[i].multi);
			mq_wake_pick(q, 1, &wake);
		}
		else if (q)
		{
			dlist_mutable_iter iter;

			dlist_foreach_modify(iter, &q->prepared)
			{
				MqPrepared *p = dlist_container(MqPrepared, node, iter.cur);

				if (p->xid != look[i].xid)
					continue;
				mq_wake_pick(q, apply_prepared(q, p, committed, full), &wake);
				want_notify(q, 0);
				dlist_delete(&p->node);
				q->nprepared--;
				mq_prepared_free(p);
			}
			mq_wake_freed(q, &wake);
		}
		mq_unlock(partition);
		mq_wake_send(&wake);
	}
	pfree(look);
}

/* ------------------------------------------------------------ other ends */

/* Any end: a scan or a wait that was cut short. */
static void
cleanup(SubTransactionId sub)
{
	mq_lane_scan_abandon();
	mq_expiry_abandon(sub);
	mq_order_abandon();
	mq_wait_leave();
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
	.reserve = reserve,
	.prepare = prepare,
	.cleanup = cleanup
};

/*
 * Gives back what this session leased "as long as it lives": at its end, after
 * its last transaction has, or at DISCARD ALL.
 */
void
mq_release_session(MqReason reason)
{
	if (mq_shared == NULL || MyProc == NULL)
		return;
	for (int partition = 0; partition < MQ_PARTITIONS; partition++)
	{
		MqWakeList	wake = {0};
		dlist_iter	qi;
		bool		any = false;

		mq_lock(partition);
		dlist_foreach(qi, &mq_shared->partition[partition])
		{
			MqQueue    *q = dlist_container(MqQueue, node, qi.cur);
			dlist_mutable_iter li;
			int			n = 0;

			if (q->dboid != MyDatabaseId)
				continue;
			dlist_foreach_modify(li, &q->leases)
			{
				MqLease    *l = dlist_container(MqLease, node, li.cur);

				if (!l->session || l->holder != MqMyProcNumber() || l->pid != MyProcPid)
					continue;
				if (l->state == MQ_LEASE_HELD)
				{
					mq_lease_fail(l, reason);
					n++;
				}
				else if (l->state == MQ_LEASE_SETTLING && l->from == MQ_LEASE_HELD)
				{
					/*
					 * Another session, or a prepared transaction, is settling
					 * it.  If that fails, it ends like any lease.
					 */
					l->session = false;
					l->until = mq_steady();
				}
			}
			if (n > 0)
			{
				mq_wake_pick(q, n, &wake);
				mq_wake_freed(q, &wake);
			}
			any |= n > 0;
		}
		mq_unlock(partition);
		mq_wake_send(&wake);
		if (any)
			mq_worker_poke(DT_NOBEGIN);
	}
}

/*
 * The queue's table is gone: so are its leases and what was known of it.  Takes
 * the partition's lock, then the registry's.
 */
void
mq_forget_queue(Oid dboid, Oid relid)
{
	int			partition = mq_partition_of(dboid, relid);
	MqWakeList	wake = {0};
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(dboid, relid, NULL);
	if (q)
	{
		mq_lease_free_all(q);
		q->reserved = 0;
		while (!dlist_is_empty(&q->prepared))
		{
			MqPrepared *p = dlist_container(MqPrepared, node, dlist_pop_head_node(&q->prepared));

			q->nprepared--;
			mq_prepared_free(p);
		}
		mq_wake_all(q, &wake);
	}
	mq_unlock(partition);
	mq_wake_send(&wake);
	mq_queue_remove(dboid, relid);
}

/* The same for all queues of databases that are gone. */
void
mq_forget_databases(bool (*gone) (Oid dboid))
{
	for (int p = 0; p < MQ_PARTITIONS; p++)
		for (;;)
		{
			Oid			dboid = InvalidOid;
			Oid			relid = InvalidOid;
			dlist_iter	iter;

			mq_lock(p);
			dlist_foreach(iter, &mq_shared->partition[p])
			{
				MqQueue    *q = dlist_container(MqQueue, node, iter.cur);

				/* one that somebody still waits for stays for now */
				if (q->nwaiters == 0 && gone(q->dboid))
				{
					dboid = q->dboid;
					relid = q->relid;
					break;
				}
			}
			mq_unlock(p);
			if (!OidIsValid(relid))
				break;
			mq_forget_queue(dboid, relid);
		}
}

/* For counting: whether a row is not in its lane but leased. */
bool
mq_outcome_skip_leased(MqReader *r, int64 id)
{
	int			partition = mq_partition_of(MyDatabaseId, r->def->relid);
	MqQueue    *q;
	bool		leased;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	leased = q && mq_lease_find(q, id) != NULL;
	mq_unlock(partition);
	return leased;
}
