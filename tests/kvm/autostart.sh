#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Machines that are highly available: of the hosts that see a configuration on the datastore one runs it, and
# when that one dies another does, exactly once.
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/kvm/lib.sh"
need_kvm "kvm autostart"
need_fuse "kvm autostart"

declare -A watcher=()
watch() {	# watch HOST
	"$bin/lunvm" --run-dir "$work/vm-$1" --daemon-dir "$work/run-$1" autostart --watch ds1 \
		>>"$work/watch-$1.log" 2>&1 &
	watcher[$1]=$!
}
vms_kill() {
	local host pid
	for pid in "${watcher[@]}"; do kill "$pid" 2>/dev/null; done
	for host in alpha beta gamma; do vm $host kill web1 2>/dev/null; vm $host kill web2 2>/dev/null; done
	cleanup
}
trap vms_kill EXIT
running() { vm "$1" status "$2" >/dev/null 2>&1; }
count_running() {	# count_running NAME HOST…: on how many of these it runs
	local name=$1 host n=0
	shift
	for host in "$@"; do ! running "$host" "$name" || n=$((n + 1)); done
	echo $n
}

story "a host that comes up starts what nobody runs"
make_volume 1G
host_start alpha
host_mount alpha
for name in web1 web2 off; do
	mkdir "$(mnt alpha)/$name"
	cp "$payload" "$(mnt alpha)/$name/kernel"
	ctl alpha disk create ds1:/$name/root.disk --size 64M || fail "no disk"
	cat >"$(mnt alpha)/$name/$name.conf" <<-CONF
		name = $name
		memory = 32M
		kernel = kernel
		cmdline = op=stress n=200 qd=4 rounds=100000000
		disk = root.disk
		autostart = yes
	CONF
done
sed -i 's/= yes/= no/' "$(mnt alpha)/off/off.conf"
mkdir "$(mnt alpha)/nothing"
host_umount alpha
host_start beta
host_start gamma
for host in alpha beta gamma; do
	ctl $host attach "$lun" || fail "$host does not attach"
done
watch alpha
wait_for 20 running alpha web1 || fail "web1 does not run: $(cat "$work/watch-alpha.log")"
wait_for 20 running alpha web2 || fail "web2 does not run"
running alpha off && fail "a machine runs that is not to"

story "other hosts leave it alone"
watch beta
watch gamma
sleep 5
[ "$(count_running web1 alpha beta gamma)" = 1 ] && running alpha web1 || fail "it runs elsewhere"

story "a machine that was stopped stays so"
vm alpha kill web2 || fail "cannot be killed"
sleep 5
[ "$(count_running web2 alpha beta gamma)" = 0 ] || fail "it runs again"

story "when its host dies exactly one other host runs it"
kill -KILL "${watcher[alpha]}"
launcher=$(vm_pid alpha web1 pid)
host_kill alpha
kill -KILL "$launcher"
started=$(date +%s%N)
wait_for 40 sh -c "'$bin/lunvm' --run-dir '$work/vm-beta' status web1 >/dev/null 2>&1 ||
	'$bin/lunvm' --run-dir '$work/vm-gamma' status web1 >/dev/null 2>&1" ||
	fail "nobody runs it: $(cat "$work"/watch-*.log)"
note "$((($(date +%s%N) - started) / 1000000)) ms after the crash"
sleep 5
[ "$(count_running web1 beta gamma)" = 1 ] || fail "it runs on $(count_running web1 beta gamma) hosts"
[ "$(count_running web2 beta gamma)" = 0 ] || fail "what was stopped before runs again"

story "the host that comes back leaves it there"
host_start alpha
ctl alpha attach "$lun" || fail "alpha does not attach"
watch alpha
sleep 4
[ "$(count_running web1 alpha beta gamma)" = 1 ] || fail "it runs twice"
running alpha web1 && fail "it moved"

story "also if nobody had asked for the disk before its host died"
for host in alpha beta gamma; do kill "${watcher[$host]}" 2>/dev/null; done
for host in alpha beta gamma; do vm $host kill web1 2>/dev/null; done
watch gamma
sleep 3		# its first look, which starts what nobody runs, is over
ctl alpha disk create ds1:/off/new.disk --size 64M || fail "no disk"
host_mount alpha
sed -i 's/^disk = .*/disk = new.disk/; s/= no$/= yes/' "$(mnt alpha)/off/off.conf"
host_umount alpha
vm alpha run --detach "ds1:/off/off.conf" || fail "it does not run"
sleep 3
launcher=$(vm_pid alpha off pid)
host_kill alpha
kill -KILL "$launcher"
wait_for 40 running gamma off || fail "nobody runs it: $(cat "$work/watch-gamma.log")"
vm gamma kill off
finish
