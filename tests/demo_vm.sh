#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The end of `make demo`: a virtual machine on the datastore, whose host dies, and which runs on the other one.
#
# With the best guest that this machine can run: Debian's kernel where KVM runs a Linux; a program
# without a system, with a virtio-blk driver, where KVM runs that; else Debian's kernel again, in two
# hosts of QEMU's.
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/kvm/lib.sh"
. "$top/tests/guest/lib.sh"

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() {
	echo "  \$ ${*//$bin\//}"
	"$@" || fail "that went wrong"
}

watch_alpha= watch_beta=
# shellcheck disable=SC2317,SC2086
leave() {
	kill $watch_alpha $watch_beta 2>/dev/null
	for host in alpha beta; do
		"$bin/lunvm" --run-dir "$work/vm-$host" kill web1 2>/dev/null
	done
	cleanup
}
trap leave EXIT

began=$SECONDS
story "a virtual machine outlives its host"
say "A virtual machine on the datastore."
[ "$(id -u)" -eq 0 ] || skip_all "demo of a machine" "needs root"
if guest_need && guest_kernel cloud && [ "$(guest_accel)" = kvm ]; then
	echo "  Rung c: Debian's kernel, directly under this machine's KVM:"
	exec "$top/tests/kvm/linux.sh"
fi
if ! [ -c /dev/kvm ] || ! "$bin/lunvm" run --run-dir "$work/vm-x" --name x --memory 16M --kernel "$payload" \
	--cmdline op=off >/dev/null 2>&1; then
	echo "  Rung d: this machine's KVM runs no guest: Debian's kernel in two hosts of QEMU's, which takes some minutes:"
	exec "$top/tests/kvm/linux.sh"
fi
echo "  Rung b: a test guest without a system, under this machine's KVM (it does not run a Linux)."

target_start 127.0.0.1
run "$bin/mkfs.lunfs" -q -L ds1 "$lun"
for host in alpha beta; do
	host_start $host
	ctl $host attach "$lun" || fail "$host does not attach"
done
host_mount alpha
mkdir "$(mnt alpha)/web1"
cp "$payload" "$(mnt alpha)/web1/kernel"
run "$bin/lunfs" --run-dir "$work/run-alpha" disk create ds1:/web1/root.disk --size 256M
cat >"$(mnt alpha)/web1/web1.conf" <<CONF
name = web1
memory = 64M
kernel = kernel
cmdline = op=life n=5000 qd=16
disk = root.disk
autostart = yes
CONF
sed 's/^/    /' "$(mnt alpha)/web1/web1.conf"
host_umount alpha

console() { timeout 2 "$bin/lunvm" --run-dir "$work/vm-$1" console web1 </dev/null 2>/dev/null; }
# shellcheck disable=SC2317
says() { console "$1" | grep -q "$2"; }

say "Every host runs \"lunvm autostart --watch\"; alpha is the first to see it."
for host in alpha beta; do
	"$bin/lunvm" autostart --watch --run-dir "$work/vm-$host" --daemon-dir "$work/run-$host" ds1 \
		>"$work/watch-$host.log" 2>&1 &
	eval "watch_$host=$!"
	[ $host = beta ] || wait_for 20 says alpha "life 1 has written" || fail "it does not run"
done
cat "$work/watch-alpha.log"
run "$bin/lunvm" --run-dir "$work/vm-alpha" status web1
run "$bin/lunfs" --run-dir "$work/run-beta" lock show ds1:/web1/root.disk
console alpha

say "alpha dies: its daemon, its launcher, at once."
launcher=$(vm_pid alpha web1 pid)
kill -KILL "$watch_alpha"
host_kill alpha
kill -KILL "$launcher"
start=$(date +%s%N)
wait_for 60 says beta "life 2 has written" || fail "nobody runs it: $(cat "$work/watch-beta.log")"
cat "$work/watch-beta.log"
console beta
echo "  Running on beta, with all that it had written, $((($(date +%s%N) - start) / 1000000)) ms after the crash."
says beta "that are wrong: 0" || fail "its data is not there"
run "$bin/lunvm" --run-dir "$work/vm-beta" list
kill "$watch_beta"
run "$bin/lunvm" --run-dir "$work/vm-beta" kill web1
host_stop beta
check_volume
took=$((SECONDS - began))
say "The machine outlived its host; all of it took $took s."
[ $took -lt 120 ] || fail "it is to take less than two minutes"
finish
