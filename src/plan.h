/*-------------------------------------------------------------------------
 * plan.h
 *		Where messages go: routed, and the queues' tables locked.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_PLAN_H
#define MQ_PLAN_H

#include "route.h"

/* A message on its way to a queue. */
typedef struct MqWay
{
	const char *queue;
	int			message;		/* its number in the caller's array */
} MqWay;

/* A queue that some go to: those at ways[from .. to - 1]. */
typedef struct MqStop
{
	MqDef	   *def;
	Relation	rel;			/* open and locked */
	int			from;
	int			to;
} MqStop;

typedef struct MqPlan
{
	MqWay	   *ways;			/* by queue, then by message */
	int			nways;
	int			max_ways;
	MqStop	   *stops;			/* by name; queues that are gone are left out */
	int			nstops;
} MqPlan;

/* Adds ways for all messages. */
typedef void (*MqPlanRoute) (MqPlan *plan, void *arg);
/* Opens and locks a queue's table; NULL if there is no such one. */
typedef Relation (*MqPlanOpen) (const char *queue, MqDef **def, void *arg);

extern void mq_plan_add(MqPlan *plan, const char *const *queues, int n, int message);
extern void mq_plan(MqPlan *plan, MqPlanRoute route, MqPlanOpen open_queue, void *arg);

#endif							/* MQ_PLAN_H */
