/*-------------------------------------------------------------------------
 * wake.c
 *		Waiters, and how they and the worker are woken.
 *
 * Waiting
 *	  1. The waiter joins the queue's list under the partition's lock and looks
 *		 under the same lock whether there is work.  A commit that comes before
 *		 is seen by the look, one that comes after sees the waiter.  Who waits
 *		 for several queues does so for each, one after the other, never holding
 *		 two locks, and is then in several lists at once.
 *	  2. It sleeps on its own latch.
 *	  3. A commit takes as many waiters off the list as it brings messages,
 *		 first come first woken, releases the lock and sets their latches.
 *	  4. However the waiter stops waiting (message, timeout, cancel, death), it
 *		 leaves under the lock; if it had been woken without need, or if a time
 *		 has to be watched, the next waiter is woken in its place; so in each of
 *		 its queues.
 *	  Who waits for certain messages only (match) is in a list of its own and is
 *	  woken by whatever comes, besides those that are woken for it: it keeps no
 *	  wake from others, and no look at the queue can say whether there is work
 *	  for it.  So it joins, claims, and sleeps if it has not been woken since.
 *
 * Latches are set by process number after the lock is released.  A number may
 * belong to another process by then: it sees a spurious wake, which every
 * sleeper in PostgreSQL must bear.
 */
#include "wake.h"

#include "clock.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "throttle.h"

/* The queues this process waits for, each by the MqWaiter of its index. */
static struct
{
	int			n;				/* entries used, some of them free again */
	Oid			relids[MQ_WAIT_QUEUES];	/* InvalidOid: free */
}			waiting;

static MqDatabase *my_database = NULL;

static MqWaiter *
my_waiter(int i)
{
	return &mq_waiters[MqMyProcNumber() * MQ_WAIT_QUEUES + i];
}

static void
set_latch_of(int procno)
{
	SetLatch(&ProcGlobal->allProcs[procno].procLatch);
}

/* Takes the first of a list of waiters off it. */
static void
take_off(dlist_head *from, MqWakeList *list)
{
	MqWaiter   *w = dlist_container(MqWaiter, node, dlist_pop_head_node(from));

	/* beyond the list's size: an impolite moment, but not a wrong one */
	if (list->n == MQ_WAKE_MAX)
		mq_wake_send(list);
	w->queued = false;
	list->procs[list->n++] = w->procno;
}

/*
 * Takes up to n waiters off the queue's list, and all who wait for certain
 * messages: which of them these concern, only they can find out.  Returns how
 * many of the former.
 */
static int64
pick(MqQueue *q, int64 n, MqWakeList *list)
{
	int64		picked = 0;

	if (n > 0)
		while (!dlist_is_empty(&q->matchers))
			take_off(&q->matchers, list);
	for (; picked < n && !dlist_is_empty(&q->waiters); picked++)
		take_off(&q->waiters, list);
	return picked;
}

/*
 * Takes waiters off the queue's list for n messages, no more than may be
 * delivered now (throttle.c); returns how many who take whatever comes.  The
 * partition is locked.
 */
int64
mq_wake_pick(MqQueue *q, int64 n, MqWakeList *list)
{
	int64		slots = mq_throttle_slots(q);

	if (n > slots)
	{
		q->refused = true;
		n = Max(slots, 0);
	}
	if (n > 0 && q->throttle.rate_limit > 0)
	{
		int64		room = mq_throttle_room(q, mq_steady());

		/* without a token, one has to watch when it comes */
		n = room > 0 ? Min(n, room) : q->watcher == 0;
	}
	return pick(q, n, list);
}

/* Whether anybody waits to be woken.  The partition is locked. */
bool
mq_wake_wanted(MqQueue *q)
{
	return !dlist_is_empty(&q->waiters) || !dlist_is_empty(&q->matchers);
}

/*
 * Leases of the queue may have ended: if somebody has found all slots taken
 * and there is one again, a waiter is woken, or else whoever listens.  The
 * partition is locked.
 */
void
mq_wake_freed(MqQueue *q, MqWakeList *list)
{
	if (!q->refused || mq_throttle_slots(q) <= 0)
		return;
	q->refused = false;
	if (q->paused)
		return;
	if (mq_wake_wanted(q))
		mq_wake_pick(q, 1, list);
	else if (mq_count_ready(q) > 0)
		mq_wake_listeners(q, DT_NOBEGIN);
}

/*
 * What the limits keep back can be delivered from then on (steady): sessions
 * that listen shall hear of it.  The partition is locked, at least shared.
 */
void
mq_wake_listeners(MqQueue *q, TimestampTz when)
{
	/* a hint only: one who begins to listen now is told what is ready anyway */
	if (my_database == NULL || my_database->listeners == 0)
		return;
	q->notify = true;
	mq_worker_poke(Max(when, q->notified + 50 * 1000));
}

/* All of them, beyond the list's size too.  The partition is locked. */
void
mq_wake_all(MqQueue *q, MqWakeList *list)
{
	pick(q, PG_INT64_MAX, list);
}

/* Sets the latches; best without a lock. */
void
mq_wake_send(MqWakeList *list)
{
	for (int i = 0; i < list->n; i++)
		set_latch_of(list->procs[i]);
	list->n = 0;
}

/*
 * Joins the queue's waiters, at the end; matching: those who are woken by
 * whatever comes.  Returns whether this process was there already, not woken
 * since.  The partition is locked.
 */
bool
mq_wait_enter(MqQueue *q, bool matching)
{
	int			i;
	MqWaiter   *w;

	for (i = 0; i < waiting.n && waiting.relids[i] != q->relid; i++)
		;
	if (i == waiting.n)
	{
		for (i = 0; i < waiting.n && OidIsValid(waiting.relids[i]); i++)
			;
		Assert(i < MQ_WAIT_QUEUES);
		waiting.n = Max(waiting.n, i + 1);
		waiting.relids[i] = q->relid;
		q->nwaiters++;
		w = my_waiter(i);
		w->queued = false;
		w->matching = matching;
		mq_xact_want_end();
	}
	w = my_waiter(i);
	if (w->queued)
		return true;
	dlist_push_tail(matching ? &q->matchers : &q->waiters, &w->node);
	w->queued = true;
	return false;
}

/*
 * Whether this process is to watch for the queue's next token: if nobody does
 * so yet.  The partition is locked.
 */
bool
mq_wait_watch(MqQueue *q)
{
	if (q->watcher == 0)
		q->watcher = MqMyProcNumber() + 1;
	return q->watcher == MqMyProcNumber() + 1;
}

/* It does not watch any more.  The partition is locked. */
void
mq_wait_unwatch(MqQueue *q)
{
	if (q->watcher == MqMyProcNumber() + 1)
		q->watcher = 0;
}

/*
 * Stops waiting for one queue; a wake not needed goes to the next.  One that
 * waits for certain messages has kept none from anybody.  Takes the partition's
 * lock.
 */
static void
leave(int i)
{
	MqWaiter   *w = my_waiter(i);
	int			partition = mq_partition_of(MyDatabaseId, waiting.relids[i]);
	MqWakeList	list = {0};
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, waiting.relids[i], NULL);
	waiting.relids[i] = InvalidOid;
	if (q)
	{
		TimestampTz now = mq_now();

		if (w->queued)
			dlist_delete(&w->node);
		q->nwaiters--;
		mq_wait_unwatch(q);
		if (!w->matching && !q->paused &&
			(mq_lane_has_work(q, now) || mq_lane_next_due(q) != DT_NOEND ||
			 mq_lease_next_event(q) != DT_NOEND))
			mq_wake_pick(q, 1, &list);
	}
	w->queued = false;
	mq_unlock(partition);
	mq_wake_send(&list);
}

/* Stops waiting for any queue.  Takes their partitions' locks, one at a time. */
void
mq_wait_leave(void)
{
	mq_wait_leave_others(NULL, 0);
}

/* The same but for these (a name may have been given to a new queue). */
void
mq_wait_leave_others(const Oid *relids, int n)
{
	for (int i = 0; i < waiting.n; i++)
	{
		bool		stay = false;

		for (int k = 0; k < n && !stay; k++)
			stay = waiting.relids[i] == relids[k];
		if (!stay && OidIsValid(waiting.relids[i]))
			leave(i);
	}
	if (n == 0)
		waiting.n = 0;
}

/* Whether somebody has taken this process off a list.  Needs no lock. */
static bool
is_woken(void)
{
	for (int i = 0; i < waiting.n; i++)
		if (OidIsValid(waiting.relids[i]) && !my_waiter(i)->queued)
			return true;
	return false;
}

/*
 * Sleeps until the latch is set or the time is over, not at all if it has been
 * woken already: what was done since it joined the first list may have reset
 * the latch.  Returns false at a time out.  Interrupts are served here: cancel, terminate, a vanished client.
 */
bool
mq_wait_sleep(long timeout_ms)
{
	int			rc = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							   is_woken() ? 0 : timeout_ms, PG_WAIT_EXTENSION);

	if (rc & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	return (rc & WL_LATCH_SET) != 0;
}

/* The entry of a database; NULL if there is none and none is made. */
MqDatabase *
mq_database(Oid dboid, bool create)
{
	Assert(LWLockHeldByMe(mq_shared->registry));
	for (int i = 0; i < mq_shared->ndatabases; i++)
		if (mq_shared->databases[i].dboid == dboid)
			return &mq_shared->databases[i];
	if (!create)
		return NULL;
	for (int i = 0; i <= mq_shared->ndatabases && i < MQ_DATABASES; i++)
	{
		MqDatabase *d = &mq_shared->databases[i];

		if (i < mq_shared->ndatabases && OidIsValid(d->dboid))
			continue;
		if (i == mq_shared->ndatabases)
			mq_shared->ndatabases++;
		d->dboid = dboid;
		d->state = MQ_DB_UNKNOWN;
		pg_atomic_write_u32(&d->worker, 0);
		pg_atomic_write_u64(&d->next_wake, 0);
		d->holds = 0;
		d->leave = false;
		d->listeners = 0;
		d->retry = DT_NOBEGIN;
		return d;
	}
	return NULL;
}

/* This session's database; what mq_worker_poke needs to know.  Takes a lock. */
MqDatabase *
mq_this_database(void)
{
	if (my_database == NULL || my_database->dboid != MyDatabaseId)
	{
		LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
		my_database = mq_database(MyDatabaseId, true);
		LWLockRelease(mq_shared->registry);
	}
	return my_database;
}

/* Wakes the launcher, if there is one. */
void
mq_launcher_poke(void)
{
	int			launcher = mq_shared->launcher;

	if (launcher >= 0)
		set_latch_of(launcher);
}

/* Whether this database has a worker, as far as is known without a lock. */
bool
mq_worker_alive_hint(void)
{
	return my_database && my_database->dboid == MyDatabaseId &&
		pg_atomic_read_u32(&my_database->worker) != 0;
}

/* Asks for a worker for this database unless it has one.  Not for callbacks. */
void
mq_worker_ensure(void)
{
	MqDatabase *d = mq_this_database();
	bool		poke = false;

	if (d == NULL || pg_atomic_read_u32(&d->worker) != 0)
		return;
	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	if (d->dboid == MyDatabaseId && (d->state == MQ_DB_UNKNOWN || d->state == MQ_DB_NONE))
	{
		d->state = MQ_DB_WANTED;
		d->retry = DT_NOBEGIN;
		poke = true;
	}
	LWLockRelease(mq_shared->registry);
	if (poke)
		mq_launcher_poke();
}

/* Wakes this database's worker if it does not mean to look by then itself. */
void
mq_worker_poke(TimestampTz when)
{
	MqDatabase *d = my_database;
	uint32		worker;

	if (d == NULL || d->dboid != MyDatabaseId)
		return;
	worker = pg_atomic_read_u32(&d->worker);
	if (worker == 0 || (TimestampTz) pg_atomic_read_u64(&d->next_wake) <= when)
		return;
	set_latch_of(worker - 1);
}
