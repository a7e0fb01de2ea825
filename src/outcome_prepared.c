/*-------------------------------------------------------------------------
 * outcome_prepared.c
 *		What PREPARE TRANSACTION leaves to be done, and the end of who did it.
 *
 * COMMIT PREPARED may run in any session and calls nobody.  So at PRE_PREPARE an
 * MqPrepared a queue is reserved, at PREPARE it is filled and the leases name
 * the xid instead of this process.  Once the xid has ended, whoever comes next
 * (worker, claimer) settles both by mq_outcome_retire, which does the same for
 * rows that were held by transactions that have ended.
 *-------------------------------------------------------------------------
 */
#include "outcome_private.h"

#include "access/transam.h"
#include "clock.h"
#include "expiry.h"
#include "guc.h"
#include "storage/procarray.h"
#include "throttle.h"

/*
 * PRE_PREPARE, the last point that may fail: the record is put into the queue's
 * list without an xid, which also keeps the queue's slot in place.
 */
void
mq_outcome_reserve(MqTouch *t)
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
void
mq_outcome_unreserve(MqQueue *q, MqTouch *t)
{
	dlist_delete(&t->prepared->node);
	q->nprepared--;
	mq_prepared_free(t->prepared);
	t->prepared = NULL;
}

void
mq_outcome_prepare(MqTouch *t, TransactionId xid)
{
	int			partition = mq_partition_of(t->dboid, t->relid);
	MqPrepared *p = t->prepared;
	MqQueue    *q;

	p->truncate = t->truncated != InvalidSubTransactionId;
	p->rescan = t->moves.n > 0 || t->gone.n > 0 || t->swept || p->truncate;
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

		if (mq_settle_is_mine(q, s))
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
	for (int i = 0; i < t->moves.n; i++)
	{
		const MqPlace *place = &t->moves.a[i].place;
		MqLease    *l = t->moves.a[i].is_new ? NULL : mq_lease_find(q, place->id);

		if (l && !(l->state == MQ_LEASE_SETTLING && l->xid == xid && l->verb != MQ_RELEASE))
		{
			if (l->gone_xid != xid)
			{
				/* whose move has not been met yet */
				if (TransactionIdIsValid(l->gone_xid))
					l->astray = true;
				l->gone_other_time = false;
			}
			l->gone_other_time |= mq_place_time(place) != mq_place_time(&t->moves.a[i].was);
			l->gone_xid = xid;
			l->gone_moves = true;
			l->gone_priority = place->priority;
			l->gone_ready_at = mq_place_time(place);
		}
	}
	for (int i = 0; i < t->gone.n; i++)
	{
		MqLease    *l = mq_lease_find(q, t->gone.a[i].was.id);

		if (l)
		{
			l->gone_xid = xid;
			l->gone_moves = false;
		}
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
	bool		counted = mq_count_has(&q->recounted_by, xid);
	TimestampTz horizon = mq_count_horizon(q, xid);

	for (int pass = 0; pass < 2; pass++)
		dlist_foreach_modify(iter, pass == 0 ? &q->leases : &q->failed)
		{
			MqLease    *l = dlist_container(MqLease, node, iter.cur);

			if (l->gone_xid == p->xid && TransactionIdIsValid(p->xid))
			{
				l->gone_xid = InvalidTransactionId;
				if (committed && !l->gone_moves)
				{
					mq_lease_free(l);
					continue;
				}
				/* unless somebody else has moved it since */
				if (committed && !l->astray)
				{
					MqPlace		p = {.id = l->id,.priority = l->gone_priority};

					p.timed = l->gone_ready_at != DT_NOBEGIN;
					p.ready_at = p.timed ? l->gone_ready_at : 0;
					ItemPointerSetInvalid(&p.tid);
					mq_lease_moved(l, &p, l->gone_other_time, mq_now());
				}
			}
			if (l->xid != p->xid || !TransactionIdIsValid(l->xid))
				continue;
			l->xid = InvalidTransactionId;
			if (l->state == MQ_LEASE_SETTLING)
			{
				if (committed)
				{
					/* the change of rows is in p, but not of which are later */
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
						if (!counted && l->ready_at > horizon)
							q->n.later--;
						mq_lease_free(l);
					}
					nready++;
					continue;
				}
				mq_lease_restore(l);
				if (l->dropping)
				{
					/* leased to make room, it was no delivery */
					mq_return_claim(q, l);
					nready++;
					continue;
				}
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
				else
					mq_lease_fail(l, MQ_REASON_ABORT, mq_now());
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
		q->n.rows = counted ? rows : q->n.rows + p->rows;
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
		full = look[i].prepared ? mq_full_xid(ReadNextFullTransactionId(), look[i].xid) : InvalidFullTransactionId;
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
				mq_outcome_want_notify(q, 0);
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
