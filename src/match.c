/*-------------------------------------------------------------------------
 * match.c
 *		Finding messages by their headers, for dequeue's match.
 *
 * A claim takes what stands first; this one has to look at rows until some
 * fit, and must leave all others where they are.  So it copies instead of
 * taking:
 *	  1. Under the partition's lock, the failed deliveries that are due, each to
 *		 come in its position, and, lane by lane in the order of delivery, what the
 *		 lane's lists hold (stock, late rows and ranges) and where its cursor
 *		 stands.
 *	  2. Without the lock each of these rows is looked at, ranges are walked, and
 *		 then the lane's rows above the cursor, by a scan of its own that moves
 *		 nothing.
 *	  3. What fits and is not leased is found.  The caller leases it as any
 *		 claim does, find-and-make under the lock and another look at the row
 *		 (dequeue_take.c), since all of this may have changed meanwhile.
 *	  A row that is leased this way while it stands on a list is passed by when
 *	  the list is used: whoever takes it off finds the lease, and the lease's end
 *	  lists it anew.  Every deliverable row at the time of step 1 is on a list,
 *	  above the cursor, or in the lease table, so none is overlooked; one that is
 *	  committed later comes with a wake.
 *
 * The stock of a lane is filled first if it has room, by the same scan as any
 * claim's (lane.c): that moves the cursor over what is dead, so that a queue
 * from which everybody takes by match, like one for replies, does not make its
 * dead rows be walked again and again; others find the rows in the stock.  For
 * the same reason what a lane's lists say of rows that are leased or gone is
 * taken off them, as whoever came upon it would do.
 * Only what the stock has no room for is walked anew each time.
 *
 * In an ordered queue rows that wait behind their key are passed by, with a note
 * to the key (order.c); the first row of a key that may go on is put back into its
 * lane beforehand.
 *
 * The number of rows looked at is bounded, dead ones included: who matches in a
 * long queue sees its first MQ_MATCH_ROWS only.
 */
#include "match.h"

#include "clock.h"
#include "miscadmin.h"
#include "order.h"
#include "utils/memutils.h"

#define READ_AHEAD		8		/* scans to fill a lane's stock, at most */
#define FAILED_MAX		1000	/* failed deliveries looked at, at most */
#define FAILED_PASSED	10000	/* ... and passed by under the lock */

typedef struct Failed
{
	int64		id;
	ItemPointerData tid;
	int			priority;
	TimestampTz due;
} Failed;

/* One search. */
typedef struct Search
{
	MqMatch    *m;
	MqReader   *r;
	MemoryContext row_context;
	TimestampTz now;
	int			want;
	int			n;
	MqFound    *found;
	Failed	   *failed;
	int			nfailed;
	int			next_failed;
} Search;

/* Whether a row's headers contain these; no headers contain nothing. */
bool
mq_match_fits(MqReader *r, HeapTuple tuple, Jsonb *headers)
{
	bool		isnull;
	Datum		d = heap_getattr(tuple, r->def->att[MQ_COL_HEADERS],
								 RelationGetDescr(r->rel), &isnull);
	Jsonb	   *has;
	JsonbIterator *it1;
	JsonbIterator *it2;

	if (isnull)
		return false;
	has = DatumGetJsonbP(d);
	if (!JB_ROOT_IS_OBJECT(has))
		return false;
	it1 = JsonbIteratorInit(&has->root);
	it2 = JsonbIteratorInit(&headers->root);
	return JsonbDeepContains(&it1, &it2);
}

static bool
is_leased(MqReader *r, int64 id)
{
	LWLock	   *lock = mq_partition_lock(mq_partition_of(MyDatabaseId, r->def->relid));
	MqQueue    *q;
	bool		leased;

	LWLockAcquire(lock, LW_SHARED);
	q = mq_queue_find(MyDatabaseId, r->def->relid, r->def->hint);
	leased = q && mq_lease_find(q, id) != NULL;
	LWLockRelease(lock);
	return leased;
}

/* Whether the search goes on. */
static bool
goes_on(Search *s)
{
	CHECK_FOR_INTERRUPTS();
	return s->n < s->want && s->m->budget > 0;
}

/* Whether it may be the row's turn, if its queue is ordered. */
static bool
is_its_turn(Search *s, const MqRow *row)
{
	int64		examined = s->r->examined;
	bool		may = mq_order_may(s->r, row, s->now);

	s->m->budget -= (int) (s->r->examined - examined);
	return may;
}

/*
 * Whether the row stands where a list says.  If not it has been updated since,
 * and is met in its new place: to lease it here would come out of order, and
 * the claim give it back for that.
 */
static bool
stands_at(const MqPlace *place, int lane, MqPos pos)
{
	return mq_place_lane(place) == lane && (!place->timed || place->ready_at == pos.t);
}

/* Looks at one row and notes it if it fits.  Whether it is there at all. */
static bool
try_row(Search *s, int lane, MqPos pos, int64 id, ItemPointer tid, bool failed)
{
	MemoryContext old = MemoryContextSwitchTo(s->row_context);
	ItemPointerData at = *tid;
	MqRow		row;
	MqHolder	holder;
	bool		fits = false;
	MqLook		look;

	s->m->budget--;
	look = mq_row_look(s->r, id, &at, &row, &holder);
	if (look == MQ_LOOK_OK)
	{
		if (!failed && row.place.timed && row.place.ready_at > s->now)
			s->m->next = Min(s->m->next, row.place.ready_at);
		else if (failed || (row.expires_at > s->now && stands_at(&row.place, lane, pos)))
			fits = mq_match_fits(s->r, row.tuple, s->m->headers) &&
				(failed || (!is_leased(s->r, id) && is_its_turn(s, &row)));
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(s->row_context);
	if (fits)
	{
		MqFound    *f = &s->found[s->n++];

		f->id = id;
		f->tid = at;
		f->lane = lane;
		f->pos = pos;
		f->failed = failed;
	}
	return look != MQ_LOOK_GONE;
}

/* By priority, the highest first; then by time and id. */
static int
compare_failed(const void *a, const void *b)
{
	const Failed *fa = a;
	const Failed *fb = b;

	if (fa->priority != fb->priority)
		return fa->priority > fb->priority ? -1 : 1;
	return mq_pos_cmp((MqPos) {fa->due, fa->id}, (MqPos) {fb->due, fb->id});
}

static int
compare_listed(const void *a, const void *b)
{
	return mq_pos_cmp(((const MqLate *) a)->lo, ((const MqLate *) b)->lo);
}

/* The failed deliveries that are due. The partition is locked. */
static void
copy_failed(Search *s, MqQueue *q)
{
	dlist_iter	iter;
	int			passed = 0;

	dlist_foreach(iter, &q->failed)
	{
		MqLease    *l = dlist_container(MqLease, node, iter.cur);

		if (s->nfailed == FAILED_MAX || ++passed > FAILED_PASSED)
			break;
		if (l->state != MQ_LEASE_FAILED || mq_lease_is_spent(l))
			continue;
		if (l->until > s->now)
			s->m->next = Min(s->m->next, l->until);
		else
		{
			Failed	   *f = &s->failed[s->nfailed++];

			f->id = l->id;
			f->tid = mq_lease_place(l).tid;
			f->priority = l->priority;
			f->due = l->due;
		}
	}
}

/* The failed deliveries that come before a position of a lane. */
static void
try_failed(Search *s, int lane, MqPos before)
{
	for (; s->next_failed < s->nfailed && goes_on(s); s->next_failed++)
	{
		Failed	   *f = &s->failed[s->next_failed];
		int			its = MQ_LANE_DUE(f->priority);
		MqPos		pos = {f->due, f->id};

		if (its > lane || (its == lane && mq_pos_cmp(pos, before) > 0))
			break;
		try_row(s, its, pos, f->id, &f->tid, true);
	}
}

/* Walks the rows of a lane behind `from`, in the fresh lane up to id hi. */
static void
walk(Search *s, int lane, MqPos from, int64 hi)
{
	MqScan		scan;
	MqSeen		seen;

	/* as in mq_lane_scan */
	if (!MQ_LANE_IS_DUE(lane) && from.t == DT_NOBEGIN)
		from = (MqPos) {0, 0};
	mq_scan_begin(&scan, s->r, lane, from, hi, NULL);
	while (goes_on(s) && mq_scan_next(&scan, &seen))
	{
		if (MQ_LANE_IS_DUE(lane) && seen.pos.t > s->now && seen.look != MQ_LOOK_GONE)
		{
			s->m->next = Min(s->m->next, seen.pos.t);
			break;
		}
		try_failed(s, lane, seen.pos);
		if (!goes_on(s))
			break;
		if (seen.look == MQ_LOOK_OK)
			try_row(s, lane, seen.pos, seen.pos.id, &seen.place.tid, false);
		else
			s->m->budget--;
	}
	mq_scan_end(&scan);
}

/* One lane. */
static void
try_lane(Search *s, int lane)
{
	static MqScanJob job;		/* large, and a process scans one lane at a time */
	static MqLaneList list;
	static MqPos gone[lengthof(list.e)];
	int			ngone = 0;
	int			ahead = READ_AHEAD;
	int			first = s->n;
	int			first_failed = s->next_failed;
	MqQueue    *q;

	for (;;)
	{
		bool		scan;

		q = mq_queue_attach(s->r->def, s->r->rel);
		mq_lane_forget(q, lane, gone, ngone);
		scan = mq_lane_list(q, lane, s->now, ahead-- > 0, &list, &job);
		mq_unlock(q->partition);
		ngone = 0;
		if (scan)
		{
			mq_lane_scan(&job, s->r);
			q = mq_queue_attach(s->r->def, s->r->rel);
			mq_lane_merge(q, &job);
			mq_unlock(q->partition);
			continue;
		}
		qsort(list.e, list.n, sizeof(MqLate), compare_listed);
		for (int i = 0; i < list.n && goes_on(s); i++)
		{
			MqLate	   *e = &list.e[i];

			try_failed(s, lane, e->lo);
			if (!goes_on(s))
				break;
			if (e->hi != e->lo.id)
				walk(s, lane, mq_pos_before(e->lo), e->hi);
			else if ((i == 0 || mq_pos_cmp(e->lo, list.e[i - 1].lo) != 0) &&
					 !try_row(s, lane, e->lo, e->lo.id, &e->tid, false))
				gone[ngone++] = e->lo;
		}
		/* what is gone has kept the stock from being filled: once more, from there */
		if (ngone == 0 || !list.more || ahead <= 0)
			break;
		s->n = first;
		s->next_failed = first_failed;
	}
	s->m->next = Min(s->m->next, list.next_due);
	if (list.more && goes_on(s))
		walk(s, lane, list.cursor, PG_INT64_MAX);
	try_failed(s, lane, MQ_POS_MAX);
	if (ngone > 0)
	{
		q = mq_queue_attach(s->r->def, s->r->rel);
		mq_lane_forget(q, lane, gone, ngone);
		mq_unlock(q->partition);
	}
}

/*
 * Finds up to `want` messages whose headers contain m->headers, in the order of
 * delivery, and says in m->next when another comes due.  r is the reader of the
 * queue's table, which is locked.  Nothing is leased: the caller does that.
 * Takes the partition's lock, several times.
 */
int
mq_match_find(MqMatch *m, MqReader *r, TimestampTz now, int want, MqFound *found)
{
	Search		s = {0};
	MqQueue    *q;

	s.m = m;
	s.r = r;
	s.now = now;
	s.want = want;
	s.found = found;
	s.failed = palloc(sizeof(Failed) * FAILED_MAX);
	s.row_context = AllocSetContextCreate(CurrentMemoryContext, "mq match", ALLOCSET_DEFAULT_SIZES);
	m->next = DT_NOEND;

	q = mq_queue_attach(r->def, r->rel);
	if (q->nfailed > 0)
		copy_failed(&s, q);
	mq_unlock(q->partition);
	qsort(s.failed, s.nfailed, sizeof(Failed), compare_failed);
	for (int lane = 0; lane < MQ_NLANES && goes_on(&s); lane++)
		try_lane(&s, lane);
	mq_reader_done(r);
	MemoryContextDelete(s.row_context);
	pfree(s.failed);
	return s.n;
}
