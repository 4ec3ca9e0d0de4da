#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What the README promises, as a user would do it: two hosts, one LUN, real mounts.
. "$(dirname "$0")/lib.sh"
need_fuse two_hosts_share_a_lun

make_volume 4G
host_start alpha
host_start beta
host_mount alpha
host_mount beta
a=$(mnt alpha)
b=$(mnt beta)

story "each host sees the other's files"
mkdir -p "$work/some-vm/sub"
head -c 3000000 /dev/urandom >"$work/some-vm/disk.img"
echo "name = vm1" >"$work/some-vm/sub/vm.conf"
cp -r "$work/some-vm" "$a/vm1" || fail "cp"
sleep 1
ls -l "$b/vm1" >/dev/null || fail "ls on beta"
diff -r "$work/some-vm" "$b/vm1" || fail "contents differ"

story "a changed file is seen within a second without fsync"
echo one >"$b/note"
sleep 1
[ "$(timeout 60 cat "$a/note")" = one ] || fail "first contents"
echo two-and-more >"$b/note"
sleep 1
[ "$(stat -c %s "$a/note")" = 13 ] || fail "size on the other host: $(stat -c %s "$a/note")"
[ "$(timeout 60 cat "$a/note")" = two-and-more ] || fail "second contents"

story "a file open for writing elsewhere is busy, and the holder is named"
exec 3>>"$a/vm1/disk.img"
dd if=/dev/zero of="$b/vm1/disk.img" bs=4k count=1 conv=notrunc 2>"$work/dd.err" &&
	fail "beta wrote what alpha holds"
grep -qi "busy" "$work/dd.err" || fail "not EBUSY: $(cat "$work/dd.err")"
cat "$b/vm1/disk.img" >/dev/null 2>"$work/cat.err" && fail "beta read what alpha writes"
grep -qi "busy" "$work/cat.err" || fail "not EBUSY: $(cat "$work/cat.err")"
stat "$b/vm1/disk.img" >/dev/null || fail "stat must always work"
grep -q alpha "$work/beta.log" || fail "beta's log does not name alpha"
"$bin/lunfs" --run-dir "$work/run-beta" lock show ds1:/vm1/disk.img | grep -q alpha ||
	fail "lunfs lock show does not name alpha"
exec 3>&-

story "a closed file passes on, never with EBUSY"
for i in 1 2 3; do
	echo "$i" >>"$a/vm1/sub/vm.conf" || fail "append on alpha"
	echo "$i" >>"$b/vm1/sub/vm.conf" || fail "append on beta"
done
[ "$(timeout 60 wc -l <"$a/vm1/sub/vm.conf")" = 7 ] || fail "appends were lost"

story "both hosts create and delete in one directory"
mkdir "$a/shared"
sleep 1
for host in a b; do
	(
		dir=${!host}/shared
		for i in $(seq 1 60); do
			echo "$host$i" >"$dir/$host$i" || exit 1
			[ $((i % 3)) -ne 0 ] || rm "$dir/$host$i" || exit 1
		done
	) &
	jobs_started="${jobs_started:-} $!"
done
for j in $jobs_started; do
	wait "$j" || fail "a host failed to create or delete"
done
sleep 1.2
[ "$(ls "$a/shared" | wc -l)" = 80 ] || fail "alpha sees $(ls "$a/shared" | wc -l) of 80"
[ "$(ls "$b/shared" | wc -l)" = 80 ] || fail "beta sees $(ls "$b/shared" | wc -l) of 80"

story "a takeover after kill -9 is within 8 s and loses nothing fsynced"
dd if=/dev/urandom of="$work/want" bs=64k count=16 2>/dev/null
exec 3>"$a/vm1/journal.img"
dd if="$work/want" of="$a/vm1/journal.img" bs=64k conv=fsync,notrunc 2>/dev/null || fail "write on alpha"
host_kill alpha
clock_start beta
wait_for 60 sh -c "echo taken 2>/dev/null 1<>'$b/vm1/journal.img'" || fail "beta never got the file"
took=$(clock_ms)
note "takeover took $took ms"
[ "$took" -le 8000 ] || fail "takeover took $took ms"
exec 3>&- 2>/dev/null
cmp <(tail -c +7 "$work/want") <(tail -c +7 "$b/vm1/journal.img") || fail "fsynced data was lost"
echo again >>"$b/vm1/journal.img" || fail "write on beta"

story "the crashed host comes back"
umount -l "$a"
host_start alpha
host_mount alpha
[ "$(timeout 60 tail -c 6 "$a/vm1/journal.img")" = again ] || fail "alpha reads beta's write"

story "status, hosts, df, ls, info answer in words and JSON"
for c in status "hosts ds1" "df ds1" "ls ds1:/vm1" "info ds1"; do
	# shellcheck disable=SC2086
	"$bin/lunfs" --run-dir "$work/run-beta" $c >"$work/out" || fail "lunfs $c"
	[ -s "$work/out" ] || fail "lunfs $c says nothing"
	# shellcheck disable=SC2086
	"$bin/lunfs" --run-dir "$work/run-beta" $c --json | jq . >/dev/null ||
		fail "lunfs $c --json is no JSON"
done

story "a clean end leaves a clean volume"
host_umount alpha
host_umount beta
host_stop alpha || fail "alpha's lunfsd ended with $?"
host_stop beta || fail "beta's lunfsd ended with $?"
check_volume
finish
