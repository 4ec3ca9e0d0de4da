#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make check`: every part in turn, its time, and one line of totals at the end.
#
# A part is a command that prints "PASS: name", "FAIL: name" and "SKIP: name: why" lines; one
# that exits non-zero counts as a failure even if it printed none.
set -u
cd "$(dirname "$0")/.."

log=build/check.log
mkdir -p build
: >"$log"
limit=900		# seconds: a part that hangs is named, and the others are run
failed_parts=0
times=

# part NAME COMMAND…: runs it, shows its result lines, keeps the whole in the log.
part() {
	local name=$1 start=$SECONDS status
	shift
	echo "--- $name"
	timeout -k 10 $limit "$@" 2>&1 | tee -a "$log" | grep -E --line-buffered '^(PASS|FAIL|SKIP):|^  note:'
	status=${PIPESTATUS[0]}
	times="$times$(printf '%-28s %4d s' "$name" $((SECONDS - start)))"$'\n'
	if [ "$status" -ne 0 ]; then
		failed_parts=$((failed_parts + 1))
		echo "FAIL: part $name (exit status $status); the end of its output:" | tee -a "$log"
		tail -n 40 "$log"
	fi
}

part build              make -s -j"$(nproc)" all
part unit               tests/unit.sh build
part unit-asan-ubsan    tests/unit.sh build-address-undefined
part unit-tsan          tests/unit.sh build-thread
part fuzz               tests/fuzz/run.sh
part sim                tests/sim/cluster/run.sh
part mutants            tests/sim/mutants.sh short
part powercut           tests/sim/powercut.sh
part static             tests/static.sh
part man                tests/man.sh
part completion         tests/completion.sh
part model              tests/model.sh
part golden             tests/golden/run.sh
part fsck               tests/fsck/run.sh
part fsck-killed        tests/fsck/killed.sh
part fsck-scale         tests/fsck/scale.sh
for script in tests/e2e/*.sh; do
	case $script in */lib.sh) continue ;; esac
	part "e2e/$(basename "$script" .sh)" "$script"
done
for script in tests/kvm/*.sh; do
	case $script in */lib.sh) continue ;; esac
	part "kvm/$(basename "$script" .sh)" "$script"
done
for script in tests/guest/*.sh; do
	case $script in */lib*.sh|*/in_guest.sh) continue ;; esac
	part "guest/$(basename "$script" .sh)" "$script"
done
for script in tests/vhost/*.sh; do
	case $script in */guests.sh) continue ;; esac
	part "vhost/$(basename "$script" .sh)" "$script"
done
part iscsi              tests/iscsi/conformance.sh short
part iscsi-wire         tests/iscsi/wire/run.py
part iscsi-threads      tests/iscsi/threads.sh
part core-over-iscsi    tests/iscsi/core_tests.sh short
part bench              tests/bench_smoke.sh

passed=$(grep -c '^PASS:' "$log")
failed=$(grep -c '^FAIL:' "$log")
skipped=$(grep -c '^SKIP:' "$log")
echo "--- time of each part"
printf '%s' "$times"
if [ "$failed_parts" -gt 0 ] && [ "$failed" -eq 0 ]; then
	failed=$failed_parts
fi
grep '^SKIP:' "$log"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
