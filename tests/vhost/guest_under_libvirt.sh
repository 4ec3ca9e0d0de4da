#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The recipe of docs/LUNVM.md for libvirt, as it stands there: a guest of libvirt's (virt-qemu-run, which needs no
# daemon) has a disk that lunfsd serves, and does not notice that lunfsd is killed.
. "$(dirname "$0")/../e2e/lib.sh"
. "$(dirname "$0")/guests.sh"
command -v virt-qemu-run >/dev/null || skip_all "a guest under libvirt" "no virt-qemu-run (libvirt-daemon-driver-qemu)"
guests_need "a guest under libvirt"

disk=ds1:/root.disk
guest=
# Told to end, virt-qemu-run ends its QEMU as well.
libvirt_end() {
	[ -z "$guest" ] || { kill "$guest" 2>/dev/null; wait "$guest"; }
	guest=
}
trap 'libvirt_end; cleanup' EXIT
recipe() { sed -n "/^<$1/,/<\/$1>/p" "$top/docs/LUNVM.md"; }	# recipe ELEMENT

# The user that Debian's package of the daemon would make, without making him (below); no security drivers, no
# control groups, no log daemon: nothing of libvirt's but what runs here.
mkdir -p "$work/libvirt/etc"
cat >"$work/libvirt/etc/qemu.conf" <<'CONF'
user = "root"
group = "root"
dynamic_ownership = 0
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
CONF

cat >"$work/in" <<'IN'
check "makes ext4 and mounts it" sh -c 'mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt'
echo "GUEST-LOADS"
check "loses nothing when lunfsd is killed and started again" \
	sh -c 'guest_load write /mnt/a 4096 2 8 && guest_load check /mnt/a 4096 8 8'
umount /mnt
check "has a clean filesystem" e2fsck -fn /dev/vda
IN

story "libvirt knows the recipe's elements"
make_volume 1G
host_start alpha
ctl alpha attach "$lun" || fail "lunfs attach"
ctl alpha disk create $disk --size 256M || fail "lunfs disk create"
socket=$("$bin/lunfs" --run-dir "$work/run-alpha" disk attach $disk) || fail "lunfs disk attach"
guest_initrd "$work/initrd" "$work/in" "${guest_files[@]}"
type=$(guest_accel)
[ "$type" = kvm ] || type=qemu
: >"$work/console"
cat >"$work/guest.xml" <<XML
<domain type='$type'>
<name>web1</name><memory unit='MiB'>512</memory><vcpu>1</vcpu>
$(recipe memoryBacking)
<os><type arch='x86_64' machine='q35'>hvm</type>
<kernel>$GUEST_KERNEL</kernel><initrd>$work/initrd</initrd><cmdline>console=ttyS0 quiet panic=-1</cmdline></os>
<features><acpi/></features>
<on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
<devices>
<emulator>$(command -v qemu-system-x86_64)</emulator>
$(recipe disk | sed "s|path='[^']*'|path='$socket'|")
<serial type='file'><source path='$work/console'/></serial>
</devices>
</domain>
XML
grep -q "vhostuser" "$work/guest.xml" && grep -q "memfd" "$work/guest.xml" || fail "the recipe is not there"
if command -v virt-xml-validate >/dev/null && command -v xmllint >/dev/null; then
	virt-xml-validate "$work/guest.xml" domain >"$work/said" 2>&1 || fail "$(cat "$work/said")"
fi

story "its guest uses the disk, and waits while lunfsd is away"
(cat /etc/passwd && echo "libvirt-qemu:x:64055:64055::/:/bin/false") >"$work/passwd"
(cat /etc/group && echo "libvirt-qemu:x:64055:") >"$work/group"
# What others have mounted would not end before the guest does: see drop_copied_mounts().
# shellcheck disable=SC2016
timeout 120 unshare -m sh -c 'umount -a -l -t fuse.lunfs; mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/group" /etc/group &&
	exec virt-qemu-run --root="$1/libvirt" "$1/guest.xml"' sh "$work" >"$work/libvirt.log" 2>&1 &
guest=$!
wait_for 60 sh -c "grep -q GUEST-LOADS '$work/console' || ! kill -0 $guest 2>/dev/null"
grep -q GUEST-LOADS "$work/console" || fail "it does not get there: $(cat "$work/libvirt.log" "$work/console")"
host_kill alpha
host_start alpha
# virt-qemu-run of libvirt 9 stays when its guest has powered off.
wait_for 90 sh -c "grep -q GUEST-DONE '$work/console' || ! kill -0 $guest 2>/dev/null"
libvirt_end
guest_results "a guest under libvirt" "$work/console" 0 120 || fail "the guest failed"

story "what it wrote is there"
"$bin/lunfs" --run-dir "$work/run-alpha" disk detach $disk >"$work/said" 2>&1
ctl alpha disk export $disk "$work/raw" || fail "cannot be exported"
e2fsck -fn "$work/raw" >"$work/said" 2>&1 || fail "$(cat "$work/said")"
host_stop alpha
check_volume
finish
