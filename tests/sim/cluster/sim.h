/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cluster simulator: the real fs/ and lockd/ of many hosts on one simulated LUN.
 *
 *   chaos.c   decides what befalls hosts and commands
 *   host.c    hosts' lives: attach, work, detach, crash, come back
 *   work.c    what their threads do: with names; session.c with contents, work_xattr.c with
 *             attributes, work_multi.c with files of several writers, work_image.c with images,
 *             work_disk.c with disks as guests have them, work_handover.c to another host
 *   model.c   which names and contents are allowed then
 *   rules.c   watches every command that the LUN applies (R1); rules_slots.c slots (R3, R5),
 *             rules_home.c what must be at home when a lock is given up (R4)
 *   watch.c   watches the lease gate (R2)
 *   finish.c  the end: power cut, recovery, check, comparison with the model
 *
 * One run is one process and one struct world; everything in it follows from the seed.
 */
#ifndef LUNFS_TESTS_SIM_SIM_H
#define LUNFS_TESTS_SIM_SIM_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/simdev.h"
#include "fs/check.h"
#include "fs/disk.h"
#include "fs/fs.h"
#include "fs/mkfs.h"
#include "tests/sim/cluster/model.h"

#define MSEC		NSEC_PER_MSEC
#define SEC		NSEC_PER_SEC
#define MANY_HOSTS	8u	/* of most runs; others have HOSTS_MAX */
#define MANY_HOSTS_EVERY 61u	/* seeds */
#define LIVES_MAX	4096u	/* attachments of one run */
#define WORKERS		2u
#define CRASHES_MIN	2u	/* a run has at least so many, and one takeover, and one detach */
#define TAKEOVERS_MIN	1u

/* What the table of a soak counts. */
#define SIM_COUNTERS(X) \
	X(crash, "fault: host crashed") \
	X(crash_joining, "fault: host crashed while attaching") \
	X(crash_recoverer, "fault: recoverer crashed during recovery") \
	X(crash_handover, "fault: host crashed amid a hand-over") \
	X(freeze_handover, "fault: host frozen amid a hand-over") \
	X(freeze, "fault: host frozen, resumed within its lease") \
	X(freeze_long, "fault: host frozen longer than its lease, resumed") \
	X(freeze_write, "fault: host frozen with a write on its way") \
	X(watchdog, "fault: frozen host ended by its watchdog") \
	X(killed, "fault: silent host killed by another") \
	X(stall_all, "fault: array stalled for all") \
	X(stall_one, "fault: path of one host stalled") \
	X(path_lost, "fault: path lost by one host") \
	X(unclear, "fault: lock's CAW without an answer, and not to be read back") \
	X(hold, "fault: host frozen between its lease check and the command") \
	X(torn, "fault: write torn by a crash") \
	X(cut_kept, "fault: unflushed write kept by a power cut") \
	X(cut_lost, "fault: unflushed write lost by a power cut") \
	X(cut_torn, "fault: unflushed write torn by a power cut") \
	X(drift, "fault: clocks drift") \
	X(jump, "fault: real time jumped") \
	X(power_cut, "fault: power cut of everything") \
	X(full, "fault: volume full (-ENOSPC seen)") \
	X(detach, "event: host detached") \
	X(lost, "event: host lost its slot and came back") \
	X(rung_reservation, "rung: A (reservation)") \
	X(rung_kill, "rung: A (killed)") \
	X(rung_wait, "rung: B (bound)") \
	X(rung_unsafe, "rung: C (unsafe)") \
	X(slot_claim, "slot: FREE to JOINING") \
	X(slot_live, "slot: JOINING to LIVE") \
	X(slot_beat, "slot: heartbeat") \
	X(slot_leave, "slot: LIVE to FREE") \
	X(slot_join_failed, "slot: JOINING to FREE") \
	X(slot_recover, "slot: LIVE to RECOVERING") \
	X(slot_recover_joining, "slot: JOINING to RECOVERING") \
	X(slot_recover_self, "slot: to RECOVERING by itself") \
	X(slot_identity, "slot: RECOVERING by itself, identity replaced") \
	X(slot_reclaim, "slot: RECOVERING claimed from a dead recoverer") \
	X(slot_claimer_first, "slot: a recoverer recovered, its own claims still open") \
	X(slot_retire, "slot: RECOVERING to FREE (takeover)") \
	X(slot_self_live, "slot: RECOVERING by itself to LIVE") \
	X(slot_drained, "slot: drained, by a host that gave up") \
	X(slot_want, "slot: want published") \
	X(slot_want_done, "slot: want withdrawn") \
	X(slot_denial, "slot: denial published") \
	X(slot_denial_done, "slot: denial forgotten") \
	X(slot_lost, "slot: lost under its host") \
	X(gate_lapsed, "gate: lease lapsed, I/O waits") \
	X(gate_again, "gate: lease valid again, I/O goes on") \
	X(gate_gap, "gate: closed by a gap in time") \
	X(gate_conflict, "gate: closed by a reservation conflict") \
	X(recover_retry, "recovery: failed, tried again") \
	X(fence_forced, "fence: without proof (C)") \
	X(lock_take, "lock: free to held") \
	X(lock_take_shared, "lock: free to shared") \
	X(lock_stale, "lock: taken from a stale holder") \
	X(lock_stale_sharer, "lock: taken from a stale sharer") \
	X(take_own_older, "lock: taken from an older generation of the own slot") \
	X(take_adopted, "lock: adopted, as it named us already") \
	X(take_blocked, "lock: held by a live host") \
	X(lock_share, "lock: sharer added") \
	X(lock_upgrade, "lock: shared to exclusive") \
	X(lock_downgrade, "lock: exclusive to shared") \
	X(lock_downgrade_multi, "lock: exclusive to multi-writer") \
	X(lock_release, "lock: released") \
	X(lock_unshare, "lock: sharer removed") \
	X(lock_user, "lock: opener recorded") \
	X(lock_left, "lock: left to an heir") \
	X(lock_heir, "lock: taken by its heir") \
	X(lock_left_back, "lock: taken back by who had left it") \
	X(caw_landed, "unclear CAW: our image found, it succeeded") \
	X(caw_again, "unclear CAW: the old image found, tried again") \
	X(caw_lost, "unclear CAW: something else found, lost or built upon") \
	X(caw_unread, "unclear CAW: not read back, neither held nor free") \
	X(caw_miscompared, "CAW: miscompared, lost") \
	X(lock_bump, "unclear lock: sequence raised, so that nothing lands any more") \
	X(fate_freed, "unclear lock: found to be ours, freed") \
	X(fate_moved, "unclear lock: found to have moved on, or made to") \
	X(stray_look, "stray: a record looked at, as others want it for long") \
	X(stray, "defence: a record that named us for no reason freed") \
	X(replay, "journal: replayed by another host") \
	X(lock_multi, "lock: free to multi-writer") \
	X(lock_multi_join, "lock: writer added") \
	X(lock_multi_leave, "lock: writer removed") \
	X(lock_multi_only, "lock: multi-writer to exclusive") \
	X(rename_dir, "work: directory moved to another parent") \
	X(lookup_certain, "work: name looked up whose meaning was certain") \
	X(xattr_set, "work: attribute set") \
	X(xattr_remove, "work: attribute removed") \
	X(multi_write, "work: block written by one of several writers") \
	X(multi_mark, "work: file marked for several writers") \
	X(multi_unmark, "work: file marked for one writer") \
	X(image_create, "work: disk created") \
	X(image_snapshot, "work: disk snapshotted while open") \
	X(image_clone, "work: disk cloned from a snapshot") \
	X(image_revert, "work: disk reverted to a snapshot") \
	X(image_delete, "work: disk or snapshot deleted") \
	X(image_merge, "work: step of a merge") \
	X(image_merged, "work: deleted snapshot merged") \
	X(vdisk_open, "work: disk opened for a guest") \
	X(vdisk_write, "work: disk's write, others under way") \
	X(vdisk_discard, "work: disk's discard") \
	X(vdisk_zero, "work: disk's write of zeroes") \
	X(vdisk_flush, "work: disk's flush") \
	X(vdisk_grow, "work: disk grown while open") \
	X(vdisk_snapshot, "work: disk's cell under way when a snapshot began") \
	X(vdisk_resume, "work: killed process's disk resumed by the next") \
	X(handover_left, "work: disk left to another host") \
	X(handover_received, "work: disk received from another host") \
	X(handover_late, "work: disk not received in time") \
	X(handover_back, "work: disk taken back, nobody else having had it") \
	X(handover_refused, "work: disk not taken back, another host having had it") \
	X(handover_freed, "work: disk that was left released for all") \
	X(handover_resumed, "work: disk left by a killed process resumed by the next") \
	X(recoverer_died, "recovery: its recoverer died") \
	X(recoverer_died_again, "recovery: two recoverers of one host died in a row") \
	X(check_submitted, "check: commands submitted within the lease (R2)") \
	X(check_handed, "check: results handed on within the lease (R2)") \
	X(check_refused, "check: results kept from a host that lost its slot (R2)") \
	X(check_free, "check: all at home when a lock was given up (R4)") \
	X(reads, "check: reads compared with the model") \
	X(final_files, "check: files compared after the end") \
	X(final_names, "check: names compared after the end") \
	X(final_images, "check: disks compared after the end") \
	X(final_xattrs, "check: attributes compared after the end") \
	X(final_multi, "check: blocks of several writers compared after the end")

#define SIM_COUNTER_ENUM(symbol, text)	COUNT_##symbol,
enum sim_counter { SIM_COUNTERS(SIM_COUNTER_ENUM) COUNTER_COUNT };
#undef SIM_COUNTER_ENUM
extern const char *const sim_counter_names[COUNTER_COUNT];

/* Commands struck, by enum simdisk_fault and enum blk_op. */
#define FAULTS	(SIMDISK_HOLD + 1u)
#define OPS	(BLK_CAW + 1u)
extern const char *const sim_fault_names[FAULTS];
extern const char *const sim_op_names[OPS];
/** sim_fault_can() - whether chaos makes that fault befall that command. */
bool sim_fault_can(enum simdisk_fault fault, enum blk_op op);

enum rung { RUNG_RESERVATION, RUNG_KILL, RUNG_WAIT, RUNG_UNSAFE };

struct world;

/* A heartbeat as it was sent. */
struct beat {
	uint32_t slot;
	uint64_t sequence;
	uint64_t sent_ns;		/* by its host's clock */
};

/* One attachment of one host: from fs_attach() to the detach, or the crash. */
struct life {
	struct world *w;
	struct sim_host *host;
	struct env *env;
	struct blkdev *dev, *hb_dev;
	struct fs *fs;
	uint32_t pid;			/* 1000 + index: names it in slots */
	uint32_t slot, generation;	/* as the LUN saw it claimed; SLOT_NONE */
	uint32_t claimed[SLOT_COUNT_MAX];	/* generations it began to recover */
	bool dead;			/* crashed, or its journal is being replayed by another */
	bool fenced;			/* must not write any more (R3) */
	bool attached, attaching, stop;
	bool over;			/* detached, or it could not attach */
	struct beat beats[64];
	unsigned int beat_count;
	uint64_t lease_ns;		/* no lease of it lasts longer, by its own clock */
	unsigned int workers;		/* running */
};

/* A disk that a host serves to a guest, which outlives the host's process. */
struct disk_note {
	struct disk_fresh *fresh;	/* as in a file of the run directory */
	struct disk_claim claim, next;	/* disk_take_back() */
	uint64_t id;
	struct mimage *image;
	struct life *life;
	struct vdisk *disk;
	struct life *resuming;		/* it is at it: killed meanwhile, its successor tries again */
	bool open, killed;
	bool shut, was_shut;		/* left to another host; it was that when it was killed */
	bool certain[CELLS];		/* when it was killed */
	uint64_t shown[CELLS];
};

/* A disk that was left to @to, at a time when its name had changed so often. */
struct offer {
	struct mimage *image;		/* NULL: there is none */
	uint64_t id, change;
	struct life *to;
};

struct sim_host {
	struct world *w;
	unsigned int number;
	struct env *env;
	struct life *life;		/* the present one, or NULL */
	struct env *old_env;		/* of a life that crashed */
	uint8_t boot_id[16];
	int64_t drift_ppm;
	bool crashed, rebooted;
	uint64_t back_ns;		/* true time at which a crashed one comes back */
	uint64_t frozen_ns;		/* true time until which it is frozen */
	uint64_t hold_ns;		/* that long it freezes with a command in hand */
	struct disk_note note;
	struct offer offer;
};

struct model;
struct rules;

struct world {
	uint64_t seed, steps;
	bool trace;
	uint64_t watch;			/* an address to show all commands of */
	enum rung rung;
	uint64_t drift_max_ppm;
	bool corrupts;			/* this run has corrupt reads */
	unsigned int host_count;
	struct sim *sim;
	struct simdisk *disk;
	struct env *env;		/* the observer's; never crashes */
	struct super super;
	struct sim_host hosts[HOSTS_MAX + 1];	/* the last: the fresh one of the end */
	struct life lives[LIVES_MAX];
	unsigned int life_count;
	struct model *model;
	struct rules *rules;
	/* Sees every command of a host, too. */
	void (*also)(void *arg, struct life *life, const struct blk_io *io);
	void *also_arg;
	int costs_fd;			/* see struct run_params */
	uint64_t commands;		/* applied */
	uint64_t hash;
	uint64_t counters[COUNTER_COUNT];
	uint64_t struck[FAULTS][OPS];
	unsigned int hunts;		/* recoverers to be crashed */
	bool stop;			/* no new work */
	bool ending;			/* the end: only the fresh host */
	bool over;			/* the run ended in order */
	unsigned int violations;
	char first[400];		/* violation */
	uint64_t end_ns;
};

/* ---- world (main.c) ---- */

/** world_mix() - @v becomes part of the trace's hash. */
void world_mix(struct world *w, uint64_t v);

/** world_trace() - one line of the trace, with the time; its text is part of the hash. */
void world_trace(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** world_violation() - a rule is broken. */
void world_violation(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline uint64_t world_below(struct world *w, uint64_t bound)
{
	return sim_random(w->sim) % bound;
}

static inline bool world_chance(struct world *w, unsigned int percent)
{
	return world_below(w, 100) < percent;
}

/** world_sleep() - of the observer. */
static inline void world_sleep(struct world *w, uint64_t ns)
{
	env_sleep_until(w->env, env_now_ns(w->env) + ns);
}

/* ---- host.c ---- */

/** host_start() - a new life of @h, in a thread of its own, that attaches and works. */
void host_start(struct sim_host *h);
void host_crash(struct sim_host *h, const char *why);
struct life *life_of_dev(struct world *w, const struct blkdev *dev);
/** life_of_env() - the present life of the host that has @env. */
struct life *life_of_env(struct world *w, const struct env *env);
/** life_of_pid() - a process as slots name it; NULL: there was none. */
struct life *life_of_pid(struct world *w, uint32_t pid);
struct life *life_of_slot(struct world *w, uint32_t slot, uint32_t generation);
/** life_attach() - in the calling thread; fills @life->fs. */
int life_attach(struct life *life);
struct life *life_new(struct sim_host *h);

/* ---- work.c, chaos.c, finish.c ---- */

void work_thread(void *life);
/** vdisk_killed() - @h's process is about to crash; vdisks_resume() - a new one is attached. */
void vdisk_killed(struct sim_host *h);
void vdisks_resume(struct life *life);
void chaos_run(struct world *w);
void finish_run(struct world *w);
/** chaos_saw_recovery() - @life has begun to recover another one: it may die of that. */
void chaos_saw_recovery(struct life *life);
/** chaos_saw_handover() - @from is about to leave a disk to @to: something may befall one of them. */
void chaos_saw_handover(struct life *from, struct life *to);

/* ---- rules.c ---- */

void rules_start(struct world *w);
void rules_power_cut(struct world *w);
/** rules_died() - @life has crashed: did it recover somebody? */
void rules_died(struct world *w, struct life *life);

/* ---- watch.c ---- */

void watch_start(struct world *w);

#endif
