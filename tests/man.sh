#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Manual pages: one for every program, clean under mandoc, options as --help prints them.
set -u
cd "$(dirname "$0")/.."
bad=0

check() {	# check NAME COMMAND…
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "PASS: man $name"
	else
		echo "FAIL: man $name"
		echo "$out"
		bad=1
	fi
}

# Every long option that --help names is in the page, and the other way round.
same_options() {
	local program=$1 page=$2 help
	help=$("$program" --help 2>&1 | grep -oE -- '--[a-z][a-z-]+' | sort -u)
	[ -n "$help" ] || { echo "$program --help names no option"; return 1; }
	diff <(echo "$help") \
	     <(mandoc -T ascii "$page" | col -b | tr -d '\255' |
	       grep -oE -- '--[a-z][a-z-]+' | sort -u)
}

# mandoc looks for the pages that a page refers to among the installed ones: ours are not, and a
# machine may have been installed without any.  Ours are looked for here instead.
clean() {
	local complaints ref
	complaints=$(mandoc -T lint -W style "$1" | grep -v -e 'referenced manual not found' \
		-e 'outdated mandoc.db')
	[ -z "$complaints" ] || { echo "$complaints"; return 1; }
	for ref in $(sed -n 's/^\.Xr \([a-z.]*lunfs[a-z.]*\) \([1-8]\).*/\1.\2/p' "$1"); do
		[ -e "docs/man/$ref" ] || { echo "refers to $ref, which is not there"; return 1; }
	done
}

for page in docs/man/*.[1-8]; do
	check "$(basename "$page") lint" clean "$page"
done
for program in build/bin/*; do
	name=$(basename "$program")
	page=$(ls docs/man/"$name".[1-8] 2>/dev/null)
	check "$name has a page" test -n "$page"
	[ -z "$page" ] || check "$name options" same_options "$program" "$page"
done
exit $bad
