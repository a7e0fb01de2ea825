/*-------------------------------------------------------------------------
 * worker.h
 *		The launcher, one worker a database, and the statements both make way
 *		for.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_WORKER_H
#define MQ_WORKER_H

#include "maint.h"

extern void mq_worker_init(void);
extern void mq_worker_want(void);
extern void mq_worker_init_session(void);
extern PGDLLEXPORT void mq_launcher_main(Datum arg);
extern PGDLLEXPORT void mq_worker_main(Datum arg);

#endif							/* MQ_WORKER_H */
