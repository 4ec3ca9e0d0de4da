#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make demo`: the README's story as at a user's site, told as it happens: an iSCSI target with
# one LUN, two hosts that share it, one that dies, one that freezes and comes back too late.
# Stops with a clear word and exit status 1 at the first step that does not hold.
set -u
top=$(cd "$(dirname "$0")/.." && pwd)
bin=$top/build/bin
work=$(mktemp -d /var/tmp/lunfs-demo-XXXXXX)
chmod 755 "$work"
export LUNFS_LOCK_DIR=$work/locks
a=$work/alpha
b=$work/beta
iqn=iqn.2026-01.org.lunfs:demo
target_pid= pid_a= pid_b=

if [ "$(id -u)" -ne 0 ] || [ ! -c /dev/fuse ]; then
	echo "demo: needs root and /dev/fuse" >&2
	exit 1
fi

cleanup() {
	umount -l "$a" "$b" 2>/dev/null
	for pid in $pid_a $pid_b $target_pid; do
		kill -KILL "$pid" 2>/dev/null
		wait "$pid" 2>/dev/null
	done
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
worker_of() { pgrep -P "$1" | head -n 1; }
lunfs_a() { "$bin/lunfs" --run-dir "$work/run-a" "$@"; }
lunfs_b() { "$bin/lunfs" --run-dir "$work/run-b" "$@"; }
field() { "$1" status --json | jq -r ".datastores[0].$2"; }

start_alpha() {
	show "lunfsd --run-dir $work/run-a --host-name alpha &"
	"$bin/lunfsd" --run-dir "$work/run-a" --host-name alpha 2>>"$work/alpha.log" & pid_a=$!
	until_works 10 lunfs_a status || die "alpha does not answer"
	run "$bin/mount.lunfs" "$lun" "$a" -o "run-dir=$work/run-a"
}

# A write past everybody's back, by an initiator that has not joined; NAME is what it calls itself.
write_as() {
	qemu-io --image-opts -c 'write -P 0xee 0 4k' \
		"driver=iscsi,transport=tcp,portal=127.0.0.1:$port,target=$iqn,lun=0,initiator-name=$1" 2>&1
}

takeover() {	# takeover SINCE FILE: until beta may write
	until_works 15 dd if=/dev/null of="$2" conv=notrunc || die "beta never got the disk"
	took=$((($(date +%s%N) - $1) / 1000000))
	echo "beta could open the disk for writing $took ms later."
	[ "$took" -le 8000 ] || die "the takeover took longer than 8 s"
}

mkdir -p "$a" "$b" "$work/run-a" "$work/run-b" "$work/state"

say "1. A spare machine becomes the SAN: lunfs-target serves a thin file as a LUN."
show "lunfs-target --lun $work/lun0.img --size 20G --portal 127.0.0.1:0 --iqn $iqn &"
"$bin/lunfs-target" --lun "$work/lun0.img" --size 20G --portal 127.0.0.1:0 --iqn "$iqn" \
	--state-dir "$work/state" >"$work/urls" 2>"$work/target.log" & target_pid=$!
until_works 10 test -s "$work/urls" || die "lunfs-target does not start"
cat "$work/urls"
lun=$(awk 'NR == 1 { print $1 }' "$work/urls")
port=${lun#iscsi://127.0.0.1:}
port=${port%%/*}

say "2. Format the LUN."
run "$bin/mkfs.lunfs" -L ds1 "$lun"

say "3. Two hosts, alpha and beta: one daemon each, nothing shared but the LUN."
start_alpha
show "lunfsd --run-dir $work/run-b --host-name beta &"
"$bin/lunfsd" --run-dir "$work/run-b" --host-name beta 2>"$work/beta.log" & pid_b=$!
until_works 10 lunfs_b status || die "beta does not answer"
run "$bin/mount.lunfs" "$lun" "$b" -o "run-dir=$work/run-b"

say "4. alpha copies a VM in; beta sees it."
mkdir -p "$work/some-vm"
head -c 8000000 /dev/urandom >"$work/some-vm/disk.img"
echo "memory = 512M" >"$work/some-vm/vm.conf"
run cp -r "$work/some-vm" "$a/vm1"
run ls -l "$b/vm1"
cmp "$work/some-vm/disk.img" "$b/vm1/disk.img" || die "beta reads other data"
echo "The data is the same on both hosts."

say "5. alpha opens the disk for writing; beta is told who has it."
exec 3<>"$a/vm1/disk.img"
show "dd if=/dev/zero of=$b/vm1/disk.img bs=4k count=1 conv=notrunc"
dd if=/dev/zero of="$b/vm1/disk.img" bs=4k count=1 conv=notrunc 2>"$work/dd.err" &&
	die "beta could write what alpha holds"
cat "$work/dd.err"
grep -qi busy "$work/dd.err" || die "expected 'Device or resource busy'"
run "$bin/lunfs" --run-dir "$work/run-b" lock show ds1:/vm1/disk.img

say "6. alpha writes, fsyncs, and dies."
head -c 1048576 /dev/urandom >"$work/want"
show "dd of=$a/vm1/disk.img conv=notrunc,fsync; kill -9 <alpha>"
dd if="$work/want" of="$a/vm1/disk.img" bs=64k conv=notrunc,fsync 2>/dev/null || die "write on alpha"
key=$(field lunfs_a reservation.own_key)
name=iqn.2026-11.org.lunfs:$(lunfs_a status --json | jq -r .host_id)
kill -9 "$pid_a"
start=$(date +%s%N)
wait "$pid_a" 2>/dev/null
pid_a=
{ exec 3>&-; } 2>/dev/null

say "7. beta takes over."
takeover "$start" "$b/vm1/disk.img"
[ "$(head -c 1048576 "$b/vm1/disk.img" | sha256sum)" = "$(sha256sum <"$work/want")" ] ||
	die "fsynced data was lost"
echo "Everything that alpha had fsynced is there: $(sha256sum <"$work/want" | cut -c 1-16)…"
run "$bin/lunfs" --run-dir "$work/run-b" status
lunfs_b status --json | grep -q "$key" && die "alpha's key $key is still registered"
umount -l "$a" 2>/dev/null

say "8. Fenced means: the target refuses. Who has not joined cannot write, by whatever name."
if command -v qemu-io >/dev/null; then
	show "qemu-io -c 'write 0 4k' …     # as $name"
	write_as "$name" >"$work/refused"
	grep -q '^wrote' "$work/refused" && die "the target let it write"
	tail -n 1 "$work/refused"
	grep -q 'RESERVATION CONFLICT' "$work/target.log" || die "the target does not say why"
	grep 'RESERVATION CONFLICT' "$work/target.log" | tail -n 1
else
	echo "(no qemu-io here: left out)"
fi

say "9. alpha comes back, opens a disk, and freezes; beta takes that over too."
start_alpha
exec 3<>"$a/vm1/second.img"
head -c 65536 /dev/zero | tr '\0' A >&3
sync -f "$a/vm1/second.img"
show "kill -STOP <alpha>"
kill -STOP "$(worker_of "$pid_a")" "$pid_a"
start=$(date +%s%N)
takeover "$start" "$b/vm1/second.img"
head -c 65536 /dev/zero | tr '\0' B | dd of="$b/vm1/second.img" conv=notrunc,fsync 2>/dev/null ||
	die "beta cannot write"

say "10. alpha wakes up and wants to go on writing."
seen=$(wc -l <"$work/target.log")
show "kill -CONT <alpha>; dd of=$a/vm1/second.img …"
(head -c 65536 /dev/zero | tr '\0' Z >&3) 2>/dev/null &
late=$!
kill -CONT "$pid_a" "$(worker_of "$pid_a")"
until_works 10 grep -qE 'slot [0-9]+ is lost' "$work/alpha.log" || die "alpha does not know that it is lost"
wait "$late"
exec 3>&-
tail -n "+$((seen + 1))" "$work/target.log" | grep 'is refused' || die "the target refused nothing of alpha"
grep -E 'slot [0-9]+ is lost' "$work/alpha.log" | tail -n 1
[ -z "$(tr -d B <"$b/vm1/second.img")" ] || die "something of the frozen host landed"
echo "Nothing of it has landed."

say "11. Once it has joined again it may write."
umount -l "$a"
until_works 10 lunfs_a detach ds1
run "$bin/mount.lunfs" "$lun" "$a" -o "run-dir=$work/run-a"
show "echo back >$a/vm1/note"
echo back >"$a/vm1/note" || die "alpha cannot write after it has joined again"
[ "$(cat "$b/vm1/note")" = back ] || die "beta does not see it"
run "$bin/lunfs" --run-dir "$work/run-b" hosts ds1
run "$bin/lunfs" --run-dir "$work/run-b" df ds1

say "12. A clean end, and a check of the whole volume."
run umount "$a" "$b"
for pid in "$pid_a" "$pid_b"; do
	kill -TERM "$pid"
	wait "$pid" || die "a daemon did not end cleanly"
done
pid_a= pid_b=
run "$bin/fsck.lunfs" -n "$lun"
kill -TERM "$target_pid"
wait "$target_pid" || die "lunfs-target did not end cleanly"
target_pid=
say "Done: everything held."
