#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A living host that lost its slot, and a device that fails under a running daemon.
. "$(dirname "$0")/lib.sh"
need_fuse lost_slot_and_failed_device

make_volume 1G
host_start alpha
host_mount alpha
a=$(mnt alpha)

slot_field() {	# slot_field FIELD: of alpha
	"$bin/lunfs" --run-dir "$work/run-alpha" hosts ds1 --json |
		jq -r ".hosts[] | select(.host_name == \"alpha\") | .$1"
}

lose_slot() {	# another host recovered it, as far as the LUN can tell: free, and a generation later
	local lost slots
	lost=$(grep -c "slot .* is lost" "$work/alpha.log")
	slots=$("$bin/lunfs" debug "$lun" super | sed -n 's/^slots_addr: //p' | head -n 1)
	"$top/tests/e2e/patch_block.py" "$lun" $((slots + 4096 * $(slot_field slot))) 104 \
		"$(python3 -c "import struct; print(struct.pack('<II', $(slot_field generation) + 1, 0).hex())")"
	is_lost() { [ "$(grep -c "slot .* is lost" "$work/alpha.log")" -gt "$lost" ]; }
	wait_for 60 is_lost || fail "the log does not say so"
}

story "a host whose slot was taken from it answers with EIO, and says why"
echo kept >"$a/kept"
sync -f "$a/kept"
exec 3>"$a/open"
generation=$(slot_field generation)
lose_slot
for c in "ls $a" "stat $a/kept" "touch $a/new" "df $a"; do
	# shellcheck disable=SC2086
	timeout 60 $c >"$work/out" 2>&1 && fail "$c succeeded"
	grep -qi "input/output error" "$work/out" || fail "$c: $(cat "$work/out")"
done
echo late >&3 2>"$work/out" && fail "a write to an open file succeeded"
"$bin/lunfs" --run-dir "$work/run-alpha" status | grep -qi "lost" || fail "status"
exec 3>&-

story "it can be unmounted, and joins again as a new generation"
# Mounted anew before it has quite ended: for that the daemon's two halves have to talk.
kill -STOP "${pid_of[alpha]}"
timeout 60 umount "$a" || fail "umount"
"$bin/mount.lunfs" "$lun" "$a" -o "run-dir=$work/run-alpha" >"$work/out" 2>&1 &
mounter=$!
sleep 0.5
kill -CONT "${pid_of[alpha]}"
wait "$mounter" || fail "mount: $(cat "$work/out")"
[ "$(cat "$a/kept")" = kept ] || fail "what was durable is gone"
[ "$(slot_field generation)" -gt "$generation" ] || fail "generation $(slot_field generation)"
echo again >"$a/open" || fail "writing after joining again"

# keep HOW: a process of ours, $keeper, is there as soon as it uses what is mounted
keep() {
	case $1 in
	"open file") sleep 600 <"$a/kept" & ;;
	"directory") (cd "$a/dir" && exec sleep 600) & ;;
	"another mount namespace") in_copy "$a" sleep 600 & ;;
	esac
	keeper=$!
	pid_of[keeper]=$keeper
	wait_for 60 grep -qx sleep "/proc/$keeper/comm" || fail "no process that keeps it: $1"
}
end_keeper() { kill "$keeper"; wait "$keeper" 2>/dev/null; unset "pid_of[keeper]"; }
is_attached() { lunfs alpha --json status | grep -q '"ds1"'; }
not_attached() { ! is_attached; }

story "what keeps an unmounted datastore from ending is named, and it ends with that"
mkdir "$a/dir"
cp "$(command -v sleep)" "$a/sleep"
for how in "open file" "directory" "another mount namespace"; do
	keep "$how"
	umount -l "$a" || fail "umount"
	refused 3 "unmounted from $a, but still in use by process .*\<$keeper (sleep: $how)" alpha detach ds1
	is_attached || fail "detached all the same"
	end_keeper
	wait_for 60 not_attached || fail "it does not end with $how"
	host_mount alpha
done
"$a/sleep" 600 &		# its program, mapped, and nothing open
keeper=$!
pid_of[keeper]=$keeper
wait_for 60 grep -q "$a/sleep" "/proc/$keeper/maps" || fail "no program"
umount -l "$a" || fail "umount"
refused 3 "$keeper (sleep: open file)" alpha detach ds1
end_keeper
wait_for 60 not_attached || fail "it does not end with the program"
host_mount alpha

story "umount and detach, one right after the other, are not in each other's way"
lunfs alpha attach "$lun" >"$work/out" || fail "attach: $(cat "$work/out")"
kill -STOP "${pid_of[alpha]}"
umount "$a" || fail "umount"
lunfs alpha detach ds1 >"$work/out" 2>&1 &
detacher=$!
sleep 2		# and that long, for first it waits for work in the background
kill -CONT "${pid_of[alpha]}"
wait "$detacher" || fail "detach: $(cat "$work/out")"
host_mount alpha

story "detach --force cuts off who uses it, unless it has disks attached"
exec 3<"$a/kept"
refused 3 "mounted on $a; umount that first" alpha detach ds1
lunfs alpha disk create ds1:/a.disk --size 1M && lunfs alpha disk attach ds1:/a.disk >"$work/out" || fail "a disk"
refused 3 "disks of it are attached" alpha detach ds1 --force
mountpoint -q "$a" && [ "$(cat "$a/kept")" = kept ] || fail "unmounted before it was refused"
lunfs alpha disk detach ds1:/a.disk || fail "disk detach"
lunfs alpha detach ds1 --force >"$work/out" 2>&1 || fail "detach --force: $(cat "$work/out")"
cat <&3 >"$work/out" 2>&1 && fail "its file is still read"
grep -q "not connected" "$work/out" || fail "$(cat "$work/out")"
exec 3<&-
is_attached && fail "it is still attached"
mountpoint -q "$a" && fail "it is still mounted"
"$bin/fsck.lunfs" -n "$lun" >"$work/out" || fail "not clean: $(cat "$work/out")"

story "a lost host whose mount is kept elsewhere is told the way out, which leads back"
host_mount alpha
keep "another mount namespace"
lose_slot
umount -l "$a" || fail "umount"
"$bin/mount.lunfs" "$lun" "$a" -o "run-dir=$work/run-alpha" 2>"$work/out" && fail "mounted what is lost"
grep -q "lunfs detach --force" "$work/out" || fail "no way out: $(cat "$work/out")"
refused 3 "$keeper (sleep: another mount namespace)" alpha detach ds1
refused 1 "not cleanly" alpha detach ds1 --force
is_attached && fail "it is still attached"
host_mount alpha
[ "$(cat "$a/kept")" = kept ] || fail "what was durable is gone"
end_keeper

story "a device cut under a running daemon: EIO, a line in the log, others go on"
mkdir "$work/mnt-other"
"$bin/mkfs.lunfs" -q -L other "$work/other.img" --size 256M || fail "mkfs"
"$bin/mount.lunfs" "$work/other.img" "$work/mnt-other" -o "run-dir=$work/run-alpha" || fail "mount"
mounts+=("$work/mnt-other")
cp "$lun" "$work/saved.img"
truncate -s 1M "$lun"
timeout 60 mkdir "$a/new" 2>"$work/out" && fail "mkdir on a device that is gone succeeded"
grep -qi "input/output error" "$work/out" || fail "not EIO: $(cat "$work/out")"
wait_for 60 grep -q "ds1: commands failed by the device" "$work/alpha.log" ||
	fail "the log does not name the device's failure"
# Held up by the failed one it would be for ever, for that stays attached meanwhile.
timeout 60 sh -c 'echo fine >"$1" && sync -f "$1"' - "$work/mnt-other/file" || fail "the other datastore is held up"
timeout 60 umount "$a" || fail "umount of the failed one"
umount "$work/mnt-other"
wait_for 60 grep -q "detached $work/other.img" "$work/alpha.log" || fail "the other one is not detached"
"$bin/fsck.lunfs" -n "$work/other.img" >"$work/out" || fail "$(cat "$work/out")"
host_stop alpha
finish
