/*-------------------------------------------------------------------------
 * plan.c
 *		Where messages go: routed, and the queues' tables locked.
 *
 *	1. All messages are routed (route.c).
 *	2. Each queue's table is locked, in the order of names, which is the same for
 *	   all who publish.
 *	3. Were exchanges, bindings or roles changed until then, all of that is done
 *	   again: what was routed by holds while the locks are held, since a queue is
 *	   not dropped while something is bound to it.  After some rounds the last
 *	   one counts, in which only a queue made anew within that moment could get
 *	   what was meant for the one before.
 */
#include "plan.h"

#define ROUNDS	5

static int
compare_ways(const void *a, const void *b)
{
	const MqWay *wa = a;
	const MqWay *wb = b;
	int			c = strcmp(wa->queue, wb->queue);

	return c != 0 ? c : wa->message - wb->message;
}

/* For a route callback: message number `message` goes to these queues. */
void
mq_plan_add(MqPlan *plan, const char *const *queues, int n, int message)
{
	if (plan->nways + n > plan->max_ways)
	{
		plan->max_ways = Max(plan->nways + n, Max(16, plan->max_ways * 2));
		plan->ways = plan->ways ?
			repalloc_huge(plan->ways, sizeof(MqWay) * plan->max_ways) :
			MemoryContextAllocHuge(CurrentMemoryContext, sizeof(MqWay) * plan->max_ways);
	}
	for (int i = 0; i < n; i++)
		plan->ways[plan->nways++] = (MqWay) {queues[i], message};
}

/* Step 2. */
static void
open_stops(MqPlan *plan, MqPlanOpen open_queue, void *arg)
{
	const MqWay *ways = plan->ways;

	plan->stops = MemoryContextAllocHuge(CurrentMemoryContext,
										 sizeof(MqStop) * (Size) Max(plan->nways, 1));
	plan->nstops = 0;
	for (int from = 0, to; from < plan->nways; from = to)
	{
		MqStop	   *s = &plan->stops[plan->nstops];

		for (to = from + 1; to < plan->nways && strcmp(ways[to].queue, ways[from].queue) == 0; to++)
			;
		s->rel = open_queue(ways[from].queue, &s->def, arg);
		if (s->rel == NULL)
			continue;
		s->from = from;
		s->to = to;
		plan->nstops++;
	}
}

/*
 * Fills a plan.  Raises what the callbacks raise, which are called once a round.
 * The tables stay open, to be closed by the caller with NoLock.
 */
void
mq_plan(MqPlan *plan, MqPlanRoute route, MqPlanOpen open_queue, void *arg)
{
	memset(plan, 0, sizeof(*plan));
	for (int round = 1;; round++)
	{
		uint64		changes = mq_route_changes();

		plan->nways = 0;
		route(plan, arg);
		if (plan->nways > 1)
			qsort(plan->ways, plan->nways, sizeof(MqWay), compare_ways);
		open_stops(plan, open_queue, arg);
		if (changes == mq_route_changes() || round == ROUNDS)
			break;
		for (int i = 0; i < plan->nstops; i++)
			relation_close(plan->stops[i].rel, RowExclusiveLock);
		pfree(plan->stops);
	}
}
