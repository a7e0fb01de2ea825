/*-------------------------------------------------------------------------
 * order.c
 *		Claims of ordered queues: whose turn it is.
 *
 * key.c has the protocol; here are the ways a claimer follows it.
 *
 * mq_order_claim: a row was met in a lane and has a lease.  If its key is HELD
 * or BUSY it is parked.  If not it takes the key, and without the lock the index
 * of keys is walked for a row before it.  Such a row makes it step back.  The
 * walk is left out when the key's base is the row itself.
 *
 * mq_order_begin, _walk, _end: a key that is READY.  The first row is sought
 * and, if it is free and due, claimed by the caller.  If not, the key waits
 * until the row is met: a delayed one is put into its lane, a held one among the
 * blocked, since it may be there no more.
 *
 * mq_order_list_ready, mq_order_may: a search by match, which finds rows by
 * looking.  What it finds and leases goes through mq_order_claim like any other.
 *
 * mq_order_parked: a producer that drops the oldest messages, whatever their keys.
 *
 * mq_order_learn: leases whose key is unknown, from before the queue was
 * ordered or from before a restart.  Nothing else is claimed until each holds
 * its key; several may hold the same then.
 *
 * A transaction sees its own uncommitted DELETE as done, and its own UPDATE as a
 * row held by somebody.  For all others the deleted row still holds its key, so
 * no base is raised above it.
 */
#include "order.h"

/* The walk this process is at, so that an error can give the key up. */
static struct
{
	bool		active;
	Oid			relid;
	MqKeyWalk	walk;
	bool		found;
	MqSeen		seen;
	uint64		hash;
	int			len;
	char		text[MQ_TEXT_KEY_MAX];
}			running;

/* Whether the lease is still what this process took. */
static bool
still_mine(MqQueue *q, const MqLease *l, int64 id, int64 receipt)
{
	return l->queue == q && l->id == id && l->receipt == receipt &&
		l->settler == MqMyProcNumber();
}

/* mq_key_walk_end for a walk of this transaction. */
static void
end_walk(MqKey *e, const MqKeyWalk *w, int64 first)
{
	MqTouch    *t = mq_xact_touched(e->queue->relid);

	if (t && t->deleted_low > 0)
		first = Min(first, t->deleted_low);
	mq_key_walk_end(e, w, first);
}

/* A row whose turn it is not: nothing but its key leads to it from now on. */
static void
park(MqKey *e, MqLease *l)
{
	mq_key_park(e, l->id);
	mq_lease_free(l);
}

/*
 * Whether it is the turn of a row that was found free and due, for which this
 * process took lease l.  When it is the lease holds the row's key; when not, the
 * lease is gone.  Takes the partition's lock.
 */
MqOrder
mq_order_claim(MqReader *r, MqLease *l, int64 id, int64 receipt,
			   const MqRow *row, TimestampTz now)
{
	int			partition = mq_partition_of(MyDatabaseId, r->def->relid);
	text	   *key = mq_tuple_key(r->def, RelationGetDescr(r->rel), row->tuple);
	const char *t = key ? VARDATA_ANY(key) : NULL;
	int			len = key ? VARSIZE_ANY_EXHDR(key) : 0;
	uint64		hash = key ? mq_key_hash(t, len) : MQ_KEY_HASH_NONE;
	MqKeyWalk	walk;
	MqSeen		seen;
	MqQueue    *q;
	MqKey	   *e;
	bool		found;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	if (q == NULL || !still_mine(q, l, id, receipt) || l->key_known == MQ_KEY_KNOWN)
	{
		/* a retry, or found by its key; or a delete has come in between */
		mq_unlock(partition);
		return MQ_ORDER_FIRST;
	}
	if (!q->ordered || key == NULL)
	{
		mq_key_set_known(l, q->ordered ? MQ_KEY_KNOWN : MQ_KEY_UNKNOWN);
		mq_unlock(partition);
		return MQ_ORDER_FIRST;
	}
	e = mq_key_find(q, hash, t, len);
	if (e && (e->state == MQ_KEY_HELD || e->state == MQ_KEY_BUSY))
	{
		park(e, l);
		mq_unlock(partition);
		return MQ_ORDER_PARKED;
	}
	if (e == NULL)
		e = mq_key_new(q, hash, t, len);
	if (e == NULL)
	{
		mq_unlock(partition);
		return MQ_ORDER_FULL;
	}
	mq_key_attach(e, l);
	mq_key_walk_begin(e, &walk);
	if (walk.from >= id)
	{
		end_walk(e, &walk, id);
		mq_unlock(partition);
		return MQ_ORDER_FIRST;
	}
	mq_unlock(partition);

	found = mq_row_first_of_key(r, t, len, walk.from, id, now, &seen);

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	if (q == NULL || !still_mine(q, l, id, receipt) || l->key == NULL)
	{
		mq_unlock(partition);
		return MQ_ORDER_FIRST;
	}
	e = l->key;
	if (!found || seen.place.id >= id)
	{
		end_walk(e, &walk, id);
		mq_unlock(partition);
		return MQ_ORDER_FIRST;
	}
	end_walk(e, &walk, seen.place.id);
	park(e, l);
	mq_unlock(partition);
	return MQ_ORDER_PARKED;
}

/*
 * Takes on a key that may go on; false if there is none.  The partition is
 * locked.  The caller must run mq_order_walk, without the lock, and
 * mq_order_end.
 */
bool
mq_order_begin(MqQueue *q)
{
	MqKey	   *e = mq_key_begin_next(q);

	if (e == NULL)
		return false;
	mq_key_walk_begin(e, &running.walk);
	running.active = true;
	running.relid = q->relid;
	running.hash = e->hash;
	running.len = e->len;
	mq_key_text(e, running.text);
	mq_xact_want_end();
	return true;
}

/* Looks for the key's first row, without any lock. */
void
mq_order_walk(MqReader *r, TimestampTz now)
{
	running.found = mq_row_first_of_key(r, running.text, running.len,
										running.walk.from, 0, now, &running.seen);
}

/* The key taken on, if it is still there. */
static MqKey *
running_key(MqQueue *q)
{
	MqKey	   *e = mq_key_find(q, running.hash, running.text, running.len);

	return e && e->walker == MqMyProcNumber() ? e : NULL;
}

/*
 * Decides with what the walk has found.  If the key's first row can be delivered
 * now, *cand is that row and the key is returned, still BUSY: the caller leases
 * the one, attaches the other and calls mq_key_end_next.  The partition is
 * locked.
 */
MqKey *
mq_order_end(MqQueue *q, TimestampTz now, MqCandidate *cand)
{
	MqKey	   *e = running_key(q);
	MqSeen	   *s = &running.seen;
	MqLease    *l;
	int64		first = running.found ? s->place.id : PG_INT64_MAX;
	bool		stale;

	running.active = false;
	if (e == NULL)
		return NULL;
	stale = e->changed || e->walk_low < first;
	end_walk(e, &running.walk, first);
	if (!running.found)
	{
		mq_key_end_next(e, stale ? MQ_KEY_READY : MQ_KEY_IDLE);
		return NULL;
	}
	l = mq_lease_find(q, s->place.id);
	if (l && l->key == NULL && l->key_known != MQ_KEY_PENDING)
	{
		mq_key_attach(e, l);
		mq_key_end_next(e, MQ_KEY_HELD);
		return NULL;
	}
	if (e->nleases > 0 || stale)
	{
		mq_key_end_next(e, MQ_KEY_READY);
		return NULL;
	}
	if (l == NULL && s->look == MQ_LOOK_OK && !(s->place.timed && s->place.ready_at > now))
	{
		cand->lane = mq_place_lane(&s->place);
		cand->pos = s->pos;
		cand->tid = s->place.tid;
		return e;
	}
	/* whoever has a lease on it is looking at it, and comes to its key next */
	mq_key_end_next(e, MQ_KEY_WAIT);
	if (l == NULL && s->look == MQ_LOOK_HELD)
		mq_lane_block(q, mq_place_lane(&s->place), s->pos, s->place.id, &s->place.tid, &s->holder);
	else if (l == NULL)
		mq_lane_defer(q, &s->place);
	return NULL;
}

/*
 * For a search that looks at the lanes only (match.c): the first row of each key
 * that is READY goes back there, and the key WAITs for whoever meets it.  Each
 * key costs one of the budget.  Takes the partition's lock.
 */
void
mq_order_list_ready(MqReader *r, TimestampTz now, int64 *budget)
{
	for (; *budget > 0; (*budget)--)
	{
		MqQueue    *q = mq_queue_attach(r->def, r->rel);
		MqCandidate cand;
		MqKey	   *e;
		bool		some = mq_order_begin(q);

		mq_unlock(q->partition);
		if (!some)
			return;
		CHECK_FOR_INTERRUPTS();
		mq_order_walk(r, now);
		q = mq_queue_attach(r->def, r->rel);
		e = mq_order_end(q, now, &cand);
		if (e)
		{
			mq_lane_add(q, &running.seen.place);
			mq_key_end_next(e, MQ_KEY_WAIT);
		}
		mq_unlock(q->partition);
	}
}

/*
 * Whether it may be the turn of a row that nobody has leased, by a look that
 * takes nothing: whoever leases it asks mq_order_claim.  If it is not, the key
 * becomes READY once it may be.  Takes the partition's lock.
 */
bool
mq_order_may(MqReader *r, const MqRow *row, TimestampTz now)
{
	int			partition = mq_partition_of(MyDatabaseId, r->def->relid);
	LWLock	   *lock = mq_partition_lock(partition);
	int64		id = row->place.id;
	int64		from = 0;
	bool		held = false;
	text	   *key;
	const char *t;
	int			len;
	uint64		hash;
	MqSeen		seen;
	MqQueue    *q;
	MqKey	   *e;

	if (!r->def->ordered ||
		(key = mq_tuple_key(r->def, RelationGetDescr(r->rel), row->tuple)) == NULL)
		return true;
	t = VARDATA_ANY(key);
	len = VARSIZE_ANY_EXHDR(key);
	hash = mq_key_hash(t, len);

	LWLockAcquire(lock, LW_SHARED);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	e = q ? mq_key_find(q, hash, t, len) : NULL;
	if (e)
	{
		held = e->state == MQ_KEY_HELD || e->state == MQ_KEY_BUSY;
		from = mq_key_walk_from(e);
	}
	LWLockRelease(lock);
	if (!held && (from >= id || !mq_row_first_of_key(r, t, len, from, id, now, &seen) ||
				  seen.place.id >= id))
		return true;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	if (q && q->ordered)
	{
		e = mq_key_find(q, hash, t, len);
		if (e == NULL)
			e = mq_key_new(q, hash, t, len);
		if (e)
			mq_key_passed(e, id);
	}
	mq_unlock(partition);
	return false;
}

/* The least base of the keys that have something parked. */
static int64
parked_from(MqReader *r)
{
	int			partition = mq_partition_of(MyDatabaseId, r->def->relid);
	int64		from = PG_INT64_MAX;
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	for (int s = 0; q && s < MQ_KEY_STATES; s++)
	{
		dlist_iter	iter;

		dlist_foreach(iter, &q->keys[s])
		{
			MqKey	   *e = dlist_container(MqKey, node, iter.cur);

			if (e->parked)
				from = Min(from, mq_key_walk_from(e));
		}
	}
	mq_unlock(partition);
	return from;
}

/*
 * For a producer that makes room (dequeue.c mq_drop_head): the oldest rows that
 * nobody has leased, up to max, where some wait behind their keys.  Such a row
 * may be parked, or still stand in a lane; it does not matter: who comes upon
 * it there finds its lease.  Those with a time or a priority, from before the
 * queue was ordered, are not among them.  Takes the partition's lock.
 */
int
mq_order_parked(MqReader *r, MqCandidate *cand, int max)
{
	int			partition = mq_partition_of(MyDatabaseId, r->def->relid);
	int64		from = parked_from(r);
	int			n = 0;
	MqScan		scan;
	MqSeen		seen;

	if (from == PG_INT64_MAX)
		return 0;
	mq_scan_begin(&scan, r, MQ_LANE_FRESH, (MqPos) {0, Max(from - 1, 0)}, PG_INT64_MAX, NULL);
	while (n < max && mq_scan_next(&scan, &seen))
	{
		MqQueue    *q;
		bool		leased;

		CHECK_FOR_INTERRUPTS();
		if (seen.look != MQ_LOOK_OK)
			continue;
		mq_lock(partition);
		q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
		leased = q == NULL || mq_lease_find(q, seen.pos.id) != NULL;
		mq_unlock(partition);
		if (leased)
			continue;
		cand[n].lane = MQ_LANE_FRESH;
		cand[n].pos = seen.pos;
		cand[n++].tid = seen.place.tid;
	}
	mq_scan_end(&scan);
	return n;
}

/*
 * Gives the key up after an error: the next one looks again.  Takes the
 * partition's lock.
 */
void
mq_order_abandon(void)
{
	int			partition;
	MqWakeList	wake = {0};
	MqQueue    *q;
	MqKey	   *e;

	if (!running.active)
		return;
	partition = mq_partition_of(MyDatabaseId, running.relid);
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, running.relid, NULL);
	e = q ? running_key(q) : NULL;
	running.active = false;
	if (e)
	{
		mq_key_end_next(e, MQ_KEY_READY);
		mq_wake_pick(q, mq_key_freed(q), &wake);
	}
	mq_unlock(partition);
	mq_wake_send(&wake);
}

/* A lease that is to find out about its key. */
typedef struct Unknown
{
	int64		id;
	int64		receipt;
	ItemPointerData tid;
} Unknown;

static int
collect(dlist_head *leases, Unknown *found, int n, int max)
{
	dlist_iter	iter;

	dlist_foreach(iter, leases)
	{
		MqLease    *l = dlist_container(MqLease, node, iter.cur);

		if (l->key_known != MQ_KEY_UNKNOWN || n == max)
			continue;
		found[n].id = l->id;
		found[n].receipt = l->receipt;
		found[n++].tid = mq_lease_place(l).tid;
	}
	return n;
}

/*
 * Finds out about the keys of all leases that do not know theirs.  False if
 * there is no room to keep track of one.  Takes the partition's lock.
 */
bool
mq_order_learn(MqReader *r)
{
	int			partition = mq_partition_of(MyDatabaseId, r->def->relid);
	MqQueue    *q;
	Unknown    *found;
	int			max = 0;
	int			n = 0;
	bool		room = true;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	if (q)
		max = q->nkey_unknown;
	mq_unlock(partition);
	if (max == 0)
		return true;
	found = palloc(sizeof(Unknown) * max);

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	if (q)
	{
		n = collect(&q->leases, found, n, max);
		n = collect(&q->failed, found, n, max);
	}
	mq_unlock(partition);

	for (int i = 0; i < n && room; i++)
	{
		Unknown    *u = &found[i];
		text	   *key = NULL;
		bool		there;
		MqLease    *l;
		const char *t;
		int			len;
		uint64		hash;

		CHECK_FOR_INTERRUPTS();
		there = mq_row_key(r, u->id, &u->tid, &key);
		t = key ? VARDATA_ANY(key) : NULL;
		len = key ? VARSIZE_ANY_EXHDR(key) : 0;
		hash = key ? mq_key_hash(t, len) : MQ_KEY_HASH_NONE;

		mq_lock(partition);
		q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
		l = q ? mq_lease_find(q, u->id) : NULL;
		if (l && l->receipt == u->receipt && l->key_known == MQ_KEY_UNKNOWN)
		{
			MqKey	   *e = NULL;

			if (there && key)
			{
				e = mq_key_find(q, hash, t, len);
				if (e == NULL)
					e = mq_key_new(q, hash, t, len);
				room = e != NULL;
			}
			if (e)
				mq_key_attach(e, l);
			else if (room)
				mq_key_set_known(l, MQ_KEY_KNOWN);
		}
		mq_unlock(partition);
	}
	pfree(found);
	return room;
}
