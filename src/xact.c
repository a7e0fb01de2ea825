/*-------------------------------------------------------------------------
 * xact.c
 *		The transaction callback, the subtransaction callback, and the
 *		record of what this transaction did to each queue.
 *
 * 1. Verbs and triggers note what they do in backend-local arrays, one
 *	  MqTouch a queue, in TopTransactionContext.  Room is made before anything
 *	  is done that would have to be undone, so that noting cannot fail.
 * 2. Every note carries the subtransaction it was made under.  Notes are
 *	  appended in time order and the innermost subtransaction is always the
 *	  one that is running, so the notes of a subtransaction that ends are the
 *	  tail of each array: at its commit they are relabelled with the parent,
 *	  at its abort they are undone, last first, and cut off.  A
 *	  subtransaction that noted nothing costs one comparison.
 * 3. At PRE_COMMIT new rows are announced (announce.c).
 * 4. At COMMIT, after the transaction has become visible to others, the layers
 *	  above apply each touch in one critical section of that queue.  At ABORT
 *	  they undo.  At PREPARE they hand the notes over to shared memory, since
 *	  COMMIT PREPARED may run in any session and calls nobody.  Nothing after
 *	  PRE_PREPARE may fail, allocate or read a catalog.
 * 5. All of it is forgotten at COMMIT, ABORT and PREPARE alike.
 *
 * If this process dies anywhere, the postmaster resets shared memory with it:
 * every queue is then rebuilt from its table.
 *-------------------------------------------------------------------------
 */
#include "xact.h"

#include "utils/memutils.h"

static const MqXactOps *ops;

static MqTouch *touches = NULL;
static MqTouch *last_touch = NULL;
static bool want_end = false;	/* cleanup is wanted */
static MqXactCallback at_end[8]; /* there are fewer different ones */
static int	nat_end = 0;

/* Makes room for `more` further elements of an array with n used. */
void
mq_array_grow(void **a, int *max, int n, int more, Size size)
{
	int			want;

	if (n + more <= *max)
		return;
	want = Max(Max(*max * 2, 8), n + more);
	if (*a == NULL)
		*a = MemoryContextAllocHuge(TopTransactionContext, want * size);
	else
		*a = repalloc_huge(*a, want * size);
	*max = want;
}

/* The record of this queue, if the transaction has one. */
MqTouch *
mq_xact_touched(Oid relid)
{
	if (last_touch && last_touch->relid == relid)
		return last_touch;
	for (MqTouch *t = touches; t; t = t->next)
		if (t->relid == relid)
			return last_touch = t;
	return NULL;
}

/* The record of this queue, made if missing. */
MqTouch *
mq_xact_touch(Oid relid)
{
	MqTouch    *t = mq_xact_touched(relid);

	if (t)
		return t;
	t = MemoryContextAllocZero(TopTransactionContext, sizeof(MqTouch));
	t->dboid = MyDatabaseId;
	t->relid = relid;
	t->next = touches;
	touches = last_touch = t;
	return t;
}

/* Ids enqueued one after the other share a range. */
void
mq_xact_note_fresh(MqTouch *t, int64 id, ItemPointer tid)
{
	SubTransactionId sub = GetCurrentSubTransactionId();
	MqFresh    *f;

	if (t->fresh.n > 0)
	{
		f = &t->fresh.a[t->fresh.n - 1];
		/* many ranges: let them span the ids of others, which costs a walk */
		if (f->sub == sub && id > f->hi &&
			(id == f->hi + 1 || t->fresh.n > 1000))
		{
			f->hi = id;
			f->n++;
			return;
		}
	}
	mq_array_reserve(t->fresh, 1);
	f = &t->fresh.a[t->fresh.n++];
	f->lo = f->hi = id;
	f->n = 1;
	f->tid = *tid;
	f->sub = sub;
}

void
mq_xact_note_new(MqTouch *t, const MqPlace *place)
{
	MqMove	   *m;

	mq_array_reserve(t->moves, 1);
	m = &t->moves.a[t->moves.n++];
	m->place = *place;
	m->is_new = m->new_to_key = true;
	m->is_void = false;
	m->sub = GetCurrentSubTransactionId();
}

void
mq_xact_note_move(MqTouch *t, const MqPlace *was, const MqPlace *place)
{
	MqMove	   *m;

	mq_array_reserve(t->moves, 1);
	m = &t->moves.a[t->moves.n++];
	m->place = *place;
	m->is_new = m->new_to_key = m->is_void = false;
	m->was = *was;
	m->sub = GetCurrentSubTransactionId();
}

/* A row was deleted that nobody had been given. */
void
mq_xact_note_deleted(MqTouch *t, int64 id)
{
	if (t->deleted_low == 0 || id < t->deleted_low)
		t->deleted_low = id;
}

void
mq_xact_note_gone(MqTouch *t, const MqPlace *was, bool dead)
{
	MqGone	   *g;

	mq_array_reserve(t->gone, 1);
	mq_xact_note_deleted(t, was->id);
	g = &t->gone.a[t->gone.n++];
	g->was = *was;
	g->nmoves = t->moves.n;
	g->dead = dead;
	g->expires_at = DT_NOEND;
	g->key = MQ_KEY_HASH_ANY;
	g->sub = GetCurrentSubTransactionId();
}

/* Says which key the row noted last as gone had. */
void
mq_xact_gone_key(MqTouch *t, uint64 key)
{
	t->gone.a[t->gone.n - 1].key = key;
}

/*
 * A row with expires_at was written.  One entry a subtransaction is enough, but
 * a few rows on their own keep their ids.
 */
void
mq_xact_note_expires(MqTouch *t, TimestampTz at, int64 id, ItemPointer tid)
{
	SubTransactionId sub = GetCurrentSubTransactionId();
	MqExpires  *e;

	if (t->expires.n > 0)
	{
		e = &t->expires.a[t->expires.n - 1];
		if (e->sub == sub && (e->id == 0 || t->expires.n >= 8))
		{
			e->at = Min(e->at, at);
			e->id = 0;
			return;
		}
	}
	mq_array_reserve(t->expires, 1);
	e = &t->expires.a[t->expires.n++];
	e->at = at;
	e->id = id;
	e->tid = *tid;
	e->sub = sub;
}

/*
 * Whether this transaction has deleted or updated the row, which is not gone for
 * others.  Looks at all it did, so only for who has missed the row already.
 */
bool
mq_xact_wrote(MqTouch *t, int64 id)
{
	for (int i = t->gone.n - 1; i >= 0; i--)
		if (t->gone.a[i].was.id == id)
			return true;
	for (int i = t->moves.n - 1; i >= 0; i--)
		if (!t->moves.a[i].is_new && t->moves.a[i].was.id == id)
			return true;
	return false;
}

/* Asks for ops->cleanup at this (sub)transaction's end. */
void
mq_xact_want_end(void)
{
	want_end = true;
}

/* Has the callback run at this transaction's end, once however often asked. */
void
mq_xact_at_end(MqXactCallback callback)
{
	for (int i = 0; i < nat_end; i++)
		if (at_end[i] == callback)
			return;
	Assert(nat_end < (int) lengthof(at_end));
	at_end[nat_end++] = callback;
}

/* All is done or undone; nothing of it is remembered. */
static void
finish(bool committed)
{
	int			n = nat_end;

	ops->ended();
	touches = last_touch = NULL;
	want_end = false;
	nat_end = 0;
	for (int i = 0; i < n; i++)
		at_end[i] (committed);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (!touches && !want_end && nat_end == 0)
		return;

	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			for (MqTouch *t = touches; t; t = t->next)
				ops->precommit(t);
			break;

		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break;

		case XACT_EVENT_COMMIT:
			{
				TransactionId xid = GetTopTransactionIdIfAny();

				ops->cleanup(InvalidSubTransactionId);
				for (MqTouch *t = touches; t; t = t->next)
					ops->commit(t, xid);
				finish(true);
				break;
			}

		case XACT_EVENT_ABORT:
			ops->cleanup(InvalidSubTransactionId);
			for (MqTouch *t = touches; t; t = t->next)
				ops->abort(t);
			finish(false);
			break;

		case XACT_EVENT_PRE_PREPARE:
			for (MqTouch *t = touches; t; t = t->next)
				ops->reserve(t);
			break;

		case XACT_EVENT_PREPARE:
			{
				TransactionId xid = GetTopTransactionIdIfAny();

				ops->cleanup(InvalidSubTransactionId);
				for (MqTouch *t = touches; t; t = t->next)
					ops->prepare(t, xid);
				finish(false);
				break;
			}
	}
}

#define RELABEL(arr) \
	for (int i = (arr).n - 1; i >= 0 && (arr).a[i].sub == mysub; i--) \
		(arr).a[i].sub = parent
#define CUT(arr) \
	while ((arr).n > 0 && (arr).a[(arr).n - 1].sub == mysub) \
		(arr).n--

static void
subxact_callback(SubXactEvent event, SubTransactionId mysub,
				 SubTransactionId parent, void *arg)
{
	if (!touches && !want_end)
		return;

	switch (event)
	{
		case SUBXACT_EVENT_START_SUB:
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			break;

		case SUBXACT_EVENT_COMMIT_SUB:
			for (MqTouch *t = touches; t; t = t->next)
			{
				RELABEL(t->fresh);
				RELABEL(t->moves);
				RELABEL(t->gone);
				RELABEL(t->expires);
				RELABEL(t->reserves);
				RELABEL(t->claims);
				RELABEL(t->settles);
				RELABEL(t->changes);
				if (t->truncated == mysub)
					t->truncated = parent;
			}
			break;

		case SUBXACT_EVENT_ABORT_SUB:
			ops->cleanup(mysub);
			for (MqTouch *t = touches; t; t = t->next)
			{
				ops->subabort(t, mysub);
				CUT(t->fresh);
				CUT(t->moves);
				CUT(t->gone);
				CUT(t->expires);
				CUT(t->reserves);
				CUT(t->claims);
				CUT(t->settles);
				CUT(t->changes);
				if (t->truncated == mysub)
					t->truncated = InvalidSubTransactionId;
			}
			break;
	}
}

/* Registers the two callbacks, once a process tree. */
void
mq_xact_init(const MqXactOps *the_ops)
{
	ops = the_ops;
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
