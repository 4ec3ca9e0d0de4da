/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damages a good volume in a file on purpose, in the way that one finding of fsck.lunfs names
 * (tests/fs/wrecks.h, where the unit tests have it from, too).
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/check_online.h"
#include "tests/fs/wrecks.h"

#define VOLUME_SIZE	(64 * MIB)
#define CHUNK		(64 * KIB)

static const char usage[] =
	"Usage: wreck good FILE\n"
	"       wreck NAME FILE\n"
	"       wreck --list | --codes | --quiet-only\n"
	"\n"
	"good makes a volume of 64 MiB with two directories and three files in the new FILE.\n"
	"NAME damages the one in FILE in the way that fsck.lunfs reports as NAME, as in\n"
	"map-entry-outside-volume; NAME.2, NAME.3 are other ways.\n"
	"--list prints every NAME with its code; --codes, every code that fsck.lunfs knows;\n"
	"--quiet-only, those that no check of a volume in use can prove.\n"
	"For block-unreadable and block-unwritable the device has to fail: printed is at what,\n"
	"and at which byte.\n";

static struct job {
	int fd;
	unsigned int which;	/* of cases[], or ARRAY_SIZE(cases) for a good volume */
	int err;
	char why[400];
} job;

/* ---- names ---- */

static void name_case(unsigned int which, char *name, size_t size)
{
	unsigned int nth = 1;

	for (unsigned int i = 0; i < which; i++)
		nth += cases[i].code == cases[which].code;
	if (nth == 1)
		snprintf(name, size, "%s", check_code_info(cases[which].code)->name);
	else
		snprintf(name, size, "%s.%u", check_code_info(cases[which].code)->name, nth);
}

static void print_code(enum check_code code, const char *name)
{
	printf("LUN-%04u %s\n", check_code_info(code)->number, name);
}

static int print_list(void)
{
	char name[100];

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		name_case(i, name, sizeof(name));
		print_code(cases[i].code, name);
	}
	return 0;
}

static int print_codes(void)
{
	for (unsigned int i = 0; i < CHECK_CODE_COUNT; i++)
		print_code((enum check_code)i, check_code_info((enum check_code)i)->name);
	return 0;
}

static int print_quiet_only(void)
{
	for (unsigned int i = 0; i < CHECK_CODE_COUNT; i++)
		if (!check_online_proves((enum check_code)i))
			print_code((enum check_code)i, check_code_info((enum check_code)i)->name);
	return 0;
}

static bool find_case(const char *name, unsigned int *which)
{
	char known[100];

	for (*which = 0; *which < ARRAY_SIZE(cases); ++*which) {
		name_case(*which, known, sizeof(known));
		if (!strcmp(known, name))
			return true;
	}
	return false;
}

/* ---- the file, by way of a simulated device ---- */

static bool is_zero(const uint8_t *bytes, size_t len)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, len - 1);
}

static int load(struct volume *v, void *chunk)
{
	for (uint64_t at = 0; at < VOLUME_SIZE; at += CHUNK) {
		if (pread(job.fd, chunk, CHUNK, (off_t)at) != CHUNK)
			return -EIO;
		simdisk_poke(v->disk, at, chunk, CHUNK);
	}
	return 0;
}

/* Leaves holes where there is nothing, and what has not changed alone. */
static int store(struct volume *v, uint8_t *chunk)
{
	uint8_t *was = calloc(1, CHUNK);
	int err = 0;

	for (uint64_t at = 0; at < VOLUME_SIZE && !err; at += CHUNK) {
		simdisk_peek(v->disk, at, chunk, CHUNK);
		if (pread(job.fd, was, CHUNK, (off_t)at) == CHUNK ? !memcmp(was, chunk, CHUNK) :
		    is_zero(chunk, CHUNK))
			continue;
		if (pwrite(job.fd, chunk, CHUNK, (off_t)at) != CHUNK)
			err = -EIO;
	}
	free(was);
	return err ? err : ftruncate(job.fd, VOLUME_SIZE) ? -errno : 0;
}

/* wrecks.h knows where things lie: in a volume that it made itself, whole. */
static bool is_as_made(struct volume *v)
{
	struct check_params p = { .env = v->host, .dev = v->dev };
	struct check_result r;

	return !volume_read_super(v, &v->s) &&
	       !check_volume(&p, &r, v->why, sizeof(v->why)) && !r.errors && !r.notes &&
	       r.files == 3 && r.directories == 2 && r.orphans == 1;
}

/* What the files hold, or their loss would not show. */
static void fill_files(struct volume *v, uint8_t *block)
{
	for (uint32_t rel = UNIT_REL; rel < UNIT_REL + UNIT_BLOCKS; rel++) {
		memset(block, (int)('A' + rel % 26), BLOCK_SIZE);
		simdisk_poke(v->disk, addr_of(v, rel), block, BLOCK_SIZE);
	}
	memset(block, 'x', BLOCK_SIZE);
	simdisk_poke(v->disk, addr_of(v, DATA_REL), block, BLOCK_SIZE);
}

/* A file cannot fail: whoever runs the check lets the device do it, here. */
static void print_fault(const struct volume *v)
{
	if (cases[job.which].code == CHECK_UNREADABLE)
		printf("read %llu\n", (unsigned long long)addr_of(v, LEAF_REL));
	if (cases[job.which].code == CHECK_UNWRITABLE)
		printf("write %llu\n", (unsigned long long)v->s.ag_addr + 2 * BLOCK_SIZE);
}

static void work(struct volume *v)
{
	uint8_t *chunk = calloc(1, CHUNK);

	v->why[0] = '\0';
	if (job.which == ARRAY_SIZE(cases)) {
		make_volume(v);
		fill_files(v, chunk);
		job.err = store(v, chunk);
	} else if ((job.err = load(v, chunk)) == 0) {
		if (is_as_made(v)) {
			cases[job.which].damage(v);
			print_fault(v);
			job.err = store(v, chunk);
		} else {
			job.err = -EINVAL;
		}
	}
	snprintf(job.why, sizeof(job.why), "%s", v->why);
	free(chunk);
}

static void run(void)
{
	struct simdisk_params p = { .size = VOLUME_SIZE, .sector = 512, .latency_min_ns = 1000,
				    .latency_max_ns = 2000 };

	volume_run_on(3, &p, work, 0);
}

/* The simulator's parts assert with CUnit, which wants to be inside of a test. */
static int run_as_a_test(void)
{
	CU_pSuite suite;

	if (CU_initialize_registry() != CUE_SUCCESS ||
	    !(suite = CU_add_suite("wreck", NULL, NULL)) || !CU_add_test(suite, "wreck", run))
		return 2;
	CU_run_all_tests();
	if (CU_get_number_of_failures() && !job.err)
		job.err = -EPROTO;
	CU_cleanup_registry();
	return 0;
}

int main(int argc, char **argv)
{
	int flags = O_RDWR;

	if (argc == 2 && !strcmp(argv[1], "--help"))
		return puts(usage) < 0;
	if (argc == 2 && !strcmp(argv[1], "--list"))
		return print_list();
	if (argc == 2 && !strcmp(argv[1], "--codes"))
		return print_codes();
	if (argc == 2 && !strcmp(argv[1], "--quiet-only"))
		return print_quiet_only();
	if (argc != 3) {
		fputs(usage, stderr);
		return 2;
	}
	job.which = ARRAY_SIZE(cases);
	if (!strcmp(argv[1], "good")) {
		flags |= O_CREAT | O_EXCL;
	} else if (!find_case(argv[1], &job.which)) {
		fprintf(stderr, "wreck: no damage is called %s; --list shows what there is\n", argv[1]);
		return 2;
	}
	job.fd = open(argv[2], flags | O_CLOEXEC, 0644);
	if (job.fd < 0) {
		fprintf(stderr, "wreck: %s: %s\n", argv[2], strerror(errno));
		return 1;
	}
	if (run_as_a_test())
		return 2;
	close(job.fd);
	if (job.err == -EINVAL)
		fprintf(stderr, "wreck: %s is not a volume as \"wreck good\" makes it: %s\n",
			argv[2], job.why);
	else if (job.err)
		fprintf(stderr, "wreck: %s: %s\n", argv[2], strerror(-job.err));
	return job.err ? 1 : 0;
}
