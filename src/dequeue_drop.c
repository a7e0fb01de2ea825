/*-------------------------------------------------------------------------
 * dequeue_drop.c
 *		Making room in a queue that is full: its head is dropped.
 *-------------------------------------------------------------------------
 */
#include "dequeue_private.h"

#include "clock.h"

/* Says that messages were dropped for good, once a second and session. */
static void
log_dropped(MqDef *def, int64 n)
{
	static Oid	relid = InvalidOid;
	static int64 dropped = 0;
	static TimestampTz logged = DT_NOBEGIN;
	TimestampTz steady = mq_steady();

	if (relid != def->relid)
	{
		relid = def->relid;
		dropped = 0;
		logged = DT_NOBEGIN;
	}
	dropped += n;
	if (logged != DT_NOBEGIN && steady - logged < USECS_PER_SEC)
		return;
	logged = steady;
	ereport(LOG,
			(errmsg("queue \"%s\" dropped %lld messages (maxlen): it has no dead-letter queue",
					def->name, (long long) dropped)));
	dropped = 0;
}

/*
 * For a producer that has to make room (length.c): leases up to n ready
 * messages, the oldest of the lowest priority first, and takes them to the dead
 * letters as `maxlen` in this transaction.  Returns how many.
 */
int64
mq_drop_head(MqDef *def, Relation rel, int64 n)
{
	MqDequeue	d = {0};
	Claimer		c = {0};
	MqSettleArgs a = {0};
	int64	   *ids;

	d.max = (int) Min(n, PG_INT32_MAX);
	d.consumer = "";
	c.d = &d;
	c.def = def;
	c.rel = rel;
	c.touch = mq_xact_touch(def->relid);
	c.peek = c.drop = true;
	c.duration = def->policy.lease;
	mq_claim(&c);
	if (c.got < d.max && c.ordered)
	{
		MqQueue    *q = mq_queue_attach(def, rel);
		bool		parked = q->nparked_keys > 0;

		/* what waits behind keys that are held is found by a new scan only */
		if (parked)
			mq_queue_init_lanes(q);
		mq_unlock(q->partition);
		if (parked)
			mq_claim(&c);
	}
	if (c.got == 0)
		return 0;
	ids = palloc(sizeof(int64) * c.got);
	for (int i = 0; i < c.got; i++)
	{
		ids[i] = c.out[i].row.place.id;
		heap_freetuple(c.out[i].row.tuple);
	}
	a.verb = MQ_DROP;
	a.n = c.got;
	a.ids = ids;
	a.receipts = &c.receipt;
	a.one_receipt = true;
	c.got = mq_settle(def, rel, &a);
	if (def->dead_letter[0] == '\0' && c.got > 0)
		log_dropped(def, c.got);
	pfree(ids);
	pfree(c.out);
	return c.got;
}
