/*-------------------------------------------------------------------------
 * catalog.c
 *		Queue definitions, their cache, and the way to a queue's shared state.
 *
 * A queue is a row of mq.queue$ (by name, so that a dump restores it) and a
 * table mq.q_<name>.  What a verb needs of both is cached by name in each
 * backend.  The cache is invalidated through the relation cache: by any
 * change of the queue's table, and by a trigger on mq.queue$ that sends an
 * invalidation of mq.queue$ itself.
 *
 * The table belongs to a user who may hang things on it.  An entry says
 * whether the table is "plain": only mq's columns, triggers, constraints and
 * indexes, a heap, no rules, no inheritance.  Rows of a plain table are
 * written directly; for others the executor does it.
 *
 * The signature condenses what could let rows change behind mq's triggers: the
 * table's file and its triggers.  When it
 * differs from the one the shared slot was built under, all lanes are scanned
 * again.
 *-------------------------------------------------------------------------
 */
#include "catalog.h"

#include "access/xlog.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "clock.h"
#include "common/hashfn.h"
#include "guc.h"
#include "commands/trigger.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "throttle.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

const char *const mq_column_names[MQ_NCOLS] = {
	"id", "enqueued_at", "attempts", "priority", "ready_at", "expires_at",
	"key", "dedup_id", "headers", "body", "data", "last_error"
};

const Oid	mq_column_types[MQ_NCOLS] = {
	INT8OID, TIMESTAMPTZOID, INT4OID, INT2OID, TIMESTAMPTZOID, TIMESTAMPTZOID,
	TEXTOID, TEXTOID, JSONBOID, JSONBOID, BYTEAOID, TEXTOID
};

static const char *const own_checks[] = {
	"attempts$check", "priority$check", "key$check", "dedup_id$check",
	"headers$check", "body$check"
};

static const char *const index_suffixes[MQ_NINDEXES] = {
	"$pkey", "$ready", "$expiry", "$key", "$dedup"
};

/* The columns each index must have, ended by MQ_NCOLS. */
static const MqColumn index_columns[MQ_NINDEXES][4] = {
	{MQ_COL_ID, MQ_NCOLS},
	{MQ_COL_PRIORITY, MQ_COL_READY_AT, MQ_COL_ID, MQ_NCOLS},
	{MQ_COL_EXPIRES_AT, MQ_NCOLS},
	{MQ_COL_KEY, MQ_COL_ID, MQ_NCOLS},
	{MQ_COL_DEDUP_ID, MQ_NCOLS}
};

typedef struct RelidEntry
{
	Oid			relid;			/* hash key */
	MqDef	   *def;
} RelidEntry;

static HTAB *by_name = NULL;
static HTAB *by_relid = NULL;
static Oid	schema_oid = InvalidOid;
static Oid	queue_table_oid = InvalidOid;
static int	ext_generation = 0;

static void
invalidate_all(void)
{
	HASH_SEQ_STATUS seq;
	MqDef	   *def;

	hash_seq_init(&seq, by_name);
	while ((def = hash_seq_search(&seq)) != NULL)
		def->valid = false;
	schema_oid = queue_table_oid = InvalidOid;
	ext_generation++;
}

static void
relcache_callback(Datum arg, Oid relid)
{
	RelidEntry *e;

	if (relid == InvalidOid || relid == queue_table_oid)
		invalidate_all();
	else if ((e = hash_search(by_relid, &relid, HASH_FIND, NULL)) != NULL)
		e->def->valid = false;
}

/* Roles, schemas or indexes changed: rare enough to forget everything. */
static void
syscache_callback(Datum arg, int cacheid, uint32 hashvalue)
{
	invalidate_all();
}

/* Makes the cache and registers for invalidations; once a process. */
static void
init_cache(void)
{
	HASHCTL		ctl;

	if (by_name)
		return;
	ctl.keysize = NAMEDATALEN;
	ctl.entrysize = sizeof(MqDef);
	ctl.hcxt = TopMemoryContext;
	by_name = hash_create("mq queues by name", 64, &ctl,
						  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	ctl.keysize = sizeof(Oid);
	ctl.entrysize = sizeof(RelidEntry);
	by_relid = hash_create("mq queues by table", 64, &ctl,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(relcache_callback, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, syscache_callback, (Datum) 0);
}

/* Schema mq. */
Oid
mq_schema_oid(bool missing_ok)
{
	init_cache();
	if (!OidIsValid(schema_oid))
		schema_oid = get_namespace_oid(MQ_SCHEMA, missing_ok);
	return schema_oid;
}

/* One of the extension's own tables. */
Oid
mq_catalog_table(const char *name, bool missing_ok)
{
	Oid			nsp = mq_schema_oid(missing_ok);
	Oid			relid = OidIsValid(nsp) ? get_relname_relid(name, nsp) : InvalidOid;

	if (!OidIsValid(relid) && !missing_ok)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table mq.%s does not exist", name)));
	return relid;
}

/*
 * A queue's name as C string, checked for NULL by the caller.  Names too long
 * to be one are cut: they can't be found either way.
 */
const char *
mq_text_name(text *name)
{
	char	   *s = palloc(NAMEDATALEN);

	text_to_cstring_buffer(name, s, NAMEDATALEN);
	return s;
}

static void
no_such_queue(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("queue \"%s\" does not exist", name),
			 errhint("Create it with mq.create_queue.")));
}

static int64
interval_column(HeapTuple tup, TupleDesc desc, Oid relid, const char *col)
{
	bool		isnull;
	Datum		d = heap_getattr(tup, get_attnum(relid, col), desc, &isnull);

	return isnull ? 0 : mq_interval_us(DatumGetIntervalP(d));
}

/* The limits in a row of mq.queue$, which is relation relid. */
MqThrottle
mq_throttle_columns(HeapTuple tup, TupleDesc desc, Oid relid)
{
	MqThrottle	t;
	bool		isnull;
	Datum		d;

	d = heap_getattr(tup, get_attnum(relid, "max_in_flight"), desc, &isnull);
	t.max_in_flight = isnull ? 0 : DatumGetInt64(d);
	d = heap_getattr(tup, get_attnum(relid, "rate_limit"), desc, &isnull);
	t.rate_limit = isnull ? 0 : DatumGetFloat8(d);
	return t;
}

/* Reads the options; false if mq.queue$ has no such row. */
static bool
load_options(MqDef *def)
{
	Relation	rel;
	Oid			relid = mq_catalog_table("queue$", true);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tup;
	TupleDesc	desc;
	Datum		d;
	bool		isnull;
	bool		found = false;

	if (!OidIsValid(relid))
		return false;
	queue_table_oid = relid;
	rel = table_open(relid, AccessShareLock);
	desc = RelationGetDescr(rel);
	ScanKeyInit(&key, get_attnum(relid, "name"), BTEqualStrategyNumber, F_TEXTEQ,
				CStringGetTextDatum(def->name));
	scan = systable_beginscan(rel, RelationGetPrimaryKeyIndex(rel), true, NULL, 1, &key);
	tup = systable_getnext(scan);
	if (HeapTupleIsValid(tup))
	{
		found = true;
		d = heap_getattr(tup, get_attnum(relid, "layout"), desc, &isnull);
		if (isnull || DatumGetInt16(d) > MQ_LAYOUT)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("queue \"%s\" has a layout this version of mq does not know", def->name),
					 errhint("Install the version of mq that made it, or a newer one.")));
		def->policy.lease = interval_column(tup, desc, relid, "lease");
		def->policy.backoff = interval_column(tup, desc, relid, "backoff");
		def->policy.backoff_limit = interval_column(tup, desc, relid, "backoff_limit");
		def->ttl = interval_column(tup, desc, relid, "ttl");
		d = heap_getattr(tup, get_attnum(relid, "max_length"), desc, &isnull);
		def->max_length = isnull ? 0 : DatumGetInt64(d);
		d = heap_getattr(tup, get_attnum(relid, "overflow"), desc, &isnull);
		def->drop_head = !isnull && strcmp(TextDatumGetCString(d), "drop_head") == 0;
		d = heap_getattr(tup, get_attnum(relid, "max_attempts"), desc, &isnull);
		def->policy.max_attempts = isnull ? 0 : DatumGetInt32(d);
		def->throttle = mq_throttle_columns(tup, desc, relid);
		d = heap_getattr(tup, get_attnum(relid, "dead_letter"), desc, &isnull);
		def->dead_letter[0] = '\0';
		if (!isnull)
			strlcpy(def->dead_letter, TextDatumGetCString(d), NAMEDATALEN);
		d = heap_getattr(tup, get_attnum(relid, "dead_letter_exchange"), desc, &isnull);
		def->dead_published = !isnull;
		strlcpy(def->dead_exchange, isnull ? "" : TextDatumGetCString(d), NAMEDATALEN);
		if (def->dead_key)
			pfree(def->dead_key);
		def->dead_key = NULL;
		d = heap_getattr(tup, get_attnum(relid, "dead_letter_key"), desc, &isnull);
		if (!isnull)
			def->dead_key = MemoryContextStrdup(TopMemoryContext, TextDatumGetCString(d));
		d = heap_getattr(tup, get_attnum(relid, "paused"), desc, &isnull);
		def->paused = !isnull && DatumGetBool(d);
		d = heap_getattr(tup, get_attnum(relid, "retain"), desc, &isnull);
		def->archived = !isnull;
		def->dedup_window = interval_column(tup, desc, relid, "dedup_window");
		d = heap_getattr(tup, get_attnum(relid, "ordered"), desc, &isnull);
		def->ordered = !isnull && DatumGetBool(d);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static bool
is_own_check(const char *name)
{
	for (int i = 0; i < (int) lengthof(own_checks); i++)
		if (strcmp(name, own_checks[i]) == 0)
			return true;
	return false;
}

/* Which of mq's indexes this is, or -1. */
static int
which_index(MqDef *def, Relation rel, Oid indexoid)
{
	char		expected[NAMEDATALEN + 8];
	char	   *name = get_rel_name(indexoid);
	int			result = -1;

	if (name == NULL)
		return -1;
	for (int i = 0; i < MQ_NINDEXES && result < 0; i++)
	{
		snprintf(expected, sizeof(expected), "%s%s",
				 RelationGetRelationName(rel), index_suffixes[i]);
		if (strcmp(name, expected) == 0)
			result = i;
	}
	if (result >= 0)
	{
		HeapTuple	tup = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(indexoid));
		Form_pg_index form;

		if (!HeapTupleIsValid(tup))
			return -1;
		form = (Form_pg_index) GETSTRUCT(tup);
		for (int k = 0;; k++)
		{
			MqColumn	col = index_columns[result][k];

			if (k == form->indnatts || col == MQ_NCOLS)
			{
				if (k != form->indnatts || col != MQ_NCOLS)
					result = -1;
				break;
			}
			if (form->indkey.values[k] != def->att[col])
			{
				result = -1;
				break;
			}
		}
		if (!form->indisready || !form->indisvalid ||
			(result == MQ_INDEX_PKEY && !form->indisprimary) ||
			!heap_attisnull(tup, Anum_pg_index_indexprs, NULL) ||
			(heap_attisnull(tup, Anum_pg_index_indpred, NULL) != (result == MQ_INDEX_PKEY)))
			result = -1;
		ReleaseSysCache(tup);
	}
	if (result >= 0)
	{
		/* ascending b-trees with the default order, nothing else */
		Relation	index = index_open(indexoid, AccessShareLock);

		if (index->rd_rel->relam != BTREE_AM_OID)
			result = -1;
		for (int k = 0; result >= 0 && k < index->rd_index->indnkeyatts; k++)
		{
			Oid			type = TupleDescAttr(RelationGetDescr(index), k)->atttypid;

			if (index->rd_indoption[k] != 0 ||
				index->rd_opfamily[k] != get_opclass_family(GetDefaultOpClass(type, BTREE_AM_OID)))
				result = -1;
		}
		index_close(index, AccessShareLock);
	}
	pfree(name);
	return result;
}

/* The table's file and its triggers, condensed. */
static uint32
table_signature(Relation rel)
{
	uint32		sig = murmurhash32(MqRelFileNumber(rel));
	HeapTuple	tup;
	Relation	pg_trigger;
	SysScanDesc scan;
	ScanKeyData key;

	pg_trigger = table_open(TriggerRelationId, AccessShareLock);
	ScanKeyInit(&key, Anum_pg_trigger_tgrelid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationGetRelid(rel)));
	scan = systable_beginscan(pg_trigger, TriggerRelidNameIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tup = systable_getnext(scan)))
	{
		sig = hash_combine(sig, HeapTupleHeaderGetRawXmin(tup->t_data));
		sig = hash_combine(sig, ((Form_pg_trigger) GETSTRUCT(tup))->tgenabled);
	}
	systable_endscan(scan);
	table_close(pg_trigger, AccessShareLock);
	return sig;
}

/* Looks at the table: its columns, and what the owner has hung on it. */
static void
load_table(MqDef *def, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	TriggerDesc *triggers = CopyTriggerDesc(rel->trigdesc);	/* the relcache may renew its own */
	List	   *indexes;
	ListCell   *lc;
	int			live = 0;

	def->owner = rel->rd_rel->relowner;
	def->plain = true;
	def->refused = NULL;
	memset(def->att, 0, sizeof(def->att));
	memset(def->index, 0, sizeof(def->index));

	if (rel->rd_rel->relkind != RELKIND_RELATION ||
		rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		def->refused = "it is not a plain heap table";
	else if (rel->rd_rel->relrowsecurity)
		def->refused = "row-level security is enabled on its table";
	else if (rel->rd_rules != NULL)
		def->refused = "its table has rules";
	if (rel->rd_rel->relhassubclass || rel->rd_rel->relispartition ||
		has_superclass(rel->rd_id))
		def->refused = "its table takes part in inheritance";

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		live++;
		for (int c = 0; c < MQ_NCOLS; c++)
			if (strcmp(NameStr(att->attname), mq_column_names[c]) == 0)
			{
				def->att[c] = att->attnum;
				if (att->atttypid != mq_column_types[c])
					def->refused = "a column of its table has another type";
				if (att->attnotnull && c > MQ_COL_PRIORITY)
					def->plain = false;
			}
	}
	for (int c = 0; c < MQ_NCOLS; c++)
		if (def->att[c] == InvalidAttrNumber)
			def->refused = "a column of its table is missing";
	if (live != MQ_NCOLS)
		def->plain = false;
	if (desc->constr)
	{
		for (int i = 0; i < desc->constr->num_check; i++)
			if (!is_own_check(desc->constr->check[i].ccname))
				def->plain = false;
		if (desc->constr->has_generated_stored)
			def->plain = false;
	}
	for (int i = 0; triggers && i < triggers->numtriggers; i++)
	{
		Trigger    *t = &triggers->triggers[i];

		if (t->tgisinternal || get_func_namespace(t->tgfoid) != schema_oid)
			def->plain = false;
	}
	indexes = RelationGetIndexList(rel);
	foreach(lc, indexes)
	{
		int			i = which_index(def, rel, lfirst_oid(lc));

		if (i < 0)
			def->plain = false;
		else
			def->index[i] = lfirst_oid(lc);
	}
	list_free(indexes);
	if (!OidIsValid(def->index[MQ_INDEX_PKEY]) || !OidIsValid(def->index[MQ_INDEX_READY]))
		def->refused = "an index of its table is missing";
	if (def->ordered && !OidIsValid(def->index[MQ_INDEX_KEY]))
		def->refused = "it is ordered and the index of its keys is missing";
	def->sequence = getIdentitySequence(RelationGetRelid(rel),
										def->att[MQ_COL_ID], true);
	if (!OidIsValid(def->sequence))
		def->refused = "its table's identity sequence is missing";
	def->signature = table_signature(rel);
}

/*
 * The definition of a queue; NULL or 42704 if there is none.  The table is
 * not locked: use mq_queue_open for that.
 */
MqDef *
mq_def_lookup(const char *name, bool missing_ok)
{
	MqDef	   *def;
	bool		found;
	char		table[NAMEDATALEN * 2];
	Relation	rel;
	RelidEntry *e;
	int			generation;
	Oid			relid;
	volatile bool loaded = false;

	mq_require_preload();
	init_cache();
	def = hash_search(by_name, name, HASH_FIND, NULL);
	if (def && def->valid)
		return def;

	if (strlen(name) > MQ_NAME_MAX || !OidIsValid(mq_schema_oid(true)))
	{
		if (missing_ok)
			return NULL;
		no_such_queue(name);
	}
	snprintf(table, sizeof(table), MQ_TABLE_PREFIX "%s", name);
	do
	{
		/* one that went while we waited for it may have a successor */
		AcceptInvalidationMessages();
		relid = get_relname_relid(table, mq_schema_oid(false));
		rel = OidIsValid(relid) ? try_relation_open(relid, AccessShareLock) : NULL;
	} while (rel == NULL && OidIsValid(relid));
	if (rel == NULL)
	{
		if (missing_ok)
			return NULL;
		no_such_queue(name);
	}
	def = hash_search(by_name, name, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) def + offsetof(MqDef, valid), 0,
			   sizeof(MqDef) - offsetof(MqDef, valid));
	}
	def->relid = relid;
	e = hash_search(by_relid, &relid, HASH_ENTER, NULL);
	e->def = def;
	generation = ext_generation;

	PG_TRY();
	{
		/* what invalidates the entry while it loads shall be seen */
		def->valid = true;
		loaded = load_options(def);
		if (loaded)
			load_table(def, rel);
	}
	PG_CATCH();
	{
		def->valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!loaded)
	{
		def->valid = false;
		relation_close(rel, AccessShareLock);
		if (missing_ok)
			return NULL;
		no_such_queue(name);
	}
	if (generation != ext_generation)
		def->valid = false;
	relation_close(rel, AccessShareLock);
	return def;
}

/* The definition of the queue whose table this is, or NULL. */
MqDef *
mq_def_by_relid(Oid relid)
{
	RelidEntry *e;
	char	   *name;
	MqDef	   *def;

	init_cache();
	e = hash_search(by_relid, &relid, HASH_FIND, NULL);
	if (e && e->def->valid && e->def->relid == relid)
		return e->def;
	if (get_rel_namespace(relid) != mq_schema_oid(true))
		return NULL;
	name = get_rel_name(relid);
	if (name == NULL || strncmp(name, MQ_TABLE_PREFIX, 2) != 0)
		return NULL;
	def = mq_def_lookup(name + 2, true);
	return def && def->relid == relid ? def : NULL;
}

static void
require_usable(MqDef *def)
{
	if (def->refused)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("queue \"%s\" cannot be used: %s", def->name, def->refused)));
}

static Relation
open_internal(const char *name, LOCKMODE lockmode, MqDef **def, bool missing_ok)
{
	for (int tries = 0;; tries++)
	{
		MqDef	   *d = mq_def_lookup(name, missing_ok);
		Relation	rel;

		if (d == NULL)
			return NULL;
		rel = try_relation_open(d->relid, lockmode);
		if (rel && d->valid)
		{
			require_usable(d);
			*def = d;
			return rel;
		}
		if (rel)
			relation_close(rel, lockmode);
		d->valid = false;
		if (tries > 100)
			elog(ERROR, "definition of queue \"%s\" keeps changing", name);
	}
}

/*
 * Opens a queue's table with the lock given.  Raises 42704 if there is no such
 * queue, 0A000 if its owner made its table unusable.
 */
Relation
mq_queue_open(const char *name, LOCKMODE lockmode, MqDef **def)
{
	return open_internal(name, lockmode, def, false);
}

/* The same, but NULL if there is no such queue. */
Relation
mq_queue_try_open(const char *name, LOCKMODE lockmode, MqDef **def)
{
	return open_internal(name, lockmode, def, true);
}

/*
 * Locks the table of a queue, if there is one of that name, for a transaction
 * that may not wait for others; false if it would have to.  Looking the queue up
 * first could wait too.
 */
bool
mq_queue_lock_nowait(const char *name, LOCKMODE lockmode)
{
	char		table[NAMEDATALEN * 2];
	Oid			relid;

	if (strlen(name) > MQ_NAME_MAX)
		return true;
	snprintf(table, sizeof(table), MQ_TABLE_PREFIX "%s", name);
	AcceptInvalidationMessages();
	relid = get_relname_relid(table, mq_schema_oid(false));
	return !OidIsValid(relid) || ConditionalLockRelationOid(relid, lockmode);
}

/*
 * Looks again at a queue whose table is locked, since code of its owner's, or of
 * another's, may have run and altered it: an entry is renewed where it stands.
 * Raises 0A000 if it has become unusable.
 */
void
mq_queue_renew(MqDef *def)
{
	if (def->valid)
		return;
	(void) mq_def_lookup(def->name, false);
	require_usable(def);
}

/* Raises 42501 unless the current user holds all of mode on the table. */
void
mq_require(MqDef *def, AclMode mode)
{
	if (pg_class_aclmask(def->relid, GetUserId(), mode, ACLMASK_ALL) != mode)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for queue \"%s\"", def->name),
				 errhint("Its owner can grant it with mq.grant.")));
}

bool
mq_is_owner(MqDef *def, Oid role)
{
	return superuser_arg(role) || has_privs_of_role(role, def->owner);
}

/*
 * Prepared transactions that a restart brought back and that hold a lock on
 * this table: their ends call no callback.
 */
static int
recovered_prepared(Oid relid, TransactionId **xids)
{
	LOCKTAG		tag;
	VirtualTransactionId *vxids;
	int			n;
	int			found = 0;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
	vxids = GetLockConflicts(&tag, AccessExclusiveLock, &n);
	*xids = palloc(sizeof(TransactionId) * (n + 1));
	for (int i = 0; i < n; i++)
		if (MqVxidIsRecovered(vxids[i]))
			(*xids)[found++] = vxids[i].localTransactionId;
	return found;
}

/*
 * The first look at the queue's table since its slot was made (or taken over
 * from before a restart).  Returns with the partition locked, or NULL.
 */
static MqQueue *
first_attach(MqDef *def, Relation rel)
{
	TransactionId *xids;
	int			nxids = recovered_prepared(def->relid, &xids);
	bool		created;
	bool		no_rows;
	MqQueue    *q = mq_queue_create(MyDatabaseId, def->relid, &created);

	if (q == NULL || q->attached)
		return q;
	q->attached = true;
	if (!q->paused_known)
		q->paused = def->paused;
	for (int i = 0; i < nxids; i++)
		if (!mq_queue_await(q, xids[i]))
		{
			/* what its end makes visible would be missed: not before there is room */
			q->attached = false;
			mq_unlock(q->partition);
			return NULL;
		}
	if (!created)
		return q;
	mq_unlock(q->partition);

	/*
	 * A table without blocks has no rows, and whoever adds some from now on
	 * finds the slot when it commits.
	 */
	no_rows = RelationGetNumberOfBlocks(rel) == 0;
	mq_lock(mq_partition_of(MyDatabaseId, def->relid));
	q = mq_queue_find(MyDatabaseId, def->relid, q);
	if (q == NULL)
	{
		mq_unlock(mq_partition_of(MyDatabaseId, def->relid));
		return NULL;
	}
	if (no_rows)
		q->n.exact = q->n.rows_exact = true;
	return q;
}

/*
 * The queue's slot in shared memory with its partition locked, made if
 * missing; NULL if there is no room.  rel is open and locked.
 */
MqQueue *
mq_queue_try_attach(MqDef *def, Relation rel)
{
	int			partition = mq_partition_of(MyDatabaseId, def->relid);
	MqQueue    *q;

	/* on a standby rows come without commits: no cursor would hold */
	if (RecoveryInProgress())
		return NULL;
	mq_lock(partition);
	q = mq_queue_find(MyDatabaseId, def->relid, def->hint);
	if (q == NULL || !q->attached)
	{
		mq_unlock(partition);
		q = first_attach(def, rel);
		if (q == NULL)
			return NULL;
	}
	def->hint = q;
	if (q->signature != def->signature || q->relnode != MqRelFileNumber(rel))
	{
		q->signature = def->signature;
		q->relnode = MqRelFileNumber(rel);
		q->unlogged = rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED;
		mq_queue_init_lanes(q);
		q->n.count_next = DT_NOBEGIN;
	}
	if (!q->ordered_known && q->ordered != def->ordered)
		mq_key_set_ordered(q, def->ordered);
	q->policy = def->policy;
	mq_throttle_set(q, &def->throttle, false);
	q->last_used = GetCurrentStatementStartTimestamp();
	return q;
}

/* The same, raising 53400 if there is no room. */
MqQueue *
mq_queue_attach(MqDef *def, Relation rel)
{
	MqQueue    *q = mq_queue_try_attach(def, rel);

	if (q == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("no room for the state of queue \"%s\"", def->name),
				 errhint("All slots are busy; raise mq.max_queues (now %d), or end some of those in pg_prepared_xacts.",
						 mq_max_queues)));
	return q;
}

/*
 * Sees to it that a producer's commit finds the queue's slot, for the counters'
 * sake; without room for one the commit does without.
 */
void
mq_queue_expect(MqDef *def, Relation rel)
{
	MqQueue    *q = def->hint;

	if (RecoveryInProgress() ||
		(q && q->relid == def->relid && q->dboid == MyDatabaseId && q->attached))
		return;
	q = mq_queue_try_attach(def, rel);
	if (q)
		mq_unlock(q->partition);
}
