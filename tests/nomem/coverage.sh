#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every call in the product that allocates has failed in some test: tests/nomem/coverage.sh TREE
#
# The programs of tests/nomem/ wrote down which calls they made fail (PROGRAM.sites); all calls
# that there are stand in the programs themselves.  What no test can reach is in tests/nomem/exempt.
set -u
cd "$(dirname "$0")/../.."
tree=$1
all=$(mktemp) failed=$(mktemp)
trap 'rm -f "$all" "$failed"' EXIT

# "file:line function count" of return addresses and counts on stdin; a call ends a byte before.
lines() {
	local addresses counts
	addresses=$(mktemp) counts=$(mktemp)
	while read -r a n; do
		printf '%x\n' $((16#$a - 1)) >>"$addresses"
		echo "${n:-0}" >>"$counts"
	done
	addr2line -fe "$1" <"$addresses" | paste -d' ' - - | sed "s| (disc.*||; s| $PWD/| |" |
		awk '{ print $2, $1 }' | paste -d' ' - "$counts"
	rm -f "$addresses" "$counts"
}

for program in "$tree"/tests/nomem/*_test; do
	[ -e "$program.sites" ] || continue
	# What follows each call of a function of nomem.c, outside of that itself.
	objdump -d --no-show-raw-insn "$program" | awk '
		/^[0-9a-f]+ <.*>:$/ { inside = $2 ~ /^<(nomem_|line_get|text_got)/ }
		wanted { sub(":", "", $1); print $1; wanted = 0 }
		!inside && /call.*<nomem_/ && !/<nomem_(free|arm|disarm|hits|live|where|note|threads)>/ { wanted = 1 }
	' | lines "$program" >>"$all"
	lines "$program" <"$program.sites" >>"$failed"
done
for module in base block lockd fs fuse daemon; do
	places=$(grep "^$module/" "$all" | cut -d' ' -f1 | sort -u | wc -l)
	hit=$(grep "^$module/" "$failed" | cut -d' ' -f1 | sort -u | wc -l)
	times=$(grep "^$module/" "$failed" | awk '{ n += $3 } END { print n + 0 }')
	[ "$places" -eq 0 ] || echo "  note: allocations of $module/ made to fail: $times, in $hit of $places places"
done
# "path function: why", both patterns of the shell, as regular expressions of "path:line function".
exempt=$(sed -n 's/^\([a-z][^ ]*\) \([^ :]*\): .*/^\1:[0-9]* \2$/p' tests/nomem/exempt | sed 's/\*/[^ ]*/g; s/0-9\]\[^ \]\*/0-9]*/')
missed=$(grep -E '^(base|block|lockd|fs|fuse|daemon)/' "$all" | cut -d' ' -f1,2 | sort -u |
	grep -vxF -f <(cut -d' ' -f1,2 "$failed") | grep -v -f <(echo "$exempt"))
if [ -n "$missed" ]; then
	echo "FAIL: nomem coverage"
	echo "these calls allocate, and no test of tests/nomem/ has made them fail:"
	echo "$missed"
	exit 1
fi
echo "PASS: nomem coverage"
