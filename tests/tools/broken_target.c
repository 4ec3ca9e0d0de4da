/* SPDX-License-Identifier: Apache-2.0 */
/* broken_target [caw]: an iSCSI target of 64 MiB in memory whose compare-and-write is not atomic.  Prints its URL. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/block/mini_target.h"

int main(int argc, char **argv)
{
	static struct mini_target t = { .sector = 512, .size = 64 * MIB };
	char url[256];

	t.broken_caw = argc > 1 && !strcmp(argv[1], "caw");
	if (mini_start(&t))
		return 1;
	puts(mini_url(&t, "", url));
	fflush(stdout);
	for (;;)
		pause();
}
