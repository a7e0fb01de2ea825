/*-------------------------------------------------------------------------
 * enqueue.c
 *		Validates messages and gives them their columns.
 *-------------------------------------------------------------------------
 */
#include "enqueue.h"

#include "access/detoast.h"
#include "access/xlog.h"
#include "clock.h"
#include "tcop/utility.h"

/* 25006 on a standby or in a read-only transaction. */
void
mq_check_writable(const char *verb)
{
	PreventCommandDuringRecovery(verb);
	PreventCommandIfReadOnly(verb);
	PreventCommandIfParallelMode(verb);
}

static void
invalid(const char *msg)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s", msg)));
}

/*
 * In an ordered queue ids alone say what comes first: raises 22023 for a
 * message that asks for another place.
 */
void
mq_require_no_place(MqDef *def, MqPlace place)
{
	if (place.priority != 0 || place.timed)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("queue \"%s\" is ordered and takes no priority, delay or deliver_at", def->name),
				 errhint("Messages of an ordered queue are delivered in the order in which they were enqueued.")));
}

/*
 * The row's columns, but for its id.  Raises 22023 for what may not be a
 * message.
 */
void
mq_enqueue_values(const MqEnqueue *e, const MqMessage *m, MqValues *values)
{
	memset(values->null, true, sizeof(values->null));

	if (!m->body_null && !m->data_null)
		invalid("a message has either body or data, not both");
	if (!m->headers_null)
	{
		Jsonb	   *headers = DatumGetJsonbP(m->headers);

		if (!JB_ROOT_IS_OBJECT(headers))
			invalid("headers must be a JSON object");
	}
	if (!m->key_null && toast_raw_datum_size(m->key) - VARHDRSZ > MQ_TEXT_KEY_MAX)
		invalid("key is longer than 1000 bytes");
	if (!m->dedup_id_null && toast_raw_datum_size(m->dedup_id) - VARHDRSZ > MQ_TEXT_KEY_MAX)
		invalid("dedup_id is longer than 1000 bytes");

	values->v[MQ_COL_ENQUEUED_AT] = TimestampTzGetDatum(mq_now());
	values->null[MQ_COL_ENQUEUED_AT] = false;
	values->v[MQ_COL_ATTEMPTS] = Int32GetDatum(0);
	values->null[MQ_COL_ATTEMPTS] = false;
	values->v[MQ_COL_PRIORITY] = Int16GetDatum(e->priority);
	values->null[MQ_COL_PRIORITY] = false;
	values->v[MQ_COL_READY_AT] = TimestampTzGetDatum(e->ready_at);
	values->null[MQ_COL_READY_AT] = !e->timed;
	values->v[MQ_COL_KEY] = m->key;
	values->null[MQ_COL_KEY] = m->key_null;
	values->v[MQ_COL_DEDUP_ID] = m->dedup_id;
	values->null[MQ_COL_DEDUP_ID] = m->dedup_id_null;
	values->v[MQ_COL_HEADERS] = m->headers;
	values->null[MQ_COL_HEADERS] = m->headers_null;
	values->v[MQ_COL_BODY] = m->body;
	values->null[MQ_COL_BODY] = m->body_null;
	values->v[MQ_COL_DATA] = m->data;
	values->null[MQ_COL_DATA] = m->data_null;
}
