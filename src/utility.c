/*-------------------------------------------------------------------------
 * utility.c
 *		Statements of which launcher, worker and sessions have to know.
 *
 * DROP DATABASE, CREATE DATABASE ... TEMPLATE and ALTER DATABASE want the
 * database to themselves: the utility hook puts a hold on it, asks its worker to
 * leave, waits for that, and lifts the hold when the statement has ended,
 * however it ended.
 *
 * LISTEN is counted for the database: without listeners the worker sends no
 * notification.  DISCARD ALL gives back what the session holds.
 *-------------------------------------------------------------------------
 */
#include "utility.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "clock.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "forget.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static ProcessUtility_hook_type prev_utility = NULL;

/* What this process must give back when it exits. */
static bool exit_registered = false;
static Oid	held_database = InvalidOid;
static bool counted_listener = false;

/* At this process's end, after its last transaction's. */
static void
process_exit(int code, Datum arg)
{
	mq_release_session(MQ_REASON_SESSION);
	if (OidIsValid(held_database) || counted_listener)
	{
		MqDatabase *d;

		LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
		d = OidIsValid(held_database) ? mq_database(held_database, false) : NULL;
		if (d && d->holds > 0)
			d->holds--;
		d = counted_listener ? mq_database(MyDatabaseId, false) : NULL;
		if (d && d->listeners > 0)
			d->listeners--;
		LWLockRelease(mq_shared->registry);
		if (OidIsValid(held_database))
			mq_launcher_poke();
	}
}

/* Sees to it that process_exit runs in this process. */
void
mq_utility_init_session(void)
{
	if (exit_registered || mq_shared == NULL)
		return;
	on_shmem_exit(process_exit, (Datum) 0);
	exit_registered = true;
}

/* Whether the statement has a chance: only then is the worker sent away. */
static bool
may_have(Node *stmt, Oid dboid)
{
	HeapTuple	tup;
	bool		createdb = false;

	if (superuser())
		return true;
	if (!IsA(stmt, CreatedbStmt))
		return mq_compat_owns_database(dboid, GetUserId());
	tup = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (HeapTupleIsValid(tup))
	{
		createdb = ((Form_pg_authid) GETSTRUCT(tup))->rolcreatedb;
		ReleaseSysCache(tup);
	}
	return createdb;
}

/* Asks the database's worker to go and keeps it away until let_go. */
static void
hold_database(Node *stmt, const char *name)
{
	Oid			dboid = name ? get_database_oid(name, true) : InvalidOid;
	MqDatabase *d;
	uint32		worker;
	bool		wait;
	TimestampTz give_up = mq_time_add(mq_steady(), 10 * USECS_PER_SEC);

	if (!OidIsValid(dboid) || OidIsValid(held_database) || !may_have(stmt, dboid))
		return;
	mq_utility_init_session();
	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	d = mq_database(dboid, true);
	if (d == NULL)
	{
		LWLockRelease(mq_shared->registry);
		return;
	}
	d->holds++;
	held_database = dboid;
	wait = d->pid != 0;
	worker = pg_atomic_read_u32(&d->worker);
	if (wait)
		d->leave = true;
	LWLockRelease(mq_shared->registry);
	if (worker)
		SetLatch(&ProcGlobal->allProcs[worker - 1].procLatch);

	ConditionVariablePrepareToSleep(&mq_shared->worker_gone);
	while (wait && mq_steady() < give_up)
	{
		LWLockAcquire(mq_shared->registry, LW_SHARED);
		d = mq_database(dboid, false);
		wait = d && d->pid != 0;
		LWLockRelease(mq_shared->registry);
		if (wait)
			ConditionVariableTimedSleep(&mq_shared->worker_gone, 1000, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
let_go(bool committed)
{
	MqDatabase *d;

	if (!OidIsValid(held_database))
		return;
	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	d = mq_database(held_database, false);
	if (d && d->holds > 0)
		d->holds--;
	held_database = InvalidOid;
	LWLockRelease(mq_shared->registry);
	mq_launcher_poke();
}

/* The first LISTEN of this session: notifications are worth sending. */
static void
count_listener(void)
{
	MqDatabase *d;

	if (counted_listener)
		return;
	mq_utility_init_session();
	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	d = mq_database(MyDatabaseId, true);
	if (d)
	{
		d->listeners++;
		counted_listener = true;
	}
	LWLockRelease(mq_shared->registry);
}

/*
 * The worker notifies of the queues that have state in memory: sees to it that
 * the one of this channel has, with messages from before a restart.
 */
static void
attach_listened(const char *channel)
{
	Oid			nsp = mq_schema_oid(true);
	Oid			relid = InvalidOid;
	Relation	rel;
	MqDef	   *def;

	if (OidIsValid(nsp) && strncmp(channel, MQ_CHANNEL_PREFIX, strlen(MQ_CHANNEL_PREFIX)) == 0)
		relid = get_relname_relid(psprintf(MQ_TABLE_PREFIX "%s",
										   channel + strlen(MQ_CHANNEL_PREFIX)), nsp);
	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, AccessShareLock))
		return;
	def = mq_def_by_relid(relid);
	rel = def && def->refused == NULL ? try_relation_open(relid, NoLock) : NULL;
	if (rel)
	{
		mq_queue_expect(def, rel);
		relation_close(rel, NoLock);
	}
	UnlockRelationOid(relid, AccessShareLock);
}

static void
uncount_listener(void)
{
	MqDatabase *d;

	if (!counted_listener)
		return;
	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	d = mq_database(MyDatabaseId, false);
	if (d && d->listeners > 0)
		d->listeners--;
	counted_listener = false;
	LWLockRelease(mq_shared->registry);
}

/* The same if this database has the extension. */
static void
want_if_installed(void)
{
	if (OidIsValid(get_extension_oid("mq", true)))
		mq_worker_want();
}

/* The database that a statement wants to itself, or NULL. */
static const char *
database_wanted(Node *stmt)
{
	ListCell   *lc;
	const char *name = NULL;

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) stmt)->dbname;
		case T_CreatedbStmt:
			name = "template1";
			foreach(lc, ((CreatedbStmt *) stmt)->options)
			{
				DefElem    *e = lfirst_node(DefElem, lc);

				if (strcmp(e->defname, "template") == 0 && e->arg)
					name = defGetString(e);
			}
			return name;
		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) stmt)->options)
				if (strcmp(lfirst_node(DefElem, lc)->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) stmt)->dbname;
			return name;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) stmt)->subname;
			return NULL;
		default:
			return NULL;
	}
}

/* What launcher, worker and session leases have to know after a statement. */
typedef enum After
{
	AFTER_NOTHING,
	AFTER_DATABASES,
	AFTER_PREPARED,
	AFTER_DISCARD,
	AFTER_UNLISTEN,
	AFTER_LISTEN,
	AFTER_DROP
} After;

/* Found out before, since the tree may be gone afterwards. */
static After
what_after(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_AlterDatabaseStmt:
			return AFTER_DATABASES;
		case T_RenameStmt:
			return ((RenameStmt *) stmt)->renameType == OBJECT_DATABASE ?
				AFTER_DATABASES : AFTER_NOTHING;
		case T_TransactionStmt:
			switch (((TransactionStmt *) stmt)->kind)
			{
				case TRANS_STMT_COMMIT_PREPARED:
				case TRANS_STMT_ROLLBACK_PREPARED:
					return AFTER_PREPARED;
				default:
					return AFTER_NOTHING;
			}
		case T_DiscardStmt:
			return ((DiscardStmt *) stmt)->target == DISCARD_ALL ?
				AFTER_DISCARD : AFTER_NOTHING;
		case T_UnlistenStmt:
			return ((UnlistenStmt *) stmt)->conditionname == NULL ?
				AFTER_UNLISTEN : AFTER_NOTHING;
		case T_ListenStmt:
			return AFTER_LISTEN;
		case T_DropStmt:
		case T_DropOwnedStmt:
			return AFTER_DROP;
		default:
			return AFTER_NOTHING;
	}
}

static void
after_utility(After after)
{
	switch (after)
	{
		case AFTER_NOTHING:
			break;
		case AFTER_DATABASES:
			mq_worker_look_again();	/* before, the launcher sees the old list */
			break;
		case AFTER_PREPARED:
			want_if_installed();
			break;
		case AFTER_DISCARD:
			mq_release_session(MQ_REASON_SESSION);
			uncount_listener();
			break;
		case AFTER_UNLISTEN:
			uncount_listener();
			break;
		case AFTER_LISTEN:
			count_listener();
			want_if_installed();
			break;
		case AFTER_DROP:
			(void) mq_this_database();
			mq_worker_look_again();
			break;
	}
}

static void
run_utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_utility)
		prev_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, query, read_only_tree, context, params, env, dest, qc);
}

static void
utility(PlannedStmt *pstmt, const char *query, bool read_only_tree,
		ProcessUtilityContext context, ParamListInfo params,
		QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	const char *database = mq_shared ? database_wanted(pstmt->utilityStmt) : NULL;
	After		after = mq_shared ? what_after(pstmt->utilityStmt) : AFTER_NOTHING;
	char	   *channel = after == AFTER_LISTEN ?
		pstrdup(((ListenStmt *) pstmt->utilityStmt)->conditionname) : NULL;

	if (database == NULL)
		run_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
	else
	{
		PG_TRY();
		{
			hold_database(pstmt->utilityStmt, database);
			run_utility(pstmt, query, read_only_tree, context, params, env, dest, qc);
		}
		PG_CATCH();
		{
			let_go(false);
			PG_RE_THROW();
		}
		PG_END_TRY();

		/* until then the database is neither gone nor ours */
		mq_xact_at_end(let_go);
	}
	after_utility(after);
	if (channel)
		attach_listened(channel);
}

/* Puts the hook in place; called while preloaded. */
void
mq_utility_init(void)
{
	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
