#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fsck.lunfs is killed amid a repair, and amid taking one back, at one write after the other: run
# again, it ends in a clean volume with all files, or in the volume as it was before the repair.
#
# killed.sh [N]: at the Nth write only, as a FAIL line has it.
set -u
cd "$(dirname "$0")/../.."
make -s wreck || exit 1
work=$(mktemp -d "${TMPDIR:-/var/tmp}/lunfs-killed-XXXXXX")
trap 'rm -rf "$work"' EXIT
export LUNFS_LOCK_DIR=$work/locks
export work
bin=$PWD/build/bin
shim=$PWD/build/tests/fsck/kill_at.so
reader=$PWD/tools/lunfs-reader.py

fsck() {	# fsck STATUS option…: of $vol, its words in $dir/log
	local want=$1 status
	shift
	"$bin/fsck.lunfs" "$@" "$vol" >>"$dir/log" 2>&1
	status=$?
	[ $status -eq "$want" ] || { echo "fsck.lunfs $*: status $status, expected $want"; return 1; }
}

# Status: whether it was.  Beats are writes, too: it may end earlier than the last time.
killed() {	# killed N option…
	local n=$1 status
	shift
	LD_PRELOAD=$shim KILL_AT=$n "$bin/fsck.lunfs" "$@" "$vol" >>"$dir/log" 2>&1
	status=$?
	[ $status -eq 137 ] || [ $status -eq 1 ] || { echo "fsck.lunfs $*: status $status"; return 1; }
}

files_of() {	# files_of VOLUME DIR: into it, as another reader has them
	python3 "$reader" get "$1" / "$2"
}

# But for what whoever claims the volume writes: superblocks, host slots, tails of journals.
same_volume() {
	cmp -l "$work/hurt" "$vol" | awk -v own=" $(cat "$work/own") " '
		{ block = int(($1 - 1) / 4096) }
		!index(own, " " block " ") { print "not as it was: block " block; exit 1 }'
}

ends_clean() {
	fsck 0 -n && files_of "$vol" "$dir/files" && diff -r "$work/files" "$dir/files"
}

# A repair that is killed and run again; then all of it is taken back, the second one first.
repair() {
	killed "$n" -y --undo "$dir/undo" || return 1
	"$bin/fsck.lunfs" -y --undo "$dir/undo2" "$vol" >>"$dir/log" 2>&1
	[ $? -le 1 ] || { echo "the second repair fails"; return 1; }
	ends_clean || return 1
	[ ! -e "$dir/undo2" ] || fsck 1 --undo-apply "$dir/undo2" || return 1
	# Nothing had been overwritten: it has no beginning then.
	[ "$(stat -c %s "$dir/undo" 2>/dev/null || echo 0)" -lt 64 ] || fsck 1 --undo-apply "$dir/undo" || return 1
	same_volume
}

# A repair that is killed and taken back.
regret() {
	killed "$n" -y --undo "$dir/undo" || return 1
	[ "$(stat -c %s "$dir/undo" 2>/dev/null || echo 0)" -lt 64 ] || fsck 1 --undo-apply "$dir/undo" || return 1
	same_volume
}

# Taking back that is killed, and done again.
undo() {
	cp --sparse=always "$work/repaired" "$vol"
	killed "$n" --undo-apply "$work/undo" || return 1
	fsck 1 --undo-apply "$work/undo" && same_volume
}

try() {	# try WHAT N
	local what=$1 n=$2 dir=$work/$1-$2 vol
	vol=$dir/volume
	mkdir "$dir"
	cp --sparse=always "$work/hurt" "$vol"
	if "$what" >"$dir/why" 2>&1; then
		echo "PASS $what"
	else
		echo "FAIL: fsck killed: $what, killed at write $n"
		cat "$dir/why" "$dir/log"
	fi
	rm -r "$dir"
}

# The header of the first group, its bitmap and its index of inodes are gone.
hurt() {
	local ag root
	"$bin/lunfs" debug "$work/hurt" super --json >"$work/super" || return 1
	python3 - "$work/super" >"$work/places" <<'EOF' || return 1
import json, sys
s = json.load(open(sys.argv[1]))["blocks"][0]["fields"]
own = [65536, s["copy_addr"], s["size"] - 4096]
own += [s["slots_addr"] + i * 4096 for i in range(s["slot_count"])]
own += [s["journals_addr"] + i * s["journal_size"] + k * 4096 for i in range(s["slot_count"]) for k in (0, 1)]
print(s["ag_addr"] // 4096, s["root"] & ((1 << 40) - 1))
print(*(a // 4096 for a in own))
EOF
	tail -n 1 "$work/places" >"$work/own"
	read -r ag root <"$work/places"
	for block in $((ag + 1)) $((ag + 2)) $((root - 1)); do
		dd if=/dev/zero of="$work/hurt" bs=4096 seek=$block count=1 conv=notrunc status=none
	done
}

unfit() {
	echo "FAIL: fsck killed: one that is not killed"
	cat "$work/log"
	exit 1
}

build/tests/fsck/wreck good "$work/hurt" && files_of "$work/hurt" "$work/files" && hurt || unfit
cp --sparse=always "$work/hurt" "$work/repaired"
dir=$work vol=$work/repaired
count() { LD_PRELOAD=$shim KILL_COUNT=$work/count fsck 1 "$@" && cat "$work/count"; }
repairs=$(count -y --undo "$work/undo") || unfit
cp --sparse=always "$work/repaired" "$work/back"
vol=$work/back
backs=$(count --undo-apply "$work/undo") && same_volume || unfit
rm "$work/back"

points() {	# points LAST STEP: the ones of this run; all of them in STEP runs or more
	seq $((1 + RANDOM % $2)) "$2" "$1"
}
if [ $# -gt 0 ]; then
	points() { echo "$n_only"; }
	n_only=$1
fi
export -f fsck killed files_of same_volume ends_clean repair regret undo try
export bin shim reader
# They wait for the heartbeats of the one that was killed, nearly all of the time.
{
	for n in $(points "$repairs" 8); do echo "repair $n"; done
	for n in $(points "$repairs" 8); do echo "regret $n"; done
	for n in $(points "$backs" 5); do echo "undo $n"; done
} | xargs -P 40 -L 1 bash -c 'try "$0" "$1"' >"$work/results" 2>&1
bad=0
verdict() {	# verdict WHAT CLAIM
	local passed
	passed=$(grep -c "^PASS $1\$" "$work/results")
	if [ "$passed" -gt 0 ] && ! grep -q "^FAIL: fsck killed: $1," "$work/results"; then
		echo "PASS: fsck killed: $2 ($passed writes)"
	else
		bad=1
	fi
}
verdict repair "a repair that is run again ends clean, and both are taken back"
verdict regret "a repair that is taken back was none, and can be done"
verdict undo "taking back that is done again ends where the repair began"
[ $bad -eq 0 ] || grep -v "^PASS " "$work/results"
exit $bad
