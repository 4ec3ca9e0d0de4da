/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"

#define DEPTH_MAX	1024u
#define BLOCK_SIZE_MAX	(16 * MIB)

static const char usage[] =
"usage: lunfs-vhost-bench [options] SOCKET\n"
"\n"
"Loads and measures a vhost-user-blk server, whosever it is, as a guest would.\n"
"Writing tests overwrite the disk.\n"
"\n"
"Load:\n"
"  --rw read|write|rw|randread|randwrite|randrw   (default randread)\n"
"  --bs SIZE              bytes of a request (default 4K)\n"
"  --iodepth N            requests a queue at a time (default 32)\n"
"  --queues N             virtqueues (default 1)\n"
"  --threads N            threads that serve them (default 1)\n"
"  --rwmixread PERCENT    reads in a mix (default 50)\n"
"  --discard PERCENT      discards among the requests (default 0)\n"
"  --zeroes PERCENT       writes of zeroes among them (default 0)\n"
"  --fsync N              a flush after every N writes of a queue (default 0: never)\n"
"  --offset SIZE, --size SIZE   only that part of the disk\n"
"  --once                 sequential: all of it once, instead of for a time\n"
"  --runtime SECONDS      how long is measured (default 5)\n"
"  --ramp SECONDS         and how long not, before that (default 0.2)\n"
"  --seed N               of which requests are made (default 1)\n"
"\n"
"How the rings are used:\n"
"  --wait event|poll      sleep until an interrupt, or look all the time (default event)\n"
"  --ring split|packed    (default split)\n"
"  --ring-size N          entries (default: what is needed, at least 128)\n"
"  --segments N           pieces that the data of a request is cut into (default 1)\n"
"  --no-indirect, --no-event-idx   do without that feature\n"
"  --write-through        do without FLUSH: what is acknowledged must be safe\n"
"  --mem auto|table|slots share memory by SET_MEM_TABLE or ADD_MEM_REG (default auto)\n"
"  --regions N            in so many regions (default 1)\n"
"\n"
"Other things than load:\n"
"  --verify               check what is read, and all that was written at the end\n"
"  --ledger FILE          keep what must be on the disk in FILE; implies --verify\n"
"  --check                write nothing: only check the disk against the ledger\n"
"  --reconnect SECONDS    if the server goes away, wait so long for another\n"
"  --idle                 no request at all: what a connected server costs\n"
"  --exercise             go through what a server must be able to do\n"
"\n"
"  --server-pid PID[,PID] whose CPU time counts (default: who listens at SOCKET)\n"
"  --json                 the result as JSON\n"
"  --help, --version\n";

enum {
	OPT_RW = 256, OPT_BS, OPT_IODEPTH, OPT_QUEUES, OPT_THREADS, OPT_RWMIXREAD, OPT_DISCARD,
	OPT_ZEROES, OPT_FSYNC, OPT_OFFSET, OPT_SIZE, OPT_ONCE, OPT_RUNTIME, OPT_RAMP, OPT_SEED,
	OPT_WAIT, OPT_RING, OPT_RING_SIZE, OPT_SEGMENTS, OPT_NO_INDIRECT, OPT_NO_EVENT_IDX,
	OPT_WRITE_THROUGH, OPT_MEM, OPT_REGIONS, OPT_VERIFY, OPT_LEDGER, OPT_CHECK, OPT_RECONNECT, OPT_IDLE,
	OPT_EXERCISE, OPT_SERVER_PID, OPT_JSON, OPT_HELP, OPT_VERSION,
};

static const struct option long_options[] = {
	{ "rw", required_argument, NULL, OPT_RW },
	{ "bs", required_argument, NULL, OPT_BS },
	{ "iodepth", required_argument, NULL, OPT_IODEPTH },
	{ "queues", required_argument, NULL, OPT_QUEUES },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "rwmixread", required_argument, NULL, OPT_RWMIXREAD },
	{ "discard", required_argument, NULL, OPT_DISCARD },
	{ "zeroes", required_argument, NULL, OPT_ZEROES },
	{ "fsync", required_argument, NULL, OPT_FSYNC },
	{ "offset", required_argument, NULL, OPT_OFFSET },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "runtime", required_argument, NULL, OPT_RUNTIME },
	{ "ramp", required_argument, NULL, OPT_RAMP },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "wait", required_argument, NULL, OPT_WAIT },
	{ "ring", required_argument, NULL, OPT_RING },
	{ "ring-size", required_argument, NULL, OPT_RING_SIZE },
	{ "segments", required_argument, NULL, OPT_SEGMENTS },
	{ "no-indirect", no_argument, NULL, OPT_NO_INDIRECT },
	{ "no-event-idx", no_argument, NULL, OPT_NO_EVENT_IDX },
	{ "write-through", no_argument, NULL, OPT_WRITE_THROUGH },
	{ "mem", required_argument, NULL, OPT_MEM },
	{ "regions", required_argument, NULL, OPT_REGIONS },
	{ "verify", no_argument, NULL, OPT_VERIFY },
	{ "ledger", required_argument, NULL, OPT_LEDGER },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "reconnect", required_argument, NULL, OPT_RECONNECT },
	{ "idle", no_argument, NULL, OPT_IDLE },
	{ "exercise", no_argument, NULL, OPT_EXERCISE },
	{ "server-pid", required_argument, NULL, OPT_SERVER_PID },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int wrong(const char *option, const char *value, const char *should)
{
	fprintf(stderr, "lunfs-vhost-bench: --%s %s: %s\n", option, value, should);
	return -EINVAL;
}

/* ---- values ---- */

static int parse_number(const char *option, const char *s, uint64_t min, uint64_t max,
			uint64_t *out)
{
	char *end, should[80];
	unsigned long long n;

	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno || end == s || *end || *s == '-' || n < min || n > max) {
		snprintf(should, sizeof(should), "not a number from %" PRIu64 " to %" PRIu64, min,
			 max);
		return wrong(option, s, should);
	}
	*out = n;
	return 0;
}

static int parse_unsigned(const char *option, const char *s, unsigned int min, unsigned int max,
			  unsigned int *out)
{
	uint64_t n;
	int err = parse_number(option, s, min, max, &n);

	if (!err)
		*out = (unsigned int)n;
	return err;
}

static int parse_size(const char *option, const char *s, uint64_t *out)
{
	return text_parse_size(s, out) ? wrong(option, s, "not a size; write for example 128K") : 0;
}

static int parse_seconds(const char *option, const char *s, uint64_t *ns)
{
	char *end;
	double d = strtod(s, &end);

	if (end == s || *end || !isfinite(d) || d < 0 || d > 1e6)
		return wrong(option, s, "not a number of seconds");
	*ns = (uint64_t)(d * (double)NSEC_PER_SEC);
	return 0;
}

static int parse_rw(struct options *o, const char *s)
{
	const char *op = strncmp(s, "rand", 4) ? s : s + 4;

	o->load.random = op != s;
	if (!strcmp(op, "read"))
		o->load.read_percent = 100;
	else if (!strcmp(op, "write"))
		o->load.read_percent = 0;
	else if (strcmp(op, "rw"))
		return wrong("rw", s, "not one of read, write, rw, randread, randwrite, randrw");
	else
		o->load.read_percent = 101;	/* what --rwmixread says */
	return 0;
}

static int parse_choice(const char *option, const char *s, const char *const *names, int *out)
{
	char should[80] = "not one of";

	for (int i = 0; names[i]; i++) {
		if (!strcmp(s, names[i])) {
			*out = i;
			return 0;
		}
		snprintf(should + strlen(should), sizeof(should) - strlen(should), " %s",
			 names[i]);
	}
	return wrong(option, s, should);
}

/* ---- options ---- */

struct parsing {
	struct options	*o;
	unsigned int	mix_read;
	bool		help;
};

static int apply_load(struct parsing *ps, int opt, const char *name, const char *arg)
{
	struct load_params *p = &ps->o->load;
	uint64_t bs;

	switch (opt) {
	case OPT_RW:
		return parse_rw(ps->o, arg);
	case OPT_BS:
		if (parse_size(name, arg, &bs))
			return -EINVAL;
		if (!bs || bs % 512 || bs > BLOCK_SIZE_MAX)
			return wrong(name, arg, "not a multiple of 512 up to 16M");
		p->block_size = (uint32_t)bs;
		return 0;
	case OPT_IODEPTH:
		return parse_unsigned(name, arg, 1, DEPTH_MAX, &ps->o->fe.depth);
	case OPT_QUEUES:
		return parse_unsigned(name, arg, 1, FE_QUEUES_MAX, &ps->o->fe.queues);
	case OPT_THREADS:
		return parse_unsigned(name, arg, 1, FE_QUEUES_MAX, &p->threads);
	case OPT_RWMIXREAD:
		return parse_unsigned(name, arg, 0, 100, &ps->mix_read);
	case OPT_DISCARD:
		return parse_unsigned(name, arg, 0, 100, &p->discard_percent);
	case OPT_ZEROES:
		return parse_unsigned(name, arg, 0, 100, &p->zero_percent);
	case OPT_FSYNC:
		return parse_unsigned(name, arg, 0, UINT32_MAX, &p->flush_every);
	case OPT_OFFSET:
		return parse_size(name, arg, &p->offset);
	case OPT_SIZE:
		return parse_size(name, arg, &p->size);
	case OPT_ONCE:
		p->once = true;
		return 0;
	case OPT_RUNTIME:
		return parse_seconds(name, arg, &ps->o->runtime_ns);
	case OPT_RAMP:
		return parse_seconds(name, arg, &ps->o->ramp_ns);
	case OPT_SEED:
		return parse_number(name, arg, 0, UINT64_MAX, &p->seed);
	default:
		return 1;
	}
}

static int apply_ring(struct parsing *ps, int opt, const char *name, const char *arg)
{
	static const char *const waits[] = { "event", "poll", NULL };
	static const char *const rings[] = { "split", "packed", NULL };
	static const char *const mems[] = { "auto", "table", "slots", NULL };
	struct fe_params *p = &ps->o->fe;
	int n = 0, err;

	switch (opt) {
	case OPT_WAIT:
		err = parse_choice(name, arg, waits, &n);
		ps->o->load.poll = n;
		return err;
	case OPT_RING:
		err = parse_choice(name, arg, rings, &n);
		p->features_off &= ~FEATURE(VIRTIO_F_RING_PACKED);
		p->features_off |= n ? 0 : FEATURE(VIRTIO_F_RING_PACKED);
		p->features_wanted = n ? FEATURE(VIRTIO_F_RING_PACKED) : 0;
		return err;
	case OPT_RING_SIZE:
		if (parse_unsigned(name, arg, 2, 32768, &p->queue_size))
			return -EINVAL;
		return p->queue_size & (p->queue_size - 1) ?
		       wrong(name, arg, "not a power of two") : 0;
	case OPT_SEGMENTS:
		return parse_unsigned(name, arg, 1, VQ_BUFS_MAX - 2, &ps->o->load.segments);
	case OPT_NO_INDIRECT:
		p->features_off |= FEATURE(VIRTIO_F_INDIRECT_DESC);
		return 0;
	case OPT_NO_EVENT_IDX:
		p->features_off |= FEATURE(VIRTIO_F_EVENT_IDX);
		return 0;
	case OPT_WRITE_THROUGH:
		p->features_off |= FEATURE(BLK_F_FLUSH) | FEATURE(BLK_F_CONFIG_WCE);
		return 0;
	case OPT_MEM:
		err = parse_choice(name, arg, mems, &n);
		p->mem = (enum fe_mem)n;
		return err;
	case OPT_REGIONS:
		return parse_unsigned(name, arg, 1, FE_REGIONS_MAX, &p->regions);
	default:
		return 1;
	}
}

static int apply_rest(struct parsing *ps, int opt, const char *name, const char *arg)
{
	struct options *o = ps->o;

	switch (opt) {
	case OPT_VERIFY:
		o->verify = true;
		return 0;
	case OPT_LEDGER:
		o->ledger = arg;
		o->verify = true;
		return 0;
	case OPT_CHECK:
		o->load.check_only = true;
		return 0;
	case OPT_RECONNECT:
		return parse_seconds(name, arg, &o->reconnect_ns);
	case OPT_IDLE:
		o->idle = true;
		return 0;
	case OPT_EXERCISE:
		o->exercise = true;
		return 0;
	case OPT_SERVER_PID:
		return cpu_watch_parse(&o->watch, arg) ? wrong(name, arg, "not process ids") : 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	default:
		return -EINVAL;
	}
}

static int apply(struct parsing *ps, int opt, const char *name, const char *arg)
{
	int err = apply_load(ps, opt, name, arg);

	if (err > 0)
		err = apply_ring(ps, opt, name, arg);
	if (err > 0)
		err = apply_rest(ps, opt, name, arg);
	return err;
}

/* Options that do not go together. */
static const char *contradiction(const struct options *o)
{
	const struct load_params *p = &o->load;

	if (p->discard_percent + p->zero_percent > 100)
		return "--discard and --zeroes are more than 100 % together";
	if (p->once && p->random)
		return "--once is for a sequential --rw";
	if (p->flush_every && o->fe.features_off & FEATURE(BLK_F_FLUSH))
		return "--write-through leaves no flush for --fsync";
	if (p->check_only && !o->ledger)
		return "--check wants the --ledger of an earlier run";
	if (p->block_size / p->segments == 0)
		return "more --segments than --bs has bytes";
	if (o->exercise && (o->json || o->idle || o->verify))
		return "--exercise goes with none of --json, --idle, --verify";
	return NULL;
}

static void settle(struct options *o, unsigned int mix_read)
{
	struct load_params *p = &o->load;

	if (p->read_percent == 101)
		p->read_percent = mix_read;
	if (p->threads > o->fe.queues)
		p->threads = o->fe.queues;
	o->fe.threads = p->threads;
	if (o->exercise) {
		o->fe.depth = 1;
		o->fe.queues = 1;
		p->segments = 8;
		p->block_size = 128 * 1024;
	}
	o->fe.bufs_max = p->segments + 2;
	o->fe.slot_bytes = ALIGN_UP(p->block_size, 4096u);
}

int options_parse(struct options *o, int argc, char **argv)
{
	struct parsing ps = { .o = o, .mix_read = 50 };
	const char *why;
	int opt, index = 0;

	*o = (struct options){
		.fe = { .queues = 1, .depth = 32,
			.features_off = FEATURE(VIRTIO_F_RING_PACKED) },
		.load = { .block_size = 4096, .random = true, .read_percent = 100, .segments = 1,
			  .threads = 1, .seed = 1 },
		.runtime_ns = 5 * NSEC_PER_SEC, .ramp_ns = NSEC_PER_SEC / 5 };
	while ((opt = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage, stdout);
			return 0;
		}
		if (opt == OPT_VERSION) {
			puts("lunfs-vhost-bench " LUNFS_VERSION);
			return 0;
		}
		if (opt == '?' || apply(&ps, opt, long_options[index].name, optarg)) {
			fputs("lunfs-vhost-bench: see lunfs-vhost-bench --help\n", stderr);
			return 2;
		}
	}
	if (argc - optind != 1) {
		fputs(usage, stderr);
		return 2;
	}
	o->fe.socket = argv[optind];
	settle(o, ps.mix_read);
	why = contradiction(o);
	if (!why)
		return -1;
	fprintf(stderr, "lunfs-vhost-bench: %s\n", why);
	return 2;
}

int options_fit(struct options *o, uint64_t capacity)
{
	struct load_params *p = &o->load;
	uint64_t queues = o->fe.queues;

	if (!p->size && p->offset < capacity)
		p->size = capacity - p->offset;
	if (p->offset % 512 || p->offset > capacity || p->size > capacity - p->offset) {
		fprintf(stderr, "lunfs-vhost-bench: --offset and --size lie beyond the disk's %"
			PRIu64 " bytes\n", capacity);
		return -EINVAL;
	}
	p->size = ALIGN_DOWN(p->size, p->block_size);
	if (p->size / p->block_size >= queues)
		return 0;
	fprintf(stderr, "lunfs-vhost-bench: the disk, or the part of it, has no block for each "
		"queue\n");
	return -EINVAL;
}
