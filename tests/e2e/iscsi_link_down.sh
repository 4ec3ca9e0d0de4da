#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A host's link to the SAN goes down: for 3 s, beyond the lease, and while another host contends.
. "$(dirname "$0")/lib.sh"
need_fuse iscsi_link_down
command -v ip >/dev/null || skip_all iscsi_link_down "no ip(8)"
ns=lunfs-$$
ip netns add "$ns" 2>/dev/null || { ns=; skip_all iscsi_link_down "may not make a network namespace"; }

load=$top/tests/e2e/verify_load.py
net=198.18.$((RANDOM % 256))

link_make() {	# link_make NAME FIRST: a link of its own to the target, $net.FIRST+1/30 its end
	ip link add "lf$$$1" type veth peer name "lft$1" netns "$ns" &&
		ip addr add "$net.$(($2 + 1))/30" dev "lf$$$1" && ip link set "lf$$$1" up &&
		ip -n "$ns" addr add "$net.$(($2 + 2))/30" dev "lft$1" &&
		ip -n "$ns" link set "lft$1" up || skip_all iscsi_link_down "may not make links"
}

link_set() {	# link_set NAME up|down: at the far end, as if a cable were pulled
	ip -n "$ns" link set "lft$1" "$2" || fail "link $1 $2"
}

link_make a 0
link_make b 4
ip -n "$ns" link set lo up
target_start 0.0.0.0
[ "/proc/$target_pid/ns/mnt" -ef /proc/self/ns/mnt ] || fail "the target keeps what other tests have mounted"
[ "/proc/$target_pid/ns/net" -ef /proc/self/ns/net ] && fail "the target is not behind the link"
lun_of_alpha=${lun/0.0.0.0/$net.2}
lun_of_beta=${lun/0.0.0.0/$net.6}
lun=$lun_of_alpha
make_lun_volume
host_start alpha
host_mount alpha
a=$(mnt alpha)
mkdir "$a/load" "$a/load2"

lost_errors() {	# what alpha may not have said
	grep -E 'slot [0-9]+ is lost|commands failed by the device' "$work/alpha.log"
}

story "a link that is down for 3 s stalls the load, and it goes on"
"$load" write "$a/load" "$work/ledger" 1 10 >"$work/load.out" 2>&1 &
writer=$!
sleep 2
link_set a down
sleep 3
link_set a up
wait "$writer" || fail "the load was disturbed: $(cat "$work/load.out")"
"$load" check "$a/load" "$work/ledger" || fail "data"
[ -z "$(lost_errors)" ] || fail "alpha: $(lost_errors)"

story "a link that is down beyond the lease stalls the load, and it goes on"
"$load" write "$a/load2" "$work/ledger2" 2 18 >"$work/load.out" 2>&1 &
writer=$!
sleep 2
link_set a down
sleep 10
grep -q 'the lease has lapsed' "$work/alpha.log" || fail "the lease did not lapse"
link_set a up
wait "$writer" || fail "the load was disturbed: $(cat "$work/load.out")"
grep -q 'the lease is valid again' "$work/alpha.log" || fail "the lease did not come back"
"$load" check "$a/load2" "$work/ledger2" || fail "data"
[ -z "$(lost_errors)" ] || fail "alpha: $(lost_errors)"

story "beyond the lease with another host contending: nothing that was queued lands"
lun=$lun_of_beta
host_start beta
host_mount beta
b=$(mnt beta)
size=$((8 << 20))
head -c $size /dev/zero | tr '\0' A >"$a/disk"
sync -f "$a/disk"
exec 3<>"$a/disk"
# Written over and over, with writes on their way whenever the link goes.
python3 - "$a/disk" "$size" >"$work/writer.out" 2>&1 <<'PY' &
import os, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
import mmap
size = int(sys.argv[2])
def run(first):
    buf = mmap.mmap(-1, 65536)
    buf[:] = b"Z" * 65536
    while True:
        for off in range(first * 65536, size, 16 * 65536):
            try:
                os.pwritev(fd, [buf], off)
            except OSError as e:
                os.write(1, b"write at %d: %s\n" % (off, e.strerror.encode()))
                return
threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
for t in threads: t.start()
for t in threads: t.join()
PY
writer=$!
sleep 1
link_set a down
start=$(date +%s%N)
wait_for 60 sh -c "printf B 2>/dev/null 1<>'$b/disk'" || fail "beta never got the file"
took=$((($(date +%s%N) - start) / 1000000))
note "takeover took $took ms"
head -c $size /dev/zero | tr '\0' B | dd of="$b/disk" bs=1M conv=notrunc,fsync 2>/dev/null ||
	fail "beta cannot write"
link_set a up
wait_for 60 grep -qE 'slot [0-9]+ is lost' "$work/alpha.log" || fail "alpha does not know that it is lost"
wait "$writer" 2>/dev/null
exec 3>&-
[ "$(grep -c 'write at' "$work/writer.out")" -eq 16 ] || fail "writers: $(cat "$work/writer.out")"
[ -z "$(tr -d B <"$b/disk")" ] || fail "something of the dead host landed"
umount -l "$a"
wait_for 60 is_detached alpha || fail "what is mounted of a lost host does not end: $(tail -n 1 "$work/alpha.ctl.log")"
lun=$lun_of_alpha
host_mount alpha
[ -z "$(tr -d B <"$a/disk")" ] || fail "alpha reads something else after it has rejoined"

host_umount alpha
host_umount beta
host_stop alpha || fail "alpha ended with $?"
host_stop beta || fail "beta ended with $?"
check_volume
finish
