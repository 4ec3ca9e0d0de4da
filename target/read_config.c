/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what lunfs-target is told by files. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "target/target.h"

/* By the open file, not by its name: nothing can be exchanged between the look and the use. */
static int check_owner(int fd, const char *path, char *why, size_t why_size)
{
	struct stat st;

	if (fstat(fd, &st))
		return text_refuse(-errno, why, why_size, "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return text_refuse(-EINVAL, why, why_size, "%s: not a regular file", path);
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return text_refuse(-EPERM, why, why_size,
				   "%s: holds secrets, but belongs to somebody else", path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return text_refuse(-EPERM, why, why_size, "%s: holds secrets, but not only its owner "
				   "may use it; chmod 600 it", path);
	return 0;
}

int target_read_secrets(struct tgt_auth *auth, char *why, size_t why_size)
{
	int fd, err;
	FILE *in;

	if (!auth->path[0])
		return 0;
	fd = open(auth->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return text_refuse(-errno, why, why_size, "%s: %s", auth->path, strerror(errno));
	err = check_owner(fd, auth->path, why, why_size);
	if (err) {
		close(fd);
		return err;
	}
	in = fdopen(fd, "r");
	if (!in) {
		close(fd);
		return -ENOMEM;
	}
	/* No buffer of the library's keeps secrets after the file is closed. */
	setvbuf(in, NULL, _IONBF, 0);
	err = tgt_auth_read_secrets(auth, in, auth->path, why, why_size);
	fclose(in);
	return err;
}

static int read_all(struct tgt_config *config, FILE *in, const char *path, char *why,
		    size_t why_size)
{
	int err = tgt_config_read(config, in, path, why, why_size);

	if (!err)
		err = target_read_secrets(&config->discovery, why, why_size);
	for (unsigned int i = 0; i < config->target_count && !err; i++)
		err = target_read_secrets(&config->targets[i].auth, why, why_size);
	return err ? err : tgt_config_check(config, why, why_size);
}

int target_read_config(const char *path, struct tgt_config **out, char *why, size_t why_size)
{
	struct tgt_config *config;
	FILE *in;
	int err = tgt_config_create(&config);

	if (err)
		return text_refuse(err, why, why_size, "out of memory");
	in = fopen(path, "re");
	if (!in) {
		err = text_refuse(-errno, why, why_size, "%s: %s", path, strerror(errno));
		tgt_config_destroy(config);
		return err;
	}
	err = read_all(config, in, path, why, why_size);
	fclose(in);
	if (err)
		tgt_config_destroy(config);
	else
		*out = config;
	return err;
}
