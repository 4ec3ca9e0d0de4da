#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a test's guest (tests/guest/lib.sh): mounts, loads the modules, runs /test in a shell that
# has the functions below, says how it ended and switches the machine off.

pass() { echo "GUEST-RESULT: PASS: $*"; }
fail() { echo "GUEST-RESULT: FAIL: $*"; }
skip() { echo "GUEST-RESULT: SKIP: $1: $2"; }

# check NAME COMMAND…: passes if it succeeds; what it prints is on the console either way.
check() {
	local name=$1
	shift
	if "$@"; then pass "$name"; else fail "$name"; fi
}

# wait_for SECONDS COMMAND…: until it succeeds
wait_for() {
	local end=$(($(cut -d. -f1 /proc/uptime) + $1))
	shift
	until "$@"; do
		[ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || return 1
		usleep 100000
	done
}

# guest_net: eth0 on QEMU's user-mode network; the host's loopback is 10.0.2.2.
guest_net() {
	ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2
}

# Not process 1: a program of the test wants the functions (`. /init`).
if [ $$ -ne 1 ]; then
	return 0
fi
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ip link set lo up
while read -r module; do
	insmod "$module" || echo "cannot load $module"
done </etc/modules
(. /test)
echo "GUEST-DONE $?"
sync
# Late 6.1 kernels break virtio devices while they shut down; who still sends then spins in virtio_net's start_xmit()
# for ever (seen: the monitor's registers in there, a ring that was reset).
ip link set eth0 down 2>/dev/null
poweroff -f
