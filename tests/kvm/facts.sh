#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# facts.sh NAME DISK: what keeps the machine NAME of lunvm's, its launcher and its daemon busy, for a test that finds
# its guest silent: threads (what each did within a second, and where in the kernel it is), KVM's counters in that second,
# what launcher and daemon say.  LUNVM and LUNFS are the commands with their options.  Also run by busybox, in a
# host that is a machine itself.
# shellcheck disable=SC2086
name=$1 disk=$2
LUNVM=${LUNVM:-lunvm} LUNFS=${LUNFS:-lunfs}

# Of each thread of the processes: name, state, clock ticks it has run, how often it has slept, where it is.
threads() {
	for pid in "$@"; do
		for task in /proc/"$pid"/task/*; do
			[ -r "$task/stat" ] || continue
			sed 's/^[0-9]* (\(.*\)) \(.*\)$/\2/' "$task/stat" | {
				read -r state _ _ _ _ _ _ _ _ _ _ user system _
				echo "$(tr ' ' - <"$task/comm")/${task##*/} $state $((user + system))" \
					"$(sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' "$task/status")" \
					"$(cat "$task/wchan" 2>/dev/null)"
			}
		done
	done
}

counters() {	# KVM's, of all machines together
	for what in exits halt_exits halt_wakeup irq_injections io_exits mmio_exits signal_exits; do
		sed "s/^/$what /" /sys/kernel/debug/kvm/$what 2>/dev/null
	done
}

# What two looks a second apart say: by how much figures have grown.  Threads that hardly ran only count.
grown_threads() {
	awk 'NR == FNR { run[$1] = $3; slept[$1] = $4; next }
		$2 == "S" && $3 == run[$1] && $1 !~ /^(vcpu|events|reactor)/ { idle++; next }
		{ printf "%s %s +%d +%d %s; ", $1, $2, $3 - run[$1], $4 - slept[$1], $5 }
		END { printf "%d asleep", idle }' "$1" "$2"
}

grown_counters() {
	awk 'NR == FNR { before[$1] = $2; next } { printf "%s +%d ", $1, $2 - before[$1] }' "$1" "$2"
}

dir=$(mktemp -d /tmp/lunfs-facts-XXXXXX) || exit
status=$(timeout 10 $LUNVM status "$name" --json 2>&1)
worker=$(echo "$status" | sed -n 's/.*"worker_pid": *\([0-9]*\).*/\1/p')
daemon=$(timeout 10 $LUNFS status 2>&1 | sed -n 's/.*worker \([0-9]*\).*/\1/p')
threads $worker $daemon >"$dir/threads.1"
counters >"$dir/kvm.1"
sleep 1
threads $worker $daemon >"$dir/threads.2"
counters >"$dir/kvm.2"
echo "threads (state, ticks and sleeps in a second, where): $(grown_threads "$dir/threads.1" "$dir/threads.2")"
[ ! -s "$dir/kvm.2" ] || echo "KVM in a second: $(grown_counters "$dir/kvm.1" "$dir/kvm.2")"
echo "lunvm: $(echo "$status" | tr -s ' \n' ' ')"
echo "daemon: $(timeout 10 $LUNFS metrics 2>&1 | sed -n 's/^lunfs_\(disk_\(connected\|open\|paused\|no_space\|in_flight\|errors_total\|slow_total\|requests_total\)\|lease_valid\|lease_age_seconds\|stalls_total\|lock_waits_total\|reactor_[a-z]*_total\){\(.*op="\([a-z]*\)"\)\?.*} /\1 \4 /p' | tr -s ' \n' ' ')"
echo "lock: $(timeout 10 $LUNFS lock show "$disk" 2>&1 | tr -s ' \n' ' ')"
echo "clock: $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource), load $(cat /proc/loadavg)"
rm -rf "$dir"
