/*-------------------------------------------------------------------------
 * init.c
 *		The library's start.
 *-------------------------------------------------------------------------
 */
#include "clock.h"
#include "dedup.h"
#include "guc.h"
#include "launcher.h"
#include "persist.h"
#include "utility.h"

#include "fmgr.h"
#include "miscadmin.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

/*
 * Everything is set up while the library is preloaded; loaded later it only
 * serves to say that it must be.
 */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	mq_guc_init();
	mq_clock_remember(0);
	mq_shmem_init();
	mq_dedup_init();
	mq_persist_init();
	mq_xact_init(&mq_outcome_ops);
	mq_launcher_init();
	mq_utility_init();
}
