/*-------------------------------------------------------------------------
 * length.c
 *		Queues of limited length.
 *
 * max_length counts the messages of committed rows but for those that a
 * committed dequeue has leased (mq_count_length).  What an open transaction has
 * dequeued or acked still counts: its rollback brings back nothing that was not
 * counted.  Only what comes back from a lease can stand above the limit, until
 * it is consumed.
 *
 * A producer reserves its places before it inserts, under the partition's lock:
 *		length + reserved + n <= max_length
 * and notes them with its subtransaction (MqReserve).  The end of that gives
 * them back: at commit in the critical section that counts the rows, so that a
 * place is never both or neither; at abort, of a savepoint too, alone; PREPARE
 * hands them to the MqPrepared until the transaction has ended.  A row becomes
 * visible before its place turns from reserved into counted, never after, and
 * a consumed row is gone before its place is free: the committed rows never
 * exceed the limit.  Producers meet only for that short moment; those of queues
 * without limit not at all.
 *
 * With drop_head a producer that finds no place takes one ready message to the
 * dead letters for each that it lacks, in its own transaction, leased like any
 * claim so that nobody else has it (dequeue_drop.c mq_drop_head).  Until it commits
 * they count, so they make room for its own rows only, and need no reservation:
 * at its commit they leave as its rows come.
 *
 * The count must be true.  After a crash, or when the slot had gone to another
 * queue, whoever enqueues first walks the table (mq_maint_recount); so does the
 * first after a TRUNCATE, and after a restart with prepared transactions, whose
 * rows are found and reserved.  A slot with reservations keeps its queue.
 */
#include "length.h"

#include "miscadmin.h"

#define COUNT_TRIES	200

static void
full(MqDef *def, int64 n)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("queue \"%s\" is full: its max_length is %lld", def->name,
					(long long) def->max_length),
			 n > def->max_length ?
			 errdetail("%lld messages at once are more than it takes.", (long long) n) :
			 def->drop_head ?
			 errdetail("There are not enough ready messages to drop.") : 0,
			 errhint("Consume messages, or raise max_length with mq.alter_queue.")));
}

/* Sees to it that the rows are counted. */
static void
count(MqDef *def, Relation rel)
{
	for (int tries = 0; tries < COUNT_TRIES; tries++)
	{
		MqQueue    *q;
		bool		exact;

		CHECK_FOR_INTERRUPTS();
		/* others may be at it, or have written too much meanwhile */
		if (tries > 0)
			pg_usleep(10000);
		mq_maint_recount(def, rel);
		q = mq_queue_attach(def, rel);
		exact = q->n.rows_exact;
		mq_unlock(q->partition);
		if (exact)
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("the messages of queue \"%s\" could not be counted", def->name),
			 errhint("Too much is written to it, or other queues are being counted; try again.")));
}

/*
 * Takes n places for rows about to be inserted by this (sub)transaction, or
 * with drop_head makes room for them.  rel is locked with RowExclusiveLock.
 * Raises 53400 if there are not that many; what it did until then goes with the
 * (sub)transaction.  Does nothing for queues without max_length.
 */
void
mq_length_reserve(MqDef *def, Relation rel, int64 n)
{
	SubTransactionId sub = GetCurrentSubTransactionId();
	MqTouch    *t;
	MqReserve  *r;
	MqQueue    *q;
	int64		room;
	int64		lack;
	int64		excess;

	if (def->max_length == 0 || n == 0)
		return;
	if (n > def->max_length)
		full(def, n);
	t = mq_xact_touch(def->relid);
	mq_array_reserve(t->reserves, 1);
	for (;;)
	{
		q = mq_queue_attach(def, rel);
		if (q->n.rows_exact)
			break;
		mq_unlock(q->partition);
		count(def, rel);
	}
	t->hint = q;
	room = def->max_length - mq_count_length(q) - q->reserved;
	lack = n - Min(Max(room, 0), n);
	/* above a limit that was lowered: down to it by and by */
	excess = room < 0 ? Min(-room, n) : 0;
	if (lack > 0 && !def->drop_head)
	{
		mq_unlock(q->partition);
		full(def, n);
	}
	if (n > lack)
	{
		q->reserved += n - lack;
		r = t->reserves.n > 0 ? &t->reserves.a[t->reserves.n - 1] : NULL;
		if (r && r->sub == sub)
			r->n += n - lack;
		else
		{
			r = &t->reserves.a[t->reserves.n++];
			r->n = n - lack;
			r->sub = sub;
		}
	}
	mq_unlock(q->partition);
	if (lack > 0 && mq_drop_head(def, rel, lack + excess) < lack)
		full(def, n);
}
