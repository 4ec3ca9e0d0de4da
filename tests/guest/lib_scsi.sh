# SPDX-License-Identifier: Apache-2.0
# A LUN of lunfs-target, and a guest with Debian's stock kernel and open-iscsi that has it as /dev/sda and
# /dev/sdb, over two sessions.  Sourced after tests/e2e/lib.sh and tests/guest/lib.sh.

scsi_need() {	# scsi_need TEST
	guest_need && guest_kernel cloud || skip_all "$1" "$GUEST_WHY"
	local tool
	for tool in iscsid iscsiadm dmsetup; do
		command -v $tool >/dev/null || skip_all "$1" "no $tool"
	done
}

console=$work/console.log
modules=virtio_pci,virtio_net,iscsi_tcp,crc32c_generic,sd_mod,fuse,dm_multipath,dm_round_robin

lunfs_target_start() {
	local port=$((20000 + RANDOM % 20000))
	ports="$port $((port + 1))"
	mkdir -p "$work/state"
	chmod 755 "$work"
	"$bin/lunfs-target" --lun "$work/lun,size=2G" --portal 127.0.0.1:$port \
		--portal 127.0.0.1:$((port + 1)) --state-dir "$work/state" \
		>"$work/urls" 2>>"$work/target.log" &
	target_pid=$!
	wait_for 60 test -s "$work/urls" || fail "lunfs-target does not start"
	lun=$(awk 'NR == 1 { print $1 }' "$work/urls")
	iqn=$(echo "$lun" | cut -d/ -f4)
}

# What the guest does first: Debian's open-iscsi logs in to both portals, a disk each.
guest_prologue() {
	cat <<IN
guest_net
mkdir -p /etc/iscsi /run/lock/iscsi /var/lib/iscsi
echo InitiatorName=iqn.2026-01.org.example:guest >/etc/iscsi/initiatorname.iscsi
cat >/etc/iscsi/iscsid.conf <<CONF
node.session.timeo.replacement_timeout = 20
node.conn[0].timeo.login_timeout = 5
node.conn[0].timeo.noop_out_interval = 0
node.session.err_timeo.abort_timeout = 3
node.session.err_timeo.lu_reset_timeout = 3
node.session.err_timeo.tgt_reset_timeout = 3
node.session.cmds_max = 128
node.session.queue_depth = 32
CONF
iscsid
for port in $ports; do
	iscsiadm -m node -T $iqn -p 10.0.2.2:\$port,1 -o new >/dev/null
done
iscsiadm -m node -T $iqn --login
wait_for 60 test -b /dev/sdb || fail "open-iscsi has both disks"
IN
}

guest_start() {	# guest_start NAME PROGRAM SECONDS FILE…: in the background; $guest
	local name=$1 program=$2 seconds=$3
	shift 3
	{ guest_prologue; cat "$program"; } >"$work/in"
	: >"$console"
	guest_initrd "$work/initrd" "$work/in" -m $modules -f "$(command -v iscsid)" \
		-f "$(command -v iscsiadm)" "$@"
	guest_run "$name" "$seconds" "$work/initrd" "$console" -netdev user,id=n0 \
		-device virtio-net-pci,netdev=n0 &
	guest=$!
}

guest_says() {	# guest_says SECONDS WHAT
	guest_wait "$1" "$guest" grep -q "$2" "$console"
}

target_signal() {
	pkill "-$1" -P "$target_pid"
	kill "-$1" "$target_pid"
}


guest_signal() {	# its QEMU, the grandchild of $guest
	pkill "-$1" -P "$(pgrep -P "$guest" timeout)"
}
