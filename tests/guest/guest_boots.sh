#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The guests of other tests can be believed: one boots, loads modules, reaches the host, and what goes
# wrong in one is seen.
set -u
. "$(dirname "$0")/lib.sh"

guest_need && guest_kernel cloud || { echo "SKIP: guest boots: $GUEST_WHY"; exit 0; }
work=$(mktemp -d "${TMPDIR:-/tmp}/lunfs-guest-XXXXXX")
trap 'rm -rf "$work"' EXIT
bad=0
echo "  note: $GUEST_RELEASE under $(guest_accel)"

cat >"$work/in" <<'IN'
check "runs the kernel that was asked for" test "$(uname -r)" = "$(cat /etc/release)"
check "has the modules that were asked for, and what they need" grep -q ^virtio_net /proc/modules
guest_net
check "sees the host's loopback" sh -c 'nc 10.0.2.2 $(cat /etc/port) </dev/null | grep -q hello'
check "runs programs of the host with their libraries" /usr/bin/jq -n 1
check "sees its disk" test "$(blockdev --getsize64 /dev/vda)" = 1048576
IN
echo "$GUEST_RELEASE" >"$work/release"
truncate -s 1M "$work/disk"
# The host's end: says hello to whoever connects.
python3 - "$work/port" <<'PY' &
import socket, sys
s = socket.create_server(("127.0.0.1", 0))
s.settimeout(170)
with open(sys.argv[1], "w") as f:
    print(s.getsockname()[1], file=f)
c, _ = s.accept()
c.sendall(b"hello\n")
PY
host=$!
for ((i = 0; i < 1200; i++)); do [ ! -s "$work/port" ] || break; sleep 0.05; done
guest_initrd "$work/initrd" "$work/in" -m virtio_pci,virtio_net,virtio_blk -f "$work/release:/etc/release" \
	-f "$work/port:/etc/port" -f "$(command -v jq):/usr/bin/jq"
guest_run "guest" 160 "$work/initrd" "$work/console" -netdev user,id=n0 -device virtio-net-pci,netdev=n0 \
	-drive "file=$work/disk,format=raw,if=none,id=d0" -device virtio-blk-pci,drive=d0 || bad=1
kill "$host" 2>/dev/null

# A guest that fails, proves nothing, or dies is no success.
noticed() {	# noticed CLAIM CONSOLE-TEXT
	printf '%s\n' "$2" >"$work/said"
	: >"$work/said.qemu"
	if guest_results x "$work/said" 0 1 >/dev/null; then
		echo "FAIL: guest $1 is noticed"
		bad=1
	else
		echo "PASS: guest $1 is noticed"
	fi
}
noticed "whose claim fails" $'GUEST-RESULT: PASS: a\nGUEST-RESULT: FAIL: b\nGUEST-DONE 0'
noticed "that proves nothing" 'GUEST-DONE 0'
noticed "that dies in the middle" 'GUEST-RESULT: PASS: a'
noticed "whose program fails" $'GUEST-RESULT: PASS: a\nGUEST-DONE 1'
exit $bad
