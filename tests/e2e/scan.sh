#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# lunfs scan finds a volume whose beginning is gone, and is not taken in by what its files hold:
# whole volumes of nested hosts, and metadata blocks that carry the volume's own id.
. "$(dirname "$0")/lib.sh"
need_fuse scan

make_volume 1G
host_start alpha
host_mount alpha
a=$(mnt alpha)

forge() {	# every metadata superblock that a guest could think of, sealed, one a block
	python3 - "$lun" "$1" <<'EOF'
import struct, sys
table = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
    table.append(n)
def crc32c(data):
    c = 0xffffffff
    for b in data:
        c = c >> 8 ^ table[(c ^ b) & 255]
    return c ^ 0xffffffff
first = bytearray(open(sys.argv[1], 'rb').read(65536 + 4096)[65536:])
size, = struct.unpack_from('<Q', first, 176)
middle, = struct.unpack_from('<Q', first, 288)
with open(sys.argv[2], 'r+b') as out:
    for i, addr in enumerate((65536, middle, size - 4096, 65536 * 3, 4096)):
        block = bytearray(first)
        struct.pack_into('<Q', block, 32, addr)
        struct.pack_into('<Q', block, 48, 1 << 40)	# newer than any
        struct.pack_into('<Q', block, 280, 1 << 15)	# another root directory
        struct.pack_into('<I', block, 4, 0)
        struct.pack_into('<I', block, 4, crc32c(block))
        out.seek((i + 1) * 1048576)
        out.write(block)
EOF
}

# Contents, names and sizes of all there is.
inventory() { (cd "$a" && find . -printf '%P %y %s %m\n' | sort; find "$a" -type f -exec sha256sum {} + | sort); }

scan() {	# scan EXPECTED_STATUS option…
	local want=$1 status
	shift
	"$bin/lunfs" scan "$@" "$lun" >"$work/scan.out" 2>"$work/scan.log"
	status=$?
	[ $status -eq "$want" ] || fail "scan $*: status $status, expected $want: $(cat "$work/scan.out")"
}
uuid() { "$bin/lunfs" debug "$1" super --json | jq -r '.blocks[0].fields.volume_id'; }
found() { jq -r "[.volumes[] | select($1)] | length" "$work/scan.out"; }

story "a whole volume is found, with all its copies"
mkdir -p "$a/vm/deep"
for i in $(seq 40); do head -c $((i * 2500)) /dev/urandom >"$a/vm/deep/file$i"; done
truncate -s 96M "$work/inner.img"
"$bin/mkfs.lunfs" -q -L inner "$work/inner.img" || fail "no inner volume"
cp "$work/inner.img" "$a/vm/nested.img"
truncate -s 8M "$a/vm/forged.img"
dd if="$lun" of="$a/vm/forged.img" bs=1M count=1 conv=notrunc status=none	# true blocks, elsewhere
dd if="$lun" of="$a/vm/forged.img" bs=1M count=2 skip=32 seek=6 conv=notrunc status=none
forge "$a/vm/forged.img"
inventory >"$work/before"
sync "$a/vm/forged.img"
scan 0 --json
[ "$(found '.offset == 0 and .sure and (.inside | not) and .label == "ds1"')" = 1 ] || fail "$(cat "$work/scan.out")"

story "while a host has it attached nothing is restored"
dd if=/dev/zero of="$lun" bs=4096 seek=16 count=1 conv=notrunc status=none
scan 3 --restore
grep -q "detach it there first" "$work/scan.log" || fail "$(cat "$work/scan.log")"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"

story "with its first MiB wiped the outer volume is the one that is found, and restored"
dd if=/dev/zero of="$lun" bs=1M count=1 conv=notrunc status=none
scan 0 --json
[ "$(found '.offset == 0 and .sure and (.inside | not) and .label == "ds1"')" = 1 ] || fail "$(cat "$work/scan.out")"
[ "$(found '.offset == 0 and .label != "ds1"')" = 0 ] || fail "$(cat "$work/scan.out")"
[ "$(found '.label == "inner" and .inside')" -ge 1 ] || fail "the nested volume is not told apart"
[ "$(found '.sure and (.inside | not)')" = 1 ] || fail "a forged one is offered: $(cat "$work/scan.out")"
scan 0 --restore
"$bin/lunfs" debug "$lun" super >"$work/super.out" || fail "no superblock after --restore"
scan 0 --json
[ "$(found '.offset == 0 and ([.copies[].state] == ["good", "good", "good"])')" = 1 ] ||
	fail "not all copies are good: $(cat "$work/scan.out")"

story "a repair gets every file back, and leaves the nested volume alone"
"$bin/fsck.lunfs" -y "$lun" >"$work/fsck.log" 2>&1
[ $? -le 1 ] || fail "fsck.lunfs -y"
check_volume
host_start alpha
host_mount alpha
inventory >"$work/after"
diff "$work/before" "$work/after" >"$work/diff.log" || fail "something is not as it was"
cmp "$a/vm/nested.img" "$work/inner.img" || fail "the nested volume was touched"
"$bin/fsck.lunfs" -n "$work/inner.img" >/dev/null || fail "the nested volume was bad from the start"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"

story "a volume of a lost partition is found where it began, and not written to"
{ head -c 1048576 /dev/zero; cat "$work/inner.img"; } >"$work/disk.img"
dd if=/dev/zero of="$work/disk.img" bs=1M count=2 conv=notrunc status=none
lun=$work/disk.img
before=$(b2sum <"$lun")
scan 0 --json
[ "$(found '.offset == 1048576 and .label == "inner" and .sure')" = 1 ] || fail "$(cat "$work/scan.out")"
scan 1 --restore
grep -q "make a partition" "$work/scan.log" || fail "no way out"
[ "$(b2sum <"$lun")" = "$before" ] || fail "it was written to"

story "a device without a volume is told, and a wrong command refused"
truncate -s 80M "$work/empty.img"
lun=$work/empty.img
scan 1
scan 2 --nonsense
finish
