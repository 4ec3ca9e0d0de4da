// SPDX-License-Identifier: Apache-2.0
/* Persistent reservations: what is denied to whom; PERSISTENT RESERVE IN (SPC-5, 5.14, 6.16). */
#include "iscsi/scsi_pr.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { TRANSPORT_ID_MAX = 4 + SCSI_NAME_MAX + 24 };

int pr_find(const struct scsi_pr *pr, const char *name, const uint8_t isid[6], uint16_t port)
{
	for (int i = 0; i < pr->count; i++) {
		const struct scsi_pr_reg *r = &pr->regs[i];

		if ((r->all_ports || r->port == port) && !memcmp(r->isid, isid, 6) &&
		    !strcasecmp(r->name, name))
			return i;
	}
	return -1;
}

void pr_deny(const struct scsi_lun *lun, struct scsi_nexus *nexus)
{
	struct scsi_itl *itl = &nexus->itl[lun->number];
	const struct scsi_pr *pr = &lun->state.pr;
	int i = pr_find_nexus(pr, nexus);
	uint8_t deny = 0;

	itl->registered = i >= 0;
	if (lun->reserved_by && lun->reserved_by != nexus)
		deny |= DENY_ALL;
	if (pr->type && !pr_holds(pr, i) && !(i >= 0 && pr->type >= PR_WRITE_EXCLUSIVE_RO)) {
		deny |= DENY_WRITE;
		if (pr->type == PR_EXCLUSIVE_ACCESS || pr->type == PR_EXCLUSIVE_ACCESS_RO ||
		    pr->type == PR_EXCLUSIVE_ACCESS_AR)
			deny |= DENY_READ;
	}
	itl->deny = deny;
}

/* ---- for people ---- */

static void show_registrations(const struct scsi_pr *pr, struct scsi_lun_status *out)
{
	for (int i = 0; i < pr->count; i++) {
		struct scsi_registration *r = &out->registrations[i];

		r->key = pr->regs[i].key;
		memcpy(r->initiator, pr->regs[i].name, sizeof(r->initiator));
		memcpy(r->isid, pr->regs[i].isid, sizeof(r->isid));
		r->holds = pr_holds(pr, i);
	}
	out->registration_count = pr->count;
	out->reservation = pr->type;
	out->persists = pr->aptpl;
}

int scsi_lun_status(struct scsi_target *target, unsigned int number, struct scsi_lun_status *out)
{
	struct scsi_lun *lun = number < SCSI_LUNS_MAX ? atomic_load(&target->luns[number]) : NULL;

	if (!lun)
		return -ENOENT;
	memset(out, 0, sizeof(*out));
	out->registrations = calloc(SCSI_PR_REGS_MAX, sizeof(*out->registrations));
	if (!out->registrations)
		return -ENOMEM;
	snprintf(out->name, sizeof(out->name), "%s", lun->name);
	out->block_size = lun->block_size;
	out->size = atomic_load(&lun->blocks) * lun->block_size;
	out->thin = lun->config.thin;
	unit_lock(lun);
	out->read_only = lun_is_write_protected(lun);
	out->write_cache = lun->state.mode.wce;
	show_registrations(&lun->state.pr, out);
	unit_unlock(lun);
	return 0;
}

/* ---- TransportIDs ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* ",i,0x" and twelve digits. */
static bool decode_isid(const char *s, uint8_t isid[6])
{
	if (strncmp(s, ",i,0x", 5) || strlen(s) != 5 + 12)
		return false;
	for (int i = 0; i < 6; i++) {
		int high = hex_digit(s[5 + 2 * i]), low = hex_digit(s[6 + 2 * i]);

		if (high < 0 || low < 0)
			return false;
		isid[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

int transport_id_decode(const uint8_t *d, size_t room, struct pr_port *port)
{
	char text[SCSI_NAME_MAX + 24];
	size_t len, text_len;
	char *comma;

	if (room < 24 || (d[0] & 0x0f) != 5 || (d[0] & 0xc0) > 0x40)
		return -EINVAL;
	len = (size_t)get_be16(d + 2) + 4;
	if (len % 4 || len < 24 || len > room)
		return -EINVAL;
	text_len = strnlen((const char *)d + 4, len - 4);
	if (!text_len || text_len == len - 4 || text_len >= sizeof(text))
		return -EINVAL;
	memcpy(text, d + 4, text_len + 1);
	memset(port, 0, sizeof(*port));
	port->any_isid = !(d[0] & 0x40);
	comma = strchr(text, ',');
	if (port->any_isid ? comma != NULL : (!comma || !decode_isid(comma, port->isid)))
		return -EINVAL;
	if (comma)
		*comma = '\0';
	if (!*text || strlen(text) >= SCSI_NAME_MAX)
		return -EINVAL;
	memcpy(port->name, text, strlen(text) + 1);
	return (int)len;
}

size_t transport_id_encode(const struct scsi_pr_reg *reg, uint8_t *d)
{
	const uint8_t *i = reg->isid;
	size_t len;

	memset(d, 0, TRANSPORT_ID_MAX);
	d[0] = 0x40 | 0x05;
	len = (size_t)snprintf((char *)d + 4, TRANSPORT_ID_MAX - 4,
			       "%s,i,0x%02x%02x%02x%02x%02x%02x", reg->name, i[0], i[1], i[2], i[3],
			       i[4], i[5]);
	len = ALIGN_UP(len + 1, 4);
	if (len < 20)
		len = 20;
	put_be16(d + 2, len);
	return 4 + len;
}

/* ---- PERSISTENT RESERVE IN ---- */

enum { PR_IN_KEYS = 0, PR_IN_RESERVATION = 1, PR_IN_CAPABILITIES = 2, PR_IN_FULL = 3,
       PR_IN_LEN_MAX = 8 + SCSI_PR_REGS_MAX * (24 + TRANSPORT_ID_MAX) };

bool pr_in_begin(struct scsi_cmd *cmd)
{
	scsi_want_reply(cmd, get_be16(cmd->cdb + 7));
	return true;
}

static size_t read_keys(const struct scsi_pr *pr, uint8_t *d)
{
	put_be32(d, pr->generation);
	put_be32(d + 4, 8u * pr->count);
	for (unsigned int i = 0; i < pr->count; i++)
		put_be64(d + 8 + 8 * i, pr->regs[i].key);
	return 8 + 8u * pr->count;
}

static size_t read_reservation(const struct scsi_pr *pr, uint8_t *d)
{
	put_be32(d, pr->generation);
	if (!pr->type)
		return 8;
	put_be32(d + 4, 16);
	/* Held by all registrants: by no key in particular. */
	if (!pr_is_all_registrants(pr))
		put_be64(d + 8, pr->regs[pr->holder].key);
	d[21] = pr->type;
	return 24;
}

static size_t report_capabilities(const struct scsi_lun *lun, uint8_t *d)
{
	bool keeps = lun->config.state_fd >= 0;

	put_be16(d, 8);
	d[2] = 0x10 | 0x08 | 0x04;	/* CRH, SIP_C, ATP_C */
	if (keeps)
		d[2] |= 0x01;		/* PTPL_C */
	d[3] = 0x80;			/* TMV */
	if (lun->state.pr.aptpl)
		d[3] |= 0x01;		/* PTPL_A */
	d[4] = 0x80 | 0x40 | 0x20 | 0x08 | 0x02;	/* all types */
	d[5] = 0x01;
	return 8;
}

static size_t read_full_status(const struct scsi_pr *pr, uint8_t *d)
{
	size_t len = 8;

	put_be32(d, pr->generation);
	for (int i = 0; i < pr->count; i++) {
		const struct scsi_pr_reg *r = &pr->regs[i];
		uint8_t *e = d + len;
		size_t id;

		memset(e, 0, 24);
		put_be64(e, r->key);
		if (r->all_ports)
			e[12] |= 0x02;
		if (pr_holds(pr, i)) {
			e[12] |= 0x01;
			e[13] = pr->type;
		}
		put_be16(e + 18, r->all_ports ? 0 : r->port);
		id = transport_id_encode(r, e + 24);
		put_be32(e + 20, id);
		len += 24 + id;
	}
	put_be32(d + 4, len - 8);
	return len;
}

void pr_in_run(struct scsi_cmd *cmd)
{
	struct scsi_lun *lun = cmd->unit;
	uint8_t *d = calloc(1, PR_IN_LEN_MAX);
	size_t len;

	if (!d) {
		scsi_finish_err(cmd, -ENOMEM);
		return;
	}
	unit_lock(lun);
	switch (cmd->cdb[1] & 0x1f) {
	case PR_IN_KEYS:
		len = read_keys(&lun->state.pr, d);
		break;
	case PR_IN_RESERVATION:
		len = read_reservation(&lun->state.pr, d);
		break;
	case PR_IN_CAPABILITIES:
		len = report_capabilities(lun, d);
		break;
	default:
		len = read_full_status(&lun->state.pr, d);
		break;
	}
	unit_unlock(lun);
	scsi_reply(cmd, d, len, get_be16(cmd->cdb + 7));
	free(d);
	scsi_finish(cmd);
}
