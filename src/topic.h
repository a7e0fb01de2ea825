/*-------------------------------------------------------------------------
 * topic.h
 *		Topic patterns, compiled: which of many match a routing key.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_TOPIC_H
#define MQ_TOPIC_H

#include "compat.h"

typedef struct MqTopic MqTopic;

extern MqTopic *mq_topic_new(MemoryContext context);
extern void mq_topic_add(MqTopic *t, const char *pattern, int len, void *target);
extern void mq_topic_match(MqTopic *t, const char *key, int len,
						   void (*found) (void *target, void *arg), void *arg);

#endif							/* MQ_TOPIC_H */
