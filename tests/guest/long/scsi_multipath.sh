#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The kernel's dm-multipath over two sessions of open-iscsi to one LUN of lunfs-target: one path is lost
# under load, and who writes hears nothing of it.  With `make conformance`: the kernel takes its time.
top=$(cd "$(dirname "$0")/../../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/guest/lib.sh"
. "$top/tests/guest/lib_scsi.sh"

scsi_need "scsi multipath"
lunfs_target_start
# The second path goes by a way of its own, which can be cut.
"$top/tests/e2e/iscsi_proxy.py" "${ports%% *}" >"$work/proxy.port" &
proxy=$!
wait_for 60 test -s "$work/proxy.port" || fail "the proxy does not start"
ports="${ports%% *} $(cat "$work/proxy.port")"
cat >"$work/story" <<'IN'
dmsetup create mp --uuid mpath-test --table "0 $(blockdev --getsz /dev/sda) multipath 1 queue_if_no_path 0 \
	1 1 round-robin 0 2 1 8:0 1 8:16 1" && dmsetup mknodes
head -c 4194304 /dev/urandom >/tmp/pattern
n=0
write_one() {
	dd if=/tmp/pattern of=/dev/mapper/mp bs=65536 seek=$((n * 64)) conv=notrunc,fsync 2>/tmp/dd || {
		cat /tmp/dd
		return 1
	}
	n=$((n + 1))
}
write_some() { write_one && write_one && write_one && write_one; }
# Which of the two sessions was found first, and is 8:0, is the kernel's business.
path_is_lost() { write_one || touch /tmp/failed; dmsetup status mp | grep -qE '8:(0|16) F'; }
check "it writes" write_some
set -- $(cat /sys/block/sda/stat) && by_a=$5
set -- $(cat /sys/block/sdb/stat) && by_b=$5
echo "  writes by sda $by_a, by sdb $by_b"
check "by both paths, in turn" test "$by_a" -gt 4 -a "$by_b" -gt 4
echo GUEST-CUT
check "a path that is lost is taken out" wait_for 400 path_is_lost
dmsetup status mp
check "no write failed meanwhile" test ! -e /tmp/failed
check "the other one does it alone" write_some
echo 3 >/proc/sys/vm/drop_caches
i=0
while [ $i -lt $n ]; do
	dd if=/dev/mapper/mp bs=65536 skip=$((i * 64)) count=64 2>/dev/null | cmp - /tmp/pattern || touch /tmp/differs
	i=$((i + 1))
done
echo "  $n times 4 MiB"
check "all that was written is there" test ! -e /tmp/differs
IN
guest_start "scsi multipath:" "$work/story" 900 -f "$(command -v dmsetup)"
if guest_says 800 GUEST-CUT; then
	kill "$proxy"
	wait "$proxy" 2>/dev/null
fi
wait "$guest"
result=$?
kill "$proxy" 2>/dev/null
exit $result
