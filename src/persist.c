/*-------------------------------------------------------------------------
 * persist.c
 *		Leases, receipts and counters over a clean restart.
 *
 * (After a crash there is less to know: see mirror.c.)
 *
 * The postmaster writes the file when it exits after a shutdown checkpoint,
 * and reads it when it starts.  The file names the system and the checkpoint it
 * belongs to: whatever else is started in the same folder (a restored backup, a
 * rewound or promoted server, one that ran without mq in between) has another
 * checkpoint, ignores and removes it; a start that fails before it has done
 * anything may be repeated.  Deadlines go on by the steady clock, unless the
 * machine was started anew; then by the wall clock.  Cursors are not saved: the first touch of a queue
 * scans.
 *
 * Nothing runs beside the postmaster at either time, so nobody contends for the
 * locks.
 */
#include "persist.h"

#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "clock.h"
#include "common/controldata_utils.h"
#include "guc.h"
#include "mirror.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#define FILE_NAME	"pg_stat/mq.state"
#define FILE_MAGIC	0x6d710904
#define MAX_RECEIPT	(INT64CONST(1) << 53)

typedef struct FileHeader
{
	uint32		magic;
	uint32		lease_size;		/* of the structs this file was written with */
	uint32		queue_size;
	uint64		system_identifier;
	uint64		checkpoint;
	int64		last_receipt;
	int32		nqueues;
	int32		nleases;
	int64		wall_ahead;		/* of the steady clock, for leases' deadlines */
	char		boot[40];		/* the machine's; "" if it does not tell */
} FileHeader;

typedef struct FileQueue
{
	Oid			dboid;
	Oid			relid;
	RelFileNumber relnode;
	bool		unlogged;
	bool		paused;
	MqPolicy	policy;
	MqCounters	n;
} FileQueue;

typedef struct FileLease
{
	Oid			dboid;
	Oid			relid;
	MqLease		lease;			/* its pointers mean nothing */
} FileLease;

static shmem_startup_hook_type prev_startup = NULL;

static bool
put(FILE *f, pg_crc32c *crc, const void *data, size_t size)
{
	COMP_CRC32C(*crc, data, size);
	return fwrite(data, size, 1, f) == 1;
}

static bool
get(FILE *f, pg_crc32c *crc, void *data, size_t size)
{
	if (fread(data, size, 1, f) != 1)
		return false;
	COMP_CRC32C(*crc, data, size);
	return true;
}

/* What tells this boot of the machine from others, if the system says. */
static void
read_boot(char *boot, Size size)
{
	FILE	   *f = AllocateFile("/proc/sys/kernel/random/boot_id", "r");

	memset(boot, 0, size);
	if (f == NULL)
		return;
	if (fgets(boot, size, f) == NULL)
		boot[0] = '\0';
	FreeFile(f);
}

static bool
put_queue(FILE *f, pg_crc32c *crc, MqQueue *q)
{
	FileQueue	fq;

	memset(&fq, 0, sizeof(fq));
	fq.dboid = q->dboid;
	fq.relid = q->relid;
	fq.relnode = q->relnode;
	fq.unlogged = q->unlogged;
	fq.paused = q->paused;
	fq.policy = q->policy;
	fq.n = q->n;
	/* their ends may come before the queue is looked at again */
	if (!dlist_is_empty(&q->prepared))
		fq.n.exact = fq.n.rows_exact = false;
	return put(f, crc, &fq, sizeof(fq));
}

/* Whether until is by the steady clock. */
static bool
is_deadline(const MqLease *l)
{
	return l->state == MQ_LEASE_HELD ||
		(l->state == MQ_LEASE_SETTLING && l->from == MQ_LEASE_HELD);
}

static bool
put_leases(FILE *f, pg_crc32c *crc, MqQueue *q, dlist_head *list)
{
	dlist_iter	iter;

	dlist_foreach(iter, list)
	{
		MqLease    *l = dlist_container(MqLease, node, iter.cur);
		FileLease	fl;

		memset(&fl, 0, sizeof(fl));
		fl.dboid = q->dboid;
		fl.relid = q->relid;
		fl.lease = *l;
		if (!put(f, crc, &fl, sizeof(fl)))
			return false;
	}
	return true;
}

/* The postmaster's last act. */
static void
save(int code, Datum arg)
{
	ControlFileData *control;
	bool		crc_ok;
	FileHeader	header;
	pg_crc32c	crc;
	FILE	   *f;
	bool		ok;

	if (code != 0 || mq_shared == NULL)
		return;
	control = get_controlfile(DataDir, &crc_ok);
	if (!crc_ok || control->state != DB_SHUTDOWNED)
		return;

	memset(&header, 0, sizeof(header));
	header.magic = FILE_MAGIC;
	header.lease_size = sizeof(FileLease);
	header.queue_size = sizeof(FileQueue);
	header.system_identifier = control->system_identifier;
	header.checkpoint = control->checkPoint;
	header.wall_ahead = mq_wall_of(0);
	read_boot(header.boot, sizeof(header.boot));
	header.last_receipt = (int64) pg_atomic_read_u64(&mq_shared->last_receipt);
	for (int i = 0; i < mq_max_queues; i++)
		if (mq_queues[i].used)
		{
			header.nqueues++;
			header.nleases += mq_queues[i].nleases;
		}

	f = AllocateFile(FILE_NAME ".tmp", PG_BINARY_W);
	if (f == NULL)
	{
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("could not write file \"%s\": %m", FILE_NAME ".tmp"),
					  errdetail("What is in flight will count as failed, as after a crash.")));
		return;
	}
	INIT_CRC32C(crc);
	ok = put(f, &crc, &header, sizeof(header));
	for (int i = 0; ok && i < mq_max_queues; i++)
		if (mq_queues[i].used)
			ok = put_queue(f, &crc, &mq_queues[i]);
	for (int i = 0; ok && i < mq_max_queues; i++)
		if (mq_queues[i].used)
			ok = put_leases(f, &crc, &mq_queues[i], &mq_queues[i].leases) &&
				put_leases(f, &crc, &mq_queues[i], &mq_queues[i].failed);
	FIN_CRC32C(crc);
	ok = ok && fwrite(&crc, sizeof(crc), 1, f) == 1;
	ok = FreeFile(f) == 0 && ok;
	if (!ok)
	{
		ereport(LOG, (errcode_for_file_access(),
					  errmsg("could not write file \"%s\": %m", FILE_NAME ".tmp"),
					  errdetail("What is in flight will count as failed, as after a crash.")));
		unlink(FILE_NAME ".tmp");
		return;
	}
	if (durable_rename(FILE_NAME ".tmp", FILE_NAME, LOG) == 0)
		mq_mirror_close();
}

/* Takes one saved lease over, its deadline (of the steady clock) being later. */
static void
restore_lease(const FileLease *fl, int64 later)
{
	MqQueue    *q = mq_queue_find(fl->dboid, fl->relid, NULL);
	MqLease    *l;

	if (q == NULL || mq_lease_find(q, fl->lease.id) != NULL)
		return;
	l = mq_lease_new(q, fl->lease.id);
	if (l == NULL)
		return;					/* mq.max_in_flight was lowered */
	l->receipt = fl->lease.receipt;
	l->leased_at = fl->lease.leased_at;
	l->write_after = DT_NOBEGIN;
	l->until = fl->lease.until;
	l->due = fl->lease.due;
	if (is_deadline(&fl->lease) && l->until != DT_NOEND)
		l->until = mq_time_add(l->until, later);
	l->duration = fl->lease.duration;
	mq_count_lease(l, fl->lease.ready_at);
	l->tid = fl->lease.tid;
	l->relnode = fl->lease.relnode;
	l->attempts = fl->lease.attempts;
	l->priority = fl->lease.priority;
	l->from = fl->lease.from;
	l->verb = fl->lease.verb;
	l->reason = fl->lease.reason;
	l->session = fl->lease.session;
	l->unwritten = fl->lease.unwritten;
	l->astray = fl->lease.astray;
	l->holder = -1;
	l->pid = fl->lease.pid;
	l->settler = -1;
	l->xid = fl->lease.xid;
	l->gone_xid = fl->lease.gone_xid;
	l->gone_moves = fl->lease.gone_moves;
	l->gone_other_time = fl->lease.gone_other_time;
	l->gone_priority = fl->lease.gone_priority;
	l->gone_ready_at = fl->lease.gone_ready_at;
	l->behind = fl->lease.behind;
	l->dead = fl->lease.dead;
	strlcpy(l->consumer, fl->lease.consumer, NAMEDATALEN);
	l->state = fl->lease.state;
	if (TransactionIdIsValid(l->xid))
		mq_queue_await(q, l->xid);
	if (TransactionIdIsValid(l->gone_xid))
		mq_queue_await(q, l->gone_xid);
	if (l->state == MQ_LEASE_FAILED ||
		(l->state == MQ_LEASE_SETTLING && l->from == MQ_LEASE_FAILED))
	{
		dlist_delete(&l->node);
		dlist_push_tail(&q->failed, &l->node);
		q->nfailed++;
	}
	mq_lease_set_held(l, is_deadline(&fl->lease));
	mq_lease_set_dropping(l, fl->lease.dropping);
	mq_lease_set_timer(l);
	if (!l->dropping)
		mq_lease_mirror(l);
}

/* What was in flight when the server died is a failed delivery. */
static void
restore_crashed(const MqMirrored *m)
{
	bool		created;
	MqQueue    *q = mq_queue_create(m->dboid, m->relid, &created);
	MqLease    *l;

	if (q == NULL)
		return;
	l = mq_lease_find(q, m->id) ? NULL : mq_lease_new(q, m->id);
	if (l == NULL)
	{
		mq_unlock(q->partition);
		return;
	}
	l->receipt = 0;				/* nobody has one for it */
	l->attempts = m->attempts;
	l->reason = m->reason;
	l->unwritten = true;
	l->priority = m->priority;
	l->relnode = InvalidRelFileNumber;
	ItemPointerSetInvalid(&l->tid);
	l->leased_at = mq_now();
	l->duration = 0;
	l->session = false;
	l->holder = l->settler = -1;
	l->pid = 0;
	l->consumer[0] = '\0';
	l->due = m->due == DT_NOBEGIN ? mq_now() : m->due;
	mq_lease_put_back(l, DT_NOBEGIN);
	l->write_after = mq_time_add(mq_steady(), USECS_PER_SEC / 2);	/* consumers first */
	mq_unlock(q->partition);
}

/*
 * Reads the state the last shutdown left behind.  Returns false if it is not
 * this server's.
 */
static bool
load(FILE *f)
{
	ControlFileData *control;
	bool		crc_ok;
	FileHeader	header;
	pg_crc32c	crc;
	pg_crc32c	expected;
	FileQueue  *queues = NULL;
	FileLease  *leases = NULL;
	char		boot[sizeof(header.boot)];
	int64		later;

	INIT_CRC32C(crc);
	if (!get(f, &crc, &header, sizeof(header)) ||
		header.magic != FILE_MAGIC || header.lease_size != sizeof(FileLease) ||
		header.queue_size != sizeof(FileQueue))
		return false;
	control = get_controlfile(DataDir, &crc_ok);
	if (!crc_ok || control->state != DB_SHUTDOWNED ||
		control->system_identifier != header.system_identifier ||
		control->checkPoint != header.checkpoint ||
		header.nqueues < 0 || header.nleases < 0)
		return false;
	queues = palloc_extended(sizeof(FileQueue) * (Size) (header.nqueues + 1), MCXT_ALLOC_HUGE);
	leases = palloc_extended(sizeof(FileLease) * (Size) (header.nleases + 1), MCXT_ALLOC_HUGE);
	for (int i = 0; i < header.nqueues; i++)
		if (!get(f, &crc, &queues[i], sizeof(FileQueue)))
			return false;
	for (int i = 0; i < header.nleases; i++)
		if (!get(f, &crc, &leases[i], sizeof(FileLease)))
			return false;
	FIN_CRC32C(crc);
	if (fread(&expected, sizeof(expected), 1, f) != 1 || !EQ_CRC32C(crc, expected))
		return false;

	/* after a reboot the steady clock is another: the wall clock must do */
	read_boot(boot, sizeof(boot));
	if (boot[0] && strcmp(boot, header.boot) == 0)
	{
		later = 0;
		mq_clock_remember(header.wall_ahead);
	}
	else
		later = header.wall_ahead - mq_wall_of(0);

	pg_atomic_write_u64(&mq_shared->last_receipt, (uint64) header.last_receipt);
	for (int i = 0; i < header.nqueues; i++)
	{
		bool		created;
		MqQueue    *q = mq_queue_create(queues[i].dboid, queues[i].relid, &created);

		if (q == NULL)
			break;				/* mq.max_queues was lowered */
		q->relnode = queues[i].relnode;
		q->unlogged = queues[i].unlogged;
		q->paused = queues[i].paused;
		q->paused_known = true;
		q->policy = queues[i].policy;
		q->n = queues[i].n;
		q->n.recounting = q->n.counting = false;
		q->n.count_next = q->n.recounted = DT_NOBEGIN;
		mq_unlock(q->partition);
	}
	for (int i = 0; i < header.nleases; i++)
	{
		int			partition = mq_partition_of(leases[i].dboid, leases[i].relid);

		mq_lock(partition);
		restore_lease(&leases[i], later);
		mq_unlock(partition);
	}
	pfree(queues);
	pfree(leases);
	return true;
}

static void
startup(void)
{
	FILE	   *f;
	bool		ours = false;
	MqMirrored *crashed;
	int			ncrashed;
	int64		last_receipt;

	if (prev_startup)
		prev_startup();
	if (IsUnderPostmaster)
		return;
	on_shmem_exit(save, (Datum) 0);

	crashed = mq_mirror_open(&ncrashed, &last_receipt);

	/* as a standby, or restored: whatever was in flight here, is no more */
	if (access(STANDBY_SIGNAL_FILE, F_OK) == 0 || access(RECOVERY_SIGNAL_FILE, F_OK) == 0 ||
		access(BACKUP_LABEL_FILE, F_OK) == 0)
		ncrashed = 0;
	else if ((f = AllocateFile(FILE_NAME, PG_BINARY_R)) != NULL)
	{
		ours = load(f);
		FreeFile(f);
	}
	if (!ours)
	{
		/* the last receipt may be one that was drawn at the same time as a later */
		if (last_receipt > 0 && last_receipt < MAX_RECEIPT)
			pg_atomic_write_u64(&mq_shared->last_receipt, (uint64) last_receipt + USECS_PER_SEC);
		for (int i = 0; i < ncrashed; i++)
			restore_crashed(&crashed[i]);
	}
	/* should the next crash come before the next receipt */
	mq_mirror_receipt((int64) pg_atomic_read_u64(&mq_shared->last_receipt));
	if (crashed)
		pfree(crashed);
	/* kept, should this start fail: once it has not, the checkpoint is another */
	if (!ours)
		unlink(FILE_NAME);
}

/* The server has started: what was saved is of no use any more. */
void
mq_persist_forget(void)
{
	unlink(FILE_NAME);
}

/* Installs the hook, behind that of shmem.c. */
void
mq_persist_init(void)
{
	prev_startup = shmem_startup_hook;
	shmem_startup_hook = startup;
}
