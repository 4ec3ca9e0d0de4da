#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# fsck.lunfs repairs what lunfsd made: everything comes back, in use it is refused, and a repair
# can be taken back.
. "$(dirname "$0")/lib.sh"
need_fuse repair

make_volume 1G
host_start alpha
host_mount alpha
a=$(mnt alpha)

fill() {	# 300 small files, deep directories, a big directory, links, a sparse disk
	mkdir -p "$a/vm1/deep/er/still" "$a/many"
	seq -f "$a/many/a-file-with-a-rather-long-name-%g" 2000 | xargs touch
	for i in $(seq 30); do head -c $((i * 3000)) /dev/urandom >"$a/vm1/file$i"; done
	ln "$a/vm1/file1" "$a/vm1/deep/hard"
	ln -s ../file2 "$a/vm1/deep/soft"
	truncate -s 10G "$a/vm1/disk.img"
	dd if=/dev/urandom of="$a/vm1/disk.img" bs=1M count=3 seek=5000 conv=notrunc status=none
	setfattr -n user.owner -v me "$a/vm1/disk.img"
}

inventory() {	# every name, type and checksum; a sparse disk is read by its data only
	(cd "$a" && find . -printf '%P %y %s %n %m\n' | sort
	 find . -type f -size -1G -exec sha256sum {} + | sort -k 2
	 dd if=vm1/disk.img bs=1M count=3 skip=5000 status=none | sha256sum
	 getfattr --only-values -n user.owner vm1/disk.img 2>/dev/null)
}

zero() {	# zero FIRST_BLOCK COUNT, in blocks of 4 KiB
	dd if=/dev/zero of="$lun" bs=4096 seek="$1" count="$2" conv=notrunc status=none
}

fsck() {	# fsck EXPECTED_STATUS option…
	local want=$1 status
	shift
	"$bin/fsck.lunfs" "$@" "$lun" >"$work/fsck.log" 2>&1
	status=$?
	[ $status -eq "$want" ] || fail "fsck.lunfs $*: status $status, expected $want: $(tail -n 20 "$work/fsck.log")"
}

story "while a host has the volume attached nothing is repaired"
fill
inventory >"$work/before"
zero 16 1		# the first superblock: a copy serves meanwhile
fsck 4 -y
grep -q "hosts are using the volume" "$work/fsck.log" || fail "no word about the host"
story "a reader written from FORMAT.md alone gets all of it out, journals included"
: >"$work/durable"
inventory >"$work/before"
mkdir "$a/last"
(i=0; while echo $i 2>/dev/null >"$a/last/$i" && sync "$a/last/$i" 2>/dev/null; do
	echo $i >>"$work/durable"
	i=$((i + 1))
done) &
writer=$!
wait_for 60 sh -c "[ \$(wc -l <'$work/durable') -gt 20 ]" || fail "nothing becomes durable"
# Everything in the journal may just have been brought home, so the host is stopped to look
# whether there is something in it, and killed in that moment if there is.
dies_with_a_journal() {
	local processes="$(worker_of alpha) ${pid_of[alpha]}"
	kill -STOP $processes
	if python3 "$top/tools/lunfs-reader.py" info "$lun" | grep -q "journalled: [1-9]"; then
		host_kill alpha
		return 0
	fi
	kill -CONT $processes
	return 1
}
wait_for 60 dies_with_a_journal || fail "nothing was in the journal: the test shows less than it says"
wait $writer
umount -l "$a"
python3 "$top/tools/lunfs-reader.py" get "$lun" / "$work/got" 2>"$work/reader.log" ||
	fail "$(cat "$work/reader.log")"
while read -r i; do
	[ "$(cat "$work/got/last/$i")" = "$i" ] || fail "last/$i was durable and is not there"
done <"$work/durable"
rm -r "$work/got/last"
a=$work/got inventory >"$work/after"
# Modes, links and attributes are not its business; the dump of the disk is.
strip() { sed -E '/ [dfl] /{ s/ [0-9]+ [0-9]+$//; s/ d [0-9]+$/ d/ }; s/me$//' "$1"; }
diff <(strip "$work/before") <(strip "$work/after") >"$work/diff.log" || fail "files differ"
fsck 1 -y		# with the first superblock it mends; the dead host is recovered
fsck 0 -n
host_start alpha
host_mount alpha
rm -r "$a/last"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"

again() {	# mounts and compares everything with what there was
	host_start alpha
	host_mount alpha
	inventory >"$work/after"
	diff "$work/before" "$work/after" >"$work/diff.log" || fail "something is not as it was"
	host_umount alpha
	host_stop alpha || fail "lunfsd ended with $?"
}

story "a journal that is not at home is replayed by -p, and the volume is clean"
host_start alpha
host_mount alpha
mkdir "$a/last"
(i=0; while echo $i 2>/dev/null >"$a/last/$i" && sync "$a/last/$i" 2>/dev/null; do
	i=$((i + 1))
done) &
writer=$!
wait_for 60 test -e "$a/last/20" || fail "nothing becomes durable"
wait_for 60 dies_with_a_journal || fail "nothing was in the journal: the test shows less than it says"
wait $writer
umount -l "$a"
fsck 0 -n
grep -q "not yet at home" "$work/fsck.log" || fail "nothing to be replayed: $(cat "$work/fsck.log")"
fsck 0 -p
grep -q "transactions of crashed hosts were replayed" "$work/fsck.log" || fail "$(cat "$work/fsck.log")"
python3 "$top/tools/lunfs-reader.py" info "$lun" | grep -q "journalled: 0" || fail "it is not at home"
fsck 0 -n
! grep -q "not yet at home" "$work/fsck.log" || fail "$(cat "$work/fsck.log")"
host_start alpha
host_mount alpha
[ "$(cat "$a/last/20")" = 20 ] || fail "last/20 was durable and is not there"
rm -r "$a/last"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"

story "with its first 8 MiB zeroed, every file comes back"
zero 0 2048
fsck 4 -n
fsck 1 -y
fsck 0 -n
again

story "what other blocks tell is repaired by -p, without a question"
field() { "$bin/lunfs" debug "$lun" super --json | jq -r ".blocks[0].fields.$1"; }
ag=$(field ag_addr)
root=$(($(field root) & ((1 << 40) - 1)))	# block number of the root directory's lock
zero $((ag / 4096 + 2)) 2		# bitmaps
fsck 1 -p
fsck 0 -n
again

story "-p changes nothing where that is not enough"
dump() { b2sum <"$lun"; }
zero $((ag / 4096 + 1)) 1		# the header of group 0, with its inode index
before=$(dump)
fsck 4 -p
[ "$(dump)" = "$before" ] || fail "-p wrote something"

story "a group's header and the first inodes behind it are found again by their names"
zero $((root - 1)) 1			# its first index block, too
fsck 1 -y --undo "$work/undo"
fsck 0 -n
again

story "a repair can be taken back, and done again"
fsck 1 --undo-apply "$work/undo"
fsck 4 -n
fsck 1 -y
fsck 0 -n
again

story "an undo file of another volume is refused before anything is claimed"
"$bin/mkfs.lunfs" -q "$work/other.img" --size 64M
"$bin/fsck.lunfs" --undo-apply "$work/undo" "$work/other.img" >"$work/fsck.log" 2>&1
[ $? -eq 8 ] && grep -q "another volume" "$work/fsck.log" || fail "$(cat "$work/fsck.log")"
"$bin/fsck.lunfs" -n "$work/other.img" >/dev/null || fail "it was changed"

story "of lost directories every name comes back but that of lost hard links"
zero $((root + 1)) 1			# the root directory's inode
fsck 1 -y
fsck 0 -n
again
finish
