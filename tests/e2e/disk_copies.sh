#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Whole disks by `lunfs disk`: imported, exported, copied, and cleaned of zeros; every format,
# sparse both ways, and what is left of one that was interrupted: nothing.
. "$(dirname "$0")/lib.sh"
need_fuse disk_copies

make_volume 2G
host_start alpha
host_start beta
host_mount alpha
host_mount beta
mkdir "$(mnt alpha)/vm1"
disk=ds1:/vm1/root.disk

random() {	# random FILE SEED OFFSET_KIB KIB
	openssl enc -aes-128-ctr -K "$(printf '%032x' "$2")" -iv 0 </dev/zero 2>/dev/null |
		dd of="$1" bs=1K seek="$3" count="$4" iflag=fullblock conv=notrunc status=none
}

allocated() { lunfs alpha --json disk info "$1" | jq .allocated; }

only_named() {	# only_named NAME…: nothing else is in the directory, nothing in the run directory
	[ "$(ls -A "$(mnt alpha)/vm1" | sort)" = "$(printf '%s\n' "$@" | sort)" ] &&
		[ -z "$(ls -d "$work"/run-alpha/copy-* 2>/dev/null)" ]
}

# 64 MiB: data, holes, written zeros, a block that is not whole.
image=$work/image.raw
truncate -s 64M "$image"
random "$image" 1 0 3000
random "$image" 2 30000 5001
dd if=/dev/zero of="$image" bs=1M seek=40 count=8 conv=notrunc status=none

story "a raw image is imported, sparse, and comes out again, sparse"
lunfs alpha disk import "$image" $disk || fail "import"
cmp "$image" "$(mnt beta)/vm1/root.disk" || fail "the disk differs from the image"
[ "$(allocated $disk)" -lt 12000000 ] || fail "holes and zeros take space: $(allocated $disk)"
lunfs alpha disk export $disk "$work/out.raw" || fail "export"
cmp "$image" "$work/out.raw" || fail "the exported file differs"
[ $(($(stat -c %b "$work/out.raw") * 512)) -lt 12000000 ] || fail "the exported file is not sparse"
[ "$(stat -c %a "$(mnt alpha)/vm1/root.disk")" = 600 ] || fail "others may read the disk"
lunfs alpha --json disk import "$image" ds1:/vm1/thick.disk --thick >"$work/json" || fail "--thick"
jq -e '.size == 67108864' "$work/json" >/dev/null || fail "no size in $(cat "$work/json")"
[ "$(allocated ds1:/vm1/thick.disk)" -ge 67108864 ] || fail "--thick takes not all space"
cmp "$image" "$(mnt beta)/vm1/thick.disk" || fail "the thick disk differs"

story "nothing is overwritten, and wrong words change nothing"
refused 1 "exists already" alpha disk import "$image" $disk
refused 1 "exists already" alpha disk export $disk "$work/out.raw"
refused 1 "No such file" alpha disk import "$work/none" ds1:/vm1/x
refused 1 "No such file" alpha disk import "$image" ds1:/none/x
refused 1 "neither a file nor" alpha disk import "$work" ds1:/vm1/x
refused 2 "not known" alpha disk import "$image" ds1:/vm1/x --format floppy
refused 2 "names no disk" alpha disk export ds1 "$work/x"
: >"$work/empty"
refused 1 "empty" alpha disk import "$work/empty" ds1:/vm1/x
ln -s /etc "$(mnt alpha)/etc"
refused 1 "symbolic links\|Not a directory" alpha disk export ds1:/etc/passwd "$work/x"
rm "$(mnt alpha)/etc"
only_named root.disk thick.disk || fail "something was left: $(ls -A "$(mnt alpha)/vm1")"

story "a disk is copied whole, and the copy is its own"
lunfs alpha disk clone $disk ds1:/vm1/copy.disk || fail "clone"
cmp "$image" "$(mnt beta)/vm1/copy.disk" || fail "the copy differs"
[ "$(allocated ds1:/vm1/copy.disk)" -lt 12000000 ] || fail "the copy is not sparse"
rm "$(mnt beta)/vm1/copy.disk"

story "a disk that somebody writes to is not copied, its snapshot is"
exec 5>>"$(mnt alpha)/vm1/root.disk"
refused 3 "open for writing" alpha disk clone $disk ds1:/vm1/copy.disk
exec 5>&-
exec 5>>"$(mnt beta)/vm1/root.disk"
refused 3 "in use\|open for writing" alpha disk export $disk "$work/x"
exec 5>&-
lunfs alpha disk snapshot create $disk now || fail "snapshot"
exec 5>>"$(mnt alpha)/vm1/root.disk"
lunfs alpha disk clone $disk@now ds1:/vm1/copy.disk || fail "clone of the snapshot"
exec 5>&-
cmp "$image" "$(mnt beta)/vm1/copy.disk" || fail "the copy of the snapshot differs"
rm "$(mnt alpha)/vm1/copy.disk"
lunfs alpha disk snapshot delete $disk now || fail "snapshot delete"

if command -v qemu-img >/dev/null; then
	story "qcow2, vmdk and vhdx go out and in, and hold what the disk holds"
	for format in qcow2 vmdk vhdx; do
		lunfs alpha disk export $disk "$work/out.$format" || fail "export to $format"
		qemu-img info "$work/out.$format" | grep -q "format: $format" ||
			fail "out.$format is none"
		[ "$(stat -c %s "$work/out.$format")" -lt 40000000 ] || fail "$format is not sparse"
		lunfs alpha disk import "$work/out.$format" ds1:/vm1/in.disk || fail "import $format"
		cmp "$image" "$(mnt beta)/vm1/in.disk" || fail "$format did not keep the contents"
		[ "$(allocated ds1:/vm1/in.disk)" -lt 12000000 ] || fail "$format came in full"
		rm "$(mnt alpha)/vm1/in.disk"
	done

	story "an image that names other files is refused unless its format is stated"
	qemu-img create -q -f qcow2 -b /etc/passwd -F raw "$work/evil.qcow2" 1M || fail "qemu-img"
	refused 1 "refers to another file, /etc/passwd" alpha disk import "$work/evil.qcow2" ds1:/vm1/x
	lunfs alpha disk import "$work/evil.qcow2" ds1:/vm1/x --format raw || fail "as raw"
	head -c 4 "$(mnt alpha)/vm1/x" | grep -q QFI || fail "--format raw was interpreted"
	rm "$(mnt alpha)/vm1/x"
	head -c 100 "$work/out.qcow2" >"$work/cut.qcow2"
	refused 1 "cut.qcow2" alpha disk import "$work/cut.qcow2" ds1:/vm1/x
else
	story "formats other than raw say that qemu-img is needed"
	refused 1 "qemu-img is needed" alpha disk export $disk "$work/out.qcow2"
fi

story "an import that ends before its end leaves nothing, however it ends"
head -c 1G /dev/zero | tr '\0' x >"$work/big.raw"
for signal in INT TERM KILL; do
	"$bin/lunfs" --run-dir "$work/run-alpha" disk import "$work/big.raw" ds1:/vm1/big 2>"$work/out" &
	tool=$!
	wait_for 60 test -s "$(mnt alpha)/vm1/.big.part" || fail "the import does not begin"
	kill -STOP $tool
	refused 3 "another command is making it" alpha disk import "$image" ds1:/vm1/big
	# Another machine, which would not see the names of this one's sockets.
	unshare -n "$bin/lunfs" --run-dir "$work/run-beta" disk import "$image" ds1:/vm1/big \
		2>"$work/out2" && fail "two hosts make one disk"
	grep -q "in use" "$work/out2" || fail "beta: $(cat "$work/out2")"
	kill -$signal $tool
	kill -CONT $tool
	wait $tool && fail "SIG$signal does not end it"
	wait_for 60 only_named root.disk thick.disk ||
		fail "SIG$signal leaves $(ls -A "$(mnt alpha)/vm1") $(ls "$work/run-alpha")"
	[ $signal = KILL ] || grep -q "interrupted" "$work/out" || fail "SIG$signal: $(cat "$work/out")"
done
"$bin/lunfs" --run-dir "$work/run-alpha" disk export $disk "$work/late.raw" &
tool=$!
kill -KILL $tool
wait $tool 2>/dev/null
no_part() { [ -z "$(ls -d "$work"/.lunfs-export-* 2>/dev/null)" ]; }
wait_for 60 no_part || fail "an export leaves $(ls -A "$work")"

story "a volume that is full says so and has its space again"
free_before=$(lunfs alpha --json df ds1 | jq .free)
fallocate -l 1000M "$(mnt alpha)/ballast"
refused 1 "no space left" alpha disk import "$work/big.raw" ds1:/vm1/big
rm "$(mnt alpha)/ballast"
space_is_back() { [ "$(lunfs alpha --json df ds1 | jq .free)" -ge $((free_before - 1048576)) ]; }
wait_for 60 space_is_back || fail "space is missing: $(lunfs alpha --json df ds1)"
rm "$work/big.raw"

story "written zeros go back to the volume, data and reserved space stay"
dd if=/dev/zero of="$(mnt alpha)/vm1/root.disk" bs=1M seek=50 count=10 conv=notrunc,fsync status=none
before=$(allocated $disk)
exec 5>>"$(mnt alpha)/vm1/root.disk"
refused 3 "in use" alpha disk discard $disk
exec 5>&-
lunfs alpha disk discard $disk >"$work/out" || fail "discard"
grep -q "10.0 MiB given back\|10 MiB given back" "$work/out" || fail "not 10 MiB: $(cat "$work/out")"
[ "$(allocated $disk)" -le $((before - 10 * 1048576)) ] || fail "nothing was given back"
cmp "$image" "$(mnt beta)/vm1/root.disk" || fail "discarding changed the disk"
lunfs alpha disk discard ds1:/vm1/thick.disk >/dev/null || fail "discard of the thick disk"
[ "$(allocated ds1:/vm1/thick.disk)" -ge 67108864 ] || fail "reserved space was given back"

host_umount alpha
host_umount beta
host_stop alpha || fail "alpha ended with $?"
host_stop beta || fail "beta ended with $?"
check_volume
finish
