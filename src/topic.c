/*-------------------------------------------------------------------------
 * topic.c
 *		Topic patterns, compiled: which of many match a routing key.
 *
 * Patterns and keys are words between dots; a word may be empty, and the empty
 * string has no words.  In a pattern the word * stands for any one word, the
 * word # for any number of them, none included.  Words are compared byte by
 * byte.
 *
 * The patterns of an exchange stand in one trie, a node a prefix.  Walked depth
 * first, as suggests itself, several # make the walk exponential: each of them
 * tries every rest of the key.  So the trie is run as what it is, a
 * nondeterministic automaton (Thompson, "Regular expression search algorithm",
 * 1968): the set of nodes that the words so far lead to is carried from word to
 * word, and no node stands in it twice.
 *
 *	 - A word w leads from node N to N's child w and to its child *, and, N
 *	   itself being a #, to N again.
 *	 - With a node its child # is reached too, as # may stand for nothing.
 *	 - After the last word, the patterns that end at a node in the set match.
 *
 * So a key costs its words times the nodes alive at once, whatever the patterns
 * and however many there are besides.  The children of all nodes stand in one
 * hash table by (node, word).
 */
#include "topic.h"

#include "common/hashfn.h"

#define NO_NODE		0			/* the root is nobody's child */
#define ROOT		0

typedef struct ChildKey
{
	uint32		parent;
	uint32		len;
	const char *word;
} ChildKey;

typedef struct Child
{
	ChildKey	key;
	uint32		node;
	uint32		hash;
	char		status;
} Child;

static uint32
hash_child(ChildKey k)
{
	return hash_combine(murmurhash32(k.parent), hash_bytes((const unsigned char *) k.word, k.len));
}

static bool
same_child(ChildKey a, ChildKey b)
{
	return a.parent == b.parent && a.len == b.len && memcmp(a.word, b.word, a.len) == 0;
}

#define SH_PREFIX		children
#define SH_ELEMENT_TYPE	Child
#define SH_KEY_TYPE		ChildKey
#define SH_KEY			key
#define SH_HASH_KEY(tb, k)	hash_child(k)
#define SH_EQUAL(tb, a, b)	same_child(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a)	(a)->hash
#define SH_SCOPE		static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Target
{
	void	   *target;
	struct Target *next;
} Target;

typedef struct TopicNode
{
	uint32		star;			/* its child *, or NO_NODE */
	uint32		hash;			/* its child # */
	bool		is_hash;
	Target	   *targets;		/* of the patterns that end here */
	uint64		seen;			/* the last set it was put into */
} TopicNode;

struct MqTopic
{
	MemoryContext context;
	TopicNode  *nodes;
	uint32		n;
	uint32		max;
	children_hash *children;
	uint64		sets;			/* that were ever begun */
	uint32	   *set[2];			/* room for all nodes each; NULL: not yet made */
};

/* An empty set of patterns in this memory context, to be reset with it. */
MqTopic *
mq_topic_new(MemoryContext context)
{
	MqTopic    *t = MemoryContextAllocZero(context, sizeof(MqTopic));

	t->context = context;
	t->max = 64;
	t->nodes = MemoryContextAllocZero(context, sizeof(TopicNode) * t->max);
	t->n = 1;
	t->children = children_create(context, 64, NULL);
	return t;
}

static uint32
new_node(MqTopic *t)
{
	if (t->n == t->max)
	{
		t->max *= 2;
		t->nodes = repalloc_huge(t->nodes, sizeof(TopicNode) * t->max);
	}
	memset(&t->nodes[t->n], 0, sizeof(TopicNode));
	return t->n++;
}

/* The word at *at, up to the next dot or end; *at moves behind it. */
static ChildKey
next_word(const char **at, const char *end)
{
	ChildKey	w = {.word = *at};

	while (*at < end && **at != '.')
		(*at)++;
	w.len = *at - w.word;
	return w;
}

/* Whether there is a word behind this one. */
static bool
skip_dot(const char **at, const char *end)
{
	if (*at == end)
		return false;
	(*at)++;
	return true;
}

static uint32
child_to_add(MqTopic *t, uint32 parent, ChildKey w)
{
	bool		is_star = w.len == 1 && *w.word == '*';
	bool		is_hash = w.len == 1 && *w.word == '#';
	uint32		node;

	if (is_star || is_hash)
	{
		node = is_star ? t->nodes[parent].star : t->nodes[parent].hash;
		if (node == NO_NODE)
		{
			node = new_node(t);
			t->nodes[node].is_hash = is_hash;
			if (is_star)
				t->nodes[parent].star = node;
			else
				t->nodes[parent].hash = node;
		}
	}
	else
	{
		bool		found;
		Child	   *c;

		w.parent = parent;
		c = children_insert(t->children, w, &found);
		if (!found)
			c->node = new_node(t);
		node = c->node;
	}
	return node;
}

/* Adds a pattern; the same one may come with several targets. */
void
mq_topic_add(MqTopic *t, const char *pattern, int len, void *target)
{
	MemoryContext old = MemoryContextSwitchTo(t->context);
	const char *at = pnstrdup(pattern, len);	/* the words stay in the table */
	const char *end = at + len;
	Target	   *last = palloc(sizeof(Target));
	uint32		node = ROOT;

	if (len > 0)
		do
			node = child_to_add(t, node, next_word(&at, end));
		while (skip_dot(&at, end));
	last->target = target;
	last->next = t->nodes[node].targets;
	t->nodes[node].targets = last;
	if (t->set[0])
	{
		pfree(t->set[0]);
		t->set[0] = NULL;
	}
	MemoryContextSwitchTo(old);
}

/* Puts a node and its # into a set, unless they are in it. */
static inline int
reach(MqTopic *t, uint32 *set, int n, uint32 node)
{
	while (t->nodes[node].seen != t->sets)
	{
		t->nodes[node].seen = t->sets;
		set[n++] = node;
		if (t->nodes[node].hash == NO_NODE)
			break;
		node = t->nodes[node].hash;
	}
	return n;
}

/*
 * Calls found for the target of each pattern that matches the key, in no order;
 * a target that was added with several patterns may come several times.  found
 * must not come back here.
 */
void
mq_topic_match(MqTopic *t, const char *key, int len,
			   void (*found) (void *target, void *arg), void *arg)
{
	const char *at = key;
	const char *end = key + len;
	uint32	   *now;
	uint32	   *then;
	int			n;

	if (t->set[0] == NULL)
	{
		t->set[0] = MemoryContextAllocHuge(t->context, sizeof(uint32) * 2 * (Size) t->n);
		t->set[1] = t->set[0] + t->n;
	}
	now = t->set[0];
	then = t->set[1];
	t->sets++;
	n = reach(t, now, 0, ROOT);
	if (len > 0)
		do
		{
			ChildKey	w = next_word(&at, end);
			uint32	   *swap = now;
			int			m = 0;

			CHECK_FOR_INTERRUPTS();
			t->sets++;
			for (int i = 0; i < n; i++)
			{
				TopicNode  *node = &t->nodes[now[i]];
				Child	   *c;

				if (node->is_hash)
					m = reach(t, then, m, now[i]);
				if (node->star != NO_NODE)
					m = reach(t, then, m, node->star);
				w.parent = now[i];
				c = children_lookup(t->children, w);
				if (c)
					m = reach(t, then, m, c->node);
			}
			now = then;
			then = swap;
			n = m;
		} while (n > 0 && skip_dot(&at, end));
	for (int i = 0; i < n; i++)
		for (Target *x = t->nodes[now[i]].targets; x; x = x->next)
			found(x->target, arg);
}
