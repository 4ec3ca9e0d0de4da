#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what building, running and testing LunFS needs on Debian 12; says so and does
# nothing where everything is there.  docs/DEPENDENCIES.md tells what each package is for.
# `deps.sh fuzz` adds what only `make fuzz` wants.
set -eu

packages="gcc binutils make pkg-config libaio-dev libisal-dev libjansson-dev libfuse3-dev fuse3
	libseccomp-dev libblkid-dev uuid-dev libssl-dev zlib1g-dev libiscsi-dev libcunit1-dev
	acl attr acpica-tools cppcheck e2fsprogs xfsprogs fio jq mandoc procps psmisc python3 qemu-utils
	qemu-system-common util-linux iproute2 tgt mount bsdextrautils strace spin libiscsi-bin qemu-block-extra
	qemu-system-x86 busybox-static open-iscsi dmsetup
	libvirt-daemon-driver-qemu libvirt-clients"
[ "${1:-}" != fuzz ] || packages="$packages clang libclang-rt-14-dev"

missing=
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' ||
		missing="$missing $p"
done
[ -n "$missing" ] || exit 0

echo "Installing:$missing"
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: run as root:  apt-get install$missing" >&2
		exit 1
	fi
	sudo="sudo -n"
else
	sudo=
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
