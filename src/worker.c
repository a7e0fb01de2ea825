/*-------------------------------------------------------------------------
 * worker.c
 *		One worker a database.
 *
 * A worker sleeps on its latch until the next thing it knows to do.  Who makes
 * something due earlier wakes it (mq_worker_poke):
 *	  1. worker: next_wake := infinity		(every poke sets the latch)
 *	  2. worker: looks at all queues, computes the next time
 *	  3. worker: next_wake := that time, then sleeps unless the latch is set
 *	  A poke between 1 and 3 sets the latch; one after 3 sets it if it is for an
 *	  earlier time.
 *
 * The launcher (launcher.c) starts it; one that finds no extension reports that
 * and exits.  What it does for a queue is in maint.c.
 *-------------------------------------------------------------------------
 */
#include "worker.h"

#include "access/xact.h"
#include "archive.h"
#include "clock.h"
#include "commands/extension.h"
#include "dedup.h"
#include "forget.h"
#include "guc.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#define MUTE			(5 * USECS_PER_SEC)

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
			d->retry = mq_time_add(mq_steady(), d->leave ? 0 : MQ_WORKER_RETRY);
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
					   mq_ms_until(next, mq_steady(), MQ_LOOK_AROUND_MS), PG_WAIT_EXTENSION);
	}
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

/* Worker and launcher look again, once this transaction has ended. */
void
mq_worker_look_again(void)
{
	mq_xact_at_end(poke_both);
}
