#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How a daemon begins and ends: one a run directory, safe directories, and never hanging.
. "$(dirname "$0")/lib.sh"
need_fuse daemon_life

# lunfsd_refuses STATUS PATTERN option…: it does not start, and says why.
lunfsd_refuses() {
	local want=$1 pattern=$2 status
	shift 2
	timeout 60 "$bin/lunfsd" "$@" >"$work/out" 2>&1
	status=$?
	[ $status -eq "$want" ] || fail "lunfsd $*: exit status $status: $(cat "$work/out")"
	grep -qE "$pattern" "$work/out" || fail "lunfsd $*: $(cat "$work/out")"
}

ended() {	# ended NAME: its process is no more
	! kill -0 "${pid_of[$1]}" 2>/dev/null
}

make_volume 64M --beat-ms 200
host_start alpha

story "a second daemon with the same run directory is refused, and harms nothing"
lunfsd_refuses 1 "another lunfsd uses" --run-dir "$work/run-alpha"
ctl alpha status || fail "the first one does not answer any more"

story "a run directory that somebody else could change is refused"
mkdir "$work/run-open" && chmod 0777 "$work/run-open"
lunfsd_refuses 1 "belong to root" --run-dir "$work/run-open"
mkdir "$work/run-theirs" && chown 65534 "$work/run-theirs"
lunfsd_refuses 1 "belong to root" --run-dir "$work/run-theirs"
ln -s "$work/run-alpha" "$work/run-link"
lunfsd_refuses 1 "cannot make or use" --run-dir "$work/run-link"
[ ! -e "$work/run-open/control" ] || fail "it listened there all the same"

story "a run directory that it makes itself is one that its users reach, whatever the umask"
(umask 077 && exec "$bin/lunfsd" --run-dir "$work/run-made" --host-name made) \
	>"$work/made.log" 2>&1 &
pid_of[made]=$!
wait_for 60 ctl made status || fail "it does not start"
[ "$(stat -c %a "$work/run-made")" = 755 ] || fail "mode $(stat -c %a "$work/run-made")"
[ "$(stat -c %a "$work/run-made/control")" = 600 ] || fail "the socket is open to others"
host_stop made || fail "it ended with $?"

story "a directory of lock files that others can write is refused"
mkdir "$work/locks-open" && chmod 1777 "$work/locks-open"
LUNFS_LOCK_DIR=$work/locks-open host_start loose
"$bin/mount.lunfs" "$lun" "$(mnt loose)" -o "run-dir=$work/run-loose" >"$work/out" 2>&1 &&
	fail "mounted with locks that anybody can take away"
grep -q "lock files" "$work/out" || fail "$(cat "$work/out")"
host_stop loose

story "every thread of the worker is confined, as /proc shows it"
host_mount alpha
for status in /proc/"$(worker_of alpha)"/task/*/status; do
	for want in "NoNewPrivs:.1" "Seccomp:.2" "CapPrm:.0*" "CapEff:.0*" "CapInh:.0*" "CapBnd:.0*" \
		"CapAmb:.0*" "Groups:[[:space:]]*"; do
		grep -qE "^$want\$" "$status" || fail "$status: not $want: $(cat "$status")"
	done
	grep -qE "^Uid:.*[^0-9]0[^0-9]" "$status" && fail "$status: root"
done
count=$(ls -d /proc/"$(worker_of alpha)"/task/* | wc -l)
[ "$count" -ge 5 ] || fail "only $count threads: is this the worker?"
host_umount alpha

story "the programs are built so that they are hard to break"
for p in lunfsd lunfs mkfs.lunfs fsck.lunfs mount.lunfs; do
	readelf -h "$bin/$p" | grep -q "DYN" || fail "$p is not position-independent"
	readelf -lW "$bin/$p" | grep -q GNU_RELRO || fail "$p has no RELRO"
	readelf -dW "$bin/$p" | grep -qE "BIND_NOW|FLAGS.*NOW" || fail "$p binds lazily"
	readelf -lW "$bin/$p" | grep GNU_STACK | grep -q E && fail "$p has an executable stack"
done
readelf -sW "$bin/lunfsd" | grep -q "_chk@" || fail "lunfsd is not fortified"

story "the socket of a daemon that was killed is replaced"
host_kill alpha
[ -S "$work/run-alpha/control" ] || note "the socket did not stay"
host_start alpha
ctl alpha status || fail "it does not answer"

story "unmounting and mounting again at once leaves the new mount alone"
for _ in $(seq 100); do
	"$bin/mount.lunfs" "$lun" "$(mnt alpha)" -o "run-dir=$work/run-alpha" || fail "mount"
	"$bin/lunfs" --run-dir "$work/run-alpha" attach "$lun" >/dev/null || fail "attach"
	umount "$(mnt alpha)" || fail "umount"
done
"$bin/mount.lunfs" "$lun" "$(mnt alpha)" -o "run-dir=$work/run-alpha" || fail "mount"
mounts+=("$(mnt alpha)")
sleep 0.3
touch "$(mnt alpha)/there" || fail "the mount is gone"
mountpoint -q "$(mnt alpha)" || fail "unmounted behind our back"
[ "$(grep -c " $(mnt alpha) " /proc/self/mountinfo)" -eq 1 ] || fail "stacked mounts"

story "a terminated daemon gives everything back"
host_stop alpha || fail "alpha ended with $?"
mountpoint -q "$(mnt alpha)" && fail "its mount stayed"
check_volume

story "a daemon whose device hangs ends in bounded time all the same, and says so"
host_start beta --stop-timeout 2
host_mount beta
worker=$(worker_of beta)
kill -STOP "$worker"
kill -TERM "${pid_of[beta]}"
wait_for 60 ended beta || fail "it hangs"
wait "${pid_of[beta]}"
status=$?
[ $status -eq 1 ] || fail "exit status $status"
grep -q "within 2 s" "$work/beta.log" || fail "nothing is said"
unset "pid_of[beta]"
wait_for 60 sh -c "! kill -0 $worker 2>/dev/null" || fail "its worker lives on"
umount -l "$(mnt beta)" 2>/dev/null

story "what it left is recovered by the next one"
host_start beta
host_mount beta
touch "$(mnt beta)/again" || fail "not usable"
host_umount beta
host_stop beta || fail "beta ended with $?"
check_volume

# A device that hangs for good: a file of a frozen filesystem.
mkdir "$work/frozen"
truncate -s 256M "$work/frozen.img"
if mkfs.ext4 -q "$work/frozen.img" && mount -o loop "$work/frozen.img" "$work/frozen" 2>/dev/null; then
	thaw() { fsfreeze -u "$work/frozen" 2>/dev/null; }
	trap 'thaw; cleanup; umount -l "$work/frozen" 2>/dev/null; rm -rf "$work"' EXIT
	on_frozen=$work/frozen/lun.img
	mount_frozen() {
		timeout 60 "$bin/mount.lunfs" "$on_frozen" "$(mnt gamma)" \
			-o "run-dir=$work/run-gamma" 2>"$work/out"
	}
	"$bin/mkfs.lunfs" -q -L frozen "$on_frozen" --size 64M --beat-ms 200 || fail "mkfs"
	host_start gamma --stop-timeout 1
	mount_frozen || fail "mount: $(cat "$work/out")"
	mounts+=("$(mnt gamma)")
	touch "$(mnt gamma)/before"

	story "while a device hangs, status is answered, and the daemon ends in bounded time"
	fsfreeze -f "$work/frozen"
	lapsed() { lunfs gamma status | grep -q LAPSED; }
	wait_for 60 lapsed || fail "no lapse is shown"
	kill -TERM "${pid_of[gamma]}"
	wait_for 60 ended gamma || fail "it hangs"
	wait "${pid_of[gamma]}"
	status=$?
	[ $status -eq 1 ] || fail "exit status $status"
	grep -q "I/O hangs" "$work/gamma.log" || fail "what hangs is not said"

	story "its successor starts, but joins only when nothing of it can write any more"
	host_start gamma
	mount_frozen && fail "mounted beside a worker that may still write"
	grep -q "attached" "$work/out" || fail "$(cat "$work/out")"
	thaw
	wait_for 60 mount_frozen || fail "not after the thaw: $(cat "$work/out")"
	[ -e "$(mnt gamma)/before" ] || fail "lost"
	host_umount gamma
	host_stop gamma || fail "gamma ended with $?"
	umount "$work/frozen"
else
	note "no loop device here"
fi
finish
