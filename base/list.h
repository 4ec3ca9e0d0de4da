/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list: a head is a node whose neighbours are the last and the first. */
#ifndef LUNFS_BASE_LIST_H
#define LUNFS_BASE_LIST_H

#include "base/types.h"

struct list {
	struct list *prev;
	struct list *next;
};

static inline void list_init(struct list *l)
{
	l->prev = l;
	l->next = l;
}

/* A node that is on no list, if list_init() was called on it or list_del() was. */
static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert(struct list *node, struct list *before)
{
	node->prev = before->prev;
	node->next = before;
	before->prev->next = node;
	before->prev = node;
}

static inline void list_add_tail(struct list *head, struct list *node)
{
	list_insert(node, head);
}

static inline void list_add_head(struct list *head, struct list *node)
{
	list_insert(node, head->next);
}

static inline void list_del(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* Move everything on @from to the end of @to; @from is empty afterwards. */
static inline void list_splice_tail(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_entry(ptr, type, member)	container_of(ptr, type, member)
#define list_first(head, type, member)	list_entry((head)->next, type, member)

/* Safe against removal of the current entry; @tmp is a second cursor of the same type. */
#define list_for_each(pos, tmp, head, member)					\
	for (pos = list_entry((head)->next, __typeof__(*pos), member),		\
	     tmp = list_entry(pos->member.next, __typeof__(*pos), member);	\
	     &pos->member != (head);						\
	     pos = tmp, tmp = list_entry(tmp->member.next, __typeof__(*tmp), member))

#endif
