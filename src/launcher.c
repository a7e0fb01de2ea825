/*-------------------------------------------------------------------------
 * launcher.c
 *		Starts a worker in each database.
 *
 * The launcher, connected to no database, knows from pg_database which there
 * are.  It starts a worker in each once; a worker that finds no extension
 * reports that and exits, and is started again when somebody asks: CREATE
 * EXTENSION at its commit, or whoever uses a queue and sees no worker.
 *-------------------------------------------------------------------------
 */
#include "launcher.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "clock.h"
#include "forget.h"
#include "persist.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define RETRY_START		(10 * USECS_PER_SEC)

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
				d->retry = mq_time_add(now, MQ_WORKER_RETRY);
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
						 mq_ms_until(next, mq_steady(), MQ_LOOK_AROUND_MS), PG_WAIT_EXTENSION);
	}
}

/* Registers the launcher; called while preloaded. */
void
mq_launcher_init(void)
{
	BackgroundWorker w;

	if (IsBinaryUpgrade)
		return;
	memset(&w, 0, sizeof(w));
	w.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	w.bgw_start_time = BgWorkerStart_RecoveryFinished;
	w.bgw_restart_time = 1;
	strlcpy(w.bgw_library_name, "mq", BGW_MAXLEN);
	strlcpy(w.bgw_function_name, "mq_launcher_main", BGW_MAXLEN);
	strlcpy(w.bgw_name, "mq launcher", BGW_MAXLEN);
	strlcpy(w.bgw_type, "mq launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&w);
}
