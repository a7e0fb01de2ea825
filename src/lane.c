/*-------------------------------------------------------------------------
 * lane.c
 *		Cursors: why a claim never walks what is dead, leased or behind it.
 *
 * A lane is the messages of one priority, either those with a time (ordered by
 * time, id) or those without (ordered by id).  Its cursor is a position such
 * that every deliverable row at or below it is in one of these places, and
 * every other deliverable row is above it, in the table:
 *	  stock		read ahead by the last scan, next to be claimed
 *	  late		committed (or given back) after the cursor had passed
 *	  blocked	somebody held the row when we looked
 *	  leases	leased, or failed and waiting (lease.c)
 *	  parked	behind the first row of its key (key.c)
 *	  prepared	in a prepared transaction (outcome_prepared.c)
 *
 * Advancing the cursor
 *	  1. Whoever finds the stock empty takes the lane's scan right: under the
 *		 partition's lock scanner := me, low := maximum.
 *	  2. Without the lock, it takes the latest snapshot, then walks the index
 *		 from the cursor on, noting the rows it sees.
 *	  3. Under the lock again, it stocks the rows below low and moves the cursor
 *		 to the last position examined, or to just below low if that is less.
 *	  Meanwhile every commit that makes a row deliverable, after it has become
 *	  visible and under the lock, either puts it on the late list (at or below
 *	  the cursor) or lowers low to it (above).
 *
 *	  No row is lost: let a transaction become visible at V and run its callback
 *	  at C > V, and let the scan set low at L and take its snapshot at S > L.  If
 *	  V < S the snapshot sees the row, wherever C falls.  If V > S then C > L,
 *	  so the callback meets either the running scan and lowers low below which
 *	  the cursor stays, or a cursor that has passed, and puts the row on the
 *	  late list.  A row seen by the snapshot and listed by the callback too is
 *	  there twice; the second to be claimed finds the lease, or the row gone, or
 *	  (having been given back) is dropped as the lease's end listed it anew.
 *
 *	  The scan right is a flag, not a lock held over buffer access.  A process
 *	  that fails in the middle gives it up in its (sub)transaction's abort; one
 *	  that dies takes the whole shared state with it.  A reset of the lane
 *	  (TRUNCATE, VACUUM FULL, a late list that ran over) counts up resets, and
 *	  a scan that began before throws away what it found.
 *
 * Late commits cost only themselves: a bulk commit behind the cursor is one
 * range of ids, walked once.  Only when the list is full is a cursor set back.
 *
 * Order within a lane
 *	  Stock and late list are both in order, and both end at the cursor, so the
 *	  lesser of their first entries comes before all rows in the table.  Two things
 *	  need care:
 *	  A cursor that is set back leaves late entries above it.  The stock is empty
 *	  then; such an entry waits until the lane has been scanned.
 *	  A failed delivery that only its lease knows of (lease.c) has a position in its
 *	  priority's due lane.  It comes first if it is less than the lists' first
 *	  entries, and less than what a scan would find: at or below the cursor, due
 *	  before next_due, or the stock holds something later.  Else the lane is scanned
 *	  first, as it would be next in any case, so a claim costs no more than before.
 *	  While somebody else scans the lane its next_due says nothing: wait for him.
 *
 * All functions but mq_lane_scan and mq_lane_scan_abandon: the partition is
 * locked by the caller.
 */
#include "lane.h"

#include "announce.h"
#include "clock.h"

/* The scan this process has the right to, so that an error can give it up. */
static struct
{
	bool		active;
	Oid			relid;
	int			lane;
}			running;

static bool
lane_wants_scan(MqLane *lane, int l, TimestampTz now)
{
	if (lane->stuck)
		return false;

	/* while a scan runs, its lane's next time is what commits bring, not all */
	return MQ_LANE_IS_DUE(l) ? lane->next_due <= now || lane->scanner != -1 : !lane->empty;
}

static MqStock *
stock_at(MqLane *lane, int i)
{
	return &lane->stock[(lane->stock_head + i) % lane->stock_max];
}

/* Starts a lane again from a position: all above it is found by scanning. */
static void
set_back(MqQueue *q, int l, MqPos to)
{
	MqLane	   *lane = &q->lanes[l];

	if (lane->stock_n > 0 && mq_pos_cmp(stock_at(lane, 0)->pos, to) <= 0)
		to = mq_pos_before(stock_at(lane, 0)->pos);
	if (mq_pos_cmp(to, lane->cursor) < 0)
		lane->cursor = to;
	lane->stock_n = lane->stock_head = 0;
	lane->empty = false;
	lane->next_due = DT_NOBEGIN;
	lane->resets++;
}

static void
late_add(MqQueue *q, int l, MqPos lo, int64 hi, ItemPointer tid)
{
	int			i;

	if (q->nlate >= MQ_LATE_MAX)
	{
		set_back(q, l, mq_pos_before(lo));
		return;
	}
	for (i = q->nlate; i > 0; i--)
	{
		MqLate	   *e = &q->late[i - 1];
		int			c = e->lane != l ? (int) e->lane - l : mq_pos_cmp(e->lo, lo);

		if (c == 0 && e->hi == hi)
			return;				/* listed already */
		if (c <= 0)
			break;
	}
	memmove(&q->late[i + 1], &q->late[i], (q->nlate - i) * sizeof(MqLate));
	q->late[i].lane = l;
	q->late[i].lo = lo;
	q->late[i].hi = hi;
	if (tid)
		q->late[i].tid = *tid;
	else
		ItemPointerSetInvalid(&q->late[i].tid);
	q->nlate++;
}

static void
late_remove(MqQueue *q, int i)
{
	q->nlate--;
	memmove(&q->late[i], &q->late[i + 1], (q->nlate - i) * sizeof(MqLate));
}

/* The row is committed, unleased and stands at place: it can be delivered. */
void
mq_lane_add(MqQueue *q, const MqPlace *place)
{
	int			l = mq_place_lane(place);
	MqLane	   *lane = &q->lanes[l];
	MqPos		pos = mq_place_pos(place);

	if (mq_pos_cmp(pos, lane->cursor) > 0)
	{
		if (mq_pos_cmp(pos, lane->low) < 0)
			lane->low = pos;
		lane->empty = false;
		if (MQ_LANE_IS_DUE(l) && pos.t < lane->next_due)
			lane->next_due = pos.t;
	}
	else
	{
		ItemPointerData tid = place->tid;

		late_add(q, l, pos, pos.id, &tid);
	}
}

/*
 * A row was taken off its list before its time: its time was changed, or the
 * clock went back.  It must stand above the cursor to be found again.
 */
void
mq_lane_defer(MqQueue *q, const MqPlace *place)
{
	int			l = mq_place_lane(place);
	MqPos		pos = mq_place_pos(place);

	if (mq_pos_cmp(pos, q->lanes[l].cursor) <= 0)
		set_back(q, l, mq_pos_before(pos));
	mq_lane_add(q, place);
}

/*
 * The same for n rows of the fresh lane with ids from lo to hi, maybe with
 * others' ids between them; tid is that of lo.
 */
void
mq_lane_add_range(MqQueue *q, int64 lo, int64 hi, int64 n, ItemPointer tid)
{
	MqLane	   *lane = &q->lanes[MQ_LANE_FRESH];
	int64		cursor = lane->cursor.t == DT_NOBEGIN ? 0 : lane->cursor.id;

	mq_key_late(q, lo);
	if (hi > cursor)
	{
		MqPos		pos = {0, Max(lo, cursor + 1)};

		if (mq_pos_cmp(pos, lane->low) < 0)
			lane->low = pos;
		lane->empty = false;
	}
	if (lo <= cursor)
		late_add(q, MQ_LANE_FRESH, (MqPos) {0, lo}, Min(hi, cursor), tid);
}

/* Whether there is room on the blocked list for one more of these. */
static bool
block(MqQueue *q, int l, MqPos pos, int64 hi, ItemPointer tid, const MqHolder *holder)
{
	MqBlocked  *b;

	/* what one transaction holds in a lane is one entry */
	for (int i = 0; i < q->nblocked; i++)
	{
		b = &q->blocked[i];
		if (b->lane != l || b->xid != holder->xid || b->multi != holder->multi)
			continue;
		if (mq_pos_cmp(pos, b->lo) == 0)
			return true;
		if (mq_pos_cmp(pos, b->lo) < 0)
		{
			b->lo = pos;
			b->tid = *tid;
		}
		/* ids say nothing about places in the other lanes */
		b->hi = l == MQ_LANE_FRESH ? Max(b->hi, Max(hi, pos.id)) : -1;
		return true;
	}
	if (q->nblocked >= MQ_BLOCKED_MAX)
		return false;
	b = &q->blocked[q->nblocked++];
	b->lane = l;
	b->lo = pos;
	b->hi = hi;
	b->tid = *tid;
	b->xid = holder->xid;
	b->multi = holder->multi;
	return true;
}

/*
 * A row that was taken off its list is held by somebody: it waits for that
 * one's end.  With the list full, the lane is scanned again up to this row.
 */
void
mq_lane_block(MqQueue *q, int lane, MqPos pos, int64 hi, ItemPointer tid,
			  const MqHolder *holder)
{
	if (!block(q, lane, pos, hi, tid, holder))
	{
		set_back(q, lane, mq_pos_before(pos));
		q->lanes[lane].stuck = true;
	}
}

/* The holder has ended: its rows are looked at again. */
void
mq_lane_unblock(MqQueue *q, TransactionId xid, bool multi)
{
	for (int i = q->nblocked - 1; i >= 0; i--)
	{
		MqBlocked	b = q->blocked[i];

		if (b.xid != xid || b.multi != multi)
			continue;
		q->nblocked--;
		memmove(&q->blocked[i], &q->blocked[i + 1], (q->nblocked - i) * sizeof(MqBlocked));
		if (b.hi < 0)
			set_back(q, b.lane, mq_pos_before(b.lo));
		else
			late_add(q, b.lane, b.lo, b.hi, &b.tid);
		for (int l = 0; l < MQ_NLANES; l++)
			q->lanes[l].stuck = false;
	}
}

/* Takes the lane's scan right. */
static void
start_scan(MqQueue *q, int l, TimestampTz now, MqScanJob *job)
{
	MqLane	   *lane = &q->lanes[l];

	lane->scanner = MqMyProcNumber();
	job->relid = q->relid;
	job->lane = l;
	job->resets = lane->resets;
	job->upto = now;
	job->room = lane->stock_max - lane->stock_n;
	job->nfound = 0;
	job->exhausted = false;
	job->next_due = DT_NOEND;
	running.active = true;
	running.relid = q->relid;
	running.lane = l;
	mq_xact_want_end();
}

/* Takes the right to scan the lane from its cursor on. */
static void
scan_on(MqQueue *q, int l, TimestampTz now, MqScanJob *job)
{
	MqLane	   *lane = &q->lanes[l];

	start_scan(q, l, now, job);
	job->range = false;
	job->from = job->last = lane->cursor;
	job->hi = PG_INT64_MAX;
	lane->low = MQ_POS_MAX;
	lane->next_due = DT_NOEND;	/* commits lower it from now on */
}

/*
 * Whether the failed delivery stands before all rows of its lane: before those on
 * the lists, and, as far as can be said without a scan, before those above the
 * cursor.
 */
static bool
comes_first(MqLane *lane, const MqLate *e, const MqLease *retry, bool more)
{
	MqPos		pos = {retry->due, retry->id};

	if (lane->stock_n > 0 && mq_pos_cmp(stock_at(lane, 0)->pos, pos) < 0)
		return false;
	if (e && mq_pos_cmp(e->lo, pos) < 0)
		return false;
	return !more || lane->stock_n > 0 || mq_pos_cmp(pos, lane->cursor) <= 0 ||
		(lane->scanner == -1 && retry->due < lane->next_due);
}

/*
 * The same for one lane; late is the index of the first late entry of this
 * lane or a later one.  With keep the candidate stays where it is, and is a row.
 */
static MqNext
next_in_lane(MqQueue *q, int l, int late, TimestampTz now, bool keep,
			 MqCandidate *cand, MqScanJob *job)
{
	MqLane	   *lane = &q->lanes[l];
	MqLate	   *e = NULL;
	bool		more = lane_wants_scan(lane, l, now);
	MqLease    *retry = NULL;

	if (MQ_LANE_IS_DUE(l) && !keep && q->retries[MQ_LANE_PRIORITY(l)])
		retry = mq_lease_retry(q, MQ_LANE_PRIORITY(l), now);

	cand->retry = NULL;
	if (late < q->nlate && q->late[late].lane == l)
		e = &q->late[late];
	if (e && lane->stock_n > 0 && mq_pos_cmp(stock_at(lane, 0)->pos, e->lo) <= 0)
		e = NULL;
	if (retry && comes_first(lane, e, retry, more))
	{
		cand->lane = l;
		cand->retry = retry;
		return MQ_NEXT_ROW;
	}
	/* the cursor was set back: what it comes upon first is older */
	if (e && more && lane->stock_n == 0 && mq_pos_cmp(e->lo, lane->cursor) > 0)
		e = NULL;
	if (e && e->hi == e->lo.id)
	{
		cand->lane = l;
		cand->pos = e->lo;
		cand->tid = e->tid;
		if (!keep)
			late_remove(q, late);
		return MQ_NEXT_ROW;
	}
	if (e && !lane->stuck && lane->stock_n < lane->stock_max)
	{
		if (lane->scanner != -1)
			return MQ_NEXT_WAIT;
		start_scan(q, l, now, job);
		job->range = true;
		job->from = mq_pos_before(e->lo);
		job->hi = e->hi;
		job->last = job->from;
		return MQ_NEXT_SCAN;
	}
	if (lane->stock_n > 0)
	{
		MqStock    *s = stock_at(lane, 0);

		cand->lane = l;
		cand->pos = s->pos;
		cand->tid = s->tid;
		if (!keep)
		{
			lane->stock_head = (lane->stock_head + 1) % lane->stock_max;
			lane->stock_n--;
		}
		return MQ_NEXT_ROW;
	}
	if (!more)
		return MQ_NEXT_NONE;
	if (lane->scanner != -1)
		return MQ_NEXT_WAIT;
	scan_on(q, l, now, job);
	return MQ_NEXT_SCAN;
}

static int
first_late(MqQueue *q, int l, int from)
{
	while (from < q->nlate && q->late[from].lane < l)
		from++;
	return from;
}

/*
 * What to do next: the first candidate in the order of lanes, taken off its
 * list, or what has to be done before there is one.  Only lanes before `limit`
 * are looked at.  On MQ_NEXT_SCAN the caller has the scan right and must run
 * mq_lane_scan and mq_lane_merge.
 */
MqNext
mq_lane_next(MqQueue *q, TimestampTz now, int limit, MqCandidate *cand, MqScanJob *job)
{
	int			late = 0;

	if (q->asleep)
		mq_lease_rouse_all(q, now);
	for (int l = 0; l < limit; l++)
	{
		MqNext		next;

		late = first_late(q, l, late);
		next = next_in_lane(q, l, late, now, false, cand, job);
		if (next != MQ_NEXT_NONE)
			return next;
	}
	return MQ_NEXT_NONE;
}

/* The same for all lanes, the lowest priority first. */
MqNext
mq_lane_lowest(MqQueue *q, TimestampTz now, MqCandidate *cand, MqScanJob *job)
{
	if (q->asleep)
		mq_lease_rouse_all(q, now);
	for (int p = 0; p <= MQ_PRIORITY_MAX; p++)
		for (int l = MQ_LANE_DUE(p); l <= MQ_LANE_NOW(p); l++)
		{
			MqNext		next = next_in_lane(q, l, first_late(q, l, 0), now, false, cand, job);

			if (next != MQ_NEXT_NONE)
				return next;
		}
	return MQ_NEXT_NONE;
}

/* The first candidate of one lane, left where it is; else as mq_lane_next. */
MqNext
mq_lane_head(MqQueue *q, int l, TimestampTz now, MqCandidate *cand, MqScanJob *job)
{
	return next_in_lane(q, l, first_late(q, l, 0), now, true, cand, job);
}

static int
compare_pos(const void *a, const void *b)
{
	return mq_pos_cmp(*(const MqPos *) a, *(const MqPos *) b);
}

/*
 * Takes off the lane's lists what whoever came upon it would drop: rows that are
 * leased, whose lease's end lists them anew, and those that are gone, in
 * ascending order.
 */
void
mq_lane_forget(MqQueue *q, int l, const MqPos *gone, int ngone)
{
	MqLane	   *lane = &q->lanes[l];
	int			kept = 0;

#define IS_GONE(pos) \
	(mq_lease_has_place(q, l, pos) || \
	 (ngone > 0 && bsearch(&(pos), gone, ngone, sizeof(MqPos), compare_pos) != NULL))
	for (int i = 0; i < lane->stock_n; i++)
	{
		MqStock		s = *stock_at(lane, i);

		if (!IS_GONE(s.pos))
			*stock_at(lane, kept++) = s;
	}
	lane->stock_n = kept;
	for (int i = q->nlate - 1; i >= 0; i--)
		if (q->late[i].lane == l && q->late[i].hi == q->late[i].lo.id && IS_GONE(q->late[i].lo))
			late_remove(q, i);
#undef IS_GONE
}

/*
 * Copies what the lane's lists hold, for one who must not take it: stock, late
 * rows and ranges.  With ahead, the stock is to be filled first if it has room:
 * true then, the caller having the scan right as after MQ_NEXT_SCAN, and
 * nothing is copied.
 */
bool
mq_lane_list(MqQueue *q, int l, TimestampTz now, bool ahead, MqLaneList *list,
			 MqScanJob *job)
{
	MqLane	   *lane = &q->lanes[l];
	bool		more = lane_wants_scan(lane, l, now);

	if (ahead && more && lane->scanner == -1 && lane->stock_n < lane->stock_max)
	{
		scan_on(q, l, now, job);
		return true;
	}
	list->n = 0;
	for (int i = 0; i < lane->stock_n; i++)
	{
		MqStock    *s = stock_at(lane, i);
		MqLate	   *e = &list->e[list->n++];

		e->lo = s->pos;
		e->hi = s->pos.id;
		e->tid = s->tid;
	}
	for (int i = first_late(q, l, 0); i < q->nlate && q->late[i].lane == l; i++)
		list->e[list->n++] = q->late[i];
	list->more = more || lane->stuck;
	list->cursor = lane->cursor;
	list->next_due = MQ_LANE_IS_DUE(l) && !list->more ? lane->next_due : DT_NOEND;
	return false;
}

/* Walks the index, without any lock. */
void
mq_lane_scan(MqScanJob *job, MqReader *r)
{
	MqScan		scan;
	MqSeen		seen;
	MqPos		from = job->from;

	/* ids are positive: nothing is skipped by starting behind id 0 */
	if (!MQ_LANE_IS_DUE(job->lane) && from.t == DT_NOBEGIN)
		from = (MqPos) {0, 0};
	mq_scan_begin(&scan, r, job->lane, from, job->hi, NULL);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (job->nfound >= job->room)
			break;
		if (!mq_scan_next(&scan, &seen))
		{
			job->exhausted = true;
			break;
		}
		if (MQ_LANE_IS_DUE(job->lane) && seen.pos.t > job->upto)
		{
			/* the next time is that of the first row that is really there */
			if (seen.look == MQ_LOOK_GONE)
				continue;
			job->next_due = seen.pos.t;
			job->exhausted = true;
			break;
		}
		job->last = seen.pos;
		if (seen.look != MQ_LOOK_GONE)
			job->found[job->nfound++] = seen;
	}
	/* lanes by id keep the order within a transaction */
	if (!MQ_LANE_IS_DUE(job->lane) && job->nfound > 0)
		mq_announce_await(job->relid, from.id, scan.snapshot);
	mq_scan_end(&scan);
	mq_reader_done(r);
}

static void
release_right(MqQueue *q, int l)
{
	q->lanes[l].scanner = -1;
	running.active = false;
	ConditionVariableBroadcast(&mq_shared->scanned[q->partition]);
}

/* Adds rows to the stock, both being in order. */
static void
stock_merge(MqLane *lane, const MqStock *add, int n)
{
	MqStock		old[MQ_STOCK_FRESH];
	int			nold = lane->stock_n;
	int			i = 0;
	int			k = 0;

	for (int j = 0; j < nold; j++)
		old[j] = *stock_at(lane, j);
	lane->stock_head = 0;
	lane->stock_n = 0;
	while ((i < nold || k < n) && lane->stock_n < lane->stock_max)
	{
		int			c = i == nold ? 1 : k == n ? -1 : mq_pos_cmp(old[i].pos, add[k].pos);

		if (c <= 0)
			lane->stock[lane->stock_n++] = old[i++];
		else
			lane->stock[lane->stock_n++] = add[k++];
		if (c == 0)
			k++;
	}
	Assert(i == nold && k == n);
}

/*
 * Puts what the scan found into the lists and moves the cursor.  Returns
 * whether that brought anything forward.
 */
bool
mq_lane_merge(MqQueue *q, MqScanJob *job)
{
	MqLane	   *lane = &q->lanes[job->lane];
	MqPos		limit = job->range ? MQ_POS_MAX : lane->low;
	MqPos		last = job->last;
	MqStock		add[MQ_STOCK_FRESH];
	int			n = 0;
	int			late = -1;
	bool		cut = false;

	if (lane->resets != job->resets)
	{
		release_right(q, job->lane);
		return true;
	}
	if (job->range)
	{
		for (int i = 0; i < q->nlate && late < 0; i++)
			if (q->late[i].lane == job->lane && q->late[i].hi == job->hi &&
				q->late[i].lo.id == job->from.id + 1)
				late = i;
		if (late < 0)
		{
			release_right(q, job->lane);
			return true;
		}
	}
	for (int i = 0; i < job->nfound; i++)
	{
		MqSeen	   *s = &job->found[i];

		if (mq_pos_cmp(s->pos, limit) >= 0)
			break;
		if (s->look == MQ_LOOK_HELD)
		{
			if (!block(q, job->lane, s->pos, s->pos.id, &s->place.tid, &s->holder))
			{
				limit = s->pos;
				cut = true;
				break;
			}
		}
		else if (!mq_lease_has_place(q, job->lane, s->pos))
		{
			add[n].pos = s->pos;
			add[n++].tid = s->place.tid;
		}
	}
	/* a range's rows may be in the stock already, and its room is less then */
	stock_merge(lane, add, n);
	if (mq_pos_cmp(last, limit) >= 0)
	{
		last = mq_pos_before(limit);
		job->exhausted = false;
	}

	if (job->range)
	{
		if (job->exhausted)
			late_remove(q, late);
		else
		{
			q->late[late].lo.id = last.id + 1;
			ItemPointerSetInvalid(&q->late[late].tid);
			if (cut)
				lane->stuck = true; /* the rest waits with the row it stopped at */
		}
	}
	else
	{
		if (mq_pos_cmp(last, lane->cursor) > 0)
			lane->cursor = last;
		if (job->exhausted && mq_pos_cmp(lane->low, MQ_POS_MAX) == 0)
			lane->empty = true;
		if (job->exhausted)
			lane->next_due = Min(lane->next_due, job->next_due);
		else
			lane->next_due = DT_NOBEGIN;
		if (cut)
			lane->stuck = true;
	}
	release_right(q, job->lane);
	return n > 0 || !cut;
}

/*
 * Gives up the scan right after an error; nothing that the scan found was
 * used.  Takes the partition's lock.
 */
void
mq_lane_scan_abandon(void)
{
	int			partition;
	MqQueue    *q;

	if (!running.active)
		return;
	running.active = false;
	partition = mq_partition_of(MyDatabaseId, running.relid);
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, running.relid, NULL);
	if (q && q->lanes[running.lane].scanner == MqMyProcNumber())
	{
		q->lanes[running.lane].next_due = DT_NOBEGIN;
		release_right(q, running.lane);
	}
	mq_unlock(partition);
}

/* Whether a claim could find something, as far as is known without looking. */
bool
mq_lane_has_work(MqQueue *q, TimestampTz now)
{
	int			late = 0;

	if (mq_key_has_work(q))
		return true;
	for (int l = 0; l < MQ_NLANES; l++)
	{
		MqLane	   *lane = &q->lanes[l];

		if (lane->stock_n > 0 || lane_wants_scan(lane, l, now))
			return true;
		late = first_late(q, l, late);
		if (late < q->nlate && q->late[late].lane == l &&
			(!lane->stuck || q->late[late].hi == q->late[late].lo.id))
			return true;
	}
	return false;
}

/* When the next message comes due, as far as is known; DT_NOEND: none. */
TimestampTz
mq_lane_next_due(MqQueue *q)
{
	TimestampTz t = DT_NOEND;

	for (int p = 0; p <= MQ_PRIORITY_MAX; p++)
		if (!q->lanes[MQ_LANE_DUE(p)].stuck)
			t = Min(t, q->lanes[MQ_LANE_DUE(p)].next_due);
	return t;
}

/* Whether somebody is scanning a lane. */
bool
mq_lane_scanning(MqQueue *q)
{
	for (int l = 0; l < MQ_NLANES; l++)
		if (q->lanes[l].scanner != -1)
			return true;
	return false;
}
