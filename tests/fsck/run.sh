#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every finding of fsck.lunfs: a good volume is damaged in its way (`wreck NAME`), the check says
# so, one repair makes it clean, and the files that were not hit are all there.  Then: what the
# program knows, what the manual explains, what can be produced and what was tried here are the
# same list.
set -u
cd "$(dirname "$0")/../.."
make -s wreck || exit 1
work=$(mktemp -d "${TMPDIR:-/var/tmp}/lunfs-wrecks-XXXXXX")
trap 'rm -rf "$work"' EXIT
export LUNFS_LOCK_DIR=$work/locks
export work
wreck=build/tests/fsck/wreck
bin=build/bin

# What each damage takes with it for good: its own object, as fsck.lunfs(8) says of its repair.
lost_with() {	# lost_with NAME: "file", "x" or nothing
	case $1 in
	inode-damaged|inode-invalid|map-entry-invalid|map-entry-outside-volume|map-data-past-end)
		echo file ;;
	map-block-damaged|map-pointer-outside-volume|block-claimed-twice|block-claimed-twice.[34])
		echo x ;;
	esac
}

contents() {	# contents VOLUME: checksums of all files that a reader finds
	local got
	got=$(mktemp -d "$work/got-XXXXXX")
	python3 tools/lunfs-reader.py get "$1" / "$got/all" 2>/dev/null &&
		find "$got/all" -type f -exec sha256sum {} + | cut -d ' ' -f 1 | sort -u
	local status=${PIPESTATUS[0]}
	rm -rf "$got"
	return "$status"
}

# The volume on a disk that fails for one block, read or write: QEMU injects that into a file of
# its own, which is no place for locks; the second loop device hides that.
failing_device() {	# failing_device OPERATION BYTE: sets device, disk and server
	disk=$dir/bad
	: >"$disk"
	trap good_device EXIT
	qemu-storage-daemon --blockdev "driver=file,filename=$vol,node-name=f,cache.direct=on,locking=off" \
		--blockdev "driver=blkdebug,node-name=b,image=f,inject-error.0.event=none,inject-error.0.iotype=$1,inject-error.0.sector=$(($2 / 512))" \
		--export "type=fuse,id=e,node-name=b,mountpoint=$disk,writable=on" >"$dir/qsd" 2>&1 &
	server=$!
	for _ in $(seq 1200); do
		[ "$(stat -c %s "$disk")" -eq 0 ] || break
		sleep 0.05
	done
	under=$(losetup --find --show --direct-io=on "$disk" 2>"$dir/losetup") &&
		device=$(losetup --find --show --direct-io=on "$under" 2>>"$dir/losetup") && return
	echo "no failing device: $(cat "$dir/qsd" "$dir/losetup")"
	return 1
}

good_device() {
	[ "$server" ] || return 0
	case $device in /dev/loop*) losetup -d "$device" ;; esac
	[ -z "$under" ] || losetup -d "$under"
	kill "$server"
	wait "$server" 2>/dev/null
	umount -l "$disk" 2>/dev/null
	server=
	device=$vol
}

# Whether this machine has what failing_device() needs: FUSE, loop devices and the right to them.
can_fail() {
	[ -w /dev/fuse ] && losetup --find >/dev/null 2>&1 && [ -w /dev/loop-control ]
}

fsck() {	# fsck STATUS OPTIONS…: of $device, its words in $dir/log
	local want=$1 status
	shift
	"$bin/fsck.lunfs" "$@" "$device" >"$dir/log" 2>&1
	status=$?
	[ $status -eq "$want" ] && return
	echo "fsck.lunfs $*: status $status, expected $want"
	cat "$dir/log"
	return 1
}

says() {
	grep -Eq "^(repaired: |note: )?$1 ${2%.[0-9]} at 0x" "$dir/log" && return
	echo "no word about $1 ${2%.[0-9]}"
	cat "$dir/log"
	return 1
}

files_are_there() {	# files_are_there NAME: but for those it took with it
	local lost
	contents "$vol" >"$dir/has" || { echo "the reader fails"; return 1; }
	lost=$(lost_with "$1")
	for file in file x; do
		[ "$file" = "$lost" ] || grep -qxFf "$work/$file.sum" "$dir/has" ||
			{ echo "the contents of $file are gone"; return 1; }
	done
}

try() {	# try CODE NAME: the whole life of one damage
	local code=$1 name=$2 fault server= disk under= dir vol device
	dir=$work/$name
	vol=$dir/volume
	device=$vol
	mkdir "$dir"
	cp --sparse=always "$work/good.img" "$vol"
	fault=$("$wreck" "$name" "$vol") || return 1
	case $name in
	block-unreadable)	# nothing is repaired: what cannot be read may be whole, and is
		failing_device $fault || return 1
		fsck 12 -n && says "$code" "$name" && fsck 12 -y && says "$code" "$name" || return 1
		good_device
		fsck 0 -n && files_are_there "$name"
		return ;;
	block-unwritable)	# the repair ends, is finished later, and hosts stay away between
		failing_device $fault || return 1
		fsck 8 -y && says "$code" "$name" || return 1
		good_device
		fsck 4 -n && grep -q LUN-0103 "$dir/log" || return 1 ;;
	*)
		fsck "$(is_note "$code" && echo 0 || echo 4)" -n && says "$code" "$name" || return 1 ;;
	esac
	"$bin/fsck.lunfs" -y "$device" >"$dir/log" 2>&1
	[ $? -le 1 ] || { echo "fsck.lunfs -y:"; cat "$dir/log"; return 1; }
	fsck 0 -n && files_are_there "$name"
}

is_note() { grep -q "^$1 .* note$" "$work/manual"; }

try_and_say() {
	local code=$1 name=$2 why
	case $name in block-un*able)
		can_fail || { echo "SKIP: fsck $code $name: no FUSE or no loop device"; return; } ;;
	esac
	if why=$(try "$code" "$name" 2>&1); then
		echo "PASS: fsck $code $name"
	else
		echo "FAIL: fsck $code $name"
		echo "$why"
	fi
	rm -rf "${work:?}/$name"
}

# The manual's list; a note is called one there.
awk '/^\.It "LUN-/ { if (item) print item note; gsub(/"/, ""); item = $2 " " $3; note = "" }
     /^This is a note, not an error/ { note = " note" }
     END { print item note }' docs/man/fsck.lunfs.8 >"$work/manual"

"$wreck" good "$work/good.img" || exit 1
for file in file sub/x; do
	python3 tools/lunfs-reader.py cat "$work/good.img" "/$file" | sha256sum |
		cut -d ' ' -f 1 >"$work/$(basename $file).sum"
done
export -f can_fail lost_with contents failing_device fsck says files_are_there try good_device is_note try_and_say
export wreck bin
"$wreck" --list >"$work/wrecks"
# A repair waits for heartbeats most of its time, hence so many at once.
xargs -a "$work/wrecks" -P 12 -L 1 bash -c 'try_and_say "$0" "$1"' >"$work/results" 2>&1
sort "$work/results" | grep -E '^(PASS|FAIL|SKIP): '
bad=0
if grep -q '^FAIL' "$work/results"; then
	cat "$work/results"
	bad=1
fi

same() {	# same NAME LIST LIST
	if diff "$2" "$3" >"$work/diff"; then
		echo "PASS: fsck $1"
	else
		echo "FAIL: fsck $1"
		cat "$work/diff"
		bad=1
	fi
}
"$wreck" --codes | sort >"$work/codes"
plain() { sed -E 's/\.[0-9]+$//; s/ note$//' | sort -u; }
same "the manual explains what the program can find" "$work/codes" <(plain <"$work/manual")
same "each finding can be produced" "$work/codes" <(plain <"$work/wrecks")
same "each finding was produced, repaired and clean" "$work/codes" \
	<(sed -n 's/^\(PASS\|SKIP\): fsck \(LUN-[0-9]* [a-z0-9.-]*\).*/\2/p' "$work/results" | plain)
# What the manual says that a check of a volume in use leaves to fsck.lunfs; LUN-0506 only in part.
left_to_fsck() {
	awk '/^They leave to this program/ { on = 1 }
	     on { for (i = 1; i <= NF; i++) {
			if (match($i, /LUN-[0-9]+/)) {
				n = substr($i, RSTART + 4, 4) + 0
				if (before == "for")
					delete left[n]
				else
					for (k = before == "to" ? last : n; k <= n; k++)
						left[k] = 1
				last = n
			}
			before = $i
		  } }
	     on && /and notes\.$/ { exit }
	     END { for (n in left) printf "LUN-%04d\n", n }' docs/man/fsck.lunfs.8 | grep -v LUN-0506
}
errors() { cut -d ' ' -f 1 | while read -r code; do is_note "$code" || echo "$code"; done | sort; }
same "the manual names what only a quiet volume can tell" <("$wreck" --quiet-only | errors) <(left_to_fsck | errors)

# A map of a node that leads to itself, often, is no forest to be printed.
cp --sparse=always "$work/good.img" "$work/bush.img"
"$wreck" block-claimed-twice.3 "$work/bush.img"
id=$("$bin/lunfs" debug "$work/bush.img" /sub/x | sed -n 's/^.*: id //p')
timeout 60 "$bin/lunfs" debug "$work/bush.img" tree "$id" >"$work/log" 2>&1
status=$?
if [ $status -eq 1 ] && grep -q "lead to the same" "$work/log"; then
	echo "PASS: fsck lunfs debug tree ends"
else
	echo "FAIL: fsck lunfs debug tree ends: status $status"
	bad=1
fi

# A repair whose progress nobody reads any more goes on.
mkfifo "$work/pipe"
exec 8<>"$work/pipe" 9>"$work/pipe" 8>&-
if env --default-signal=PIPE "$bin/fsck.lunfs" -C9 -n "$work/good.img" >"$work/log" 2>&1; then
	echo "PASS: fsck goes on when nobody reads its progress"
else
	echo "FAIL: fsck goes on when nobody reads its progress: status $?"
	bad=1
fi
exec 9>&-
exit $bad
