/*-------------------------------------------------------------------------
 * headers.h
 *		The headers of a message.
 *-------------------------------------------------------------------------
 */
#ifndef MQ_HEADERS_H
#define MQ_HEADERS_H

#include "compat.h"

#include "utils/jsonb.h"

/* A header to be set; one that is an array gets this element in front. */
typedef struct MqHeader
{
	const char *name;
	JsonbValue	value;
	bool		prepend;
} MqHeader;

extern JsonbValue mq_json_string(const char *s, int len);
extern JsonbValue mq_json_int(int64 n);
extern Jsonb *mq_json_object(const MqHeader *pairs, int n);
extern JsonbValue mq_json_value(Jsonb *j);
extern bool mq_json_equal(const JsonbValue *a, const JsonbValue *b);
extern Jsonb *mq_headers_set(Jsonb *headers, const MqHeader *set, int n);

#endif							/* MQ_HEADERS_H */
