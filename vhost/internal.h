/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the vhost-user back end share.  All of it belongs to the reactor's thread. */
#ifndef LUNFS_VHOST_INTERNAL_H
#define LUNFS_VHOST_INTERNAL_H

#include "vhost/inflight.h"
#include "vhost/mem.h"
#include "vhost/notify.h"
#include "vhost/server.h"
#include "vhost/vhu.h"
#include "vhost/virtio.h"

#define SEG_MAX		126	/* data segments that we offer; header and status come on top */
#define DESCS_MAX	(SEG_MAX + 4)	/* descriptors that one request may have */
#define IOV_MAX_REQUEST	(DESCS_MAX + 8)	/* and some more where they cross regions */
#define SIZE_MAX_SEG	(4u << 20)	/* bytes of a segment that we offer */
#define DATA_MAX	((uint64_t)SEG_MAX * SIZE_MAX_SEG)	/* so many of a request, then */
#define REQUESTS_MAX	1024	/* under way at a time, of all queues; the rest waits in its ring */
#define BYTES_MAX	(256 * MIB)	/* so do their bytes: giants would keep the reactor from everybody */
#define RANGES_MAX	16	/* of a DISCARD or WRITE_ZEROES request */
#define RANGE_SECTORS_MAX (1u << 22)
#define POP_BATCH	64	/* requests taken from a queue in a round … */
#define POP_PARTS	8	/* … or one part of so many of what waits: queue_share() */
#define POP_PART_LEAST	8	/* for a driver that is awake … */
#define POP_PART_BYTES	(64u << 10)	/* … and whatever it is, no more after so many bytes */
#define AWAKE_AFTER	4096	/* requests that a driver did not ask to be told of */
#define SUBMIT_BATCH	128
#define BOUNCE_SIZE	(128 * 1024u)
#define BOUNCE_COUNT	8

struct vhu_queue;

/* A descriptor in our byte order, copied. */
struct desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;	/* packed: the id */
};

struct range {
	uint64_t off;		/* bytes */
	uint64_t len;
};

/* One request of the guest's. */
struct request {
	struct blk_io	io;
	struct vhu_queue *q;
	struct list	node;		/* free, or waiting for a bounce buffer */
	struct request	*handed_next;	/* done() ran in another thread */
	int		handed_err;

	uint16_t	id;		/* split: head descriptor; packed: buffer id */
	uint16_t	descs;		/* packed: ring slots that it takes */
	uint16_t	entry;		/* packed: its head in the in-flight region */

	uint32_t	type;		/* BLK_T_… */
	uint64_t	off;		/* bytes on the disk; of data */
	uint64_t	len;
	uint32_t	in_len;		/* bytes that the guest lets us write, status included */
	uint8_t		*status;
	struct iovec	*data;		/* within iov[] */
	int		data_count;
	uint64_t	moved;		/* bounced or written as zeros so far */
	uint8_t		*bounce;	/* NULL: none */
	struct iovec	bounce_iov;
	uint64_t	charge;		/* of v->bytes_in_flight */
	unsigned int	range_count;
	unsigned int	range_next;
	struct range	ranges[RANGES_MAX];

	uint64_t	out_bytes;	/* of iov[0..out_count) */
	uint64_t	in_bytes;	/* of the rest */
	int		out_count;
	int		iov_count;
	struct iovec	iov[IOV_MAX_REQUEST];
};

struct vhu_queue {
	struct vhu	*v;
	unsigned int	index;
	unsigned int	size;		/* 0: not set */
	struct vring_addr_wire addr;
	bool		addr_set;
	bool		enabled;
	bool		kick_set;	/* a kick descriptor, or the order to poll */
	bool		running;
	bool		broken;		/* its contents made no sense */
	bool		call_always;	/* the next batch is announced whatever the driver asks */
	struct reactor_fd kick;		/* fd -1: polled */
	int		call_fd;	/* -1: none */
	int		err_fd;
	unsigned int	in_flight;

	/* Where the rings are here. */
	struct desc_wire *desc;
	struct avail_wire *avail;
	struct used_wire *used;
	struct packed_desc_wire *packed;
	struct packed_event_wire *driver_event;
	struct packed_event_wire *device_event;

	uint16_t	avail_next;	/* next to take */
	uint16_t	used_next;	/* next to give back */
	bool		avail_wrap;	/* packed */
	bool		used_wrap;
	unsigned int	slots;		/* packed: descriptors taken and not yet given back */
	uint16_t	announced;	/* used_next when we last thought about a call */
	unsigned int	unasked;	/* given back since the driver last wanted a call */
	bool		took;		/* the round before took some … */
	bool		at_once;	/* … and when any did last, all were done by the next round */

	/* The batch: placed in the ring and not yet visible. */
	uint16_t	batch_count;
	uint16_t	batch_ids[VHU_QUEUE_SIZE_MAX];	/* in-flight entries */
	uint16_t	batch_first_flags;	/* packed: of its first descriptor, written last */
	uint16_t	batch_first;

	struct inflight_queue inflight;
};

enum lock_state {
	LOCK_NONE,	/* the owner was not asked */
	LOCK_ASKED,	/* start() was called */
	LOCK_GRANTED,	/* vhu_start_done(0) */
};

/* Something that has to wait until no request is under way. */
typedef void (*drained_fn)(struct vhu *v);

struct vhu {
	struct vhu_params p;
	char		*name;
	struct env	*env;
	struct reactor	*r;
	struct blkdev	*dev;
	bool		read_only;

	/* Who talks to us. */
	struct reactor_fd listener;	/* fd -1: none */
	struct reactor_fd conn;		/* fd -1: none */
	bool		cut;		/* the connection is to end; nothing is published any more */
	enum vhu_end	cut_end;
	char		cut_why[128];
	struct vhu_msg	msg;		/* the one that is being received or served */
	size_t		msg_have;	/* bytes of it */
	int		backend_fd;	/* for our own requests; -1: none */
	uint64_t	protocol_features;
	uint64_t	features;	/* negotiated */
	uint8_t		writeback;	/* CONFIG_WCE */

	struct mem	mem;
	atomic_bool	mem_broken;
	struct inflight_area inflight;

	unsigned int	queue_count;
	struct vhu_queue *queues;
	unsigned int	running;	/* queues */
	enum lock_state	lock;
	int		lock_err;	/* of vhu_start_done(), to be told to the reactor */
	struct reactor_call lock_call;

	drained_fn	drained;	/* NULL: nothing waits */
	struct vhu_queue *drain_queue;	/* of that queue; NULL: of all */

	struct reactor_poller poller;
	bool		polling;
	struct reactor_end end;
	struct notify	notify;
	struct reactor_call resize_call;

	struct request	*requests;
	unsigned int	requests_used;	/* the rest was never touched */
	struct list	requests_free;
	unsigned int	in_flight;
	uint64_t	bytes_in_flight;	/* of reads and writes */
	struct blk_io	*batch[SUBMIT_BATCH];
	unsigned int	batch_count;
	_Atomic(struct request *) handed;	/* completed in other threads */
	struct reactor_call handed_call;

	uint8_t		*bounce;	/* BOUNCE_COUNT buffers */
	unsigned int	bounce_free;	/* a bit each */
	struct list	bounce_waiting;

	struct vhu_stats stats;
	bool		closing;
	void		(*close_done)(void *arg);
	void		*close_arg;
	struct reactor_call free_call;
};

static inline bool has_feature(const struct vhu *v, unsigned int bit)
{
	return v->features & FEATURE(bit);
}

/* ---- vhu.c ---- */

/* Cuts the front end off, because @why. */
void vhu_cut(struct vhu *v, enum vhu_end end, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Calls @fn once no request of @q (NULL: of any queue) is under way; perhaps at once. */
void vhu_drain(struct vhu *v, struct vhu_queue *q, drained_fn fn);

/* A request has ended, or something else that drains wait for has. */
void vhu_check_drained(struct vhu *v);

/* ---- conn.c: messages in and out ---- */

int conn_open(struct vhu *v, int fd);
/* Closes the socket and forgets all that belonged to the front end; nothing is under way. */
void vhu_conn_close(struct vhu *v);
/* Sends the answer to v->msg: its header and @size bytes of its payload, with @fd unless -1. */
void conn_reply(struct vhu *v, size_t size, int fd);
/* Answers v->msg with 0 or 1 if it wants an answer. */
void conn_ack(struct vhu *v, int err);
/* Goes on with the next message after one that had to wait. */
void vhu_conn_resume(struct vhu *v);
/* Tells the front end that the configuration space has changed. */
void conn_send_config_change(struct vhu *v);

/* ---- msg.c: what they do ---- */

/* Serves v->msg.  It answers, now or after a drain. */
void msg_serve(struct vhu *v);
/* Takes descriptor @i of v->msg, which the caller owns then; -1: there is none. */
int msg_take_fd(struct vhu *v, unsigned int i);
/* Gives back those that nobody took. */
void msg_discard_fds(struct vhu *v);
/* The features that this device offers. */
uint64_t vhu_features(const struct vhu *v);

/* ---- config.c ---- */

void vhu_config_get(const struct vhu *v, uint32_t offset, uint32_t size, uint8_t *bytes);
/* Return: 0, or -EINVAL for what may not be written. */
int vhu_config_set(struct vhu *v, uint32_t offset, uint32_t size, const uint8_t *bytes);

/* ---- queue.c ---- */

void queue_init(struct vhu *v, struct vhu_queue *q, unsigned int index);
/* Back to what it was before any message; nothing of it is under way. */
void queue_reset(struct vhu_queue *q);
/* Closes its kick, call and err descriptors. */
void queue_reset_fds(struct vhu_queue *q);
/* Starts @q if it has all that it needs; asks the owner first.  0, or -errno with a log line. */
int queue_try_start(struct vhu_queue *q);
void queue_stop(struct vhu_queue *q);
int queue_set_kick(struct vhu_queue *q, int fd, bool polled);
/* What GET_VRING_BASE answers, and SET_VRING_BASE says. */
uint32_t queue_get_base(const struct vhu_queue *q);
void queue_set_base(struct vhu_queue *q, uint32_t base);
/* Takes requests, POP_BATCH at most, and starts them.  Return: how many. */
unsigned int queue_poll(struct vhu_queue *q);
bool queue_arm(struct vhu_queue *q);
void queue_disarm(struct vhu_queue *q);
/* Gives @r back to the guest with the next batch, @written bytes of it written. */
void queue_push(struct vhu_queue *q, struct request *r, uint32_t written);
/* Makes the batch visible and decides about an interrupt. */
void queue_publish(struct vhu_queue *q);
/* The ring's contents make no sense: nothing of it is served any more. */
void queue_break(struct vhu_queue *q, const char *why);
/* Finds the rings in memory again after that has changed; -EINVAL if they are not there. */
int queue_map(struct vhu_queue *q);

/* ---- split.c and packed.c: the two formats ---- */

struct ring_ops {
	int	(*map)(struct vhu_queue *q);
	/* Takes the next request into @r: 1; 0 none; -EPROTO. */
	int	(*pop)(struct vhu_queue *q, struct request *r);
	/* About how many there are to take, POP_BATCH at most are told apart: believed by nobody. */
	unsigned int (*waiting)(const struct vhu_queue *q);
	/* Takes in-flight entry @entry once more, after a reconnect. */
	int	(*pop_again)(struct vhu_queue *q, struct request *r, uint16_t entry);
	void	(*push)(struct vhu_queue *q, struct request *r, uint32_t written);
	void	(*publish)(struct vhu_queue *q);
	/* Whether the driver wants to hear of what was published since q->announced. */
	bool	(*wants_call)(struct vhu_queue *q);
	/* Asks for kicks from now on; returns whether there is something to take already. */
	bool	(*arm)(struct vhu_queue *q);
	void	(*disarm)(struct vhu_queue *q);
};

extern const struct ring_ops split_ops;
extern const struct ring_ops packed_ops;

static inline const struct ring_ops *ring_ops(const struct vhu_queue *q)
{
	return has_feature(q->v, VIRTIO_F_RING_PACKED) ? &packed_ops : &split_ops;
}

/* What we wrote is visible before we look at what the driver wrote. */
static inline void ring_fence(void)
{
#ifdef __SANITIZE_THREAD__	/* knows no fences; a locked instruction is one */
	static atomic_int any;

	atomic_fetch_add(&any, 1);
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* ---- chain.c: from descriptors to buffers ---- */

void chain_begin(struct request *r);
/* Adds the buffer of one descriptor.  Return: 0 or -EPROTO. */
int chain_add(struct mem *m, struct request *r, const struct desc *d);
/* Adds those of an indirect table; @packed: they follow each other. */
int chain_add_indirect(struct mem *m, struct request *r, const struct desc *d, bool packed);

/* ---- request.c ---- */

int requests_init(struct vhu *v);
void requests_fini(struct vhu *v);
struct request *request_get(struct vhu *v);
void request_put(struct vhu *v, struct request *r);
/* Executes what chain_add() collected.  Return: 0; -EPROTO if not even an answer is possible. */
int request_start(struct request *r);
/* Submits what request_start() has collected. */
void requests_submit(struct vhu *v);

#endif
