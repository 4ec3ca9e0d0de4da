#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# mount(8), fstab, findmnt, df and umount with type lunfs; devices of every kind.
. "$(dirname "$0")/lib.sh"
need_fuse daemon_mount

# mount(8) looks for its helpers in /sbin only: a mount namespace of our own has one there.
if [ "${IN_NAMESPACE:-}" != 1 ]; then
	rm -rf "$work"
	IN_NAMESPACE=1 exec unshare -m --propagation private "$0"
fi
drop_copied_mounts
mkdir "$work/sbin" "$work/sbin-work"
sbin=$(readlink -f /sbin)
mount -t tmpfs tmpfs "$work/sbin" 2>/dev/null && mkdir "$work/sbin/upper" "$work/sbin/work" &&
	mount -t overlay overlay -o "lowerdir=$sbin,upperdir=$work/sbin/upper,workdir=$work/sbin/work" \
		"$sbin" 2>/dev/null || {
	umount "$work/sbin" 2>/dev/null
	skip_all daemon_mount "no overlay filesystem to put mount.lunfs into /sbin"
}
cp "$bin/mount.lunfs" "$sbin/mount.lunfs"
ln -s mount.lunfs "$sbin/mount.fuse.lunfs"
cleanup_namespace() {
	umount "$sbin" "$work/sbin" 2>/dev/null
	for dev in "${loops[@]}"; do losetup -d "$dev" 2>/dev/null; done
	cleanup
	[ -z "$zram" ] || wait_for 60 sh -c "echo $zram >/sys/class/zram-control/hot_remove" 2>/dev/null
}
loops=()
zram=
trap cleanup_namespace EXIT

# writes_refused DIR: the kernel says no
writes_refused() { ! touch "$1/x" 2>/dev/null; }

make_volume 64M --beat-ms 200
host_start alpha
run=run-dir=$work/run-alpha

story "mount -t lunfs mounts, and findmnt, df and umount know it"
mount -t lunfs "$lun" "$(mnt alpha)" -o "$run,nosuid,nodev,noexec" || fail "mount -t lunfs"
mounts+=("$(mnt alpha)")
findmnt -n -o SOURCE,FSTYPE,OPTIONS "$(mnt alpha)" >"$work/out" || fail "findmnt"
grep -q "$lun" "$work/out" || fail "the device is not shown: $(cat "$work/out")"
grep -q "lunfs" "$work/out" || fail "the type is not shown: $(cat "$work/out")"
for o in nosuid nodev noexec; do
	grep -q "$o" "$work/out" || fail "$o is not in force: $(cat "$work/out")"
done
df "$(mnt alpha)" | grep -q "$lun" || fail "df"
cp /bin/true "$(mnt alpha)/true" && "$(mnt alpha)/true" 2>/dev/null && fail "noexec"

story "a remount is refused, and the mount stays as it was"
mount -t lunfs "$lun" "$(mnt alpha)" -o "remount,ro,$run" 2>"$work/out" && fail "remounted"
grep -q "cannot be changed" "$work/out" || fail "$(cat "$work/out")"
mount -o remount,ro "$(mnt alpha)" 2>"$work/out" && fail "remounted by directory"
grep -q "cannot be changed" "$work/out" || fail "$(cat "$work/out")"
touch "$(mnt alpha)/still" || fail "not writable any more"
umount "$(mnt alpha)" || fail "umount"

story "a line of fstab with _netdev, nofail, ro and the like mounts"
echo "$lun $(mnt alpha) lunfs _netdev,nofail,ro,noexec,nosuid,nodev,$run,x-systemd.requires=lunfsd.service 0 0" \
	>"$work/fstab"
mount -T "$work/fstab" "$(mnt alpha)" || fail "mount from fstab"
writes_refused "$(mnt alpha)" || fail "ro is not in force"
[ -e "$(mnt alpha)/still" ] || fail "its files are not there"
umount "$(mnt alpha)" || fail "umount"
mount -T "$work/fstab" -a -O _netdev || fail "mount -a -O _netdev"
mountpoint -q "$(mnt alpha)" || fail "not mounted by -a"
umount "$(mnt alpha)" || fail "umount"

story "mount(8) passes exit status and message on"
mount -t lunfs "$lun" "$(mnt alpha)" -o "$run,nonsense" 2>"$work/out"
[ $? -eq 2 ] || fail "an unknown option is no wrong usage: $(cat "$work/out")"
mount -t lunfs "$work/none" "$(mnt alpha)" -o "$run" 2>"$work/out" && fail "mounted nothing"
mount -t lunfs "$lun" "$(mnt alpha)" -o "$run" || fail "mount"
mount.lunfs "$lun" "$(mnt alpha)" -o "$run" 2>"$work/out"
[ $? -eq 3 ] || fail "a mounted directory is not busy: $(cat "$work/out")"
umount "$(mnt alpha)"
mount.lunfs -f "$lun" "$(mnt alpha)" -o "$run" || fail "mount -f"
mountpoint -q "$(mnt alpha)" && fail "mount -f mounted"

story "a volume for 4096-byte sectors in a plain file is mounted and checked"
"$bin/mkfs.lunfs" -q -L big "$work/4k.img" --size 64M --sector 4096 || fail "mkfs --sector"
mount.lunfs "$work/4k.img" "$(mnt alpha)" -o "$run" || fail "mount"
head -c 300000 /dev/urandom >"$(mnt alpha)/data" || fail "write"
sum=$(sha256sum <"$(mnt alpha)/data")
"$bin/lunfs" --run-dir "$work/run-alpha" info big --json | grep -q '"sector": 4096' ||
	fail "its sectors are not shown"
umount "$(mnt alpha)" || fail "umount"
# What it keeps in memory comes home as it leaves, after umount's end; a check amid that sees half of it.
wait_for 60 grep -q "detached $work/4k.img" "$work/alpha.log" || fail "it stays attached"
"$bin/fsck.lunfs" -n "$work/4k.img" >"$work/out" || fail "fsck: $(cat "$work/out")"
"$bin/lunfs" debug "$work/4k.img" super >"$work/out" || fail "debug: $(cat "$work/out")"
mount.lunfs "$work/4k.img" "$(mnt alpha)" -o "$run" || fail "mount again"
[ "$sum" = "$(sha256sum <"$(mnt alpha)/data")" ] || fail "its data changed"
umount "$(mnt alpha)"

loop=$(losetup -f --show "$lun" 2>/dev/null) || loop=
if [ -n "$loop" ]; then
	loops+=("$loop")
	story "a file behind a loop device is not formatted, whatever one says"
	"$bin/mkfs.lunfs" -f -L new "$lun" >"$work/out" 2>&1 && fail "formatted"
	grep -q "$loop" "$work/out" || fail "the device is not named: $(cat "$work/out")"
	losetup -d "$loop"

	story "a write-protected device: the message names the way out, which works"
	loop=$(losetup -r -f --show "$lun")
	loops+=("$loop")
	for o in ro rw; do
		mount.lunfs "$loop" "$(mnt alpha)" -o "$run,$o" 2>"$work/out" && fail "mounted $o"
		grep -q "rescue" "$work/out" || fail "$o: $(cat "$work/out")"
	done
	mount.lunfs "$loop" "$(mnt alpha)" -o "$run,rescue" 2>"$work/out" ||
		fail "rescue: $(cat "$work/out")"
	[ -e "$(mnt alpha)/still" ] || fail "nothing to be read"
	umount "$(mnt alpha)"
	losetup -d "$loop"
else
	note "no loop device here"
fi

# A block device that is no loop device and nobody else's: compressed memory.
zram=$(cat /sys/class/zram-control/hot_add 2>/dev/null) &&
	echo 64M >"/sys/block/zram$zram/disksize" 2>/dev/null || zram=
if [ -n "$zram" ] && [ -b "/dev/zram$zram" ]; then
	dev=/dev/zram$zram
	story "a block device that is this machine's alone, as mkfs was told, is mounted"
	"$bin/mkfs.lunfs" -q -L alone "$dev" 2>"$work/out" && fail "formatted without --caw=local"
	grep -q -- "--caw=local" "$work/out" || fail "the way out is not named: $(cat "$work/out")"
	"$bin/mkfs.lunfs" -q -L alone --caw=local "$dev" || fail "mkfs --caw=local"
	mount.lunfs "$dev" "$(mnt alpha)" -o "$run" 2>"$work/out" || fail "mount: $(cat "$work/out")"
	touch "$(mnt alpha)/here" || fail "write"
	"$bin/mkfs.lunfs" -q -f -L alone --caw=local "$dev" 2>"$work/out" && fail "formatted while mounted"
	umount "$(mnt alpha)"
	wait_for 60 grep -q "detached $dev" "$work/alpha.log" || fail "it stays attached"
	"$bin/fsck.lunfs" -n "$dev" >"$work/out" || fail "fsck: $(cat "$work/out")"
	"$bin/lunfs" debug "$dev" super >/dev/null || fail "debug"
else
	note "no zram here"
fi
host_stop alpha || fail "alpha ended with $?"
finish
