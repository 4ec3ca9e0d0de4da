#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Devices of every kind in one guest: packed and split rings, several queues, no indirect
# descriptors and no EVENT_IDX, read-only; drivers that let go and take hold again, a guest that
# is reset in the middle of its I/O.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/guests.sh"
guests_need "kinds of devices in a guest"

cat >"$work/in" <<'IN'
blocks=2048
load() { guest_load write /dev/$1 $blocks "$2" "$2" >/dev/null && guest_load check /dev/$1 $blocks "$2" "$2"; }

# Lets the driver go and take hold again: rings stop, the device is reset, rings start.
rebind() {
	local device pass=10
	device=$(basename "$(readlink /sys/block/$1/device)")
	while [ $pass -lt 13 ]; do
		load $1 $pass || return 1
		echo $device >/sys/bus/virtio/drivers/virtio_blk/unbind
		echo $device >/sys/bus/virtio/drivers/virtio_blk/bind
		wait_for 60 test -b /dev/$1 || return 1
		guest_load check /dev/$1 $blocks $pass $pass || return 1
		pass=$((pass + 1))
	done
}

several() {	# several DISK PASS: four at a time, one a part of the disk
	local n pids= pid
	for n in 0 1 2 3; do
		dd if=/dev/urandom of=/tmp/data$n bs=64k count=32 2>/dev/null
		dd if=/tmp/data$n of=/dev/$1 bs=64k seek=$((200 + n * 32)) oflag=direct 2>/dev/null &
		pids="$pids $!"
	done
	for pid in $pids; do wait $pid || return 1; done
	for n in 0 1 2 3; do
		dd if=/dev/$1 bs=64k skip=$((200 + n * 32)) count=32 iflag=direct 2>/dev/null |
			cmp - /tmp/data$n || return 1
	done
}

cache() {
	echo "write through" >/sys/block/$1/cache_type && grep -q through /sys/block/$1/cache_type &&
		load $1 20 && echo "write back" >/sys/block/$1/cache_type && load $1 21
}

read_only() {
	test "$(blockdev --getro /dev/$1)" = 1 && dd if=/dev/$1 of=/dev/null bs=64k count=64 2>/dev/null &&
		! dd if=/dev/zero of=/dev/$1 bs=4k count=1 oflag=direct 2>/dev/null
}

if [ "$(dd if=/dev/vdb bs=4k skip=16000 count=1 2>/dev/null | head -c 5)" != reset ]; then
	for d in vda vdb vdc; do
		check "$d reads what it has written" load $d 1
		check "$d serves several at a time" several $d
		check "$d is let go and taken hold of" rebind $d
	done
	check "packed and split have two queues" test "$(ls -d /sys/block/vda/mq/* /sys/block/vdb/mq/* | wc -l)" = 4
	check "the cache is switched off and on" cache vdb
	check "a read-only disk is one" read_only vdd
	printf reset | dd of=/dev/vdb bs=4k seek=16000 conv=sync oflag=direct 2>/dev/null
	for d in vda vdb vdc; do
		guest_load write /dev/$d $blocks 30 0 >/dev/null &
	done
	sleep 1
	echo b >/proc/sysrq-trigger
	sleep 60
fi
for d in vda vdb vdc; do
	check "$d is whole after a reset in the middle of its I/O" guest_load check /dev/$d $blocks 12 1000000
	check "$d works after a reset" load $d 2
done
check "a read-only disk is one after a reset" read_only vdd
IN

story "the host serves four disks to a guest"
make_volume 2G
host_start alpha
ctl alpha attach "$lun" || fail "lunfs attach"
for d in a b c d; do
	ctl alpha disk create ds1:/$d --size 64M || fail "lunfs disk create"
done
guest_disk alpha ds1:/a packed=on,num-queues=2
guest_add_disk alpha ds1:/b num-queues=2
guest_add_disk alpha ds1:/c num-queues=1,indirect_desc=off,event_idx=off
ro=$("$bin/lunfs" --run-dir "$work/run-alpha" disk attach ds1:/d --read-only) || fail "lunfs disk attach"
guest_disk_args+=(-chardev "socket,id=ro,path=$ro,reconnect=1" -device vhost-user-blk-pci,chardev=ro,num-queues=1)
guest_initrd "$work/initrd" "$work/in" "${guest_files[@]}"
GUEST_CPUS=2 guest_run "guest:" 160 "$work/initrd" "$work/console" "${guest_disk_args[@]}" \
	-action reboot=reset || fail "the guest failed"

story "the volume is clean"
host_stop alpha || fail "lunfsd does not end"
check_volume
finish
