#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A datastore is named by label, UUID or device path wherever one is asked for.
. "$(dirname "$0")/lib.sh"
need_fuse datastores_by_name

make_volume 256M
host_start alpha
lunfs() { "$bin/lunfs" --run-dir "$work/run-alpha" "$@"; }

story "attach, look, detach without a mount, by each of its names"
lunfs attach "$lun" >/dev/null || fail "attach"
uuid=$(lunfs df ds1 --json | jq -r .uuid)
for name in ds1 "$uuid" "$lun"; do
	for c in hosts df info; do
		lunfs $c "$name" >/dev/null || fail "lunfs $c $name"
	done
	lunfs ls "$name:/" >/dev/null || fail "lunfs ls $name:/"
	lunfs lock show "$name:/" >/dev/null || fail "lunfs lock show $name:/"
	lunfs detach "$name" || fail "detach $name"
	lunfs df "$name" 2>/dev/null && fail "$name is still attached"
	lunfs attach "$lun" >/dev/null || fail "attach again"
done
(cd "$work" && lunfs df "./$(basename "$lun")" >/dev/null) || fail "a relative path"

story "an attached one is mounted by each of its names, and no other is"
for name in ds1 "$uuid" "$lun"; do
	"$bin/mount.lunfs" "$name" "$(mnt alpha)" -o "run-dir=$work/run-alpha" || fail "mount $name"
	mounts+=("$(mnt alpha)")
	echo "$name" >"$(mnt alpha)/file" || fail "write"
	lunfs detach ds1 2>"$work/out" && fail "a mounted datastore was detached"
	grep -q "$(mnt alpha)" "$work/out" || fail "where it is mounted is not said"
	umount "$(mnt alpha)"
done
"$bin/mount.lunfs" nosuch "$(mnt alpha)" -o "run-dir=$work/run-alpha" 2>"$work/out" &&
	fail "mounted what there is not"
grep -q "nosuch: no datastore of that label" "$work/out" || fail "$(cat "$work/out")"

story "an ambiguous label is refused by mount too, with the UUIDs"
"$bin/mkfs.lunfs" -q -L ds1 "$work/second.img" --size 64M || fail "mkfs"
lunfs attach "$work/second.img" >/dev/null || fail "attach the second"
"$bin/mount.lunfs" ds1 "$(mnt alpha)" -o "run-dir=$work/run-alpha" 2>"$work/out" &&
	fail "one of two was mounted"
grep -q "$uuid" "$work/out" || fail "$(cat "$work/out")"
host_stop alpha || fail "lunfsd ended with $?"
check_volume
finish
