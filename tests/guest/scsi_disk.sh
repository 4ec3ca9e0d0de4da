#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# SCSI disks of the kernel's: COMPARE AND WRITE and reservations through Debian's stock kernel, with and
# without privilege, and an answer that does not come (tests/guest/scsi_claims.c).
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/guest/lib.sh"
. "$top/tests/guest/lib_scsi.sh"

scsi_need "scsi disk"
lunfs_target_start
cat >"$work/claims" <<'IN'
/claims /dev/sda /dev/sdb || fail "the claims come to their end"
echo 3 >/sys/block/sda/device/timeout
/claims /dev/sda /dev/sdb unclear || fail "the claims come to their end"
dmsetup create mp --uuid mpath-test --table "0 $(blockdev --getsz /dev/sda) multipath 1 queue_if_no_path 0 \
	1 1 round-robin 0 2 1 8:0 1 8:16 1" && dmsetup mknodes
ls -l /dev/mapper/
/claims /dev/mapper/mp /dev/sdb multipath || fail "the claims come to their end"
# A logical volume passes SCSI commands on, with addresses that are not its own: it is none.
dmsetup remove mp
dmsetup create lv --table "0 400000 linear /dev/sda 2048" && dmsetup mknodes
mkfs.lunfs -n /dev/mapper/lv >/tmp/lv 2>&1
cat /tmp/lv
check "a device that is only a part of a LUN is refused" grep -q "compare-and-write" /tmp/lv
IN
guest_start "scsi disk:" "$work/claims" 150 -f "$top/build/tests/guest/scsi_claims:/claims" \
	-f "$(command -v dmsetup)" -f "$bin/mkfs.lunfs:/usr/sbin/mkfs.lunfs"
# An answer that does not come.
if guest_says 120 HOST-STOP; then
	target_signal STOP
	guest_says 60 HOST-GO
	target_signal CONT
fi
wait "$guest"
