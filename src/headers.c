/*-------------------------------------------------------------------------
 * headers.c
 *		The headers of a message: made, changed and compared.
 *-------------------------------------------------------------------------
 */
#include "headers.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

JsonbValue
mq_json_string(const char *s, int len)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = (char *) s;
	v.val.string.len = len;
	return v;
}

JsonbValue
mq_json_int(int64 n)
{
	JsonbValue	v;

	v.type = jbvNumeric;
	v.val.numeric = int64_to_numeric(n);
	return v;
}

/* An object or array as a value; it points into j. */
JsonbValue
mq_json_value(Jsonb *j)
{
	JsonbValue	v;

	v.type = jbvBinary;
	v.val.binary.data = &j->root;
	v.val.binary.len = VARSIZE(j) - VARHDRSZ;
	return v;
}

static void
push_name(JsonbParseState **state, const char *name)
{
	JsonbValue	k = mq_json_string(name, strlen(name));

	pushJsonbValue(state, WJB_KEY, &k);
}

/* The elements of an array, if it is one. */
static void
push_elements(JsonbParseState **state, const JsonbValue *array)
{
	JsonbIterator *it;
	JsonbIteratorToken tok;
	JsonbValue	v;

	if (array == NULL || array->type != jbvBinary ||
		!JsonContainerIsArray(array->val.binary.data))
		return;
	it = JsonbIteratorInit(array->val.binary.data);
	(void) JsonbIteratorNext(&it, &v, true);
	while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_END_ARRAY)
		pushJsonbValue(state, tok, &v);
}

/*
 * The headers (NULL: none) with these set, in a new object.  What is no object
 * counts as none.
 */
Jsonb *
mq_headers_set(Jsonb *headers, const MqHeader *set, int n)
{
	JsonbParseState *state = NULL;
	bool		object = headers && JB_ROOT_IS_OBJECT(headers);

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (object)
	{
		JsonbIterator *it = JsonbIteratorInit(&headers->root);
		JsonbIteratorToken tok;
		JsonbValue	v;

		(void) JsonbIteratorNext(&it, &v, true);
		while ((tok = JsonbIteratorNext(&it, &v, true)) != WJB_END_OBJECT)
			pushJsonbValue(&state, tok, &v);
	}
	/* of equal names the last one stays */
	for (int i = 0; i < n; i++)
	{
		JsonbValue	value = set[i].value;

		push_name(&state, set[i].name);
		if (set[i].prepend)
		{
			JsonbValue *before = object ?
				getKeyJsonValueFromContainer(&headers->root, set[i].name,
											 strlen(set[i].name), NULL) : NULL;

			pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
			pushJsonbValue(&state, WJB_ELEM, &value);
			push_elements(&state, before);
			pushJsonbValue(&state, WJB_END_ARRAY, NULL);
		}
		else
			pushJsonbValue(&state, WJB_VALUE, &value);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* An object of these. */
Jsonb *
mq_json_object(const MqHeader *pairs, int n)
{
	return mq_headers_set(NULL, pairs, n);
}

/* Whether two values are the same, numbers by what they are worth. */
bool
mq_json_equal(const JsonbValue *a, const JsonbValue *b)
{
	if (a->type != b->type)
		return false;
	switch (a->type)
	{
		case jbvNull:
			return true;
		case jbvBool:
			return a->val.boolean == b->val.boolean;
		case jbvString:
			return a->val.string.len == b->val.string.len &&
				memcmp(a->val.string.val, b->val.string.val, a->val.string.len) == 0;
		case jbvNumeric:
			return DatumGetBool(DirectFunctionCall2(numeric_eq,
													NumericGetDatum(a->val.numeric),
													NumericGetDatum(b->val.numeric)));
		case jbvBinary:
			return compareJsonbContainers(a->val.binary.data, b->val.binary.data) == 0;
		default:
			return false;
	}
}
