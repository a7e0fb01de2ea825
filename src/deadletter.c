/*-------------------------------------------------------------------------
 * deadletter.c
 *		The way of a message to the dead letters: deleted here, inserted there,
 *		in one transaction, with one more entry in header x-death.
 *-------------------------------------------------------------------------
 */
#include "deadletter.h"

#include "clock.h"
#include "expiry.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

static JsonbValue
json_string(const char *s)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = (char *) s;
	v.val.string.len = strlen(s);
	return v;
}

static void
push_pair(JsonbParseState **state, const char *key, JsonbValue value)
{
	JsonbValue	k = json_string(key);

	pushJsonbValue(state, WJB_KEY, &k);
	pushJsonbValue(state, WJB_VALUE, &value);
}

static JsonbValue
json_int(int64 n)
{
	JsonbValue	v;

	v.type = jbvNumeric;
	v.val.numeric = int64_to_numeric(n);
	return v;
}

/* The headers with this death in front of those before. */
static Jsonb *
add_death(Jsonb *headers, const char *queue, int64 id, const char *reason,
		  int32 attempts, const char *error)
{
	JsonbParseState *state = NULL;
	JsonbValue	k = json_string("x-death");
	JsonbValue	null_value = {.type = jbvNull};
	JsonbValue *before = NULL;
	JsonbValue *result;
	JsonbIterator *it;
	JsonbIteratorToken tok;
	JsonbValue	v;
	char	   *at = pstrdup(timestamptz_to_str(mq_now()));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (headers && JB_ROOT_IS_OBJECT(headers))
	{
		before = findJsonbValueFromContainer(&headers->root, JB_FOBJECT, &k);
		it = JsonbIteratorInit(&headers->root);
		(void) JsonbIteratorNext(&it, &v, true);
		while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_END_OBJECT)
		{
			bool		skip = tok == WJB_KEY && v.val.string.len == k.val.string.len &&
				memcmp(v.val.string.val, k.val.string.val, v.val.string.len) == 0;

			if (skip)
			{
				(void) JsonbIteratorNext(&it, &v, true);
				continue;
			}
			pushJsonbValue(&state, tok, &v);
		}
	}
	pushJsonbValue(&state, WJB_KEY, &k);
	pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	push_pair(&state, "queue", json_string(queue));
	push_pair(&state, "id", json_int(id));
	push_pair(&state, "reason", json_string(reason));
	push_pair(&state, "attempts", json_int(attempts));
	push_pair(&state, "at", json_string(at));
	push_pair(&state, "error", error ? json_string(error) : null_value);
	pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	if (before && before->type == jbvBinary &&
		JsonContainerIsArray(before->val.binary.data))
	{
		it = JsonbIteratorInit(before->val.binary.data);
		(void) JsonbIteratorNext(&it, &v, true);
		while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_END_ARRAY)
			pushJsonbValue(&state, tok, &v);
	}
	pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	result = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(result);
}

/*
 * This queue's dead-letter queue, its table locked; NULL if it has none.  With
 * nowait raises 55P03 rather than wait for the table; 42501 if this queue's
 * owner may not insert there.
 */
static Relation
open_dead(MqDef *def, bool nowait, MqDef **dead)
{
	Relation	rel;

	if (nowait && def->dead_letter[0] &&
		(*dead = mq_def_lookup(def->dead_letter, true)) != NULL &&
		!ConditionalLockRelationOid((*dead)->relid, RowExclusiveLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("dead-letter queue \"%s\" is locked", (*dead)->name)));
	rel = def->dead_letter[0] ? mq_queue_try_open(def->dead_letter, RowExclusiveLock, dead) : NULL;
	if (rel == NULL)
		return NULL;
	if (pg_class_aclcheck((*dead)->relid, def->owner, ACL_INSERT) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", (*dead)->name),
				 errdetail("The owner of queue \"%s\" may not insert into its dead-letter queue.", def->name)));
	mq_queue_expect(*dead, rel);
	return rel;
}

/* A message's columns as a dead letter; error may be NULL. */
static void
make_dead(MqDef *def, MqDef *dead, int64 id, MqValues *values, int32 attempts,
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
	mq_expiry_values(dead, 0, values);
	values->v[MQ_COL_LAST_ERROR] = error ? CStringGetTextDatum(error) : (Datum) 0;
	values->null[MQ_COL_LAST_ERROR] = error == NULL;
}

/*
 * Moves message id, leased by the caller, to its queue's dead-letter queue
 * with the rights of this queue's owner; without one it is dropped and logged.
 * error may be NULL.  Raises what the insert raises, 42501 if the owner may
 * not insert there.  Waits for whoever holds the row; with nowait not for the
 * dead-letter queue's table (55P03).  False if it is gone.
 */
bool
mq_dead_letter(MqReader *r, int64 id, ItemPointer tid, int32 attempts,
			   const char *reason, const char *error, bool nowait)
{
	MqDef	   *def = r->def;
	MqValues	values;
	MqDef	   *dead;
	Relation	rel;
	int64		new_id;

	if (!mq_row_delete(r, id, tid, &values))
		return false;
	rel = open_dead(def, nowait, &dead);
	if (rel == NULL)
	{
		/* a producer that makes room sums them up (dequeue_drop.c) */
		if (strcmp(reason, "maxlen") != 0)
			ereport(LOG,
					(errmsg("queue \"%s\" dropped message %lld after %d attempts (%s): it has no dead-letter queue",
							def->name, (long long) id, attempts, reason)));
		return true;
	}
	make_dead(def, dead, id, &values, attempts, reason, error);
	if (!mq_row_insert(dead, rel, &values, &new_id))
		ereport(LOG,
				(errmsg("queue \"%s\" dropped message %lld after %d attempts (%s): a trigger on queue \"%s\" suppressed it",
						def->name, (long long) id, attempts, reason, dead->name)));
	relation_close(rel, NoLock);
	return true;
}

/*
 * Inserts n messages, which the caller has just deleted, into the dead-letter
 * queue; values as they were, their ids included.  Waits for nobody's lock on
 * its table (55P03).  One line is logged if they are dropped.
 */
void
mq_dead_letters(MqDef *def, MqValues *values, int n, const char *reason)
{
	MqDef	   *dead;
	Relation	rel;
	int64	   *ids;
	bool	   *inserted;
	int			dropped = 0;

	if (n == 0)
		return;
	rel = open_dead(def, true, &dead);
	if (rel == NULL)
	{
		ereport(LOG,
				(errmsg("queue \"%s\" dropped %d messages (%s): it has no dead-letter queue",
						def->name, n, reason)));
		return;
	}
	for (int i = 0; i < n; i++)
		make_dead(def, dead, DatumGetInt64(values[i].v[MQ_COL_ID]), &values[i],
				  DatumGetInt32(values[i].v[MQ_COL_ATTEMPTS]), reason, NULL);
	ids = palloc(sizeof(int64) * n);
	inserted = palloc(sizeof(bool) * n);
	mq_rows_insert(dead, rel, values, n, ids, inserted);
	for (int i = 0; i < n; i++)
		dropped += !inserted[i];
	if (dropped > 0)
		ereport(LOG,
				(errmsg("queue \"%s\" dropped %d messages (%s): a trigger on queue \"%s\" suppressed them",
						def->name, dropped, reason, dead->name)));
	relation_close(rel, NoLock);
}
