#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# lunfs-target as its administrator has it: mistakes, status, reload, growth, a restart.
. "$(dirname "$0")/lib.sh"
for tool in iscsi-inq iscsi-ls iscsi-readcapacity16 qemu-io jq; do
	command -v $tool >/dev/null || skip_all target_admin "no $tool"
done
[ "$(id -u)" -eq 0 ] || skip_all target_admin "needs root"

frozen=$work/frozen
target_end() {
	fsfreeze -u "$frozen" 2>/dev/null
	[ -z "${client:-}" ] || kill -KILL "$client" 2>/dev/null
	cleanup_target
	umount "$frozen" 2>/dev/null
	cleanup
}
cleanup_target() { [ -z "$target_pid" ] || target_kill; }
trap target_end EXIT

refused() {	# refused STATUS TEXT COMMAND…: ends with STATUS, and says TEXT
	local status=$1 text=$2 got said
	shift 2
	said=$(timeout 60 "$@" 2>&1)
	got=$?
	[ $got -eq "$status" ] || fail "$*: status $got, not $status: $said"
	grep -q -- "$text" <<<"$said" || fail "$*: does not say \"$text\": $said"
}
target=$bin/lunfs-target

story "wrong usage and wrong configurations are told, exit status 2"
"$target" --version | grep -q "^lunfs-target $(sed -n 's/^VERSION := //p' "$top/Makefile")$" || fail "--version"
"$target" --help | grep -q '^usage: lunfs-target' || fail "--help"
refused 2 'unrecognized option' "$target" --bogus
refused 2 'needs a --portal' "$target" --lun "$work/a"
refused 2 'goes with --lun' "$target" --portal 127.0.0.1
refused 2 'exclude each other' "$target" --lun "$work/a" --portal 127.0.0.1 --config "$work/c"
refused 2 'goes with --status' "$target" --json
refused 2 'takes no arguments' "$target" nonsense
refused 2 'No such file' "$target" --check --config "$work/nowhere"
printf 'portal = 127.0.0.1:0\n[target iqn.2026-01.example:x]\ninitiator = *\nlum = /srv/x\n' >"$work/c"
refused 2 "$work/c:4:" "$target" --check --config "$work/c"
refused 1 'no target keeps its state there' "$target" --status --state-dir "$work/nowhere"

story "what is missing or in use is named, exit status 1"
target_size=64M
target_start
try=("$target" --portal 127.0.0.1:0 --state-dir "$work/state2" --lun)
refused 1 "$work/missing: No such file" "${try[@]}" "$work/missing"
truncate -s 100 "$work/small"
refused 1 "$work/small: is smaller than a block of 512 bytes" "${try[@]}" "$work/small"
refused 1 'name another state directory' "$target" --portal 127.0.0.1:0 --lun "$work/b,size=1M" \
	--state-dir "$work/small/state"
(refused 1 'cannot listen: Address already in use' "$target" --portal "127.0.0.1:$target_port" \
	--state-dir "$work/state2" --lun "$work/b,size=1M") &
port_in_use=$!
refused 1 "$target_file: somebody else serves it already" "${try[@]}" "$target_file"
wait $port_in_use || fail "a port in use"
target_kill

story "status shows who is logged in and who holds what; a killed target is found again"
"$target" --status --state-dir "$target_state" >"$work/said" 2>&1 && fail "a dead one answers"
host1=iqn.2026-01.example:host1
config() {	# config INITIATOR LUN-LINE…
	printf 'portal = 127.0.0.1:%s\nstate-dir = %s\n[target %s]\nalias = a disk\ninitiator = %s\ninitiator = %s\n' \
		"$target_port" "$target_state" "$target_iqn" "$1" "iqn.2007-10.com.github:*"
	shift
	printf 'lun = %s\n' "$@"
}
config $host1 "$target_file" >"$work/conf"
"$target" --config "$work/conf" >"$work/target.out" 2>>"$work/target.log" &
target_pid=$!
wait_for 60 test -s "$work/target.out" || fail "the target does not start"
status() { "$target" --status --config "$work/conf" "$@"; }
mkfifo "$work/commands"
qemu-io --image-opts "driver=iscsi,transport=tcp,portal=127.0.0.1:$target_port,target=$target_iqn,\
lun=0,initiator-name=$host1" <"$work/commands" >"$work/client.out" 2>&1 &
client=$!
exec 4>"$work/commands"
echo 'write 0 1M' >&4
wait_for 60 grep -q 'wrote ' "$work/client.out" || fail "no session: $(cat "$work/client.out")"
status >"$work/said" || fail "--status: $(cat "$work/said")"
grep -q "LUN 0  64.0 MiB, 512-byte blocks, thin: $target_file" "$work/said" || fail "$(cat "$work/said")"
grep -q "initiator $host1, session .* from 127.0.0.1:.* 1.0 MiB written" "$work/said" ||
	fail "$(cat "$work/said")"
[ "$(status --json | jq -r '.connections[0].initiator')" = $host1 ] || fail "--json"

story "SIGHUP: a unit comes and goes, and its file is free again"
truncate -s 32M "$work/second.img"
reload() { kill -HUP "$target_pid"; }
luns() { iscsi-ls -s "iscsi://127.0.0.1:$target_port" 2>&1 | grep -o 'Lun:[0-9]*' | tr -d '\n'; }
luns_are() { [ "$(luns)" = "$1" ]; }
config $host1 "$target_file" "$work/second.img" >"$work/conf"
reload
wait_for 60 luns_are Lun:0Lun:1 || fail "no new unit: $(luns)"
config $host1 "$target_file" >"$work/conf"
reload
wait_for 60 luns_are Lun:0 || fail "the unit is still there: $(luns)"
wait_for 60 flock -n "$work/second.img" true || fail "its file is still locked"

story "SIGHUP: a portal comes and goes, who is connected stays"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
other=$(free_port)
config $host1 "$target_file" >"$work/conf"
sed -i "1a portal = 127.0.0.1:$other" "$work/conf"
reload
answers() { iscsi-inq "iscsi://127.0.0.1:$1/$target_iqn/0" >/dev/null 2>&1; }
silent() { ! answers "$1"; }
wait_for 60 answers "$other" || fail "no new portal: $(tail -3 "$work/target.log")"
answers "$target_port" || fail "the old portal is gone"
iscsi-ls "iscsi://127.0.0.1:$target_port" | grep -q ":$other" || fail "discovery does not show it"
[ "$(status --json | jq '.portals | length')" = 2 ] || fail "status: $(status)"
# In the way of the first one: refused before anything is changed.
printf 'portal = 0.0.0.0:%s\n' "$other" >"$work/conf2"
cat "$work/conf" >>"$work/conf2"
cp "$work/conf" "$work/conf.good"
cp "$work/conf2" "$work/conf"
reload
wait_for 60 grep -q "portal 0.0.0.0:$other: cannot listen" "$work/target.log" || fail "a portal in the way"
cp "$work/conf.good" "$work/conf"
sed -i "/portal = 127.0.0.1:$target_port/d" "$work/conf"
reload
wait_for 60 silent "$target_port" || fail "the portal that was taken away answers"
answers "$other" || fail "the other portal went with it"
[ "$(iscsi-ls "iscsi://127.0.0.1:$other" | grep -c Target)" = 1 ] || fail "discovery"
echo 'write 1M 64k' >&4
wait_for 60 grep -q 'at offset 1048576' "$work/client.out" || fail "who was connected: $(cat "$work/client.out")"
cp "$work/conf.good" "$work/conf"
sed -i "/portal = 127.0.0.1:$other/d" "$work/conf"
reload
wait_for 60 answers "$target_port" || fail "the portal does not come back"
wait_for 60 silent "$other" || fail "the second portal is still there"

story "a file that has grown is noticed without a word"
truncate -s 128M "$target_file"
grown() { sleep 0.3; iscsi-readcapacity16 "$lun" 2>&1 | grep -qi 'total size:134217728'; }
wait_for 60 grown || fail "size: $(iscsi-readcapacity16 "$lun" 2>&1)"
echo 'write 32M 64k' >&4
wait_for 60 grep -q 'at offset 33554432' "$work/client.out" || fail "who is logged in: $(cat "$work/client.out")"

story "SIGHUP: whoever is taken off the list is ended, others stay"
config iqn.2026-01.example:host2 "$target_file" >"$work/conf"
reload
gone() { [ "$(status --json | jq '.connections | length')" = 0 ]; }
wait_for 60 gone || fail "still there: $(status)"
grep -q "$host1: .* may not stay" "$work/target.log" || fail "log"
qemu-io --image-opts "driver=iscsi,transport=tcp,portal=127.0.0.1:$target_port,target=$target_iqn,\
lun=0,initiator-name=$host1" -c 'read 0 4k' >"$work/said" 2>&1
grep -q '^read' "$work/said" && fail "host1 got in again"
iscsi-inq "$lun" >/dev/null 2>&1 || fail "another initiator does not get in"
printf 'nonsense\n' >>"$work/conf"
reload
wait_for 60 grep -q 'the configuration stays as it was' "$work/target.log" || fail "a wrong configuration"
luns_are Lun:0 || fail "a wrong configuration ended service"
exec 4>&-
kill "$client" 2>/dev/null
wait "$client" 2>/dev/null
client=
kill "$target_pid"
wait "$target_pid" || fail "the target ended with $?"
target_pid=

is_stuck() {	# is_stuck PID: one of its threads is in a system call that nothing ends
	grep -q '^State:.D' "/proc/$1"/task/*/status
}

story "nobody serves a file in which a killed target still has a write under way"
truncate -s 300M "$work/frozen.img"
mkdir "$frozen"
if mkfs.ext4 -q "$work/frozen.img" && mount -o loop "$work/frozen.img" "$frozen" 2>/dev/null; then
	target_file=$frozen/lun.img
	target_start
	fsfreeze -f "$frozen"
	qemu-io -f raw -c 'write -P 0x11 0 4k' "$lun" >/dev/null 2>&1 &
	client=$!
	worker=$(pgrep -P "$target_pid" | head -n 1)
	wait_for 60 is_stuck "$worker" || fail "the write does not get to the file"
	target_kill
	refused 1 'somebody else serves it already' "$target" --portal 127.0.0.1:0 --lun "$target_file" \
		--state-dir "$target_state"
	kill -0 "$worker" 2>/dev/null || fail "the worker is gone: nothing was under way"
	kill -KILL "$client"
	wait "$client" 2>/dev/null
	client=
	fsfreeze -u "$frozen"
	target_start
	target_kill
	wait_for 60 umount "$frozen" 2>/dev/null || fail "the worker still has its file open"
else
	note "no loop device here"
fi
finish
