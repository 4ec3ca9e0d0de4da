// SPDX-License-Identifier: Apache-2.0
/* Texts that people, other processes and disks hand us: sizes, UUIDs, names, files of /proc. */
#include "base/machine.h"
#include "base/text.h"
#include "daemon/mountinfo.h"
#include "tests/fuzz/fuzz.h"

static void sizes_and_uuids(const char *s)
{
	uint8_t uuid[16], again[16];
	char text[UUID_TEXT_SIZE], size_text[16];
	uint64_t bytes = 0;

	if (text_parse_size(s, &bytes) == 0)
		FUZZ_CHECK(bytes <= 1ULL << 63 &&
			   text_format_size(bytes, size_text, sizeof(size_text))[0]);
	if (text_parse_uuid(s, uuid) == 0)
		FUZZ_CHECK(text_parse_uuid(text_format_uuid(uuid, text), again) == 0 &&
			   memcmp(uuid, again, 16) == 0);
}

static void printable(const char *s, size_t len, size_t room)
{
	char *buf = malloc(room);

	FUZZ_CHECK(buf);
	text_printable(s, len, buf, room);
	for (size_t i = 0; buf[i]; i++)
		FUZZ_CHECK((unsigned char)buf[i] >= ' ' && buf[i] != 0x7f);
	free(buf);
}

static void mounts(const char *s, size_t len)
{
	char where[PATH_MAX];
	uint32_t minor;
	FILE *in;

	if (!len)
		return;
	in = fmemopen((void *)(uintptr_t)s, len, "r");
	FUZZ_CHECK(in);
	mountinfo_find(in, "/mnt/a b", &minor);
	rewind(in);
	FUZZ_CHECK(mountinfo_where(in, NULL, 39, where) <= 0 || strlen(where) < sizeof(where));
	fclose(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint64_t room = 1 + fuzz_number(&in, 1), start;
	size_t len = in.left;
	char *s, state;

	printable((const char *)in.p, in.left, room);
	s = fuzz_text(&in);
	sizes_and_uuids(s);
	machine_parse_stat(s, &start, &state);
	mounts(s, len);
	free(s);
	return 0;
}
