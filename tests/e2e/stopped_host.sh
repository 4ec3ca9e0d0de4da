#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Freezing is not death, unless somebody contends: SIGSTOP of a host beyond its lease.
. "$(dirname "$0")/lib.sh"
need_fuse stopped_host

make_volume 4G
host_start alpha
host_start beta
host_mount alpha
host_mount beta
a=$(mnt alpha)
b=$(mnt beta)

stop_both() {	# stop_both NAME SIGNAL: parent and worker, as a frozen machine would
	kill "-$2" "$(worker_of "$1")" "${pid_of[$1]}"
}

story "a host stopped past its lease with nobody contending goes on by itself"
exec 3>"$a/own"
echo before >&3
worker=$(worker_of alpha)
host_umount beta
host_stop beta || fail "beta ended with $?"
stop_both alpha STOP
sleep 8
stop_both alpha CONT
timeout 60 sh -c 'echo after >&3' || fail "the write after the stop failed"
timeout 60 sync -f "$a/own" || fail "sync after the stop"
exec 3>&-
[ "$(cat "$a/own")" = "$(printf 'before\nafter')" ] || fail "contents"
[ "$worker" = "$(worker_of alpha)" ] || fail "the worker was replaced"

story "a host stopped while another contends is dead, and nothing of it lands"
host_start beta
host_mount beta
exec 3<>"$a/disk"
head -c 65536 /dev/zero | tr '\0' A >&3
sync -f "$a/disk"
stop_both alpha STOP
# Started by a stopped host: must never reach the LUN.
(head -c 65536 /dev/zero | tr '\0' Z | timeout 30 dd of="$a/disk" bs=64k conv=notrunc,fsync 2>/dev/null) &
late=$!
clock_start beta
wait_for 60 sh -c "printf B 2>/dev/null 1<>'$b/disk'" || fail "beta never got the file"
took=$(clock_ms)
note "takeover took $took ms"
[ "$took" -le 8000 ] || fail "takeover took $took ms"
kill -CONT "${pid_of[alpha]}" 2>/dev/null
wait "$late" 2>/dev/null
exec 3>&-
wait_for 60 sh -c "! kill -0 ${pid_of[alpha]} 2>/dev/null" || fail "alpha's lunfsd still lives"
wait "${pid_of[alpha]}" 2>/dev/null
sleep 1
[ "$(tr -d A <"$b/disk")" = B ] || fail "something of the dead host landed"
umount -l "$a" || fail "the dead host's mount cannot be unmounted"

story "a host whose privileged half is stopped counts as frozen"
host_start alpha
host_mount alpha
exec 3>"$a/half"
kill -STOP "${pid_of[alpha]}"
wait_for 60 sh -c "echo x 2>/dev/null 1<>'$b/half'" || fail "beta never got the file"
kill -CONT "${pid_of[alpha]}" 2>/dev/null
wait_for 60 sh -c "! kill -0 ${pid_of[alpha]} 2>/dev/null" || fail "alpha's lunfsd still lives"
wait "${pid_of[alpha]}" 2>/dev/null
exec 3>&-
umount -l "$a"

host_umount beta
host_stop beta || fail "beta ended with $?"
check_volume
finish
