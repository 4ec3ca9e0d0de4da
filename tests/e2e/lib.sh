# SPDX-License-Identifier: Apache-2.0
# What the end-to-end tests share: hosts on one machine, each with a daemon and a mount.
#
# A test sources this, calls `story NAME` for each claim it is about to prove, uses the
# helpers, and ends with `finish`.  Everything lives in one temporary directory; only
# processes that were started here are ever signalled.

set -u
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$top/${BUILD:-build}/bin
work=$(mktemp -d "${E2E_DIR:-/var/tmp}/lunfs-e2e-XXXXXX")
export LUNFS_LOCK_DIR=$work/locks
lun=$work/lun.img
declare -A pid_of=()
declare -a mounts=()
current=
failures=0

note() { echo "  note: $*"; }

story() {
	[ -z "$current" ] || echo "PASS: $current"
	current=$*
}

# What is quoted may be a JSON document, or have many lines; of a log few are kept, and this is one.
one_line() {
	local text
	text=$(tr -s '[:space:]' ' ' <<<"$*")
	[ ${#text} -le 2000 ] || text="${text:0:1000} […] ${text: -1000}"
	printf '%s\n' "${text% }"
}

fail() {
	one_line "FAIL: ${current:-set-up}: $*"
	failures=$((failures + 1))
	for log in "$work"/*.log; do
		[ -e "$log" ] && { echo "== $log"; tail -n 25 "$log"; }
	done
	current=
	finish
}

skip_all() {	# skip_all TEST WHY
	echo "SKIP: $1: $2"
	rm -rf "$work"
	trap - EXIT
	exit 0
}

need_fuse() {	# need_fuse TEST
	[ "$(id -u)" -eq 0 ] || skip_all "$1" "needs root"
	[ -c /dev/fuse ] || skip_all "$1" "no /dev/fuse"
	# Mounts need CAP_SYS_ADMIN, which a container may lack although it is root.
	mkdir -p "$work/probe"
	mount -t tmpfs lunfs-probe "$work/probe" 2>/dev/null || skip_all "$1" "may not mount"
	umount "$work/probe"
}

host_start() {	# host_start NAME [lunfsd option…]
	local name=$1
	shift
	mkdir -p "$work/run-$name" "$work/mnt-$name"
	# The worker is unprivileged and must reach its own run directory.
	chmod 755 "$work"
	"$bin/lunfsd" --run-dir "$work/run-$name" --host-name "$name" "$@" \
		>>"$work/$name.log" 2>&1 &
	pid_of[$name]=$!
	wait_for 60 ctl "$name" status || fail "$name: lunfsd does not answer"
}

ctl() {		# ctl NAME lunfs-arguments…
	local name=$1
	shift
	"$bin/lunfs" --run-dir "$work/run-$name" "$@" >/dev/null 2>>"$work/$name.ctl.log"
}

free_port() {	# one that nobody listens at
	local port
	for port in $(shuf -i 20000-30000 -n 50); do
		(: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
	done
}

lunfs() {	# lunfs HOST arguments…: by hand, with what it says on standard output and error
	local host=$1
	shift
	"$bin/lunfs" --run-dir "$work/run-$host" "$@"
}

refused() {	# refused STATUS TEXT HOST arguments…: lunfs ends with that status and says that
	local status=$1 text=$2
	shift 2
	lunfs "$@" >"$work/out" 2>&1
	[ $? -eq "$status" ] || fail "lunfs $* did not end with $status: $(cat "$work/out")"
	grep -q -- "$text" "$work/out" || fail "lunfs $*: no \"$text\" in: $(cat "$work/out")"
}

host_mount() {	# host_mount NAME [options]
	local name=$1 options=run-dir=$work/run-$1${2:+,$2}
	"$bin/mount.lunfs" "$lun" "$work/mnt-$name" -o "$options" ||
		fail "$name: mount.lunfs failed"
	mounts+=("$work/mnt-$name")
}

host_umount() {
	umount "$work/mnt-$1" || fail "$1: umount failed"
}

worker_of() {	# the process that does the I/O: the daemon's child
	pgrep -P "${pid_of[$1]}" | head -n 1
}

host_kill() {	# host_kill NAME [SIGNAL]: a crash, by default
	kill "-${2:-KILL}" "${pid_of[$1]}" 2>/dev/null
	[ "${2:-KILL}" != KILL ] || wait "${pid_of[$1]}" 2>/dev/null
	return 0
}

host_stop() {	# a clean shutdown
	kill -TERM "${pid_of[$1]}" 2>/dev/null
	wait "${pid_of[$1]}"
	local status=$?
	unset "pid_of[$1]"
	return $status
}

# Of a lost host: "detach" says that not all of it was written, and so fails, but it is detached.
is_detached() {	# is_detached NAME
	ctl "$1" detach ds1
	! "$bin/lunfs" --run-dir "$work/run-$1" --json status | grep -q '"ds1"'
}

mnt() { echo "$work/mnt-$1"; }

wait_for() {	# wait_for SECONDS COMMAND…: until it succeeds
	local deadline=$(($(date +%s%N) + $1 * 1000000000))
	shift
	while ! "$@"; do
		[ "$(date +%s%N)" -lt "$deadline" ] || return 1
		sleep 0.05
	done
}

# Where a time is what is claimed: of HOST's worker, less what it wanted a processor for and got none, as other
# work beside a test makes it.
starved_ms() {	# starved_ms PID: of that thread of it which has waited longest
	cat /proc/"$1"/task/*/schedstat 2>/dev/null | awk '$2 > max { max = $2 } END { printf "%d\n", max / 1e6 }'
}

clock_start() {	# clock_start HOST
	clock_host=$1
	clock_starved=$(starved_ms "$(worker_of "$1")")
	clock_ns=$(date +%s%N)
}

clock_ms() {	# since clock_start
	local ms=$((($(date +%s%N) - clock_ns) / 1000000)) starved
	starved=$(($(starved_ms "$(worker_of "$clock_host")") - clock_starved))
	echo $((ms - (starved > 0 ? starved : 0)))
}

# ---- a target for iSCSI ----

target_file=$work/lun.img
target_size=4G
target_state=$work/target-state
target_iqn=iqn.2026-11.org.lunfs.test:lun
target_pid=
target_port=
ns=		# the network namespace that the target lives in

# Whoever has a mount namespace of his own has a copy of what others had mounted just then, and nothing
# of that ends before he does, whatever they unmount: a daemon of theirs goes on serving it.  So no
# `ip netns exec` here, which makes one; and who needs one begins with this.
drop_copied_mounts() {	# in a new mount namespace, of which nothing goes back
	umount -a -l -t fuse.lunfs 2>/dev/null
	! grep -q ' - fuse\.lunfs ' /proc/self/mountinfo || fail "copies of mounts: $(cat /proc/self/mountinfo)"
}

# in_copy DIR COMMAND…: in a mount namespace of its own, with what is mounted at DIR and nothing of others'
in_copy() {
	# shellcheck disable=SC2016
	exec unshare -m --propagation private sh -c 'findmnt -lno TARGET -t fuse.lunfs | grep -vxF "$0" |
		xargs -r -d "\n" umount -l; exec "$@"' "$@"
}

target_start() {	# target_start [ADDRESS [lunfs-target option…]]: $lun becomes its URL
	local address=${1:-127.0.0.1}
	[ $# -eq 0 ] || shift
	mkdir -p "$target_state"
	: >"$work/target.out"	# what the target before has said is not this one's
	${ns:+nsenter --net=/var/run/netns/$ns} "$bin/lunfs-target" --lun "$target_file" --size "$target_size" \
		--portal "$address:${target_port:-0}" --iqn "$target_iqn" \
		--state-dir "$target_state" "$@" >"$work/target.out" 2>>"$work/target.log" &
	target_pid=$!
	wait_for 60 test -s "$work/target.out" || fail "the target does not start"
	lun=$(awk 'NR == 1 { print $1 }' "$work/target.out")
	target_port=${lun#iscsi://*:}
	target_port=${target_port%%/*}
}

target_kill() {	# without a word, both halves, as a crash or a power cut would
	kill -KILL "$target_pid" 2>/dev/null
	wait "$target_pid" 2>/dev/null
	target_pid=
	: >"$work/target.out"
}

make_lun_volume() {	# make_lun_volume [mkfs option…]
	"$bin/mkfs.lunfs" -q -L ds1 "$@" "$lun" || fail "mkfs.lunfs failed"
}

make_volume() {	# make_volume SIZE [mkfs option…]: on a file, or with E2E_LUN=iscsi on a LUN
	local size=$1
	shift
	if [ "${E2E_LUN:-file}" = iscsi ]; then
		target_size=$size
		target_start
		make_lun_volume "$@"
		return
	fi
	"$bin/mkfs.lunfs" -q -L ds1 "$lun" --size "$size" "$@" || fail "mkfs.lunfs failed"
}

check_volume() {
	"$bin/fsck.lunfs" -n "$lun" >"$work/fsck.log" 2>&1 || {
		cat "$work/fsck.log"
		fail "fsck.lunfs -n found damage"
	}
}

cleanup() {
	local m name
	for m in "${mounts[@]}"; do
		umount -l "$m" 2>/dev/null
	done
	for name in "${!pid_of[@]}"; do
		kill -CONT "${pid_of[$name]}" 2>/dev/null
		kill -KILL "${pid_of[$name]}" 2>/dev/null
	done
	[ -z "$target_pid" ] || target_kill
	[ -z "$ns" ] || ip netns del "$ns" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT

finish() {
	[ -z "$current" ] || echo "PASS: $current"
	exit $((failures > 0))
}
