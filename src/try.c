/*-------------------------------------------------------------------------
 * try.c
 *		A step of upkeep that may fail.
 *
 * A message that can't be moved or written, because of what its owner hung on
 * the table or because there is no room, shall keep neither the other messages
 * nor the worker nor whoever does the worker's work in his dequeue.  So such work
 * is done in steps, each a subtransaction, and what a step raises goes to its
 * caller, who can do the messages of a batch one by one.
 *-------------------------------------------------------------------------
 */
#include "try.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"

#define TIMEOUT_MS		5000

/*
 * Runs the step in a subtransaction and in a memory context of its own.  In the
 * worker it may take five seconds: triggers of an owner's shall not keep it from
 * other queues.  What it raised is in *error, in the caller's memory context;
 * what is raised by a user's cancel of his own statement goes on.
 */
MqTry
mq_try(void (*step) (void *arg), void *arg, ErrorData **error)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = AllocSetContextCreate(caller, "mq step", ALLOCSET_DEFAULT_SIZES);
	volatile MqTry result = MQ_TRY_DONE;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		if (MyBackendType == B_BG_WORKER)
			enable_timeout_after(STATEMENT_TIMEOUT, TIMEOUT_MS);
		step(arg);
		if (MyBackendType == B_BG_WORKER)
			disable_timeout(STATEMENT_TIMEOUT, false);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *e;

		if (MyBackendType == B_BG_WORKER)
			disable_timeout(STATEMENT_TIMEOUT, false);
		MemoryContextSwitchTo(caller);
		e = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		if (e->sqlerrcode == ERRCODE_QUERY_CANCELED && MyBackendType == B_BACKEND)
			ReThrowError(e);	/* the user's, not the row's */
		result = e->sqlerrcode == ERRCODE_DISK_FULL ||
			e->sqlerrcode == ERRCODE_QUERY_CANCELED ? MQ_TRY_FAILED_ALL : MQ_TRY_FAILED;
		*error = e;
	}
	PG_END_TRY();
	MemoryContextDelete(context);
	return result;
}
