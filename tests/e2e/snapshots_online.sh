#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Snapshots of a disk that a guest writes to: made in a moment, deleted in the background, also
# when the daemon is killed meanwhile.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip_all snapshots_online "needs root"

make_volume 2G
host_start alpha
disk=ds1:/root.disk

lunfs() { "$bin/lunfs" --run-dir "$work/run-alpha" "$@"; }

lunfs attach "$lun" >/dev/null || fail "attach"
lunfs disk create $disk --size 256M || fail "create"
socket=$(lunfs disk attach $disk) || fail "disk attach"

guest_start() {	# guest_start SECONDS [option…]
	local seconds=$1
	shift
	"$bin/lunfs-vhost-bench" --rw randrw --iodepth 8 --runtime "$seconds" --verify \
		--ledger "$work/ledger" --reconnect 60 "$@" "$socket" >"$work/guest.log" 2>&1 &
	guest=$!
	# It may have done all it has to do before we have looked.
	in_use() { lunfs disk list | grep -q "in use" || ! kill -0 $guest 2>/dev/null; }
	wait_for 60 in_use || fail "the guest does not start: $(cat "$work/guest.log")"
}

deep() { lunfs --json disk info $disk | jq '.stands_on | length'; }
at_depth() { [ "$(deep)" = "$1" ]; }

story "snapshots under a guest's writes take less than 100 ms each"
guest_start 300 --fsync 50
worst=0
for name in a b c d e; do
	starved=$(starved_ms "$(worker_of alpha)")
	lunfs --json disk snapshot create $disk $name >"$work/json" || fail "snapshot $name"
	starved=$(($(starved_ms "$(worker_of alpha)") - starved))
	worst=$(jq -r "[.pause_ms, $worst] | max" "$work/json")
	jq -e --argjson starved $starved '.pause_ms > 0 and .pause_ms - $starved < 100' "$work/json" >/dev/null ||
		fail "I/O waited for $(jq .pause_ms "$work/json") ms"
done
note "the longest pause of five snapshots was $worst ms"
at_depth 5 || fail "it stands on $(deep) images"
lunfs disk snapshot list $disk | grep -q '@c' || fail "list does not show one"

story "a guest's disk is not reverted under it"
lunfs disk snapshot revert $disk a >"$work/out" 2>&1 && fail "it was"
grep -q "end that guest" "$work/out" || fail "$(cat "$work/out")"

story "snapshots are deleted under the guest, which notices nothing"
for name in b d a; do
	lunfs disk snapshot delete $disk $name || fail "delete $name"
done
wait_for 60 at_depth 2 || fail "it still stands on $(deep) images"
has_written() { [ "$(lunfs --json disk list | jq '.disks[0].stats.writes')" -gt 1000 ]; }
wait_for 60 has_written || fail "few writes: $(lunfs disk list)"
kill -TERM $guest
wait $guest || fail "the guest found wrong data: $(cat "$work/guest.log")"

story "metrics are Prometheus' text, and count what the guest did"
check() { lunfs metrics | python3 "$(dirname "$0")/metrics_check.py" "$@"; }
check >"$work/out" 2>&1 || fail "$(cat "$work/out")"
writes='^lunfs_disk_requests_total.*disk="/root.disk",op="write"'
check "$writes" '^lunfs_lease_age_seconds' '^lunfs_stalls_total' '^lunfs_caw_retries_total' \
	'^lunfs_takeovers_total' '^lunfs_reactor_rounds_total.*reactor="0"' >"$work/out" ||
	fail "something is not there"
[ "$(check "$writes" | awk '{print ($2 > 1000)}')" = 1 ] || fail "few writes: $(check "$writes")"
[ "$(check '^lunfs_disk_latency_seconds_count.*op="write"' | awk '{print $2}')" = \
	"$(check "$writes" | awk '{print $2}')" ] || fail "not every write has a latency"
printf '# TYPE a counter\na 1\n' | python3 "$(dirname "$0")/metrics_check.py" 2>/dev/null &&
	fail "the check passes anything"
printf '# HELP h h\n# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_count 1\n' |
	python3 "$(dirname "$0")/metrics_check.py" 2>/dev/null &&
	fail "the check passes a histogram without a sum"

story "a daemon that is killed while one moves goes on with it by itself"
guest_start 5 --fsync 20
for name in f g; do
	lunfs disk snapshot create $disk $name || fail "snapshot $name"
	sleep 0.5
done
lunfs disk snapshot delete $disk c >/dev/null &
lunfs disk snapshot delete $disk f >/dev/null &
sleep 0.1
host_kill alpha
host_start alpha
lunfs attach "$lun" >/dev/null || fail "attach"
moved() { ! lunfs disk info $disk | grep -q "(deleted)"; }
wait_for 60 moved || fail "a deleted snapshot does not move: $(lunfs disk info $disk)"
wait $guest || fail "the guest found wrong data: $(cat "$work/guest.log")"

story "a disk that is attached, but has no guest, is reverted like one of a machine that is off"
idle() { ! lunfs disk list | grep -q "in use"; }
wait_for 60 idle || fail "the guest is not gone"
lunfs disk snapshot revert $disk nonsense 2>/dev/null && fail "to a snapshot that is not there"
lunfs disk list | grep -q /root.disk || fail "that detached the disk"
lunfs disk snapshot create $disk kept || fail "snapshot kept"
digest() { lunfs --json disk info $disk | jq -r '"\(.own) \(.shared) \(.total)"'; }
cp "$work/ledger" "$work/ledger.kept"
guest_start 1 --fsync 50
wait $guest || fail "the guest found wrong data: $(cat "$work/guest.log")"
wait_for 60 idle || fail "the guest is not gone"
read -r own shared total <<<"$(digest)"
[ "$own" -gt 1000000 ] && [ "$shared" -gt 1000000 ] && [ $((own + shared)) = "$total" ] ||
	fail "sizes: own $own, shared $shared, total $total"
lunfs disk snapshot revert $disk kept || fail "revert"
read -r own_now shared_now total <<<"$(digest)"
[ "$own_now" -lt 100000 ] && [ "$shared_now" = "$shared" ] ||
	fail "reverted: own $own_now, shared $shared_now of $shared"
[ "$(lunfs disk attach $disk)" = "$socket" ] || fail "its socket is another one"
cp "$work/ledger.kept" "$work/ledger"
guest_start 1 --fsync 50
wait $guest || fail "it does not show what the snapshot holds: $(cat "$work/guest.log")"
lunfs disk clone --linked $disk@kept ds1:/twin.disk || fail "clone"
lunfs disk info $disk >"$work/out"
grep -q "also below /twin.disk" "$work/out" || fail "info shows no tree: $(cat "$work/out")"
lunfs --json disk info $disk | jq -e '.stands_on[0].branches == ["/twin.disk"]' >/dev/null ||
	fail "nor does --json"

story "who writes by a mount what was snapshotted a moment ago writes the file, not the snapshot"
host_mount alpha
lunfs disk create ds1:/plain.disk --size 16M || fail "create"
quietly() { lunfs "$@" >"$work/out" 2>&1; }	# the kernel tells of a close a moment after it
for name in a b c; do
	: 7<>"$(mnt alpha)/plain.disk" || fail "the kernel does not know it"
	wait_for 60 quietly disk snapshot create ds1:/plain.disk $name || fail "snapshot $name: $(cat "$work/out")"
	printf $name | dd of="$(mnt alpha)/plain.disk" conv=notrunc status=none || fail "write after $name"
done
wait_for 60 quietly disk snapshot revert ds1:/plain.disk b || fail "revert: $(cat "$work/out")"
printf r | dd of="$(mnt alpha)/plain.disk" seek=1 bs=1 conv=notrunc status=none || fail "write after the revert"
[ "$(head -c 2 "$(mnt alpha)/plain.disk")" = ar ] || fail "the disk: $(head -c 2 "$(mnt alpha)/plain.disk")"
[ "$(head -c 1 "$(mnt alpha)/plain.disk@c")" = b ] || fail "the snapshot c has changed"
: 2>/dev/null 7<>"$(mnt alpha)/plain.disk@a" && fail "a snapshot is opened for writing"
: 7<>"$(mnt alpha)/plain.disk"
exec 7<>"$(mnt alpha)/plain.disk"
lunfs disk snapshot create ds1:/plain.disk d >"$work/out" 2>&1 && fail "under a program that has it open"
grep -q "in use" "$work/out" || fail "$(cat "$work/out")"
exec 7>&-
host_umount alpha

story "what a deleted snapshot holds moves at once, also when who deleted it goes away"
wait_for 60 idle || fail "the guest is not gone"
guest_start 1 --fsync 50
wait $guest || fail "the guest: $(cat "$work/guest.log")"
delete_and_go_away() {	# delete_and_go_away SNAPSHOT: by a client that merges nothing itself
	python3 - "$work/run-alpha/control" "$1" <<'EOF'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
s.sendall(json.dumps({"cmd": "disk-snapshot-delete", "ds": "ds1", "path": "/root.disk",
                      "name": sys.argv[2]}).encode() + b"\n")
reply = s.makefile().readline()
print(reply)
sys.exit('children' not in reply)
EOF
}
# Who did nothing but look every 10 s would take nearly as long for each that comes behind another one.
took=0
for name in one two three; do
	lunfs disk snapshot create $disk $name || fail "snapshot $name"
	before=$(deep)
	clock_start alpha
	delete_and_go_away $name >"$work/out" || fail "delete: $(cat "$work/out")"
	wait_for 60 at_depth $((before - 1)) || fail "$name does not move by itself"
	[ $name = one ] || took=$((took + $(clock_ms)))
done
note "after $((took / 2)) ms on an average"
[ $took -le 10000 ] || fail "after $((took / 2)) ms on an average"

lunfs disk detach $disk --force >/dev/null || fail "detach"
lunfs detach ds1 || fail "the datastore is not given up"
host_stop alpha || fail "alpha ended with $?"
check_volume
finish
