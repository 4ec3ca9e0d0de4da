#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Virtual disks under front ends of all manners (lunfs-vhost-bench): what each may ask for works,
# lunfsd is killed under load, a host crashes and another one finds all that was acknowledged.
. "$(dirname "$0")/../e2e/lib.sh"
[ "$(id -u)" -eq 0 ] || skip_all "front ends of virtual disks" "needs root"

bench() { timeout 400 "$bin/lunfs-vhost-bench" --runtime 0.4 --ramp 0.05 "$@" 2>>"$work/bench.log"; }

attach() {	# attach HOST DISK [options]: prints the socket
	local host=$1
	shift
	"$bin/lunfs" --run-dir "$work/run-$host" disk attach "$@" 2>>"$work/$host.ctl.log"
}

story "a disk is put through everything, with each kind of ring and memory"
make_volume 4G
host_start alpha
ctl alpha attach "$lun" || fail "lunfs attach"
ctl alpha disk create ds1:/thin --size 1G || fail "lunfs disk create"
ctl alpha disk create ds1:/thick --size 256M --thick || fail "lunfs disk create"
thin=$(attach alpha ds1:/thin) || fail "lunfs disk attach"
thick=$(attach alpha ds1:/thick) || fail "lunfs disk attach"
for how in "" "--ring packed" "--no-indirect --mem table --regions 3" \
	   "--ring packed --no-event-idx --regions 8" "--no-event-idx --no-indirect --mem slots"; do
	# shellcheck disable=SC2086
	bench --exercise $how "$thin" >"$work/exercise.out" || fail "$how: $(cat "$work/exercise.out")"
	[ "$(grep -c '^ok:' "$work/exercise.out")" = 18 ] || fail "$how: $(cat "$work/exercise.out")"
done

story "thin and thick disks are filled, discarded, zeroed under verification"
for disk in thin thick; do
	for how in "" "--wait poll --iodepth 1" "--queues 3 --segments 5 --bs 20K --ring packed" \
		   "--rw rw --bs 128K --iodepth 8" "--bs 512 --iodepth 64" "--bs 68K --no-indirect"; do
		# A machine that has much else to do gets more time for as many blocks.
		for seconds in 0.4 4 20; do
			# shellcheck disable=SC2086
			bench --rw randrw --verify --discard 4 --zeroes 4 --fsync 50 --size 192M $how \
				--runtime $seconds --json "${!disk}" >"$work/load.json" ||
				fail "$disk $how: $(tail -n 3 "$work/bench.log") $(jq -c . "$work/load.json")"
			jq -e '.blocks_checked > 50' "$work/load.json" >/dev/null && break
		done
		jq -e '.blocks_checked > 50 and .blocks_wrong == 0 and .errors == 0' "$work/load.json" \
			>/dev/null || fail "$disk $how: $(jq -c . "$work/load.json")"
	done
done

has_read() {	# has_read REQUESTS PATH: since alpha was started last
	[ "$(lunfs alpha --json disk list | jq ".disks[] | select(.path == \"$2\") | .stats.reads")" -ge "$1" ]
}

connected() {	# connected TIMES DISK
	[ "$(grep -c "$2: a front end has connected" "$work/alpha.log")" -ge "$1" ]
}

for ring in split packed; do
	story "lunfsd is killed under load and started again: $ring"
	# Where nothing was written yet: what is acknowledged and only in memory must not be lost.
	ctl alpha disk create ds1:/$ring --size 256M || fail "lunfs disk create"
	fresh=$(attach alpha ds1:/$ring) || fail "lunfs disk attach"
	bench --rw randrw --verify --discard 2 --zeroes 2 --ring $ring --queues 2 --reconnect 60 --size 64M \
		--runtime 300 --json "$fresh" >"$work/killed.json" &
	load=$!
	wait_for 60 connected 1 "ds1:/$ring" || fail "no front end: $(tail -n 3 "$work/bench.log")"
	for n in 1 2 3; do
		sleep 0.6
		host_kill alpha
		host_start alpha
		wait_for 60 connected $((n + 1)) "ds1:/$ring" || fail "the front end does not come back"
	done
	wait_for 60 has_read 2000 "/$ring" || fail "the load does not go on: $(lunfs alpha disk list)"
	kill -TERM "$(pgrep -P "$load")"
	wait $load || fail "exit status $?: $(tail -n 3 "$work/bench.log") $(jq -c . "$work/killed.json")"
	jq -e '.reconnects == 3 and .blocks_wrong == 0 and .blocks_checked > 500 and .errors == 0' \
		"$work/killed.json" >/dev/null || fail "$(jq -c . "$work/killed.json")"
	note "longest pause $(jq '.longest_away_ms | floor' "$work/killed.json") ms"
done

story "lunfsd is stopped and started under load: an upgrade"
before=$(grep -c "ds1:/thick: a front end has connected" "$work/alpha.log")
bench --rw randrw --verify --reconnect 60 --size 64M --runtime 300 --json "$thick" >"$work/upgrade.json" &
load=$!
wait_for 60 connected $((before + 1)) ds1:/thick || fail "no front end: $(tail -n 3 "$work/bench.log")"
for n in 1 2; do
	sleep 0.5
	host_stop alpha || fail "lunfsd does not end"
	host_start alpha
	wait_for 60 connected $((before + n + 1)) ds1:/thick || fail "the front end does not come back"
done
wait_for 60 has_read 200 /thick || fail "the load does not go on: $(lunfs alpha disk list)"
kill -TERM "$(pgrep -P "$load")"
wait $load || fail "exit status $?: $(tail -n 3 "$work/bench.log") $(jq -c . "$work/upgrade.json")"
jq -e '.reconnects == 2 and .blocks_wrong == 0 and .errors == 0' "$work/upgrade.json" >/dev/null ||
	fail "$(jq -c . "$work/upgrade.json")"

story "a disk that is in use here is refused elsewhere"
host_start beta
ctl beta attach "$lun" || fail "lunfs attach"
before=$(grep -c "ds1:/thin: a front end has connected" "$work/alpha.log")
bench --rw randwrite --ledger "$work/ledger" --write-through --discard 2 --zeroes 2 --size 128M \
	--runtime 300 --json "$thin" >/dev/null &
load=$!
wait_for 60 connected $((before + 1)) ds1:/thin || fail "no front end: $(tail -n 3 "$work/bench.log")"
sleep 1
there=$(attach beta ds1:/thin) || fail "lunfs disk attach"
bench --rw randread "$there" >/dev/null && fail "two hosts serve one disk"
kill -0 $load 2>/dev/null || fail "the load on the first host has ended"

story "the host crashes: the other one serves all that was acknowledged"
host_kill alpha
kill -KILL "$(pgrep -P "$load")" "$load" 2>/dev/null
wait $load 2>/dev/null
crash=$(date +%s%N)
takes_over() {
	bench --check --ledger "$work/ledger" --size 128M --json "$there" >"$work/after.json"
	[ $? != 4 ]
}
wait_for 60 takes_over || fail "beta does not serve it"
note "served $(((($(date +%s%N) - crash)) / 1000000)) ms after the crash"
jq -e '.blocks_wrong == 0 and .blocks_checked > 1000' "$work/after.json" >/dev/null ||
	fail "$(jq -c . "$work/after.json")"
bench --rw randrw --ledger "$work/ledger" --size 128M "$there" >/dev/null || fail "it cannot be written on"

story "the volume is clean"
host_stop beta || fail "lunfsd does not end"
check_volume
finish
