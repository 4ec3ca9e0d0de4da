#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A file marked multi-writer is written by two hosts at once, and neither reads old data.
. "$(dirname "$0")/lib.sh"
need_fuse several_writers

make_volume 256M
host_start alpha
host_start beta
host_mount alpha
host_mount beta

story "two hosts write one file at once, and each reads what the other wrote"
timeout 200 python3 - "$(mnt alpha)/shared" "$(mnt beta)/shared" <<'PY' || fail "see above"
import os, sys
a, b = sys.argv[1:]
fd = os.open(a, os.O_RDWR | os.O_CREAT)
os.write(fd, bytes(1 << 20))
os.fsync(fd)
os.close(fd)
os.setxattr(a, "trusted.lunfs.multiwriter", b"1")
x, y = os.open(a, os.O_RDWR), os.open(b, os.O_RDWR)
for i in range(1, 20):
    for writer, reader in ((x, y), (y, x)):
        want = bytes([i + (writer == x) * 100]) * 4096
        os.pwrite(writer, want, 8192)
        assert os.pread(reader, 4096, 8192) == want, "old data in round %d" % i
os.close(x)
os.close(y)
PY

host_umount alpha
host_umount beta
host_stop alpha || fail "alpha ended with $?"
host_stop beta || fail "beta ended with $?"
check_volume
finish
