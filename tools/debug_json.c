/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/debug_json.h"

#include <inttypes.h>

struct json_sink {
	struct debug_sink sink;
	json_t	*block, *fields;
	json_t	*into;		/* fields, or the element of an array under way */
};

static struct json_sink *json_sink(struct debug_sink *sink)
{
	return container_of(sink, struct json_sink, sink);
}

/* Bytes from a disk may be anything: '?' where they are not UTF-8. */
static json_t *safe_text(const char *value)
{
	json_t *text = json_string(value);
	char copy[512];

	if (text)
		return text;
	snprintf(copy, sizeof(copy), "%s", value);
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	return json_string(copy);
}

static void json_block(struct debug_sink *sink, uint64_t addr, const char *type,
		       const char *wrong)
{
	struct json_sink *j = json_sink(sink);

	json_object_set_new(j->block, "address", json_integer((json_int_t)addr));
	json_object_set_new(j->block, "type", type ? json_string(type) : json_null());
	json_object_set_new(j->block, "valid", json_boolean(type && !wrong));
	json_object_set_new(j->block, "wrong", wrong ? safe_text(wrong) : json_null());
}

static void json_number(struct debug_sink *sink, const char *name, enum debug_kind kind,
			uint64_t value)
{
	char text[24];
	bool hex = kind == DEBUG_HEX || kind == DEBUG_POINTER || kind == DEBUG_MAGIC ||
		   value > INT64_MAX;

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	json_object_set_new(json_sink(sink)->into, name,
			    hex ? json_string(text) : json_integer((json_int_t)value));
}

static void json_text(struct debug_sink *sink, const char *name, enum debug_kind kind,
		      const char *value)
{
	(void)kind;
	json_object_set_new(json_sink(sink)->into, name, safe_text(value));
}

static void json_begin(struct debug_sink *sink, const char *array, unsigned int index)
{
	struct json_sink *j = json_sink(sink);
	json_t *list = json_object_get(j->fields, array);

	if (!json_is_array(list)) {
		list = json_array();
		json_object_set_new(j->fields, array, list);
	}
	j->into = json_object();
	json_object_set_new(j->into, "index", json_integer(index));
	json_array_append_new(list, j->into);
}

static void json_end(struct debug_sink *sink)
{
	json_sink(sink)->into = json_sink(sink)->fields;
}

json_t *debug_json(const void *block, uint64_t addr, const uint8_t *volume)
{
	struct json_sink j = {
		.sink = { json_block, json_number, json_text, json_begin, json_end },
		.block = json_object(), .fields = json_object(),
	};

	j.into = j.fields;
	debug_walk(&j.sink, block, addr, volume);
	json_object_set_new(j.block, "fields", j.fields);
	return j.block;
}
