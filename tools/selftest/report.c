/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/selftest/report.h"

void selftest_print(const struct selftest *t, FILE *out)
{
	for (unsigned int i = 0; i < SELFTEST_PROPERTIES; i++) {
		const struct selftest_property *p = &t->properties[i];

		fprintf(out, "  %-18s %-8s %s\n", p->name, selftest_verdict_name(p->verdict), p->text);
		if (!p->count)
			continue;
		fprintf(out, "  %-27s ", "");
		for (unsigned int f = 0; f < p->count; f++)
			fprintf(out, "%s%s %.*f", f ? ", " : "", p->figures[f].name,
				p->figures[f].value == (double)(long long)p->figures[f].value ? 0 : 3,
				p->figures[f].value);
		fputc('\n', out);
	}
}

json_t *selftest_json(const struct selftest *t)
{
	json_t *all = json_array();

	for (unsigned int i = 0; i < SELFTEST_PROPERTIES; i++) {
		const struct selftest_property *p = &t->properties[i];
		json_t *figures = json_object();

		for (unsigned int f = 0; f < p->count; f++)
			json_object_set_new(figures, p->figures[f].name,
					    json_real(p->figures[f].value));
		json_array_append_new(all, json_pack("{ss ss ss so}", "name", p->name, "verdict",
						     p->verdict == SELFTEST_FAIL ? "fail" :
						     selftest_verdict_name(p->verdict),
						     "text", p->text, "figures", figures));
	}
	return all;
}
