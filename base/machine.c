/* SPDX-License-Identifier: Apache-2.0 */
#include "base/machine.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/siphash.h"

#define MACHINE_ID_FILE	"/etc/machine-id"
#define STATE_DIR	"/var/lib/lunfs"
#define STATE_FILE	STATE_DIR "/host-id"

static int read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	int err;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, size - 1);
	err = n < 0 ? -errno : 0;
	close(fd);
	buf[n < 0 ? 0 : n] = '\0';
	return err;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 32 hexadecimal digits, with hyphens between them or not, then the end of the line. */
static int parse_id(const char *s, uint8_t id[16])
{
	uint8_t parsed[16] = { 0 };
	unsigned int digits = 0;

	for (; *s && *s != '\n'; s++) {
		int d = hex_digit(*s);

		if (*s == '-')
			continue;
		if (d < 0 || digits == 32)
			return -EINVAL;
		parsed[digits / 2] = (uint8_t)(parsed[digits / 2] << 4 | d);
		digits++;
	}
	if (digits != 32)
		return -EINVAL;
	memcpy(id, parsed, sizeof(parsed));
	return 0;
}

/*
 * Written aside and linked into place: of two processes that come here at once, one makes
 * the file and both read the same.
 */
static int make_state_file(void)
{
	char path[] = STATE_DIR "/.host-id.XXXXXX";
	uint8_t id[16];
	char text[40];
	int fd, err = 0, n = 0;

	if (getrandom(id, sizeof(id), 0) != sizeof(id))
		return -EIO;
	for (unsigned int i = 0; i < sizeof(id); i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", id[i]);
	text[n++] = '\n';
	if (mkdir(STATE_DIR, 0755) && errno != EEXIST)
		return -errno;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fchmod(fd, 0444) || write(fd, text, (size_t)n) != n || fsync(fd))
		err = -EIO;
	if (!err && link(path, STATE_FILE) && errno != EEXIST)
		err = -errno;
	unlink(path);
	close(fd);
	return err;
}

int machine_id(uint8_t id[16])
{
	char text[64];
	int err = read_text(MACHINE_ID_FILE, text, sizeof(text));

	/* An image that was not booted yet has an empty file, or the word "uninitialized". */
	if (!err && !parse_id(text, id))
		return 0;
	err = read_text(STATE_FILE, text, sizeof(text));
	if (err == -ENOENT) {
		err = make_state_file();
		if (!err)
			err = read_text(STATE_FILE, text, sizeof(text));
	}
	return err ? err : parse_id(text, id);
}

int machine_boot_id(uint8_t id[16])
{
	char text[64];
	int err = read_text("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	return err ? err : parse_id(text, id);
}

void machine_derive_id(const uint8_t id[16], const char *name, uint8_t host_id[16])
{
	char text[300];

	/* Two hashes under one key, of texts that no name can make equal. */
	for (unsigned int half = 0; half < 2; half++) {
		int n = snprintf(text, sizeof(text), "lunfs host %u: %s", half, name);
		le64 h;

		if (n >= (int)sizeof(text))
			n = sizeof(text) - 1;
		h = cpu_to_le64(siphash24(id, text, (size_t)n));
		memcpy(host_id + 8 * half, h.b, sizeof(h));
	}
	host_id[6] = (host_id[6] & 0x0f) | 0x80;
	host_id[8] = (host_id[8] & 0x3f) | 0x80;
}

int machine_parse_stat(const char *text, uint64_t *start, char *state)
{
	/* The name, field 2, may hold anything, brackets and spaces too: its last ')' counts. */
	const char *p = strrchr(text, ')');
	unsigned long long ticks;
	char letter;

	if (!p || p[1] != ' ' || !p[2] || p[3] != ' ')
		return -EINVAL;
	letter = p[2];
	p += 2;
	for (unsigned int field = 3; field < 22; field++) {
		p = strchr(p, ' ');
		if (!p)
			return -EINVAL;
		p++;
	}
	if (sscanf(p, "%llu", &ticks) != 1)
		return -EINVAL;
	*start = ticks;
	if (state)
		*state = letter;
	return 0;
}

int machine_process_start(uint32_t pid, uint64_t *start, char *state)
{
	char path[32], text[1024];
	int err;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	err = read_text(path, text, sizeof(text));
	if (err)
		return err == -ENOENT ? -ESRCH : err;
	return machine_parse_stat(text, start, state);
}
