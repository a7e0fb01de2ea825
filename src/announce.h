/*-------------------------------------------------------------------------
 * announce.h
 *		Transactions that are about to commit new rows.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_ANNOUNCE_H
#define MQ_ANNOUNCE_H

#include "xact.h"

#include "utils/snapshot.h"

extern void mq_announce(Oid relid, int64 lowest, TransactionId xid);
extern void mq_announce_done(void);
extern void mq_announce_await(Oid relid, int64 cursor, Snapshot snapshot);

#endif							/* MQ_ANNOUNCE_H */
