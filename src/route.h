/*-------------------------------------------------------------------------
 * route.h
 *		Exchanges and bindings: which queues a message goes to.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_ROUTE_H
#define MQ_ROUTE_H

#include "catalog.h"
#include "headers.h"

typedef struct MqExchange MqExchange;

/* For mq_exchange_find and mq_route. */
#define MQ_MISSING_OK	1		/* no error if there is no such exchange */
#define MQ_NOWAIT		2		/* 55P03 rather than wait for a lock */

extern MqExchange *mq_exchange_find(const char *name, int flags);
extern bool mq_exchange_may_publish(const MqExchange *x, Oid role);
extern int	mq_route(MqExchange *x, const char *key, int len, Jsonb *headers,
					 int flags, const char ***queues);
extern uint64 mq_route_changes(void);
extern Jsonb *mq_route_headers(Jsonb *headers, const char *exchange,
							   const char *key, int len);

#endif							/* MQ_ROUTE_H */
