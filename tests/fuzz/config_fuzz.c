// SPDX-License-Identifier: Apache-2.0
/* lunfsd's configuration file. */
#include <errno.h>

#include "daemon/config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config c;
	char why[300] = "";
	FILE *in;
	int err;

	if (!size)
		return 0;
	in = fmemopen((void *)(uintptr_t)data, size, "r");
	FUZZ_CHECK(in);
	config_init(&c);
	err = config_read(&c, in, "lunfsd.conf", why, sizeof(why));
	fclose(in);
	/* Every refusal says where; everything accepted is terminated and within its bounds. */
	if (err == -EINVAL)
		FUZZ_CHECK(strncmp(why, "lunfsd.conf:", 12) == 0);
	if (!err)
		FUZZ_CHECK(strnlen(c.run_dir, sizeof(c.run_dir)) < sizeof(c.run_dir) &&
			   strnlen(c.host_name, sizeof(c.host_name)) < sizeof(c.host_name) &&
			   strnlen(c.user, sizeof(c.user)) < sizeof(c.user) &&
			   strnlen(c.group, sizeof(c.group)) < sizeof(c.group) &&
			   c.threads <= CONFIG_THREADS_MAX && c.log_level <= LOG_LEVEL_DEBUG);
	return 0;
}
