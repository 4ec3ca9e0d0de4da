#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Virtual disks by `lunfs disk`: thin and thick, grown, snapshotted, cloned on two hosts,
# reverted, deleted and merged; a crash between; what each shows is compared byte by byte.
. "$(dirname "$0")/lib.sh"
need_fuse virtual_disks

make_volume 2G
host_start alpha
host_start beta
host_mount alpha
host_mount beta
mkdir "$(mnt alpha)/vm1" "$(mnt alpha)/vm2"
disk=ds1:/vm1/root.disk

fill() {	# fill FILE SEED OFFSET_MIB MIB: bytes that only this call makes
	openssl enc -aes-128-ctr -K "$(printf '%032x' "$2")" -iv 0 </dev/zero 2>/dev/null |
		dd of="$1" bs=1M seek="$3" count="$4" iflag=fullblock conv=notrunc,fsync status=none
}

sum() { sha256sum <"$1" | cut -d' ' -f1; }

allocated() { lunfs alpha --json disk info "$1" | jq .allocated; }

story "a thin disk takes no space, a thick one all of it, and neither is written"
lunfs alpha disk create $disk --size 64M || fail "create"
lunfs alpha disk create ds1:/vm1/thick.disk --size 64M --thick || fail "create --thick"
[ "$(allocated $disk)" -lt 65536 ] || fail "the thin disk has $(allocated $disk) bytes"
[ "$(allocated ds1:/vm1/thick.disk)" -ge 67108864 ] || fail "the thick disk is not thick"
cmp -n 67108864 "$(mnt beta)/vm1/thick.disk" /dev/zero || fail "a thick disk does not read zeros"
refused 1 "exists already" alpha disk create $disk --size 64M
refused 1 "at least 1 MiB" alpha disk create ds1:/x --size 4K
refused 2 "not a size" alpha disk create ds1:/x --size lots
refused 2 "takes no --size" alpha disk info $disk --size 1G

story "a snapshot keeps what was there; the disk goes on"
fill "$(mnt alpha)/vm1/root.disk" 1 0 32
old=$(sum "$(mnt alpha)/vm1/root.disk")
lunfs alpha disk snapshot create $disk monday || fail "snapshot"
fill "$(mnt alpha)/vm1/root.disk" 2 8 4
new=$(sum "$(mnt alpha)/vm1/root.disk")
[ "$new" != "$old" ] || fail "nothing was written"
[ "$(sum "$(mnt beta)/vm1/root.disk@monday")" = "$old" ] || fail "the snapshot changed"
[ "$(sum "$(mnt beta)/vm1/root.disk")" = "$new" ] || fail "beta sees another disk"
dd if=/dev/zero of="$(mnt alpha)/vm1/root.disk@monday" bs=4k count=1 conv=notrunc 2>/dev/null &&
	fail "a snapshot could be written to"
[ "$(allocated $disk)" -lt 8388608 ] || fail "the snapshot copied the disk"
refused 1 "cannot name a snapshot" alpha disk snapshot create $disk a@b

story "linked clones of one snapshot are written on two hosts at a time"
lunfs alpha disk clone --linked $disk@monday ds1:/vm2/a.disk || fail "clone a"
lunfs beta disk clone --linked $disk@monday ds1:/vm2/b.disk || fail "clone b"
exec 5>>"$(mnt alpha)/vm1/root.disk"	# and the disk itself is in use, too
fill "$(mnt alpha)/vm2/a.disk" 3 16 2 &
fill "$(mnt beta)/vm2/b.disk" 4 16 2 || fail "writing b"
wait $! || fail "writing a"
exec 5>&-
cp "$(mnt alpha)/vm1/root.disk@monday" "$work/a.img"
cp "$work/a.img" "$work/b.img"
fill "$work/a.img" 3 16 2
fill "$work/b.img" 4 16 2
cmp "$work/a.img" "$(mnt beta)/vm2/a.disk" || fail "clone a is not what was written"
cmp "$work/b.img" "$(mnt alpha)/vm2/b.disk" || fail "clone b is not what was written"
refused 2 "always thin" alpha disk clone --linked --thick $disk@monday ds1:/vm2/c.disk
refused 1 "is no snapshot" alpha disk clone --linked $disk ds1:/vm2/c.disk

story "a host that crashes loses no snapshot and no clone"
sync "$(mnt alpha)/vm2/a.disk"
host_kill alpha
umount -l "$(mnt alpha)"
host_start alpha
host_mount alpha
[ "$(sum "$(mnt alpha)/vm1/root.disk")" = "$new" ] || fail "the disk changed"
[ "$(sum "$(mnt alpha)/vm1/root.disk@monday")" = "$old" ] || fail "the snapshot changed"
cmp "$work/a.img" "$(mnt alpha)/vm2/a.disk" || fail "clone a changed"

story "a deleted snapshot with several children stays for them; with one it moves into it"
lunfs alpha disk snapshot create $disk tuesday || fail "second snapshot"
fill "$(mnt alpha)/vm1/root.disk" 5 30 20
newest=$(sum "$(mnt alpha)/vm1/root.disk")
lunfs alpha disk snapshot delete $disk monday 2>"$work/out" || fail "delete monday"
grep -q "images that stand on it" "$work/out" || fail "not said that it stays: $(cat "$work/out")"
lunfs alpha disk snapshot delete $disk tuesday || fail "delete tuesday"
[ "$(sum "$(mnt beta)/vm1/root.disk")" = "$newest" ] || fail "deleting changed the disk"
rm "$(mnt alpha)/vm2/a.disk" "$(mnt alpha)/vm2/b.disk"
merged() {
	lunfs alpha disk merge $disk >/dev/null &&
		[ "$(lunfs alpha --json disk info $disk | jq '.stands_on | length')" = 0 ]
}
wait_for 60 merged || fail "the disk still stands on deleted snapshots"
[ "$(sum "$(mnt beta)/vm1/root.disk")" = "$newest" ] || fail "merging changed the disk"

story "a disk is reverted to a snapshot, and grown; it is never made smaller"
lunfs alpha disk snapshot create $disk base || fail "snapshot base"
fill "$(mnt alpha)/vm1/root.disk" 6 0 64
lunfs alpha disk snapshot revert $disk base || fail "revert"
wait_for 60 test "$(sum "$(mnt beta)/vm1/root.disk")" = "$newest" || fail "revert shows other bytes"
lunfs alpha disk snapshot list $disk | grep -q '@base' || fail "list does not show it"
lunfs beta disk grow $disk --size 96M || fail "grow"
[ "$(stat -c %s "$(mnt beta)/vm1/root.disk")" = 100663296 ] || fail "it did not grow"
refused 1 "not made smaller" beta disk grow $disk --size 64M

story "what is no disk is refused by its name, with the reason"
refused 1 "ds1:/: no virtual disk: that is a file" alpha disk snapshot create ds1:/ s
refused 1 "ds1:/: no virtual disk: that is a file" alpha disk info ds1:/
refused 1 "ds1:/: a directory: a virtual disk is a file" alpha disk grow ds1:/ --size 1G
refused 1 "ds1://none: No such file" alpha disk info ds1://none
refused 1 "ds1:/none@s: No such file" alpha disk clone --linked ds1:/none@s ds1:/new

story "a disk is attached under one name at a time"
lunfs alpha disk create ds1:/once.disk --size 16M || fail "create"
lunfs alpha disk attach ds1:/once.disk >"$work/out" || fail "attach: $(cat "$work/out")"
refused 3 "ds1:/./once.disk: the same disk is attached as ds1:/once.disk" alpha disk attach ds1:/./once.disk
mv "$(mnt alpha)/once.disk" "$(mnt alpha)/twice.disk"
refused 3 "attached as ds1:/once.disk; use" alpha disk attach ds1:/twice.disk
lunfs alpha disk detach ds1:/once.disk || fail "detach"
lunfs alpha disk attach ds1:/twice.disk >/dev/null || fail "attach by the new name"
lunfs alpha disk detach ds1:/twice.disk || fail "detach"

story "a disk that is in use is not snapshotted behind its user's back"
exec 5>>"$(mnt beta)/vm1/root.disk"
refused 3 "in use" alpha disk snapshot create $disk now
exec 5>&-

host_umount alpha
host_umount beta
host_stop alpha || fail "alpha ended with $?"
host_stop beta || fail "beta ended with $?"
check_volume
finish
