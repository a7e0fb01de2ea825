/*-------------------------------------------------------------------------
 * guc.c
 *		Settings.  Both size shared memory, so both need a restart.
 *-------------------------------------------------------------------------
 */
#include "guc.h"

#include "utils/guc.h"

int			mq_max_queues = 1024;
int			mq_max_in_flight = 131072;

/* Defines the settings; called once, while the library is preloaded. */
void
mq_guc_init(void)
{
	DefineCustomIntVariable("mq.max_in_flight",
							"Sets how many messages may be leased at once, over all queues.",
							"One queue may hold at most half of them.",
							&mq_max_in_flight, 131072, 128, 16 * 1024 * 1024,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("mq.max_queues",
							"Sets how many queues may have state in memory at once.",
							"Idle queues make room for others.",
							&mq_max_queues, 1024, 8, 65536,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	MarkGUCPrefixReserved("mq");
}
