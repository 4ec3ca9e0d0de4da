// SPDX-License-Identifier: Apache-2.0
/* lunfs-target.conf behind a 'c', a file of secrets behind anything else. */
#include <errno.h>
#include <unistd.h>

#include "iscsi/config.h"
#include "target/pack.h"
#include "tests/fuzz/fuzz.h"

static void check_packed(const struct tgt_config *config)
{
	struct tgt_config *copy;
	int fd = config_pack(config);

	FUZZ_CHECK(fd >= 0 && !config_unpack(fd, &copy));
	FUZZ_CHECK(copy->target_count == config->target_count &&
		   copy->portal_count == config->portal_count);
	for (unsigned int i = 0; i < config->target_count; i++)
		FUZZ_CHECK(!strcmp(copy->targets[i].iqn, config->targets[i].iqn) &&
			   copy->targets[i].lun_count == config->targets[i].lun_count);
	tgt_config_destroy(copy);
	close(fd);
}

static void read_config(FILE *in)
{
	struct tgt_config *config;
	char why[600] = "";
	int err;

	FUZZ_CHECK(!tgt_config_create(&config));
	err = tgt_config_read(config, in, "conf", why, sizeof(why));
	/* Every refusal says where; numbers of logical units ascend. */
	FUZZ_CHECK(err != -EINVAL || !strncmp(why, "conf:", 5));
	for (unsigned int i = 0; i < config->target_count; i++)
		for (unsigned int n = 1; n < config->targets[i].lun_count; n++)
			FUZZ_CHECK(config->targets[i].luns[n - 1].number <
				   config->targets[i].luns[n].number);
	if (!err && !tgt_config_check(config, why, sizeof(why)))
		check_packed(config);
	tgt_config_destroy(config);
}

static void read_secrets(FILE *in)
{
	struct tgt_config *config;
	char why[600] = "";

	FUZZ_CHECK(!tgt_config_create(&config));
	if (!tgt_auth_read_secrets(&config->discovery, in, "s", why, sizeof(why)))
		for (unsigned int i = 0; i < config->discovery.incoming_count; i++)
			FUZZ_CHECK(config->discovery.incoming[i].secret.len >= TGT_CHAP_SECRET_MIN);
	tgt_config_destroy(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FILE *in;

	if (size < 2)
		return 0;
	in = fmemopen((void *)(uintptr_t)(data + 1), size - 1, "r");
	FUZZ_CHECK(in);
	if (data[0] == 'c')
		read_config(in);
	else
		read_secrets(in);
	fclose(in);
	return 0;
}
