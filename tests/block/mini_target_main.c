// SPDX-License-Identifier: Apache-2.0
/* mini_target FILE PORT [ADDRESS]: the scripted target as a program, until it is killed. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/block/mini_target.h"

int main(int argc, char **argv)
{
	static struct mini_target t = { .sector = 512, .wce = true, .reservations = true };

	if (argc != 3 && argc != 4) {
		fprintf(stderr, "usage: mini_target FILE PORT [ADDRESS]\n");
		return 2;
	}
	t.file = argv[1];
	t.listen_addr = argc == 4 ? argv[3] : NULL;
	t.listen_port = (uint16_t)atoi(argv[2]);
	if (mini_start(&t)) {
		perror(argv[1]);
		return 1;
	}
	printf("iscsi://127.0.0.1:%u/" MINI_IQN "/0\n", t.port);
	fflush(stdout);
	for (;;)
		pause();
}
