#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A full volume: ENOSPC with nothing lost, deleting works, and all space comes back.
. "$(dirname "$0")/lib.sh"
need_fuse full_volume

make_volume 128M
host_start alpha
host_mount alpha
a=$(mnt alpha)

free_blocks() { stat -f -c %f "$a"; }

story "writing ends with ENOSPC and what was there stays"
echo "precious" >"$a/keep"
sync -f "$a/keep"
head -c 1048576 /dev/urandom >"$work/sum-me"
cp "$work/sum-me" "$a/data"
before=$(free_blocks)
dd if=/dev/zero of="$a/big" bs=256k 2>"$work/dd.err" && fail "an endless write succeeded"
grep -qi "no space" "$work/dd.err" || fail "$(cat "$work/dd.err")"
i=0
while [ $i -lt 5000 ] && head -c 8192 /dev/zero 2>/dev/null >"$a/small$i"; do i=$((i + 1)); done
[ $i -lt 5000 ] || fail "small files never filled the volume"
[ "$(cat "$a/keep")" = precious ] || fail "keep was damaged"
cmp "$work/sum-me" "$a/data" || fail "data was damaged"

story "deleting works on a full volume and gives the space back"
rm -f "$a"/small* "$a/big" || fail "rm on a full volume"
wait_for 60 sh -c "[ \$(stat -f -c %f '$a') -ge $((before - 600)) ]" ||
	fail "free: $(free_blocks) of $before blocks"
cp "$work/sum-me" "$a/again" || fail "writing after deleting"
cmp "$work/sum-me" "$a/again" || fail "contents after deleting"

story "fill and empty, three times over, leaks nothing"
rm "$a/again"
sync -f "$a/keep"
sleep 2
before=$(free_blocks)
for round in 1 2 3; do
	dd if=/dev/zero of="$a/big" bs=1M 2>/dev/null
	rm "$a/big"
done
wait_for 60 sh -c "[ \$(stat -f -c %f '$a') -eq $before ]" || fail "free: $(free_blocks), was $before"

host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"
check_volume
finish
