/*-------------------------------------------------------------------------
 * guc.h
 *		Settings.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_GUC_H
#define MQ_GUC_H

#include "mq.h"

extern int	mq_max_queues;
extern int	mq_max_in_flight;
extern int	mq_test_clock_offset;

extern void mq_guc_init(void);

#endif							/* MQ_GUC_H */
