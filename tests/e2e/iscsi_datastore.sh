#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A datastore on an iSCSI LUN: two hosts, a crash, a frozen host, a target that dies, a lost portal.
. "$(dirname "$0")/lib.sh"
need_fuse iscsi_datastore

load=$top/tests/e2e/verify_load.py

story "every tool takes the URL of a LUN"
target_start
make_lun_volume
"$bin/mkfs.lunfs" -q "$lun" 2>"$work/again" && fail "mkfs.lunfs overwrote a volume unasked"
grep -q 'holds LunFS volume "ds1"' "$work/again" || fail "mkfs.lunfs said: $(cat "$work/again")"
check_volume
"$bin/lunfs" debug "$lun" super >/dev/null || fail "lunfs debug"
host_start alpha
ctl alpha attach "$lun" || fail "lunfs attach"
ctl alpha info "$lun" || fail "lunfs info by URL"
ctl alpha detach "${lun/?timeout*/}?timeout=20" || fail "lunfs detach by another URL of the same LUN"

story "one host by two daemons: refused, whatever way leads to the LUN"
id=$("$bin/lunfs" --run-dir "$work/run-alpha" status --json | jq -r .host_id)
ctl alpha attach "$lun" || fail "lunfs attach"
"$bin/lunfsd" --run-dir "$work/run-twin" --host-name twin --host-id "$id" >"$work/twin.log" 2>&1 &
pid_of[twin]=$!
wait_for 10 ctl twin status || fail "the twin does not answer"
ctl twin attach "$lun" && fail "the twin has it, too"
grep -q "has it attached as host $id already; stop that one, or give this daemon a --host-id" \
	"$work/twin.ctl.log" || fail "the twin was told: $(cat "$work/twin.ctl.log")"
ctl alpha detach ds1 || fail "lunfs detach"
# What a daemon holds that came by a disk of the kernel's, say.
ls "$LUNFS_LOCK_DIR/host-$id-lun-"* >/dev/null || fail "no lock by the LUN's own name: $(ls "$LUNFS_LOCK_DIR")"
exec 4<>"$(echo "$LUNFS_LOCK_DIR/host-$id-lun-"*)"
flock -n 4 || fail "alpha still holds the LUN"
ctl twin attach "$lun" && fail "the twin got past the LUN's lock"
[ "$(grep -c 'has it attached as host' "$work/twin.ctl.log")" = 2 ] || fail "the twin was told: $(cat "$work/twin.ctl.log")"
exec 4>&-
ctl twin attach "$lun" || fail "the LUN is free, and the twin was refused"
host_stop twin || fail "the twin ended with $?"

story "a secret in a URL gets nowhere, and no process shows one"
bad=${lun/127.0.0.1/bob%geheim@127.0.0.1}
for cmd in "mkfs.lunfs -q $bad" "fsck.lunfs -n $bad" "lunfs --run-dir $work/run-alpha attach $bad" \
	   "mount.lunfs $bad $(mnt alpha) -o run-dir=$work/run-alpha"; do
	# shellcheck disable=SC2086
	"$bin"/$cmd >"$work/secret" 2>&1 && fail "$cmd worked"
	grep -q chap-file "$work/secret" || fail "$cmd does not say how: $(cat "$work/secret")"
	grep -q geheim "$work/secret" && fail "$cmd repeats the secret"
done

story "two hosts share a LUN, each fenced by its reservation key"
host_start beta
host_mount alpha
host_mount beta
a=$(mnt alpha)
b=$(mnt beta)
echo hello >"$a/file"
[ "$(cat "$b/file")" = hello ] || fail "beta does not see alpha's file"
exec 3>"$a/open"
echo x >&3
sh -c "echo y >'$b/open'" 2>/dev/null && fail "beta opened what alpha has open"
"$bin/lunfs" --run-dir "$work/run-beta" status >"$work/status" || fail "status"
grep -q 'fencing   A (reservation)' "$work/status" || fail "rung: $(cat "$work/status")"
grep -q 'keys      2, one for each live host' "$work/status" || fail "keys: $(cat "$work/status")"

story "a killed host is taken over from within 8 s, its key gone"
key=$("$bin/lunfs" --run-dir "$work/run-alpha" status --json | jq -r '.datastores[0].reservation.own_key')
host_kill alpha
start=$(date +%s%N)
wait_for 12 sh -c "echo z 2>/dev/null >'$b/open'" || fail "beta never got the file"
took=$((($(date +%s%N) - start) / 1000000))
note "takeover took $took ms"
[ "$took" -le 8000 ] || fail "takeover took $took ms"
exec 3>&-
wait_for 10 sh -c "'$bin/lunfs' --run-dir '$work/run-beta' status | grep -q 'keys      1, one for'" ||
	fail "alpha's key is still there"
"$bin/lunfs" --run-dir "$work/run-beta" status --json | grep -q "$key" && fail "key $key is still there"
umount -l "$a"

story "the killed host comes back at once, by preempting itself"
start=$(date +%s%N)
host_start alpha
host_mount alpha
took=$((($(date +%s%N) - start) / 1000000))
note "restart and mount took $took ms"
host_kill alpha
umount -l "$a"
host_start alpha
start=$(date +%s%N)
host_mount alpha
took=$((($(date +%s%N) - start) / 1000000))
note "its own slot took $took ms"
[ "$took" -le 3000 ] || fail "its own slot took $took ms"

story "a host that is stopped and goes on after it was taken over from writes nothing"
exec 3<>"$a/disk"
head -c 65536 /dev/zero | tr '\0' A >&3
sync -f "$a/disk"
alpha_iqn=iqn.2026-11.org.lunfs:$("$bin/lunfs" --run-dir "$work/run-alpha" status --json | jq -r .host_id)
kill -STOP "$(worker_of alpha)" "${pid_of[alpha]}"
(head -c 65536 /dev/zero | tr '\0' Z |
	timeout 30 dd of="$a/disk" bs=64k conv=notrunc,fsync 2>/dev/null) &
late=$!
wait_for 12 sh -c "printf B 2>/dev/null 1<>'$b/disk'" || fail "beta never got the file"
# As far as the target is concerned everything of that host is refused from here on.
refused=$(grep -c "$alpha_iqn: .* is refused" "$work/target.log")
kill -CONT "${pid_of[alpha]}" "$(worker_of alpha)"
wait "$late" && fail "a write of the dead host succeeded"
was_refused() { [ "$(grep -c "$alpha_iqn: .* is refused" "$work/target.log")" -gt "$refused" ]; }
wait_for 10 was_refused || fail "the target refused nothing of the dead host"
wait_for 10 grep -qE 'slot [0-9]+ is lost' "$work/alpha.log" || fail "alpha does not know that it is lost"
exec 3>&-
[ "$(tr -d A <"$b/disk")" = B ] || fail "something of the dead host landed"
umount -l "$a"
wait_for 60 is_detached alpha || fail "what is mounted of a lost host does not end: $(tail -n 1 "$work/alpha.ctl.log")"
host_mount alpha
[ "$(tr -d A <"$a/disk")" = B ] || fail "alpha reads something else after it has rejoined"

story "the target is killed and started anew under load: everybody goes on, nothing is lost"
mkdir "$a/from-alpha" "$b/from-beta"
for h in alpha beta; do
	"$load" write "$(mnt $h)/from-$h" "$work/ledger-$h" $((RANDOM)) 12 >"$work/load-$h.out" 2>&1 &
	eval "load_$h=$!"
done
for round in 1 2 3; do
	sleep 2
	target_kill
	sleep "0.$((RANDOM % 10))"
	target_start
	# Through each of these power cuts, as it were, the reservation is in force from the first moment.
	[ "$("$bin/lunfs-target" --status --json --state-dir "$target_state" | jq -r \
		'.targets[0].luns[0] | .reservation + " " + (.aptpl | tostring)')" = \
		"write exclusive, all registrants true" ] || fail "the reservation is gone after a restart"
	[ "$("$bin/lunfs-target" --status --json --state-dir "$target_state" | jq -r \
		'[.targets[0].luns[0].registrations[].key] | unique | length')" = 2 ] ||
		fail "registrations: $("$bin/lunfs-target" --status --state-dir "$target_state")"
done
keys_are_right() {
	"$bin/lunfs" --run-dir "$work/run-beta" status | grep -q 'keys      2, one for each live host'
}
wait_for 10 keys_are_right || fail "keys: $("$bin/lunfs" --run-dir "$work/run-beta" status)"
for h in alpha beta; do
	eval "wait \$load_$h" || fail "$h's load was disturbed: $(cat "$work/load-$h.out")"
	"$load" check "$(mnt $h)/from-$h" "$work/ledger-$h" || fail "$h's data"
done
"$load" check "$b/from-alpha" "$work/ledger-alpha" || fail "alpha's data, seen by beta"

host_umount alpha
host_umount beta
host_stop alpha || fail "alpha ended with $?"

story "one of two portals is cut under load: nobody notices"
host_stop beta || fail "beta ended with $?"
check_volume
"$top/tests/e2e/iscsi_proxy.py" "$target_port" >"$work/proxy.port" &
proxy=$!
wait_for 5 test -s "$work/proxy.port"
lun="$lun?portal=127.0.0.1:$(cat "$work/proxy.port")"
host_start beta
host_mount beta
# In files of its own: a slow machine may not write each block of the older ones again.
mkdir "$b/by-two"
"$load" write "$b/by-two" "$work/ledger-two" 7 8 >"$work/load-two.out" 2>&1 &
writer=$!
sleep 2
kill "$proxy"
wait "$proxy" 2>/dev/null
wait "$writer" || fail "the load was disturbed: $(cat "$work/load-two.out")"
grep -q "path 127.0.0.1:$(cat "$work/proxy.port") is lost" "$work/beta.log" || fail "no path was lost"
"$load" check "$b/by-two" "$work/ledger-two" || fail "data"

host_umount beta
host_stop beta || fail "beta ended with $?"
lun=${lun%%\?*}
check_volume

story "mkfs.lunfs removes what reservations a crash left behind"
host_start alpha
ctl alpha attach "$lun" || fail "attach"
host_kill alpha
"$bin/mkfs.lunfs" -q -f -L ds2 "$lun" || fail "mkfs.lunfs under a dead host's reservation"
check_volume
finish
