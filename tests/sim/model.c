// SPDX-License-Identifier: Apache-2.0
/*
 * What a crash may leave of a script's operations.
 *
 * One actor's (a host's) operations reach the disk in their order: there is a point up to
 * which all of them have happened, and none after it, for every name, size and attribute at
 * once.  With several actors each has such a point.  It lies not before what a successful fsync or sync
 * covered, and not after what had begun.  A file's bytes are those of that point, or, byte by
 * byte, those of a later operation: data is written to its place before anything says so.
 */
#include "tests/sim/cut.h"

#define ENTRIES_MAX	600u
#define OBJECTS_MAX	700u
#define CHUNK		(64 * KIB)

struct entry { const char *path; char *own; unsigned int obj; };

struct attribute { const char *name; size_t op; uint64_t len; };

struct object {
	unsigned int obj;	/* 0: unused; else 1 + the operation that made it */
	uint32_t mode, nlink;
	uint64_t size;
	const char *target;
	struct attribute xattrs[XATTRS_MAX];
	unsigned int xattr_count;
};

struct model {
	struct entry entries[ENTRIES_MAX];
	size_t	entry_count;
	struct object objects[OBJECTS_MAX];
	size_t	object_count;
};

/* One candidate: which operations have happened. */
struct point {
	const struct recording *r;
	size_t	begun;			/* operations that had begun */
	size_t	upto[ACTORS_MAX];	/* of each actor: those with an index below */
};

static bool happened(const struct point *p, size_t op)
{
	return op < p->upto[p->r->ops[op].actor];
}

void pattern(size_t op, uint64_t off, void *buf, size_t len)
{
	uint8_t *to = buf;

	while (len) {
		uint64_t word = mix64((off / 8 + 1) * 0x9e3779b97f4a7c15 ^ (uint64_t)(op + 1) << 40);
		size_t in = off % 8, n = len < 8 - in ? len : 8 - in;

		memcpy(to, (uint8_t *)&word + in, n);
		to += n;
		off += n;
		len -= n;
	}
}

/* ---- names and attributes ---- */

static struct entry *entry_find(struct model *m, const char *path)
{
	for (size_t i = 0; i < m->entry_count; i++)
		if (!strcmp(m->entries[i].path, path))
			return &m->entries[i];
	return NULL;
}

static struct object *object_find(struct model *m, unsigned int obj)
{
	for (size_t i = 0; i < m->object_count; i++)
		if (m->objects[i].obj == obj)
			return &m->objects[i];
	return NULL;
}

static bool parent_exists(struct model *m, const char *path)
{
	char dir[PATH_SIZE];
	const char *slash = strrchr(path, '/');
	struct entry *e;

	if (slash == path)
		return true;
	snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path), path);
	e = entry_find(m, dir);
	return e && S_ISDIR(object_find(m, e->obj)->mode);
}

static bool entry_add(struct model *m, const char *path, unsigned int obj)
{
	if (entry_find(m, path) || !parent_exists(m, path))
		return false;
	MUST(m->entry_count < ENTRIES_MAX);
	m->entries[m->entry_count++] = (struct entry){ path, NULL, obj };
	return true;
}

static void entry_remove(struct model *m, struct entry *e)
{
	struct object *o = object_find(m, e->obj);

	free(e->own);
	*e = m->entries[--m->entry_count];
	if (!--o->nlink || S_ISDIR(o->mode))
		*o = m->objects[--m->object_count];
}

static bool object_new(struct model *m, const struct op *op, uint32_t mode)
{
	if (!entry_add(m, op->path, op->obj))
		return false;
	MUST(m->object_count < OBJECTS_MAX);
	m->objects[m->object_count++] = (struct object){
		.obj = op->obj, .mode = mode, .nlink = 1,
		.size = S_ISLNK(mode) ? strlen(op->to) : 0,
		.target = S_ISLNK(mode) ? op->to : NULL,
	};
	return true;
}

static void entry_rename(struct model *m, struct entry *e, const char *from, const char *to)
{
	char *path = malloc(PATH_SIZE);

	(void)m;
	MUST(path);
	snprintf(path, PATH_SIZE, "%s%s", to, e->path + strlen(from));
	free(e->own);
	e->own = path;
	e->path = path;
}

static bool is_below(const char *path, const char *dir)
{
	return !strncmp(path, dir, strlen(dir)) && path[strlen(dir)] == '/';
}

static bool apply_rename(struct model *m, const struct op *op)
{
	struct entry *e = entry_find(m, op->path), *old = entry_find(m, op->to);
	unsigned int obj;

	if (!e || !parent_exists(m, op->to))
		return false;
	if (op->flags & RENAME_EXCHANGE) {	/* files only, in scripts */
		if (!old)
			return false;
		obj = old->obj;
		old->obj = e->obj;
		e->obj = obj;
		return true;
	}
	if (old) {
		entry_remove(m, old);
		e = entry_find(m, op->path);	/* it may have moved */
	}
	entry_rename(m, e, op->path, op->to);
	for (size_t i = 0; i < m->entry_count; i++)
		if (is_below(m->entries[i].path, op->path))
			entry_rename(m, &m->entries[i], op->path, op->to);
	return true;
}

static bool apply_link(struct model *m, const struct op *op)
{
	struct entry *e = entry_find(m, op->path);
	struct object *o = e ? object_find(m, e->obj) : NULL;

	if (!o || !entry_add(m, op->to, o->obj))
		return false;
	o->nlink++;
	return true;
}

/* A new name for what @op->src shows now; of a revert in place of the file that has it. */
static bool apply_image(struct model *m, const struct op *op)
{
	struct object *src = object_find(m, op->src), *o;
	struct entry *old = entry_find(m, op->to);
	struct op new = *op;

	if (!src || (op->what == OP_REVERT) != !!old)
		return false;
	if (old)
		entry_remove(m, old);
	strcpy(new.path, op->to);
	if (!parent_exists(m, op->to) || !object_new(m, &new, S_IFREG | 0644))
		return false;
	src = object_find(m, op->src);	/* they move */
	o = object_find(m, op->obj);
	o->size = src->size;
	o->mode = src->mode;
	o->xattr_count = src->xattr_count;
	memcpy(o->xattrs, src->xattrs, sizeof(o->xattrs));
	/* The entry of object_new() has the copy's path. */
	entry_find(m, op->to)->path = op->to;
	return true;
}

static bool apply_unlink(struct model *m, const struct op *op)
{
	struct entry *e = entry_find(m, op->path);

	if (e)
		entry_remove(m, e);
	return e;
}

static void set_xattr(struct object *o, const struct op *op, size_t index)
{
	unsigned int i;

	for (i = 0; i < o->xattr_count && strcmp(o->xattrs[i].name, op->to); i++)
		;
	MUST(i < XATTRS_MAX);
	o->xattrs[i] = (struct attribute){ op->to, index, op->len };
	if (i == o->xattr_count)
		o->xattr_count++;
}

static void remove_xattr(struct object *o, const struct op *op)
{
	for (unsigned int i = 0; i < o->xattr_count; i++)
		if (!strcmp(o->xattrs[i].name, op->to))
			o->xattrs[i] = o->xattrs[--o->xattr_count];
}

static uint64_t size_after(const struct op *op, uint64_t size)
{
	bool grows = op->what == OP_WRITE ||
		     ((op->what == OP_ZERO || op->what == OP_ALLOCATE) &&
		      !(op->flags & FILE_KEEP_SIZE));

	if (op->what == OP_TRUNCATE)
		return op->len;
	if (grows && !(op->err && op->what != OP_WRITE) && op->len && op->off + op->len > size)
		return op->off + op->len;
	return size;
}

/* Those that change an object: @op->obj must be there. */
static bool apply_to_object(struct model *m, const struct op *op, size_t index)
{
	struct object *o = object_find(m, op->obj);

	if (!o && op->obj)
		return false;
	if (op->what == OP_SETXATTR)
		set_xattr(o, op, index);
	else if (op->what == OP_REMOVEXATTR)
		remove_xattr(o, op);
	else if (op->what == OP_CHMOD)
		o->mode = (o->mode & S_IFMT) | op->flags;
	else if (o)
		o->size = size_after(op, o->size);
	return true;
}

/* The volume of before is gone with everything on it. */
static bool apply_mkfs(struct model *m)
{
	for (size_t i = 0; i < m->entry_count; i++)
		free(m->entries[i].own);
	m->entry_count = m->object_count = 0;
	return true;
}

/* Returns false if it cannot have happened on top of the rest. */
static bool apply(struct model *m, const struct op *op, size_t index)
{
	switch (op->what) {
	case OP_CREATE:		return op->err || object_new(m, op, S_IFREG | 0644);
	case OP_MKDIR:		return object_new(m, op, S_IFDIR | 0755);
	case OP_SYMLINK:	return object_new(m, op, S_IFLNK | 0777);
	case OP_LINK:		return apply_link(m, op);
	case OP_UNLINK:		return apply_unlink(m, op);
	case OP_RMDIR:		return apply_unlink(m, op);
	case OP_RENAME:		return apply_rename(m, op);
	case OP_MKFS:		return apply_mkfs(m);
	case OP_SNAPSHOT: case OP_CLONE: case OP_REVERT:
		return apply_image(m, op);
	case OP_FSYNC: case OP_SYNC: case OP_ATTACH: case OP_DETACH: case OP_MERGE:
	case OP_GROW:
		return true;
	case OP_WRITE: case OP_TRUNCATE: case OP_PUNCH: case OP_ZERO: case OP_ALLOCATE:
	case OP_SETXATTR: case OP_REMOVEXATTR: case OP_CHMOD:
		break;
	}
	return apply_to_object(m, op, index);
}

static void model_fini(struct model *m)
{
	for (size_t i = 0; i < m->entry_count; i++)
		free(m->entries[i].own);
	free(m);
}

static struct model *model_new(void)
{
	struct model *m = calloc(1, sizeof(*m));

	MUST(m);
	return m;
}

/* NULL: some of the operations that happened need others that did not. */
static struct model *model_at(const struct point *p)
{
	struct model *m = model_new();

	for (size_t i = 0; i < p->begun; i++) {
		if (happened(p, i) && !apply(m, &p->r->ops[i], i)) {
			model_fini(m);
			return NULL;
		}
	}
	return m;
}

bool model_object(const struct recording *r, size_t count, const char *path, unsigned int *obj)
{
	struct point p = { .r = r, .begun = count };
	struct model *m;
	struct entry *e;

	for (unsigned int i = 0; i < ACTORS_MAX; i++)
		p.upto[i] = count;
	*obj = 0;
	if (!strcmp(path, "/"))
		return true;
	m = model_at(&p);
	if (!m)
		return false;
	e = entry_find(m, path);
	if (e)
		*obj = e->obj;
	model_fini(m);
	return e;
}

/* ---- contents ---- */

static void zero_part(uint8_t *buf, uint64_t off, uint64_t len, uint64_t from, uint64_t to)
{
	from = from > off ? from : off;
	to = to < off + len ? to : off + len;
	if (from < to)
		memset(buf + (from - off), 0, to - from);
}

static void overlay(const struct op *op, size_t index, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t from = op->off > off ? op->off : off, end = op->off + op->len;

	switch (op->what) {
	case OP_WRITE:
		end = end < off + len ? end : off + len;
		if (from < end)
			pattern(index, from, buf + (from - off), end - from);
		break;
	case OP_TRUNCATE:
		zero_part(buf, off, len, op->len, UINT64_MAX);
		break;
	case OP_PUNCH: case OP_ZERO:
		zero_part(buf, off, len, op->off, end);
		break;
	default:
		break;
	}
}

/* The operation that made @obj as an image of another object; NULL. */
static const struct op *image_op(const struct point *p, unsigned int obj)
{
	const struct op *op = obj ? &p->r->ops[obj - 1] : NULL;

	return op && op->src ? op : NULL;
}

/* Bytes that the first @end operations left of @obj: of those before @all, and of those at @p. */
static void contents_before(const struct point *p, size_t all, size_t end, unsigned int obj,
			    uint8_t *buf, uint64_t off, uint64_t len)
{
	const struct op *image = image_op(p, obj);

	if (image)
		contents_before(p, all, obj - 1, image->src, buf, off, len);
	for (size_t i = 0; i < end; i++)
		if (p->r->ops[i].obj == obj && (happened(p, i) || i < all))
			overlay(&p->r->ops[i], i, buf, off, len);
}

/* Bytes of @obj at @p, and in any case after the first @all operations. */
static void contents(const struct point *p, size_t all, unsigned int obj, uint8_t *buf,
		     uint64_t off, uint64_t len)
{
	memset(buf, 0, len);
	contents_before(p, all, p->begun, obj, buf, off, len);
}

/* Whether each byte of @got that differs from @want is what a later operation made of it. */
static bool bytes_are_newer(const struct point *p, unsigned int obj, uint64_t off,
			    const uint8_t *got, const uint8_t *want, uint64_t len, uint64_t *bad)
{
	uint8_t *later = malloc(len), *fine = calloc(1, len);
	uint64_t i;

	MUST(later && fine);
	for (i = 0; i < len; i++)
		fine[i] = got[i] == want[i];
	for (size_t op = 0; op < p->begun; op++) {
		if (p->r->ops[op].obj != obj || happened(p, op))
			continue;
		contents(p, op + 1, obj, later, off, len);
		for (i = 0; i < len; i++)
			fine[i] |= got[i] == later[i];
	}
	for (i = 0; i < len && fine[i]; i++)
		;
	*bad = off + i;
	free(fine);
	free(later);
	return i == len;
}

/* What was found at [@off, +@len), zeros where there was nothing. */
static bool found_bytes(const struct found *f, uint8_t *buf, uint64_t off, uint64_t len)
{
	bool any = false;

	memset(buf, 0, len);
	for (size_t i = 0; i < f->extent_count; i++) {
		const struct extent *e = &f->extents[i];
		uint64_t from = e->off > off ? e->off : off;
		uint64_t end = e->off + e->len < off + len ? e->off + e->len : off + len;

		if (from >= end)
			continue;
		memcpy(buf + (from - off), e->data + (from - e->off), end - from);
		any = true;
	}
	return any;
}

static bool is_written(const struct point *p, unsigned int obj, uint64_t off, uint64_t len)
{
	const struct op *image = image_op(p, obj);

	if (image && is_written(p, image->src, off, len))
		return true;
	for (size_t i = 0; i < p->begun; i++) {
		const struct op *op = &p->r->ops[i];

		if (op->obj == obj && op->what == OP_WRITE && op->off < off + len &&
		    off < op->off + op->len)
			return true;
	}
	return false;
}

static bool contents_match(const struct point *p, unsigned int obj, const struct found *f,
			   char *why, size_t why_size)
{
	static uint8_t got[CHUNK], want[CHUNK];
	uint64_t off, len, bad;

	for (off = 0; off < f->size; off += len) {
		bool data;

		len = f->size - off < CHUNK ? f->size - off : CHUNK;
		data = found_bytes(f, got, off, len);
		if (!data && !is_written(p, obj, off, len))
			continue;
		contents(p, 0, obj, want, off, len);
		if (!memcmp(got, want, len) ||
		    bytes_are_newer(p, obj, off, got, want, len, &bad))
			continue;
		snprintf(why, why_size, "%s: byte %llu is 0x%02x, should be 0x%02x%s", f->path,
			 (unsigned long long)bad, got[bad - off], want[bad - off],
			 data ? "" : " (a hole)");
		return false;
	}
	return true;
}

/* ---- comparison ---- */

/* Between two states: an operation of several transactions, the next one of its host. */
static bool is_growing(const struct point *p, const struct object *o, uint64_t size)
{
	for (size_t i = 0; i < p->begun; i++) {
		const struct op *op = &p->r->ops[i];
		uint64_t after;

		if (happened(p, i) || op->obj != o->obj)
			continue;
		after = size_after(op, o->size);
		return op->what != OP_TRUNCATE && size > o->size && size <= after;
	}
	return false;
}

static bool xattrs_match(const struct object *o, const struct found *f)
{
	uint8_t want[4096];
	unsigned int i, k;

	if (o->xattr_count != f->xattr_count)
		return false;
	for (i = 0; i < o->xattr_count; i++) {
		const struct attribute *a = &o->xattrs[i];

		for (k = 0; k < f->xattr_count && strcmp(f->xattrs[k].name, a->name); k++)
			;
		if (k == f->xattr_count || f->xattrs[k].len != a->len)
			return false;
		pattern(a->op, 0, want, a->len);
		if (!strcmp(a->name, XATTR_MULTI))
			want[0] = '1';
		if (memcmp(want, f->xattrs[k].value, a->len))
			return false;
	}
	return true;
}

static bool attributes_match(const struct point *p, const struct object *o,
			     const struct found *f, char *why, size_t why_size)
{
	if (f->mode != o->mode)
		snprintf(why, why_size, "%s: mode %o, should be %o", f->path, f->mode, o->mode);
	else if (!S_ISDIR(f->mode) && f->nlink != o->nlink)
		snprintf(why, why_size, "%s: %u links, should be %u", f->path, f->nlink, o->nlink);
	else if (!S_ISDIR(f->mode) && f->size != o->size && !is_growing(p, o, f->size))
		snprintf(why, why_size, "%s: %llu bytes, should be %llu", f->path,
			 (unsigned long long)f->size, (unsigned long long)o->size);
	else if (S_ISLNK(f->mode) && strcmp(f->target, o->target))
		snprintf(why, why_size, "%s: leads to %s, should to %s", f->path, f->target,
			 o->target);
	else if (!xattrs_match(o, f))
		snprintf(why, why_size, "%s: wrong extended attributes", f->path);
	else
		return true;
	return false;
}

static bool tree_matches(const struct point *p, struct model *m, const struct tree *tree,
			 char *why, size_t why_size)
{
	for (size_t i = 0; i < tree->count; i++) {
		const struct found *f = &tree->found[i];
		struct entry *e = entry_find(m, f->path);
		bool ok = e;

		if (!e)
			snprintf(why, why_size, "%s should not be there", f->path);
		if (e)
			ok = attributes_match(p, object_find(m, e->obj), f, why, why_size);
		if (!ok)
			return false;
	}
	for (size_t i = 0, k; i < m->entry_count; i++) {
		for (k = 0; k < tree->count; k++)
			if (!strcmp(tree->found[k].path, m->entries[i].path))
				break;
		if (k == tree->count) {
			snprintf(why, why_size, "%s is missing", m->entries[i].path);
			return false;
		}
	}
	for (size_t i = 0; i < tree->count; i++) {
		const struct found *f = &tree->found[i];

		if (S_ISREG(f->mode) &&
		    !contents_match(p, entry_find(m, f->path)->obj, f, why, why_size))
			return false;
	}
	return true;
}

static bool point_matches(const struct point *p, const struct tree *tree, char *why,
			  size_t why_size)
{
	struct model *m = model_at(p);
	bool ok;

	if (!m)
		return false;
	ok = tree_matches(p, m, tree, why, why_size);
	model_fini(m);
	return ok;
}

/* ---- candidates ---- */

/* These are durable, with all that their host did before, when they have ended. */
static bool makes_image(enum what what)
{
	return what == OP_SNAPSHOT || what == OP_CLONE || what == OP_REVERT;
}

/* What @sync, which has ended, made durable. */
static void require(const struct recording *r, size_t sync, size_t least[ACTORS_MAX])
{
	const struct op *s = &r->ops[sync];

	if (s->what == OP_MKFS || makes_image(s->what))
		least[s->actor] = sync + 1;
	for (size_t i = 0; i < sync; i++) {
		const struct op *op = &r->ops[i];
		bool covered = s->what == OP_FSYNC ? op->obj == s->obj : op->actor == s->actor;

		if (covered && op->end < s->begin && least[op->actor] < i + 1)
			least[op->actor] = i + 1;
	}
}

static size_t begun_at(const struct recording *r, size_t moment)
{
	size_t n = 0;

	while (n < r->op_count && r->ops[n].begin <= moment)
		n++;
	return n;
}

/* The candidates of actors @actor and above; the earliest come last, so that their complaint
 * is the one that is kept. */
static bool any_point_matches(struct point *p, const size_t *least, unsigned int actor,
			      const struct tree *tree, bool verbose, char *why, size_t why_size)
{
	size_t *upto = &p->upto[actor];

	if (actor > p->r->actors) {
		bool ok = point_matches(p, tree, why, why_size);

		for (unsigned int i = 0; verbose && !ok && i < actor; i++)
			fprintf(stderr, "%s %zu", i ? "," : "    not up to", p->upto[i]);
		if (verbose && !ok)
			fprintf(stderr, ": %s\n", why);
		return ok;
	}
	for (*upto = p->begun + 1; (*upto)-- > least[actor];) {
		if (*upto > least[actor] && p->r->ops[*upto - 1].actor != actor)
			continue;	/* the same as one less */
		if (any_point_matches(p, least, actor + 1, tree, verbose, why, why_size))
			return true;
	}
	return false;
}

bool model_allows(const struct recording *r, size_t moment, const struct tree *tree, bool verbose,
		  char *why, size_t why_size)
{
	struct point p = { .r = r, .begun = begun_at(r, moment) };
	size_t least[ACTORS_MAX] = { 0 };

	for (size_t i = 0; i < p.begun; i++) {
		const struct op *op = &r->ops[i];

		if (op->end <= moment && !op->err &&
		    (op->what == OP_FSYNC || op->what == OP_SYNC || op->what == OP_DETACH ||
		     op->what == OP_MKFS || makes_image(op->what)))
			require(r, i, least);
	}
	return any_point_matches(&p, least, 0, tree, verbose, why, why_size);
}
