/*-------------------------------------------------------------------------
 * mirror.c
 *		What is in flight, in a file that outlives the server's processes.
 *
 * A message that makes its consumer crash, or run out of memory, may take all
 * of the server down with it, and the lease table too: nobody would count the
 * attempt, and it would be delivered for ever.  So each entry of the lease
 * table has a shadow in a file that all processes have mapped: 40 bytes stored
 * when a message is delivered, 8 when its lease goes.  The kernel keeps what
 * was stored, whoever dies; nothing is synced, as a loss of power is no
 * consumer's doing.
 *
 * Who writes: whoever changes the lease, under its queue's partition lock, at
 *	its own slot; the last receipt by whoever draws one, without a lock (see
 *	mq_mirror_receipt).
 * Who reads: the postmaster at its start, when no other process is there.  An
 *	entry that was being written when its writer was killed fails its check and
 *	is left out: its message had not been handed out yet.
 * What it means: "this message has failed so often".  The row decides: if it is
 *	gone, or says as much itself, the entry is of no consequence.  So an entry
 *	that stands too long does no harm, and a shadow is cleared after the commit
 *	that makes it needless, never before.  (With synchronous_commit = off that
 *	commit may be lost, and the attempt with it.)
 * Not used by a standby, after a clean shutdown, or where a backup was restored:
 *	the file lies where base backups and pg_rewind do not copy, and persist.c
 *	leaves it aside when there is a signal file.
 *
 * Its blocks are allocated when it is made, so that storing into it can't fail
 * for want of space (a file system that copies on write may still need some).
 * Without the file everything works but this; so it does where processes are
 * not forked (EXEC_BACKEND), since they do not inherit the mapping.
 */
#include "mirror.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "guc.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"

#define FILE_NAME	PG_STAT_TMP_DIR "/mq.leases"
#define FILE_MAGIC	0x6d710903

/* The file: this, then one entry for each slot of the lease table. */
typedef struct Header
{
	uint32		magic;
	uint32		size;			/* of an entry */
	pg_atomic_uint64 last_receipt;
	char		unused[24];		/* entries are multiples of 8 bytes, this too */
} Header;

static Header *mapped = NULL;
static MqMirrored *entries;
static Size mapped_size;

static uint32
check_of(const MqMirrored *m)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, m, offsetof(MqMirrored, check));
	FIN_CRC32C(crc);
	return crc;
}

/* What the file says, as an array; empty if there is none that can be read. */
static MqMirrored *
read_file(int *n, int64 *last_receipt)
{
	FILE	   *f = AllocateFile(FILE_NAME, PG_BINARY_R);
	Header		header;
	MqMirrored	m;
	MqMirrored *found = NULL;
	int			room = 0;

	*n = 0;
	*last_receipt = 0;
	if (f == NULL)
		return NULL;
	if (fread(&header, sizeof(header), 1, f) == 1 &&
		header.magic == FILE_MAGIC && header.size == sizeof(MqMirrored))
	{
		*last_receipt = (int64) pg_atomic_read_u64(&header.last_receipt);
		while (fread(&m, sizeof(m), 1, f) == 1)
		{
			if (m.id <= 0 || m.attempts <= 0 || m.check != check_of(&m))
				continue;
			if (*n == room)
			{
				room = Max(room * 2, 256);
				found = found ? repalloc_huge(found, room * sizeof(m)) : palloc(room * sizeof(m));
			}
			found[(*n)++] = m;
		}
	}
	FreeFile(f);
	return found;
}

static bool
map_file(void)
{
	int			fd = OpenTransientFile(FILE_NAME, O_RDWR | O_CREAT | O_TRUNC | PG_BINARY);
	void	   *p = MAP_FAILED;
	int			rc;

	if (fd < 0)
		return false;
	mapped_size = sizeof(Header) + sizeof(MqMirrored) * (Size) mq_max_in_flight;
	rc = posix_fallocate(fd, 0, mapped_size);
	if (rc == 0)
	{
		p = mmap(NULL, mapped_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		rc = errno;
	}
	CloseTransientFile(fd);
	errno = rc;
	if (p == MAP_FAILED)
		return false;
	mapped = p;
	entries = (MqMirrored *) (mapped + 1);
	mapped->magic = FILE_MAGIC;
	mapped->size = sizeof(MqMirrored);
	pg_atomic_init_u64(&mapped->last_receipt, 0);
	return true;
}

/*
 * Called by the postmaster when it makes shared memory.  Returns what was in
 * flight when the last server of this data folder died, *n of them and the
 * last receipt it gave; begins a new, empty file.  Its processes inherit the
 * mapping.
 */
MqMirrored *
mq_mirror_open(int *n, int64 *last_receipt)
{
	MqMirrored *found = read_file(n, last_receipt);

	if (mapped)
		munmap(mapped, mapped_size);
	mapped = NULL;
	if (!map_file())
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", FILE_NAME),
				 errdetail("Until the next start, deliveries cut off by a crash of the server are not counted.")));
		unlink(FILE_NAME);
	}
	return found;
}

/* Called by the postmaster after a clean shutdown: nothing is in flight. */
void
mq_mirror_close(void)
{
	unlink(FILE_NAME);
}

/* Says what is to be known of a lease's message after a crash; fills in check. */
void
mq_mirror_set(int slot, MqMirrored *m)
{
	if (mapped == NULL)
		return;
	m->unused = 0;
	m->check = check_of(m);
	entries[slot] = *m;
}

/* The lease is gone. */
void
mq_mirror_clear(int slot)
{
	if (mapped && entries[slot].id != 0)
		entries[slot].id = 0;
}

/*
 * A receipt was given.  Of two at once the smaller may be the one that is kept:
 * the reader allows for it.
 */
void
mq_mirror_receipt(int64 receipt)
{
	if (mapped)
		pg_atomic_write_u64(&mapped->last_receipt, (uint64) receipt);
}
