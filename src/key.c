/*-------------------------------------------------------------------------
 * key.c
 *		The keys of ordered queues: which are held, which may go on.
 *
 * The promise: a row of a key is delivered only while no other row of the key
 * is leased, and only if no row of the key with a lower id is there, committed.
 * It is kept by claimers (order.c); here is what they know in common.
 *
 * An entry (MqKey) stands for one key of one queue, found by its text.  It
 * exists while one of the key's rows is leased or parked, and after that for as
 * long as there is room.  Its state:
 *	  HELD		a row of the key is leased, in whatever state (a failure that
 *				waits in the lease table included).  Others of the key that a
 *				claimer meets in the lanes are parked: their lease is given up
 *				and they are in no list and no lane any more.
 *	  READY		nothing is leased, and something may be parked.  A claimer
 *				takes the entry, making it BUSY, and walks the index of keys for
 *				the first row from base on.  That one is claimed (HELD), or it
 *				is not for now (WAIT), or there is none (IDLE).
 *	  WAIT		the first row is delayed, held by a transaction or just being
 *				looked at by another claimer.  It stands in a lane, among the
 *				blocked or in that claimer's hands, so it will be met again,
 *				and that is when it is claimed.
 *	  IDLE		nothing is leased and nothing parked.
 * A claimer that meets a row of a key that is neither HELD nor BUSY makes it
 * HELD at once, by that row, then walks from base up to the row.  If it finds
 * another first, that one's turn it is: the row is parked and the key READY.
 *
 * A search by match (match.c) passes by a row whose turn it is not and leaves it
 * where it stands; mq_key_passed has the key treat it as parked, so that the
 * search hears of its turn.  A row that is both is met twice, which is no harm.
 *
 * No parked row is lost.  Parked rows are rows of an entry with `parked` set
 * and with ids not below its base.  Whatever ends the hold (mq_key_lease_free,
 * which every end of a lease comes through) makes such an entry READY, and only
 * a walk with a snapshot taken after the entry became BUSY, with nothing parked
 * meanwhile, clears the flag.  WAIT is left when its row is met, or when a row
 * of the key is deleted (mq_key_gone), or when the lanes were reset or somebody
 * deleted rows of unknown keys (keys_recheck: all that WAIT become READY).  A
 * reset may bring rows nobody has told of, so it voids all bases as well.  An
 * entry with parked rows is forgotten only together with the queue's lanes,
 * whose scan finds the rows again.  A reset of the lanes alone lets rows be
 * met, and parked, once more, which is no harm.
 *
 * base is why a key's dead entries behind a pinned horizon are not walked again
 * and again: the walk that set it saw no row below.  A row below can come later
 * only by a commit, whose callback says so (mq_key_late).  It need not touch
 * every entry: key_floors keeps "after this seq came ids from lo on", suffix
 * minima, and an entry asks for those after its own seq.  Commits above
 * key_high, in order, are not noted: no base is above key_high + 1, as it is
 * raised to the fresh lane's cursor before a walk begins.  Let a walk begin at
 * L and take its snapshot at S > L; a transaction becomes visible at V and
 * runs its callback at C > V.  If V < S the walk sees its row.  If not, C > L:
 * the floor's seq is after the entry's, or the row is above key_high at C and
 * so not below the base.  An UPDATE that lets an expired row live brings back what
 * a walk may have passed as well, and says so at its commit.
 *
 * Lock: everything here is under the partition's lock, held by the caller,
 * and callbacks may call all of it.  A process that dies with an entry BUSY
 * takes shared memory with it; one that fails gives it up at its
 * (sub)transaction's end (order.c).  Nothing is saved over a restart: a lease
 * whose key is unknown is looked up before anything else of the queue is
 * claimed, and what was parked is met by the first scan.
 *
 * The text is kept in full, in further entries if it is long, so that equal
 * hashes never mix two keys up; the seed is random, so nobody can choose keys
 * that share a bucket.
 *-------------------------------------------------------------------------
 */
#include "key.h"

#include "common/hashfn.h"
#include "guc.h"

#define REST_TEXT	((int) sizeof(((MqKeyRest *) 0)->text))

/* The hash of a key's text; never one of those that stand for none. */
uint64
mq_key_hash(const char *text, int len)
{
	uint64		h = hash_bytes_extended((const unsigned char *) text, len,
										mq_shared->key_seed);

	return h > MQ_KEY_HASH_ANY ? h : h + MQ_KEY_HASH_ANY + 1;
}

static MqKey **
bucket_of(MqQueue *q, uint64 hash)
{
	return &mq_key_buckets[(Size) q->partition * (mq_bucket_mask + 1) +
						   ((uint32) hash & mq_bucket_mask)];
}

static bool
same_text(const MqKey *e, const char *text, int len)
{
	if (e->len != len || memcmp(e->text, text, Min(len, MQ_KEY_TEXT)) != 0)
		return false;
	text += MQ_KEY_TEXT;
	len -= MQ_KEY_TEXT;
	for (MqKeyRest *r = (MqKeyRest *) e->more; len > 0; r = (MqKeyRest *) r->more)
	{
		if (memcmp(r->text, text, Min(len, REST_TEXT)) != 0)
			return false;
		text += REST_TEXT;
		len -= REST_TEXT;
	}
	return true;
}

/* The entry of a key, or NULL. */
MqKey *
mq_key_find(MqQueue *q, uint64 hash, const char *text, int len)
{
	for (MqKey *e = *bucket_of(q, hash); e; e = e->next)
		if (e->hash == hash && e->queue == q && same_text(e, text, len))
			return e;
	return NULL;
}

/* Copies an entry's text, which is e->len bytes long. */
void
mq_key_text(const MqKey *e, char *text)
{
	int			len = e->len;

	memcpy(text, e->text, Min(len, MQ_KEY_TEXT));
	text += MQ_KEY_TEXT;
	len -= MQ_KEY_TEXT;
	for (MqKeyRest *r = (MqKeyRest *) e->more; len > 0; r = (MqKeyRest *) r->more)
	{
		memcpy(text, r->text, Min(len, REST_TEXT));
		text += REST_TEXT;
		len -= REST_TEXT;
	}
}

static MqKey *
take_free(MqQueue *q)
{
	for (;;)
	{
		MqKey	   *e;

		SpinLockAcquire(&mq_shared->free_lock);
		e = mq_shared->free_keys;
		if (e)
		{
			mq_shared->free_keys = e->next;
			mq_shared->nfree_keys--;
		}
		SpinLockRelease(&mq_shared->free_lock);
		if (e || dlist_is_empty(&q->keys[MQ_KEY_IDLE]))
			return e;
		mq_key_free(dlist_head_element(MqKey, node, &q->keys[MQ_KEY_IDLE]));
	}
}

/*
 * A new entry, IDLE, for a key that has none; NULL if there is no room.  The
 * caller does something with it before it unlocks.
 */
MqKey *
mq_key_new(MqQueue *q, uint64 hash, const char *text, int len)
{
	MqKey	   *e = take_free(q);
	MqKey	  **rest;

	if (e == NULL)
		return NULL;
	e->hash = hash;
	e->queue = q;
	e->more = NULL;
	e->base = 0;
	e->seq = q->key_seq;
	e->walk_low = PG_INT64_MAX;
	e->nleases = 0;
	e->walker = -1;
	e->len = len;
	e->state = MQ_KEY_IDLE;
	e->parked = e->changed = false;
	e->next = *bucket_of(q, hash);
	*bucket_of(q, hash) = e;

	/* in no list yet: room for the rest must not be made of itself */
	memcpy(e->text, text, Min(len, MQ_KEY_TEXT));
	rest = &e->more;
	for (int done = MQ_KEY_TEXT; done < len; done += REST_TEXT)
	{
		MqKeyRest  *r = (MqKeyRest *) take_free(q);

		*rest = (MqKey *) r;
		if (r == NULL)
		{
			dlist_push_tail(&q->keys[MQ_KEY_IDLE], &e->node);
			mq_key_free(e);
			return NULL;
		}
		r->more = NULL;
		memcpy(r->text, text + done, Min(len - done, REST_TEXT));
		rest = &r->more;
	}
	dlist_push_tail(&q->keys[MQ_KEY_IDLE], &e->node);
	return e;
}

static void
set_state(MqKey *e, MqKeyState state)
{
	if (e->state == state)
		return;
	dlist_delete(&e->node);
	e->state = state;
	dlist_push_tail(&e->queue->keys[state], &e->node);
	if (state == MQ_KEY_READY)
		e->queue->keys_freed++;
}

/*
 * Nothing of it is leased or parked.  Its base is worth keeping while there is
 * plenty of room.
 */
static void
let_idle(MqKey *e)
{
	if (mq_shared->nfree_keys < mq_max_in_flight / 4)
		mq_key_free(e);
	else
		set_state(e, MQ_KEY_IDLE);
}

/* ----------------------------------------------------------------- leases */

/* A lease begins to know nothing. */
void
mq_key_lease_new(MqLease *l)
{
	l->key = NULL;
	l->key_known = MQ_KEY_UNKNOWN;
	l->queue->nkey_unknown++;
}

/* Says what a lease that holds no key knows. */
void
mq_key_set_known(MqLease *l, MqKeyKnown known)
{
	Assert(l->key == NULL);
	l->queue->nkey_unknown += (known == MQ_KEY_UNKNOWN) - (l->key_known == MQ_KEY_UNKNOWN);
	l->key_known = known;
}

/* The lease holds the key from now on. */
void
mq_key_attach(MqKey *e, MqLease *l)
{
	mq_key_set_known(l, MQ_KEY_KNOWN);
	l->key = e;
	e->nleases++;
	set_state(e, MQ_KEY_HELD);
}

/* The lease goes, whatever becomes of its row. */
void
mq_key_lease_free(MqLease *l)
{
	MqKey	   *e = l->key;

	l->key = NULL;
	mq_key_set_known(l, MQ_KEY_KNOWN);
	if (e == NULL || --e->nleases > 0)
		return;
	if (e->walker != -1)
	{
		e->changed = true;
		set_state(e, MQ_KEY_BUSY);
	}
	else if (e->parked)
		set_state(e, MQ_KEY_READY);
	else
		let_idle(e);
}

/* The lease's row has left the table: no walk needs to pass it. */
void
mq_key_row_gone(MqLease *l)
{
	MqKey	   *e = l->key;

	if (e && e->base == l->id && e->base <= l->queue->key_high)
		e->base++;
}

/*
 * A row of a key that is HELD or BUSY, taken off its list: from here on only
 * the entry leads to it.
 */
void
mq_key_park(MqKey *e, int64 id)
{
	Assert(e->nleases > 0 || e->walker != -1);
	e->base = Min(e->base, id);
	e->walk_low = Min(e->walk_low, id);
	if (!e->parked)
	{
		e->parked = true;
		e->queue->nparked_keys++;
	}
}

/*
 * A row whose turn it is not was passed by, and stays where it is (match.c).
 * The key is to say when its turn may have come, as for what is parked.
 */
void
mq_key_passed(MqKey *e, int64 id)
{
	bool		known = e->parked && e->state != MQ_KEY_IDLE;

	e->base = Min(e->base, id);
	e->walk_low = Min(e->walk_low, id);
	if (!e->parked)
	{
		e->parked = true;
		e->queue->nparked_keys++;
	}
	/* what was before it may have gone since: the next walk sees to it */
	if (!known && (e->state == MQ_KEY_WAIT || e->state == MQ_KEY_IDLE))
		set_state(e, MQ_KEY_READY);
}

/* ------------------------------------------------------------------ walks */

/* No row of the key that is there now has an id below this. */
int64
mq_key_walk_from(const MqKey *e)
{
	const MqQueue *q = e->queue;

	for (int i = 0; i < q->nkey_floors; i++)
		if (q->key_floors[i].seq > e->seq)
			return Min(e->base, q->key_floors[i].lo);	/* those behind are higher */
	return e->base;
}

/*
 * Before a walk of a key that is HELD (by the walker's row) or BUSY: where it
 * begins.  No row of the key that is there now has an id below w->from.
 */
void
mq_key_walk_begin(MqKey *e, MqKeyWalk *w)
{
	MqQueue    *q = e->queue;

	q->key_high = Max(q->key_high, q->lanes[MQ_LANE_FRESH].cursor.id);
	w->high = q->key_high;
	w->seq = q->key_seq;
	w->from = mq_key_walk_from(e);
	e->walk_low = PG_INT64_MAX;
}

/* After it: the first row it met has this id; PG_INT64_MAX: none. */
void
mq_key_walk_end(MqKey *e, const MqKeyWalk *w, int64 first)
{
	e->base = Min(Min(first, w->high + 1), e->walk_low);
	e->seq = w->seq;
}

/* A key whose first row is to be found, made BUSY; NULL: there is none. */
MqKey *
mq_key_begin_next(MqQueue *q)
{
	MqKey	   *e;

	if (dlist_is_empty(&q->keys[MQ_KEY_READY]))
		return NULL;
	e = dlist_head_element(MqKey, node, &q->keys[MQ_KEY_READY]);
	e->walker = MqMyProcNumber();
	e->changed = false;
	set_state(e, MQ_KEY_BUSY);
	return e;
}

/*
 * BUSY no more.  IDLE: the walk found nothing, with nothing parked meanwhile.
 * The entry may be gone afterwards.
 */
void
mq_key_end_next(MqKey *e, MqKeyState state)
{
	e->walker = -1;
	if (e->nleases > 0)
		return;					/* a lease turned out to be of this key */
	if (state != MQ_KEY_IDLE)
	{
		set_state(e, state);
		return;
	}
	if (e->parked)
	{
		e->parked = false;
		e->queue->nparked_keys--;
	}
	let_idle(e);
}

/* ------------------------------------------------------------ what happens */

/* A row that nobody had leased was deleted: it may be what its key waited for. */
void
mq_key_gone(MqQueue *q, uint64 hash)
{
	if (!q->ordered || hash == MQ_KEY_HASH_NONE)
		return;
	if (hash == MQ_KEY_HASH_ANY)
	{
		q->keys_recheck = true;
		q->keys_freed++;
		return;
	}
	for (MqKey *e = *bucket_of(q, hash); e; e = e->next)
		if (e->hash == hash && e->queue == q)
		{
			e->changed = true;
			if (e->state == MQ_KEY_WAIT)
				set_state(e, MQ_KEY_READY);
		}
}

/* A commit brought rows with ids from lo on. */
void
mq_key_late(MqQueue *q, int64 lo)
{
	MqKeyFloor *f = q->key_floors;
	int			n = q->nkey_floors;

	if (!q->ordered || lo > q->key_high)
		return;
	while (n > 0 && f[n - 1].lo >= lo)
		n--;
	if (n == MQ_KEY_FLOORS)
	{
		/* of the older half, the two closest become one */
		int			best = 0;

		for (int i = 1; i < MQ_KEY_FLOORS / 2; i++)
			if (f[i + 1].lo - f[i].lo < f[best + 1].lo - f[best].lo)
				best = i;
		f[best].seq = f[best + 1].seq;
		memmove(&f[best + 1], &f[best + 2], (n - best - 2) * sizeof(MqKeyFloor));
		n--;
	}
	f[n].seq = ++q->key_seq;
	f[n].lo = lo;
	q->nkey_floors = n + 1;
}

/* Brings up to date what may be out of date, before anything is claimed. */
void
mq_key_recheck(MqQueue *q)
{
	dlist_iter	iter;

	if (q->keys_rebase)
		mq_key_late(q, 0);
	q->keys_recheck = q->keys_rebase = false;
	while (!dlist_is_empty(&q->keys[MQ_KEY_WAIT]))
		set_state(dlist_head_element(MqKey, node, &q->keys[MQ_KEY_WAIT]), MQ_KEY_READY);
	dlist_foreach(iter, &q->keys[MQ_KEY_BUSY])
		dlist_container(MqKey, node, iter.cur)->changed = true;
}

static void
forget(dlist_head *leases)
{
	dlist_iter	iter;

	dlist_foreach(iter, leases)
	{
		MqLease    *l = dlist_container(MqLease, node, iter.cur);

		l->key = NULL;
		if (l->key_known == MQ_KEY_KNOWN)
			mq_key_set_known(l, MQ_KEY_UNKNOWN);
	}
}

/*
 * The queue is ordered from now on, or not any more.  Leases that are there
 * find out about their keys at the next claim; what was parked is scanned.
 */
void
mq_key_set_ordered(MqQueue *q, bool ordered)
{
	if (q->ordered == ordered)
		return;
	q->ordered = ordered;
	if (ordered)
		return;
	forget(&q->leases);
	forget(&q->failed);
	mq_keys_free_all(q);
	q->nkey_floors = 0;
	q->keys_freed = 0;
	mq_queue_init_lanes(q);
}

/* Whether a key may have a message for a claimer. */
bool
mq_key_has_work(MqQueue *q)
{
	return !dlist_is_empty(&q->keys[MQ_KEY_READY]) ||
		(q->keys_recheck && !dlist_is_empty(&q->keys[MQ_KEY_WAIT]));
}

/* How many keys became READY since this was asked last: whom to wake. */
int
mq_key_freed(MqQueue *q)
{
	int			n = q->keys_freed;

	q->keys_freed = 0;
	return n;
}
