#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A LUN without reservations (rung B): who is frozen beyond its lease is ended by its guard.
#
#	LONG=1	one takeover with the time-outs and the lease that are the defaults, measured; nothing else
. "$(dirname "$0")/lib.sh"
need_fuse iscsi_frozen_host

status() { "$bin/lunfs" --run-dir "$work/run-$1" status --json; }
guard_of() { pgrep -P "${pid_of[$1]}" lunfsd-guard; }
is_gone() { ! kill -0 "$1" 2>/dev/null; }

if [ -n "${LONG:-}" ]; then
	target_start
	lun="$lun?reservations=no"
	make_lun_volume
	story "with the default time-outs a frozen host is taken over from within a minute"
	for h in alpha beta; do
		host_start "$h" --watchdog guard
		host_mount "$h"
	done
	exec 3<>"$(mnt alpha)/disk"
	echo A >&3
	sync -f "$(mnt alpha)/disk"
	kill -STOP "$(worker_of alpha)" "${pid_of[alpha]}"
	start=$(date +%s%N)
	wait_for 90 sh -c "printf B 2>/dev/null 1<>'$(mnt beta)/disk'" || fail "beta never got the file"
	took=$((($(date +%s%N) - start) / 1000000))
	note "takeover took $took ms"
	[ "$took" -le 60000 ] || fail "takeover took $took ms"
	exec 3>&-
	host_kill alpha
	umount -l "$(mnt alpha)"
	host_umount beta
	host_stop beta || fail "beta ended with $?"
	lun=${lun%%\?*}
	check_volume
	finish
	exit
fi

target_start
lun="$lun?reservations=no&timeout=2&path-timeout=2"
make_lun_volume --beat-ms 400 --lease-ms 2000

story "without reservations and without a watchdog nobody attaches unasked"
host_start alpha
ctl alpha attach "$lun" && fail "it did"
grep -q 'no watchdog runs ("watchdog" in lunfsd.conf)' "$work/alpha.ctl.log" ||
	fail "said: $(cat "$work/alpha.ctl.log")"
host_stop alpha || fail "alpha ended with $?"
"$bin/lunfsd" --run-dir "$work/run-x" --watchdog /dev/null >"$work/x" 2>&1 && fail "/dev/null is no watchdog"
grep -q '/dev/null: not a watchdog device' "$work/x" || fail "said: $(cat "$work/x")"

story "with a guard it is rung B, and status says so"
for h in alpha beta; do
	host_start "$h" --watchdog guard
	host_mount "$h"
done
a=$(mnt alpha)
b=$(mnt beta)
"$bin/lunfs" --run-dir "$work/run-alpha" status | grep -q 'fencing   B (bound), watchdog: guard' ||
	fail "$("$bin/lunfs" --run-dir "$work/run-alpha" status)"

story "a path that is gone beyond the lease stalls, and ends nobody"
worker=$(worker_of alpha)
pids="$target_pid $(pgrep -P "$target_pid")"
# shellcheck disable=SC2086
kill -STOP $pids
(head -c 1M /dev/zero | tr '\0' S | timeout 60 dd of="$a/stall" bs=64k conv=fsync 2>"$work/dd") &
late=$!
sleep 5
# shellcheck disable=SC2086
kill -CONT $pids
wait "$late" || fail "the write failed: $(cat "$work/dd")"
[ "$worker" = "$(worker_of alpha)" ] || fail "alpha's worker was ended"
[ "$(tr -d S <"$a/stall" | wc -c)" = 0 ] || fail "contents"
grep -q 'frozen beyond' "$work"/*.log && fail "the guard: $(grep 'frozen beyond' "$work"/*.log)"

story "a frozen worker is ended, and nothing of it lands after the takeover"
exec 3<>"$a/disk"
head -c 65536 /dev/zero | tr '\0' A >&3
sync -f "$a/disk"
worker=$(worker_of alpha)
guard=$(guard_of alpha)
kill -STOP "$worker" "${pid_of[alpha]}"
start=$(date +%s%N)
(head -c 65536 /dev/zero | tr '\0' Z |
	timeout 30 dd of="$a/disk" bs=64k conv=notrunc,fsync 2>/dev/null) &
late=$!
# Suspicion comes 3 s after its last beat at the earliest.
worker_ended() { [ "$(ps -o stat= -p "$worker" | cut -c1)" = Z ] || is_gone "$worker"; }
wait_for 60 worker_ended || fail "the frozen worker lives"
note "ended after $((($(date +%s%N) - start) / 1000000)) ms"
grep -q 'the worker was frozen beyond its lease: killed' "$work/alpha.log" || fail "nobody said so"
wait_for 60 sh -c "printf B 2>/dev/null 1<>'$b/disk'" || fail "beta never got the file"
took=$((($(date +%s%N) - start) / 1000000))
note "takeover took $took ms"
# Lease, margin, the longest life of a command, and what a watchdog device may need.
[ "$took" -ge 7000 ] || fail "taken over before the bound: $took ms"
wait "$late" && fail "a write of the frozen host succeeded"
exec 3>&-
kill -CONT "${pid_of[alpha]}"
wait "${pid_of[alpha]}" && fail "alpha's lunfsd ended with 0"
wait_for 60 is_gone "$guard" || fail "its guard lives"
[ "$(tr -d A <"$b/disk")" = B ] || fail "something of the frozen host landed"
umount -l "$a"

story "who loses its guard is ended with it"
host_start alpha --watchdog guard
host_mount alpha
kill -KILL "$(guard_of alpha)"
wait "${pid_of[alpha]}" && fail "it went on without a guard"
grep -q 'the guard was ended by somebody' "$work/alpha.log" || fail "nobody said so"
umount -l "$a"

story "who has its guard stopped counts as frozen"
# While nobody is there who could want something of its: it would be taken over from.
host_umount beta
host_stop beta || fail "beta ended with $?"
host_start alpha --watchdog guard
host_mount alpha
kill -STOP "$(guard_of alpha)"
lease() { [ "$(status alpha | jq ".datastores[0].lease_valid")" = "$1" ]; }
wait_for 60 lease false || fail "it goes on beating"
kill -CONT "$(guard_of alpha)"
wait_for 60 lease true || fail "it never beats again"

host_umount alpha
host_stop alpha || fail "alpha ended with $?"
pgrep -f "lunfsd --run-dir $work" >/dev/null && fail "something is left over"
lun=${lun/reservations=no/reservations=yes}
check_volume
finish
