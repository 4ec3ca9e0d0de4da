/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many lines one object may have in the log: a guest, an initiator or a disk that does the
 * same wrong thing for ever must fill no filesystem, and hide nobody else's lines (R9).
 */
#ifndef LUNFS_BASE_LOG_LIMIT_H
#define LUNFS_BASE_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define LOG_LIMIT_OBJECTS	64u	/* told apart by a hash */
#define LOG_LIMIT_BURST		100u	/* lines at once */
#define LOG_LIMIT_REFILL_NS	1000000000ULL	/* … and one more after each such time */

/* All zeros is one that nothing was taken from.  The caller's lock guards it. */
struct log_limit {
	struct log_limit_object {
		uint64_t since_ns;	/* up to here lines were counted */
		uint32_t taken;		/* of the burst */
		uint32_t left_out;
	} objects[LOG_LIMIT_OBJECTS];
};

/**
 * log_limit_take() - whether @object may have a line at @now_ns.
 * @left_out: if it may, receives how many lines before this one it might not have.
 */
bool log_limit_take(struct log_limit *l, const char *object, uint64_t now_ns, uint32_t *left_out);

#endif
