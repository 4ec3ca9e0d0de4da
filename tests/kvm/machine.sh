#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A guest under lunvm, with a disk of LunFS: what it writes, how it ends, and what happens to it when
# daemon, launcher or lease are lost.
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/kvm/lib.sh"
need_kvm "kvm machine"
trap vms_leave EXIT

disk=ds1:/root.disk
make_volume 1G
host_start alpha
ctl alpha attach "$lun" || fail "alpha does not attach"
ctl alpha disk create $disk --size 64M || fail "no disk"

story "what a guest writes is there for the next one, and for the host"
expect_exit 0 "done bad=0" alpha a --disk $disk --cmdline "op=write n=4000 qd=16 seed=5"
expect_exit 0 "done bad=0" alpha a --disk $disk --cmdline "op=verify n=4000 qd=16 seed=5"
expect_exit 0 "done bad=4000" alpha a --disk $disk --cmdline "op=verify n=4000 qd=16 seed=6"
wait_for 60 sh -c "! '$bin/lunfs' --run-dir '$work/run-alpha' disk list | grep -q root.disk" ||
	fail "the disk stays attached when its machine is gone"
ctl alpha disk export $disk "$work/raw" || fail "cannot be exported"
python3 - "$work/raw" <<'PY' || fail "the host reads something else"
import struct, sys
m = (1 << 64) - 1
with open(sys.argv[1], "rb") as f:
    for block in range(4000):
        words = struct.unpack("<512Q", f.read(4096))
        for i in (0, 1, 511):
            want = (((block + 5) * 0x9e3779b97f4a7c15) & m) ^ ((i * 0xd1b54a32d192ed03) & m)
            assert words[i] == want, (block, i)
PY

story "each way to end has an exit status and a line of its own"
expect_exit 0 "the guest powered off" alpha a --cmdline op=off
expect_exit 10 "the guest reset the machine" alpha a --cmdline op=reset
expect_exit 11 "triple fault" alpha a --cmdline op=crash
expect_exit 11 "kernel panicked" alpha a --cmdline op=panic
expect_exit 2 "neither a bzImage nor an ELF" alpha a --kernel "$top/Makefile"

story "a kernel on the datastore of which only a part can be copied is not booted"
cp "$payload" "$work/kernel" && truncate -s 1M "$work/kernel"
ctl alpha disk import "$work/kernel" ds1:/kernel || fail "cannot be imported"
expect_exit 0 "the guest powered off" alpha a --kernel ds1:/kernel --cmdline op=off
(
	trap '' XFSZ	# a limit that is met in the middle of a write: that makes it a short one
	ulimit -f 512
	expect_exit 1 "kernel ds1:/kernel: File too large" alpha a --kernel ds1:/kernel --cmdline op=off
) || fail "it is booted"

story "a guest that resets goes on where its configuration says so, on the disk that it had"
expect_exit 0 "the guest powered off" alpha a --disk $disk --on-reset restart --cmdline "op=life n=200 qd=8 lives=3"
[ "$(grep -c "reset the machine.*; starting it again" "$work/vm-a.out")" = 2 ] &&
	[ "$(grep -c "payload: hello" "$work/vm-a.out")" = 3 ] || fail "$(cat "$work/vm-a.out")"
grep -q "life 3, blocks of the life before that are wrong: 0" "$work/vm-a.out" || fail "$(cat "$work/vm-a.out")"
expect_exit 10 "the guest reset the machine" alpha a --disk $disk --on-reset exit --cmdline "op=life n=200 qd=8 lives=9"
[ "$(grep -c "payload: hello" "$work/vm-a.out")" = 1 ] || fail "it was started again"
expect_exit 2 'neither "restart" nor "exit"' alpha a --on-reset maybe

story "stop presses the power button, and ends when the machine has"
vm_start alpha a --disk $disk --cmdline op=button
vm_says 60 a "waits for its button" || fail "it does not run"
vm alpha stop a >"$work/said" 2>&1 || fail "$(cat "$work/said")"
[ ! -s "$work/said" ] || fail "says $(cat "$work/said")"
grep -q "the button was pressed" "$work/vm-a.out" || fail "its guest does not see it"
"$bin/lunfs" --run-dir "$work/run-alpha" disk list | grep -q root.disk && fail "its disk is still attached"
wait "${runner_of[a]}" || fail "its exit status is $?"

story "a guest that does not listen is left running, and that is said"
vm_start alpha a --cmdline op=count
vm_says 60 a alive || fail "it does not run"
vm alpha stop a --timeout 1 >"$work/said" 2>&1 && fail "says that it has ended"
grep -q 'a: still runs 1 s after.*"lunvm kill a"' "$work/said" || fail "$(cat "$work/said")"
vm alpha stop a --timeout 0 || fail "does not press"
[ "$(vm alpha stop a --timeout 1 --json 2>/dev/null | jq -c '[.ok, .exit_status, .name]')" = '[false,1,"a"]' ] || fail "no JSON"
vm alpha status a --json | jq -e .ok >/dev/null || fail "it runs no more"
vm alpha stop a --timeout x >"$work/said" 2>&1
[ $? -eq 2 ] && grep -q "x: not a number of seconds" "$work/said" || fail "$(cat "$work/said")"
vm alpha kill a --timeout 3 >"$work/said" 2>&1
[ $? -eq 2 ] && grep -q 'only "stop" waits' "$work/said" || fail "$(cat "$work/said")"
vm alpha pause a || fail "cannot be paused"
vm alpha stop a >"$work/said" 2>&1 && fail "a paused one is stopped"
grep -q "resume it first" "$work/said" || fail "$(cat "$work/said")"
vm alpha kill a || fail "cannot be killed"
wait "${runner_of[a]}"
[ $? -eq 13 ] || fail "its exit status is not 13"
vm alpha stop a >"$work/said" 2>&1 && fail "what does not run is stopped"
grep -q "no machine of that name" "$work/said" || fail "$(cat "$work/said")"

story "a mistake in a configuration is told with its place"
printf 'name = a\ncpus = 0\n' >"$work/bad.conf"
vm alpha run "$work/bad.conf" >"$work/said" 2>&1
[ $? -eq 2 ] && grep -q "bad.conf:2:8: not a number between 1 and 64" "$work/said" ||
	fail "$(cat "$work/said")"

story "two processors use two queues at a time"
expect_exit 0 "done bad=0" alpha a --cpus 2 --disk $disk --cmdline "op=stress cpus=2 n=500 qd=8 rounds=2"
grep -q "second processor runs" "$work/vm-a.out" || fail "it does not"

story "a disk in use is refused, with the names of host and machine"
vm_start alpha web1 --disk $disk --cmdline "op=stress n=1000 qd=16 rounds=1000000"
vm_says 60 web1 "round 1" || fail "it does not run"
expect_exit 3 "in use on this host" alpha b --disk $disk
expect_exit 3 "runs on this host already" alpha web1 --disk $disk
host_start beta
ctl beta attach "$lun" || fail "beta does not attach"
expect_exit 3 "in use by alpha (web1)" beta b --disk $disk
expect_exit 4 "no lunfsd is running" gamma b --disk $disk
expect_exit 1 "No such file" alpha b --disk ds1:/none.disk

story "of those that start with one disk in the same moment one runs, and the others are told why they do not"
racers=()
ctl alpha disk create ds1:/raced.disk --size 1M || fail "no disk"
for i in 1 2 3 4; do
	vm_start alpha race$i --detach --memory 16M --disk ds1:/raced.disk --cmdline op=count
	racers+=("${runner_of[race$i]}")
done
ended=
for racer in "${racers[@]}"; do
	wait "$racer"
	ended="$ended $?"
done
[ "$(echo "$ended" | tr ' ' '\n' | sort -n | tr '\n' ' ')" = " 0 3 3 3 " ] ||
	fail "they end with$ended: $(tail -qn 1 "$work"/vm-race?.out)"
for i in 1 2 3 4; do vm alpha kill race$i 2>/dev/null; done

story "the machine can open nothing"
worker=$(vm_pid alpha web1 worker_pid)
[ -n "$worker" ] || fail "no status"
grep -q '^CapBnd:.*0000000000000000$' "/proc/$worker/status" || fail "capabilities"
[ "$(stat -c %u "/proc/$worker/root/" 2>/dev/null)" = "" ] || [ -z "$(ls -A "/proc/$worker/root/")" ] ||
	fail "its root directory holds something"
[ "$(awk '/^Uid/ { print $2 }' "/proc/$worker/status")" -ne 0 ] || fail "it is root"
for task in /proc/"$worker"/task/*; do
	# One filter of the whole process, one of this thread's part.
	[ "$(awk '/^Seccomp_filters/ { print $2 }' "$task/status")" -ge 2 ] || fail "a thread without a filter"
done
readlink /proc/"$worker"/fd/* | grep -vE '^(socket:|anon_inode:|pipe:|/dev/kvm|/dev/null|/memfd:)' |
	grep -v "vm-web1.out" >"$work/open" && fail "has open: $(cat "$work/open")"
vm alpha status web1 --json | jq -e '.confined | .filter and (.empty_root or .landlock)' >/dev/null ||
	fail "status does not say what confines it"
note "$(vm alpha status web1 | grep "confined by")"
readlink /proc/"$worker"/ns/net | grep -qvx "$(readlink /proc/self/ns/net)" || fail "it has the network"

story "the capabilities that its units leave it are enough"
for unit in "$top"/kvm/*.service; do
	caps=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit" | tr 'A-Z ' 'a-z,' | sed 's/cap_/+/g')
	[ -n "$caps" ] || fail "$unit leaves all"
	setpriv --bounding-set="-all,$caps" --inh-caps=-all --no-new-privs \
		"$bin/lunvm" run --run-dir "$work/vm-alpha" --name small --memory 16M --kernel "$payload" --cmdline op=off \
		>"$work/said" 2>&1 || fail "$(cat "$work/said")"
done

story "a pause drains the disk, and goes on"
vm alpha pause web1 || fail "cannot be paused"
# What it had said before may be written a moment later.
stands_still() {
	before=$(vm_rounds web1)
	sleep 0.7
	[ "$(vm_rounds web1)" = "$before" ]
}
wait_for 20 stands_still || fail "it runs on"
vm alpha status web1 | grep -q paused || fail "status does not know"
vm alpha resume web1 || fail "cannot be resumed"
wait_for 60 sh -c "[ \$(grep -c 'payload: round' '$work/vm-web1.out') -gt $before ]" || fail "it does not go on"

story "a guest is told that it stood still, so that none of its watchdogs complains"
vm_start alpha clock --cmdline op=clock
if vm_says 60 clock "watches its clock"; then
	sleep 0.5
	! grep -q "stood still" "$work/vm-clock.out" || fail "it is told so without a pause"
	vm alpha pause clock && sleep 0.2 && vm alpha resume clock || fail "cannot be paused"
	vm_says 60 clock "was told that it stood still" || fail "it is not told"
else
	grep -q "has no clock" "$work/vm-clock.out" || fail "$(cat "$work/vm-clock.out")"
	note "this machine's KVM has no clock"
fi
wait "${runner_of[clock]}" || fail "it ends with $?"

story "a daemon that is killed makes the guest wait, and loses nothing"
for i in 1 2 3; do
	host_kill alpha
	wait_for 60 sh -c "'$bin/lunvm' --run-dir '$work/vm-alpha' status web1 | grep -q 'server is away'" ||
		fail "status does not know"
	host_start alpha
	before=$(vm_rounds web1)
	wait_for 60 sh -c "[ \$(grep -c 'payload: round' '$work/vm-web1.out') -gt $((before + 1)) ]" ||
		fail "it does not go on"
done
vm alpha kill web1 || fail "cannot be killed"
wait "${runner_of[web1]}"
[ $? -eq 13 ] || fail "its exit status is not 13"

story "a launcher that is killed takes its machine with it, and the disk is free"
vm_start alpha web1 --disk $disk --cmdline "op=stress n=1000 qd=16 rounds=1000000"
vm_says 60 web1 "round 1" || fail "it does not run"
launcher=$(vm_pid alpha web1 pid)
worker=$(vm_pid alpha web1 worker_pid)
kill -KILL "$launcher"
wait_for 60 sh -c "! [ -d /proc/$worker ]" || fail "its machine goes on"
expect_exit 0 "done bad=0" alpha web1 --disk $disk --cmdline "op=stress n=1000 qd=16"

story "a host that lost its lease ends the machine, which another one runs"
vm_start alpha web1 --disk $disk --cmdline "op=stress n=1000 qd=16 rounds=1000000"
vm_says 60 web1 "round 1" || fail "it does not run"
worker=$(worker_of alpha)
kill -STOP "$worker"
started=$SECONDS
until vm_run beta again --disk $disk --cmdline "op=stress n=1000 qd=16"; do
	[ $((SECONDS - started)) -lt 120 ] || fail "beta does not get it: $(cat "$work/vm-again.out")"
	sleep 0.3
done
note "run on the other host $((SECONDS - started)) s after the first one froze"
kill -CONT "$worker" 2>/dev/null
wait "${pid_of[alpha]}" 2>/dev/null	# beta's fencing ended it
host_start alpha
wait "${runner_of[web1]}"
[ $? -eq 5 ] || fail "its exit status is not 5: $(tail -n 2 "$work/vm-web1.out")"
grep -q "used elsewhere" "$work/vm-web1.out" || fail "$(cat "$work/vm-web1.out")"

story "nothing is damaged"
host_stop alpha
host_stop beta
check_volume
finish
