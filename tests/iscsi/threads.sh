#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The target's worker under ThreadSanitizer: sessions on every reactor under load, while portals and
# units come and go, initiators are turned away, tasks are aborted and units reset.  A report is a failure.
set -u
cd "$(dirname "$0")/../.."
tree=build-thread
make -s -j"$(nproc)" SAN=thread $tree/bin/lunfs-target && make -s build/tools/bench/iscsi_bench || exit 1
bench=build/tools/bench/iscsi_bench
work=$(mktemp -d "${E2E_DIR:-/var/tmp}/lunfs-threads-XXXXXX")
iqn=iqn.2026-11.org.lunfs.test:threads
seconds=${1:-6}
target=
loads=

cleanup() {
	local p
	for p in $loads $target; do
		kill -KILL "$p" 2>/dev/null
	done
	rm -rf "$work"
}
trap cleanup EXIT

fail() {
	echo "FAIL: iscsi threads: $*"
	tail -n 20 "$work/log"
	grep -A 40 "WARNING: ThreadSanitizer" "$work/log" | head -n 90
	exit 1
}

free_port() {
	python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

config() {	# config PORTALS LUNS INITIATOR
	local i
	echo "portal = 127.0.0.1:$port"
	[ "$1" = 1 ] || echo "portal = 127.0.0.1:$other"
	printf 'reactors = 2\nstate-dir = %s\n' "$work/state"
	# Targets of their own: clients of one name would end each other's sessions.
	for i in reads writes; do
		printf '[target %s]\ninitiator = %s\nlun = %s\n' "$iqn:$i" "$3" "$work/$i.img"
	done
	printf '[target %s]\ninitiator = %s\n' "$iqn" "$3"
	for ((i = 0; i < $2; i++)); do
		echo "lun = $work/lun$i"
	done
}

export TSAN_OPTIONS="halt_on_error=0 exitcode=66"
port=$(free_port)
other=$(free_port)
truncate -s 64M "$work"/lun{0,1,2} "$work"/{reads,writes}.img
mkdir "$work/state"
[ "$(id -u)" -ne 0 ] || chmod 777 "$work" "$work/state"
config 1 1 '*' >"$work/conf"
$tree/bin/lunfs-target --config "$work/conf" >"$work/out" 2>"$work/log" &
target=$!
for ((i = 0; i < 600; i++)); do
	[ -s "$work/out" ] && break
	sleep 0.1
done
[ -s "$work/out" ] || fail "it does not start"

$bench -b 4096 -q 16 -n 4 -t "$seconds" 127.0.0.1 "$port" $iqn:reads 0 >"$work/reads" 2>&1 &
loads=$!
$bench -w -s -b 131072 -q 4 -n 2 -t "$seconds" 127.0.0.1 "$port" $iqn:writes 0 >"$work/writes" 2>&1 &
loads="$loads $!"
end=$(($(date +%s) + seconds))
rounds=0
while [ "$(date +%s)" -lt "$end" ]; do
	config 2 3 '*' >"$work/conf"
	kill -HUP "$target"
	sleep 0.2
	# A unit is taken away under the load that it is under.
	$bench -w -b 4096 -q 16 -n 2 -t 1 127.0.0.1 "$port" $iqn 2 >/dev/null 2>&1 &
	on_two=$!
	for test in ALL.iSCSITMF.AbortTaskSimpleAsync ALL.iSCSITMF.LUNResetSimpleAsync; do
		timeout 60 iscsi-test-cu -s -d -t $test "iscsi://127.0.0.1:$other/$iqn/1" >/dev/null 2>&1
	done
	$tree/bin/lunfs-target --status --config "$work/conf" >"$work/status" 2>&1 || fail "no status"
	config 1 2 '*' >"$work/conf"
	kill -HUP "$target"
	sleep 0.2
	config 1 1 '*' >"$work/conf"
	kill -HUP "$target"
	wait $on_two
	rounds=$((rounds + 1))
done
for p in $loads; do
	wait "$p" || fail "a load was disturbed: $(cat "$work/reads" "$work/writes")"
done
loads=
# Who was in is shown out while new ones come.
$bench -b 4096 -q 16 -n 2 -t 5 127.0.0.1 "$port" $iqn:reads 0 >/dev/null 2>&1 &
loads=$!
sleep 0.3
config 1 1 iqn.2026-01.example:nobody >"$work/conf"
kill -HUP "$target"
wait $loads && fail "an initiator that may not stay did"
loads=
kill "$target"
wait "$target"
status=$?
target=
grep -q "WARNING: ThreadSanitizer" "$work/log" && fail "data races"
[ $status -eq 0 ] || fail "it ended with $status"
echo "  note: $rounds rounds; reads $(grep -o '"iops": [0-9]*' "$work/reads"), writes $(grep -o '"iops": [0-9]*' "$work/writes")"
echo "PASS: iscsi threads: no race in the target's worker while sessions, portals, units and tasks come and go"
