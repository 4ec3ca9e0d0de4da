/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the workload share: work.c, session.c, work_disk.c, work_handover.c, work_image.c,
 * work_multi.c, work_xattr.c. */
#ifndef LUNFS_TESTS_SIM_WORK_H
#define LUNFS_TESTS_SIM_WORK_H

#include "tests/fs/disk_rig.h"
#include "tests/sim/cluster/sim.h"

extern const struct fs_cred work_cred;

/* A disk as a guest has it. */
struct vdisk {
	struct disk_rig	rig;
	bool		inflight[CELLS];
	bool		discarded[CELLS];	/* since the last flush: a kill may take that back */
	bool		left;			/* shut, to be another host's */
};

/* A file that is open. */
struct session {
	struct life *life;
	struct mfile *f;
	struct mimage *image;		/* that it is the file of, or NULL */
	struct fs_file *file;
	struct vdisk *disk;		/* instead of it */
	bool via_disk;
	bool incoming;			/* another host hands it over */
	struct disk_claim *resume;
	bool was_shut;			/* that is of one that was left */
	uint8_t *buf;
	uint64_t change;		/* the image's, when it was looked up */
};

/** work_result() - @err as an operation gave it: what a user could not expect is a violation. */
void work_result(struct life *life, const char *what, uint64_t id, int err);

/** work_is_refusal() - errors that say that nothing was changed. */
bool work_is_refusal(int err);

/** session_counts() - whether what the session sees and does is what the model is about. */
bool session_counts(const struct session *s);

/** session_pick() - where a request of a session goes: its first cell; returns how many. */
unsigned int session_pick(struct world *w, unsigned int *cell);
/** session_read() - compared with the model; @settle: what is read is what it stays. */
int session_read(struct session *s, unsigned int cell, unsigned int n, bool settle);

/** work_disk(), work_disk_resume() - as work_file(), through fs/disk.h. */
void work_disk(struct life *life, struct mimage *image, uint64_t id, bool write);
void work_disk_resume(struct life *life, struct mimage *image, uint64_t id,
		      struct disk_claim *claim, bool was_shut);
void work_disk_receive(struct life *life, struct mimage *image, uint64_t id);

/* work_disk.c: a session's disk. */
int vdisk_open(struct session *s, uint64_t id, bool write);
/** vdisk_opened() - and it is what its name means. */
void vdisk_opened(struct session *s);
void vdisk_close(struct session *s);
int vdisk_read(struct session *s, unsigned int cell, unsigned int n, size_t *done);
int vdisk_step(struct session *s, bool write);
int vdisk_snapshot(struct session *s, const char *name, struct mimage *snap, struct fs_attr *attr);
int vdisk_merge_step(struct session *s, struct merge *m);
uint64_t vdisk_id(const struct session *s);
/** vdisk_inflight() - which cells requests are under way to. */
void vdisk_inflight(const struct session *s, bool inflight[CELLS]);
/** vdisk_note() - as the daemon writes it down for the next: open, or shut. */
void vdisk_note(struct session *s);
/** vdisk_resumed() - the successor of a killed process has its disk. */
void vdisk_resumed(struct session *s);

/* work_handover.c */
/** vdisk_hand_over() - a session's disk, to another host; it may come back. */
int vdisk_hand_over(struct session *s);
/** vdisk_free_left() - of a session that ends: what was left and is still ours is for all. */
void vdisk_free_left(struct session *s);
/** vdisk_receive() - vdisk_open(), as often as it takes, for a while. */
int vdisk_receive(struct session *s, uint64_t id);
/** work_receive() - has somebody left a disk to @life? */
void work_receive(struct life *life);

/** work_file() - opens inode @id, which the model knows as @f, and reads and writes for a while. */
void work_file(struct life *life, struct mfile *f, uint64_t id, struct mimage *image, bool write);

/** pick_name() - a name, and its directory, that nobody is at; NULL: not this time. */
struct mname *pick_name(struct life *life, struct mdir **dir);
/** name_leads_to() - whether @life sees it lead to @id. */
bool name_leads_to(struct life *life, const struct mdir *dir, const struct mname *n, uint64_t id);

/** xattr_step(), multi_step(), images_step() - one of each kind. */
void xattr_step(struct life *life);
void multi_step(struct life *life);
void images_step(struct life *life);

/** image_step() - of a session that writes a disk: a snapshot of it, or a part of a merge. */
int image_step(struct session *s);
/** image_opened() - @id is open: is it what the disk's name means? */
bool image_opened(const struct session *s, uint64_t id, bool write);

/* Made once, by the first host: what all of them work with.  Return: 0 or an error. */
int multi_make(struct world *w, struct fs *fs);
int images_make(struct world *w, struct fs *fs);

#endif
