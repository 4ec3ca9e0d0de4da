#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One LUN, two hosts: this machine has it by iscsi://, a guest as a SCSI disk of its kernel's.  They share
# it, exclude each other, and fence each other: whichever dies or is suspended.
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/guest/lib.sh"
. "$top/tests/guest/lib_scsi.sh"

scsi_need "scsi datastore"
need_fuse "scsi datastore"

cat >"$work/story" <<'IN'
lunfs="lunfs --run-dir /run/lunfs"
lunfsd --run-dir /run/lunfs --host-name beta &
wait_for 60 $lunfs status
wait_for 60 mount.lunfs /dev/sda /mnt -o run-dir=/run/lunfs || fail "mounts its disk"
$lunfs status
check "reads what the other host wrote" grep -q "from alpha" /mnt/shared
check "fences by reservations" sh -c "$lunfs status --json | grep -q 'A (reservation)'"
agent=$(grep -l '^lunfsd-scsi' /proc/[0-9]*/comm | cut -d/ -f3)
check "the agent has two capabilities and a filter" sh -c "
	grep -q '^CapEff:.*0000000000220000$' /proc/$agent/status && grep -q '^Seccomp:.*2$' /proc/$agent/status"
worker=$($lunfs status | sed -n 's/.*worker \([0-9]*\).*/\1/p')
check "the worker has none" grep -q '^CapEff:.*0000000000000000$' /proc/$worker/status
lunfsd --run-dir /run/second --host-name gamma >/tmp/second 2>&1 &
second=$!
wait_for 60 lunfs --run-dir /run/second status
check "a second host of the same disk and machine is refused" sh -c '
	! lunfs --run-dir /run/second attach /dev/sda 2>/tmp/refused && grep -q "one initiator" /tmp/refused'
kill $second
check "so is the same LUN by its other path" sh -c '
	! lunfs --run-dir /run/lunfs attach /dev/sdb 2>/tmp/refused; cat /tmp/refused; grep -q "one initiator" /tmp/refused'
check "what the other host writes cannot be opened" sh -c '
	! echo x 2>/tmp/busy >>/mnt/held && grep -qi busy /tmp/busy'
echo "from beta" >/mnt/theirs
echo GUEST-SHARES
check "what a dead host had open is taken over" wait_for 60 sh -c 'echo "beta has it" >>/mnt/held'
exec 8>>/mnt/held
echo GUEST-TOOK
# The host waits for us to be suspended; when this goes on, it is long after.
before=$(cut -d. -f1 /proc/uptime)
while [ $(($(cut -d. -f1 /proc/uptime) - before)) -lt 5 ]; do usleep 200000; done
while echo "beta, late" >&8; do
	usleep 100000
	[ $(($(cut -d. -f1 /proc/uptime) - before)) -lt 90 ] || break
done 2>/tmp/late
cat /tmp/late
check "a host that was suspended meanwhile writes nothing more" test -s /tmp/late
echo "GUEST-DONE 0"
echo b >/proc/sysrq-trigger
IN
tools=
for tool in lunfsd lunfs mount.lunfs; do
	tools="$tools -f $bin/$tool:/usr/sbin/$tool"
done

story "a volume on a LUN of lunfs-target, by iscsi://"
lunfs_target_start
make_lun_volume
host_start alpha
host_mount alpha
echo "from alpha" >"$(mnt alpha)/shared"
echo "alpha has it" >"$(mnt alpha)/held"
exec 7>>"$(mnt alpha)/held"

story "a guest shares it as a SCSI disk of its kernel's"
# shellcheck disable=SC2086
guest_start "scsi datastore: a guest" "$work/story" 280 $tools >"$work/guest.out" 2>&1
guest_says 120 GUEST-SHARES || fail "the guest does not get there"
grep -q "from beta" "$(mnt alpha)/theirs" || fail "its file is not here"

story "the guest takes a dead host over"
host_kill alpha
exec 7>&-
umount -l "$(mnt alpha)"
guest_says 90 GUEST-TOOK || fail "it does not"

story "a guest that is suspended is fenced and taken over"
host_start alpha
host_mount alpha
(echo x >>"$(mnt alpha)/held") 2>/dev/null && fail "what the guest has open can be opened"
guest_signal STOP
started=$SECONDS
wait_for 60 sh -c "echo 'alpha has it again' >>'$(mnt alpha)/held'" 2>/dev/null || fail "it is not"
note "taken over $((SECONDS - started)) s after the guest was suspended"

story "when it goes on it writes nothing"
exec 7>>"$(mnt alpha)/held"
guest_signal CONT
wait "$guest"
status=$?
grep -E '^(PASS|FAIL):' "$work/guest.out"
[ $status -eq 0 ] || { cat "$work/guest.out"; fail "the guest's claims hold"; }
[ "$(tail -n 1 "$(mnt alpha)/held")" = "alpha has it again" ] || fail "$(cat "$(mnt alpha)/held")"
exec 7>&-

story "nothing is damaged"
host_umount alpha
host_stop alpha
check_volume
finish
