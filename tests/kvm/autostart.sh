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
watch() {	# watch HOST [DATASTORE…]
	local host=$1
	shift
	"$bin/lunvm" --run-dir "$work/vm-$host" --daemon-dir "$work/run-$host" autostart --watch "$@" \
		>>"$work/watch-$host.log" 2>&1 &
	watcher[$host]=$!
}
vms_kill() {
	local host name pid
	for pid in "${watcher[@]}"; do kill "$pid" 2>/dev/null; done
	for host in alpha beta gamma delta; do
		for name in web1 web2 off; do vm $host kill $name 2>/dev/null; done
	done
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
mkdir "$(mnt alpha)"/{nothing,wrong,diskless,bare,typo}
sed 's/32M/lots/' "$(mnt alpha)/web1/web1.conf" >"$(mnt alpha)/wrong/wrong.conf"
sed '/^disk/d' "$(mnt alpha)/web1/web1.conf" >"$(mnt alpha)/diskless/diskless.conf"
sed '/^kernel/d' "$(mnt alpha)/web1/web1.conf" >"$(mnt alpha)/bare/bare.conf"
sed 's/^name.*/name = typo/; s/root.disk/gone.disk/' "$(mnt alpha)/web1/web1.conf" >"$(mnt alpha)/typo/typo.conf"
host_umount alpha
host_start beta
host_start gamma
host_start delta
for host in alpha beta gamma delta; do
	ctl $host attach "$lun" || fail "$host does not attach"
done
# One that is never there keeps nobody from looking at the other, and makes nothing of it a first look.
watch alpha ds1 elsewhere
wait_for 60 running alpha web1 || fail "web1 does not run: $(cat "$work/watch-alpha.log")"
wait_for 60 running alpha web2 || fail "web2 does not run"
running alpha off && fail "a machine runs that is not to"

story "mistakes in the others' configurations are told once, with their places"
told() { grep -q "no kernel" "$work/watch-alpha.log" && grep -q "elsewhere: no datastore" "$work/watch-alpha.log"; }
wait_for 60 told || fail "they are not told: $(cat "$work/watch-alpha.log")"
sleep 2.5	# another look
for mistake in "elsewhere: no datastore" "gone.disk: No such file" "wrong.conf:2:10: not a size" "diskless.conf: autostart wants a disk" "no kernel"; do
	[ "$(grep -c "$mistake" "$work/watch-alpha.log")" = 1 ] || fail "\"$mistake\" is not told once: $(cat "$work/watch-alpha.log")"
done
vm beta --json autostart ds1 >"$work/json" 2>/dev/null
[ $? -eq 1 ] || fail "autostart takes mistakes for success"
[ "$(jq -c '[.ok, .exit_status]' "$work/json" | sort | tr '\n' ' ')" = "[false,1] [false,2] [false,2] [false,2] " ] ||
	fail "$(cat "$work/json")"

story "other hosts leave it alone"
for host in beta gamma delta; do watch $host ds1; done
sleep 5
[ "$(count_running web1 alpha beta gamma delta)" = 1 ] && running alpha web1 || fail "it runs elsewhere"

story "a machine that was stopped stays so"
vm alpha kill web2 || fail "cannot be killed"
sleep 5
[ "$(count_running web2 alpha beta gamma delta)" = 0 ] || fail "it runs again"

story "a disk that another machine has is left to it"
vm gamma run --detach --name thief --memory 32M --kernel "$payload" --cmdline op=count --disk ds1:/web2/root.disk ||
	fail "it does not run"
vm delta --json autostart ds1 >"$work/json" 2>"$work/said"
grep -q '"event":"starting","name":"web2"' "$work/json" && running delta web2 && fail "it runs on a disk of another's"
vm gamma kill thief || fail "cannot be killed"

story "when its host dies exactly one of three other hosts runs it"
kill -KILL "${watcher[alpha]}"
launcher=$(vm_pid alpha web1 pid)
host_kill alpha
kill -KILL "$launcher"
started=$(date +%s%N)
anybody_runs() { [ "$(count_running web1 beta gamma delta)" -gt 0 ]; }
wait_for 60 anybody_runs ||
	fail "nobody runs it: $(cat "$work"/watch-*.log)"
note "$((($(date +%s%N) - started) / 1000000)) ms after the crash"
sleep 5
[ "$(count_running web1 beta gamma delta)" = 1 ] || fail "it runs on $(count_running web1 beta gamma delta) hosts"
tried=$(cat "$work"/watch-{beta,gamma,delta}.log | grep -c "web1: its host has died: starting it here")
refused=$(cat "$work"/watch-{beta,gamma,delta}.log | grep -c "web1: .*in use by")
note "$tried of three tried, $refused were refused"
[ "$((tried - refused))" = 1 ] || fail "$(cat "$work"/watch-{beta,gamma,delta}.log)"
[ "$(count_running web2 beta gamma delta)" = 0 ] || fail "what was stopped before runs again"

story "the host that comes back leaves it there"
host_start alpha
ctl alpha attach "$lun" || fail "alpha does not attach"
watch alpha ds1
sleep 4
[ "$(count_running web1 alpha beta gamma delta)" = 1 ] || fail "it runs twice"
running alpha web1 && fail "it moved"

story "also if nobody had asked for the disk before its host died"
for host in alpha beta gamma delta; do kill "${watcher[$host]}" 2>/dev/null; done
for host in alpha beta gamma delta; do vm $host kill web1 2>/dev/null; done
watch gamma ds1
# Its first look starts what nobody runs; then it sleeps: clock_nanosleep(2), or nanosleep(2).
wait_for 60 running gamma web1 || fail "nobody runs web1: $(cat "$work/watch-gamma.log")"
asleep() { grep -qE "^(230|35) " "/proc/${watcher[gamma]}/syscall"; }
wait_for 60 asleep || fail "its first look does not end: $(cat "$work/watch-gamma.log")"
ctl alpha disk create ds1:/off/new.disk --size 64M || fail "no disk"
host_mount alpha
sed -i 's/^disk = .*/disk = new.disk/; s/= no$/= yes/' "$(mnt alpha)/off/off.conf"
host_umount alpha
vm alpha run --detach "ds1:/off/off.conf" || fail "it does not run"
sleep 3
launcher=$(vm_pid alpha off pid)
host_kill alpha
kill -KILL "$launcher"
wait_for 60 running gamma off || fail "nobody runs it: $(cat "$work/watch-gamma.log")"
vm gamma kill off

story "a datastore that comes later than the daemon is looked at as if the host had just come up"
for host in gamma delta; do kill "${watcher[$host]}" 2>/dev/null; done
ctl delta detach ds1 || fail "delta keeps it"
: >"$work/watch-delta.log"
watch delta
sleep 2.5
ctl delta attach "$lun" || fail "delta does not attach"
wait_for 60 running delta off || fail "it does not run: $(cat "$work/watch-delta.log")"
vm delta kill off
finish
