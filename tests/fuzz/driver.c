// SPDX-License-Identifier: Apache-2.0
/*
 * Runs a fuzzer without libFuzzer: every file of a corpus, then a number of mutations of them
 * that follows from a fixed seed, so that a failure of `make check` is there again tomorrow.
 *
 *	PROGRAM [-n MUTATIONS] [-s SEED] FILE-OR-DIRECTORY…
 *
 * An input that crashes, takes more than INPUT_SECONDS of the processor, or has the program need
 * more than MEMORY_MIB of memory is left in PROGRAM.failed.
 */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_SECONDS	30
#define MEMORY_MIB	512	/* they need some 100, under the sanitizers */
#define INPUT_MAX	(64 * KIB)
#define FILES_MAX	4096u

struct input {
	char	*path;
	uint8_t	*data;
	size_t	size;
};

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	return 0;
}

/* A fuzzer that has one makes up inputs of its own; @size is 0 here. */
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size,
						     unsigned int seed);

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else
static void __sanitizer_set_death_callback(void (*fn)(void))
{
	(void)fn;
}
#endif

static struct input files[FILES_MAX];
static unsigned int file_count;
static const uint8_t *current;	/* what the signal handler is to save */
static size_t current_size;
static char failed_path[4096];
static uint64_t rng;

static void save_current(void)
{
	FILE *out = current ? fopen(failed_path, "w") : NULL;

	if (!out)
		return;
	fwrite(current, 1, current_size, out);
	fclose(out);
	fprintf(stderr, "the input is in %s\n", failed_path);
	current = NULL;
}

static void on_signal(int sig)
{
	if (sig == SIGPROF)
		fprintf(stderr, "an input takes longer than %d s\n", INPUT_SECONDS);
	save_current();
	signal(sig, SIG_DFL);
	if (sig == SIGPROF)
		_exit(3);
	raise(sig);
}

/* Of the processor: on a busy machine nothing else says that an input is slow. */
static void limit_time(time_t seconds)
{
	struct itimerval t = { .it_value.tv_sec = seconds };

	setitimer(ITIMER_PROF, &t, NULL);
}

static void check_memory(void)
{
	struct rusage u;

	FUZZ_CHECK(getrusage(RUSAGE_SELF, &u) == 0);
	if (u.ru_maxrss / 1024 <= MEMORY_MIB)
		return;
	fprintf(stderr, "an input needs more than %d MiB of memory: %ld\n", MEMORY_MIB,
		u.ru_maxrss / 1024);
	abort();
}

static void run_one(const uint8_t *data, size_t size)
{
	/* A copy of its own: reading beyond it is seen by ASan. */
	uint8_t *copy = malloc(size ? size : 1);

	FUZZ_CHECK(copy);
	memcpy(copy, data, size);
	current = copy;
	current_size = size;
	limit_time(INPUT_SECONDS);
	LLVMFuzzerTestOneInput(copy, size);
	limit_time(0);
	check_memory();
	current = NULL;
	free(copy);
}

/* ---- the corpus ---- */

static void add_file(const char *path)
{
	uint8_t *data = malloc(INPUT_MAX);
	FILE *in = fopen(path, "r");

	FUZZ_CHECK(data && in && file_count < FILES_MAX);
	files[file_count].path = strdup(path);
	files[file_count].size = fread(data, 1, INPUT_MAX, in);
	files[file_count].data = data;
	file_count++;
	fclose(in);
}

static void add(const char *path)
{
	struct dirent **names;
	struct stat st;
	char child[4096];
	int n;

	if (stat(path, &st)) {
		perror(path);
		exit(2);
	}
	if (!S_ISDIR(st.st_mode)) {
		add_file(path);
		return;
	}
	n = scandir(path, &names, NULL, alphasort);
	FUZZ_CHECK(n >= 0);
	for (int i = 0; i < n; i++) {
		snprintf(child, sizeof(child), "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.')
			add_file(child);
		free(names[i]);
	}
	free(names);
}

/* ---- mutations ---- */

static uint64_t random_number(void)
{
	rng ^= rng << 13;	/* xorshift64 (Marsaglia 2003) */
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static size_t below(size_t bound)
{
	return bound ? (size_t)(random_number() % bound) : 0;
}

static size_t remove_some(uint8_t *d, size_t size)
{
	size_t at = below(size), n = 1 + below(size < 16 ? size : 16);

	if (n > size - at)
		n = size - at;
	memmove(d + at, d + at + n, size - at - n);
	return size - n;
}

static size_t insert_some(uint8_t *d, size_t size, const struct input *other)
{
	size_t at = below(size + 1), n = 1 + below(16), from;

	if (size + n > INPUT_MAX)
		return size;
	memmove(d + at + n, d + at, size - at);
	from = below(other->size);
	for (size_t i = 0; i < n; i++)
		d[at + i] = from + i < other->size ? other->data[from + i] :
			    (uint8_t)random_number();
	return size + n;
}

/* Numbers at which arithmetic goes wrong, in one to eight bytes. */
static void put_number(uint8_t *d, size_t size)
{
	static const uint64_t numbers[] = { 0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 0x1000,
		0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000,
		UINT64_MAX, UINT64_MAX - 4095 };
	uint64_t v = numbers[below(ARRAY_SIZE(numbers))];
	size_t n = (size_t)1 << below(4), at = below(size);

	for (size_t i = 0; i < n && at + i < size; i++)
		d[at + i] = (uint8_t)(v >> 8 * i);
}

static size_t mutate(uint8_t *d, size_t size)
{
	switch (size ? random_number() % 6 : 5) {
	case 0:
		d[below(size)] ^= (uint8_t)(1u << below(8));
		return size;
	case 1:
		d[below(size)] = (uint8_t)random_number();
		return size;
	case 2:
		put_number(d, size);
		return size;
	case 3:
		d[below(size)] += (uint8_t)(below(2) ? 1 : 255);
		return size;
	case 4:
		return remove_some(d, size);
	default:
		return insert_some(d, size, &files[below(file_count)]);
	}
}

static void run_mutations(unsigned long count)
{
	uint8_t *d = malloc(INPUT_MAX);

	FUZZ_CHECK(d);
	for (unsigned long i = 0; i < count; i++) {
		const struct input *from = &files[below(file_count)];
		size_t size = from->size;

		if (LLVMFuzzerCustomMutator) {
			size = LLVMFuzzerCustomMutator(d, 0, INPUT_MAX, (unsigned int)random_number());
		} else {
			memcpy(d, from->data, size);
			for (size_t times = 1 + below(6); times; times--)
				size = mutate(d, size);
		}
		run_one(d, size);
	}
	free(d);
}

int main(int argc, char **argv)
{
	unsigned long count = 0;
	int opt;

	rng = 0x4c554e4653;
	while ((opt = getopt(argc, argv, "n:s:")) != -1) {
		if (opt == 'n')
			count = strtoul(optarg, NULL, 10);
		else if (opt == 's')
			rng = strtoull(optarg, NULL, 10) * 0x9e3779b97f4a7c15 + 1;
		else
			return 2;
	}
	snprintf(failed_path, sizeof(failed_path), "%s.failed", argv[0]);
	for (int i = optind; i < argc; i++)
		add(argv[i]);
	if (!file_count) {
		fprintf(stderr, "%s: no inputs\n", argv[0]);
		return 2;
	}
	signal(SIGPROF, on_signal);
	signal(SIGABRT, on_signal);
	__sanitizer_set_death_callback(save_current);
	LLVMFuzzerInitialize(&argc, &argv);
	for (unsigned int i = 0; i < file_count; i++)
		run_one(files[i].data, files[i].size);
	run_mutations(count);
	printf("%u inputs of the corpus and %lu mutations\n", file_count, count);
	for (unsigned int i = 0; i < file_count; i++) {
		free(files[i].path);
		free(files[i].data);
	}
	return 0;
}
