#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A volume grows with its device while two hosts use it, and gives free space back to it.
. "$(dirname "$0")/lib.sh"
need_fuse volume_grows

truncate -s 128M "$lun"
"$bin/mkfs.lunfs" -q -L ds1 "$lun" || fail "mkfs.lunfs failed"
host_start alpha
host_start beta
host_mount alpha
host_mount beta

size_of() { lunfs "$1" --json info ds1 | jq .size; }
taken() { du -B1 "$lun" | cut -f1; }

story "a volume that fills its device has nothing to grow by"
lunfs alpha volume grow ds1 >"$work/out" || fail "grow"
grep -q "nothing to grow by" "$work/out" || fail "$(cat "$work/out")"
refused 1 "not made smaller" alpha volume grow ds1 --size 64M
refused 1 "grow the device first" alpha volume grow ds1 --size 1G
refused 2 "not a size" alpha volume grow ds1 --size much

story "it grows under two hosts that write, and both use what is new"
fallocate -l 80M "$(mnt alpha)/old" || fail "no space to begin with"
(while [ ! -e "$work/stop" ]; do
	dd if=/dev/urandom of="$(mnt beta)/busy" bs=64k count=8 conv=fsync status=none || exit 1
done) &
writer=$!
truncate -s 3G "$lun"
lunfs alpha volume grow ds1 >"$work/out" || fail "grow: $(cat "$work/out")"
grep -q "grown from 128.0 MiB to 3.0 GiB\|grown from 128 MiB to 3 GiB" "$work/out" ||
	fail "it says $(cat "$work/out")"
fallocate -l 1G "$(mnt alpha)/new" || fail "alpha cannot use it"
fallocate -l 1G "$(mnt beta)/mine" || fail "beta cannot use it"
touch "$work/stop"
wait $writer || fail "beta's writer failed"
head -c 40M /dev/urandom >"$work/data"
dd if="$work/data" of="$(mnt alpha)/new" bs=1M seek=900 conv=notrunc,fsync status=none
cmp -i 0:$((900 * 1048576)) -n 41943040 "$work/data" "$(mnt beta)/new" || fail "beta reads other data"
[ "$(size_of beta)" = 3221225472 ] || fail "beta still says $(size_of beta)"
big_enough() { [ "$(df -B1 --output=size "$(mnt beta)" | tail -n 1)" -gt 3000000000 ]; }
wait_for 60 big_enough || fail "beta's df does not show it"

story "a host that crashes right after, and one that was not there, find the new size"
host_kill alpha
umount -l "$(mnt alpha)"
host_start alpha
host_mount alpha
[ "$(size_of alpha)" = 3221225472 ] || fail "alpha came back to $(size_of alpha)"
cmp -i 0:$((900 * 1048576)) -n 41943040 "$work/data" "$(mnt alpha)/new" || fail "data is gone"

story "free space goes back to the device, used space stays, at the rate that was asked for"
dd if=/dev/urandom of="$(mnt alpha)/garbage" bs=1M count=100 conv=fsync status=none
before=$(taken)
rm "$(mnt alpha)/garbage"
settled() { [ "$(lunfs alpha --json df ds1 | jq .free)" -gt 900000000 ]; }
wait_for 60 settled || fail "the deletion does not end"
sync -f "$(mnt alpha)"
start=$(date +%s%N)
lunfs alpha volume reclaim ds1 --rate 2G >"$work/out" || fail "reclaim"
took=$((($(date +%s%N) - start) / 1000000))
discarded=$(lunfs beta --json volume reclaim ds1 | jq .discarded) || fail "reclaim on beta"
[ "$discarded" -gt 700000000 ] || fail "only $discarded bytes were discarded"
[ $took -ge $((discarded / 2500000)) ] || fail "$discarded bytes in $took ms are above the rate"
[ "$(taken)" -lt $((before - 95 * 1048576)) ] || fail "the device has $(taken) of $before"
cmp -i 0:$((900 * 1048576)) -n 41943040 "$work/data" "$(mnt beta)/new" || fail "used space was hit"

host_umount alpha
host_umount beta
host_stop alpha || fail "alpha ended with $?"
host_stop beta || fail "beta ended with $?"
check_volume
finish
