#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Virtual disks served to front ends by lunfsd: every request there is, first writes, a full
# datastore, growth; the daemon killed and stopped under load; another host in between.
. "$(dirname "$0")/../e2e/lib.sh"
[ "$(id -u)" -eq 0 ] || skip_all disk_served "needs root"

make_volume 1G
host_start alpha
disk=ds1:/root.disk

load() {	# load SOCKET options…
	local socket=$1
	shift
	"$bin/lunfs-vhost-bench" --ramp 0 "$@" "$socket" >"$work/load.out" 2>&1
}

shown() {	# shown HOST KEY: of the first disk that is listed
	lunfs "$1" --json disk list | jq -r ".disks[0].$2 | values"
}

story "a disk is attached, and a front end finds everything that a disk must do"
lunfs alpha attach "$lun" >/dev/null || fail "attach"
lunfs alpha disk create $disk --size 128M || fail "create"
socket=$(lunfs alpha disk attach $disk) || fail "disk attach"
[ -S "$socket" ] || fail "no socket at $socket"
[ "$(stat -c %a "$socket")" = 600 ] || fail "others than root may connect"
[ "$(lunfs alpha disk attach $disk)" = "$socket" ] || fail "attached again it is elsewhere"
lunfs alpha disk detach $disk || fail "detach"
tries=()
for i in 1 2 3 4 5 6 7 8; do
	lunfs alpha disk attach $disk >"$work/attach.$i" 2>&1 &
	tries+=($!)
done
for i in "${!tries[@]}"; do
	wait "${tries[i]}" || fail "attached by several at a time: $(cat "$work/attach.$((i + 1))")"
done
[ "$(sort -u "$work"/attach.?)" = "$socket" ] || fail "several attach it at a time: $(cat "$work"/attach.?)"
load "$socket" --exercise || fail "$(cat "$work/load.out")"
load "$socket" --rw randrw --verify --discard 5 --zeroes 5 --fsync 16 --runtime 2 --queues 2 ||
	fail "$(cat "$work/load.out")"
refused 1 "enospc=never" alpha disk attach ds1:/other --enospc never
refused 1 "no virtual disk" alpha disk attach ds1:/

story "while a guest has it nobody else does, and it is not taken from it unasked"
"$bin/lunfs-vhost-bench" --rw randread --runtime 120 "$socket" >"$work/guest.out" 2>&1 &
loader=$!
wait_for 60 eval '[ "$(shown alpha open)" = true ]' || fail "not open under load"
refused 3 "a guest is using it" alpha disk detach $disk
refused 3 "are attached" alpha detach ds1
lunfs alpha disk snapshot create $disk one >/dev/null || fail "no snapshot under a guest"
refused 3 "a guest is using it" alpha disk snapshot revert $disk one
host_start beta
lunfs beta attach "$lun" >/dev/null || fail "beta: attach"
theirs=$(lunfs beta disk attach $disk) || fail "beta: disk attach"
load "$theirs" --rw randread --runtime 1 && fail "two hosts serve one disk"
case $(shown beta holder) in alpha*) ;; *) fail "beta does not know who has it: $(shown beta holder)" ;; esac
kill -INT $loader
wait $loader || fail "$(cat "$work/guest.out")"

story "once its guest has ended another host may have it, and sees what was written"
wait_for 60 eval '[ "$(shown alpha open)" = false ]' || fail "alpha does not give it up"
load "$socket" --size 128M --rw write --once --ledger "$work/ledger" || fail "$(cat "$work/load.out")"
wait_for 60 eval '[ "$(shown alpha open)" = false ]' || fail "alpha does not give it up"
load "$theirs" --size 128M --check --ledger "$work/ledger" || fail "beta: $(cat "$work/load.out")"

story "a guest that comes back to alpha meanwhile is turned away: it remembers another time"
wait_for 60 eval '[ "$(shown beta open)" = false ]' || fail "beta does not give it up"
load "$socket" --rw randread --runtime 1 && fail "an attachment outlived its lock"
[ -n "$(shown alpha ended)" ] || fail "nothing says why"
# Nor does the next daemon know better, or the one behind that.
for _ in 1 2; do
	host_kill alpha
	host_start alpha
	wait_for 60 eval '[ -n "$(shown alpha ended)" ]' || fail "it is forgotten by the next daemon"
	load "$socket" --rw randread --runtime 1 && fail "an attachment outlived its lock and its daemon"
done
lunfs alpha disk detach $disk && socket=$(lunfs alpha disk attach $disk) || fail "attach anew"
load "$socket" --size 128M --check --ledger "$work/ledger" || fail "$(cat "$work/load.out")"

story "so is one that was away while the daemon was killed, but not for what its own host has done"
wait_for 5 eval '[ "$(shown alpha open)" = false ]' || fail "alpha does not give it up"
host_kill alpha
host_start alpha
wait_for 10 eval '[ "$(shown alpha socket)" = "$socket" ]' || fail "it is not attached again"
load "$socket" --size 128M --check --ledger "$work/ledger" || fail "$(cat "$work/load.out")"
wait_for 5 eval '[ "$(shown alpha open)" = false ]' || fail "alpha does not give it up"
lunfs alpha disk snapshot create $disk two >/dev/null || fail "snapshot"
lunfs alpha disk snapshot delete $disk two >/dev/null || fail "snapshot delete"
host_kill alpha
host_start alpha
wait_for 10 eval '[ "$(shown alpha socket)" = "$socket" ]' || fail "it is not attached again"
load "$socket" --size 128M --rw randwrite --runtime 0.2 --ledger "$work/ledger" || fail "$(cat "$work/load.out")"
wait_for 5 eval '[ "$(shown alpha open)" = false ]' || fail "alpha does not give it up"
lunfs beta disk detach $disk && theirs=$(lunfs beta disk attach $disk) || fail "beta: attach anew"
load "$theirs" --size 128M --rw randwrite --runtime 0.2 --ledger "$work/ledger" || fail "beta: $(cat "$work/load.out")"
wait_for 5 eval '[ "$(shown beta open)" = false ]' || fail "beta does not give it up"
# The lock names alpha again, for a look at the file, and is as stale as it was.
lunfs alpha ls ds1:/ >/dev/null
host_kill alpha
host_start alpha
wait_for 10 eval '[ "$(shown alpha socket)" = "$socket" ]' || fail "it is not attached again"
load "$socket" --rw randread --runtime 1 && fail "an attachment outlived its lock with its daemon"
[ -n "$(shown alpha ended)" ] || fail "nothing says why"
lunfs alpha disk detach $disk && socket=$(lunfs alpha disk attach $disk) || fail "attach anew"
load "$socket" --size 128M --check --ledger "$work/ledger" || fail "$(cat "$work/load.out")"
lunfs beta disk detach $disk || fail "beta: disk detach"

story "attached to be read before a snapshot on another host, it is the disk after it, not the snapshot"
late=ds1:/late.disk
lunfs alpha disk create $late --size 8M || fail "create"
reads=$(lunfs beta disk attach $late --read-only) || fail "beta: disk attach"
lunfs alpha disk snapshot create $late one >/dev/null || fail "snapshot"
writes=$(lunfs alpha disk attach $late) || fail "disk attach"
load "$writes" --size 8M --rw write --once --ledger "$work/late" || fail "$(cat "$work/load.out")"
wait_for 60 lunfs alpha disk detach $late || fail "detach"
load "$reads" --size 8M --check --ledger "$work/late" || fail "beta: $(cat "$work/load.out")"
wait_for 60 lunfs beta disk detach $late || fail "beta: detach"

story "killed and stopped under load, the daemon goes on where it was: no request is lost"
load "$socket" --size 128M --rw randrw --verify --ledger "$work/ledger" --reconnect 30 --fsync 32 \
	--discard 2 --zeroes 2 --iodepth 16 --runtime 5 &
loader=$!
sleep 1
host_kill alpha
host_start alpha
wait_for 60 eval '[ "$(shown alpha connected)" = true ]' || fail "no front end after a kill"
sleep 0.5
host_stop alpha || fail "alpha did not end well"
host_start alpha
wait $loader || fail "$(cat "$work/load.out")"
load "$socket" --size 128M --check --ledger "$work/ledger" || fail "$(cat "$work/load.out")"

story "disks that compete for the device wait for each other by their shares"
refused 1 "not a number from 1 to 10000" alpha disk attach $disk --shares 0
socket=$(lunfs alpha disk attach $disk --shares 300) || fail "shares"
lunfs alpha disk info $disk | grep -q "^attached: 300 shares$" || fail "disk info: $(lunfs alpha disk info $disk)"
lunfs alpha disk create ds1:/small.disk --size 64M || fail "create"
other=$(lunfs alpha disk attach ds1:/small.disk --shares 100) || fail "shares of another"
"$bin/lunfs-vhost-bench" --ramp 0 --rw randread --iodepth 64 --runtime 60 "$socket" >"$work/load.out" 2>&1 &
loader=$!
wait_for 60 eval '[ "$(shown alpha stats.in_flight)" -gt 0 ]' || fail "no load"
"$bin/lunfs-vhost-bench" --ramp 0 --rw randrw --verify --iodepth 64 --runtime 1 "$other" >"$work/other.out" 2>&1 ||
	fail "$(cat "$work/other.out")"
kill $loader && wait $loader 2>/dev/null
lunfs alpha metrics | awk '/^lunfs_disk_share_waits_total/ { n += $2 } END { exit !n }' || fail "nobody waited"
wait_for 60 lunfs alpha disk detach ds1:/small.disk || fail "detach"

story "grown under a guest, it is larger there"
lunfs alpha disk grow $disk --size 160M || fail "grow"
load "$socket" --rw write --bs 256K --once --offset 128M --verify || fail "$(cat "$work/load.out")"
[ "$(shown alpha size)" = 167772160 ] || fail "its size is $(shown alpha size)"

story "on a full datastore first writes wait, or fail, as was said, and nothing else does"
host_mount alpha
lunfs alpha disk create ds1:/thin.disk --size 600M || fail "create"
thin=$(lunfs alpha disk attach ds1:/thin.disk) || fail "attach"
# The space of the snapshot that was deleted comes back in the background, when it is merged.
merged() { ! lunfs alpha disk snapshot list $disk | grep -q deleted; }
wait_for 60 merged || fail "a deleted snapshot is not merged: $(lunfs alpha disk snapshot list $disk)"
left() { lunfs alpha --json df ds1 | jq .free; }
free=$(left)
fallocate -l $((free - (64 << 20))) "$(mnt alpha)/filler" || fail "fallocate beside $free bytes"
load "$thin" --rw write --bs 256K --once --verify &
loader=$!
wait_for 60 eval 'lunfs alpha --json disk list | jq -e ".disks[] | select(.path == \"/thin.disk\") | .no_space" >/dev/null' ||
	fail "a full datastore is not noticed"
load "$socket" --rw randrw --runtime 1 --verify || fail "the other disk: $(cat "$work/load.out")"
kill -0 $loader 2>/dev/null || fail "the guest was not made to wait"
rm "$(mnt alpha)/filler"
wait $loader || fail "it does not go on: $(cat "$work/load.out")"
wait_for 60 lunfs alpha disk detach ds1:/thin.disk || fail "detach"
# What was removed is given back in pieces, behind the guest's back.
wait_for 60 eval '[ "$(left)" -ge $((free - (608 << 20))) ]' || fail "the space is not given back: $(left) of $free"
now=$(left)
fallocate -l $((now - (16 << 20))) "$(mnt alpha)/filler" || fail "fallocate of $now of $free bytes: $(lunfs alpha df ds1)"
lunfs alpha disk create ds1:/more.disk --size 600M || fail "create"
more=$(lunfs alpha disk attach ds1:/more.disk --enospc report) || fail "attach"
load "$more" --rw write --bs 256K --once && fail "no error on a full datastore"
wait_for 60 lunfs alpha disk detach ds1:/more.disk || fail "detach"

story "a guest that ends while its writes wait for space gives its disk up; so does one that is cut off"
lunfs alpha disk create ds1:/wait.disk --size 600M || fail "create"
waits=$(lunfs alpha disk attach ds1:/wait.disk) || fail "attach"
of_waits() { lunfs alpha --json disk list | jq -r ".disks[] | select(.path == \"/wait.disk\") | .$1"; }
"$bin/lunfs-vhost-bench" --ramp 0 --rw write --bs 256K --once "$waits" >"$work/load.out" 2>&1 &
loader=$!
wait_for 60 eval '[ "$(of_waits no_space)" = true ]' || fail "a full datastore is not noticed"
kill -KILL $loader
wait $loader 2>/dev/null
wait_for 60 eval '[ "$(of_waits open)" = false ]' || fail "it keeps the disk: $(lunfs alpha disk list)"
load "$waits" --rw write --bs 256K --once &
loader=$!
wait_for 60 eval '[ "$(of_waits no_space)" = true ]' || fail "a full datastore is not noticed"
timeout 60 "$bin/lunfs" --run-dir "$work/run-alpha" disk detach --force ds1:/wait.disk || fail "detach"
wait $loader && fail "it was not cut off"
rm "$(mnt alpha)/filler"

story "what was detached from under its guest is not served again by the next daemon"
kill -KILL "$(worker_of alpha)" "${pid_of[alpha]}"
wait "${pid_of[alpha]}" 2>/dev/null
umount -l "$(mnt alpha)"
host_start alpha
wait_for 60 eval '[ "$(lunfs alpha --json disk list | jq ".disks | length")" = 1 ]' || fail "$(lunfs alpha disk list)"
sleep 0.5
[ -z "$(of_waits path)" ] || fail "it is attached again: $(lunfs alpha disk list)"
host_mount alpha

story "front ends that come and go faster than the disk is closed after them end nothing"
socket=$(lunfs alpha disk attach $disk) || fail "attach"
python3 - "$socket" <<'PY' || fail "cannot connect any more"
import socket, sys, time
end, n = time.time() + 1.5, 0
while time.time() < end or n < 300:
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    s.close()
    n += 1
PY
wait_for 60 load "$socket" --rw randread --runtime 1 || fail "not served after that: $(cat "$work/load.out")"

story "limits hold, and a disk that nobody uses costs nothing"
socket=$(lunfs alpha disk attach $disk --iops 500) || fail "limits"
load "$socket" --rw randread --runtime 2 --json || fail "$(cat "$work/load.out")"
iops=$(jq '.read.iops // .iops // ([.. | .iops? // empty] | max)' "$work/load.out")
# How many fewer they are is the machine's business.
awk -v n="$iops" 'BEGIN { exit !(n > 20 && n < 900) }' || fail "500 IOPS became $iops"
# What it still had to do comes to its end; ticks are of 10 ms.
ticks() { awk '{ print $14 + $15 }' "/proc/$(worker_of alpha)/stat"; }
is_idle() {
	local before start=$EPOCHREALTIME
	before=$(ticks)
	sleep 1
	took=$(($(ticks) - before))
	awk -v took="$took" -v start="$start" -v now="$EPOCHREALTIME" 'BEGIN { exit !(took <= 5 * (now - start)) }'
}
wait_for 30 is_idle || fail "an idle daemon took $took ticks in a second"

story "the service manager hears that the reactors work, and not from a worker that stands still"
python3 - "$bin/lunfsd" "$work/run-dog" <<'END' >"$work/dog.out" 2>&1 || fail "$(cat "$work/dog.out")"
import os, signal, socket, subprocess, sys

path = sys.argv[2] + ".notify"
heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
heard.bind(path)
heard.settimeout(60)
os.mkdir(sys.argv[2], 0o755)
dog = subprocess.Popen([sys.argv[1], "--run-dir", sys.argv[2], "--host-name", "dog"],
                       env=dict(os.environ, NOTIFY_SOCKET=path, WATCHDOG_USEC="600000"))
try:
    said = [heard.recv(100) for _ in range(5)]
    assert said.count(b"READY=1") == 1 and said.count(b"WATCHDOG=1") == 4, said
    worker = int(subprocess.check_output(["pgrep", "-P", str(dog.pid)]).split()[0])
    os.kill(worker, signal.SIGSTOP)
    # What it had said before may still come; one that is fed hears four of them in that time, and more.
    heard.settimeout(1.5)
    said = []
    try:
        while len(said) < 4:
            said.append(heard.recv(100))
        sys.exit("still fed: %s" % said)
    except socket.timeout:
        pass
    os.kill(worker, signal.SIGCONT)
finally:
    dog.terminate()
    dog.wait()
END

story "no system call was refused"
grep -l "Bad system call" "$work"/*.log && fail "seccomp"
host_umount alpha
wait_for 60 lunfs alpha disk detach $disk || fail "detach"
wait_for 60 ctl alpha detach ds1 || fail "detach of the datastore"
host_stop beta || fail "beta"
"$bin/fsck.lunfs" -n "$lun" >"$work/fsck.out" || fail "fsck: $(cat "$work/fsck.out")"

story "a disk of the same name, of another volume on the same device, is not served in its place"
lunfs alpha attach "$lun" >/dev/null && lunfs alpha disk attach $disk >/dev/null || fail "attach"
kill -KILL "$(worker_of alpha)" "${pid_of[alpha]}"
wait "${pid_of[alpha]}" 2>/dev/null
wait_for 60 "$bin/mkfs.lunfs" -q -f -L ds1 "$lun" 2>"$work/out" || fail "mkfs: $(cat "$work/out")"
host_start gamma
lunfs gamma attach "$lun" >/dev/null && lunfs gamma disk create $disk --size 128M || fail "another disk"
wait_for 60 ctl gamma detach ds1 || fail "gamma: detach"
host_stop gamma || fail "gamma"
host_start alpha
wait_for 60 grep -q "volume .* is there now" "$work/alpha.log" || fail "nothing says that it is another volume"
[ "$(lunfs alpha --json disk list | jq '.disks | length')" = 0 ] || fail "$(lunfs alpha disk list)"
host_stop alpha || fail "alpha"
"$bin/fsck.lunfs" -n "$lun" >"$work/fsck.out" || fail "fsck: $(cat "$work/fsck.out")"
finish
