#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A living host that lost its slot, and a device that fails under a running daemon.
. "$(dirname "$0")/lib.sh"
need_fuse lost_slot_and_failed_device

make_volume 1G
host_start alpha
host_mount alpha
a=$(mnt alpha)

slot_field() {	# slot_field FIELD: of alpha
	"$bin/lunfs" --run-dir "$work/run-alpha" hosts ds1 --json |
		jq -r ".hosts[] | select(.host_name == \"alpha\") | .$1"
}

story "a host whose slot was taken from it answers with EIO, and says why"
echo kept >"$a/kept"
sync -f "$a/kept"
exec 3>"$a/open"
generation=$(slot_field generation)
slots=$("$bin/lunfs" debug "$lun" super | sed -n 's/^slots_addr: //p' | head -n 1)
# Another host recovered it, as far as the LUN can tell: free, and a generation later.
"$top/tests/e2e/patch_block.py" "$lun" $((slots + 4096 * $(slot_field slot))) 104 \
	"$(python3 -c "import struct; print(struct.pack('<II', $generation + 1, 0).hex())")"
wait_for 60 grep -q "slot .* is lost" "$work/alpha.log" || fail "the log does not say so"
for c in "ls $a" "stat $a/kept" "touch $a/new" "df $a"; do
	# shellcheck disable=SC2086
	timeout 60 $c >"$work/out" 2>&1 && fail "$c succeeded"
	grep -qi "input/output error" "$work/out" || fail "$c: $(cat "$work/out")"
done
echo late >&3 2>"$work/out" && fail "a write to an open file succeeded"
"$bin/lunfs" --run-dir "$work/run-alpha" status | grep -qi "lost" || fail "status"
exec 3>&-

story "it can be unmounted, and joins again as a new generation"
timeout 60 umount "$a" || fail "umount"
host_mount alpha
[ "$(cat "$a/kept")" = kept ] || fail "what was durable is gone"
[ "$(slot_field generation)" -gt "$generation" ] || fail "generation $(slot_field generation)"
echo again >"$a/open" || fail "writing after joining again"

story "a device cut under a running daemon: EIO, a line in the log, others go on"
mkdir "$work/mnt-other"
"$bin/mkfs.lunfs" -q -L other "$work/other.img" --size 256M || fail "mkfs"
"$bin/mount.lunfs" "$work/other.img" "$work/mnt-other" -o "run-dir=$work/run-alpha" || fail "mount"
mounts+=("$work/mnt-other")
cp "$lun" "$work/saved.img"
truncate -s 1M "$lun"
timeout 60 mkdir "$a/new" 2>"$work/out" && fail "mkdir on a device that is gone succeeded"
grep -qi "input/output error" "$work/out" || fail "not EIO: $(cat "$work/out")"
wait_for 60 grep -q "ds1: commands failed by the device" "$work/alpha.log" ||
	fail "the log does not name the device's failure"
# Held up by the failed one it would be for ever, for that stays attached meanwhile.
timeout 60 sh -c 'echo fine >"$1" && sync -f "$1"' - "$work/mnt-other/file" || fail "the other datastore is held up"
timeout 60 umount "$a" || fail "umount of the failed one"
umount "$work/mnt-other"
"$bin/fsck.lunfs" -n "$work/other.img" >"$work/out" || fail "$(cat "$work/out")"
host_stop alpha
finish
