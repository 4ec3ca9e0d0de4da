// SPDX-License-Identifier: Apache-2.0
/* MODE SENSE and MODE SELECT (SPC-5, 6.14 and 7.5; SBC-4, 6.5). */
#include "iscsi/scsi_internal.h"

enum { MODE_CURRENT, MODE_CHANGEABLE, MODE_DEFAULT, MODE_SAVED };
enum { MODE_MAX = 512, PAGE_ALL = 0x3f, SUBPAGE_ALL = 0xff };

/* ---- pages: each is made from what is in force, and read back into it ---- */

static size_t page_errors(const struct scsi_mode *m, bool mask, uint8_t *d)
{
	(void)m;
	d[0] = 0x01;
	d[1] = 0x0a;
	if (!mask)
		d[2] = 0x80;	/* AWRE */
	return 12;
}

static size_t page_caching(const struct scsi_mode *m, bool mask, uint8_t *d)
{
	d[0] = 0x08;
	d[1] = 0x12;
	if (m->wce)
		d[2] = 0x04;
	if (!mask)
		d[12] |= 0x20;	/* DRA: nothing is read ahead */
	return 20;
}

static size_t page_control(const struct scsi_mode *m, bool mask, uint8_t *d)
{
	d[0] = 0x0a;
	d[1] = 0x0a;
	if (m->d_sense)
		d[2] = 0x04;
	if (!mask)
		d[3] = 0x10;	/* QUEUE ALGORITHM MODIFIER: unrestricted */
	if (m->swp)
		d[4] = 0x08;
	if (m->tas)
		d[5] = 0x40;
	return 12;
}

static size_t page_control_extension(const struct scsi_mode *m, bool mask, uint8_t *d)
{
	(void)m;
	d[0] = 0x40 | 0x0a;
	d[1] = 0x01;
	d[3] = 0x1c;
	if (!mask)
		d[6] = SCSI_SENSE_MAX;	/* maximum sense data length */
	return 32;
}

static size_t page_exceptions(const struct scsi_mode *m, bool mask, uint8_t *d)
{
	(void)m;
	d[0] = 0x1c;
	d[1] = 0x0a;
	if (!mask)
		d[2] = 0x08;	/* DEXCPT: none are reported */
	return 12;
}

static void select_caching(const uint8_t *d, struct scsi_mode *m)
{
	m->wce = d[2] & 0x04;
}

static void select_control(const uint8_t *d, struct scsi_mode *m)
{
	m->d_sense = d[2] & 0x04;
	m->swp = d[4] & 0x08;
	m->tas = d[5] & 0x40;
}

static const struct mode_page {
	uint8_t page, subpage;
	size_t (*make)(const struct scsi_mode *m, bool mask, uint8_t *d);
	void (*select)(const uint8_t *d, struct scsi_mode *m);
} pages[] = {
	{ 0x01, 0x00, page_errors, NULL },
	{ 0x08, 0x00, page_caching, select_caching },
	{ 0x0a, 0x00, page_control, select_control },
	{ 0x0a, 0x01, page_control_extension, NULL },
	{ 0x1c, 0x00, page_exceptions, NULL },
};

void mode_default(const struct scsi_lun_config *config, struct scsi_mode *m)
{
	*m = (struct scsi_mode){ .wce = config->write_cache, .tas = true };
}

/* ---- MODE SENSE ---- */

static bool is_six(const struct scsi_cmd *cmd)
{
	return cmd->cdb[0] < 0x20;
}

static uint32_t alloc_of(const struct scsi_cmd *cmd)
{
	return is_six(cmd) ? cmd->cdb[4] : get_be16(cmd->cdb + 7);
}

bool mode_sense_begin(struct scsi_cmd *cmd)
{
	scsi_want_reply(cmd, alloc_of(cmd));
	return true;
}

/* What a page control selects; of changeable values all bits that can change. */
static struct scsi_mode mode_of(const struct scsi_lun *lun, unsigned int control)
{
	struct scsi_mode m;

	switch (control) {
	case MODE_CHANGEABLE:
		return (struct scsi_mode){ true, true, true, true };
	case MODE_DEFAULT:
		mode_default(&lun->config, &m);
		return m;
	case MODE_SAVED:
		return lun->state.saved;
	default:
		return lun->state.mode;
	}
}

static size_t make_pages(const struct scsi_lun *lun, unsigned int control, uint8_t page,
			 uint8_t subpage, uint8_t *d)
{
	struct scsi_mode m = mode_of(lun, control);
	size_t len = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++) {
		const struct mode_page *p = &pages[i];

		if ((page != PAGE_ALL && page != p->page) ||
		    (subpage != SUBPAGE_ALL && subpage != p->subpage))
			continue;
		/* Saved values need somewhere to be: PS. */
		size_t n = p->make(&m, control == MODE_CHANGEABLE, d + len);

		if (p->select && lun->config.state_fd >= 0)
			d[len] |= 0x80;
		len += n;
	}
	return len;
}

static size_t make_descriptor(const struct scsi_lun *lun, bool lbas64, uint8_t *d)
{
	uint64_t blocks = atomic_load(&lun->blocks);

	if (lbas64) {
		put_be64(d, blocks);
		put_be32(d + 12, lun->block_size);
		return 16;
	}
	put_be32(d, blocks > UINT32_MAX ? UINT32_MAX : blocks);
	d[5] = (uint8_t)(lun->block_size >> 16);
	put_be16(d + 6, lun->block_size);
	return 8;
}

void mode_sense_run(struct scsi_cmd *cmd)
{
	const uint8_t *cdb = cmd->cdb;
	struct scsi_lun *lun = cmd->unit;
	uint8_t d[MODE_MAX] = { 0 }, *device;
	size_t header = is_six(cmd) ? 4 : 8, len = header, n;
	bool lbas64 = !is_six(cmd) && (cdb[1] & 0x10);

	if (cdb[2] >> 6 == MODE_SAVED && lun->config.state_fd < 0) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_SAVING_NOT_SUPPORTED);
		scsi_finish(cmd);
		return;
	}
	unit_lock(lun);
	if (!(cdb[1] & 0x08)) {		/* DBD */
		n = make_descriptor(lun, lbas64, d + len);
		d[header - 1] = (uint8_t)n;
		len += n;
	}
	n = make_pages(lun, cdb[2] >> 6, cdb[2] & 0x3f, cdb[3], d + len);
	len += n;
	device = is_six(cmd) ? d + 2 : d + 3;
	*device = 0x10;			/* DPOFUA */
	if (lun_is_write_protected(lun))
		*device |= 0x80;
	unit_unlock(lun);
	if (is_six(cmd)) {
		d[0] = (uint8_t)(len - 1);
	} else {
		put_be16(d, len - 2);
		d[4] = lbas64;
	}
	if (n)
		scsi_reply(cmd, d, len, alloc_of(cmd));
	else
		scsi_bad_field(cmd, 2, -1);
	scsi_finish(cmd);
}

/* ---- MODE SELECT ---- */

bool mode_select_begin(struct scsi_cmd *cmd)
{
	if ((cmd->cdb[1] & 0x01) && cmd->unit->config.state_fd < 0)
		return scsi_bad_field(cmd, 1, 0);	/* SP, and nowhere to save it */
	scsi_want_out(cmd, alloc_of(cmd));
	/*
	 * Alone: who turns the write cache off relies on every write being durable from then
	 * on, those under way included.
	 */
	cmd->claim.end = UINT64_MAX;
	cmd->claim.writes = cmd->claim.exclusive = true;
	return true;
}

static const struct mode_page *find_page(uint8_t page, uint8_t subpage)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		if (pages[i].page == page && pages[i].subpage == subpage)
			return &pages[i];
	return NULL;
}

/* One page of the list: nothing may differ from what is in force but what can change. */
static bool select_page(struct scsi_cmd *cmd, const uint8_t *list, size_t off, size_t len,
			size_t *page_len, struct scsi_mode *m)
{
	const struct scsi_mode all = { true, true, true, true };
	bool sub = list[off] & 0x40;
	const struct mode_page *p;
	uint8_t now[MODE_MAX] = { 0 }, mask[MODE_MAX] = { 0 };
	size_t n, first = sub ? 4 : 2;

	if (len - off < first)
		return false;
	p = find_page(list[off] & 0x3f, sub ? list[off + 1] : 0);
	if (!p) {
		scsi_bad_param(cmd, (unsigned int)off, 5);
		return true;
	}
	n = p->make(&cmd->unit->state.mode, false, now);
	p->make(&all, true, mask);
	if (n - first != (sub ? get_be16(list + off + 2) : list[off + 1])) {
		scsi_bad_param(cmd, (unsigned int)off + 1, -1);
		return true;
	}
	if (len - off < n)
		return false;
	for (size_t i = first; i < n; i++) {
		if ((list[off + i] ^ now[i]) & (uint8_t)~mask[i]) {
			scsi_bad_param(cmd, (unsigned int)(off + i), -1);
			return true;
		}
	}
	if (p->select)
		p->select(list + off, m);
	*page_len = n;
	return true;
}

/* A block descriptor may only say what is so already. */
static bool check_descriptor(struct scsi_cmd *cmd, const uint8_t *list, size_t off, size_t len,
			     bool lbas64)
{
	uint8_t now[16] = { 0 };
	size_t n = make_descriptor(cmd->unit, lbas64, now);
	size_t size_at = lbas64 ? 12 : 4;
	uint64_t blocks;

	if (!len)
		return true;
	if (len != n) {
		scsi_bad_param(cmd, (unsigned int)off - 1, -1);
		return false;
	}
	blocks = lbas64 ? get_be64(list + off) : get_be32(list + off);
	/* The number of blocks may be 0: as it is. */
	if (memcmp(list + off + size_at, now + size_at, 4) ||
	    (blocks && memcmp(list + off, now, size_at))) {
		scsi_bad_param(cmd, (unsigned int)off, -1);
		return false;
	}
	return true;
}

/* False: an error is set. */
static bool parse(struct scsi_cmd *cmd, const uint8_t *list, struct scsi_mode *m)
{
	size_t header = is_six(cmd) ? 4 : 8, len = cmd->out_len, off = header;
	size_t descriptor = is_six(cmd) ? list[3] : get_be16(list + 6);
	bool lbas64 = !is_six(cmd) && (list[4] & 0x01);

	if (descriptor > len - off)
		goto short_list;
	if (!check_descriptor(cmd, list, off, descriptor, lbas64))
		return false;
	off += descriptor;
	while (off < len) {
		size_t n = 0;

		if (!select_page(cmd, list, off, len, &n, m))
			goto short_list;
		if (!n)
			return false;
		off += n;
	}
	return true;

short_list:
	scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	return false;
}

static void select_flushed(struct scsi_cmd *cmd, int err)
{
	scsi_finish_err(cmd, err);
}

static void select_install(struct scsi_cmd *cmd, int err)
{
	struct scsi_lun *lun = cmd->unit;
	struct scsi_target *t = lun->target;
	bool had_cache, changed;

	if (err) {
		state_release(lun);
		scsi_sense(cmd, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
		scsi_finish(cmd);
		return;
	}
	env_mutex_lock(t->env, &t->mutex);
	unit_lock(lun);
	had_cache = lun->state.mode.wce;
	changed = memcmp(&lun->state.mode, &lun->next.mode, sizeof(lun->state.mode)) != 0;
	lun->state.mode = lun->next.mode;
	lun->state.saved = lun->next.saved;
	unit_mirror_mode(lun);
	unit_unlock(lun);
	/* One mode for all nexuses (MLUS is 0): the others are told. */
	if (changed)
		scsi_ua_raise(lun, UA_MODE, cmd->nexus);
	env_mutex_unlock(t->env, &t->mutex);
	state_release(lun);
	if (!had_cache || atomic_load(&lun->write_cache)) {
		scsi_finish(cmd);
		return;
	}
	cmd->io = (struct blk_io){ .op = BLK_FLUSH };
	scsi_submit(cmd, select_flushed);
}

static void select_turn(struct scsi_cmd *cmd, int err)
{
	struct scsi_lun *lun = cmd->unit;
	bool save = cmd->cdb[1] & 0x01;
	struct scsi_mode m = lun->next.mode;

	(void)err;
	if (!parse(cmd, cmd->iov[0].iov_base, &m)) {
		state_release(lun);
		scsi_finish(cmd);
		return;
	}
	lun->next.mode = m;
	if (save)
		lun->next.saved = m;
	state_commit(cmd, save, select_install);
}

void mode_select_run(struct scsi_cmd *cmd)
{
	uint32_t header = is_six(cmd) ? 4 : 8;

	if (!cmd->out_len) {
		scsi_finish(cmd);
		return;
	}
	if (cmd->out_len != cmd->out_want || !scsi_params(cmd, header)) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		scsi_finish(cmd);
		return;
	}
	state_change(cmd, select_turn);
}
