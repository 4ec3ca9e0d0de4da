#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the unit tests of one build tree: tests/unit.sh build-address-undefined
set -u
cd "$(dirname "$0")/.."

tree=$1
case $tree in
build) san= ;;
build-thread) san=thread ;;
build-address-undefined) san=address,undefined ;;
*) echo "unit.sh: unknown build tree $tree" >&2; exit 2 ;;
esac

# Undefined behaviour is a failure, not a line in a log that nobody reads.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
make -s -j"$(nproc)" SAN="$san" unit_programs || exit 1
bad=0
for t in $(make -s SAN="$san" print_unit_programs); do
	name=${t#"$tree"/tests/}
	if [ "$san" = thread ] && ! grep -q "$name" tests/threaded.txt; then
		continue
	fi
	rm -f "$t.sites"
	if LUNFS_NOMEM_SITES=$t.sites timeout 120 "$t" >"$t.log" 2>&1; then
		echo "PASS: $tree $name"
	else
		echo "FAIL: $tree $name (exit status $?)"
		tail -n 60 "$t.log"
		bad=1
	fi
done
# The sanitizers look at a sample only.
if [ "$tree" = build ]; then
	tests/nomem/coverage.sh "$tree" || bad=1
fi
exit $bad
