#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# libiscsi's conformance suite against lunfs-target, and other real initiators.
#
#   conformance.sh		every configuration: `make conformance`
#   conformance.sh short	the whole suite on one, for `make check`
#
# CUnit counts a skipped test as passed: skips are counted here, and each has to stand in
# tests/iscsi/skips with its configuration and a reason; what stands there for a configuration that
# was run whole and is not skipped any more is a failure as well.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top" || exit 1
bin=$top/${BUILD:-build}/bin
round=${1:-full}
# Against what hangs, not what is slow: five whole suites at once on two busy cores take long.
LIMIT_S=3600
bad=0
target_pid=

for tool in iscsi-test-cu iscsi-ls iscsi-inq iscsi-perf qemu-io qemu-img; do
	command -v $tool >/dev/null || { echo "SKIP: conformance: no $tool"; exit 0; }
done
root=$(mktemp -d "${E2E_DIR:-/var/tmp}/lunfs-conformance-XXXXXX")
chmod 755 "$root"
work=$root

target_stop() {
	[ -z "$target_pid" ] || { kill "$target_pid" 2>/dev/null; wait "$target_pid" 2>/dev/null; }
	target_pid=
}
trap 'target_stop; rm -rf "$root"' EXIT

report() {	# report CLAIM STATUS
	if [ "$2" -eq 0 ]; then
		echo "PASS: iscsi $1"
	else
		echo "FAIL: iscsi $1"
		bad=1
	fi
}

# target_start LUN-OPTIONS: one LUN on two portals; $url and $second are its addresses.
target_start() {
	target_stop
	rm -rf "$work/lun" "$work/state" "$work/urls"
	mkdir "$work/state"
	"$bin/lunfs-target" --lun "$work/lun,size=1600M$1" --portal 127.0.0.1:0 --portal 127.0.0.1:0 \
		--state-dir "$work/state" >"$work/urls" 2>>"$work/target.log" &
	target_pid=$!
	for ((i = 0; i < 600; i++)); do
		[ ! -s "$work/urls" ] || break
		sleep 0.1
	done
	url=$(awk 'NR == 1 { print $1 }' "$work/urls")
	second=$("$bin/lunfs-target" --status --json --state-dir "$work/state" | jq -r '.portals[1].portal')
	second=$(echo "$url" | sed "s|//[^/]*/|//$second/|")
	[ -n "$url" ] && [ "$second" != "$url" ] || { cat "$work/target.log"; report "the target starts" 1; exit 1; }
}

# Skips of the suite's output on stdin, as "Suite.Test".
skips_seen() {
	awk '/^Suite: / { suite = $2 } /^ +Test: / { test = $2 }
		/\[SKIPPED\]/ { print suite "." test }' | sort -u
}

# Those that tests/iscsi/skips has for a configuration.
skips_listed() {	# skips_listed CONFIGURATION
	awk -F'\t' -v wanted="$1" '!/^#/ && NF == 3 {
		n = split($2, all, ",")
		for (i = 1; i <= n; i++) if (all[i] == wanted || all[i] == "*") print $1
	}' tests/iscsi/skips | sort -u
}

# The family ALL is the whole suite: the others repeat its 230 tests, 615 in all.
# suite CONFIGURATION CLAIM LUN-OPTIONS ARGUMENTS…: SECOND among the arguments is the other portal.
suite() {
	local configuration=$1 claim=$2 options=$3 ran failed unknown stale
	shift 3
	work=$root/$configuration
	mkdir "$work"
	chmod 755 "$work"
	target_start "$options"
	timeout $LIMIT_S iscsi-test-cu -d -V "${@//SECOND/$second}" "$url" >"$work/out" 2>&1
	ran=$(awk '$1 == "tests" { print $3 }' "$work/out")
	failed=$(awk '$1 == "tests" { print $5 }' "$work/out")
	skips_seen <"$work/out" >"$work/seen"
	skips_listed "$configuration" >"$work/listed"
	unknown=$(comm -23 "$work/seen" "$work/listed")
	# A run of a part skips less than is listed for all configurations.
	stale=
	case $configuration in *-*) stale=$(comm -13 "$work/seen" "$work/listed") ;; esac
	echo "  note: $claim: ${ran:-0} tests, ${failed:-?} failed, $(wc -l <"$work/seen") skipped"
	[ -z "$unknown" ] || echo "skipped without a reason in tests/iscsi/skips: $unknown"
	[ -z "$stale" ] || echo "in tests/iscsi/skips, but not skipped: $stale"
	[ -n "$failed" ] || { echo "$claim: not at its end (limit: $LIMIT_S s):"; tail -n 3 "$work/out"; }
	[ "${failed:-0}" = 0 ] || grep -E '^  Test:.*FAILED|\[FAILED\]|^    [0-9]+\. ' "$work/out" | head -n 30
	[ "${failed:-1}" = 0 ] && [ "${ran:-0}" -gt 0 ] && [ -z "$unknown$stale" ]
	report "$claim" $?
	kill -0 "$target_pid" 2>/dev/null
	report "$claim: the target lives on" $?
	target_stop
}

# suites: the tests wait more than they work, so configurations run side by side, each with a target of
# its own; their lines come in order.
suites() {
	local pids=() names=() i
	while read -r configuration claim options arguments; do
		# shellcheck disable=SC2086
		(bad=0; trap target_stop EXIT
		 suite "$configuration" "${claim//_/ }" "${options#-}" $arguments; exit $bad) \
			>"$root/$configuration.lines" 2>&1 &
		pids+=($!)
		names+=("$configuration")
	done
	for i in "${!pids[@]}"; do
		wait "${pids[$i]}" || bad=1
		cat "$root/${names[$i]}.lines"
	done
}

clients() {
	target_start ""
	iscsi-ls -s "${url%/iqn*}" 2>&1 | grep -q 'Lun:0'
	report "iscsi-ls finds target and LUN" $?
	iscsi-inq "$url" 2>&1 | grep -qi lunfs
	report "iscsi-inq knows who made it" $?
	timeout 60 iscsi-perf -t 2 -b 8 -m 32 -r "$url" >"$work/out" 2>&1 &&
		grep -qE 'finished' "$work/out" && ! grep -qiE 'failed|error' "$work/out"
	report "iscsi-perf reads at random, 32 at a time" $?
	echo "  note: iscsi-perf, 4 KiB: $(tr '\r' '\n' <"$work/out" | grep -oE 'iops average [0-9]+' | tail -n 1)"
	qemu-io -f raw -c 'write -P 0x5a 1M 3M' -c 'read -P 0x5a 1M 3M' -c 'discard 1M 1M' \
		-c 'read -P 0 5M 1M' -c flush "$url" >"$work/out" 2>&1 && ! grep -qi fail "$work/out"
	report "QEMU writes, verifies, discards and flushes" $?
	truncate -s 4M "$work/image" && dd if=/dev/urandom of="$work/image" bs=1M count=4 \
		conv=notrunc status=none
	qemu-img convert -n -f raw -O raw "$work/image" "$url" &&
		qemu-img compare -f raw -F raw "$work/image" "$url" 2>&1 | grep -qi identical
	report "qemu-img copies an image to it, and compares" $?
	target_stop
}

clients
if [ "$round" = short ]; then
	suites <<<"512-thin the_whole_suite,_512-byte_blocks,_thin,_two_portals - -t ALL SECOND"
	exit $bad
fi
# Five tests want physical blocks that are larger.  The whole suite cannot pass there: its
# GetLBAStatus.UnmapSingle asks for the status of LBA i + 1 and wants to hear of LBA i + 8.
suites <<'CONFIGURATIONS'
512-thin the_whole_suite,_512-byte_blocks,_thin,_two_portals - -t ALL SECOND
512-thick the_whole_suite,_512-byte_blocks,_thick,_two_portals -,thick -t ALL SECOND
4096-thin the_whole_suite,_4096-byte_blocks,_thin,_two_portals -,block-size=4096 -t ALL SECOND
4096-thick the_whole_suite,_4096-byte_blocks,_thick,_two_portals -,block-size=4096,thick -t ALL SECOND
physical1 COMPARE_AND_WRITE_on_physical_blocks_of_4096 -,physical-block=4096 -t SCSI.CompareAndWrite
physical2 WRITE_SAME(10)_on_physical_blocks_of_4096 -,physical-block=4096 -t SCSI.WriteSame10
physical3 WRITE_SAME(16)_on_physical_blocks_of_4096 -,physical-block=4096 -t SCSI.WriteSame16
512-removable the_whole_suite,_removable,_two_portals -,removable -t ALL SECOND
readonly read-only -,read-only -t SCSI.ReadOnly
sanitize sanitize - -S -t SCSI.Sanitize
CONFIGURATIONS
exit $bad
