#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the unit tests of one build tree, one a processor at a time:
# tests/unit.sh build-address-undefined
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
programs=
for t in $(make -s SAN="$san" print_unit_programs); do
	[ "$san" != thread ] || grep -q "${t#"$tree"/tests/}" tests/threaded.txt || continue
	programs="$programs $t"
done
# shellcheck disable=SC2086
make -s -j"$(nproc)" SAN="$san" $programs || exit 1

# What went wrong, of a log, in a line: the case in which its time was over (tests/unit.c), or the first fault that a
# sanitizer, assert() or CUnit tells, with the first two places of a report (of a race both sides), else the last line.
fault_in() {
	local facts
	facts=$(grep -aEm1 '^HANGS: |runtime error: |^SUMMARY: |^FATAL: |CHECK failed|Assertion .* failed|^ +[0-9]+\. [^ ]+:[0-9]+ +- ' "$1" &&
		grep -aEm2 '^ +#0 ' "$1")
	sed 's/^ *//; s/ ([^ ]*+0x[0-9a-f]*)$//; s/ 0x[0-9a-f]* in / /' <<<"${facts:-$(tail -n 1 "$1")}" | paste -sd ';'
}

# The places of PROGRAM, as backtrace_symbols_fd(3) writes them in its log, become functions and lines.
name_places() {	# name_places PROGRAM
	local line
	while IFS= read -r line; do
		if [[ $line =~ ^"$1"\(\+(0x[0-9a-f]+)\) ]]; then
			line="    $(addr2line -fspe "$1" "${BASH_REMATCH[1]}" 2>/dev/null || echo "$line")"
		fi
		echo "$line"
	done
}

run_one() {	# run_one PROGRAM; its output in one piece
	local t=$1 name=${1#"$tree"/tests/} status
	rm -f "$t.sites"
	LUNFS_NOMEM_SITES=$t.sites timeout -k 30 300 "$t" >"$t.log" 2>&1
	status=$?
	if [ $status -eq 0 ]; then
		echo "PASS: $tree $name"
	else
		echo "FAIL: $tree $name (exit status $status): $(fault_in "$t.log")"$'\n'"$(tail -n 60 "$t.log" | name_places "$t")"
		return 1
	fi
}
export -f run_one fault_in name_places
export tree

bad=0
# The last ones, of tests/nomem/, take longest: with them first no processor is left over at the end.
printf '%s\n' $programs | tac | xargs -P "$(nproc)" -I {} bash -c 'run_one {}' || bad=1
# The sanitizers look at a sample only.
if [ "$tree" = build ]; then
	tests/nomem/coverage.sh "$tree" || bad=1
fi
exit $bad
