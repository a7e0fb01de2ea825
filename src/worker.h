/*-------------------------------------------------------------------------
 * worker.h
 *		One worker a database.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_WORKER_H
#define MQ_WORKER_H

#include "maint.h"

#define MQ_WORKER_RETRY		(1 * USECS_PER_SEC)		/* until one that died is started again */
#define MQ_LOOK_AROUND_MS	60000L	/* worker and launcher sleep no longer than this */

extern void mq_worker_want(void);
extern void mq_worker_look_again(void);
extern PGDLLEXPORT void mq_worker_main(Datum arg);

#endif							/* MQ_WORKER_H */
