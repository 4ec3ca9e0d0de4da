#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A guest moves from one host to another while it writes to its disk: QEMU's live migration between two
# daemons' vhost-user-blk, and the disk handed over with it.  Nothing is lost, and both do not have it.
# PASSES: how often the guest has written everything before it moves; `make migration` takes more.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/guests.sh"
guests_need "a guest that migrates"

disk=ds1:/root.disk
GUEST_MEMORY=256M
guest_memory_args=(-object memory-backend-memfd,id=mem,size=$GUEST_MEMORY,share=on -machine q35,memory-backend=mem)

passes=${PASSES:-1}
echo "first=$passes" >"$work/in"
cat >>"$work/in" <<'IN'
exec 5<>/dev/ttyS1
stty -F /dev/ttyS1 raw -echo
passes=0
# Until it is told to stop: the same blocks again, each time with another content, and new files.
load() {
	(read -r word <&5; touch /tmp/stop) &
	while [ ! -e /tmp/stop ]; do
		passes=$((passes + 1))
		guest_load write /mnt/a 1024 $passes $passes && guest_load write /mnt/n$((passes % 40)) 256 $passes $passes || return 1
		[ $passes != $first ] || echo loaded >&5
	done
	wait
}
safe() {
	guest_load check /mnt/a 1024 $passes $passes && guest_load check /mnt/n$((passes % 40)) 256 $passes $passes
}
check "makes a filesystem" sh -c 'mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt'
check "writes while it moves" load
check "finds what it wrote last" safe
echo 3 >/proc/sys/vm/drop_caches
check "finds it on the disk" safe
check "unmounts" umount /mnt
check "has a clean filesystem" e2fsck -fn /dev/vda
dmesg | grep -i 'i/o error' && fail "sees no error" || pass "sees no error"
IN

cat >"$work/qmp.py" <<'PY'
import json, socket, sys, time

class Qmp:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(60)
        self.s.connect(path)
        self.f = self.s.makefile("rw")
        json.loads(self.f.readline())
        self.do("qmp_capabilities")

    def do(self, command, **args):
        self.f.write(json.dumps({"execute": command, "arguments": args}) + "\n")
        self.f.flush()
        while True:
            r = json.loads(self.f.readline())
            if "error" in r:
                sys.exit("%s: %s" % (command, r["error"]["desc"]))
            if "return" in r:
                return r["return"]

def wait(qmp, what, seconds=90):
    end = time.time() + seconds
    while time.time() < end:
        m = qmp.do("query-migrate")
        if m.get("status") in what:
            return m
        time.sleep(0.1)
    sys.exit("the migration does not end: %s" % m)

if sys.argv[1] == "migrate":
    source = Qmp(sys.argv[2])
    source.do("migrate-set-parameters", **{"max-bandwidth": 1 << 30, "downtime-limit": 2000})
    source.do("migrate", uri="unix:" + sys.argv[3])
    m = wait(source, ("completed", "failed"))
    if m["status"] != "completed":
        sys.exit("the migration failed: %s" % m)
    print("%d ms down, %d ms in all, %d MiB of memory" %
          (m["downtime"], m["total-time"], m["ram"]["transferred"] >> 20))
else:
    print(json.dumps(Qmp(sys.argv[2]).do(sys.argv[1])))
PY
qmp() { timeout 100 python3 "$work/qmp.py" "$@" >"$work/qmp.out" 2>&1; }
shown() { lunfs "$1" --json disk list | jq -r ".disks[0].$2"; }

boot() {	# boot NAME HOST SECONDS [option of attach] -- [QEMU argument…]: with a QMP socket and a channel
	local name=$1 host=$2 seconds=$3 socket
	shift 3
	socket=$(lunfs "$host" disk attach $disk $1) || fail "$host: attach"
	shift
	mkfifo "$work/$name-channel.in" "$work/$name-channel.out" || fail "mkfifo"
	guest_boot "$name" "$seconds" "$work/initrd" "${guest_memory_args[@]}" \
		-chardev "socket,id=c,path=$socket,reconnect=1" -device vhost-user-blk-pci,chardev=c,id=d \
		-chardev "pipe,id=channel,path=$work/$name-channel" -serial chardev:channel \
		-qmp "unix:$work/$name.qmp,server=on,wait=off" "$@"
}

story "a guest runs on alpha, and beta waits for it"
make_volume 2G
for host in alpha beta; do
	host_start $host
	ctl $host attach "$lun" || fail "attach on $host"
done
lunfs alpha disk create $disk --size 512M || fail "create"
guest_initrd "$work/initrd" "$work/in" "${guest_files[@]}"
boot first alpha 300 ""
exec 6<>"$work/first-channel.in" 7<>"$work/first-channel.out"
first=$guest_pid
unset 'pid_of[guest]'
pid_of[first]=$first
line=
while [ "${line//$'\r'/}" != loaded ]; do
	IFS= read -r -t 200 -u 7 line || { tail -n 20 "$work/first.console"; fail "the guest does not load its disk"; }
done
refused 1 "no host" alpha disk handover $disk --to gamma
refused 1 "is this host" alpha disk handover $disk --to alpha
refused 2 "wants --to HOST, or --cancel" alpha disk handover $disk
boot second beta 300 --incoming=90 -incoming "unix:$work/migration"
exec 8<>"$work/second-channel.in" 9<>"$work/second-channel.out"
refused 1 "is not attached" beta disk handover ds1:/other --to alpha

story "stopped for a moment, and not moved, it goes on where it was"
lunfs alpha disk handover $disk --to beta || fail "handover"
lunfs alpha disk list | grep -q "handed over to beta" || fail "not shown: $(lunfs alpha disk list)"
wait_for 60 test -S "$work/first.qmp"
qmp stop "$work/first.qmp" || fail "stop: $(cat "$work/qmp.out")"
wait_for 60 eval '[ "$(shown alpha open)" = false ]' || fail "alpha keeps it"
wait_for 60 eval '[ "$(lunfs beta --json lock show $disk | jq -r .heir)" = beta ]' ||
	fail "it is not left to beta: $(lunfs beta lock show $disk)"
qmp cont "$work/first.qmp" || fail "cont: $(cat "$work/qmp.out")"
wait_for 60 eval '[ "$(shown alpha open)" = true ]' || fail "alpha does not take it back: $(lunfs alpha disk list)"

story "it moves while it writes"
wait_for 60 test -S "$work/migration" || fail "beta's QEMU does not listen: $(cat "$work/second.console.qemu")"
qmp migrate "$work/first.qmp" "$work/migration" ||
	{ cat "$work"/*.console.qemu; fail "$(cat "$work/qmp.out")"; }
note "$(cat "$work/qmp.out")"
wait_for 60 eval '[ "$(shown beta open)" = true ]' || fail "beta does not have it: $(lunfs beta disk list)"
[ "$(shown alpha open)" = false ] || fail "alpha has it as well"
[ "$(shown beta incoming)" = false ] || fail "beta would wait once more"
before=$(shown beta stats.writes)
wait_for 60 eval '[ "$(shown beta stats.writes)" -gt $((before + 20)) ]' || fail "the guest does not go on"

story "who has given it away does not get it back"
qmp cont "$work/first.qmp"
sleep 1
[ "$(shown alpha open)" = false ] || fail "alpha has it"
qmp quit "$work/first.qmp"
wait "$first" 2>/dev/null
unset 'pid_of[first]'

story "all that it wrote is there"
echo stop >&8
guest_end || fail "the guest failed"
[ "$(grep -c 'GUEST-RESULT: PASS' "$work/second.console")" -ge 6 ] || fail "not all that it was to prove"
wait_for 60 eval '[ "$(shown beta open)" = false ]' || fail "beta does not give it up"
grep -l "Bad system call" "$work"/*.log && fail "seccomp"
host_stop alpha || fail "alpha does not end well"
host_stop beta || fail "beta does not end well"
check_volume
finish
