#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# lunfs-vhost-bench against our back end and qemu-storage-daemon's: it measures, it checks what
# it reads and notices what is wrong, it goes on when a server is killed.
. "$(dirname "$0")/../e2e/lib.sh"
make -s -C "$top" build/tests/vhost/serve || fail "serve does not build"
serve=$top/${BUILD:-build}/tests/vhost/serve
disk=$work/disk.img
sock=$work/sock
truncate -s 256M "$disk"

serve_start() {
	rm -f "$work/serve.out"
	"$serve" -p 20 "$@" "$disk" "$sock" >"$work/serve.out" 2>>"$work/serve.log" &
	pid_of[serve]=$!
	wait_for 60 grep -qs ready "$work/serve.out" || fail "serve does not start"
}

serve_stop() {	# serve_stop [SIGNAL]
	kill "-${1:-TERM}" "${pid_of[serve]}"
	wait "${pid_of[serve]}" 2>/dev/null
	unset 'pid_of[serve]'
}

bench() { timeout 120 "$bin/lunfs-vhost-bench" --runtime 0.3 --ramp 0.05 "$@" 2>>"$work/bench.log"; }

taken() {	# taken SOCKET: a front end has connected to it
	awk -v path="$1" '$NF == path && $6 == "03" { n++ } END { exit !n }' /proc/net/unix
}

# reports FILE: what a load says of itself, and why it ended
reports() { jq -c . "$1" 2>/dev/null; tail -n 2 "$work/bench.log"; }

# load_until ENOUGH FILE arguments…: a load that does what the expression wants to have been done.  How
# long it takes for that is the machine's business; that nothing is wrong has to hold each time.
load_until() {
	local enough=$1 file=$2 seconds
	shift 2
	for seconds in 0.3 1 4 16; do
		bench --json "$@" --runtime $seconds >"$file" || return 1
		jq -e '.blocks_wrong == 0 and .errors == 0' "$file" >/dev/null || return 1
		jq -e "$enough" "$file" >/dev/null && return 0
	done
	return 1
}

story "a server is put through everything, with each kind of ring and memory"
serve_start
for how in "" "--ring packed" "--no-indirect --mem table --regions 3" \
	   "--ring packed --no-event-idx --regions 8" "--no-event-idx --no-indirect --mem slots"; do
	# shellcheck disable=SC2086
	bench --exercise $how "$sock" >"$work/exercise.out" || fail "$how: $(cat "$work/exercise.out")"
	[ "$(grep -c '^ok:' "$work/exercise.out")" = 18 ] || fail "$how: $(cat "$work/exercise.out")"
done

story "loads of every kind are verified"
for how in "--wait poll --iodepth 1" "--queues 3 --threads 2" "--ring packed --segments 5 --bs 20K" \
	   "--no-indirect --wait poll --ring packed --iodepth 100" "--no-event-idx --rw rw --bs 64K"; do
	# shellcheck disable=SC2086
	load_until '.blocks_checked > 100 and
		.read.requests > 10 and .write.requests > 10 and .flush.requests > 0 and
		.discard.requests > 0 and .zeroes.requests > 0 and .server_cpu.percent > 0' "$work/load.json" \
		--rw randrw --verify --discard 4 --zeroes 4 --fsync 20 $how "$sock" ||
		fail "$how: $(reports "$work/load.json")"
done

story "a disk is gone through once"
bench --rw write --bs 128K --once --json "$sock" >"$work/once.json" || fail "exit status $?: $(reports "$work/once.json")"
jq -e '.write.requests == 2048' "$work/once.json" >/dev/null || fail "$(cat "$work/once.json")"

story "an idle server costs less than a hundredth of a core"
bench --idle --runtime 1 --json "$sock" >"$work/idle.json" || fail "exit status $?"
jq -e '.server_cpu.percent < 1 and .seconds >= 1' "$work/idle.json" >/dev/null ||
	fail "$(cat "$work/idle.json")"

story "a block that another one took the place of is noticed"
bench --rw write --once --ledger "$work/ledger" --size 4M "$sock" >/dev/null || fail "exit status $?"
serve_stop
dd if="$disk" of="$disk" bs=4k skip=17 seek=18 count=1 conv=notrunc status=none
serve_start
bench --check --ledger "$work/ledger" --size 4M "$sock" >"$work/check.out" &&
	fail "nobody noticed: $(cat "$work/check.out")"
grep -q '1 were wrong' "$work/check.out" || fail "$(cat "$work/check.out")"
grep -q 'sector 144: written generation' "$work/bench.log" || fail "$(tail -n 3 "$work/bench.log")"

story "a write that was acknowledged and lost is noticed"
cp --sparse=always "$disk" "$work/before.img"
bench --rw write --once --ledger "$work/ledger2" --offset 8M --size 4M "$sock" >/dev/null ||
	fail "exit status $?"
dd if="$work/before.img" of="$disk" bs=4k skip=2100 seek=2100 count=1 conv=notrunc status=none
bench --check --ledger "$work/ledger2" --offset 8M --size 4M "$sock" >"$work/check.out" &&
	fail "nobody noticed: $(cat "$work/check.out")"

killed_four_times() {	# killed_four_times RING SECONDS: a load of that time, below which servers die
	bench --rw randrw --verify --discard 3 --zeroes 3 --queues 2 --ring "$1" --reconnect 60 \
		--runtime "$2" --json "$sock" >"$work/killed.json" &
	load=$!
	under_load() { taken "$sock" || ! kill -0 $load 2>/dev/null; }
	for _ in 1 2 3 4; do
		wait_for 60 under_load || fail "the load does not connect: $(reports "$work/killed.json")"
		sleep 0.4
		serve_stop KILL
		serve_start
	done
	wait $load || fail "exit status $?: $(reports "$work/killed.json")"
	jq -e '.blocks_wrong == 0 and .errors == 0' "$work/killed.json" >/dev/null ||
		fail "$(reports "$work/killed.json")"
	jq -e '.reconnects == 4 and .blocks_checked > 1000' "$work/killed.json" >/dev/null
}

# On a slow machine a load may end before the servers have been killed: it gets longer then.
for ring in split packed; do
	story "servers are killed under load, the next one goes on: $ring"
	killed_four_times $ring 2.5 || killed_four_times $ring 10 || killed_four_times $ring 40 ||
		fail "$(reports "$work/killed.json")"
done

story "a server that is gone is said to be gone"
bench --rw randread --runtime 100 "$sock" >/dev/null &
load=$!
wait_for 60 taken "$sock" || fail "the load does not connect"
serve_stop KILL
wait $load
[ $? = 4 ] || fail "exit status is not 4"
bench "$work/nothing" 2>/dev/null
[ $? = 4 ] || fail "exit status is not 4"

story "a read-only disk is read and not written"
serve_start -r
bench --rw randread "$sock" >/dev/null || fail "exit status $?"
bench --rw randwrite "$sock" >/dev/null
[ $? = 4 ] || fail "exit status is not 4"
serve_stop

story "wrong options are refused"
for how in "--rw sideways" "--bs 1000" "--iodepth 0" "--wait never" "--ring-size 100" "--check" \
	   "--once" "--discard 60 --zeroes 60" "--runtime nan" "--server-pid x" "--queues 65"; do
	# shellcheck disable=SC2086
	bench $how "$sock" >/dev/null
	[ $? = 2 ] || fail "$how: exit status is not 2"
done

if command -v qemu-storage-daemon >/dev/null; then
	story "qemu-storage-daemon is measured and checked alike"
	qemu-storage-daemon --blockdev "driver=file,filename=$disk,node-name=f0" \
		--export "type=vhost-user-blk,id=e0,node-name=f0,addr.type=unix,addr.path=$work/qsd,writable=on,num-queues=2" \
		2>>"$work/qsd.log" &
	pid_of[qsd]=$!
	listens() { awk -v path="$1" '$NF == path && $4 == "00010000" { n++ } END { exit !n }' /proc/net/unix; }
	wait_for 60 listens "$work/qsd" || fail "qemu-storage-daemon does not start"
	for how in "--wait event" "--wait poll --queues 2" "--mem table --no-indirect" "--mem slots"; do
		# shellcheck disable=SC2086
		load_until '.blocks_checked > 50 and .server_cpu.percent > 0' "$work/qsd.json" \
			--rw randrw --verify --zeroes 4 --fsync 20 $how "$work/qsd" ||
			fail "$how: $(reports "$work/qsd.json")"
	done
	kill "${pid_of[qsd]}"
	wait "${pid_of[qsd]}" 2>/dev/null
	unset 'pid_of[qsd]'
else
	echo "SKIP: qemu-storage-daemon is measured: not installed"
fi
finish
