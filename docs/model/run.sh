#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Searches every state of the model (README.md).
#
#   run.sh small|full [build-directory]
#
# "holds" configurations must be searched to the end without an error; "breaks" are variants
# with a rule taken away, and must show a violation: one that does not is a failure of the run.
set -u
cd "$(dirname "$0")" || exit 1
round=${1:-full}
tree=${2:-../../build/model}
model=$PWD/lockd.pml
mkdir -p "$tree" || exit 1
tree=$(cd "$tree" && pwd)
command -v spin >/dev/null || { echo "model: spin is missing: run \`make deps\`" >&2; exit 1; }

opt=-O2
[ "$round" != small ] || opt=-O0	# compiling is most of its time
mem_mib=7600	# both searches at once stay within 8 GiB: the large ones run alone
bad=0

# search NAME SECONDS FLAGS…: compiles and runs; leaves states and verdict in NAME/result.
search() {
	local name=$1 seconds=$2 kind=-DSAFETY opts=() defs=() d
	shift 2
	local dir=$tree/$name
	rm -rf "$dir" && mkdir -p "$dir" && cd "$dir" || return 1
	for d in "$@"; do
		defs+=("-D$d")
		[ "$d" != LIVENESS ] || { kind=-DNFAIR=6; opts=(-a -f); }
	done
	[ "$kind" != -DSAFETY ] || opts=(-n)
	cp "$model" lockd.pml
	if ! spin -a "${defs[@]}" lockd.pml >spin.log 2>&1 ||
	   ! gcc $opt -w $kind -DCOLLAPSE -DMEMLIM=$mem_mib -o pan pan.c >>spin.log 2>&1; then
		echo "broken 0" >result
		return
	fi
	timeout "$seconds" ./pan -m1000000 "${opts[@]}" >out 2>&1
	local status=$? states
	states=$(awk '/states, stored/ { print $1; exit }' out)
	if [ $status -ne 0 ] || grep -qE 'search depth too small|Search not completed|out of memory' out &&
	   ! grep -qE '^pan:1: (assertion violated|acceptance cycle)' out; then
		echo "unfinished ${states:-0}" >result
	elif grep -q 'errors: 0' out; then
		echo "holds $states" >result
	elif grep -qE '^pan:1: (assertion violated|acceptance cycle)' out; then
		echo "breaks $states" >result
	else
		echo "unfinished ${states:-0}" >result
	fi
}

# expect WANTED NAME SECONDS FLAGS…
expect() {
	local wanted=$1 name=$2 verdict states start=$SECONDS what
	shift
	( search "$@" )
	read -r verdict states <"$tree/$name/result"
	what="model $name ($states states, $((SECONDS - start)) s)"
	[ "$round" = full ] || what="model $name ($states states)"
	if [ "$verdict" != "$wanted" ]; then
		echo "FAIL: $what: $verdict, expected: $wanted"
		tail -n 20 "$tree/$name/spin.log" "$tree/$name/out" 2>/dev/null
		bad=1
	elif [ "$wanted" = breaks ]; then
		echo "PASS: $what: violation found, as must be"
	else
		echo "PASS: $what"
	fi
}

# shellcheck source=/dev/null
. ./configurations.sh
exit $bad
