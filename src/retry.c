/*-------------------------------------------------------------------------
 * retry.c
 *		Failed deliveries: from the lease table into the rows.
 *
 * A delivery that fails without a nack is known to the lease table only, since
 * whoever failed can't write any more.  The worker writes it into the row
 * (attempts, ready_at, last_error), or takes the message to the dead letters
 * when its attempts are used up, like any settling: FAILED -> SETTLING, the
 * write, and at the commit the lease goes while the row is put into its lane.
 * A claimer may deliver a FAILED message that is due before that happens.
 */
#include "retry.h"

#include "access/xact.h"
#include "clock.h"
#include "expiry.h"
#include "storage/lmgr.h"
#include "try.h"

static int64 current = 0;		/* the message being written */

typedef struct Chosen
{
	MqLease    *lease;
	int			record;
	int64		id;
	ItemPointerData tid;
	ItemPointerData was;		/* the lease's, untouched: an UPDATE changes it */
	int32		attempts;
	TimestampTz due;
	TimestampTz ready_at;		/* of the row, as far as was known */
	bool		spent;
	MqReason	reason;
} Chosen;

static int
choose(MqDef *def, MqTouch *t, int max, bool only_spent, Chosen *chosen)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	TimestampTz steady = mq_steady();
	dlist_iter	iter;
	MqQueue    *q;
	int			n = 0;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q && q->write_after <= steady)
	{
		q->policy = def->policy;
		dlist_foreach(iter, &q->failed)
		{
			MqLease    *l = dlist_container(MqLease, node, iter.cur);
			MqSettle   *s;
			Chosen	   *c;

			if (n == max)
				break;
			if (l->state != MQ_LEASE_FAILED || l->write_after > steady ||
				(only_spent && !mq_lease_is_spent(l)))
				continue;
			c = &chosen[n++];
			c->lease = l;
			c->record = t->settles.n;
			c->id = l->id;
			c->tid = mq_lease_place(l).tid;
			c->was = l->tid;
			c->attempts = l->attempts;
			c->due = l->due;
			c->ready_at = l->ready_at;
			c->spent = mq_lease_is_spent(l);
			c->reason = l->reason;
			s = &t->settles.a[t->settles.n++];
			s->lease = l;
			s->id = l->id;
			s->receipt = l->receipt;
			s->claim = -1;
			s->verb = MQ_NACK;
			s->dead = s->row_gone = false;
			s->sub = GetCurrentSubTransactionId();
			mq_lease_settling(l, MQ_NACK);
			l->settler = MqMyProcNumber();
		}
	}
	mq_unlock(partition);
	return n;
}

/* The row could not be written: gone, or held by somebody. */
static void
not_written(MqDef *def, MqTouch *t, Chosen *c, bool gone)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	MqSettle   *s = &t->settles.a[c->record];
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q && c->lease->queue == q && c->lease->id == c->id &&
		c->lease->state == MQ_LEASE_SETTLING && c->lease->settler == MqMyProcNumber())
	{
		if (gone && memcmp(&c->lease->tid, &c->was, sizeof(ItemPointerData)) == 0)
			mq_lease_free(c->lease);
		else
		{
			mq_lease_restore(c->lease);
			c->lease->write_after = mq_time_add(mq_steady(), USECS_PER_SEC);
		}
	}
	s->lease = NULL;
	mq_unlock(partition);
}

/*
 * The row says as much itself: what was in flight at a crash had been written,
 * by a commit that was not told any more.  The row's own time counts.
 */
static void
written_before(MqDef *def, MqTouch *t, Chosen *c, const MqPlace *place)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	MqSettle   *s = &t->settles.a[c->record];
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q && c->lease->queue == q && c->lease->id == c->id &&
		c->lease->state == MQ_LEASE_SETTLING && c->lease->settler == MqMyProcNumber())
	{
		mq_expiry_left(c->lease);
		mq_lease_free(c->lease);
		mq_lane_defer(q, place);
	}
	s->lease = NULL;
	mq_unlock(partition);
}

/*
 * Writes up to max failed deliveries of a queue, whose table is locked with
 * RowExclusiveLock; those without attempts left go to the dead letters.  With
 * only_spent it does nothing but that.  Skips rows that somebody holds.
 * Returns how many it dealt with.
 */
static int
write_some(MqDef *def, Relation rel, int max, bool only_spent)
{
	MqTouch    *t = mq_xact_touch(def->relid);
	Chosen	   *chosen = palloc(sizeof(Chosen) * max);
	MqReader	r;
	int			n;

	mq_array_reserve(t->settles, max);
	n = choose(def, t, max, only_spent, chosen);
	mq_reader_init(&r, def, rel);
	for (int i = 0; i < n; i++)
	{
		Chosen	   *c = &chosen[i];
		const char *error = mq_reason_text(c->reason);
		MqPlace		was = {0};
		MqRow		row;
		MqHolder	holder;
		bool		ok;
		bool		expired;

		current = c->id;
		switch (mq_row_look(&r, c->id, &c->tid, &row, &holder))
		{
			case MQ_LOOK_GONE:
				not_written(def, t, c, !mq_xact_wrote(t, c->id));
				continue;
			case MQ_LOOK_HELD:
				not_written(def, t, c, false);
				continue;
			case MQ_LOOK_OK:
				break;
		}
		expired = row.expires_at <= mq_now();
		/* expired when it was chosen, an UPDATE may have given it more time */
		c->spent = expired || (def->policy.max_attempts > 0 &&
							   c->attempts >= def->policy.max_attempts);
		if (row.attempts >= c->attempts && !c->spent)
		{
			written_before(def, t, c, &row.place);
			heap_freetuple(row.tuple);
			continue;
		}
		if (c->spent)
			ok = mq_dead_letter(&r, c->id, &row.place.tid, c->attempts,
								expired ? "expired" : "attempts", error, true, &was);
		else
		{
			/* an UPDATE that is not known here may have put it off */
			if (row.place.timed && row.place.ready_at > mq_now() && row.place.ready_at != c->ready_at)
				c->due = row.place.ready_at;
			ok = mq_row_fail(&r, c->id, &row.place.tid, c->attempts, c->due, error);
		}
		heap_freetuple(row.tuple);
		if (!ok)
		{
			/* a trigger of the owner's kept the row as it is */
			not_written(def, t, c, false);
			continue;
		}
		t->settles.a[c->record].dead = t->settles.a[c->record].row_gone = c->spent;
		t->settles.a[c->record].was = was;
		t->settles.a[c->record].nmoves = t->moves.n;
	}
	mq_reader_done(&r);
	pfree(chosen);
	current = 0;
	return n;
}

/* Writing this one failed; it shall not keep the others. */
static void
defer(Oid relid, int64 id)
{
	int			partition = mq_partition_of(MyDatabaseId, relid);
	MqQueue    *q;
	MqLease    *l;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, relid, NULL);
	l = q ? mq_lease_find(q, id) : NULL;
	if (l)
		l->write_after = mq_time_add(mq_steady(), 10 * USECS_PER_SEC);
	mq_unlock(partition);
}

/* None of them can be written for a while. */
static void
defer_all(Oid relid)
{
	int			partition = mq_partition_of(MyDatabaseId, relid);
	MqQueue    *q;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, relid, NULL);
	if (q)
		q->write_after = mq_time_add(mq_steady(), 10 * USECS_PER_SEC);
	mq_unlock(partition);
}

typedef struct Step
{
	MqDef	   *def;
	Relation	rel;
	int			max;
	bool		only_spent;
	int			n;
} Step;

static void
write_step(void *arg)
{
	Step	   *s = arg;

	s->n = write_some(s->def, s->rel, s->max, s->only_spent);
}

/*
 * The same in a subtransaction; if that fails, one by one, so that a row that
 * can't be written does not keep the others.  Raises nothing for those.
 */
int
mq_retry_write(MqDef *def, Relation rel, int max, bool only_spent)
{
	Step		s = {def, rel, max, only_spent, 0};
	ErrorData  *error;

	switch (mq_try(write_step, &s, &error))
	{
		case MQ_TRY_DONE:
			return s.n;
		case MQ_TRY_FAILED_ALL:
			/* one line is enough */
			ereport(LOG,
					(errmsg("queue \"%s\": could not write the failed deliveries: %s",
							def->name, error->message)));
			defer_all(def->relid);
			FreeErrorData(error);
			return 0;
		case MQ_TRY_FAILED:
			break;
	}
	if (max == 1)
	{
		ereport(LOG,
				(errmsg("queue \"%s\": could not write the failed delivery of message %lld: %s",
						def->name, (long long) current, error->message)));
		defer(def->relid, current);
	}
	FreeErrorData(error);
	if (max > 1)
		for (int i = 0; i < max; i++)
			if (mq_retry_write(def, rel, 1, only_spent) == 0)
				break;
	return 1;
}

/*
 * Without a worker: takes messages without attempts left to the dead letters in
 * the transaction of whoever dequeues.  Returns how many.
 */
int
mq_retry_bury(MqDef *def)
{
	Relation	rel;
	MqDef	   *again;
	int			n;

	if (!ConditionalLockRelationOid(def->relid, RowExclusiveLock))
		return 0;
	rel = mq_queue_try_open(def->name, NoLock, &again);
	if (rel == NULL)
		return 0;
	n = mq_retry_write(again, rel, 100, true);
	relation_close(rel, NoLock);
	return n;
}
