/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata blocks as text, for people. */
#include <inttypes.h>
#include <time.h>

#include "base/text.h"
#include "fs/debug.h"

struct text_sink {
	struct debug_sink sink;
	FILE	*out;
	bool	inside;		/* an element of an array: its fields share a line */
	bool	first;
};

static FILE *start(struct debug_sink *sink, const char *name)
{
	struct text_sink *t = container_of(sink, struct text_sink, sink);

	if (!t->inside)
		fprintf(t->out, "%s: ", name);
	else
		fprintf(t->out, "%s%s ", t->first ? "" : ", ", name);
	t->first = false;
	return t->out;
}

static void finish(struct debug_sink *sink)
{
	struct text_sink *t = container_of(sink, struct text_sink, sink);

	if (!t->inside)
		fputc('\n', t->out);
}

static void print_time(FILE *out, uint64_t ns)
{
	time_t t = (time_t)(ns / NSEC_PER_SEC);
	char text[40] = "?";
	struct tm tm;

	if (gmtime_r(&t, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(out, "%s.%09" PRIu64 "Z", text, (uint64_t)(ns % NSEC_PER_SEC));
}

static void print_number(FILE *out, enum debug_kind kind, uint64_t v)
{
	char text[40];

	switch (kind) {
	case DEBUG_HEX:
	case DEBUG_ADDR:
		fprintf(out, "0x%" PRIx64, v);
		break;
	case DEBUG_SIZE:
		fprintf(out, "%" PRIu64 " (%s)", v, text_format_size(v, text, sizeof(text)));
		break;
	case DEBUG_TIME:
		print_time(out, v);
		break;
	case DEBUG_MODE:
		fprintf(out, "0%" PRIo64, v);
		break;
	case DEBUG_ID:
		fprintf(out, "%" PRIu64 " (inode %" PRIu64 ", generation %u)", v,
			inode_id_number(v), inode_id_generation(v));
		break;
	case DEBUG_POINTER:
		fprintf(out, "0x%" PRIx64 " (block %" PRIu64 ", birth %u)", v,
			bptr_addr(v) >> BLOCK_SHIFT, bptr_birth(v));
		break;
	case DEBUG_MAGIC:
		fprintf(out, "0x%" PRIx64 " (%s)", v, meta_type_name((uint32_t)v));
		break;
	default:
		fprintf(out, "%" PRIu64, v);
	}
}

static void text_block(struct debug_sink *sink, uint64_t addr, const char *type,
		       const char *wrong)
{
	struct text_sink *t = container_of(sink, struct text_sink, sink);

	fprintf(t->out, "0x%" PRIx64 ": %s\n", addr, type ? type : wrong);
	if (type && wrong)
		fprintf(t->out, "NOT VALID: %s\n", wrong);
}

static void text_number(struct debug_sink *sink, const char *name, enum debug_kind kind,
			uint64_t value)
{
	print_number(start(sink, name), kind, value);
	finish(sink);
}

static void text_text(struct debug_sink *sink, const char *name, enum debug_kind kind,
		      const char *value)
{
	const char *quote = kind == DEBUG_UUID ? "" : "\"";

	fprintf(start(sink, name), "%s%s%s", quote, value, quote);
	finish(sink);
}

static void text_begin(struct debug_sink *sink, const char *array, unsigned int index)
{
	struct text_sink *t = container_of(sink, struct text_sink, sink);

	fprintf(t->out, "%s[%u]: ", array, index);
	t->inside = true;
	t->first = true;
}

static void text_end(struct debug_sink *sink)
{
	struct text_sink *t = container_of(sink, struct text_sink, sink);

	t->inside = false;
	fputc('\n', t->out);
}

void debug_print(FILE *out, const void *block, uint64_t addr, const uint8_t *volume)
{
	struct text_sink t = {
		.sink = { text_block, text_number, text_text, text_begin, text_end },
		.out = out,
	};

	debug_walk(&t.sink, block, addr, volume);
}
