/*-------------------------------------------------------------------------
 * try.h
 *		A step of upkeep that may fail.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_TRY_H
#define MQ_TRY_H

#include "mq.h"

typedef enum MqTry
{
	MQ_TRY_DONE,
	MQ_TRY_FAILED,
	MQ_TRY_FAILED_ALL			/* the same would come of other messages */
} MqTry;

extern MqTry mq_try(void (*step) (void *arg), void *arg, ErrorData **error);

#endif							/* MQ_TRY_H */
