# SPDX-License-Identifier: Apache-2.0
# What the tests with guests on virtual disks share; after tests/e2e/lib.sh.
. "$top/tests/guest/lib.sh"

guest_memory_args=(-object memory-backend-memfd,id=mem,size="${GUEST_MEMORY:-512M}",share=on
	-machine q35,memory-backend=mem)
guest_disk_args=()
guest_pid=
guest_log=

# What every guest has.  The kernel is known once guests_need has been called.
guest_files=(-m virtio_pci,virtio_blk,ext4,crc32c_generic -f /sbin/mkfs.ext4 -f /sbin/e2fsck
	-f "$top/${BUILD:-build}/tests/vhost/guest_load:/bin/guest_load" -f /etc/mke2fs.conf)

guests_need() {	# guests_need TEST
	[ "$(id -u)" -eq 0 ] || skip_all "$1" "needs root"
	guest_need && guest_kernel cloud || skip_all "$1" "$GUEST_WHY"
	make -s -C "$top" "${BUILD:-build}/tests/vhost/guest_load" || fail "guest_load does not build"
	note "$GUEST_RELEASE under $(guest_accel)"
}

guest_disk() {	# guest_disk HOST DISK [device options]: the next guest has it, and only it
	guest_disk_args=("${guest_memory_args[@]}")
	guest_add_disk "$@"
}

guest_add_disk() {	# guest_add_disk HOST DISK [device options]: and this one too
	local socket id=d${#guest_disk_args[@]}
	socket=$("$bin/lunfs" --run-dir "$work/run-$1" disk attach "$2" 2>>"$work/$1.ctl.log") ||
		fail "$1: lunfs disk attach $2"
	guest_disk_args+=(-chardev "socket,id=c$id,path=$socket,reconnect=1"
		-device "vhost-user-blk-pci,chardev=c$id,id=$id${3:+,$3}")
}

# A line each way between the guest's /dev/ttyS1 and us: we write to 7 and read from 8.
guest_channel() {
	mkfifo "$work/channel.in" "$work/channel.out" || fail "mkfifo"
	exec 7<>"$work/channel.in" 8<>"$work/channel.out"
	guest_disk_args+=(-chardev "pipe,id=channel,path=$work/channel" -serial chardev:channel)
}

guest_boot() {	# guest_boot NAME SECONDS INITRD QEMU-ARGUMENT…: in the background
	guest_log=$work/$1.out
	guest_run "$1" "$2" "$3" "$work/$1.console" "${@:4}" >"$guest_log" 2>&1 &
	guest_pid=$!
	pid_of[guest]=$guest_pid
}

# The power goes: of the QEMU that guest_boot started.
guest_crash() {
	local timeout qemu
	timeout=$(pgrep -P "$guest_pid" -x timeout)
	qemu=$(pgrep -P "$timeout")
	kill -KILL "$qemu"
	wait "$guest_pid" 2>/dev/null
	unset 'pid_of[guest]'
}

# A guest that is still there when the test ends goes with it.
guests_cleanup() {
	[ -z "${pid_of[guest]:-}" ] || guest_crash
	cleanup
}
trap guests_cleanup EXIT

guest_end() {	# waits for it; its results are printed
	wait "$guest_pid"
	local status=$?
	cat "$guest_log"
	unset 'pid_of[guest]'
	return $status
}
