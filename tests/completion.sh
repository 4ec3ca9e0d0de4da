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

check "a command behind a value" handover "$(offered lunfs --to beta --iops 5 disk han)"

# What lunvm compares the command with, not its --help.
lunvm_commands=$(grep -oE 'strcmp\(argv\[0\], "[a-z]+"' kvm/lunvm_main.c | cut -d'"' -f2
	sed -n '/^bool cmd_is_request/,/};/p' kvm/cmd.c | grep -oE '"[a-z]+"' | tr -d '"')
check "lunvm commands" "$(echo "$lunvm_commands" | sort -u)" "$(offered lunvm "")"
check "lunvm commands behind an option" run "$(offered lunvm --json --run-dir /x ru)"
check "a value of --on-reset" "$(printf '%s\n' exit restart)" "$(offered lunvm run --on-reset "")"
# A stand-in for machines that run: its name is its answer.
lunvm() { echo NAME; [ "$*" = "--run-dir /x list" ] && echo web1 running && echo web2 paused; }
check "machines that run" "$(printf '%s\n' web1 web2)" "$(offered lunvm --run-dir /x status "")"
# And one for a daemon with a datastore, which is no host.
lunfs() { echo '  "label": "ds1"'; }
check "a datastore" ds1 "$(offered lunfs disk info "")"
check "no datastore where a host is meant" "none" "none$(offered lunfs disk handover ds1:/d --to "")"
exit $bad
