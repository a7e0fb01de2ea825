/*-------------------------------------------------------------------------
 * archive.h
 *		Acknowledged messages: into the archive, and its partitions.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_ARCHIVE_H
#define MQ_ARCHIVE_H

#include "storage.h"

#include "catalog/indexing.h"

/* The archive of one queue, open for what one statement acknowledges. */
typedef struct MqArchive
{
	MqDef	   *def;
	Oid			relid;			/* InvalidOid: there is none */
	TimestampTz acked_at;
	Relation	leaf;			/* NULL: the executor inserts */
	CatalogIndexState indexes;
	AttrNumber	att[MQ_NCOLS + 2];
} MqArchive;

extern void mq_archive_open(MqArchive *a, MqDef *def);
extern void mq_archive_row(MqArchive *a, const MqValues *row, const char *consumer);
extern void mq_archive_close(MqArchive *a);
extern TimestampTz mq_archive_newest(Oid leaf);
extern TimestampTz mq_archive_upkeep(void);

#endif							/* MQ_ARCHIVE_H */
