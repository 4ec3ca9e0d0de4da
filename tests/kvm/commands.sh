#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What lunvm tells people and programs: one exit status, one word and one line for each end, JSON for every
# command and every error, and a guest that resets without end is slowed down.
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/kvm/lib.sh"
need_kvm "kvm commands"
[ -x "$(command -v jq)" ] || skip_all "kvm commands" "no jq"

trap vms_leave EXIT

disk=ds1:/root.disk
make_volume 1G
host_start alpha
ctl alpha attach "$lun" || fail "alpha does not attach"
ctl alpha disk create $disk --size 64M || fail "no disk"

# json_of lunvm-arguments…: standard output is in $work/json, errors in $work/said; the exit status
json_of() {
	vm alpha "$@" --json >"$work/json" 2>"$work/said" </dev/null
}
# wants FILTER WHAT: the last line of JSON; all of the output is JSON
wants() {
	jq -e . "$work/json" >/dev/null 2>&1 || fail "$2: not all of this is JSON: $(cat "$work/json")"
	jq -es "last | $1" "$work/json" >/dev/null || fail "$2: $(cat "$work/json")"
}
ends() {	# ends STATUS REASON run-arguments…
	local status=$1 reason=$2 got
	shift 2
	json_of run --name a --memory 32M --kernel "$payload" --on-reset exit "$@"
	got=$?
	[ $got -eq "$status" ] || fail "exit status $got, not $status: $(cat "$work/said")"
	wants ".exit_status == $status and .reason == \"$reason\" and .ok == ($status == 0) and
		(.ok or (.error | length > 0))" "$*"
	[ "$(wc -l <"$work/said")" = 1 ] || fail "not one line: $(cat "$work/said")"
	echo "$reason" >>"$work/reasons"
}

story "each end has a status, a word and one line, also as JSON"
ends 0 power-off --cmdline op=off
ends 10 reset --cmdline op=reset
ends 11 crash --cmdline op=crash
ends 12 kvm --cmdline op=nowhere
ends 2 configuration --kernel "$top/Makefile"
ends 2 configuration --cpus 0
ends 2 configuration --memory 4M
grep -q "give it more" "$work/said" || fail "$(cat "$work/said")"
ends 2 configuration --memory 1T
grep -q "1.0 TiB of memory, and this host has" "$work/said" || fail "$(cat "$work/said")"
ends 1 failed --disk ds1:/none.disk
vm alpha run --name holder --memory 32M --kernel "$payload" --cmdline op=count --disk $disk --detach || fail "no holder"
ends 3 locked --disk $disk
grep -q "holder\|in use on this host" "$work/said" || fail "does not name it: $(cat "$work/said")"
vm alpha kill holder
(wait_for 60 "$bin/lunvm" --run-dir "$work/vm-alpha" kill a) 2>/dev/null &
ends 13 killed --cmdline op=count
wait $!
host_stop alpha
ends 4 no-daemon --disk $disk
[ "$(sort -u "$work/reasons" | wc -l)" = 9 ] || fail "words that are the same: $(sort "$work/reasons")"
host_start alpha
ctl alpha attach "$lun" || fail "alpha does not attach"

story "run tells events, and nothing else, on standard output"
json_of run --name a --memory 32M --kernel "$payload" --on-reset restart --cmdline "op=life n=200 qd=8 lives=2" --disk $disk ||
	fail "$(cat "$work/said")"
[ "$(jq -r .event "$work/json" | tr '\n' ' ')" = "running restarting running ended " ] || fail "$(cat "$work/json")"
json_of run --name a --memory 32M --kernel "$payload" --cmdline op=count --detach || fail "$(cat "$work/said")"
wants '.event == "running" and .pid > 1 and .name == "a"' "run --detach"

story "every command answers in JSON, what goes wrong included"
json_of list && wants '.machines[0].name == "a"' list
for word in status pause resume; do
	json_of $word a || fail "$word: $(cat "$work/said")"
	wants .ok $word
done
json_of kill a && wants '.ok and .ended' kill
# It has ended when that is said: its name is free, and its disks are nobody's.
json_of run --name a --memory 32M --kernel "$payload" --cmdline op=off || fail "$(cat "$work/said")"
for word in status pause resume stop kill console; do
	json_of $word nobody && fail "$word of nobody works"
	wants '(.ok | not) and .exit_status == 1 and .name == "nobody" and (.error | test("no machine"))' $word
done
while read -r arguments; do
	# shellcheck disable=SC2086
	json_of $arguments
	[ $? -eq 2 ] || fail "\"$arguments\" is not wrong usage: $(cat "$work/said")"
	wants '(.ok | not) and .exit_status == 2 and .reason == "configuration"' "$arguments"
done <<-'LIST'

	frobnicate
	run --frobnicate
	run --memory 1
	run one.conf two.conf
	run /none/at/all.conf
	list web1
	status
	status ../x
	kill a --timeout 3
	stop a --timeout x
	autostart --name x
	pause a --detach
LIST
vm gamma autostart --json >"$work/json" 2>"$work/said"
[ $? -eq 4 ] || fail "autostart without a daemon"
wants '.reason == "no-daemon"' autostart

story "a launcher that does not answer is said to be so, and can be ended"
json_of run --name hung --memory 32M --kernel "$payload" --cmdline op=count --disk $disk --detach || fail "$(cat "$work/said")"
worker=$(vm_pid alpha hung worker_pid)
kill -STOP "$worker"
# It stands still only once all of its threads have noticed.
all_stopped() { ! grep -h '^State:' "/proc/$worker"/task/*/status | grep -qv 'T (stopped)'; }
wait_for 60 all_stopped || fail "it does not stop"
vm alpha status hung >"$work/status" 2>&1 &
asker=$!
vm alpha list >"$work/list" 2>&1 &
lister=$!
json_of list && wants '.machines == [{"name": "hung", "state": "silent"}]' "list of one that hangs"
wait $lister
grep -q "^hung *silent" "$work/list" || fail "list does not say so: $(cat "$work/list")"
json_of kill hung || fail "$(cat "$work/said")"
wait $asker && fail "status is answered"
grep -q "hung: .*lunvm kill hung\|hung: it has just ended" "$work/status" || fail "$(cat "$work/status")"
wait_for 60 sh -c "! [ -d /proc/$worker ]" || fail "its machine is still there"

story "who may not ask, and who comes when too many do, is told so"
json_of run --name a --memory 32M --kernel "$payload" --cmdline op=count --disk $disk --detach || fail "$(cat "$work/said")"
setpriv --reuid 65534 --regid 65534 --clear-groups "$bin/lunvm" --run-dir "$work/vm-alpha" list --json >"$work/json" 2>"$work/said" &&
	fail "everybody may list"
wants '.error | test("Permission denied")' "list of somebody"
python3 - "$work/vm-alpha/a.sock" <<'PY' || fail "no more than 8 consoles and 16 peers"
import json, socket, sys
def ask(word):
	s = socket.socket(socket.AF_UNIX)
	s.connect(sys.argv[1])
	s.settimeout(30)
	try:
		s.sendall(word)
	except BrokenPipeError:
		pass		# refused already; the answer is there
	return s, json.loads(s.makefile().readline()) if word else None
consoles = [ask(b"console\n") for _ in range(9)]
assert [r["ok"] for _, r in consoles] == [True] * 8 + [False], consoles
assert "console already" in consoles[8][1]["error"]
consoles[8][0].close()
silent = [ask(b"")[0] for _ in range(16)]
assert "too many" in ask(b"status\n")[1]["error"]
PY
wait_for 60 vm alpha status a >/dev/null || fail "it does not recover"
vm alpha kill a || fail "cannot be killed"

story "what a guest said last reaches a slow reader; a terminal is written to without waiting for it"
cat >"$work/reader.py" <<'PY'
import fcntl, json, os, subprocess, sys, time
status = [sys.argv[1], "status", "a", "--json", "--run-dir", sys.argv[4]]
p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
fcntl.fcntl(p.stdout.fileno(), 1031, 4096)	# F_SETPIPE_SZ: the rest waits in the launcher
said = 0
while said < 16000:	# of 20,000 bytes: it ends long before they are read
	time.sleep(0.02)
	answer = subprocess.run(status, capture_output=True).stdout
	said = json.loads(answer).get("console", 0)
	assert p.poll() is None
got = b""
while piece := os.read(p.stdout.fileno(), 64):
	got += piece
	time.sleep(0.01)
assert got.count(b"\n") == 303 and got.endswith(b"done bad=0\n"), got[-200:]
assert p.wait() == 0
PY
python3 "$work/reader.py" "$bin/lunvm" run --run-dir "$work/vm-alpha" --name a --memory 32M --kernel "$payload" \
	--cmdline "op=talk rounds=300" || fail "the end of its output is lost"
cat >"$work/terminal.py" <<'PY'
import os, pty, subprocess, sys
other, ours = pty.openpty()
p = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=ours, stderr=subprocess.DEVNULL)
while b"alive" not in os.read(other, 4096):
	pass
def flags(pid):
	return int(open(f"/proc/{pid}/fdinfo/1").read().split("flags:")[1].split()[0], 8)
worker = open(f"/proc/{p.pid}/task/{p.pid}/children").read().split()[0]
assert flags(worker) & os.O_NONBLOCK
assert not int(open(f"/proc/self/fdinfo/{ours}").read().split("flags:")[1].split()[0], 8) & os.O_NONBLOCK
p.kill()
p.wait()
PY
python3 "$work/terminal.py" "$bin/lunvm" run --run-dir "$work/vm-alpha" --name a --memory 32M --kernel "$payload" \
	--cmdline op=count || fail "a terminal that is not read would hold the launcher up"

story "a guest that resets without end is started again more and more slowly, and can be ended meanwhile"
for name in loop other; do
	vm_start alpha $name --on-reset restart --cmdline op=reset
done
waiting() { vm alpha status "$1" --json 2>/dev/null | jq -e '.state == "waiting" and .restart_in_ms > 5000' >/dev/null; }
wait_for 60 waiting loop || fail "it does not wait: $(tail -n 3 "$work/vm-loop.out")"
lives=$(grep -c "payload: hello" "$work/vm-loop.out")
[ "$lives" -le 6 ] || fail "$lives lives by then"
grep -q "reset the machine; starting it again$" "$work/vm-loop.out" || fail "the first reset has to wait"
grep -q "starting it again in 2 s" "$work/vm-loop.out" || fail "$(cat "$work/vm-loop.out")"
vm alpha status loop | grep -q "waiting" || fail "status does not say so"
vm alpha list | grep -q "^loop *waiting" || fail "list does not say so"
vm alpha pause loop >"$work/said" 2>&1 && fail "what waits is paused"
grep -q "started again in some seconds" "$work/said" || fail "$(cat "$work/said")"
sleep 0.5
vm alpha status loop >/dev/null
vm alpha stop loop || fail "cannot be stopped"
wait "${runner_of[loop]}"
[ $? -eq 13 ] || fail "its exit status is not 13"
wait_for 60 waiting other || fail "it does not wait"
kill -TERM "$(vm_pid alpha other pid)"
wait "${runner_of[other]}"
grep -q "ended before it was started again" "$work/vm-other.out" || fail "SIGTERM does not end it: $(cat "$work/vm-other.out")"
host_stop alpha
finish
