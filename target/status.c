/* SPDX-License-Identifier: Apache-2.0 */
#include "target/status.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static const char *reservation_name(unsigned int type)
{
	static const char *const names[] = {
		[0] = "none", [1] = "write exclusive", [3] = "exclusive access",
		[5] = "write exclusive, registrants only", [6] = "exclusive access, registrants only",
		[7] = "write exclusive, all registrants", [8] = "exclusive access, all registrants",
	};

	return type < ARRAY_SIZE(names) && names[type] ? names[type] : "unknown";
}

static json_t *registrations(const struct scsi_lun_status *s)
{
	json_t *list = json_array();
	char key[24], isid[16];

	for (unsigned int i = 0; i < s->registration_count; i++) {
		const struct scsi_registration *r = &s->registrations[i];

		snprintf(key, sizeof(key), "0x%llx", (unsigned long long)r->key);
		snprintf(isid, sizeof(isid), "%02x%02x%02x%02x%02x%02x", r->isid[0], r->isid[1],
			 r->isid[2], r->isid[3], r->isid[4], r->isid[5]);
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "key", key,
						      "initiator", r->initiator, "isid", isid,
						      "holds", r->holds));
	}
	return list;
}

/* NULL: it is not served, as the log has said. */
static json_t *unit(struct scsi_target *scsi, const struct tgt_lun *lun)
{
	struct scsi_lun_status s;
	json_t *o;

	if (!scsi || scsi_lun_status(scsi, lun->number, &s))
		return NULL;
	o = json_pack("{s:i, s:s, s:I, s:i, s:b, s:b, s:b, s:s, s:b, s:o}", "lun", (int)lun->number,
		      "path", lun->path, "size", (json_int_t)s.size, "block_size", (int)s.block_size,
		      "read_only", s.read_only, "thin", s.thin, "write_cache", s.write_cache,
		      "reservation", reservation_name(s.reservation), "aptpl", s.persists,
		      "registrations", registrations(&s));
	free(s.registrations);
	return o;
}

static json_t *targets(struct units *units, const struct tgt_config *config)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < config->target_count; i++) {
		const struct tgt_target *t = &config->targets[i];
		struct scsi_target *scsi = units_find(units, t->iqn);
		json_t *luns = json_array();

		for (unsigned int n = 0; n < t->lun_count; n++)
			json_array_append_new(luns, unit(scsi, &t->luns[n]));
		json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "target", t->iqn, "chap",
						      t->auth.required, "luns", luns));
	}
	return list;
}

/* Called in each reactor in turn, while this thread waits. */
static void add_connection(void *arg, const struct tgt_connection_status *c)
{
	json_array_append_new(arg, json_pack(
		"{s:s, s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:I}", "initiator", c->initiator,
		"target", c->target, "user", c->user, "address", c->address, "session", (int)c->tsih,
		"connection", (int)c->cid, "commands", (json_int_t)c->commands, "bytes_in",
		(json_int_t)c->bytes_in, "bytes_out", (json_int_t)c->bytes_out));
}

static json_t *portals(const struct tgt_config *config)
{
	json_t *list = json_array();
	char text[64];

	for (unsigned int i = 0; i < config->portal_count; i++)
		json_array_append_new(list, json_pack("{s:s, s:i}", "portal",
			tgt_portal_format(&config->portals[i].addr, text), "group",
			(int)config->portals[i].group));
	return list;
}

static char *describe(struct tgt *tgt, struct units *units, const struct tgt_config *config)
{
	json_t *connections = json_array(), *all;
	char *text;

	tgt_each_connection(tgt, add_connection, connections);
	all = json_pack("{s:s, s:i, s:o, s:o, s:o}", "version", LUNFS_VERSION, "worker",
			(int)getpid(), "portals", portals(config), "targets",
			targets(units, config), "connections", connections);
	text = all ? json_dumps(all, JSON_INDENT(2)) : NULL;
	json_decref(all);
	return text;
}

void status_serve(int listener, struct tgt *tgt, struct units *units,
		  const struct tgt_config *config)
{
	const struct timeval patience = { .tv_sec = 1 };
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	char *text;
	size_t len, done = 0;

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	text = describe(tgt, units, config);
	len = text ? strlen(text) : 0;
	while (done < len) {
		ssize_t n = write(fd, text + done, len - done);

		if (n <= 0)
			break;
		done += (size_t)n;
	}
	free(text);
	close(fd);
}
