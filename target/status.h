/* SPDX-License-Identifier: Apache-2.0 */
/* What a running target says of itself: who is logged in, what is served, who holds it. */
#ifndef LUNFS_TARGET_STATUS_H
#define LUNFS_TARGET_STATUS_H

#include "iscsi/config.h"
#include "target/units.h"

/**
 * status_serve() - accepts on @listener and answers with one JSON document, for people of a
 * second's patience.  @config: in force.  Context: the worker's control thread.
 */
void status_serve(int listener, struct tgt *tgt, struct units *units,
		  const struct tgt_config *config);

#endif
