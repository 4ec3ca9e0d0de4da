#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Completion in bash offers every option and every command that --help names, and nothing else.
set -u
cd "$(dirname "$0")/.."
PATH=$PWD/build/bin:$PATH
. tools/completion.bash
bad=0

check() {	# check NAME EXPECTED GOT
	if [ -n "$2" ] && [ "$2" = "$3" ]; then
		echo "PASS: completion $1"
	else
		echo "FAIL: completion $1"
		diff <(echo "$2") <(echo "$3")
		bad=1
	fi
}

offered() {	# offered WORD…: what completes the last one
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMPREPLY=()
	$(complete -p "$1" 2>/dev/null | sed 's/.*-F \([a-z_]*\) .*/\1/')
	printf '%s\n' "${COMPREPLY[@]}" | sort -u
}

for program in build/bin/*; do
	name=$(basename "$program")
	check "$name options" "$("$name" --help 2>&1 | grep -oE -- '--[a-z][a-z-]*' | sort -u)" \
		"$(offered "$name" --)"
done

# The table that the program itself goes by, not its --help.
table=$(sed -n 's/^	{ "\([a-z]*\)", \(NULL\|"\([a-z]*\)"\), [0-9].*/\1 \3/p' tools/lunfs_main.c)
check "lunfs commands" "$( (echo "$table" | cut -d' ' -f1; echo debug; echo scan; echo selftest) | sort -u)" \
	"$(offered lunfs "")"
for first in $(echo "$table" | awk '$2 { print $1 }' | sort -u); do
	check "lunfs $first" "$(echo "$table" | awk -v f="$first" '$1 == f { print $2 }' | sort -u)" \
		"$(offered lunfs "$first" "")"
done
check "lunfs disk snapshot" "$(printf '%s\n' create delete list revert)" \
	"$(offered lunfs disk snapshot "")"
check "a word that was begun" discard "$(offered lunfs --run-dir /x disk dis)"
check "a value of --format" "$(printf '%s\n' vhdx vmdk)" "$(offered lunfs disk import --format v)"
exit $bad
