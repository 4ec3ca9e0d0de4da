/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the workload share: work.c, session.c, work_image.c, work_multi.c, work_xattr.c. */
#ifndef LUNFS_TESTS_SIM_WORK_H
#define LUNFS_TESTS_SIM_WORK_H

#include "tests/sim/cluster/sim.h"

extern const struct fs_cred work_cred;

/* A file that is open. */
struct session {
	struct life *life;
	struct mfile *f;
	struct mimage *image;		/* that it is the file of, or NULL */
	struct fs_file *file;
	uint8_t *buf;
	uint64_t change;		/* the image's, when it was looked up */
};

/** work_result() - @err as an operation gave it: what a user could not expect is a violation. */
void work_result(struct life *life, const char *what, uint64_t id, int err);

/** work_is_refusal() - errors that say that nothing was changed. */
bool work_is_refusal(int err);

/** session_counts() - whether what the session sees and does is what the model is about. */
bool session_counts(const struct session *s);

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
