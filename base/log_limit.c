/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log_limit.h"

/* FNV-1a. */
static struct log_limit_object *find(struct log_limit *l, const char *object)
{
	uint32_t hash = 2166136261u;

	for (; *object; object++)
		hash = (hash ^ (uint8_t)*object) * 16777619u;
	return &l->objects[(hash ^ hash >> 16) % LOG_LIMIT_OBJECTS];
}

bool log_limit_take(struct log_limit *l, const char *object, uint64_t now_ns, uint32_t *left_out)
{
	struct log_limit_object *o = find(l, object);
	uint64_t back;

	if (now_ns > o->since_ns) {
		back = (now_ns - o->since_ns) / LOG_LIMIT_REFILL_NS;
		o->taken -= back < o->taken ? (uint32_t)back : o->taken;
		o->since_ns = o->taken ? o->since_ns + back * LOG_LIMIT_REFILL_NS : now_ns;
	}
	if (o->taken == LOG_LIMIT_BURST) {
		o->left_out++;
		return false;
	}
	o->taken++;
	*left_out = o->left_out;
	o->left_out = 0;
	return true;
}
