#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every fuzzer's corpus and a fixed number of mutations of it, under ASan and UBSan: the same
# inputs each time.  `make fuzz` searches for new ones.
#
# What bounds a run is its work: so many inputs, of 30 s of the processor and 512 MiB each
# (driver.c).  The time on the clock is for what waits for ever, however busy the machine.
set -u
cd "$(dirname "$0")/../.."

tree=build-address-undefined
make -s -j"$(nproc)" SAN=address,undefined fuzz_programs || exit 1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
bad=0
done_names=
while read -r name mutations; do
	done_names="$done_names $name"
	program=$tree/tests/fuzz/${name}_fuzz
	if timeout 600 "$program" -n "$mutations" "tests/fuzz/corpus/$name" >"$program.log" 2>&1; then
		echo "PASS: fuzz $name ($(tail -n 1 "$program.log"))"
	else
		echo "FAIL: fuzz $name (exit status $?)"
		tail -n 60 "$program.log"
		bad=1
	fi
done <<-LIST
	block	20000
	config	20000
	conn	4000
	control	20000
	kvm	40000
	login	20000
	target	20000
	lun	20000
	ring	3000
	scsi	4000
	text	20000
	vhost	3000
	volume	150
LIST
names=$(make -s print_fuzz_names)
if [ "$(echo "$names" | xargs -n 1 | sort)" = "$(echo "$done_names" | xargs -n 1 | sort)" ]; then
	echo "PASS: fuzz no fuzzer is left out"
else
	echo "FAIL: fuzz no fuzzer is left out: there are $names, run were$done_names"
	bad=1
fi
exit $bad
