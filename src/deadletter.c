/*-------------------------------------------------------------------------
 * deadletter.c
 *		The way of a message to the dead letters: deleted here, inserted there,
 *		in one transaction, with one more entry in header x-death.
 *
 * It goes to the queue's dead-letter queue or, if the queue has a dead-letter
 * exchange, to the queues that this routes it to; to the dead-letter queue if
 * that is none.  All of it is done with the rights of the queue's owner: he
 * must be allowed to publish to the exchange, or to insert into the queue.  The
 * queues behind an exchange get it by their own owners' rights (route.c).
 *
 * Queues and exchanges can form a circle.  A message that comes back to a queue
 * in which it has died, and was rejected nowhere on the way, would go round for
 * ever without anybody having wanted it so: that queue does not get it, and if
 * no other one does it is dropped and logged.  The rule is RabbitMQ's, whose
 * delivery limit is our `attempts`.
 */
#include "deadletter.h"

#include "clock.h"
#include "expiry.h"
#include "plan.h"
#include "utils/builtins.h"

/* Messages that died together. */
typedef struct Deaths
{
	MqDef	   *def;			/* where */
	int			n;
	int64	   *ids;			/* that they had there */
	MqValues   *values;
	const char *reason;
	int32	   *attempts;		/* failed ones, this one included */
	bool		nowait;
} Deaths;

static JsonbValue
json_text(const char *s)
{
	return mq_json_string(s, strlen(s));
}

/* The headers with this death in front of those before. */
static Jsonb *
add_death(Jsonb *headers, const char *queue, int64 id, const char *reason,
		  int32 attempts, const char *error)
{
	JsonbValue	null_value = {.type = jbvNull};
	MqHeader	death[] = {
		{"queue", json_text(queue), false},
		{"id", mq_json_int(id), false},
		{"reason", json_text(reason), false},
		{"attempts", mq_json_int(attempts), false},
		{"at", json_text(pstrdup(timestamptz_to_str(mq_now()))), false},
		{"error", error ? json_text(error) : null_value, false}
	};
	MqHeader	x_death = {"x-death", mq_json_value(mq_json_object(death, lengthof(death))), true};

	return mq_headers_set(headers, &x_death, 1);
}

/* A message's columns as a dead letter, but for when it expires; error may be NULL. */
static void
make_dead(MqDef *def, int64 id, MqValues *values, int32 attempts,
		  const char *reason, const char *error)
{
	if (error == NULL && !values->null[MQ_COL_LAST_ERROR] &&
		DatumGetInt32(values->v[MQ_COL_ATTEMPTS]) > 0)
		error = TextDatumGetCString(values->v[MQ_COL_LAST_ERROR]);
	values->v[MQ_COL_HEADERS] =
		JsonbPGetDatum(add_death(values->null[MQ_COL_HEADERS] ? NULL :
								 DatumGetJsonbP(values->v[MQ_COL_HEADERS]),
								 def->name, id, reason, attempts, error));
	values->null[MQ_COL_HEADERS] = false;
	values->null[MQ_COL_ID] = true;	/* it gets one of the other queue's */
	values->v[MQ_COL_ENQUEUED_AT] = TimestampTzGetDatum(mq_now());
	values->v[MQ_COL_ATTEMPTS] = Int32GetDatum(0);
	values->null[MQ_COL_READY_AT] = true;
	values->v[MQ_COL_LAST_ERROR] = error ? CStringGetTextDatum(error) : (Datum) 0;
	values->null[MQ_COL_LAST_ERROR] = error == NULL;
}

/* n of them, the first one being i, are lost for this reason. */
static void
log_dropped(const Deaths *d, int n, int i, const char *why)
{
	if (n == 1)
		ereport(LOG,
				(errmsg("queue \"%s\" dropped message %lld after %d attempts (%s): %s",
						d->def->name, (long long) d->ids[i], d->attempts[i], d->reason, why)));
	else
		ereport(LOG,
				(errmsg("queue \"%s\" dropped %d messages (%s): %s",
						d->def->name, n, d->reason, why)));
}

/* ---------------------------------------------------------------- circles */

static bool
is_text(const JsonbValue *v, const char *s)
{
	return v && v->type == jbvString && (size_t) v->val.string.len == strlen(s) &&
		memcmp(v->val.string.val, s, v->val.string.len) == 0;
}

/*
 * Whether a message with these headers, its last death among them, has died in
 * this queue before and has not been rejected since.
 */
static bool
is_circle(Jsonb *headers, const char *queue)
{
	JsonbValue	deaths;
	JsonbIterator *it;
	JsonbIteratorToken tok;
	JsonbValue	v;

	if (getKeyJsonValueFromContainer(&headers->root, "x-death", 7, &deaths) == NULL)
		return false;
	it = JsonbIteratorInit(deaths.val.binary.data);
	(void) JsonbIteratorNext(&it, &v, true);
	while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_END_ARRAY)
	{
		JsonbContainer *death = v.type == jbvBinary ? v.val.binary.data : NULL;

		if (death == NULL || !JsonContainerIsObject(death))
			return false;		/* written by somebody else */
		if (is_text(getKeyJsonValueFromContainer(death, "reason", 6, NULL), "rejected"))
			return false;
		if (is_text(getKeyJsonValueFromContainer(death, "queue", 5, NULL), queue))
			return true;
	}
	return false;
}

/* ------------------------------------------------------------------- ways */

/*
 * A queue that dead messages go to, its table locked; NULL if there is no such
 * one.  With nowait raises 55P03 rather than wait for the table.  42501 if the
 * owner of the queue they died in, or if an exchange leads there that queue's
 * own, may not insert.
 */
static Relation
open_dead(const Deaths *d, const char *name, bool routed, MqDef **dead)
{
	Relation	rel;
	Oid			role;

	if (d->nowait && !mq_queue_lock_nowait(name, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("dead-letter queue \"%s\" is locked", name)));
	rel = mq_queue_try_open(name, RowExclusiveLock, dead);
	if (rel == NULL)
		return NULL;
	role = routed ? (*dead)->owner : d->def->owner;
	if (pg_class_aclcheck((*dead)->relid, role, ACL_INSERT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", (*dead)->name),
				 routed ? errdetail("Its own owner may not insert into it.") :
				 errdetail("The owner of queue \"%s\" may not insert into its dead-letter queue.",
						   d->def->name)));
	mq_queue_expect(*dead, rel);
	return rel;
}

/* Inserts those that these ways lead to one queue, which is open. */
static void
insert_dead(const Deaths *d, MqDef *dead, Relation rel, const MqWay *ways, int n)
{
	MqValues   *values = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MqValues) * (Size) n);
	int64	   *ids = palloc(sizeof(int64) * n);
	bool	   *inserted = palloc(sizeof(bool) * n);
	int			dropped = 0;
	int			which = 0;

	for (int i = 0; i < n; i++)
	{
		values[i] = d->values[ways[i].message];
		mq_expiry_values(dead, 0, &values[i]);
	}
	mq_rows_insert(dead, rel, values, n, ids, inserted);
	for (int i = n - 1; i >= 0; i--)
		if (!inserted[i])
		{
			dropped++;
			which = ways[i].message;
		}
	if (dropped > 0)
		log_dropped(d, dropped, which,
					psprintf("a trigger on queue \"%s\" suppressed %s", dead->name,
							 dropped == 1 ? "it" : "them"));
	pfree(inserted);
	pfree(ids);
	pfree(values);
}

/* Those of these ways that the dead-letter queue takes, all of one queue's. */
static void
to_dead_letter_queue(const Deaths *d, const MqWay *ways, int n)
{
	MqDef	   *dead;
	Relation	rel = d->def->dead_letter[0] ?
		open_dead(d, d->def->dead_letter, false, &dead) : NULL;

	if (rel)
	{
		insert_dead(d, dead, rel, ways, n);
		relation_close(rel, NoLock);
	}
	else if (d->def->dead_published)
		log_dropped(d, n, ways[0].message,
					psprintf("no queue is bound for them to exchange \"%s\", and it has no dead-letter queue",
							 d->def->dead_exchange));
	else if (strcmp(d->reason, "maxlen") != 0)	/* a producer sums them up (dequeue_drop.c) */
		log_dropped(d, n, ways[0].message, "it has no dead-letter queue");
}

/* What becomes of one that is published. */
typedef enum Fate
{
	FATE_LEFT,					/* nothing takes it */
	FATE_TAKEN,
	FATE_CIRCLE
} Fate;

/* Messages that are published to their queue's dead-letter exchange. */
typedef struct Letters
{
	const Deaths *d;
	const char *exchange;
	const char *key;
	Fate	   *fates;
} Letters;

/* Where the exchange leads them, circles left out.  42501 if the owner may not publish. */
static void
route_dead(MqPlan *plan, void *arg)
{
	const Letters *l = arg;
	const Deaths *d = l->d;
	int			nowait = d->nowait ? MQ_NOWAIT : 0;
	MqExchange *x = mq_exchange_find(l->exchange, MQ_MISSING_OK | nowait);

	if (x && !mq_exchange_may_publish(x, d->def->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for exchange \"%s\"", l->exchange),
				 errdetail("The owner of queue \"%s\" may not publish to its dead-letter exchange.",
						   d->def->name)));
	for (int i = 0; i < d->n; i++)
	{
		Jsonb	   *headers = DatumGetJsonbP(d->values[i].v[MQ_COL_HEADERS]);
		const char **queues;
		int			routed = x ? mq_route(x, l->key, strlen(l->key), headers, nowait, &queues) : 0;
		int			n = 0;

		for (int k = 0; k < routed; k++)
			if (!is_circle(headers, queues[k]))
				queues[n++] = queues[k];
		if (n > 0)
			mq_plan_add(plan, queues, n, i);
		l->fates[i] = routed > 0 && n == 0 ? FATE_CIRCLE : FATE_LEFT;
	}
}

static Relation
open_target(const char *queue, MqDef **dead, void *arg)
{
	const Letters *l = arg;

	return open_dead(l->d, queue, l->exchange[0] != '\0', dead);
}

/*
 * The headers of a dead letter that is published.  Where it was published before
 * it died for the first time stays in two headers of their own.
 */
static Jsonb *
published(Jsonb *headers, const char *exchange, const char *key)
{
	MqHeader	first[2] = {
		{"x-first-death-exchange", {0}, false},
		{"x-first-death-routing-key", {0}, false}
	};

	if (getKeyJsonValueFromContainer(&headers->root, "x-exchange", 10, &first[0].value) &&
		getKeyJsonValueFromContainer(&headers->root, "x-routing-key", 13, &first[1].value) &&
		!getKeyJsonValueFromContainer(&headers->root, first[0].name, strlen(first[0].name), NULL))
		headers = mq_headers_set(headers, first, 2);
	return mq_route_headers(headers, exchange, key, strlen(key));
}

/* Publishes them to the queue's dead-letter exchange. */
static void
to_exchange(const Deaths *d)
{
	Letters		l = {.d = d,
		.exchange = pstrdup(d->def->dead_exchange),
		.key = pstrdup(d->def->dead_key ? d->def->dead_key : d->def->name),
		.fates = palloc(sizeof(Fate) * d->n)};
	MqWay	   *rest = palloc(sizeof(MqWay) * d->n);
	MqPlan		plan;
	int			left = 0;
	int			circles = 0;
	int			circle = 0;

	mq_plan(&plan, route_dead, open_target, &l);
	for (int i = 0; i < d->n; i++)
		d->values[i].v[MQ_COL_HEADERS] =
			JsonbPGetDatum(published(DatumGetJsonbP(d->values[i].v[MQ_COL_HEADERS]),
									 l.exchange, l.key));
	for (int i = 0; i < plan.nstops; i++)
	{
		const MqStop *s = &plan.stops[i];

		/* code of the owners before may have altered it */
		mq_queue_renew(s->def);
		insert_dead(d, s->def, s->rel, &plan.ways[s->from], s->to - s->from);
		relation_close(s->rel, NoLock);
		for (int k = s->from; k < s->to; k++)
			l.fates[plan.ways[k].message] = FATE_TAKEN;
	}
	for (int i = d->n - 1; i >= 0; i--)
		if (l.fates[i] == FATE_CIRCLE)
		{
			circle = i;
			circles++;
		}
	for (int i = 0; i < d->n; i++)
		if (l.fates[i] == FATE_LEFT)
			rest[left++] = (MqWay) {NULL, i};
	if (left > 0)
		to_dead_letter_queue(d, rest, left);
	if (circles > 0)
		log_dropped(d, circles, circle,
					psprintf("exchange \"%s\" leads back where it has died, and it was rejected nowhere",
							 l.exchange));
}

/* What has died goes where it belongs. */
static void
bury(const Deaths *d)
{
	if (d->def->dead_published)
		to_exchange(d);
	else
	{
		MqWay	   *ways = palloc0(sizeof(MqWay) * d->n);

		for (int i = 0; i < d->n; i++)
			ways[i].message = i;
		to_dead_letter_queue(d, ways, d->n);
		pfree(ways);
	}
}

/*
 * Moves message id, leased by the caller, to the dead letters with the rights
 * of its queue's owner; with none it is dropped and logged.  error may be NULL;
 * where the message stood goes to *was.
 * Raises what the insert raises, 42501 if the owner may not send there.  Waits
 * for whoever holds the row; with nowait not for the tables of the queues it
 * goes to (55P03).  False if it is gone.
 */
bool
mq_dead_letter(MqReader *r, int64 id, ItemPointer tid, int32 attempts,
			   const char *reason, const char *error, bool nowait, MqPlace *was)
{
	MqValues	values;
	Deaths		d = {.def = r->def, .n = 1, .ids = &id, .values = &values,
		.reason = reason, .attempts = &attempts, .nowait = nowait};

	if (!mq_row_delete(r, id, tid, was, &values))
		return false;
	make_dead(r->def, id, &values, attempts, reason, error);
	bury(&d);
	return true;
}

/*
 * The same for n messages that the caller has just deleted; values as they
 * were, their ids included.  Waits for nobody's lock on a table (55P03).
 */
void
mq_dead_letters(MqDef *def, MqValues *values, int n, const char *reason)
{
	Deaths		d = {.def = def, .n = n, .values = values, .reason = reason, .nowait = true};

	if (n == 0)
		return;
	d.ids = palloc(sizeof(int64) * n);
	d.attempts = palloc(sizeof(int32) * n);
	for (int i = 0; i < n; i++)
	{
		d.ids[i] = DatumGetInt64(values[i].v[MQ_COL_ID]);
		d.attempts[i] = DatumGetInt32(values[i].v[MQ_COL_ATTEMPTS]);
		make_dead(def, d.ids[i], &values[i], d.attempts[i], reason, NULL);
	}
	bury(&d);
}
