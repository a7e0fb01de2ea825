/*-------------------------------------------------------------------------
 * utility.h
 *		Statements of which launcher, worker and sessions have to know.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_UTILITY_H
#define MQ_UTILITY_H

#include "worker.h"

extern void mq_utility_init(void);
extern void mq_utility_init_session(void);

#endif							/* MQ_UTILITY_H */
