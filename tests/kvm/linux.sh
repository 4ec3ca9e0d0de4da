#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Debian's stock kernel under lunvm, on a LUN that two hosts share: one host freezes while the guest writes,
# the other takes the guest over, every record that was acknowledged is there, and the first one, which
# wakes up, is refused.  There the guest has two processors; it is paused for longer than its watchdog
# allows, and has a power button.  `linux.sh kill` (`make hosts`): the first host is killed instead, as by a
# power cut, starts again while the other one runs the guest, and is refused as well.
#
# Where this machine's KVM runs a Linux, the hosts are two lunfsds on it; elsewhere two machines of
# QEMU's, whose emulated processor has nested paging, with Debian's kernel and its kvm-amd: to lunvm a
# KVM as any other.  To be killed they are always the latter.
top=$(cd "$(dirname "$0")/../.." && pwd)
. "$top/tests/e2e/lib.sh"
. "$top/tests/guest/lib.sh"
. "$top/tests/kvm/lib.sh"
crash=${1:-freeze}
[ "$crash" = freeze ] || [ "$crash" = kill ] || { echo "usage: $0 [freeze|kill]"; exit 2; }
test_name="kvm linux${1:+, $1}"

guest_need && guest_kernel cloud || skip_all "$test_name" "$GUEST_WHY"
need_fuse "$test_name"
command -v mkfs.ext4 >/dev/null || skip_all "$test_name" "no mkfs.ext4"
# However it ends: a host is told by its `timeout`, which wakes a frozen one.
leave() {
	for job in "${alpha_job:-}" "${beta_job:-}" "${back_job:-}"; do
		[ -z "$job" ] || pkill -P "$job" timeout
	done
	cleanup
}
trap leave EXIT
inner_kernel=$GUEST_KERNEL
[ "$crash" = kill ] && accel=tcg || accel=$(guest_accel)
disk=ds1:/web1/root.disk
conf=ds1:/web1/web1.conf

# What the guest does: its first life writes until somebody ends it, the second one looks.
cat >"$work/inner" <<'IN'
mount -t ext4 /dev/vda /mnt || echo "INNER-FAILED no disk"
if [ -s /mnt/log ]; then
	awk '$0 != "record " NR { exit 1 }' /mnt/log && echo "INNER-HAS $(grep -c . /mnt/log)" || echo "INNER-FAILED torn"
	umount /mnt
	echo "INNER-CPUS $(nproc) $(grep -c ^processor /proc/cpuinfo)"
	echo 2 >/proc/sys/kernel/watchdog_thresh	# a processor is locked up after 4 s
	echo "INNER-WAITS for its power button"
	timeout 300 head -c 24 /dev/input/event0 >/dev/null && echo "INNER-BUTTON" || echo "INNER-FAILED no button"
	! dmesg | grep -i "lockup\|stall" || echo "INNER-FAILED takes the pause for a lockup"
else
	i=0
	while [ $i -lt 100000 ]; do
		i=$((i + 1))
		echo "record $i" >>/mnt/log
		dd if=/dev/null of=/mnt/log conv=notrunc,fsync 2>/dev/null || { echo "INNER-FAILED $?"; break; }
		echo "INNER-ACK $i"
	done
fi
IN

# A host that is a machine of QEMU's: what it does is said by its command line.
cat >"$work/outer" <<'IN'
guest_net
read -r line </proc/cmdline
host=${line##*host=}
crash=$(cat /etc/crash)
# The test asks what goes on in here by a line on the second serial port.
mount -t debugfs debugfs /sys/kernel/debug
stty -F /dev/ttyS1 -echo
while read -r _; do
	echo "HOST-FACTS"
	/usr/sbin/facts.sh web1 ds1:/web1/root.disk
	dmesg | tail -n 5
	echo "HOST-FACTS-END"
done </dev/ttyS1 &
lunfsd --host-name "${host/back/alpha}" &
wait_for 300 lunfs status >/dev/null 2>&1
wait_for 300 lunfs attach $(cat /etc/lun) || fail "has the datastore"
echo "HOST-READY"
if [ "$host" = back ]; then
	# Until beta has the guest there is nothing that this host could be refused.
	until lunfs lock show ds1:/web1/root.disk | grep -q 'held by host beta'; do sleep 1; done
	lunvm run ds1:/web1/web1.conf >/tmp/said 2>&1
	check "refuses the machine that the other host runs" test $? = 3
	cat /tmp/said
	check "names who runs it" grep -q 'in use by beta (web1)' /tmp/said
	# The other one waits for this word, by the only way there is between them.
	check "has the datastore to write on" lunfs disk create ds1:/refused --size 1M
	return
fi
if [ "$host" = beta ]; then
	# Once a second: a program that is started costs an emulated processor as much as the other host needs.
	until lunfs lock show ds1:/web1/root.disk | grep -q 'held by host alpha'; do sleep 1; done
	echo "HOST-SEES $(lunfs lock show ds1:/web1/root.disk | head -n 1)"
	while lunfs lock show ds1:/web1/root.disk | grep -q 'the host lives'; do sleep 1; done
	echo "HOST-TAKES it"
fi
press() {
	until lunvm status web1 --json 2>/dev/null | sed -n 's/.*"start_us": \([1-9][0-9]*\).*/HOST-STARTED \1/p' | grep .; do sleep 2; done
	lunvm console web1 </dev/null >/tmp/seen 2>/dev/null &
	until grep -q INNER-WAITS /tmp/seen; do sleep 2; done
	[ "$crash" != kill ] || until lunfs disk info ds1:/refused >/dev/null 2>&1; do sleep 2; done
	lunvm pause web1 && sleep 6 && lunvm resume web1 || echo "HOST-FAILED pause"
	lunvm stop web1 --timeout 60 && echo "HOST-STOPPED"
}
press=
[ "$host" = alpha ] || { press & press=$!; }
# `kill` compares how long its guest boots on both.
[ "$host" = alpha ] && [ "$crash" != kill ] && cpus=1 || cpus=2
until lunvm run ds1:/web1/web1.conf --cpus $cpus; do
	status=$?
	[ $status -eq 3 ] || break
	sleep 1
	status=0
done
echo "HOST-VM-ENDED ${status:-0}"
[ "$host" = alpha ] && { check "ends the machine whose lock is lost" test "$status" = 5; } ||
	check "runs the machine" test "${status:-0}" = 0
# It says that it has stopped the machine before the host is switched off.
[ -z "$press" ] || [ "${status:-0}" != 0 ] || wait "$press"
IN

story "kernel, initial RAM disk, configuration and disk lie on the datastore"
target_start 127.0.0.1
make_lun_volume
host_start prep
host_mount prep
mkdir "$(mnt prep)/web1"
guest_initrd "$work/inner.initrd" "$work/inner" -m virtio_mmio,virtio_blk,ext4,button,evdev
cp "$inner_kernel" "$(mnt prep)/web1/vmlinuz"
cp "$work/inner.initrd" "$(mnt prep)/web1/initrd.img"
cat >"$(mnt prep)/web1/web1.conf" <<'CONF'
name = web1
memory = 192M
kernel = vmlinuz
initrd = initrd.img
cmdline = console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests
disk = root.disk
on-reset = exit
CONF
truncate -s 64M "$work/root.img"
mkfs.ext4 -q "$work/root.img"
ctl prep disk import "$work/root.img" $disk || fail "no disk: $(tail -n 3 "$work/prep.ctl.log")"
host_umount prep
host_stop prep

hosts_start() {
	local host
	if [ "$accel" = kvm ]; then
		for host in alpha beta; do
			host_start $host
			ctl $host attach "$lun" || fail "$host does not attach"
		done
		VM_SECONDS=120 vm alpha run $conf >"$work/alpha.console" 2>&1 &
		return
	fi
	guest_kernel full || skip_all "$test_name" "$GUEST_WHY"
	echo $crash >"$work/crash"
	echo "$lun" | sed 's/127\.0\.0\.1/10.0.2.2/' >"$work/lun-url"
	guest_initrd "$work/outer.initrd" "$work/outer" -m kvm_amd,virtio_pci,virtio_net,fuse \
		-f "$bin/lunfsd:/usr/sbin/lunfsd" -f "$bin/lunfs:/usr/sbin/lunfs" \
		-f "$bin/lunvm:/usr/sbin/lunvm" -f "$top/tests/kvm/facts.sh:/usr/sbin/facts.sh" -f "$work/lun-url:/etc/lun" -f "$work/crash:/etc/crash"
	for host in alpha beta; do
		host_boot $host
	done
}

# A host is given up by those who wait for it (guest_wait), who do not count the time in which this machine let it
# wait: the limit here is for what nobody waits for.
host_boot() {	# host_boot NAME: a machine of QEMU's
	mkfifo "$work/$1."{ask,monitor}.{in,out}
	GUEST_ACCEL=tcg GUEST_MEMORY=640M GUEST_APPEND="mitigations=off cryptomgr.notests host=$1" guest_run "$test_name: $1" 3000 \
		"$work/outer.initrd" "$work/$1.console" -M q35 -cpu EPYC,+svm,+npt \
		-serial "pipe:$work/$1.ask" -monitor "pipe:$work/$1.monitor" \
		-netdev user,id=n0 -device virtio-net-pci,netdev=n0 >"$work/$1.out" 2>&1 &
	declare -g "${1}_job=$!"
}

signal_alpha() {	# signal_alpha STOP|CONT|KILL: the first host
	if [ "$accel" = kvm ]; then
		kill "-$1" "$(worker_of alpha)"
	else
		pkill "-$1" -P "$(pgrep -P "$alpha_job" timeout)"
	fi
}

# silent HOST WHY: what its guest, or the host itself, does instead of what was waited for
silent() {
	local console=$work/$1.console i
	{
		[ "$accel" = kvm ] || for i in 1 2 3; do	# where its processor is, which may be in the guest
			timeout 2 sh -c "echo info registers >$work/$1.monitor.in; timeout 1 cat $work/$1.monitor.out" |
				tr -d '\r' | grep -o '^RIP=[0-9a-f]*\|CPL=.\|HLT=.' | tr '\n' ' '
		done
		tail -n 3 "$console" | tr -d '\r'
		if [ "$accel" = kvm ]; then
			LUNVM="$bin/lunvm --run-dir $work/vm-$1" LUNFS="$bin/lunfs --run-dir $work/run-$1" \
				"$top/tests/kvm/facts.sh" web1 $disk
		else
			timeout 2 sh -c "echo >$work/$1.ask.in"
			wait_for 300 grep -q HOST-FACTS-END "$console" || echo "the host itself does not answer"
			tr -d '\r' <"$console" | sed -n '/HOST-FACTS/,/HOST-FACTS-END/p'
		fi
	} >"$work/facts" 2>&1
	cat "$work/facts"
	tail -n 40 "$console"
	fail "$2: $(cat "$work/facts")"
}

# Lines end with carriage returns: what has none is still being written.
acked() { sed -n $'s/.*INNER-ACK \\([0-9]*\\)\r\r*$/\\1/p' "$work/alpha.console" | tail -n 1; }

story "Debian's kernel $(basename "$inner_kernel") boots under lunvm and writes (${accel/tcg/nested in QEMU})"
: >"$work/alpha.console"
: >"$work/beta.console"
ms_since() { echo $((($(date +%s%N) - $1) / 1000000)); }
started=$(date +%s%N)
hosts_start
if [ "$accel" = tcg ]; then	# what a host's own start takes, and what its guest's
	guest_wait 120 "$alpha_job" grep -q HOST-READY "$work/alpha.console" || silent alpha "it has no datastore"
	guest_wait 120 "$alpha_job" grep -q $'INNER-ACK 1\r' "$work/alpha.console" || silent alpha "it does not get there"
	note "on the first host the guest's first record is there after $GUEST_WAITED"
	boot_ms=$GUEST_MS
fi
guest_wait 120 "${alpha_job:-}" grep -q 'INNER-ACK 20' "$work/alpha.console" || silent alpha "it does not get there"
note "20 records with fsync $(ms_since "$started") ms after the hosts were started"

[ $crash = freeze ] && what="is frozen" || what="is killed"
story "when its host $what the other one runs it, and every acknowledged record is there"
[ $crash = freeze ] && signal_alpha STOP || signal_alpha KILL
frozen=$(date +%s%N)
before=$(acked)
if [ "$accel" = kvm ]; then
	(wait_for 100 grep -q INNER-WAITS "$work/beta.console" && vm beta pause web1 && sleep 6 &&
		vm beta resume web1 && vm beta stop web1) >"$work/stop.out" 2>&1 &
	stopper=$!
	until VM_SECONDS=120 vm beta run $conf --cpus 2 >"$work/beta.console" 2>&1; do
		[ $? -eq 3 ] || fail "$(tail -n 5 "$work/beta.console")"
		[ $((($(date +%s%N) - frozen) / 1000000000)) -lt 60 ] || fail "beta does not get it"
		sleep 0.3
	done
fi
[ "$accel" = kvm ] || {
	guest_wait 60 "$beta_job" grep -q HOST-TAKES "$work/beta.console" ||
		silent beta "the other host does not see that it is gone"
	all_ms=$GUEST_MS
	guest_wait 60 "$beta_job" grep -q "is recovered; generation" "$work/beta.console" ||
		silent beta "the other host does not recover it"
	all_ms=$((all_ms + GUEST_MS))
	takeover_ms=$all_ms
	note "the first host's slot is recovered $(ms_since "$frozen") ms after its crash, at most"
	guest_wait 60 "$beta_job" grep -q $'HOST-STARTED.*\r' "$work/beta.console" || silent beta "the other host does not start it"
	all_ms=$((all_ms + GUEST_MS))
	note "after its recovery the guest's first instruction is begun within $GUEST_WAITED; lunvm has run for" \
		"$(tr -d '\r' <"$work/beta.console" | sed -n 's/.*HOST-STARTED \([0-9]*\)...$/\1/p') ms then"
}
[ $crash = freeze ] || host_boot back
guest_wait 90 "${beta_job:-}" grep -q $'INNER-HAS [0-9]*\r\|INNER-FAILED' "$work/beta.console" ||
	silent beta "the guest does not get there"
[ "$accel" = kvm ] || {
	all_ms=$((all_ms + GUEST_MS))
	note "from there to its look at its disk it takes $GUEST_WAITED"
	note "without the time that this machine let them wait: crash to look $all_ms ms, takeover $takeover_ms ms, the guest's" \
		"boot on the first host $boot_ms ms; beyond both $((all_ms - takeover_ms - boot_ms)) ms (goal on a quiet machine: at most 2000)"
}
note "the guest looked at its disk $(ms_since "$frozen") ms after its host ${what/is/was}"
has=$(tr -d '\r' <"$work/beta.console" | sed -n 's/.*INNER-HAS \([0-9]*\)$/\1/p')
[ "${has:-0}" -ge "$before" ] || fail "$before records were acknowledged, ${has:-none} are there"

story "it runs on two processors there, and is paused for longer than a lockup takes"
guest_wait 30 "${beta_job:-}" grep -q $'INNER-CPUS.*\r' "$work/beta.console" || silent beta "it does not say"
grep -q "INNER-CPUS 2 2" "$work/beta.console" || fail "$(grep INNER-CPUS "$work/beta.console")"
guest_wait 200 "${beta_job:-}" grep -q "INNER-BUTTON" "$work/beta.console" || silent beta "it does not go on"

story "the pause was no lockup to it, and its power button makes it power itself off"
if [ "$accel" = kvm ]; then
	wait $stopper || fail "$(cat "$work/stop.out")"
	wait_for 10 grep -q "the guest powered off" "$work/beta.console" || fail "it does not end"
else
	guest_wait 60 "${beta_job:-}" grep -q "HOST-STOPPED" "$work/beta.console" || silent beta "stop does not say that it has ended"
fi

# What the guest has to say of its pause it says after it has seen its button.
! grep "HOST-FAILED\|takes the pause" "$work/beta.console" || fail "$(tail -n 20 "$work/beta.console")"

if [ $crash = kill ]; then
	story "the host that starts again is refused, with the names of host and machine"
	wait "$beta_job" || { cat "$work/beta.out"; fail "beta's claims hold"; }
	wait "$back_job" || { cat "$work/back.out"; fail "its claims hold"; }
else
	story "the host that wakes up is refused, and ends its machine"
	signal_alpha CONT
	if [ "$accel" = kvm ]; then
		host_start alpha
		wait_for 60 grep -q "used elsewhere\|attached anew\|lost its place" "$work/alpha.console" ||
			fail "$(tail -n 5 "$work/alpha.console")"
	else
		wait "$beta_job" || { cat "$work/beta.out"; fail "beta's claims hold"; }
		# Its lunfsd says that the slot is gone; the launcher gives up.
		guest_wait 90 "${alpha_job:-}" grep -q "HOST-VM-ENDED" "$work/alpha.console" || silent alpha "it does not end"
		! grep -q INNER-FAILED "$work/alpha.console" || fail "the guest saw an error: $(grep INNER-FAILED "$work/alpha.console")"
		grep -q "HOST-VM-ENDED 5" "$work/alpha.console" || fail "$(tail -n 8 "$work/alpha.console")"
		wait "$alpha_job" || { cat "$work/alpha.out"; fail "alpha's claims hold"; }
	fi
fi

story "volume and filesystem are whole"
for host in alpha beta; do
	[ -z "${pid_of[$host]:-}" ] || host_stop $host
done
host_start after
ctl after attach "$lun" || fail "cannot be attached"
ctl after disk export $disk "$work/raw" || fail "cannot be exported"
e2fsck -fn "$work/raw" >"$work/e2fsck.log" 2>&1 || fail "$(cat "$work/e2fsck.log")"
host_stop after
check_volume
finish
