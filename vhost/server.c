/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vhost/guard.h"

#define DISCARDS_MAX	256	/* descriptors that wait to be closed */

struct vhu_server {
	struct env	*env;
	struct env_thread *closer;
	struct env_mutex mutex;		/* all below; a leaf */
	struct env_cond	changed;
	int		fds[DISCARDS_MAX];
	unsigned int	fd_count;
	io_context_t	aios[DISCARDS_MAX];
	unsigned int	aio_count;
	bool		ending;
};

static void closer_main(void *arg)
{
	struct vhu_server *s = arg;

	env_mutex_lock(s->env, &s->mutex);
	for (;;) {
		io_context_t aio = s->aio_count ? s->aios[--s->aio_count] : NULL;
		int fd = !aio && s->fd_count ? s->fds[--s->fd_count] : -1;

		if (!aio && fd < 0) {
			if (s->ending)
				break;
			env_cond_wait(s->env, &s->changed, &s->mutex, ENV_FOREVER);
			continue;
		}
		env_mutex_unlock(s->env, &s->mutex);
		if (aio)
			io_destroy(aio);
		else
			close(fd);
		env_mutex_lock(s->env, &s->mutex);
	}
	env_mutex_unlock(s->env, &s->mutex);
}

void server_discard(struct vhu_server *s, int fd)
{
	if (fd < 0)
		return;
	env_mutex_lock(s->env, &s->mutex);
	/* Full only if closing hangs: better a descriptor lost than a reactor. */
	if (s->fd_count < DISCARDS_MAX)
		s->fds[s->fd_count++] = fd;
	env_cond_broadcast(s->env, &s->changed);
	env_mutex_unlock(s->env, &s->mutex);
}

void server_discard_aio(struct vhu_server *s, io_context_t aio)
{
	bool room;

	env_mutex_lock(s->env, &s->mutex);
	room = s->aio_count < DISCARDS_MAX;
	if (room)
		s->aios[s->aio_count++] = aio;
	env_cond_broadcast(s->env, &s->changed);
	env_mutex_unlock(s->env, &s->mutex);
	if (!room)
		io_destroy(aio);	/* slow, but nothing is lost */
}

bool fd_is_memory(int fd)
{
	return fcntl(fd, F_GET_SEALS) >= 0;
}

bool fd_is_unix_stream(int fd)
{
	int domain = 0, type = 0;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) || domain != AF_UNIX)
		return false;
	len = sizeof(int);
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

int vhu_server_new(struct env *env, struct vhu_server **out)
{
	struct vhu_server *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->env = env;
	env_mutex_init(env, &s->mutex);
	env_cond_init(env, &s->changed);
	err = guard_install();
	if (err)
		goto free_server;
	err = env_thread_start(env, "lunfs-closer", closer_main, s, &s->closer);
	if (err)
		goto uninstall;
	*out = s;
	return 0;

uninstall:
	guard_uninstall();
free_server:
	env_cond_fini(env, &s->changed);
	env_mutex_fini(env, &s->mutex);
	free(s);
	return err;
}

void vhu_server_free(struct vhu_server *s)
{
	if (!s)
		return;
	env_mutex_lock(s->env, &s->mutex);
	s->ending = true;
	env_cond_broadcast(s->env, &s->changed);
	env_mutex_unlock(s->env, &s->mutex);
	env_thread_join(s->env, s->closer);
	guard_uninstall();
	env_cond_fini(s->env, &s->changed);
	env_mutex_fini(s->env, &s->mutex);
	free(s);
}
