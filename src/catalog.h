/*-------------------------------------------------------------------------
 * catalog.h
 *		Queue definitions, their cache, and the way to a queue's shared state.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_CATALOG_H
#define MQ_CATALOG_H

#include "key.h"

#include "access/htup.h"
#include "nodes/execnodes.h"
#include "storage/lockdefs.h"
#include "utils/acl.h"

typedef enum MqColumn
{
	MQ_COL_ID,
	MQ_COL_ENQUEUED_AT,
	MQ_COL_ATTEMPTS,
	MQ_COL_PRIORITY,
	MQ_COL_READY_AT,
	MQ_COL_EXPIRES_AT,
	MQ_COL_KEY,
	MQ_COL_DEDUP_ID,
	MQ_COL_HEADERS,
	MQ_COL_BODY,
	MQ_COL_DATA,
	MQ_COL_LAST_ERROR,
	MQ_NCOLS
} MqColumn;

typedef enum MqIndex
{
	MQ_INDEX_PKEY,
	MQ_INDEX_READY,
	MQ_INDEX_EXPIRY,
	MQ_INDEX_KEY,
	MQ_INDEX_DEDUP,
	MQ_NINDEXES
} MqIndex;

/*
 * A queue as the catalogs define it, cached by name.  An entry stays where it
 * is; an invalidation marks it and the next lookup loads it again.
 */
typedef struct MqDef
{
	char		name[NAMEDATALEN];	/* hash key */
	bool		valid;
	Oid			relid;
	Oid			owner;
	Oid			sequence;
	AttrNumber	att[MQ_NCOLS];
	Oid			index[MQ_NINDEXES]; /* InvalidOid: missing or not ours */
	bool		plain;			/* nothing of the owner's hangs on the table:
								 * rows may be written directly */
	const char *refused;		/* why the table can't serve as a queue */
	uint32		signature;
	MqPolicy	policy;
	MqThrottle	throttle;
	char		dead_letter[NAMEDATALEN];	/* "" = none */
	bool		dead_published; /* to this exchange instead */
	char		dead_exchange[NAMEDATALEN];
	char	   *dead_key;		/* NULL: the queue's name */
	bool		paused;
	bool		archived;		/* acknowledged messages go to the archive */
	int64		dedup_window;	/* microseconds; 0: while the message exists */
	int64		max_length;		/* 0: any */
	bool		drop_head;		/* past it; else producers are refused */
	int64		ttl;			/* microseconds; 0: messages do not expire */
	bool		ordered;		/* as the catalog says; see MqQueue */
	MqQueue    *hint;
} MqDef;

extern const char *const mq_column_names[MQ_NCOLS];
extern const Oid mq_column_types[MQ_NCOLS];

extern MqThrottle mq_throttle_columns(HeapTuple tup, TupleDesc desc, Oid relid);
extern Oid	mq_schema_oid(bool missing_ok);
extern Oid	mq_catalog_table(const char *name, bool missing_ok);
extern MqDef *mq_def_lookup(const char *name, bool missing_ok);
extern MqDef *mq_def_by_relid(Oid relid);
extern Relation mq_queue_open(const char *name, LOCKMODE lockmode, MqDef **def);
extern Relation mq_queue_try_open(const char *name, LOCKMODE lockmode, MqDef **def);
extern bool mq_queue_lock_nowait(const char *name, LOCKMODE lockmode);
extern void mq_queue_renew(MqDef *def);
extern void mq_require(MqDef *def, AclMode mode);
extern bool mq_is_owner(MqDef *def, Oid role);
extern const char *mq_text_name(text *name);

extern MqQueue *mq_queue_attach(MqDef *def, Relation rel);
extern MqQueue *mq_queue_try_attach(MqDef *def, Relation rel);
extern void mq_queue_expect(MqDef *def, Relation rel);

#endif							/* MQ_CATALOG_H */
