#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make demo`: the README's story on a real file with real FUSE mounts, told as it happens.
# Stops with a clear word and exit status 1 at the first step that does not hold.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
bin=$top/build/bin
work=$(mktemp -d /var/tmp/lunfs-demo-XXXXXX)
chmod 755 "$work"
export LUNFS_LOCK_DIR=$work/locks
lun=$work/lun.img
a=$work/alpha
b=$work/beta
pid_a= pid_b=

if [ "$(id -u)" -ne 0 ] || [ ! -c /dev/fuse ]; then
	echo "demo: needs root and /dev/fuse" >&2
	exit 1
fi

cleanup() {
	umount -l "$a" "$b" 2>/dev/null
	[ -z "$pid_a" ] || kill -KILL "$pid_a" 2>/dev/null
	[ -z "$pid_b" ] || kill -KILL "$pid_b" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; }
die() { printf '\ndemo FAILED: %s\n' "$*" >&2; tail -n 20 "$work"/*.log >&2; exit 1; }
run() { show "$*"; "$@" || die "$*"; }
until_works() {	# until_works SECONDS COMMAND…
	local end=$(($(date +%s%N) + $1 * 1000000000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s%N)" -lt "$end" ] || return 1
		sleep 0.05
	done
}

mkdir -p "$a" "$b" "$work/run-a" "$work/run-b"

say "1. Format a shared LUN. A sparse file plays it here."
run "$bin/mkfs.lunfs" -L ds1 "$lun" --size 20G

say "2. Two hosts, alpha and beta: one daemon each, nothing shared but the LUN."
show "lunfsd --run-dir $work/run-a --host-name alpha &"
"$bin/lunfsd" --run-dir "$work/run-a" --host-name alpha 2>"$work/alpha.log" & pid_a=$!
show "lunfsd --run-dir $work/run-b --host-name beta &"
"$bin/lunfsd" --run-dir "$work/run-b" --host-name beta 2>"$work/beta.log" & pid_b=$!
until_works 10 "$bin/lunfs" --run-dir "$work/run-a" status || die "alpha does not answer"
until_works 10 "$bin/lunfs" --run-dir "$work/run-b" status || die "beta does not answer"
run "$bin/mount.lunfs" "$lun" "$a" -o "run-dir=$work/run-a"
run "$bin/mount.lunfs" "$lun" "$b" -o "run-dir=$work/run-b"

say "3. alpha copies a VM in; beta sees it."
mkdir -p "$work/some-vm"
head -c 8000000 /dev/urandom >"$work/some-vm/disk.img"
echo "memory = 512M" >"$work/some-vm/vm.conf"
run cp -r "$work/some-vm" "$a/vm1"
run ls -l "$b/vm1"
cmp "$work/some-vm/disk.img" "$b/vm1/disk.img" || die "beta reads other data"
echo "The data is the same on both hosts."

say "4. alpha opens the disk for writing; beta is told who has it."
exec 3<>"$a/vm1/disk.img"
show "dd if=/dev/zero of=$b/vm1/disk.img bs=4k count=1 conv=notrunc"
dd if=/dev/zero of="$b/vm1/disk.img" bs=4k count=1 conv=notrunc 2>"$work/dd.err" &&
	die "beta could write what alpha holds"
cat "$work/dd.err"
grep -qi busy "$work/dd.err" || die "expected 'Device or resource busy'"
run "$bin/lunfs" --run-dir "$work/run-b" lock show ds1:/vm1/disk.img

say "5. alpha writes, fsyncs, and dies."
head -c 1048576 /dev/urandom >"$work/want"
show "dd of=$a/vm1/disk.img conv=notrunc,fsync; kill -9 <alpha>"
dd if="$work/want" of="$a/vm1/disk.img" bs=64k conv=notrunc,fsync 2>/dev/null || die "write on alpha"
kill -9 "$pid_a"
start=$(date +%s%N)
wait "$pid_a" 2>/dev/null
pid_a=
exec 3>&- 2>/dev/null

say "6. beta takes over."
until_works 15 dd if=/dev/null of="$b/vm1/disk.img" conv=notrunc || die "beta never got the disk"
took=$((($(date +%s%N) - start) / 1000000))
echo "beta could open the disk for writing $took ms after the crash."
[ "$took" -le 8000 ] || die "the takeover took longer than 8 s"
cmp -n 1048576 "$work/want" "$b/vm1/disk.img" || die "fsynced data was lost"
echo "Everything that alpha had fsynced is there."
run "$bin/lunfs" --run-dir "$work/run-b" hosts ds1
run "$bin/lunfs" --run-dir "$work/run-b" df ds1

say "7. A clean end, and a check of the whole volume."
umount -l "$a" 2>/dev/null
run umount "$b"
kill -TERM "$pid_b"
wait "$pid_b" || die "beta did not end cleanly"
pid_b=
run "$bin/fsck.lunfs" -n "$lun"
say "Done: everything held."
