#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A launcher that was taken over by its guest opens nothing: tests/kvm/breakout.c tries.
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/kvm/lib.sh"
need_kvm "kvm breakout"
attempts=36
program=$top/${BUILD:-build}/tests/kvm/lunvm_breakout

# try THREAD "ATTEMPT [root=full]": its result is in $work/said
try() {
	timeout -s KILL 120 "$program" run --run-dir "$work/vm-x" --name x --memory 16M --kernel "$payload" \
		--cmdline "op=count breakout=$1,$2" >"$work/said" 2>&1 &
	local vm=$!
	if [ "$1" = events ]; then
		wait_for 60 sh -c "timeout 60 '$program' --run-dir '$work/vm-x' console x </dev/null >/dev/null 2>&1"
	fi
	wait $vm 2>/dev/null
	grep -q "breakout: tries" "$work/said" || fail "attempt $2 was not made: $(cat "$work/said")"
}

for thread in main cpu events; do
	story "the $thread thread of a launcher that was taken over opens nothing"
	killed=0
	for ((i = 0; i < attempts; i++)); do
		try $thread $i
		if grep -q "may not make" "$work/said"; then
			killed=$((killed + 1))
		else
			grep -q "breakout: refused" "$work/said" || fail "attempt $i: $(cat "$work/said")"
		fi
	done
	# A filter that lets everything through would leave the rest to chance.
	[ $killed -ge $((attempts - 2)) ] || fail "the filter ended only $killed of $attempts"
done

story "without the filter there is still nothing to open"
for i in 0 2 17 33; do
	LUNFS_SECCOMP=log try main $i
	grep -q "breakout: refused" "$work/said" || fail "attempt $i: $(cat "$work/said")"
done

story "with neither filter nor empty root directory Landlock refuses, or nothing starts"
if "$program" run --run-dir "$work/vm-x" --name x --memory 16M --kernel "$payload" --cmdline "op=off root=full" \
	>"$work/said" 2>&1; then
	for i in 0 1 2 17 33; do
		LUNFS_SECCOMP=log try main "$i root=full"
		grep -q "breakout: refused" "$work/said" || fail "attempt $i: $(cat "$work/said")"
	done
	note "Landlock refuses"
else
	grep -q "neither an empty root directory nor Landlock" "$work/said" || fail "$(cat "$work/said")"
	note "this kernel has no Landlock: the machine is not started"
fi

story "an attempt that was not made is told from one that was refused"
try main $attempts
grep -q "no such attempt" "$work/said" || fail "$(cat "$work/said")"
finish
