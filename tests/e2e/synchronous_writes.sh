#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What O_DSYNC, O_SYNC and fsync(2) acknowledged is there after the daemon was killed.
. "$(dirname "$0")/lib.sh"
need_fuse synchronous_writes

make_volume 1G
host_start alpha
host_mount alpha
a=$(mnt alpha)

write_sync() {	# write_sync FILE FLAGS [COUNT]: 4 KiB at the start or end, acknowledged
	python3 - "$1" "$2" "${3:-1}" <<-'END' || fail "write with $2"
		import mmap, os, sys
		flags = eval(sys.argv[2], vars(os))
		fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | flags, 0o644)
		data = mmap.mmap(-1, 4096)
		data.write(b"x" * 4096)
		for _ in range(int(sys.argv[3])):
		    if os.pwrite(fd, data, 0) != 4096:
		        sys.exit(1)
		os._exit(0)	# no close(2) of ours before the daemon dies
	END
}

crash() {	# the parent first, so that it does not start another worker
	local worker
	worker=$(worker_of alpha)
	kill -KILL "${pid_of[alpha]}" "$worker"
	wait "${pid_of[alpha]}" 2>/dev/null
	umount -l "$a"
	host_start alpha
	host_mount alpha
}

# Without the flag the transaction that gives the file its size waits for a third of a second.
for flags in "O_DIRECT|O_DSYNC" "O_DIRECT|O_SYNC" "O_APPEND|O_DSYNC" O_DSYNC O_SYNC; do
	story "a write with $flags is durable when it returns"
	write_sync "$a/file" "$flags"
	crash
	[ "$(stat -c %s "$a/file")" = 4096 ] || fail "size $(stat -c %s "$a/file")"
	tr -d x <"$a/file" | cmp - /dev/null || fail "contents"
	rm "$a/file"
	sync -f "$a"
done

# An overwrite survives the daemon in any case: what tells is whether the device was flushed.
if command -v strace >/dev/null; then
	story "overwrites with O_DIRECT|O_DSYNC flush the device"
	write_sync "$a/file" "O_DIRECT|O_DSYNC"
	strace -f -qq -c -e trace=fdatasync -o "$work/strace" -p "$(worker_of alpha)" &
	tracer=$!
	traced() { ! grep -hqE "^TracerPid:[[:space:]]*0$" /proc/"$(worker_of alpha)"/task/*/status; }
	wait_for 60 traced || fail "strace does not take hold"
	write_sync "$a/file" "O_DIRECT|O_DSYNC" 200
	kill -INT "$tracer"
	wait "$tracer"
	flushes=$(awk '$NF == "fdatasync" { print $4 }' "$work/strace")
	[ "${flushes:-0}" -ge 200 ] || fail "${flushes:-0} flushes for 200 writes"
else
	note "no strace: flushes are not counted"
fi

story "a directory of a rescue mount can be synced"
mkdir "$a/dir"
host_umount alpha
host_stop alpha || fail "alpha ended with $?"
host_start alpha
host_mount alpha rescue
python3 -c 'import os, sys; os.fsync(os.open(sys.argv[1], os.O_RDONLY))' "$a/dir" ||
	fail "fsync of a directory"
ls "$a/dir" >/dev/null || fail "the daemon is gone"
host_umount alpha
host_stop alpha || fail "alpha ended with $?"
check_volume
finish
