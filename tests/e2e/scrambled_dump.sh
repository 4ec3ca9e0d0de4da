#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A dump for a bug report with other names: none of the true ones is in it, everything else is.
. "$(dirname "$0")/lib.sh"
need_fuse scrambled_dump

make_volume 1G
host_start alpha
host_mount alpha
a=$(mnt alpha)
mkdir -p "$a/secret-dir/secret-deeper" "$a/many"
seq -f "$a/many/secret-file-%g" 5000 | xargs touch
seq -f "$a/many/gone-secret-%g" 300 | xargs touch
rm "$a"/many/gone-secret-*
for i in 1 2 3 vm disk; do echo "secret contents" >"$a/secret-dir/$i"; done
ln "$a/secret-dir/1" "$a/secret-dir/secret-deeper/secret-link"
ln -s secret-target-of-a-link "$a/secret-dir/secret-soft"
mv "$a/many/secret-file-77" "$a/secret-dir/secret-moved"
ctl alpha disk create ds1:/secret-disk.img --size 1G || fail "no disk"
ctl alpha disk snapshot create ds1:/secret-disk.img secret-snapshot || fail "no snapshot"
ctl alpha disk clone --linked ds1:/secret-disk.img@secret-snapshot ds1:/secret-clone.img || fail "no clone"
lengths() { (cd "$1" && find . -mindepth 1 -printf '%d %y %f\n' | awk '{ print $1, $2, length($3) }' | sort); }

story "while a host uses the volume names are not scrambled, and nothing is left behind"
"$bin/lunfs" debug "$lun" dump --scramble-names "$work/dump" >"$work/dump.log" 2>&1 && fail "it was"
grep -q "attach and detach it once" "$work/dump.log" || fail "no way out: $(cat "$work/dump.log")"
[ ! -e "$work/dump" ] || fail "half a dump is left"
lengths "$a" >"$work/before"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"

story "the plain dump has the names, so the test can tell"
"$bin/lunfs" debug "$lun" dump "$work/plain" >/dev/null || fail "no dump"
zcat "$work/plain" | grep -aq secret-file-4711 || fail "no name is in it"

story "the scrambled one has none of them, deleted ones and targets of links included"
"$bin/lunfs" debug "$lun" dump --scramble-names "$work/dump" >/dev/null || fail "no dump"
zcat "$work/dump" | grep -a -o '[a-z]*-*secret[-a-z0-9]*' >"$work/leaks.log" && fail "names are in it"
"$bin/lunfs" debug restore "$work/dump" "$work/restored.img" >/dev/null || fail "not restored"

story "the checker finds the restored volume clean, and as many files as before"
counts() { "$bin/fsck.lunfs" -n --json "$1" 2>>"$work/fsck.log" | jq -c '[.directories, .files, .others, .errors, .notes]'; }
"$bin/fsck.lunfs" -n "$work/restored.img" >"$work/fsck.log" 2>&1 || fail "it is not clean"
[ "$(counts "$lun")" = "$(counts "$work/restored.img")" ] ||
	fail "$(counts "$lun") became $(counts "$work/restored.img")"

story "every name has the length that it had, where it was"
lun=$work/restored.img
host_start alpha
host_mount alpha ro,rescue
lengths "$a" >"$work/after"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"
diff "$work/before" "$work/after" >"$work/diff.log" || fail "lengths differ"
finish
