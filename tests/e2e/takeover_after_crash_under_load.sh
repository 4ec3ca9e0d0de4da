#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 at random moments while two hosts write; what was fsynced must be there afterwards.
. "$(dirname "$0")/lib.sh"
need_fuse takeover_after_crash_under_load

load=$top/tests/e2e/verify_load.py
rounds=${ROUNDS:-3}
make_volume 4G
host_start alpha
host_start beta
host_mount alpha
host_mount beta
mkdir "$(mnt alpha)/from-alpha" "$(mnt beta)/from-beta"

victim=alpha
other=beta
for round in $(seq 1 "$rounds"); do
	story "round $round: $victim is killed under load, $other goes on, nothing fsynced is lost"
	for h in alpha beta; do
		"$load" write "$(mnt $h)/from-$h" "$work/ledger-$h" $((round * 100 + RANDOM)) 5 \
			>"$work/load-$h.out" 2>&1 &
		eval "load_$h=$!"
	done
	sleep "1.$((RANDOM % 100))"
	host_kill $victim
	clock_start $other
	eval "wait \$load_$victim"
	wait_for 60 sh -c "echo x 2>/dev/null >'$(mnt $other)/from-$victim/probe'" ||
		fail "$other never got $victim's directory"
	took=$(clock_ms)
	note "takeover took $took ms"
	[ "$took" -le 8000 ] || fail "takeover took $took ms"
	eval "wait \$load_$other" || fail "$other's load was disturbed: $(cat "$work/load-$other.out")"
	"$load" check "$(mnt $other)/from-$victim" "$work/ledger-$victim" || fail "$victim's data"
	"$load" check "$(mnt $other)/from-$other" "$work/ledger-$other" || fail "$other's data"
	umount -l "$(mnt $victim)"
	rm -f "$work/ledger-"*
	rm -rf "$(mnt $other)/from-$victim" "$(mnt $other)/from-$other"
	mkdir "$(mnt $other)/from-$victim" "$(mnt $other)/from-$other"
	host_start $victim
	host_mount $victim
	t=$victim
	victim=$other
	other=$t
done

story "the volume is clean after all of that"
host_umount alpha
host_umount beta
host_stop alpha || fail "alpha's lunfsd ended with $?"
host_stop beta || fail "beta's lunfsd ended with $?"
check_volume

story "a daemon that restarts gets its own slot back at once"
host_start alpha
host_mount alpha
"$load" write "$(mnt alpha)" "$work/ledger-alpha" 5 1 >/dev/null || fail "load"
host_kill alpha
umount -l "$(mnt alpha)"
start=$(date +%s%N)
host_start alpha
host_mount alpha
took=$((($(date +%s%N) - start) / 1000000))
note "restart and mount took $took ms"
[ "$took" -le 3000 ] || fail "its own slot took $took ms"
"$load" check "$(mnt alpha)" "$work/ledger-alpha" || fail "data after the restart"
host_umount alpha
host_stop alpha
check_volume
finish
