/*-------------------------------------------------------------------------
 * worker.c
 *		The launcher, one worker a database, and the statements both make way
 *		for.
 *
 * The launcher, connected to no database, knows from pg_database which there
 * are.  It starts a worker in each once; a worker that finds no extension
 * reports that and exits, and is started again when somebody asks: CREATE
 * EXTENSION at its commit, or whoever uses a queue and sees no worker.
 *
 * A worker sleeps on its latch until the next thing it knows to do.  Who makes
 * something due earlier wakes it (mq_worker_poke):
 *	  1. worker: next_wake := infinity		(every poke sets the latch)
 *	  2. worker: looks at all queues, computes the next time
 *	  3. worker: next_wake := that time, then sleeps unless the latch is set
 *	  A poke between 1 and 3 sets the latch; one after 3 sets it if it is for an
 *	  earlier time.
 *
 * DROP DATABASE, CREATE DATABASE ... TEMPLATE and ALTER DATABASE want the
 * database to themselves: the utility hook puts a hold on it, asks its worker to
 * leave, waits for that, and lifts the hold when the statement has ended,
 * however it ended.
 */
#include "worker.h"

#include <unistd.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "archive.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "clock.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "dedup.h"
#include "guc.h"
#include "persist.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#define RETRY_START		(10 * USECS_PER_SEC)
#define RETRY_CRASHED	(1 * USECS_PER_SEC)
#define LOOK_AROUND_MS	60000L
#define MUTE			(5 * USECS_PER_SEC)

static ProcessUtility_hook_type prev_utility = NULL;

/* What this process must give back when it exits. */
static bool exit_registered = false;
static Oid	held_database = InvalidOid;
static bool counted_listener = false;

/* ------------------------------------------------------------- the worker */

/* The worker's last word, whatever the reason. */
static void
worker_exit(int code, Datum arg)
{
	Oid			dboid = DatumGetObjectId(arg);
	MqDatabase *d;

	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	d = mq_database(dboid, false);
	if (d && d->pid == MyProcPid)
	{
		pg_atomic_write_u32(&d->worker, 0);
		d->pid = 0;
		if (d->state != MQ_DB_NONE)
		{
			d->state = MQ_DB_WANTED;
			d->retry = mq_time_add(mq_steady(), d->leave ? 0 : RETRY_CRASHED);
		}
		d->leave = false;
	}
	LWLockRelease(mq_shared->registry);
	ConditionVariableBroadcast(&mq_shared->worker_gone);
	mq_launcher_poke();
}

/* The queues of this database that have state in memory. */
static List *
queues_here(void)
{
	List	   *relids = NIL;
	Oid		   *found = palloc(sizeof(Oid) * mq_max_queues);

	for (int p = 0; p < MQ_PARTITIONS; p++)
	{
		dlist_iter	iter;
		int			n = 0;

		mq_lock(p);
		dlist_foreach(iter, &mq_shared->partition[p])
		{
			MqQueue    *q = dlist_container(MqQueue, node, iter.cur);

			if (q->dboid == MyDatabaseId)
				found[n++] = q->relid;
		}
		mq_unlock(p);
		for (int i = 0; i < n; i++)
			relids = lappend_oid(relids, found[i]);
	}
	pfree(found);
	return relids;
}

/*
 * Whether the extension is (still) there.  Queues whose table is not are
 * forgotten; one that is locked may be of a transaction that has yet to commit.
 */
static bool
extension_exists(List *relids)
{
	bool		exists;
	ListCell   *lc;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	exists = OidIsValid(get_extension_oid("mq", true));
	foreach(lc, relids)
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lfirst_oid(lc))) &&
			ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock) &&
			!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lfirst_oid(lc))))
			mq_forget_queue(MyDatabaseId, lfirst_oid(lc));
	CommitTransactionCommand();
	return exists;
}

/* The same queues, those behind this one first. */
static List *
begin_after(List *relids, Oid relid)
{
	List	   *turned = NIL;
	bool		behind = false;
	ListCell   *lc;

	if (!list_member_oid(relids, relid))
		return relids;
	foreach(lc, relids)
	{
		if (behind)
			turned = lappend_oid(turned, lfirst_oid(lc));
		behind |= lfirst_oid(lc) == relid;
	}
	foreach(lc, relids)
	{
		turned = lappend_oid(turned, lfirst_oid(lc));
		if (lfirst_oid(lc) == relid)
			break;
	}
	return turned;
}

/* Entry point of a database's worker; the argument is the database's oid. */
void
mq_worker_main(Datum arg)
{
	Oid			dboid = DatumGetObjectId(arg);
	MqDatabase *d;
	MemoryContext context;
	bool		leave = false;
	sigjmp_buf	jump;
	volatile TimestampTz not_before = DT_NOBEGIN;
	volatile TimestampTz mute_until = DT_NOBEGIN;
	volatile Oid doing = InvalidOid;
	volatile Oid failed = InvalidOid;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();

	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	d = mq_database(dboid, false);
	if (d && d->holds == 0 && d->pid == 0)
	{
		d->pid = MyProcPid;
		d->state = MQ_DB_STARTING;
	}
	else
		leave = true;
	LWLockRelease(mq_shared->registry);
	if (leave)
		proc_exit(0);
	before_shmem_exit(worker_exit, arg);

	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	SetConfigOption("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("lock_timeout", "1s", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION);
	SetConfigOption("application_name", "mq worker", PGC_USERSET, PGC_S_SESSION);

	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	if (d->dboid == dboid && d->holds == 0)
	{
		d->state = MQ_DB_RUNNING;
		pg_atomic_write_u64(&d->next_wake, (uint64) DT_NOEND);
		pg_atomic_write_u32(&d->worker, MqMyProcNumber() + 1);
	}
	else
		leave = true;
	LWLockRelease(mq_shared->registry);
	if (leave)
		proc_exit(0);

	context = AllocSetContextCreate(TopMemoryContext, "mq worker", ALLOCSET_DEFAULT_SIZES);

	/*
	 * An error ends the pass, not the worker; the next pass begins behind the
	 * queue it came from.  With NOTIFY out of order the other work goes on.
	 */
	if (sigsetjmp(jump, 1) != 0)
	{
		error_context_stack = NULL;
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortCurrentTransaction();
		LWLockReleaseAll();
		FlushErrorState();
		RESUME_INTERRUPTS();
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);
		not_before = mq_time_add(mq_steady(), USECS_PER_SEC);
		failed = doing;
		if (mq_maint_notifying)
			mute_until = mq_time_add(mq_steady(), MUTE);
		mq_maint_notifying = false;
	}
	PG_exception_stack = &jump;

	for (;;)
	{
		TimestampTz next = DT_NOEND;
		bool		listened;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		pg_atomic_write_u64(&d->next_wake, (uint64) DT_NOEND);
		pg_memory_barrier();
		ResetLatch(MyLatch);

		LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
		leave = d->leave || d->holds > 0;
		listened = d->listeners > 0;
		LWLockRelease(mq_shared->registry);
		if (leave)
			proc_exit(0);
		if (not_before <= mq_steady())
		{
			List	   *relids;
			TimestampTz dedup;
			TimestampTz archives;

			MemoryContextSwitchTo(context);
			relids = queues_here();
			if (!extension_exists(relids))
			{
				LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
				d->state = MQ_DB_NONE;
				pg_atomic_write_u32(&d->worker, 0);
				LWLockRelease(mq_shared->registry);
				/* whoever makes it from now on sees that there is no worker */
				if (!extension_exists(NIL))
					proc_exit(0);
				LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
				d->state = MQ_DB_RUNNING;
				pg_atomic_write_u32(&d->worker, MqMyProcNumber() + 1);
				LWLockRelease(mq_shared->registry);
			}
			if (mq_sweep_attach_due())
			{
				mq_sweep_attach();
				MemoryContextSwitchTo(context);
				relids = queues_here();
			}
			relids = begin_after(relids, failed);
			failed = InvalidOid;
			if (listened && mute_until > mq_steady())
			{
				listened = false;
				next = mute_until;
			}
			foreach(lc, relids)
			{
				TimestampTz again;

				MemoryContextSwitchTo(context);
				doing = lfirst_oid(lc);
				again = mq_maint_queue(doing, listened);	/* not within Min: it would run twice */
				next = Min(next, again);
				doing = InvalidOid;
				CHECK_FOR_INTERRUPTS();
			}
			MemoryContextSwitchTo(context);
			dedup = mq_dedup_clean();
			next = Min(next, dedup);
			archives = mq_archive_upkeep();
			next = Min(next, archives);
			MemoryContextReset(context);
			pgstat_report_stat(true);
			pgstat_report_activity(STATE_IDLE, NULL);
		}
		else
			next = not_before;

		pg_atomic_write_u64(&d->next_wake, (uint64) next);
		pg_memory_barrier();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					   mq_ms_until(next, mq_steady(), LOOK_AROUND_MS), PG_WAIT_EXTENSION);
	}
}

/* ----------------------------------------------------------- the launcher */

static BackgroundWorkerHandle *handles[MQ_DATABASES];

static void
launcher_exit(int code, Datum arg)
{
	mq_shared->launcher = -1;
}

static List *all_databases = NIL;

static bool
database_gone(Oid dboid)
{
	return !list_member_oid(all_databases, dboid);
}

/*
 * Brings the list of databases up to date, and forgets the queues of those that
 * are gone.
 */
static void
list_databases(void)
{
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tup;
	bool		seen[MQ_DATABASES] = {false};

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tup = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tup);
		MqDatabase *d;
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		all_databases = lappend_oid(all_databases, form->oid);
		MemoryContextSwitchTo(old);
		if (form->datistemplate || !form->datallowconn ||
			form->datconnlimit == DATCONNLIMIT_INVALID_DB)
			continue;
		LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
		d = mq_database(form->oid, true);
		if (d)
		{
			seen[d - mq_shared->databases] = true;
			if (d->state == MQ_DB_UNKNOWN)
				d->state = MQ_DB_WANTED;
		}
		LWLockRelease(mq_shared->registry);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	PopActiveSnapshot();
	CommitTransactionCommand();
	mq_forget_databases(database_gone);
	list_free(all_databases);
	all_databases = NIL;

	LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
	for (int i = 0; i < mq_shared->ndatabases; i++)
	{
		MqDatabase *d = &mq_shared->databases[i];

		if (seen[i] || !OidIsValid(d->dboid) || d->holds > 0)
			continue;
		if (d->pid == 0)
			d->dboid = InvalidOid;	/* dropped, or none of ours any more */
		else if (!d->leave)
		{
			uint32		worker = pg_atomic_read_u32(&d->worker);

			d->leave = true;
			if (worker)
				SetLatch(&ProcGlobal->allProcs[worker - 1].procLatch);
		}
	}
	LWLockRelease(mq_shared->registry);
}

/* Starts a worker; false if there is no slot. */
static bool
start_worker(Oid dboid, BackgroundWorkerHandle **handle)
{
	BackgroundWorker w;

	memset(&w, 0, sizeof(w));
	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_RecoveryFinished;
	w.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(w.bgw_library_name, "mq", BGW_MAXLEN);
	strlcpy(w.bgw_function_name, "mq_worker_main", BGW_MAXLEN);
	snprintf(w.bgw_name, BGW_MAXLEN, "mq worker for database %u", dboid);
	strlcpy(w.bgw_type, "mq worker", BGW_MAXLEN);
	w.bgw_main_arg = ObjectIdGetDatum(dboid);
	w.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&w, handle);
}

/* Starts what is wanted; returns when to look again. */
static TimestampTz
start_workers(void)
{
	TimestampTz now = mq_steady();
	TimestampTz next = DT_NOEND;
	static TimestampTz complained = DT_NOBEGIN;

	for (int i = 0; i < MQ_DATABASES; i++)
	{
		MqDatabase *d = &mq_shared->databases[i];
		Oid			dboid = InvalidOid;
		pid_t		pid;

		LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
		if (i < mq_shared->ndatabases && OidIsValid(d->dboid))
		{
			/* one that died before it could say so */
			if (d->state == MQ_DB_STARTING && d->pid == 0 &&
				(handles[i] == NULL ||	/* another launcher's */
				 GetBackgroundWorkerPid(handles[i], &pid) == BGWH_STOPPED))
			{
				d->state = MQ_DB_WANTED;
				d->retry = mq_time_add(now, RETRY_CRASHED);
			}
			if (d->state == MQ_DB_WANTED && d->holds == 0 && d->pid == 0)
			{
				if (d->retry <= now)
				{
					dboid = d->dboid;
					d->state = MQ_DB_STARTING;
				}
				else
					next = Min(next, d->retry);
			}
		}
		LWLockRelease(mq_shared->registry);
		if (!OidIsValid(dboid))
			continue;

		if (handles[i])
			pfree(handles[i]);
		handles[i] = NULL;
		if (!start_worker(dboid, &handles[i]))
		{
			handles[i] = NULL;
			LWLockAcquire(mq_shared->registry, LW_EXCLUSIVE);
			d->state = MQ_DB_WANTED;
			d->retry = mq_time_add(now, RETRY_START);
			next = Min(next, d->retry);
			LWLockRelease(mq_shared->registry);
			if (complained < now)
				ereport(LOG,
						(errmsg("mq could not start a worker for database %u: no background worker slot is free", dboid),
						 errdetail("Dequeue, ack and wake-ups go on without it; failed deliveries are written later and LISTEN gets no notifications."),
						 errhint("Raise max_worker_processes (now %d).", max_worker_processes)));
			complained = mq_time_add(now, 60 * USECS_PER_SEC);
		}
	}
	return next;
}

/* Entry point of the launcher. */
void
mq_launcher_main(Datum arg)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	MemoryContextSwitchTo(TopMemoryContext);

	mq_persist_forget();
	before_shmem_exit(launcher_exit, (Datum) 0);
	mq_shared->launcher = MqMyProcNumber();

	for (;;)
	{
		TimestampTz next;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		ResetLatch(MyLatch);
		list_databases();
		MemoryContextSwitchTo(TopMemoryContext);
		next = start_workers();
		pgstat_report_activity(STATE_IDLE, NULL);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 mq_ms_until(next, mq_steady(), LOOK_AROUND_MS), PG_WAIT_EXTENSION);
	}
}

/* --------------------------------------- statements that concern a worker */

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
mq_worker_init_session(void)
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
	mq_worker_init_session();
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
	mq_worker_init_session();
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

static void
poke_both(bool committed)
{
	mq_worker_poke(DT_NOBEGIN);
	mq_launcher_poke();
}

/* One started meanwhile may have found no extension and gone. */
static void
want_now(bool committed)
{
	if (!committed)
		return;
	mq_worker_ensure();
	poke_both(true);
}

/* There is a worker, and it looks again, once this transaction commits. */
void
mq_worker_want(void)
{
	mq_worker_ensure();
	mq_xact_at_end(want_now);
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
			mq_xact_at_end(poke_both);	/* before, the launcher sees the old list */
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
			mq_xact_at_end(poke_both);
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

/* Registers the launcher and the hook; called while preloaded. */
void
mq_worker_init(void)
{
	BackgroundWorker w;

	memset(&w, 0, sizeof(w));
	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_RecoveryFinished;
	w.bgw_restart_time = 1;
	strlcpy(w.bgw_library_name, "mq", BGW_MAXLEN);
	strlcpy(w.bgw_function_name, "mq_launcher_main", BGW_MAXLEN);
	strlcpy(w.bgw_name, "mq launcher", BGW_MAXLEN);
	strlcpy(w.bgw_type, "mq launcher", BGW_MAXLEN);
	if (!IsBinaryUpgrade)
		RegisterBackgroundWorker(&w);

	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
}
