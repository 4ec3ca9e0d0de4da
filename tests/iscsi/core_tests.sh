#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The end-to-end tests that know nothing of what a LUN is, on a LUN of lunfs-target.
#
#	core_tests.sh		all that can: with `make conformance`
#	core_tests.sh short	one takeover under load, for `make check`
set -u
cd "$(dirname "$0")/../e2e" || exit 1
export E2E_LUN=iscsi
bad=0

run() {
	"$@" 2>&1 | sed -E 's/^(PASS|FAIL|SKIP): /\1: over iSCSI: /'
	[ "${PIPESTATUS[0]}" -eq 0 ] || bad=1
}

if [ "${1:-full}" = short ]; then
	ROUNDS=1 run ./takeover_after_crash_under_load.sh
	exit $bad
fi
ROUNDS=${ROUNDS:-5} run ./takeover_after_crash_under_load.sh
for script in two_hosts_share_a_lun killed_while_deleting full_volume several_writers virtual_disks \
	two_mounts_of_one_host posix; do
	echo "--- $script"
	run ./$script.sh
done
exit $bad
