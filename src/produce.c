/*-------------------------------------------------------------------------
 * produce.c
 *		What enqueue and publish have in common: messages into a queue.
 *-------------------------------------------------------------------------
 */
#include "produce.h"

#include "dedup.h"
#include "expiry.h"
#include "length.h"
#include "worker.h"

/*
 * Before messages are put into a queue whose table is locked with
 * RowExclusiveLock, the caller's rights being checked: raises 22023 if the queue
 * takes none like these.
 */
void
mq_produce_prepare(MqDef *def, Relation rel, const MqEnqueue *e)
{
	if (def->ordered)
		mq_require_no_place(def, (MqPlace) {.priority = e->priority, .timed = e->timed});
	mq_queue_expect(def, rel);
	mq_worker_ensure();
}

/*
 * Puts n messages into a queue; their columns as mq_enqueue_values made them are
 * changed.  dedup says that some may have a dedup_id; ids and inserted as in
 * mq_dedup_insert.  Raises 53400 if the queue is full, and what its owner's code
 * raises.  Waits for transactions that have enqueued with one of the dedup_ids.
 */
void
mq_produce(MqDef *def, Relation rel, const MqEnqueue *e, MqValues *values,
		   int n, bool dedup, int64 *ids, bool *inserted)
{
	for (int i = 0; i < n; i++)
		mq_expiry_values(def, e->ttl, &values[i]);
	if (n == 0)
		return;
	if (dedup)
		mq_dedup_insert(def, rel, values, n, ids, inserted, mq_length_reserve);
	else
	{
		mq_length_reserve(def, rel, n);
		if (n == 1)
			inserted[0] = mq_row_insert(def, rel, values, ids);
		else
			mq_rows_insert(def, rel, values, n, ids, inserted);
	}
}
