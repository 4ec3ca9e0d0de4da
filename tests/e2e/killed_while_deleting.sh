#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names change under two hosts, one is killed in the midst of it, and nothing is left behind.
. "$(dirname "$0")/lib.sh"
need_fuse killed_while_deleting

make_volume 2G
host_start alpha
host_start beta
host_mount alpha
host_mount beta
a=$(mnt alpha)
b=$(mnt beta)

used_blocks() { stat -f -c '%b %f' "$1" | { read -r all free; echo $((all - free)); }; }

# Space used is at most $2 blocks, seen on mount $1.
used_at_most() { [ "$(used_blocks "$1")" -le "$2" ]; }

restart_alpha() {
	umount -l "$a"
	host_start alpha
	host_mount alpha
}

story "names change in shared directories from two hosts, one is killed: the volume is clean"
mkdir "$a/storm"
python3 "$top/tests/e2e/storm.py" "$a/storm" 1 6 >"$work/storm-alpha" 2>&1 &
storm_alpha=$!
python3 "$top/tests/e2e/storm.py" "$b/storm" 2 9 >"$work/storm-beta" 2>&1 &
storm_beta=$!
sleep "2.$((RANDOM % 100))"
host_kill alpha
wait $storm_alpha
wait $storm_beta || fail "beta's operations went wrong: $(cat "$work/storm-beta")"
note "beta: $(cat "$work/storm-beta")"
restart_alpha
lunfs alpha check ds1 >"$work/check" 2>&1 || fail "$(cat "$work/check")"
timeout 60 rm -rf "$a/storm" || fail "removing what is left"
wait_for 60 test ! -e "$b/storm" || fail "beta still sees it"

story "files that a killed host had open and unlinked give their space back"
sync -f "$a"
sleep 1
before=$(used_blocks "$b")
exec 3>"$a/unlinked" 4>"$a/unlinked2"
head -c 50M /dev/zero >&3
head -c 50M /dev/zero >&4
sync -f "$a/unlinked"
rm "$a/unlinked" "$a/unlinked2"
sync -f "$a"
sleep 1
used_at_most "$b" $((before + 20000)) && fail "an open file lost its space"
host_kill alpha
exec 3>&- 4>&-
wait_for 60 used_at_most "$b" $((before + 200)) ||
	fail "beta did not reclaim: $(used_blocks "$b") blocks, were $before"

story "a large file cut or deleted by a host that is killed half-way is gone all the same"
restart_alpha
for i in 1 2 3; do
	# Every other block only, so that its map is long.
	python3 - "$a/holes$i" <<'PY' || fail "writing a file with holes"
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
for i in range(1500):
    os.pwrite(fd, b"x" * 4096, i << 20)
os.fsync(fd)
PY
done
(truncate -s 5000 "$a/holes1"; rm "$a/holes2" "$a/holes3") 2>/dev/null &
job=$!
sleep 0.0$((RANDOM % 9 + 1))
host_kill alpha
wait $job
wait_for 60 sh -c "rm -f '$b'/holes* 2>/dev/null" || fail "beta cannot delete what is left"
wait_for 60 used_at_most "$b" $((before + 200)) ||
	fail "space is missing: $(used_blocks "$b") blocks, were $before"

umount -l "$a"
host_umount beta
host_stop beta || fail "beta ended with $?"
check_volume
finish
