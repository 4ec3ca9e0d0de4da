#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Wrong input is refused with a clear message and a defined exit status, and changes nothing.
. "$(dirname "$0")/lib.sh"
need_fuse bad_input

patch="$top/tests/e2e/patch_block.py"
super=65536

# refused STATUS PATTERN COMMAND…: the exit status, a message that matches, an unchanged LUN.
refused() {
	local want=$1 pattern=$2 before status
	shift 2
	before=$(sha256sum "$lun" 2>/dev/null)
	"$@" >"$work/out" 2>&1
	status=$?
	[ "$status" -eq "$want" ] || fail "$* ended with $status, not $want: $(cat "$work/out")"
	grep -qiE "$pattern" "$work/out" || fail "$*: no '$pattern' in: $(cat "$work/out")"
	[ "$before" = "$(sha256sum "$lun" 2>/dev/null)" ] || fail "$* changed the device"
}

# Mounting the LUN as alpha is refused, with a message that names the device and the cause.
mount_refused() {
	refused 1 "$1" "$bin/mount.lunfs" "$lun" "$work/mnt-alpha" -o "run-dir=$work/run-alpha"
	grep -q "$lun" "$work/out" || fail "the message does not name the device: $(cat "$work/out")"
}

host_start alpha

story "every program refuses an unknown option with usage, exit status 2"
truncate -s 64M "$lun"
for p in mkfs.lunfs lunfs lunfsd mount.lunfs; do
	refused 2 "usage|help|unknown|unrecognized|invalid" "$bin/$p" --no-such-option
done
refused 16 "usage|help|unknown|unrecognized|invalid" "$bin/fsck.lunfs" --no-such-option
refused 16 "no open file descriptor" "$bin/fsck.lunfs" -C77 -n "$work/nothing"
refused 16 "no open file descriptor" "$bin/fsck.lunfs" -Cx -n "$work/nothing"
for p in mkfs.lunfs fsck.lunfs lunfs lunfsd mount.lunfs; do
	"$bin/$p" --version | grep -q '[0-9]\.[0-9]' || fail "$p --version"
	"$bin/$p" --help | grep -qi usage || fail "$p --help"
done

story "half a command is told its other half, exit status 2"
refused 2 '"lock show", "lock break"' "$bin/lunfs" lock
refused 2 'sho.*is none of it' "$bin/lunfs" lock sho
refused 2 'wrong number of arguments to "lock show"' "$bin/lunfs" lock show
refused 2 'unknown command "nope"' "$bin/lunfs" nope

story "what is no LunFS volume is not mounted and not checked"
mount_refused "no lunfs|not a lunfs"
refused 8 "no lunfs|not a lunfs" "$bin/fsck.lunfs" -n "$lun"
"$bin/fsck.lunfs" --json -n "$lun" 2>/dev/null | jq -e .error.message >/dev/null ||
	fail "fsck.lunfs --json is no JSON when it fails"

story "mkfs says what a device holds and leaves it alone"
mkfs.ext4 -q "$lun"
refused 1 "ext4" "$bin/mkfs.lunfs" "$lun"
dd if=/dev/zero of="$lun" bs=1M count=4 conv=notrunc 2>/dev/null
# A DOS partition table with one Linux partition.
printf '\200\0\0\0\203\0\0\0\0\010\0\0\0\020\0\0' |
	dd of="$lun" bs=1 seek=446 conv=notrunc 2>/dev/null
printf '\125\252' | dd of="$lun" bs=1 seek=510 conv=notrunc 2>/dev/null
refused 1 "partition|dos" "$bin/mkfs.lunfs" "$lun"
"$bin/mkfs.lunfs" -q -f -L ds1 "$lun" || fail "mkfs -f"
refused 1 "lunfs" "$bin/mkfs.lunfs" "$lun"
refused 1 "small|64" "$bin/mkfs.lunfs" "$work/tiny.img" --size 1M

story "a newer format and an unknown incompatible feature are refused"
cp --sparse=always "$lun" "$work/good.img"
restore() { cat "$work/good.img" >"$lun"; }	# the same inode: not a copied device
for field in "64 63000000" "88 0000000000000080"; do
	# shellcheck disable=SC2086
	$patch "$lun" $super $field
	mount_refused "version|format|feature|newer"
	restore
done

story "a damaged superblock: a copy is used, and that is said"
$patch "$lun" $super 200 ffff --no-seal
"$bin/mount.lunfs" "$lun" "$(mnt alpha)" -o "run-dir=$work/run-alpha" >"$work/out" 2>&1 ||
	fail "mount by a copy: $(cat "$work/out")"
mounts+=("$(mnt alpha)")
grep -qiE "superblock.*(copy|damaged)|copy.*superblock|checksum" "$work/alpha.log" "$work/out" ||
	fail "nothing says that a copy was used"
host_umount alpha
host_stop alpha || fail "alpha ended with $?"
restore
host_start alpha

story "a device that shrank is refused"
truncate -s 63M "$lun"
mount_refused "shr[ai]nk|smaller|ends before|size"
truncate -s 64M "$lun"
restore

story "a read-only device mounts read-only or is refused, and is not written"
chmod 0444 "$lun"
loop=$(losetup -f --show -r "$lun" 2>/dev/null)
if [ -n "$loop" ]; then
	before=$(sha256sum "$lun")
	"$bin/mount.lunfs" "$loop" "$(mnt alpha)" -o "run-dir=$work/run-alpha" >"$work/out" 2>&1
	status=$?
	[ $status -eq 1 ] || fail "read-only device: exit status $status"
	grep -qiE "read-only" "$work/out" || fail "read-only device: $(cat "$work/out")"
	[ "$before" = "$(sha256sum "$lun")" ] || fail "a read-only device was written"
	losetup -d "$loop"
else
	note "no loop device here"
fi
chmod 0644 "$lun"

story "a copied device is refused until it gets a new signature"
"$bin/mount.lunfs" "$lun" "$(mnt alpha)" -o "run-dir=$work/run-alpha" || fail "mount"
host_umount alpha
cp "$lun" "$work/copy.img"
before=$(sha256sum "$work/copy.img")
"$bin/mount.lunfs" "$work/copy.img" "$(mnt alpha)" -o "run-dir=$work/run-alpha" >"$work/out" 2>&1 &&
	fail "a copy was mounted"
grep -qi "resignature" "$work/out" || fail "the way out is not named: $(cat "$work/out")"
[ "$before" = "$(sha256sum "$work/copy.img")" ] || fail "the copy was changed"
"$bin/mount.lunfs" "$work/copy.img" "$(mnt alpha)" -o "run-dir=$work/run-alpha,resignature" ||
	fail "mount -o resignature"
mounts+=("$(mnt alpha)")

story "two datastores of one label are ambiguous, and the UUIDs are named"
mkdir -p "$work/mnt-alpha2"
"$bin/mount.lunfs" "$lun" "$work/mnt-alpha2" -o "run-dir=$work/run-alpha" || fail "second mount"
mounts+=("$work/mnt-alpha2")
"$bin/lunfs" --run-dir "$work/run-alpha" df ds1 >"$work/out" 2>&1 && fail "an ambiguous label was taken"
[ "$(grep -oE '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+' "$work/out" | sort -u | wc -l)" -eq 2 ] ||
	fail "not both UUIDs: $(cat "$work/out")"
"$bin/lunfs" --run-dir "$work/run-alpha" df "$lun" >/dev/null || fail "df by device path"

story "the same host attaching twice is refused"
mkdir -p "$work/run-twin" "$work/mnt-twin"
id=$(cat /proc/sys/kernel/random/uuid)
host_start gamma --host-id "$id"
"$bin/mount.lunfs" "$lun" "$(mnt gamma)" -o "run-dir=$work/run-gamma" || fail "gamma mounts"
mounts+=("$(mnt gamma)")
host_start twin --host-id "$id"
"$bin/mount.lunfs" "$lun" "$(mnt twin)" -o "run-dir=$work/run-twin" >"$work/out" 2>&1 &&
	fail "one host id attached twice"
grep -qiE "already|host id|same host" "$work/out" || fail "$(cat "$work/out")"
host_umount gamma
host_stop gamma
host_stop twin
umount "$work/mnt-alpha2" "$(mnt alpha)"

story "all host slots taken is said, with who has them"
"$bin/mkfs.lunfs" -q -f -L full "$work/slots.img" --size 64M --slots 2 || fail "mkfs --slots"
for h in s1 s2 s3; do
	host_start $h
	"$bin/mount.lunfs" "$work/slots.img" "$(mnt $h)" -o "run-dir=$work/run-$h" >"$work/out" 2>&1
	status=$?
	[ $h = s3 ] || { [ $status -eq 0 ] || fail "$h: $(cat "$work/out")"; mounts+=("$(mnt $h)"); }
done
[ $status -ne 0 ] || fail "a third host joined two slots"
grep -qi "slot" "$work/out" || fail "$(cat "$work/out")"
umount "$(mnt s1)" "$(mnt s2)"
for h in s1 s2 s3; do host_stop $h; done

story "a check of a datastore that went and came back meanwhile says nothing of it"
mkdir "$work/run-other"
python3 - "$work/run-other/control" <<'PY' &
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1] + ".new")
s.listen(1)
os.rename(sys.argv[1] + ".new", sys.argv[1])	# it is there when it listens
f = s.accept()[0].makefile("rw")
for result in {"joined": False}, {"state": "never", "findings": [], "next": 0, "more": False}:
    f.readline()
    f.write(json.dumps({"ok": True, "result": result}) + "\n")
    f.flush()
PY
other=$!
wait_for 60 test -S "$work/run-other/control" || fail "nobody answers"
"$bin/lunfs" --run-dir "$work/run-other" check ds1 >"$work/out" 2>&1
status=$?
kill $other 2>/dev/null
wait $other 2>/dev/null
[ $status -eq 8 ] || fail "exit status $status: $(cat "$work/out")"
grep -q "not completed" "$work/out" || fail "$(cat "$work/out")"

story "a typo in a configuration file is named with line and column"
printf 'host-name = x\nrun-dri = /run/x\n' >"$work/bad.conf"
"$bin/lunfsd" --config "$work/bad.conf" --run-dir "$work/run-conf" >"$work/out" 2>&1
status=$?
[ $status -eq 2 ] || fail "exit status $status"
grep -qE "bad.conf:2:1" "$work/out" || fail "$(cat "$work/out")"

story "what cannot be written to standard output is an error"
for c in "--help" "debug $lun super" "scan $lun" "--json debug $lun super"; do
	# shellcheck disable=SC2086
	"$bin/lunfs" $c >/dev/full 2>"$work/out" && fail "lunfs $c >/dev/full succeeded"
	grep -q "writing" "$work/out" || fail "lunfs $c: $(cat "$work/out")"
done

story "no device is opened as a standard descriptor that was closed, and gets messages"
mkdir -p "$work/run-closed" "$work/mnt-closed"
"$bin/lunfsd" --run-dir "$work/run-closed" --host-name closed <&- >&- 2>&- &
pid_of[closed]=$!
wait_for 60 ctl closed status || fail "closed: lunfsd does not answer"
for pid in "${pid_of[closed]}" "$(worker_of closed)"; do
	for fd in 0 1 2; do
		[ "$(readlink "/proc/$pid/fd/$fd")" = /dev/null ] ||
			fail "descriptor $fd: $(readlink "/proc/$pid/fd/$fd")"
	done
done
host_stop closed || fail "closed ended with $?"

story "control requests that are no requests are refused and disturb nobody"
python3 - "$work/run-alpha" <<'PY' || fail "hostile control requests"
import glob, os, socket, stat, sys
path = next(p for p in glob.glob(sys.argv[1] + "/*") if stat.S_ISSOCK(os.stat(p).st_mode))
for data in (b"\n", b"{}\n", b"[" * 5000 + b"\n", b'{"cmd": 7}\n', b"\xff\xfe\x00\n",
             b'{"cmd":"' + b"x" * 3000000, b'{"cmd":"df","datastore":"../../etc"}\n'):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(path)
    try:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        s.recv(65536)
    except OSError:
        pass
    s.close()
PY
ctl alpha status || fail "status after hostile requests"
host_stop alpha || fail "alpha ended with $?"
finish
