#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A guest with Debian's kernel on a disk that lunfsd serves, by QEMU's vhost-user-blk-pci: it
# partitions, makes ext4, loads, discards, sees the disk grow, does not notice that it is snapshotted
# and that lunfsd is killed; its host crashes, and it goes on on another one, where a clone of the
# snapshot has what was safe by then.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/guests.sh"
guests_need "a guest on a virtual disk"

disk=ds1:/root.disk
passes=0	# that the guest says are safe

answer() { echo "$*" >&7; }

own_mib() {	# what the disk takes on the volume
	local bytes
	bytes=$("$bin/lunfs" --json --run-dir "$work/run-alpha" disk info $disk | jq .total) ||
		fail "lunfs disk info"
	answer $((bytes >> 20))
}

# Does what the guest asks for, until it is done or there is nothing more from it.
serve_guest() {
	local line
	while IFS= read -r -t 170 -u 8 line; do
		case $line in
		"pass "*)
			passes=${line#pass }
			[ "$passes" -lt 4 ] || return 0 ;;
		space) own_mib ;;
		grow)
			ctl alpha disk grow $disk --size 1536M || fail "lunfs disk grow"
			answer done ;;
		snapshot)
			ctl alpha disk snapshot create $disk one || fail "lunfs disk snapshot create"
			answer done ;;
		kill)
			host_kill alpha
			host_start alpha
			answer done ;;
		*) fail "the guest says \"$line\"" ;;
		esac
	done
	return 1
}

cat >"$work/in" <<'IN'
exec 5<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
ask() { echo "$1" >&5; read -r answer <&5; }
size() { blockdev --getsize64 /dev/vda; }
has_grown() { test "$(size)" = 1610612736; }

format() {
	printf 'o\nn\np\n1\n2048\n1900000\nw\n' | fdisk /dev/vda >/dev/null
	wait_for 60 test -b /dev/vda1 && mkfs.ext4 -q /dev/vda1 && mount -t ext4 /dev/vda1 /mnt
}

discard() {
	local before
	ask space; before=$answer
	rm /mnt/a && sync && fstrim -v /mnt || return 1
	sleep 1
	ask space
	echo "the disk takes $before MiB before and $answer MiB after"
	test $((before - answer)) -ge 24
}

# The load goes on while lunfsd does what is asked for.
under_load() {
	local load
	guest_load write /mnt/b 4096 1 8 &
	load=$!
	sleep 0.3
	ask "$1"
	test "$answer" = "done" && wait $load && guest_load check /mnt/b 4096 8 8
}

snapshot() {
	guest_load write /mnt/s 1024 3 3 && under_load snapshot &&
		guest_load write /mnt/s 1024 4 4 && guest_load check /mnt/s 1024 4 4
}

check "sees the disk's size, serial and cache" test "$(size) $(cat /sys/block/vda/cache_type)" = \
	"1073741824 write back"
check "partitions, makes ext4 and mounts it" format
check "reads what it has written" sh -c 'guest_load write /mnt/a 8192 1 2 && guest_load check /mnt/a 8192 2 2'
check "gives space back by discarding" discard
ask grow
check "sees the disk grow while it uses it" wait_for 60 has_grown
check "writes on while a snapshot is made" snapshot
check "loses nothing when lunfsd is killed and started again" under_load kill
dmesg | grep -i 'i/o error' && fail "sees no error" || pass "sees no error"
# The results must be out before the host crashes.
sleep 0.2
guest_load write /mnt/c 4096 1 0 /dev/ttyS1
IN

cat >"$work/in2" <<'IN'
check "mounts what it left on the host that crashed" mount -t ext4 /dev/vda1 /mnt
check "finds all that was safe" guest_load check /mnt/c 4096 "$(cat /etc/passes)" "$(($(cat /etc/passes) + 1))"
check "finds what it wrote before" guest_load check /mnt/b 4096 8 8
check "finds in a clone of the snapshot what was safe when that was made" sh -c \
	'mkdir /mnt2 && mount -t ext4 /dev/vdb1 /mnt2 && guest_load check /mnt2/s 1024 3 3 && umount /mnt2'
check "writes on" sh -c 'guest_load write /mnt/c 4096 100 101 && guest_load check /mnt/c 4096 101 101'
umount /mnt
check "has a clean filesystem" e2fsck -fn /dev/vda1
check "has a clean one in the clone" e2fsck -fn /dev/vdb1
IN

story "the host serves a disk to a guest"
make_volume 4G
host_start alpha
ctl alpha attach "$lun" || fail "lunfs attach"
ctl alpha disk create $disk --size 1G || fail "lunfs disk create"
guest_disk alpha $disk
guest_initrd "$work/initrd" "$work/in" "${guest_files[@]}"
guest_channel
guest_boot first 240 "$work/initrd" "${guest_disk_args[@]}"
serve_guest || { guest_end; fail "the guest did not come to its end"; }

story "the host crashes with the guest on it"
host_kill alpha
guest_crash
tr -d '\r' <"$work/first.console" | sed -n 's/^.*GUEST-RESULT: \(PASS\|FAIL\|SKIP\): /\1: a guest /p' >"$work/results"
cat "$work/results"
grep -q '^FAIL' "$work/results" && { tail -n 60 "$work/first.console"; fail "the guest failed"; }
[ "$(grep -c '^PASS' "$work/results")" = 8 ] || fail "not all that the guest was to prove"
note "the guest had $passes passes safe"

story "it goes on on the other host"
host_start beta
ctl beta attach "$lun" || fail "lunfs attach"
ctl beta disk clone --linked $disk@one ds1:/clone.disk || fail "lunfs disk clone"
guest_disk beta $disk
guest_add_disk beta ds1:/clone.disk
echo "$passes" >"$work/passes"
guest_initrd "$work/initrd2" "$work/in2" "${guest_files[@]}" -f "$work/passes:/etc/passes"
guest_run "a guest on the other host" 120 "$work/initrd2" "$work/second.console" "${guest_disk_args[@]}" ||
	fail "the second guest failed"

story "the volume is clean"
host_stop beta || fail "lunfsd does not end"
check_volume
finish
