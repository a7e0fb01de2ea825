/*-------------------------------------------------------------------------
 * args.h
 *		Arguments of SQL functions, unpacked and checked.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_ARGS_H
#define MQ_ARGS_H

#include "enqueue.h"

#include "fmgr.h"

/* An array argument as Datums; null: -1 elements. */
typedef struct MqArray
{
	int			n;
	Datum	   *v;
	bool	   *null;
} MqArray;

extern void mq_arg_not_null(FunctionCallInfo fcinfo, int i, const char *name);
extern const char *mq_arg_queue(FunctionCallInfo fcinfo);
extern int64 mq_arg_interval(FunctionCallInfo fcinfo, int i, const char *name,
							 int64 least, int64 missing);
extern int64 mq_arg_lease(FunctionCallInfo fcinfo, int i, int64 missing);
extern MqArray mq_arg_array(FunctionCallInfo fcinfo, int i, const char *name);
extern void mq_arg_same_length(int *n, const MqArray *a, const char *name);
extern void mq_array_part(const MqArray *a, int i, Datum *v, bool *null);

extern MqEnqueue mq_arg_enqueue(FunctionCallInfo fcinfo, int shift, const char *verb);

#endif							/* MQ_ARGS_H */
