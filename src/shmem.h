/*-------------------------------------------------------------------------
 * shmem.h
 *		Layout of the shared state, and the order of its locks.
 *
 * See shmem.c for the essay.  Each field below says who changes it; unless
 * told otherwise it is read and written under its partition's lock.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_SHMEM_H
#define MQ_SHMEM_H

#include "mq.h"

#include "access/transam.h"
#include "lib/ilist.h"
#include "lib/pairingheap.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"
#include "storage/spin.h"

#define MQ_PARTITIONS		64
#define MQ_STOCK_FRESH		256 /* rows read ahead in the fresh lane */
#define MQ_STOCK_OTHER		16	/* ... in each of the others */
#define MQ_LATE_MAX			128
#define MQ_BLOCKED_MAX		64
#define MQ_DATABASES		256
#define MQ_RECOUNT_LOG		8192
#define MQ_COUNTED_XIP		256
#define MQ_EXPIRED_MAX		128

/* A row known to be deliverable, read ahead by a scan or by a late commit. */
typedef struct MqStock
{
	MqPos		pos;
	ItemPointerData tid;
} MqStock;

/*
 * One lane of one queue.  See lane.c for the protocol.
 */
typedef struct MqLane
{
	MqPos		cursor;			/* all rows up to here are known to lists */
	MqPos		low;			/* least position committed above the cursor
								 * since the running scan began */
	TimestampTz next_due;		/* due lanes: no row above the cursor comes
								 * due before; DT_NOEND: none at all */
	bool		empty;			/* other lanes: nothing above the cursor */
	bool		stuck;			/* a scan stopped before a row somebody holds,
								 * the blocked list being full */
	int			scanner;		/* process number of the scan right's holder,
								 * or -1 */
	uint32		resets;			/* counts lane resets: a scan that was running
								 * across one throws its findings away */
	uint16		stock_head;
	uint16		stock_n;
	uint16		stock_max;
	MqStock    *stock;			/* ring of stock_max entries, ascending */
} MqLane;

/*
 * A commit that came after the cursor had passed its rows: one row (lo = hi,
 * with its TID if known) or a range of ids in the fresh lane.
 */
typedef struct MqLate
{
	MqPos		lo;
	int64		hi;				/* last id of a range; lo.id for one row */
	ItemPointerData tid;
	uint8		lane;
} MqLate;

/* Rows that were skipped because a transaction holds them. */
typedef struct MqBlocked
{
	MqPos		lo;
	int64		hi;
	ItemPointerData tid;
	TransactionId xid;			/* who holds it (a multixact if multi) */
	bool		multi;
	uint8		lane;
} MqBlocked;

/* The options that say how much may be delivered at once.  See throttle.c. */
typedef struct MqThrottle
{
	int64		max_in_flight;	/* 0: without limit */
	double		rate_limit;		/* deliveries a second; 0: without limit */
} MqThrottle;

/* A place in the expiry index: all entries up to here, in its order. */
typedef struct MqExpiryPos
{
	TimestampTz t;
	ItemPointerData tid;
} MqExpiryPos;

/* An expired row behind the expiry position; see expiry.c. */
typedef struct MqExpired
{
	int64		id;
	ItemPointerData tid;
	TimestampTz at;				/* its expires_at */
	TimestampTz after;			/* to be looked at again then; steady */
} MqExpired;

/*
 * What a prepared transaction will do to a queue once it ends.
 */
typedef struct MqPrepared
{
	dlist_node	node;			/* in the queue's list or the free list */
	TransactionId xid;
	bool		rescan;			/* start all lanes again whatever its outcome */
	bool		truncate;		/* ... and drop leases and counts if it commits */
	bool		changed;		/* the definition: what follows if it commits */
	bool		paused;
	bool		ordered;
	bool		dropped;
	MqThrottle	throttle;
	int64		fresh_lo;		/* its fresh rows, 0 = none */
	int64		fresh_hi;
	int64		rows;			/* change of the number of rows if it commits */
	int64		enqueued;
	TimestampTz expires_at;		/* least of its fresh rows; DT_NOEND: none */
	int64		reserved;		/* in the queue's length */
	bool		unknown;		/* brought back by a restart: what it did to the
								 * queue is not known here */
} MqPrepared;

/*
 * State of a lease.  OPEN: taken by a transaction that is still open.
 * HELD: delivered, waiting for its ack.  SETTLING: an open transaction is
 * settling it (from says where it returns if that fails).  FAILED: the
 * delivery failed; the message waits for its retry, known only here until the
 * worker writes it into the row.
 */
typedef enum MqLeaseState
{
	MQ_LEASE_FREE,
	MQ_LEASE_OPEN,
	MQ_LEASE_HELD,
	MQ_LEASE_SETTLING,
	MQ_LEASE_FAILED
} MqLeaseState;

/*
 * An ordered queue's key that has something to remember.  See key.c.
 */
typedef enum MqKeyState
{
	MQ_KEY_IDLE,				/* nothing waits; kept for its base */
	MQ_KEY_READY,				/* a claimer shall look for its first row */
	MQ_KEY_BUSY,				/* one is looking */
	MQ_KEY_WAIT,				/* its first row is in a list or lane, or will be
								 * when its time comes or its holder ends */
	MQ_KEY_HELD,				/* a row of it is leased */
	MQ_KEY_STATES
} MqKeyState;

#define MQ_KEY_TEXT		40		/* longer keys take several entries */

typedef struct MqKey
{
	uint64		hash;			/* of the text */
	struct MqQueue *queue;
	struct MqKey *next;			/* in its bucket, or in the free list */
	struct MqKey *more;			/* the rest of the text, each an MqKeyRest */
	dlist_node	node;			/* in queue->keys[state] */
	int64		base;			/* no row of it is there below this id, but for
								 * commits after seq (queue->key_floors) */
	uint64		seq;			/* queue->key_seq when base was found */
	int64		walk_low;		/* least id parked since the last walk began */
	int			nleases;		/* leases that hold it; more than one only if
								 * they are from before the queue was ordered */
	int			walker;			/* BUSY: process number; else -1 */
	uint16		len;
	uint8		state;			/* MqKeyState */
	bool		parked;			/* rows of it may be in no list and no lane: a
								 * walk from base finds them */
	bool		changed;		/* something happened to it while BUSY */
	char		text[MQ_KEY_TEXT];
} MqKey;

typedef struct MqKeyRest
{
	struct MqKey *more;
	char		text[sizeof(MqKey) - sizeof(struct MqKey *)];
} MqKeyRest;

/* Commits after the seq before the entry's brought ids from lo on. */
#define MQ_KEY_FLOORS	32
typedef struct MqKeyFloor
{
	uint64		seq;
	int64		lo;
} MqKeyFloor;

/* What a lease knows of its message's key. */
typedef enum MqKeyKnown
{
	MQ_KEY_UNKNOWN,				/* nothing: taken unordered, or restored */
	MQ_KEY_PENDING,				/* its claimer is about to find out */
	MQ_KEY_KNOWN				/* MqLease.key; NULL: it has none */
} MqKeyKnown;

/* Which of its queue's heaps a lease is in. */
typedef enum MqTimer
{
	MQ_TIMER_NONE,
	MQ_TIMER_DEADLINE,
	MQ_TIMER_RETRY,				/* that of its priority */
	MQ_TIMER_ASLEEP
} MqTimer;

typedef struct MqLease
{
	int64		id;
	int64		receipt;
	struct MqQueue *queue;
	struct MqLease *next;		/* in its bucket, or in the free list */
	dlist_node	node;			/* in queue->leases or queue->failed */
	pairingheap_node timer;		/* in the heap that timed_in names */
	TimestampTz leased_at;
	TimestampTz write_after;	/* FAILED: the worker leaves it alone until
								 * then, writing it having failed; steady */
	TimestampTz until;			/* HELD: deadline, steady clock; FAILED: when a
								 * claimer may have it, wall clock: due, or later
								 * if somebody held the row */
	TimestampTz due;			/* unwritten: what ready_at will be, wall clock:
								 * its position in its priority's due lane */
	int64		duration;		/* length of the lease, microseconds; < 0: as
								 * long as the session lives */
	TimestampTz ready_at;		/* of the row as far as known here; DT_NOBEGIN:
								 * none.  Changed by mq_count_lease alone */
	dlist_node	later;			/* if is_later: in queue->later */
	TimestampTz gone_ready_at;	/* gone_moves: where to; DT_NOBEGIN: none */
	TimestampTz expires_at;		/* of a row that the expiry scan has met and
								 * left to this lease; DT_NOEND: not met */
	ItemPointerData tid;		/* hint, valid while relnode is the table's */
	ItemPointerData behind;		/* astray: who writes this version anew is told of
								 * after others, and is too late */
	RelFileNumber relnode;
	int32		attempts;		/* failed deliveries before this one */
	int16		priority;
	int16		gone_priority;	/* gone_moves: where to */
	uint8		state;			/* MqLeaseState */
	uint8		from;			/* SETTLING: OPEN, HELD or FAILED */
	uint8		verb;			/* SETTLING: MqVerb */
	uint8		reason;			/* FAILED: MqReason */
	bool		session;		/* no deadline, returns when its session ends */
	bool		unwritten;		/* attempts is more than the row says */
	bool		held;			/* counted in queue->nheld */
	uint8		timed_in;		/* MqTimer */
	bool		is_later;		/* ready_at is after the queue's leases_until */
	bool		dropping;		/* no delivery: a producer takes it to make room */
	bool		unseen;			/* the row was not looked at yet, and may stand
								 * elsewhere than the list said */
	bool		astray;			/* the row has got versions of which nobody told in
								 * order, and may stand elsewhere: all lanes are
								 * scanned when it goes back */
	bool		gone_moves;		/* gone_xid has moved the row, not deleted it */
	bool		gone_other_time;	/* ... to another ready_at */
	bool		dead;			/* SETTLING by a prepared one: it went to the dead
								 * letters */
	uint8		key_known;		/* MqKeyKnown */
	MqKey	   *key;			/* of an ordered queue's message */
	int			holder;			/* process number of the consumer's session */
	int			pid;			/* its process id */
	int			settler;		/* OPEN, SETTLING: process number of the open
								 * transaction; -1: prepared, see xid */
	TransactionId xid;			/* prepared transaction that decides on it */
	TransactionId gone_xid;		/* one that has deleted or moved the row, not settling
								 * it */
	int			claim;			/* OPEN: index of the holder's own record */
	char		consumer[NAMEDATALEN];
} MqLease;

typedef struct MqCounters
{
	int64		rows;			/* committed rows in the table */
	int64		later;			/* ... due after counted_until, leased or not */
	TimestampTz counted_until;	/* see stats.c */
	TimestampTz leases_until;	/* the same of leases, which follows when the rows
								 * have been walked */
	TimestampTz count_next;		/* least due time after counted_until */
	int64		enqueued;
	int64		delivered;
	int64		acked;
	int64		nacked;
	int64		expired;
	int64		redelivered;
	int64		dead;
	int64		rows_examined;
	int64		blocks_touched;
	bool		exact;
	bool		rows_exact;		/* rows is, whatever later may be */
	bool		recounting;
	bool		counting;		/* counted_until has moved, the rows are being walked */
	uint32		walks;			/* how often, recounts included */
	TimestampTz count_from;		/* counted_until before the last walk */
	TimestampTz recounted;		/* steady */
	TimestampTz since;
} MqCounters;

/*
 * The snapshot by which rows were counted, for the commit callbacks: the changes of
 * whoever is visible in it have been.  See stats.c.
 */
typedef struct MqCountedBy
{
	FullTransactionId xmax;		/* invalid: nobody is */
	TransactionId xip[MQ_COUNTED_XIP];
	int			nxip;
} MqCountedBy;

/* The options that failures and expiries need where no catalog can be read. */
typedef struct MqPolicy
{
	int64		lease;			/* microseconds */
	int64		backoff;
	int64		backoff_limit;
	int32		max_attempts;	/* 0: without limit */
} MqPolicy;

typedef struct MqQueue
{
	/* Key.  Changed only by who takes or frees the slot, under both the
	 * registry's and the partition's lock. */
	Oid			dboid;
	Oid			relid;
	bool		used;
	int			partition;
	dlist_node	node;			/* in its partition's list, or the free list */

	RelFileNumber relnode;		/* TIDs in the lists belong to this file */
	uint32		signature;		/* of the table's definition; see catalog.c */
	bool		unlogged;		/* a crash empties the table */
	bool		attached;		/* somebody has looked at its table since the
								 * server started */
	bool		paused;
	bool		paused_known;	/* a commit has said so; the catalog may lag */
	bool		ordered;
	bool		ordered_known;	/* a commit has said so, like paused_known */
	TimestampTz last_used;
	MqPolicy	policy;

	MqThrottle	throttle;
	bool		throttle_known; /* a commit has said so; the catalog may lag */
	bool		refused;		/* somebody found all slots taken; a shared lock is
								 * enough to set it */
	int			watcher;		/* process number + 1 of the waiter who sleeps until
								 * the next token only; 0: nobody */
	double		bucket_full;	/* when the tokens are complete; steady */
	int64		tokens_taken;	/* ever, those given back included */
	TimestampTz token_last;		/* when the last was taken; steady */

	dlist_head	keys[MQ_KEY_STATES];	/* MqKey by state */
	int			nparked_keys;	/* keys with parked rows */
	int			nkey_unknown;	/* leases whose key is unknown */
	int			keys_freed;		/* became READY, nobody woken for them yet */
	bool		keys_recheck;	/* keys that WAIT may do so for nothing */
	bool		keys_rebase;	/* rows may be below any key's base */
	int64		key_high;		/* no key's base is above this + 1 */
	uint64		key_seq;		/* counts the floors there ever were */
	int			nkey_floors;
	MqKeyFloor	key_floors[MQ_KEY_FLOORS];	/* ascending by seq and by lo */

	MqLane		lanes[MQ_NLANES];
	MqStock		stock_fresh[MQ_STOCK_FRESH];
	MqStock		stock_other[MQ_NLANES - 1][MQ_STOCK_OTHER];
	MqLate		late[MQ_LATE_MAX];	/* ascending by lane, position */
	int			nlate;
	MqBlocked	blocked[MQ_BLOCKED_MAX];
	int			nblocked;
	TimestampTz blocked_checked;	/* when the holders were last looked at */

	dlist_head	leases;			/* those not FAILED */
	dlist_head	failed;			/* those FAILED */
	int			nleases;		/* all of them */
	dlist_head	later;			/* those of rows due after leases_until */
	int			nlater;
	int			nfailed;		/* those FAILED, or SETTLING from FAILED */
	int			ndropping;		/* those that are no deliveries */
	int			nheld;			/* those whose dequeue has committed: HELD, or
								 * SETTLING from HELD */
	TimestampTz write_after;	/* the worker leaves them all alone until then,
								 * there having been no room; steady */
	pairingheap_node *deadlines;	/* heap of those HELD, by until */
	/* Heaps of those FAILED that will be tried again, by until. */
	pairingheap_node *retries[MQ_PRIORITY_MAX + 1];	/* until is their due time */
	pairingheap_node *asleep;	/* those whose row somebody held, of any priority */
	dlist_head	prepared;		/* MqPrepared */
	int			nprepared;

	dlist_head	waiters;		/* MqWaiter, first come first woken */
	dlist_head	matchers;		/* those who wait for certain messages only */
	int			nwaiters;		/* both, woken ones who have not left included */

	int64		reserved;		/* rows of open transactions, where the length is
								 * limited; see length.c */

	MqExpiryPos expiry;			/* expired rows up to here are gone, leased or
								 * noted; see expiry.c */
	TimestampTz expiry_low;		/* least expires_at committed above it since the
								 * running scan began */
	TimestampTz next_expiry;	/* nothing above it expires before; DT_NOBEGIN:
								 * unknown */
	TimestampTz expiry_after;	/* no scan before that; steady */
	TimestampTz expired_upto;	/* being taken to the dead letters; DT_NOBEGIN:
								 * none are */
	int			expirer;		/* process number of who does it, or -1 */
	uint32		expiry_resets;	/* as a lane's */
	int			nexpired;
	MqExpired	expired[MQ_EXPIRED_MAX];

	TimestampTz audited;		/* last audit by the worker (steady) ... */
	int64		audit_sum;		/* ... and what it added up then */
	int			audit_failures; /* how often it did not add up */
	int			audit_odd;		/* how often the counters could not be true */

	MqCountedBy recounted_by;	/* the last recount */
	MqCountedBy passed_by;		/* the last move of counted_until, from count_from */

	TimestampTz notified;		/* last notification by the worker; steady */
	bool		notify;			/* a notification is due; a shared lock is
								 * enough to set it */
	TimestampTz dequeued;		/* last dequeue, waiting ones included; steady; a
								 * shared lock is enough to write it */

	MqCounters	n;
} MqQueue;

/*
 * One process waiting for messages of one queue; each process has
 * MQ_WAIT_QUEUES of them.  Under the lock of the queue it waits for.
 */
#define MQ_WAIT_QUEUES	64
typedef struct MqWaiter
{
	dlist_node	node;
	int			procno;
	bool		queued;			/* false: woken, or not waiting; its process
								 * also looks without the lock */
	bool		matching;		/* in matchers, not in waiters */
} MqWaiter;

/* What a process is about to commit.  See announce.c. */
#define MQ_ANNOUNCED_MAX 8
typedef struct MqAnnounced
{
	slock_t		lock;
	int			n;
	Oid			dboid;
	Oid			relids[MQ_ANNOUNCED_MAX];
	int64		lowest[MQ_ANNOUNCED_MAX];
} MqAnnounced;

/*
 * A database that has, or may have, the extension.  Under the registry's
 * lock.
 */
typedef enum MqDbState
{
	MQ_DB_UNKNOWN,				/* never looked at */
	MQ_DB_WANTED,				/* a worker shall be started */
	MQ_DB_STARTING,
	MQ_DB_RUNNING,
	MQ_DB_NONE					/* the extension isn't there */
} MqDbState;

typedef struct MqDatabase
{
	Oid			dboid;
	MqDbState	state;
	pg_atomic_uint32 worker;	/* process number + 1 while RUNNING, else 0 */
	pg_atomic_uint64 next_wake; /* when it means to look again; steady; a hint */
	int			pid;
	int			holds;			/* commands that want the database to itself */
	bool		leave;			/* the worker is asked to go */
	int			listeners;		/* sessions that have used LISTEN here */
	TimestampTz retry;			/* not to be started before; steady */
} MqDatabase;

/* A change of counts by a transaction that ended while rows were counted. */
typedef struct MqRecountDelta
{
	TransactionId xid;
	int64		rows;
	int64		later;
} MqRecountDelta;

typedef struct MqShared
{
	LWLock	   *registry;		/* slots, databases, recount */
	LWLockPadded *locks;		/* MQ_PARTITIONS of them */

	pg_atomic_uint64 last_receipt;
	ConditionVariable announce_done;
	pg_atomic_uint32 announce_waiters;

	slock_t		free_lock;		/* the free leases */
	MqLease    *free_leases;
	int			nfree;
	MqKey	   *free_keys;		/* under free_lock, too */
	int			nfree_keys;
	uint64		key_seed;		/* random: nobody can make keys collide */

	dlist_head	free_queues;	/* registry */
	dlist_head	partition[MQ_PARTITIONS];	/* queues; partition's lock */
	ConditionVariable scanned[MQ_PARTITIONS];	/* a scan right has become
												 * free */
	dlist_head	free_prepared;	/* under prepared_lock */
	slock_t		prepared_lock;

	MqDatabase	databases[MQ_DATABASES];	/* registry */
	int			ndatabases;
	int			launcher;		/* process number or -1; registry */
	ConditionVariable worker_gone;	/* signalled when a worker leaves */

	/* Who recounts: one queue at a time; registry to start and stop, the
	 * queue's partition lock for the log. */
	MqQueue    *recount;
	bool		recount_overflow;
	int			nrecount;
	MqRecountDelta recount_log[MQ_RECOUNT_LOG];
} MqShared;

extern MqShared *mq_shared;
extern MqQueue *mq_queues;
extern MqLease *mq_leases;
extern MqLease **mq_buckets;
extern MqWaiter *mq_waiters;	/* MQ_WAIT_QUEUES by process number */
extern MqAnnounced *mq_announced;	/* by process number */
extern pg_atomic_uint32 *mq_announced_xids;
extern uint32 mq_bucket_mask;	/* within one partition */
extern MqKey **mq_key_buckets;	/* as many as mq_buckets */

extern void mq_shmem_init(void);
extern void mq_require_preload(void);

extern int	mq_partition_of(Oid dboid, Oid relid);
extern LWLock *mq_partition_lock(int partition);
extern void mq_lock(int partition);
extern void mq_unlock(int partition);

extern MqQueue *mq_queue_find(Oid dboid, Oid relid, MqQueue *hint);
extern MqQueue *mq_queue_create(Oid dboid, Oid relid, bool *created);
extern void mq_queue_remove(Oid dboid, Oid relid);
extern void mq_queue_init_lanes(MqQueue *q);
extern bool mq_queue_await(MqQueue *q, TransactionId xid);
extern MqPrepared *mq_prepared_new(void);
extern void mq_prepared_free(MqPrepared *p);
extern void mq_key_free(MqKey *e);
extern void mq_keys_free_all(MqQueue *q);

extern int64 mq_next_receipt(void);

#endif							/* MQ_SHMEM_H */
