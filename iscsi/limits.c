// SPDX-License-Identifier: Apache-2.0
#include "iscsi/tgt.h"

void tgt_limits_default(struct tgt_limits *limits)
{
	*limits = (struct tgt_limits){
		.connections_max = 1024,
		.connections_address_max = 256,
		.session_connections_max = 8,
		.sessions_max = 512,
		.half_open_max = 256,
		.half_open_address_max = 64,
		.login_timeout_ms = 15000,
		.nop_interval_ms = 60000,
		.nop_timeout_ms = 60000,
		.commands_max = 128,
		.memory_max = 512 * MIB,
	};
}
