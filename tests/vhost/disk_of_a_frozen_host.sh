#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A host freezes while a guest of it writes to its disk, on a LUN with reservations.  Another host takes
# the disk; what the first one had in hand does not land when it wakes up, and its guest is told.
. "$(dirname "$0")/../e2e/lib.sh"
[ "$(id -u)" -eq 0 ] || skip_all disk_of_a_frozen_host "needs root"

disk=ds1:/root.disk
shown() { lunfs "$1" --json disk list | jq -r ".disks[0].$2"; }
bench() { "$bin/lunfs-vhost-bench" --ramp 0 "$@"; }

story "a guest of alpha writes"
target_start
make_lun_volume --beat-ms 400 --lease-ms 2000
for h in alpha beta; do
	host_start $h
	ctl $h attach "$lun" || fail "attach on $h"
done
lunfs alpha disk create $disk --size 32M --thick || fail "create"
socket=$(lunfs alpha disk attach $disk) || fail "disk attach"
theirs=$(lunfs beta disk attach $disk) || fail "beta: disk attach"
bench --rw randwrite --iodepth 64 --runtime 300 "$socket" >"$work/guest.out" 2>&1 &
guest=$!
wait_for 60 eval '[ "$(shown alpha stats.writes)" -gt 200 ]' || fail "no load"

story "it freezes with its writes in hand, and beta has the disk"
worker=$(worker_of alpha)
kill -STOP "$worker" "${pid_of[alpha]}"
wait_for 60 bench --rw write --bs 64K --once --ledger "$work/ledger" "$theirs" >"$work/beta.out" 2>&1 ||
	fail "beta never got it: $(cat "$work/beta.out")"
kill -0 $guest || fail "the guest of a frozen host was told something: $(cat "$work/guest.out")"

story "awake again it has lost the disk: nothing of it lands, and its guest sees errors"
kill -CONT "${pid_of[alpha]}" "$worker"
wait_for 60 eval '[ "$(shown alpha lost)" = true ]' || fail "alpha does not know: $(lunfs alpha disk list)"
wait_for 60 eval '[ "$(shown alpha stats.errors)" -gt 0 ]' || fail "the guest sees no error"
kill $guest 2>/dev/null
wait $guest && fail "the guest ended well: $(cat "$work/guest.out")"
bench --check --bs 64K --ledger "$work/ledger" "$theirs" >"$work/beta.out" 2>&1 || fail "$(cat "$work/beta.out")"

host_stop alpha
host_stop beta || fail "beta does not end well"
check_volume
finish
