/*-------------------------------------------------------------------------
 * match.h
 *		Finding messages by their headers.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_MATCH_H
#define MQ_MATCH_H

#include "lane.h"

#include "utils/jsonb.h"

#define MQ_MATCH_ROWS	10000	/* rows examined in one queue a call */

/* A message that fits and nobody had leased. */
typedef struct MqFound
{
	int64		id;
	ItemPointerData tid;
	int			lane;
	MqPos		pos;
	bool		failed;			/* to be delivered from the lease table */
} MqFound;

typedef struct MqMatch
{
	Jsonb	   *headers;		/* what they must contain */
	int64		budget;			/* rows that may still be examined */
	TimestampTz next;			/* when another message comes due; wall */
} MqMatch;

extern bool mq_match_fits(MqReader *r, HeapTuple tuple, Jsonb *headers);
extern int	mq_match_find(MqMatch *m, MqReader *r, TimestampTz now, int want, MqFound *found);

#endif							/* MQ_MATCH_H */
