/*-------------------------------------------------------------------------
 * settle.c
 *		ack, nack, reject, release, extend.
 *
 * 1. Room for the local records is made.
 * 2. In one critical section each delivery is checked (this id, this receipt,
 *	  HELD and not over, or OPEN by this very transaction) and marked SETTLING.
 *	  From here on it does not expire, nobody else can settle it, and a second
 *	  verb in this transaction sees it is taken.
 * 3. The rows are written, waiting like any DELETE or UPDATE for whoever else
 *	  holds them.
 * 4. The transaction's end decides (outcome.c).  An error on the way undoes
 *	  the marks with the (sub)transaction.
 *-------------------------------------------------------------------------
 */
#include "settle.h"

#include "archive.h"
#include "clock.h"
#include "utils/memutils.h"

/* 55000: what strict raises. */
void
mq_not_current(MqDef *def, int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("delivery of message %lld of queue \"%s\" is no longer current",
					(long long) id, def->name),
			 errhint("Its lease has ended or it has been settled; the message may have been delivered again.")));
}

/*
 * The lease this verb may act on, or NULL.  The partition is locked.
 */
static MqLease *
current_lease(MqQueue *q, int64 id, int64 receipt)
{
	MqLease    *l = mq_lease_find(q, id);

	if (l == NULL || l->receipt != receipt)
		return NULL;
	if (l->state == MQ_LEASE_HELD)
		return l;
	if (l->state == MQ_LEASE_OPEN && l->settler == MqMyProcNumber())
		return l;
	return NULL;
}

typedef struct Marked
{
	int			arg;			/* index in the caller's arrays */
	int			record;			/* index in the touch's settles */
	int64		id;
	ItemPointerData tid;
	int32		attempts;
	const char *reason;			/* of the failure before, if the row does not say */
	char		consumer[NAMEDATALEN];	/* if the queue has an archive */
} Marked;

/* Step 2.  Returns how many were marked. */
static int
mark(MqDef *def, MqTouch *t, const MqSettleArgs *a, Marked *marked)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	SubTransactionId sub = GetCurrentSubTransactionId();
	MqQueue    *q;
	int			n = 0;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q)
	{
		if (q->deadlines)
			mq_lease_expire(q, mq_steady());
		for (int i = 0; i < a->n; i++)
		{
			int64		receipt = a->receipts[a->one_receipt ? 0 : i];
			MqLease    *l;
			MqSettle   *s;
			Marked	   *m;

			if (a->id_nulls && a->id_nulls[i])
				continue;
			l = current_lease(q, a->ids[i], receipt);
			if (l == NULL)
				continue;
			m = &marked[n++];
			m->arg = i;
			m->record = t->settles.n;
			m->id = l->id;
			m->attempts = l->attempts;
			m->tid = mq_lease_place(l).tid;
			m->reason = l->unwritten ? mq_reason_text(l->reason) : NULL;
			if (def->archived)
				memcpy(m->consumer, l->consumer, NAMEDATALEN);
			s = &t->settles.a[t->settles.n++];
			s->lease = l;
			s->id = l->id;
			s->receipt = receipt;
			s->verb = a->verb;
			s->claim = -1;
			s->dead = s->row_gone = false;
			s->sub = sub;
			if (l->state == MQ_LEASE_OPEN)
			{
				s->claim = l->claim;
				t->claims.a[l->claim].settled = true;
			}
			mq_lease_settling(l, a->verb);
			l->settler = MqMyProcNumber();
		}
	}
	mq_unlock(partition);
	return n;
}

static int
compare_marked(const void *a, const void *b)
{
	int64		ia = ((const Marked *) a)->id;
	int64		ib = ((const Marked *) b)->id;

	return ia < ib ? -1 : ia > ib;
}

/*
 * Raises 55000 unless all were settled; one named twice was, if it was the
 * first time.  Sorts marked.
 */
static void
require_settled(MqDef *def, const MqSettleArgs *a, Marked *marked, int n)
{
	qsort(marked, n, sizeof(Marked), compare_marked);
	for (int i = 0; i < a->n; i++)
	{
		Marked		key = {.id = a->ids[i]};
		Marked	   *m;

		if (a->settled[i])
			continue;
		m = a->id_nulls && a->id_nulls[i] ? NULL :
			bsearch(&key, marked, n, sizeof(Marked), compare_marked);
		if (m == NULL || !a->settled[m->arg] ||
			a->receipts[a->one_receipt ? 0 : i] != a->receipts[a->one_receipt ? 0 : m->arg])
			mq_not_current(def, a->ids[i]);
	}
}

/* The shared mark has to agree with the record, should we be prepared. */
static void
mark_release(MqDef *def, int64 id)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	MqQueue    *q;
	MqLease    *l;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	l = q ? mq_lease_find(q, id) : NULL;
	if (l && l->state == MQ_LEASE_SETTLING && l->settler == MqMyProcNumber())
		l->verb = MQ_RELEASE;
	mq_unlock(partition);
}

/*
 * Settles deliveries of one queue, whose table is locked with
 * RowExclusiveLock.  Returns how many were current; with strict raises 55000
 * unless all were.  Waits for locks on the messages' rows.
 */
int
mq_settle(MqDef *def, Relation rel, const MqSettleArgs *a)
{
	MqTouch    *t;
	Marked	   *marked;
	MqReader	r;
	int			n;
	int			done = 0;
	MemoryContext row_context;
	const bool	keep = a->verb == MQ_ACK && def->archived;
	MqArchive	archive;

	if (a->n == 0)
		return 0;
	t = mq_xact_touch(def->relid);
	t->hint = def->hint;
	marked = palloc(sizeof(Marked) * a->n);
	mq_array_reserve(t->settles, a->n);
	n = mark(def, t, a, marked);

	if (keep && n > 0)
		mq_archive_open(&archive, def);
	mq_reader_init(&r, def, rel);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "mq settle", ALLOCSET_SMALL_SIZES);
	for (int i = 0; i < n; i++)
	{
		Marked	   *m = &marked[i];
		MemoryContext old = MemoryContextSwitchTo(row_context);
		int32		attempts = m->attempts + 1;
		const char *reason = a->reason ? a->reason : m->reason;
		bool		ok = true;
		bool		dead = false;
		bool		gone = false;
		MqValues	row;
		MqPlace		was = {0};

		switch (a->verb)
		{
			case MQ_ACK:
				ok = gone = mq_row_delete(&r, m->id, &m->tid, &was, keep ? &row : NULL);
				if (ok && keep)
					mq_archive_row(&archive, &row, m->consumer);
				break;
			case MQ_NACK:
				if (def->policy.max_attempts > 0 && attempts >= def->policy.max_attempts)
					ok = dead = gone = mq_dead_letter(&r, m->id, &m->tid, attempts,
													  "attempts", reason, false, &was);
				else
					ok = mq_row_fail(&r, m->id, &m->tid, attempts,
									 mq_time_add(mq_now(), a->has_delay ? a->delay :
												 mq_backoff(&def->policy, attempts)),
									 reason);
				break;
			case MQ_REJECT:
				ok = dead = gone = mq_dead_letter(&r, m->id, &m->tid, attempts,
												  "rejected", reason, false, &was);
				break;
			case MQ_RELEASE:
				break;
			case MQ_DROP:
				ok = dead = gone = mq_dead_letter(&r, m->id, &m->tid, m->attempts,
												  "maxlen", NULL, false, &was);
				break;
		}
		/* a trigger may have settled others: the array may have moved */
		t->settles.a[m->record].dead = dead;
		t->settles.a[m->record].row_gone = gone;
		t->settles.a[m->record].was = was;
		t->settles.a[m->record].nmoves = t->moves.n;
		if (!ok)
		{
			/*
			 * Gone already, or a trigger of the owner's kept the row as it is:
			 * back in its place, where the next look knows which.
			 */
			t->settles.a[m->record].verb = MQ_RELEASE;
			mark_release(def, m->id);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(row_context);
		if (ok)
			done++;
		if (a->settled)
			a->settled[m->arg] = ok;
	}
	mq_reader_done(&r);
	if (keep && n > 0)
		mq_archive_close(&archive);
	MemoryContextDelete(row_context);
	if (a->strict && done < a->n)
		require_settled(def, a, marked, n);
	pfree(marked);
	return done;
}

/*
 * Lets leases last for `duration` microseconds from now (from the commit, for
 * those taken by this transaction).  Acts at once, not at commit.  Returns how
 * many were current.
 */
int
mq_extend(MqDef *def, Relation rel, const MqSettleArgs *a, int64 duration)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	TimestampTz steady = mq_steady();
	TimestampTz until = mq_time_add(steady, duration);
	MqQueue    *q;
	int			done = 0;
	int64		failed_id = 0;
	bool		failed = false;

	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q)
		mq_lease_expire(q, steady);
	if (q && a->strict)
		for (int i = 0; i < a->n && !failed; i++)
		{
			failed = (a->id_nulls && a->id_nulls[i]) ||
				current_lease(q, a->ids[i], a->receipts[a->one_receipt ? 0 : i]) == NULL;
			failed_id = a->ids[i];
		}
	if (q == NULL && a->strict && a->n > 0)
	{
		failed = true;
		failed_id = a->ids[0];
	}
	for (int i = 0; q && !failed && i < a->n; i++)
	{
		MqLease    *l;

		if (a->id_nulls && a->id_nulls[i])
			continue;
		l = current_lease(q, a->ids[i], a->receipts[a->one_receipt ? 0 : i]);
		if (l == NULL || (l->until == until && l->duration == duration))
			continue;			/* not current, or named twice */
		mq_lease_clear_timer(l);
		l->session = false;
		l->duration = duration;
		l->until = until;
		mq_lease_set_timer(l);
		if (a->settled)
			a->settled[i] = true;
		done++;
	}
	mq_unlock(partition);
	if (failed)
		mq_not_current(def, failed_id);
	mq_worker_poke(until);
	return done;
}
