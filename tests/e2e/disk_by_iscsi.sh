#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `lunfs disk attach --iscsi`: a virtual disk as a LUN of lunfsd, under QEMU's initiator and
# libiscsi's suite: lock, growth, snapshot, CHAP, refusals, and a daemon killed under load.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" -eq 0 ] || skip_all disk_by_iscsi "needs root"
for tool in qemu-io qemu-img iscsi-test-cu iscsi-readcapacity16 jq; do
	command -v $tool >/dev/null || skip_all disk_by_iscsi "no $tool"
done

io() {		# io URL qemu-io-commands…
	local url=$1 args=() c
	shift
	for c in "$@"; do args+=(-c "$c"); done
	timeout 60 qemu-io -f raw "${args[@]}" "$url" >"$work/io" 2>&1 &&
		! grep -qiE 'fail|error|differ' "$work/io"
}

kill_daemon() {	# both halves at once, without a word
	kill -KILL "$(worker_of "$1")" "${pid_of[$1]}" 2>/dev/null
	wait "${pid_of[$1]}" 2>/dev/null
}

make_volume 2G
host_start alpha
ctl alpha attach "$lun" || fail "attach"
disk=ds1:/root.disk
lunfs alpha disk create $disk --size 1G || fail "create"
portal=127.0.0.1:$(free_port)

story "a disk is a LUN: QEMU writes, verifies, discards, copies"
url=$(lunfs alpha disk attach "--iscsi=$portal" $disk) || fail "attach --iscsi"
[[ $url == iscsi://$portal/iqn.*/0 ]] || fail "no URL of a LUN: $url"
io "$url" 'write -P 0x5a 1M 3M' 'read -P 0x5a 1M 3M' 'discard 1M 1M' 'read -P 0 1M 1M' \
	'write -z 2M 1M' 'read -P 0 2M 1M' 'read -P 0x5a 3M 1M' flush || fail "$(cat "$work/io")"
dd if=/dev/urandom of="$work/image" bs=1M count=8 status=none
qemu-img convert -n -f raw -O raw "$work/image" "$url" || fail "qemu-img convert"
qemu-img compare -f raw -F raw "$work/image" "$url" | grep -qi identical || fail "another image"

story "it is listed, and has the lock: nobody else opens it, here or elsewhere"
lunfs alpha disk list | grep -q "$url" || fail "not listed: $(lunfs alpha disk list)"
[ "$(lunfs alpha --json disk list | jq -r '.disks[0].protocol')" = iscsi ] || fail "protocol"
[ "$(lunfs alpha --json disk list | jq -r '.disks[0].open')" = true ] || fail "not open"
host_start beta
ctl beta attach "$lun" || fail "attach on beta"
refused 3 "alpha" beta disk attach "--iscsi=127.0.0.1:$(free_port)" $disk

story "what cannot be is refused: twice, a port in use, addresses of others, ports of others"
refused 3 "by iSCSI at $portal" alpha disk attach $disk
lunfs alpha disk create ds1:/b.disk --size 64M || fail "create b"
refused 1 "another program listens" beta disk attach "--iscsi=$portal" ds1:/b.disk
refused 1 "iscsi-portal = 192.0.2.7:3260" alpha disk attach --iscsi=192.0.2.7 ds1:/b.disk
refused 1 "1024 or above" alpha disk attach --iscsi=127.0.0.1:80 ds1:/b.disk
refused 1 "not an address" alpha disk attach --iscsi=nowhere ds1:/b.disk
refused 1 "for vhost-user-blk" alpha disk attach --iscsi --queues 2 ds1:/b.disk
lunfs alpha disk attach ds1:/b.disk >/dev/null || fail "attach b"
refused 3 "by vhost-user-blk" alpha disk attach "--iscsi=$portal" ds1:/b.disk
lunfs alpha disk detach ds1:/b.disk || fail "detach b"

story "two disks share a portal, and each comes and goes alone"
second=$(lunfs alpha disk attach "--iscsi=$portal" ds1:/b.disk) || fail "attach b by iSCSI"
io "$second" 'write -P 7 0 1M' || fail "b: $(cat "$work/io")"
lunfs alpha disk detach ds1:/b.disk || fail "detach b"
io "$second" 'read 0 4k' && fail "b is there after it was detached"
io "$url" 'read -P 0 512M 1M' || fail "the first one is gone: $(cat "$work/io")"
beta_url=$(lunfs beta disk attach "--iscsi=127.0.0.1:$(free_port)" ds1:/b.disk) || fail "beta: b"
io "$beta_url" 'read -P 7 0 1M' || fail "b on beta: $(cat "$work/io")"

story "libiscsi's suite, what writes: nothing fails"
for family in Write Unmap; do
	timeout 120 iscsi-test-cu -d -V -t "SCSI.*$family*" "$beta_url" 2>&1
done >"$work/suite"
ran=$(awk '$1 == "tests" { n += $3 } END { print n + 0 }' "$work/suite")
bad=$(awk '$1 == "tests" { n += $5 } END { print n + 0 }' "$work/suite")
awk '/^Suite: / { suite = $2 } /^ +Test: / { test = $2 }
	/\[SKIPPED\]/ { print suite "." test }' "$work/suite" | sort -u >"$work/seen"
# As conformance.sh: a skip has its reason, and what is not skipped any more is not listed.
awk -F'\t' '!/^#/ && NF == 3 && "," $2 "," ~ /,disk,/ { print $1 }' "$top/tests/iscsi/skips" |
	sort -u >"$work/listed"
note "$ran tests, $bad failed, $(wc -l <"$work/seen") skipped for a reason"
[ "$ran" -gt 50 ] && [ "$bad" -eq 0 ] ||
	fail "$(grep -E 'FAILED|^    [0-9]+\. ' "$work/suite" | head -n 20)"
diff "$work/listed" "$work/seen" >"$work/out" || fail "skips listed (<) and seen (>): $(cat "$work/out")"

story "it grows and is snapshotted under its initiator"
mkfifo "$work/in"
qemu-io -f raw "$url" <"$work/in" >"$work/session" 2>&1 &
session=$!
exec 7>"$work/in"
echo 'write -P 1 0 1M' >&7
wait_for 60 grep -q wrote "$work/session" || fail "$(cat "$work/session")"
lunfs alpha disk snapshot create $disk monday || fail "snapshot"
refused 3 "a guest is using it" alpha disk detach $disk
lunfs alpha disk grow $disk --size 1536M || fail "grow"
echo 'write -P 2 0 1M' >&7
wait_for 60 eval '[ "$(grep -c wrote "$work/session")" -eq 2 ]' || fail "$(cat "$work/session")"
exec 7>&-
wait $session
iscsi-readcapacity16 "$url" | grep -q 1610612736 || fail "$(iscsi-readcapacity16 "$url")"
io "$url" 'read -P 2 0 1M' || fail "$(cat "$work/io")"
old=$(lunfs alpha disk attach --read-only "--iscsi=$portal" $disk@monday) || fail "attach the snapshot"
timeout 60 qemu-io -r -f raw -c 'read -P 1 0 1M' "$old" >"$work/io" 2>&1 || fail "$(cat "$work/io")"
grep -qiE 'fail|error' "$work/io" && fail "the snapshot: $(cat "$work/io")"
lunfs alpha disk detach $disk@monday || fail "detach the snapshot"

story "growth is told to every session, with its next command, whatever that is"
python3 - "$top/tests/iscsi/wire" "$url" "$bin/lunfs" "$work/run-alpha" $disk <<'END' || fail "unit attention"
import subprocess, sys
sys.path.insert(0, sys.argv[1])
from initiator import Conn, check, clear_ua, equal, scsi, write_blocks
portal, iqn = sys.argv[2].split("/")[2:4]
host, port = portal.split(":")

def session(name):
    conn = Conn((host, int(port)))
    conn.login(iqn, initiator="iqn.2026-01.example:" + name)
    clear_ua(conn)
    return conn

one, two = session("one"), session("two")
subprocess.check_call([sys.argv[3], "--run-dir", sys.argv[4], "disk", "grow", sys.argv[5], "--size", "1600M"])
for conn, command in ((one, lambda c: scsi(c, bytes(6))), (two, lambda c: write_blocks(c, 0, bytes(512)))):
    r = command(conn)
    equal((r.status, r.sense[2] & 15, r.sense[12], r.sense[13]), (2, 6, 0x2a, 9), "CAPACITY DATA HAS CHANGED")
    equal(command(conn).status, 0, "the status of the next command")
late = session("late")
equal(scsi(late, bytes(6)).status, 0, "the status for one that comes later")
END

story "detached while its writes wait for space: at once, and the portal is free"
lunfs alpha disk create ds1:/wait.disk --size 256M || fail "create"
host_mount alpha
fallocate -l $(($(lunfs alpha --json df ds1 | jq .free) - (64 << 20))) "$(mnt alpha)/filler" || fail "fallocate"
host_umount alpha
of_waits() { lunfs alpha --json disk list | jq -r ".disks[] | select(.path == \"/wait.disk\") | .$1"; }
for how in detach stop; do
	waits_portal=127.0.0.1:$(free_port)
	waits=$(lunfs alpha disk attach "--iscsi=$waits_portal" ds1:/wait.disk) || fail "attach: $how"
	(for ((i = 0; i < 32; i++)); do echo "write $((i * 8))M 8M"; done) |
		timeout 60 qemu-io -f raw "$waits" >"$work/session" 2>&1 &
	session=$!
	wait_for 60 eval '[ "$(of_waits no_space)" = true ]' || fail "a full datastore is not noticed"
	if [ $how = detach ]; then
		timeout 60 "$bin/lunfs" --run-dir "$work/run-alpha" disk detach --force ds1:/wait.disk ||
			fail "detach"
		(: <"/dev/tcp/127.0.0.1/${waits_portal#*:}") 2>/dev/null && fail "the portal is still open"
	else
		timeout 60 tail --pid "${pid_of[alpha]}" -f /dev/null &
		host_stop alpha || fail "alpha did not end well"
		wait $! || fail "a daemon with writes that wait does not end"
		host_start alpha
		wait_for 60 eval '[ -n "$(of_waits path)" ]' || fail "not attached again"
		lunfs alpha disk detach --force ds1:/wait.disk || fail "detach"
	fi
	kill $session 2>/dev/null
	wait $session
done
host_mount alpha
rm "$(mnt alpha)/filler" "$(mnt alpha)/wait.disk" || fail "rm"
host_umount alpha

story "a daemon killed under load: its initiator goes on, no answered write is lost"
for ((i = 0; i < 400; i++)); do
	echo "write -P $((i % 250 + 1)) $((i * 16 + 65536))k 16k"
done >"$work/commands"
# Slowly enough that the daemon dies in the middle.
(while read -r line; do echo "$line"; sleep 0.01; done <"$work/commands") |
	timeout 120 qemu-io -f raw "$url" >"$work/session" 2>&1 &
session=$!
wait_for 60 eval '[ "$(grep -c wrote "$work/session")" -ge 80 ]' || fail "$(cat "$work/session")"
kill_daemon alpha
note "killed after $(grep -c wrote "$work/session") writes"
host_start alpha
wait $session
[ "$(grep -c 'wrote 16384/16384' "$work/session")" -eq 400 ] ||
	fail "$(grep -c wrote "$work/session") of 400: $(grep -v wrote "$work/session" | tail -n 5)"
sed 's/^write/read/' "$work/commands" >"$work/reads"
qemu-io -f raw "$url" <"$work/reads" >"$work/io" 2>&1
[ "$(grep -c 'read 16384/16384' "$work/io")" -eq 400 ] && ! grep -qi 'fail' "$work/io" ||
	fail "lost: $(grep -i fail "$work/io" | head -n 5)"

story "one that was used elsewhere meanwhile is not served again, and says so"
kill_daemon alpha
wait_for 60 eval 'lunfs beta disk attach "--iscsi=127.0.0.1:$(free_port)" $disk >"$work/b" 2>/dev/null' ||
	fail "beta cannot have it: $(lunfs beta disk list)"
io "$(cat "$work/b")" 'write -P 9 0 64k' || fail "$(cat "$work/io")"
lunfs beta disk detach $disk || fail "detach on beta"
host_start alpha
wait_for 60 eval 'lunfs alpha disk list | grep -q "used elsewhere"' || fail "$(lunfs alpha disk list)"
io "$url" 'read 0 4k' && fail "it is served"
lunfs alpha disk detach $disk || fail "detach of what has ended"
url=$(lunfs alpha disk attach "--iscsi=$portal" $disk) || fail "attach anew"
io "$url" 'read -P 9 0 64k' || fail "$(cat "$work/io")"

story "with CHAP nobody comes in without the secret, which is root's alone"
host_stop alpha || fail "alpha did not end well"
printf 'incoming guest correct-horse-1\n' >"$work/secrets"
chmod 644 "$work/secrets"
metrics_port=$(free_port)
printf 'iscsi-secrets = %s\nmetrics-port = %s\n' "$work/secrets" "$metrics_port" >"$work/lunfsd.conf"
host_start alpha --config "$work/lunfsd.conf"
wait_for 60 grep -q "chmod 600" "$work/alpha.log" || fail "secrets that all can read were taken"
chmod 600 "$work/secrets"
wait_for 60 io "${url/:\/\//:\/\/guest%correct-horse-1@}" 'read -P 9 0 64k' || fail "$(cat "$work/io")"
io "$url" 'read 0 4k' && fail "without a secret"
io "${url/:\/\//:\/\/guest%wrong-horse-00@}" 'read 0 4k' && fail "with a wrong secret"

story "metrics by HTTP, on loopback"
scrape() {	# scrape PATH: by a scraper that is no shell's redirection
	python3 -c 'import sys, urllib.request
sys.stdout.write(urllib.request.urlopen("http://127.0.0.1:%s%s" % tuple(sys.argv[1:]), timeout=10).read().decode())' \
		"$metrics_port" "$1"
}
scrape /metrics >"$work/metrics" || fail "no answer"
python3 "$top/tests/e2e/metrics_check.py" 'lunfs_disk_open\{.*root.disk.*' lunfs_info <"$work/metrics" >"$work/out" ||
	fail "$(cat "$work/out")"
grep -q '^lunfs_disk_open{.*root.disk.*} 1' "$work/metrics" || fail "the disk is not counted"
scrape /etc/passwd >"$work/out" 2>&1 && fail "another path"
grep -q 'HTTP Error 404' "$work/out" || fail "$(cat "$work/out")"
note "$(grep -c . "$work/metrics") lines"
host_stop beta || fail "beta did not end well"
printf 'metrics-port = %s\n' "$metrics_port" >"$work/beta.conf"
host_start beta --config "$work/beta.conf"
wait_for 60 grep -q "metrics are not served.*another program listens" "$work/beta.log" || fail "a port in use"
grep -l "Bad system call" "$work"/*.log && fail "seccomp"

story "the volume is whole"
host_stop alpha || fail "alpha did not end well"
host_stop beta || fail "beta did not end well"
check_volume
finish
