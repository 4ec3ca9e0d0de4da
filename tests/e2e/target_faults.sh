#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What hosts on a LUN of lunfs-target see when what lies below the LUN fails: no space, bad blocks.
. "$(dirname "$0")/lib.sh"
need_fuse target_faults

below=$work/below
below_end() {
	cleanup_below
	cleanup
}
cleanup_below() {
	local name
	for name in "${!pid_of[@]}"; do
		kill -KILL "${pid_of[$name]}" 2>/dev/null
		wait "${pid_of[$name]}" 2>/dev/null
	done
	[ -z "$target_pid" ] || target_kill
	! mountpoint -q "$below" || wait_for 60 umount "$below" 2>/dev/null
}
trap below_end EXIT

truncate -s 300M "$work/below.img"
mkdir "$below"
mkfs.ext4 -q -O ^has_journal -m 0 "$work/below.img" && mount -o loop "$work/below.img" "$below" 2>/dev/null ||
	skip_all target_faults "no loop device here"
fallocate -l 200M "$below/ballast"
target_file=$below/lun.img
target_start
make_lun_volume
host_start alpha
host_start beta
host_mount alpha
host_mount beta
a=$(mnt alpha)
b=$(mnt beta)

story "a thin LUN that is full: who writes gets ENOSPC, and no host is lost"
head -c 1000000 /dev/urandom >"$work/kept"
cp "$work/kept" "$a/kept"
sync -f "$a/kept"
echo beta >"$b/beta"
sync -f "$b/beta"
dd if=/dev/zero of="$a/big" bs=1M count=400 2>"$work/dd.err" && fail "400 MiB fit into 100"
grep -q 'No space left on device' "$work/dd.err" || fail "dd said: $(cat "$work/dd.err")"
# Metadata waits, longer than a lease; its host lives on.
sync "$a/big" &
waiting=$!
wait_for 60 grep -q 'has no space left for metadata' "$work/alpha.log" ||
	fail "alpha does not say what it waits for; free below: $(df --output=avail -k "$below" | tail -n 1) KiB, sync: $(kill -0 $waiting 2>/dev/null && echo waits || echo ended)"
sleep 7
kill -0 $waiting 2>/dev/null || fail "sync did not wait"
cmp "$work/kept" "$a/kept" || fail "what alpha has is not readable"
[ "$(cat "$b/beta")" = beta ] || fail "what beta has is not readable"
grep -hE 'slot [0-9]+ is lost' "$work/alpha.log" "$work/beta.log" && fail "a host is lost"
"$bin/lunfs" --run-dir "$work/run-alpha" status | grep -q 'lease     valid' || fail "no lease"

story "and goes on when there is space, with nothing lost"
rm "$below/ballast"
wait_for 60 grep -q 'has space again' "$work/alpha.log" || fail "alpha does not go on"
wait $waiting || fail "sync failed"
echo more >"$b/more" && sync -f "$b/more" || fail "beta cannot write"
cmp "$work/kept" "$b/kept" || fail "data, seen by beta"
[ "$(stat -c %s "$b/big")" -eq "$(stat -c %s "$a/big")" ] || fail "what waited was not done"
host_umount alpha
host_umount beta
host_stop alpha || fail "alpha ended with $?"
host_stop beta || fail "beta ended with $?"
check_volume

# Behind the end of its file, which has shrunk, is as near to bad blocks as a file comes.
story "a block that cannot be read is told with its address"
truncate -s 1G "$target_file"
"$bin/fsck.lunfs" -n "$lun" >"$work/fsck.log" 2>&1 && fail "fsck.lunfs found nothing wrong"
lba=$(sed -n 's/.*MEDIUM ERROR at LBA \([0-9]*\) (command .*sense 3h.*/\1/p' "$work/fsck.log" | head -n 1)
[ -n "$lba" ] || fail "no address: $(cat "$work/fsck.log")"
[ "$lba" -ge $(((1 << 30) / 512)) ] || fail "LBA $lba can be read"
grep -q 'or after' "$work/fsck.log" && fail "the target does not tell the address"
kill "$target_pid"
wait "$target_pid" || fail "the target ended with $?"
target_pid=
finish
