/*
 * wake.c
 *		How long a message takes to a consumer that waits for it.
 *
 *	wake CONNINFO SECONDS
 *
 * Two threads, each with a connection of its own.  The producer works at a
 * fixed pace of 500 statements a second and cycles through three slices:
 * SELECT 1, a bare INSERT, and mq.enqueue.  So the round trip and the commit
 * that the wake-up is held against are taken on the same connection, at the
 * same pace, a quarter of a second earlier.  The consumer does what consumers
 * do in lease mode: dequeue with wait, ack, dequeue with wait.
 *
 * All times are read from CLOCK_MONOTONIC on the client's side: "committed"
 * is when the producer has read the end of its statement's result, "held" is
 * when the consumer has read the end of the dequeue's.  A held message may be
 * older than its commit's return: the consumer is woken by the commit, not by
 * the producer's client reading about it.
 *
 * Prints one line of medians in microseconds:
 *
 *	select1=… insert=… wake=… total=… rate=… unready=… messages=…
 *
 * wake is held - committed, total is held - start of the enqueue, rate the
 * statements a second achieved, unready the messages enqueued before the
 * consumer had asked for one.  The first cycle warms up and is not counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libpq-fe.h>

#define NS_PER_SECOND	INT64_C(1000000000)
#define PACE			(NS_PER_SECOND / 500)
#define SLICE			125		/* statements of one kind in a row */
#define PATIENCE		(10 * NS_PER_SECOND)

#define FILLER \
	"\"customer\": \"c-10432\", \"currency\": \"EUR\", \"amount\": 129.95, " \
	"\"items\": [{\"sku\": \"A-1001\", \"qty\": 2}, {\"sku\": \"B-2002\", \"qty\": 1}], " \
	"\"note\": \"leave at the door, ring twice\""

typedef struct Message
{
	int64_t		started;		/* producer: before it sends the enqueue */
	int64_t		committed;		/* producer: the enqueue's result is read */
	int64_t		held;			/* consumer: the dequeue's result is read */
	bool		unready;		/* producer: the consumer had not asked yet */
} Message;

/* Numbered from 1; each field has one writer, read after the join. */
static Message *messages;
static int	max_messages;

static const char *conninfo;
static atomic_bool asking;		/* the consumer has sent its dequeue */
static atomic_int taken;		/* messages the consumer has acknowledged */

static int64_t
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * NS_PER_SECOND + t.tv_nsec;
}

static void
sleep_until(int64_t when)
{
	struct timespec t = {when / NS_PER_SECOND, when % NS_PER_SECOND};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static void
fail(const char *what, const char *why)
{
	fprintf(stderr, "wake: %s: %s\n", what, why);
	exit(1);
}

static PGconn *
connect_as(const char *name)
{
	PGconn	   *conn = PQconnectdb(conninfo);
	PGresult   *res;
	char		sql[100];

	if (PQstatus(conn) != CONNECTION_OK)
		fail("cannot connect", PQerrorMessage(conn));
	snprintf(sql, sizeof(sql), "SET application_name = 'bench %s'", name);
	res = PQexec(conn, sql);
	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		fail(sql, PQerrorMessage(conn));
	PQclear(res);
	return conn;
}

static void
prepare(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *res = PQprepare(conn, name, sql, 0, NULL);

	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		fail(sql, PQerrorMessage(conn));
	PQclear(res);
}

static PGresult *
execute(PGconn *conn, const char *name, int nparams, const char *const *params)
{
	PGresult   *res = PQexecPrepared(conn, name, nparams, params, NULL, NULL, 0);

	if (PQresultStatus(res) != PGRES_TUPLES_OK &&
		PQresultStatus(res) != PGRES_COMMAND_OK)
		fail(name, PQerrorMessage(conn));
	return res;
}

/* The consumer: until it gets message 0. */
static void *
consume(void *arg)
{
	PGconn	   *conn = connect_as("consumer");
	long		n = -1;

	(void) arg;
	prepare(conn, "take",
			"SELECT m.id, m.receipt, m.body"
			"  FROM mq.dequeue('bench', wait => '10 seconds') m");
	prepare(conn, "ack", "SELECT mq.ack('bench', $1, $2)");

	while (n != 0)
	{
		const char *params[2];
		PGresult   *res;
		PGresult   *acked;
		int64_t		held;

		atomic_store(&asking, true);
		res = execute(conn, "take", 0, NULL);
		held = now();
		atomic_store(&asking, false);

		if (PQntuples(res) != 1)
			fail("take", "waited 10 s for a message");
		/* jsonb keeps the shortest key first */
		if (sscanf(PQgetvalue(res, 0, 2), "{\"n\": %ld", &n) != 1 ||
			n < 0 || n > max_messages)
			fail("take", "a body that the producer did not send");
		messages[n].held = held;

		params[0] = PQgetvalue(res, 0, 0);
		params[1] = PQgetvalue(res, 0, 1);
		acked = execute(conn, "ack", 2, params);
		if (strcmp(PQgetvalue(acked, 0, 0), "t") != 0)
			fail("ack", "not the current delivery");
		PQclear(acked);
		PQclear(res);
		atomic_fetch_add(&taken, 1);
	}
	PQfinish(conn);
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

static double
median_us(int64_t *times, int n)
{
	qsort(times, n, sizeof(int64_t), compare);
	return (times[(n - 1) / 2] + times[n / 2]) / 2.0 / 1000.0;
}

int
main(int argc, char **argv)
{
	enum
	{
		SELECT1, INSERT, ENQUEUE, KINDS
	};
	static const char *const names[KINDS] = {"select1", "insert", "enqueue"};

	int			cycles;
	int			n = 0;
	int			counted = 0;
	int			unready = 0;
	int64_t		busy = 0;
	int64_t    *times[KINDS];
	int64_t    *wake;
	int64_t    *total;
	char		body[400];
	const char *params[1] = {body};
	pthread_t	consumer;
	PGconn	   *conn;

	if (argc != 3 || atoi(argv[2]) < 1)
		fail("usage", "wake CONNINFO SECONDS");
	conninfo = argv[1];
	cycles = 1 + (int) (atoi(argv[2]) * NS_PER_SECOND / (KINDS * SLICE * PACE));
	if (cycles < 2)
		cycles = 2;
	max_messages = cycles * SLICE;
	messages = calloc(max_messages + 1, sizeof(Message));
	wake = calloc(max_messages, sizeof(int64_t));
	total = calloc(max_messages, sizeof(int64_t));
	for (int kind = 0; kind < KINDS; kind++)
		times[kind] = calloc(max_messages, sizeof(int64_t));

	conn = connect_as("producer");
	prepare(conn, names[SELECT1], "SELECT 1");
	prepare(conn, names[INSERT], "INSERT INTO bare (body) VALUES ($1)");
	prepare(conn, names[ENQUEUE], "SELECT mq.enqueue('bench', $1)");
	if (pthread_create(&consumer, NULL, consume, NULL) != 0)
		fail("pthread_create", strerror(errno));

	for (int cycle = 0; cycle < cycles; cycle++)
	{
		for (int kind = 0; kind < KINDS; kind++)
		{
			int64_t		begin = now();
			int64_t		next = begin;

			for (int i = 0; i < SLICE; i++)
			{
				int64_t		start;
				int64_t		end;
				bool		early;

				snprintf(body, sizeof(body), "{\"n\": %d, %s}", n + 1, FILLER);
				sleep_until(next);
				early = !atomic_load(&asking);
				start = now();
				PQclear(execute(conn, names[kind], kind == SELECT1 ? 0 : 1, params));
				end = now();

				if (kind == ENQUEUE)
				{
					n++;
					messages[n].started = start;
					messages[n].committed = end;
					messages[n].unready = early;
				}
				if (cycle > 0)
					times[kind][(cycle - 1) * SLICE + i] = end - start;

				/* a slow statement moves the rest; no burst to catch up */
				next += PACE;
				if (next < end)
					next = end;
			}
			if (kind == ENQUEUE && cycle > 0)
				busy += now() - begin;
		}

		/* the consumer is done and waits before the next references */
		for (int64_t limit = now() + PATIENCE;
			 atomic_load(&taken) < n || !atomic_load(&asking);)
		{
			if (now() > limit)
				fail("consume", "messages not taken after 10 s");
			sleep_until(now() + PACE);
		}
	}

	snprintf(body, sizeof(body), "{\"n\": 0, %s}", FILLER);
	PQclear(execute(conn, names[ENQUEUE], 1, params));
	pthread_join(consumer, NULL);
	PQfinish(conn);

	for (int i = SLICE + 1; i <= n; i++)
	{
		wake[counted] = messages[i].held - messages[i].committed;
		total[counted] = messages[i].held - messages[i].started;
		unready += messages[i].unready;
		counted++;
	}
	printf("select1=%.1f insert=%.1f wake=%.1f total=%.1f rate=%.0f unready=%d messages=%d\n",
		   median_us(times[SELECT1], counted), median_us(times[INSERT], counted),
		   median_us(wake, counted), median_us(total, counted),
		   counted * (double) NS_PER_SECOND / busy, unready, counted);
	return 0;
}
