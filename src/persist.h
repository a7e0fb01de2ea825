/*-------------------------------------------------------------------------
 * persist.h
 *		Leases over a clean restart.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_PERSIST_H
#define MQ_PERSIST_H

#include "lease.h"

extern void mq_persist_forget(void);
extern void mq_persist_init(void);

#endif							/* MQ_PERSIST_H */
