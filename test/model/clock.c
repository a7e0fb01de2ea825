/*
 * A clock that a test can move, for a whole server: preloaded into it
 * (LD_PRELOAD), it adds to what the machine's clocks say the nanoseconds that
 * stand in the file named by MQ_MODEL_CLOCK.  So time passes for PostgreSQL, for
 * SQL's clock_timestamp() and for both of mq's clocks alike, at once and in all
 * processes, without anybody sleeping.  It never goes back.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *ahead;
static int (*real_gettime) (clockid_t, struct timespec *);

__attribute__((constructor)) static void
start(void)
{
	const char *path = getenv("MQ_MODEL_CLOCK");
	int			fd = path ? open(path, O_RDONLY) : -1;
	void	   *map;

	real_gettime = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		ahead = map;
	close(fd);
}

int
clock_gettime(clockid_t id, struct timespec *t)
{
	int			rc = real_gettime(id, t);

	if (rc == 0 && ahead && (id == CLOCK_REALTIME || id == CLOCK_MONOTONIC))
	{
		int64_t		ns = t->tv_nsec + *ahead;

		t->tv_sec += ns / 1000000000;
		t->tv_nsec = ns % 1000000000;
	}
	return rc;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec t;

	(void) zone;
	if (clock_gettime(CLOCK_REALTIME, &t) != 0)
		return -1;
	tv->tv_sec = t.tv_sec;
	tv->tv_usec = t.tv_nsec / 1000;
	return 0;
}
