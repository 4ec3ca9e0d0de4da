#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A rescue mount reads what nobody else may read now, takes no lock and changes nothing.
. "$(dirname "$0")/lib.sh"
need_fuse rescue

make_volume 256M
host_start alpha
host_start beta
host_mount alpha
a=$(mnt alpha)
b=$(mnt beta)

story "beside a host that writes: its open file is read, nothing can be changed"
echo "at home" >"$a/file"
sync -f "$a/file"
exec 3>>"$a/file"
host_mount beta rescue
wait_for 60 grep -qs "at home" "$b/file" || fail "a rescue mount must read what is open elsewhere"
touch "$b/new" 2>"$work/out" && fail "a rescue mount was written to"
grep -qi "read-only" "$work/out" || fail "$(cat "$work/out")"
"$bin/lunfs" --run-dir "$work/run-beta" status | grep -qi rescue || fail "status"
"$bin/lunfs" --run-dir "$work/run-beta" hosts ds1 2>"$work/out" && fail "hosts of a rescue mount"
grep -q "attach it for that, with -o ro" "$work/out" || fail "no way out: $(cat "$work/out")"
[ "$("$bin/lunfs" --run-dir "$work/run-alpha" hosts ds1 --json | jq '.hosts | length')" = 1 ] ||
	fail "a rescue mount took a slot"
echo more >&3 || fail "the writer was disturbed"
exec 3>&-
host_umount beta
wait_for 60 sh -c "'$bin/lunfs' --run-dir '$work/run-beta' status | grep -q 'no datastore'" ||
	fail "the rescue is still attached"

story "a rescue beside what is attached can be detached by the same name"
lunfs alpha attach "$lun" -o rescue >"$work/out" || fail "attach: $(cat "$work/out")"
[ "$(lunfs alpha status --json | jq '.datastores | length')" = 2 ] || fail "it is not there"
lunfs alpha detach ds1 >"$work/out" 2>&1 || fail "detach: $(cat "$work/out")"
[ "$(lunfs alpha status --json | jq -r '.datastores[].mode')" = read-write ] ||
	fail "the wrong one was detached"
refused 3 "umount that first" alpha detach ds1

story "of a crashed host's volume: what is at home is read, and not a byte is written"
sync -f "$a"
sleep 2
host_kill alpha
umount -l "$a"
before=$(sha256sum "$lun")
host_mount beta rescue
[ "$(head -n 1 "$b/file")" = "at home" ] || fail "contents"
ls -lR "$b" >/dev/null || fail "ls"
sleep 7		# longer than it takes to suspect the dead host
host_umount beta
[ "$before" = "$(sha256sum "$lun")" ] || fail "a rescue mount changed the volume"

story "afterwards it is mounted as usual, and is clean"
host_mount beta
[ "$(tail -n 1 "$b/file")" = more ] || fail "what was synced is gone: $(cat "$b/file")"
host_umount beta
host_stop beta || fail "beta ended with $?"
check_volume
finish
