#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Nobody stops others at the control socket; and a host whose slot is destroyed ends well.
. "$(dirname "$0")/lib.sh"
need_fuse daemon_control

make_volume 64M --beat-ms 200 --lease-ms 1000 --margin-ms 400
host_start alpha --group nogroup
host_mount alpha
control=$work/run-alpha/control

story "ten thousand connections, one after the other, leave the daemon as it was"
worker=$(worker_of alpha)
before=$(ls "/proc/$worker/fd" | wc -l)
python3 - "$control" <<'PY' || fail "connections"
import socket, sys
for i in range(10000):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    try:
        if i % 3 == 0:
            s.sendall(b'{"cmd":"sta')
    except BrokenPipeError:
        pass    # as many as it takes at a time: those before this one, whose end it has not seen yet
    s.close()
PY
wait_for 60 sh -c "[ \$(ls /proc/$worker/fd | wc -l) -le $((before + 2)) ]" || fail "descriptors leak"
ctl alpha status || fail "status"

story "members of the group who hold every connection they may have keep root out of nothing"
python3 - "$control" "$bin/lunfs" "$work/run-alpha" <<'PY' || fail "a crowd"
import json, os, socket, subprocess, sys
path, lunfs, run = sys.argv[1:]
def status():
    subprocess.run([lunfs, "--run-dir", run, "status"], check=True, timeout=60,
                   stdout=subprocess.DEVNULL)
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.settimeout(60)
    return s
status()
os.setegid(65534); os.setgroups([]); os.seteuid(65534)
# Half of them never read what they asked for, the others never end their request.
crowd, refused = [], 0
for i in range(300):
    s = connect()
    try:
        s.sendall(b'{"cmd":"sta' if i % 2 else b'{"cmd":"ping"}\n' * 2000)
        crowd.append(s)
    except OSError:
        refused += 1
assert refused or len(crowd) == 300
os.seteuid(0)
status()
os.seteuid(65534)
last = connect()
answer = json.loads(last.makefile().readline())
assert not answer["ok"] and answer["error"]["name"] == "EAGAIN", answer
for s in crowd:
    s.close()
PY
ctl alpha status || fail "status"

story "the group may ask for what changes nothing, others for nothing"
group_can_ask() {
	setpriv --reuid 65534 --regid 65534 --clear-groups "$bin/lunfs" --run-dir "$work/run-alpha" "$@"
}
wait_for 60 group_can_ask status >/dev/null 2>&1 || fail "the group is refused"
group_can_ask detach ds1 2>"$work/out" && fail "the group detached"
grep -q "root only" "$work/out" || fail "$(cat "$work/out")"
setpriv --reuid 65533 --regid 65533 --clear-groups "$bin/lunfs" --run-dir "$work/run-alpha" status \
	2>"$work/out" && fail "a stranger was answered"

story "a request in pieces is answered, one too long refused"
python3 - "$control" <<'PY' || fail "pieces"
import json, socket, sys, time
s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1])
for piece in (b'{"cmd"', b':"ping",', b'"id":7}\n{"cmd":"ping","id":8}', b'\n'):
    s.sendall(piece); time.sleep(0.05)
f = s.makefile()
assert [json.loads(f.readline())["id"] for _ in range(2)] == [7, 8]
s.sendall(b" " * 40000)
assert json.loads(f.readline())["error"]["name"] == "EMSGSIZE"
try:
    assert f.readline() == ""
except ConnectionResetError:
    pass
PY

story "metadata blocks as JSON have the fields that the text has"
root=$("$bin/lunfs" debug "$lun" / | sed -n 's/^\/: id //p')
for what in super "slot 0" "journal 0" "orphans 0" "ag 0" "index 0" "bitmap $(((root % (1 << 40)) * 4096))" \
	"tree $root" /; do
	# shellcheck disable=SC2086
	"$bin/lunfs" debug "$lun" $what >"$work/text" || fail "debug $what"
	# shellcheck disable=SC2086
	"$bin/lunfs" debug "$lun" $what --json >"$work/json" || fail "debug $what --json"
	python3 - "$work/text" "$work/json" <<'PY' || fail "debug $what: text and JSON differ"
import json, re, sys
text = set(re.findall(r"^([a-z_0-9]+)(?:\[\d+\])?: ", open(sys.argv[1]).read(), re.M))
d = json.load(open(sys.argv[2]))
names = {k for b in d["blocks"] for k in b["fields"]} | set(d)
assert all("valid" in b and "address" in b for b in d["blocks"])
missing = {t for t in text - names if not re.match("0x|image$", t)}
assert not missing, missing
PY
done

story "a host whose slot block is destroyed gives up within lease and margin"
slot=$("$bin/lunfs" --run-dir "$work/run-alpha" status --json | grep -o '"slot": [0-9]*' | grep -o '[0-9]*$')
addr=$("$bin/lunfs" debug "$lun" slot "$slot" --json | grep -m1 -o '"address": [0-9]*' | grep -o '[0-9]*$')
dd if=/dev/zero of="$lun" bs=4096 seek=$((addr / 4096)) count=1 conv=notrunc 2>/dev/null
is_lost() { "$bin/lunfs" --run-dir "$work/run-alpha" status | grep -q LOST; }
clock_start alpha
wait_for 60 is_lost || fail "it goes on: $("$bin/lunfs" --run-dir "$work/run-alpha" status)"
ms=$(clock_ms)
[ "$ms" -le 2400 ] || fail "it took $ms ms"
note "lost after $ms ms (lease 1000 ms, margin 400 ms)"
timeout 60 touch "$(mnt alpha)/x" 2>"$work/out" && fail "it still writes"
grep -q "Input/output" "$work/out" || fail "$(cat "$work/out")"

story "its mount can be ended, and the volume attached anew"
host_umount alpha
host_mount alpha
touch "$(mnt alpha)/x" || fail "not writable"
host_umount alpha
host_stop alpha || fail "alpha ended with $?"
"$bin/fsck.lunfs" -n "$lun" >"$work/fsck.log"
[ $? -eq 4 ] && [ "$(grep -c ^LUN- "$work/fsck.log")" -eq 1 ] && grep -q slot-damaged "$work/fsck.log" ||
	fail "more than the slot is damaged: $(cat "$work/fsck.log")"
finish
