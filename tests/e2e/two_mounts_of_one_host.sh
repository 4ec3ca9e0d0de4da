#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One host mounts a datastore at two places: the kernel has a cache for each of them.
. "$(dirname "$0")/lib.sh"
need_fuse two_mounts_of_one_host

make_volume 1G
host_start alpha
host_mount alpha
a=$(mnt alpha)
b=$work/second
mkdir "$b"
"$bin/mount.lunfs" "$lun" "$b" -o "run-dir=$work/run-alpha" || fail "second mount"
mounts+=("$b")

letters() { head -c 65536 /dev/zero | tr '\0' "$1"; }	# letters LETTER
holds() { letters "$1" | cmp -s - "${2:-/dev/stdin}"; }	# holds LETTER [FILE]

story "what is written through one mount is read through the other"
for letter in a b c; do
	letters "$letter" | dd of="$a/f" bs=64k conv=notrunc 2>/dev/null
	holds "$letter" "$b/f" || fail "$letter, other mount"
	holds "$letter" "$a/f" || fail "$letter, same mount"
done
letters d | dd of="$b/f" bs=64k conv=notrunc 2>/dev/null
holds d "$a/f" || fail "the other way"

story "a file that stays open through one mount sees what the other writes"
exec 3<"$b/f"
holds d <&3 || fail "before"
letters e | dd of="$a/f" bs=64k conv=notrunc 2>/dev/null
reopened() {	# the same open file from its start
	python3 -c 'import os, sys; sys.exit(os.pread(3, 65536, 0) != b"e" * 65536)'
}
wait_for 60 reopened || fail "after"
exec 3<&-

story "one mount goes, the other stays"
host_umount alpha
holds e "$b/f" || fail "contents"
umount "$b"
host_stop alpha || fail "alpha ended with $?"
check_volume
finish
