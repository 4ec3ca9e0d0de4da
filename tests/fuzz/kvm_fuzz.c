/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lunvm is handed by others: a machine's configuration, a kernel, the answers of a disk's
 * server, and what a guest does to a device's registers.  The first byte says which.
 */
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvm/boot.h"
#include "kvm/config.h"
#include "kvm/front.h"
#include "kvm/layout.h"
#include "kvm/mmio.h"
#include "tests/fuzz/fuzz.h"
#include "vhost/virtio.h"

#define RAM	(32ull << 20)

#define GUARD	(64u << 10)

static struct vm_memory memory;
static uint8_t *guard;	/* right behind the guest's memory */
static struct reactor *r;
static int told, bell;

static void fuzz_config(struct fuzz_input *in)
{
	static struct vm_config c;
	char why[1024] = "";
	FILE *f;
	int err;

	if (!in->left)
		return;
	vm_config_init(&c);
	f = fmemopen((void *)(uintptr_t)in->p, in->left, "r");
	FUZZ_CHECK(f);
	err = vm_config_read(&c, f, "fuzz.conf", "ds:/x", why, sizeof(why));
	fclose(f);
	FUZZ_CHECK(!err || why[0]);
	if (!err && !vm_config_check(&c, why, sizeof(why)))
		FUZZ_CHECK(vm_config_name_is_fine(c.name) && c.kernel[0] && c.cpus >= 1 &&
			   c.cpus <= VM_CPUS_MAX && c.memory >= VM_MEMORY_MIN &&
			   c.disk_count <= VM_DISKS_MAX);
}

/* Of the file only the header's known part came into it. */
static void check_zero_page(const struct boot_params *zero)
{
	const uint8_t *p = (const uint8_t *)(&zero->hdr + 1);

	while (p < (const uint8_t *)zero->e820_table)
		FUZZ_CHECK(!*p++);
}

static void fuzz_kernel(struct fuzz_input *in)
{
	int fd = memfd_create("kernel", 0), initrd = memfd_create("initrd", 0);
	struct boot_source s = { fd, initrd, "console=ttyS0", GPA_ACPI };
	uint64_t entry = 0;
	char why[256] = "";
	int err;

	FUZZ_CHECK(fd >= 0 && initrd >= 0);
	FUZZ_CHECK(!ftruncate(initrd, (off_t)fuzz_number(in, 3)));
	FUZZ_CHECK(write(fd, in->p, in->left) == (ssize_t)in->left);
	/* A kernel may be longer than what the fuzzer finds interesting. */
	FUZZ_CHECK(!ftruncate(fd, (off_t)in->left + 4096));
	err = boot_load(&memory, &s, &entry, why, sizeof(why));
	FUZZ_CHECK(err ? why[0] != '\0' : memory_at(&memory, entry, 1) != NULL);
	if (!err)
		check_zero_page(memory_at(&memory, GPA_ZERO_PAGE, sizeof(struct boot_params)));
	/* The kernel copies there for us, where no sanitizer looks. */
	for (unsigned int i = 0; i < GUARD; i++)
		FUZZ_CHECK(guard[i] == 0xa5);
	close(fd);
	close(initrd);
}

/* ---- a server's answers ---- */

static void on_event(struct front *f, void *arg)
{
	(void)f;
	(void)arg;
}

static void on_lost(struct front *f, void *arg)
{
	(void)f;
	(void)arg;
	eventfd_write(told, 1);
}

static void on_broken(struct front *f, void *arg, const char *why)
{
	FUZZ_CHECK(why[0]);
	on_lost(f, arg);
}

static const struct front_ops front_ops = { on_event, on_event, on_lost, on_broken };

struct front_round {
	struct front *f;
	int	fd;
};

static void begin_front(void *arg)
{
	struct front_round *round = arg;
	static int bells[2];
	const struct front_params p = {
		.reactor = r, .memory = &memory, .ops = &front_ops, .queues_max = 2,
		.features = ~0ull, .kick_fds = bells, .call_fds = bells,
	};

	bells[0] = bells[1] = bell;
	FUZZ_CHECK(!front_new(&p, &round->f));
	FUZZ_CHECK(!front_attach(round->f, round->fd));
}

static void run_front(void *arg)
{
	static const struct front_queue q[2] = {
		{ true, 8, 0x100000, 0x101000, 0x102000 }, { true, 8, 0x200000, 0x201000, 0x202000 },
	};
	struct front_round *round = arg;

	if (front_state(round->f) >= FRONT_IDLE)
		front_run(round->f, q, FEATURE(VIRTIO_F_VERSION_1));
}

static void halt_front(void *arg)
{
	front_halt(((struct front_round *)arg)->f, true, NULL, NULL);
}

static void end_front(void *arg)
{
	front_close(((struct front_round *)arg)->f);
}

static void fuzz_front(struct fuzz_input *in)
{
	struct pollfd p = { .fd = told, .events = POLLIN };
	struct front_round round;
	eventfd_t count;
	size_t first = fuzz_number(in, 1), n;
	int sv[2];

	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM, 0, sv));
	round.fd = sv[1];
	reactor_call_sync(r, begin_front, &round);
	n = first < in->left ? first : in->left;
	if (n && send(sv[0], in->p, n, MSG_NOSIGNAL) == (ssize_t)n)
		reactor_call_sync(r, run_front, &round);
	n = in->left - n;
	if (n && send(sv[0], in->p + in->left - n, n, MSG_NOSIGNAL) == (ssize_t)n)
		reactor_call_sync(r, halt_front, &round);
	shutdown(sv[0], SHUT_WR);
	/* Whatever it said, its end is noticed. */
	FUZZ_CHECK(poll(&p, 1, 10000) == 1);
	eventfd_read(told, &count);
	reactor_call_sync(r, end_front, &round);
	close(sv[0]);
}

/* ---- a guest ---- */

static unsigned int running;

static void on_start(struct mmio *d, void *arg)
{
	(void)arg;
	FUZZ_CHECK(!running++);
	for (unsigned int i = 0; i < d->queue_count; i++)
		FUZZ_CHECK(!d->queues[i].ready ||
			   (memory_at(&memory, d->queues[i].desc, 16ull * d->queues[i].size) &&
			    memory_at(&memory, d->queues[i].device, 8ull * d->queues[i].size + 4)));
}

static void on_stop(struct mmio *d, void *arg)
{
	(void)d;
	(void)arg;
	FUZZ_CHECK(running--);
}

static void on_interrupt(struct mmio *d, void *arg)
{
	(void)d;
	(void)arg;
}

static const struct mmio_ops mmio_ops = { on_start, on_stop, on_interrupt };

static void fuzz_registers(struct fuzz_input *in)
{
	static const unsigned int lens[] = { 4, 4, 4, 4, 1, 2, 8, 3 };
	const struct mmio_params p = { .ops = &mmio_ops, .memory = &memory, .device_id = 2,
				       .features = FEATURE(VIRTIO_F_VERSION_1), .queue_count = 2 };
	struct mmio d;

	running = 0;
	mmio_init(&d, &p);
	while (in->left) {
		uint64_t what = fuzz_number(in, 2), offset = what & 0xfff;
		unsigned int len = lens[what >> 12 & 7];

		if (what >> 15)
			mmio_read(&d, offset, len);
		else
			mmio_write(&d, offset, len, fuzz_number(in, 4));
	}
	pthread_mutex_destroy(&d.mutex);
	pthread_mutex_destroy(&d.config_mutex);
}

/* The guest's memory is mapped anew, where there is room behind it. */
static void place_guard(void)
{
	uint8_t *at = mmap(NULL, RAM + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	FUZZ_CHECK(at != MAP_FAILED && !munmap(memory.base, RAM));
	memory.base = mmap(at, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory.fd, 0);
	FUZZ_CHECK(memory.base == (void *)at);
	guard = at + RAM;
	memset(guard, 0xa5, GUARD);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	told = eventfd(0, EFD_NONBLOCK);
	bell = eventfd(0, EFD_NONBLOCK);
	FUZZ_CHECK(told >= 0 && bell >= 0 && !memory_create(RAM, &memory));
	place_guard();
	FUZZ_CHECK(!reactor_create(env_posix(), "fuzz", 0, 4, &r));
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };

	switch (fuzz_number(&in, 1) % 4) {
	case 0:
		fuzz_config(&in);
		break;
	case 1:
		fuzz_kernel(&in);
		break;
	case 2:
		fuzz_front(&in);
		break;
	default:
		fuzz_registers(&in);
	}
	return 0;
}
