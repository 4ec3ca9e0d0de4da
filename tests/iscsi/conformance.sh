#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# libiscsi's conformance suite against lunfs-target, and other real initiators.
#
#   conformance.sh		every configuration: `make conformance`
#   conformance.sh short	the whole suite on one, for `make check`
#
# CUnit counts a skipped test as passed: skips are counted here, and each has to have a reason
# in tests/iscsi/skips.
set -u
top=$(cd "$(dirname "$0")/../.." && pwd)
cd "$top" || exit 1
bin=$top/${BUILD:-build}/bin
round=${1:-full}
bad=0
target_pid=

for tool in iscsi-test-cu iscsi-ls iscsi-inq qemu-io; do
	command -v $tool >/dev/null || { echo "SKIP: conformance: no $tool"; exit 0; }
done
work=$(mktemp -d "${E2E_DIR:-/var/tmp}/lunfs-conformance-XXXXXX")
chmod 755 "$work"

target_stop() {
	[ -z "$target_pid" ] || { kill "$target_pid" 2>/dev/null; wait "$target_pid" 2>/dev/null; }
	target_pid=
}
trap 'target_stop; rm -rf "$work"' EXIT

report() {	# report CLAIM STATUS
	if [ "$2" -eq 0 ]; then
		echo "PASS: iscsi $1"
	else
		echo "FAIL: iscsi $1"
		bad=1
	fi
}

# target_start LUN-OPTIONS: one LUN on two portals; $urls are its addresses.
target_start() {
	local port=$((20000 + RANDOM % 20000))
	target_stop
	rm -rf "$work/lun" "$work/state" "$work/urls"
	mkdir "$work/state"
	"$bin/lunfs-target" --lun "$work/lun,size=1600M$1" --portal 127.0.0.1:$port \
		--portal 127.0.0.1:$((port + 1)) --state-dir "$work/state" \
		>"$work/urls" 2>>"$work/target.log" &
	target_pid=$!
	for ((i = 0; i < 100; i++)); do
		[ ! -s "$work/urls" ] || break
		sleep 0.1
	done
	url=$(awk 'NR == 1 { print $1 }' "$work/urls")
	[ -n "$url" ] || { tail "$work/target.log"; report "the target starts" 1; exit 1; }
	second=${url/:$port/:$((port + 1))}
}

# suite CLAIM LUN-OPTIONS ARGUMENTS…: counts what ran; $second among the arguments is the other portal.
suite() {
	local claim=$1 options=$2 failed skipped unknown
	shift 2
	target_start "$options"
	timeout 600 iscsi-test-cu -d -n -V "${@//SECOND/$second}" "$url" >"$work/out" 2>&1
	local ran
	ran=$(awk '$1 == "tests" { print $3 }' "$work/out")
	failed=$(awk '$1 == "tests" { print $5 }' "$work/out")
	skipped=$(grep -c '\[SKIPPED\]' "$work/out")
	unknown=$(grep -o '\[SKIPPED\].*' "$work/out" | sort -u |
		grep -vFf <(grep -v '^#' tests/iscsi/skips | cut -f1))
	echo "  note: $claim: ${ran:-0} tests, ${failed:-?} failed, $skipped messages of skipping"
	[ -z "$unknown" ] || echo "skipped without a reason in tests/iscsi/skips: $unknown"
	[ "${failed:-1}" = 0 ] || grep -E '^  Test:.*FAILED|\[FAILED\]|^    [0-9]+\. ' "$work/out" | head -n 30
	[ "${failed:-1}" = 0 ] && [ "${ran:-0}" -gt 0 ] && [ -z "$unknown" ]
	report "$claim" $?
	kill -0 "$target_pid" 2>/dev/null
	report "$claim: the target lives on" $?
}

clients() {
	target_start ""
	iscsi-ls -s "${url%/iqn*}" 2>&1 | grep -q 'Lun:0'
	report "iscsi-ls finds target and LUN" $?
	iscsi-inq "$url" 2>&1 | grep -qi lunfs
	report "iscsi-inq knows who made it" $?
	qemu-io -f raw -c 'write -P 0x5a 1M 3M' -c 'read -P 0x5a 1M 3M' -c 'discard 1M 1M' \
		-c 'read -P 0 5M 1M' -c flush "$url" >"$work/out" 2>&1 && ! grep -qi fail "$work/out"
	report "QEMU writes, verifies, discards and flushes" $?
	truncate -s 4M "$work/image" && dd if=/dev/urandom of="$work/image" bs=1M count=4 \
		conv=notrunc status=none
	qemu-img convert -n -f raw -O raw "$work/image" "$url" &&
		qemu-img compare -f raw -F raw "$work/image" "$url" 2>&1 | grep -qi identical
	report "qemu-img copies an image to it, and compares" $?
}

clients
suite "the whole suite, 512-byte blocks, thin, two portals" "" SECOND
[ "$round" != short ] || exit $bad
suite "the whole suite, 512-byte blocks, thick, two portals" ",thick" SECOND
suite "the whole suite, 4096-byte blocks, thin, two portals" ",block-size=4096" SECOND
suite "the whole suite, 4096-byte blocks, thick, two portals" ",block-size=4096,thick" SECOND
suite "the whole suite, removable" ",removable"
suite "read-only" ",read-only" -t SCSI.ReadOnly
suite "sanitize" "" -S -t SCSI.Sanitize
exit $bad
