#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The check's memory: 100,000 and 200,000 files spread over 64 TiB, worked out while they are read; what
# the second hundred thousand cost, times a hundred, is what ten million may have.  And a repair's of damage
# to all of them.
set -u
cd "$(dirname "$0")/../.."
make -s bench_programs || exit 1
bad=0

check() {	# check FILES [--repair]: the result as JSON
	build/tools/bench/check_bench plan --files "$@" 2>/dev/null || echo '{}'
}

value() { python3 -c 'import json,sys; print(json.loads(sys.argv[1]).get(sys.argv[2], -1))' "$1" "$2"; }

few=$(check 100000)
many=$(check 200000)
repaired=$(check 100000 --repair)
mass=$(check 100000 --damage no-dirs)
nowhere=$(check 20000 --damage nowhere --size 8T)

if [ "$(value "$few" files)" = 100000 ] && [ "$(value "$many" files)" = 200000 ] &&
	[ "$(value "$many" errors)" = 0 ]; then
	echo "PASS: fsck finds 200,000 files scattered over 64 TiB, and nothing wrong"
else
	echo "FAIL: fsck finds 200,000 files scattered over 64 TiB, and nothing wrong: $few $many"
	bad=1
fi

# Each of these files' clusters has parts of the bitmap to itself, so they cost more than ten million do.
each=$((($(value "$many" peak_kib) - $(value "$few" peak_kib)) * 1024 / 100000))
if [ "$each" -gt 0 ] && [ "$each" -le 250 ] && [ "$(value "$few" peak_kib)" -le 100000 ]; then
	echo "PASS: fsck remembers $each bytes of each of 100,000 files scattered over 64 TiB"
else
	echo "FAIL: fsck remembers $each bytes of a file: $few $many"
	bad=1
fi

if [ "$(value "$repaired" repaired)" = 2 ] && [ "$(value "$repaired" errors)" = 0 ] &&
	[ "$(value "$repaired" peak_kib)" -le $(($(value "$few" peak_kib) + 10000)) ]; then
	echo "PASS: fsck repairs it in the same memory"
else
	echo "FAIL: fsck repairs it in the same memory: $repaired"
	bad=1
fi

# A name to be given back is 16 bytes; with the names themselves it was 280, and as many as files.
if [ "$(value "$mass" files)" = 100000 ] && [ "$(value "$mass" errors)" = 0 ] &&
	[ "$(value "$mass" peak_kib)" -le $(($(value "$few" peak_kib) + 12000)) ]; then
	echo "PASS: fsck gives 100,000 files the names back that lost directories had, in the same memory"
else
	echo "FAIL: fsck gives 100,000 files the names back that lost directories had, in the same memory: $mass"
	bad=1
fi

if [ "$(value "$nowhere" files)" = 20000 ] && [ "$(value "$nowhere" errors)" = 0 ] &&
	[ "$(value "$nowhere" rounds)" -le 6 ]; then
	echo "PASS: fsck puts 20,000 files whose directories are gone into lost+found"
else
	echo "FAIL: fsck puts 20,000 files whose directories are gone into lost+found: $nowhere"
	bad=1
fi

# A request a block, for 200,000 files' worth of them, would be 50,000 more.
if [ "$(value "$many" reads)" -le 180000 ]; then
	echo "PASS: fsck reads in large pieces"
else
	echo "FAIL: fsck reads in large pieces: $many"
	bad=1
fi
exit $bad
