/*-------------------------------------------------------------------------
 * route.c
 *		Exchanges and bindings: which queues a message goes to.
 *
 * Exchanges and bindings are rows of mq.exchange$, mq.exchange_grant$ and
 * mq.binding$.  Nothing of them is in shared memory.  A process compiles an
 * exchange when it first needs it and keeps the result:
 *
 *	 direct		a hash table from the key to its targets
 *	 topic		an automaton (topic.c)
 *	 fanout		a list
 *	 headers	a list with the headers that each wants, looked through one by one
 *
 * Compiled exchanges are forgotten through the relation cache: statement
 * triggers on the three tables invalidate the table that was changed, which is
 * sent to all at commit and acted on by the changing transaction itself at its
 * next command and when it, or its savepoint, rolls back; so does any change of
 * a role.  mq_exchange_find takes up what has been sent before it looks, so
 * that a publish sees what was committed before it began.  It reads with the
 * latest snapshot, at every isolation level.  Which exchange was changed is not
 * said; what is not used is not compiled again.
 *
 * An entry is marked valid before its rows are read, so that what comes in
 * meanwhile marks it again.  A marked one stays as it is until it is next
 * asked for, so a route that is under way is not disturbed.  Nothing below
 * mq_route runs code of a user's.
 *
 * A route goes from exchange to exchange, each visited once; so circles end,
 * and each queue is reached once.  An exchange in which nothing matches, neither
 * queue nor exchange, hands on to its alternate.
 *
 * Between the route and the insert a binding may go: see plan.c.
 */
#include "route.h"

#include "access/genam.h"
#include "access/table.h"
#include "common/hashfn.h"
#include "storage/lmgr.h"
#include "topic.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

typedef enum ExchangeType
{
	EXCHANGE_DIRECT,
	EXCHANGE_TOPIC,
	EXCHANGE_FANOUT,
	EXCHANGE_HEADERS,
	EXCHANGE_DEFAULT			/* '': the queue named by the key */
} ExchangeType;

/* Where a binding leads. */
typedef struct Target
{
	const char *name;
	bool		exchange;
	struct Target *next;		/* of the same exchange; with the same key, if
								 * that is direct */
} Target;

typedef struct Wanted
{
	JsonbValue	name;
	JsonbValue	value;			/* null: any */
} Wanted;

typedef struct HeadersBinding
{
	Target	   *target;
	bool		any;			/* one of them, else all */
	int			n;
	Wanted	   *wanted;
	struct HeadersBinding *next;
} HeadersBinding;

typedef struct KeyText
{
	const char *text;
	uint32		len;
} KeyText;

typedef struct KeyEntry
{
	KeyText		key;
	Target	   *targets;
	uint32		hash;
	char		status;
} KeyEntry;

#define SH_PREFIX		keys
#define SH_ELEMENT_TYPE	KeyEntry
#define SH_KEY_TYPE		KeyText
#define SH_KEY			key
#define SH_HASH_KEY(tb, k)	hash_bytes((const unsigned char *) (k).text, (k).len)
#define SH_EQUAL(tb, a, b)	((a).len == (b).len && memcmp((a).text, (b).text, (a).len) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)	(a)->hash
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct MqExchange
{
	char		name[NAMEDATALEN];	/* hash key */
	bool		valid;
	ExchangeType type;
	char		alternate[NAMEDATALEN]; /* "" = none */
	Oid			owner;			/* InvalidOid: that role is gone */
	bool		to_public;		/* everybody may publish */
	int			ngrants;
	Oid		   *grants;
	MemoryContext context;		/* of all that follows; reset before it is
								 * compiled anew */
	MqTopic    *topic;
	keys_hash  *keys;
	Target	   *all;
	HeadersBinding *headers;
	uint64		visited;		/* by the last route that was here */
};

static HTAB *exchanges = NULL;
static Oid	exchange_oid = InvalidOid;
static Oid	grant_oid = InvalidOid;
static Oid	binding_oid = InvalidOid;
static uint64 changes = 0;
static uint64 routes = 0;

/* ------------------------------------------------------------------ cache */

static void
forget_all(void)
{
	HASH_SEQ_STATUS seq;
	MqExchange *x;

	changes++;
	hash_seq_init(&seq, exchanges);
	while ((x = hash_seq_search(&seq)) != NULL)
		x->valid = false;
}

static void
relcache_callback(Datum arg, Oid relid)
{
	if (relid == InvalidOid ||
		relid == exchange_oid || relid == grant_oid || relid == binding_oid)
		forget_all();
}

static void
syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	forget_all();
}

static void
init_cache(void)
{
	HASHCTL		ctl;

	if (exchanges)
		return;
	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(MqExchange);
	ctl.hcxt = TopMemoryContext;
	exchanges = hash_create("mq exchanges", 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, syscache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, syscache_callback, (Datum) 0);
}

/*
 * How many times something about routing, or about a role, has changed.  Whoever
 * asks, routes, locks the queues' tables and finds the number as it was knows
 * that what he routed by still held when he had the locks: a queue cannot be
 * dropped while something is bound to it.
 */
uint64
mq_route_changes(void)
{
	AcceptInvalidationMessages();
	return changes;
}

/* The rows of one of the tables that belong to an exchange. */
static SysScanDesc
begin_scan(Relation rel, const char *index, const char *column, const char *exchange,
		   ScanKey key)
{
	Oid			indexoid = mq_catalog_table(index, false);

	ScanKeyInit(key, get_attnum(RelationGetRelid(rel), column),
				BTEqualStrategyNumber, F_TEXTEQ, CStringGetTextDatum(exchange));
	return systable_beginscan(rel, indexoid, true, NULL, 1, key);
}

/* The columns of a table, by name. */
static Datum
column(Relation rel, HeapTuple tup, const char *name, bool *isnull)
{
	return heap_getattr(tup, get_attnum(RelationGetRelid(rel), name),
						RelationGetDescr(rel), isnull);
}

static ExchangeType
type_of(const char *name)
{
	return strcmp(name, "direct") == 0 ? EXCHANGE_DIRECT :
		strcmp(name, "topic") == 0 ? EXCHANGE_TOPIC :
		strcmp(name, "fanout") == 0 ? EXCHANGE_FANOUT : EXCHANGE_HEADERS;
}

/* Its row; false if there is none. */
static bool
load_exchange(MqExchange *x, Relation rel)
{
	ScanKeyData key;
	SysScanDesc scan = begin_scan(rel, "exchange$pkey", "name", x->name, &key);
	HeapTuple	tup = systable_getnext(scan);
	bool		found = HeapTupleIsValid(tup);

	if (found)
	{
		bool		isnull;
		Datum		d;

		x->type = type_of(TextDatumGetCString(column(rel, tup, "type", &isnull)));
		d = column(rel, tup, "alternate", &isnull);
		strlcpy(x->alternate, isnull ? "" : TextDatumGetCString(d), NAMEDATALEN);
		x->owner = get_role_oid(NameStr(*DatumGetName(column(rel, tup, "owner", &isnull))), true);
	}
	systable_endscan(scan);
	return found;
}

static void
load_grants(MqExchange *x, Relation rel)
{
	ScanKeyData key;
	SysScanDesc scan = begin_scan(rel, "exchange_grant$pkey", "exchange", x->name, &key);
	HeapTuple	tup;
	int			max = 0;

	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		bool		isnull;
		const char *role = NameStr(*DatumGetName(column(rel, tup, "role", &isnull)));
		Oid			oid = get_role_oid(role, true);

		if (strcmp(role, "public") == 0)
			x->to_public = true;
		else if (OidIsValid(oid))
		{
			if (x->ngrants == max)
			{
				max = Max(8, max * 2);
				x->grants = x->grants ? repalloc(x->grants, sizeof(Oid) * max) :
					MemoryContextAlloc(x->context, sizeof(Oid) * max);
			}
			x->grants[x->ngrants++] = oid;
		}
	}
	systable_endscan(scan);
}

/* What a headers binding wants; names that begin with x- only if it says so. */
static void
add_headers(MqExchange *x, Target *target, Jsonb *match)
{
	HeadersBinding *b = palloc0(sizeof(HeadersBinding));
	bool		with_x = false;

	b->target = target;
	b->next = x->headers;
	x->headers = b;
	if (match)
	{
		JsonbIterator *it;
		JsonbValue	kind;
		JsonbValue	v;
		JsonbIteratorToken tok;

		if (getKeyJsonValueFromContainer(&match->root, "x-match", 7, &kind) &&
			kind.type == jbvString)
		{
			const char *s = pnstrdup(kind.val.string.val, kind.val.string.len);

			b->any = strncmp(s, "any", 3) == 0;
			with_x = strstr(s, "-with-x") != NULL;
		}
		b->wanted = palloc(sizeof(Wanted) * JB_ROOT_COUNT(match));
		it = JsonbIteratorInit(&match->root);
		(void) JsonbIteratorNext(&it, &v, true);
		while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_END_OBJECT)
		{
			Wanted	   *w = &b->wanted[b->n];
			bool		is_x;

			w->name = v;
			(void) JsonbIteratorNext(&it, &w->value, true);
			is_x = v.val.string.len >= 2 && memcmp(v.val.string.val, "x-", 2) == 0;
			if (is_x && (!with_x || (v.val.string.len == 7 && memcmp(v.val.string.val, "x-match", 7) == 0)))
				continue;
			b->n++;
		}
	}
}

static void
load_bindings(MqExchange *x, Relation rel)
{
	ScanKeyData key;
	SysScanDesc scan = begin_scan(rel, "binding$unique", "exchange", x->name, &key);
	AttrNumber	queue_att = get_attnum(RelationGetRelid(rel), "queue");
	AttrNumber	destination_att = get_attnum(RelationGetRelid(rel), "destination");
	AttrNumber	pattern_att = get_attnum(RelationGetRelid(rel), "pattern");
	AttrNumber	match_att = get_attnum(RelationGetRelid(rel), "match");
	TupleDesc	desc = RelationGetDescr(rel);
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "mq bindings",
												  ALLOCSET_SMALL_SIZES);
	HeapTuple	tup;

	if (x->type == EXCHANGE_TOPIC)
		x->topic = mq_topic_new(x->context);
	if (x->type == EXCHANGE_DIRECT)
		x->keys = keys_create(x->context, 16, NULL);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		MemoryContext old = MemoryContextSwitchTo(scratch);
		Target	   *target = MemoryContextAlloc(x->context, sizeof(Target));
		bool		isnull;
		bool		no_match;
		Datum		queue = heap_getattr(tup, queue_att, desc, &isnull);
		Datum		name = isnull ? heap_getattr(tup, destination_att, desc, &isnull) : queue;
		text	   *pattern;
		Datum		match;

		target->exchange = name != queue;
		target->name = MemoryContextStrdup(x->context, TextDatumGetCString(name));
		target->next = NULL;
		pattern = DatumGetTextPP(heap_getattr(tup, pattern_att, desc, &isnull));
		match = heap_getattr(tup, match_att, desc, &no_match);
		switch (x->type)
		{
			case EXCHANGE_TOPIC:
				mq_topic_add(x->topic, VARDATA_ANY(pattern), VARSIZE_ANY_EXHDR(pattern), target);
				break;
			case EXCHANGE_DIRECT:
				{
					KeyText		k = {VARDATA_ANY(pattern), VARSIZE_ANY_EXHDR(pattern)};
					KeyEntry   *e;
					bool		found;

					e = keys_insert(x->keys, k, &found);
					if (!found)
					{
						e->key.text = MemoryContextAlloc(x->context, Max(k.len, 1));
						memcpy((char *) e->key.text, k.text, k.len);
						e->targets = NULL;
					}
					target->next = e->targets;
					e->targets = target;
					break;
				}
			case EXCHANGE_HEADERS:
				MemoryContextSwitchTo(x->context);
				add_headers(x, target, no_match ? NULL : DatumGetJsonbPCopy(match));
				break;
			case EXCHANGE_FANOUT:
				target->next = x->all;
				x->all = target;
				break;
			case EXCHANGE_DEFAULT:
				break;
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(scratch);
	}
	systable_endscan(scan);
	MemoryContextDelete(scratch);
}

static Relation
open_table(Oid relid, int flags)
{
	if (!(flags & MQ_NOWAIT))
		return table_open(relid, AccessShareLock);
	if (!ConditionalLockRelationOid(relid, AccessShareLock))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("exchanges and bindings are locked")));
	return table_open(relid, NoLock);
}

/* Reads and compiles an exchange; false if there is no such one. */
static bool
compile(MqExchange *x, int flags)
{
	Relation	exchange = open_table(exchange_oid, flags);
	Relation	grant = open_table(grant_oid, flags);
	Relation	binding = open_table(binding_oid, flags);
	bool		found;

	if (x->context == NULL)
		x->context = AllocSetContextCreate(CacheMemoryContext, "mq exchange", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(x->context);
	x->topic = NULL;
	x->keys = NULL;
	x->all = NULL;
	x->headers = NULL;
	x->to_public = false;
	x->ngrants = 0;
	x->grants = NULL;
	found = load_exchange(x, exchange);
	if (found)
	{
		load_grants(x, grant);
		load_bindings(x, binding);
	}
	table_close(binding, AccessShareLock);
	table_close(grant, AccessShareLock);
	table_close(exchange, AccessShareLock);
	return found;
}

/*
 * The exchange of that name, '' being the default one; NULL or 42704 if there
 * is none (see flags).  The result holds until an exchange of the same name is asked for.
 */
MqExchange *
mq_exchange_find(const char *name, int flags)
{
	MqExchange *x;
	bool		found;

	mq_require_preload();
	init_cache();
	AcceptInvalidationMessages();
	x = strlen(name) < NAMEDATALEN ? hash_search(exchanges, name, HASH_FIND, NULL) : NULL;
	if (x && x->valid)
		return x;
	found = false;
	if (strlen(name) <= MQ_NAME_MAX)
	{
		if (name[0] != '\0')
		{
			exchange_oid = mq_catalog_table("exchange$", false);
			grant_oid = mq_catalog_table("exchange_grant$", false);
			binding_oid = mq_catalog_table("binding$", false);
		}
		x = hash_search(exchanges, name, HASH_ENTER, &found);
		if (!found)
		{
			memset((char *) x + offsetof(MqExchange, valid), 0,
				   sizeof(MqExchange) - offsetof(MqExchange, valid));
			x->type = EXCHANGE_DEFAULT;
		}
		x->valid = true;
		found = true;
		if (name[0] != '\0')
		{
			PG_TRY();
			{
				found = compile(x, flags);
			}
			PG_CATCH();
			{
				x->valid = false;
				PG_RE_THROW();
			}
			PG_END_TRY();
		}
		if (!found)
		{
			if (x->context)
				MemoryContextDelete(x->context);
			hash_search(exchanges, name, HASH_REMOVE, NULL);
		}
	}
	if (!found && !(flags & MQ_MISSING_OK))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("exchange \"%s\" does not exist", name),
				 errhint("Create it with mq.create_exchange.")));
	return found ? x : NULL;
}

/*
 * Whether a role may publish to an exchange.  To the default one everybody may;
 * what counts there is his right on the queue.
 */
bool
mq_exchange_may_publish(const MqExchange *x, Oid role)
{
	if (x->type == EXCHANGE_DEFAULT || x->to_public || superuser_arg(role) ||
		(OidIsValid(x->owner) && has_privs_of_role(role, x->owner)))
		return true;
	for (int i = 0; i < x->ngrants; i++)
		if (has_privs_of_role(role, x->grants[i]))
			return true;
	return false;
}

/* ------------------------------------------------------------------ route */

typedef struct Route
{
	const char **queues;
	int			n;
	int			max;
	List	   *exchanges;		/* names, still to be visited */
	bool		matched;		/* something in the present exchange */
} Route;

static void
found_target(void *target, void *arg)
{
	Target	   *t = target;
	Route	   *r = arg;

	r->matched = true;
	if (t->exchange)
	{
		r->exchanges = lappend(r->exchanges, (void *) t->name);
		return;
	}
	if (r->n == r->max)
	{
		r->max = Max(16, r->max * 2);
		r->queues = r->queues ? repalloc(r->queues, sizeof(char *) * r->max) :
			palloc(sizeof(char *) * r->max);
	}
	r->queues[r->n++] = t->name;
}

static bool
headers_match(const HeadersBinding *b, Jsonb *headers)
{
	for (int i = 0; i < b->n; i++)
	{
		const Wanted *w = &b->wanted[i];
		JsonbValue	v;
		bool		has = headers &&
			getKeyJsonValueFromContainer(&headers->root, w->name.val.string.val,
										 w->name.val.string.len, &v) != NULL &&
			(w->value.type == jbvNull || mq_json_equal(&v, &w->value));

		if (has == b->any)
			return has;
	}
	return !b->any;
}

static void
visit(MqExchange *x, const char *key, int len, Jsonb *headers, Route *r)
{
	r->matched = false;
	switch (x->type)
	{
		case EXCHANGE_TOPIC:
			mq_topic_match(x->topic, key, len, found_target, r);
			break;
		case EXCHANGE_DIRECT:
			{
				KeyText		k = {key, len};
				KeyEntry   *e = keys_lookup(x->keys, k);

				for (Target *t = e ? e->targets : NULL; t; t = t->next)
					found_target(t, r);
				break;
			}
		case EXCHANGE_FANOUT:
			for (Target *t = x->all; t; t = t->next)
				found_target(t, r);
			break;
		case EXCHANGE_HEADERS:
			for (HeadersBinding *b = x->headers; b; b = b->next)
				if (headers_match(b, headers))
					found_target(b->target, r);
			break;
		case EXCHANGE_DEFAULT:
			break;
	}
	if (!r->matched && x->alternate[0])
		r->exchanges = lappend(r->exchanges, x->alternate);
}

static int
compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/*
 * The queues that a message with this key and these headers (NULL: none) goes
 * to, sorted and each once, in the current memory context.  Some may not exist
 * any more.  Returns how many.
 */
int
mq_route(MqExchange *x, const char *key, int len, Jsonb *headers, int flags,
		 const char ***queues)
{
	Route		r = {0};
	int			n = 0;

	if (x->type == EXCHANGE_DEFAULT)
	{
		*queues = palloc(sizeof(char *));
		(*queues)[0] = pnstrdup(key, len);
		return 1;
	}
	routes++;
	x->visited = routes;
	visit(x, key, len, headers, &r);
	/* the list grows while it is gone through */
	for (int i = 0; i < list_length(r.exchanges); i++)
	{
		MqExchange *next;
		const char *name = list_nth(r.exchanges, i);

		/* what the route has visited must not be compiled again now */
		next = hash_search(exchanges, name, HASH_FIND, NULL);
		if (next && next->visited == routes)
			continue;
		next = mq_exchange_find(name, flags | MQ_MISSING_OK);
		if (next == NULL)
			continue;
		next->visited = routes;
		visit(next, key, len, headers, &r);
	}
	list_free(r.exchanges);
	if (r.n > 1)
		qsort(r.queues, r.n, sizeof(char *), compare_names);
	for (int i = 0; i < r.n; i++)
		if (i == 0 || strcmp(r.queues[i], r.queues[n - 1]) != 0)
			r.queues[n++] = r.queues[i];
	for (int i = 0; i < n; i++)
		r.queues[i] = pstrdup(r.queues[i]);
	*queues = r.queues;
	return n;
}

/* The headers of a message that is published to an exchange with this key. */
Jsonb *
mq_route_headers(Jsonb *headers, const char *exchange, const char *key, int len)
{
	MqHeader	set[2] = {
		{"x-exchange", mq_json_string(exchange, strlen(exchange)), false},
		{"x-routing-key", mq_json_string(key, len), false}
	};

	return mq_headers_set(headers, set, 2);
}
