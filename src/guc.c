/*-------------------------------------------------------------------------
 * guc.c
 *		Settings.  Those for users size shared memory, so they need a restart.
 *-------------------------------------------------------------------------
 */
#include "guc.h"

#include "utils/guc.h"

int			mq_max_queues = 1024;
int			mq_max_in_flight = 131072;
int			mq_test_clock_offset = 0;

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
	DefineCustomIntVariable("mq.test_clock_offset",
							"Makes mq's wall clock differ from the machine's.",
							"For tests of what happens when somebody sets the clock.",
							&mq_test_clock_offset, 0, -INT_MAX, INT_MAX,
							PGC_SIGHUP,
							GUC_UNIT_MS | GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE,
							NULL, NULL, NULL);
	MarkGUCPrefixReserved("mq");
}
