#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tests/fuzz/long.sh SECONDS NAME…: libFuzzer on each fuzzer for that long.  What it finds to be
# new goes to build-fuzz/corpus/NAME, what fails to build-fuzz/NAME-*: fix it, then keep the
# input in tests/fuzz/corpus/NAME.
set -u
cd "$(dirname "$0")/../.."

seconds=$1
shift
san=address,undefined,fuzzer-no-link
command -v clang >/dev/null || { echo "fuzz: needs clang and libclang-rt-14-dev" >&2; exit 1; }
# gcc's warnings are the ones that bind us: clang's are shown and stop nobody.  It does not say by a
# macro what it instruments.
make -s -j"$(nproc)" CC=clang SAN=$san CPPFLAGS=-D__SANITIZE_ADDRESS__=1 \
	WARN="-Wall -Wno-gnu-variable-sized-type-not-at-end" fuzz_programs || exit 1
# libFuzzer's -timeout is of the clock: on a busy machine an input of a second has taken 29.
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
bad=0
for name in "$@"; do
	mkdir -p "build-fuzz/corpus/$name"
	if "build-${san//,/-}/tests/fuzz/${name}_fuzz" -max_total_time="$seconds" -timeout=300 \
		-rss_limit_mb=2048 -max_len=8192 -print_final_stats=1 \
		-artifact_prefix="build-fuzz/$name-" \
		"build-fuzz/corpus/$name" "tests/fuzz/corpus/$name" 2>"build-fuzz/$name.log"; then
		echo "PASS: fuzz $name ($(sed -n 's/^stat::number_of_executed_units: *//p' \
			"build-fuzz/$name.log") inputs)"
	else
		echo "FAIL: fuzz $name"
		tail -n 60 "build-fuzz/$name.log"
		bad=1
	fi
done
exit $bad
