/*-------------------------------------------------------------------------
 * publish.c
 *		mq.publish and mq.publish_batch: messages to all the queues that an
 *		exchange routes them to.
 *
 * The messages are checked, routed, and the queues' tables locked (plan.c); then
 * the rows are inserted, a queue at a time, in the order of names.
 *
 * All is done in the caller's transaction: an error anywhere, a full queue's for
 * one, is an error of the whole.  The publisher needs the right to publish to
 * the exchange and none on the queues; the rows come in by the right of each
 * queue's owner, whose triggers and checks run as him (storage.c).  What is
 * published to the default exchange takes INSERT on the queue, like an enqueue.
 */
#include "produce.h"

#include "funcapi.h"
#include "plan.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "worker.h"

MQ_FUNCTION(mq_sql_publish);
MQ_FUNCTION(mq_sql_publish_batch);

/* The messages of one call. */
typedef struct Publish
{
	const char *exchange;
	MqEnqueue	e;
	int			n;
	text	  **keys;
	Jsonb	  **headers;		/* as given; NULL: none */
	MqValues   *values;
	bool		dedup;			/* some have a dedup_id */
	int		   *queues;			/* that got it */
} Publish;

/* 42704 if there is no such exchange, 42501 if the caller may not publish to it. */
static void
route(MqPlan *plan, void *arg)
{
	const Publish *p = arg;
	MqExchange *x = mq_exchange_find(p->exchange, 0);

	if (!mq_exchange_may_publish(x, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for exchange \"%s\"", p->exchange),
				 errhint("Its owner can grant it with mq.grant_exchange.")));
	for (int i = 0; i < p->n; i++)
	{
		const char **queues;
		int			n;

		CHECK_FOR_INTERRUPTS();
		n = mq_route(x, VARDATA_ANY(p->keys[i]), VARSIZE_ANY_EXHDR(p->keys[i]),
					 p->headers[i], 0, &queues);
		mq_plan_add(plan, queues, n, i);
	}
}

static Relation
open_queue(const char *queue, MqDef **def, void *arg)
{
	return mq_queue_try_open(queue, RowExclusiveLock, def);
}

/* Whether the rows may come into this queue: 42501 if not. */
static void
check_right(const Publish *p, MqDef *def)
{
	if (p->exchange[0] == '\0')
		mq_require(def, ACL_INSERT);
	else if (pg_class_aclcheck(def->relid, def->owner, ACL_INSERT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", def->name),
				 errdetail("Its own owner may not insert into it.")));
}

/* The rows of one queue. */
static void
insert(const Publish *p, const MqWay *ways, const MqStop *s)
{
	int			n = s->to - s->from;
	MqValues   *values = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MqValues) * (Size) n);
	int64	   *ids = palloc(sizeof(int64) * n);
	bool	   *inserted = palloc(sizeof(bool) * n);

	/* code of the owners before may have altered it */
	mq_queue_renew(s->def);
	check_right(p, s->def);
	mq_produce_prepare(s->def, s->rel, &p->e);
	for (int i = 0; i < n; i++)
		values[i] = p->values[ways[s->from + i].message];
	mq_produce(s->def, s->rel, &p->e, values, n, p->dedup, ids, inserted);
	for (int i = 0; i < n; i++)
		p->queues[ways[s->from + i].message] += inserted[i];
	relation_close(s->rel, NoLock);
	pfree(inserted);
	pfree(ids);
	pfree(values);
}

static void
not_routed(const Publish *p, int i)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("no queue takes the message, and it is mandatory"),
			 p->exchange[0] != '\0' ?
			 errdetail("Exchange \"%s\" leads nowhere with routing key \"%s\".",
					   p->exchange, text_to_cstring(p->keys[i])) :
			 errdetail("Exchange \"\", the default one, leads to the queue that the routing key names, and there is no queue \"%s\".",
					   text_to_cstring(p->keys[i])),
			 p->exchange[0] != '\0' ? errhint("See mq.bindings for what is bound.") :
			 errhint("Create it with mq.create_queue.")));
}

/* Publishes; p->queues is filled. */
static void
publish(Publish *p, bool mandatory)
{
	bool	   *routed = palloc0(sizeof(bool) * Max(p->n, 1));
	MqPlan		plan;

	mq_plan(&plan, route, open_queue, p);
	for (int i = 0; i < plan.nstops; i++)
		for (int k = plan.stops[i].from; k < plan.stops[i].to; k++)
			routed[plan.ways[k].message] = true;
	for (int i = 0; mandatory && i < p->n; i++)
		if (!routed[i])
			not_routed(p, i);

	for (int i = 0; i < p->n; i++)
	{
		MqValues   *v = &p->values[i];

		v->v[MQ_COL_HEADERS] =
			JsonbPGetDatum(mq_route_headers(p->headers[i], p->exchange, VARDATA_ANY(p->keys[i]),
											VARSIZE_ANY_EXHDR(p->keys[i])));
		v->null[MQ_COL_HEADERS] = false;
		p->queues[i] = 0;
	}
	for (int i = 0; i < plan.nstops; i++)
	{
		CHECK_FOR_INTERRUPTS();
		insert(p, plan.ways, &plan.stops[i]);
	}
}

/* ----------------------------------------------------------- entry points */

static const char *
arg_exchange(FunctionCallInfo fcinfo)
{
	mq_require_preload();
	mq_arg_not_null(fcinfo, 0, "exchange");
	return mq_text_name(PG_GETARG_TEXT_PP(0));
}

/* Checks a message and makes its columns. */
static void
set_message(Publish *p, int i, text *key, const MqMessage *m)
{
	p->keys[i] = key;
	mq_enqueue_values(&p->e, m, &p->values[i]);
	p->headers[i] = m->headers_null ? NULL : DatumGetJsonbP(m->headers);
	p->dedup |= !m->dedup_id_null;
}

Datum
mq_sql_publish(PG_FUNCTION_ARGS)
{
	Publish		p = {.exchange = arg_exchange(fcinfo), .n = 1};
	MqMessage	m;
	MqValues	values;
	text	   *key;
	Jsonb	   *headers;
	int			queues;

	mq_arg_not_null(fcinfo, 1, "routing_key");
	p.e = mq_arg_enqueue(fcinfo, 1, "mq.publish()");
	p.keys = &key;
	p.headers = &headers;
	p.values = &values;
	p.queues = &queues;
	m.body = PG_GETARG_DATUM(2);
	m.body_null = PG_ARGISNULL(2);
	m.headers = PG_GETARG_DATUM(3);
	m.headers_null = PG_ARGISNULL(3);
	m.key = PG_GETARG_DATUM(6);
	m.key_null = PG_ARGISNULL(6);
	m.dedup_id = PG_GETARG_DATUM(7);
	m.dedup_id_null = PG_ARGISNULL(7);
	m.data = PG_GETARG_DATUM(10);
	m.data_null = PG_ARGISNULL(10);
	set_message(&p, 0, PG_GETARG_TEXT_PP(1), &m);
	publish(&p, !PG_ARGISNULL(11) && PG_GETARG_BOOL(11));
	PG_RETURN_INT32(queues);
}

Datum
mq_sql_publish_batch(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Publish		p = {.exchange = arg_exchange(fcinfo)};
	MqArray		keys;
	MqArray		bodies = mq_arg_array(fcinfo, 2, "bodies");
	MqArray		headers = mq_arg_array(fcinfo, 3, "headers");
	MqArray		message_keys = mq_arg_array(fcinfo, 6, "keys");
	MqArray		dedup_ids = mq_arg_array(fcinfo, 7, "dedup_ids");
	MqArray		datas = mq_arg_array(fcinfo, 10, "datas");

	mq_arg_not_null(fcinfo, 1, "routing_keys");
	keys = mq_arg_array(fcinfo, 1, "routing_keys");
	p.n = -1;
	p.e = mq_arg_enqueue(fcinfo, 1, "mq.publish_batch()");
	mq_arg_same_length(&p.n, &keys, "routing_keys");
	mq_arg_same_length(&p.n, &bodies, "bodies");
	mq_arg_same_length(&p.n, &headers, "headers");
	mq_arg_same_length(&p.n, &message_keys, "keys");
	mq_arg_same_length(&p.n, &dedup_ids, "dedup_ids");
	mq_arg_same_length(&p.n, &datas, "datas");

	p.keys = palloc(sizeof(text *) * Max(p.n, 1));
	p.headers = palloc(sizeof(Jsonb *) * Max(p.n, 1));
	p.values = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MqValues) * (Size) Max(p.n, 1));
	p.queues = palloc(sizeof(int) * Max(p.n, 1));
	for (int i = 0; i < p.n; i++)
	{
		MqMessage	m;

		if (keys.null[i])
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("routing_keys must not contain nulls")));
		mq_array_part(&bodies, i, &m.body, &m.body_null);
		mq_array_part(&headers, i, &m.headers, &m.headers_null);
		mq_array_part(&message_keys, i, &m.key, &m.key_null);
		mq_array_part(&dedup_ids, i, &m.dedup_id, &m.dedup_id_null);
		mq_array_part(&datas, i, &m.data, &m.data_null);
		set_message(&p, i, DatumGetTextPP(keys.v[i]), &m);
	}
	publish(&p, !PG_ARGISNULL(11) && PG_GETARG_BOOL(11));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	for (int i = 0; i < p.n; i++)
	{
		Datum		v = Int32GetDatum(p.queues[i]);
		bool		null = false;

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, &v, &null);
	}
	return (Datum) 0;
}
