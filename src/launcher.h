/*-------------------------------------------------------------------------
 * launcher.h
 *		Starts a worker in each database.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_LAUNCHER_H
#define MQ_LAUNCHER_H

#include "worker.h"

extern void mq_launcher_init(void);
extern PGDLLEXPORT void mq_launcher_main(Datum arg);

#endif							/* MQ_LAUNCHER_H */
