/*-------------------------------------------------------------------------
 * forget.h
 *		The ends of a session, of a queue's table and of a database.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_FORGET_H
#define MQ_FORGET_H

#include "outcome.h"

extern void mq_release_session(MqReason reason);
extern void mq_forget_queue(Oid dboid, Oid relid);
extern void mq_forget_databases(bool (*gone) (Oid dboid));

#endif							/* MQ_FORGET_H */
