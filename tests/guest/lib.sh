# SPDX-License-Identifier: Apache-2.0
# Guests for tests: Debian's stock kernel, an initrd of a busybox and what a test needs, QEMU.
#
#	. tests/guest/lib.sh
#	guest_need || { echo "SKIP: name: $GUEST_WHY"; exit 0; }
#	guest_kernel cloud || { echo "SKIP: name: $GUEST_WHY"; exit 0; }
#	guest_initrd "$work/initrd" tests/x/in_guest.sh -m sd_mod,virtio_net -f /usr/sbin/iscsid
#	guest_run NAME 120 "$work/initrd" "$work/console" -device …
#
# The program given to guest_initrd runs in the guest with tests/guest/in_guest.sh before it (which
# see), says `pass NAME`, `fail NAME WHY`, `skip NAME WHY`; guest_run prints these as result lines of the
# test.  Nothing is installed on this machine: the kernel is Debian's package taken apart below
# $GUEST_CACHE (build/guest), where it stays until `make clean`.  Only what this machine cannot have
# sets $GUEST_WHY and returns 1; what then goes wrong is a failure.

guest_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
GUEST_CACHE=${GUEST_CACHE:-$guest_top/build/guest}
GUEST_WHY=
GUEST_KERNEL=		# set by guest_kernel: the image,
GUEST_RELEASE=		# what `uname -r` will say,
GUEST_MODULES=		# and the folder of its modules

# guest_need: whether this machine can run guests at all.
guest_need() {
	local tool
	for tool in qemu-system-x86_64 busybox dpkg-deb apt-get; do
		command -v $tool >/dev/null || { GUEST_WHY="no $tool"; return 1; }
	done
	[ "$(uname -m)" = x86_64 ] || { GUEST_WHY="not an x86-64 machine"; return 1; }
}

# guest_kernel cloud|full: Debian's kernel of that flavour.  `cloud` is small and has virtio, SCSI,
# FUSE; `full` has every driver.  Downloaded once; several tests may ask at the same time.
guest_kernel() {
	local meta dir lock
	case $1 in
	cloud) meta=linux-image-cloud-amd64 ;;
	full) meta=linux-image-amd64 ;;
	*) echo "guest_kernel: cloud or full" >&2; exit 2 ;;
	esac
	mkdir -p "$GUEST_CACHE"
	exec {lock}>"$GUEST_CACHE/$1.lock"
	flock "$lock"
	dir=$GUEST_CACHE/$1
	[ -e "$dir/complete" ] || guest_kernel_get "$meta" "$dir" || { exec {lock}>&-; return 1; }
	exec {lock}>&-
	GUEST_KERNEL=$(echo "$dir"/boot/vmlinuz-*)
	GUEST_RELEASE=${GUEST_KERNEL##*/vmlinuz-}
	GUEST_MODULES=$dir/lib/modules/$GUEST_RELEASE
}

# What the meta package depends on is the kernel.
guest_kernel_get() {	# guest_kernel_get META DIR
	local package log=$2.log
	package=$(apt-cache depends --important "$1" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
	if [ -z "$package" ]; then
		apt-get update -qq -o DPkg::Lock::Timeout=300 >"$log" 2>&1
		package=$(apt-cache depends --important "$1" 2>/dev/null |
			sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
	fi
	[ -n "$package" ] || { GUEST_WHY="apt knows no $1"; return 1; }
	rm -rf "$2" && mkdir -p "$2"
	# A list that is too old names a file that is gone: once more with a new one.
	guest_download "$2" "$package" "$log" || {
		apt-get update -qq -o DPkg::Lock::Timeout=300 >>"$log" 2>&1
		package=$(apt-cache depends --important "$1" |
			sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
		guest_download "$2" "$package" "$log"
	} || { GUEST_WHY="cannot download $package: $(tail -n 1 "$log")"; return 1; }
	dpkg-deb -x "$2"/*.deb "$2" && rm -f "$2"/*.deb || { GUEST_WHY="cannot unpack $package"; return 1; }
	busybox depmod -b "$2" "$(basename "$2"/lib/modules/*)" &&
		: >"$2/complete"
}

guest_download() {	# guest_download DIR PACKAGE LOG
	(cd "$1" && timeout 300 apt-get download "$2") >>"$3" 2>&1 && [ -n "$(ls "$1"/*.deb 2>/dev/null)" ]
}

# guest_accel: prints kvm or tcg.  A kernel that offers /dev/kvm may still run no guest, or none that
# is a Linux (one inside a virtual machine whose host lets nothing through emulates instructions, and
# not all of them): guest_kernel's has to boot through it, in seconds as it does where that works.
# Asked once a boot of this machine; GUEST_ACCEL=tcg or kvm overrides it.
guest_accel() {
	local probe lock
	if [ -n "${GUEST_ACCEL:-}" ]; then
		echo "$GUEST_ACCEL"
		return
	fi
	probe=$GUEST_CACHE/accel-$GUEST_RELEASE-$(cat /proc/sys/kernel/random/boot_id)
	exec {lock}>"$GUEST_CACHE/accel.lock"
	flock "$lock"
	[ -s "$probe" ] || guest_accel_probe >"$probe"
	exec {lock}>&-
	cat "$probe"
}

guest_accel_probe() {
	local dir
	dir=$(mktemp -d "${TMPDIR:-/tmp}/lunfs-kvm-XXXXXX")
	echo 'pass boots' >"$dir/in"
	guest_initrd "$dir/initrd" "$dir/in" >/dev/null
	if [ -w /dev/kvm ] && GUEST_ACCEL=kvm guest_run probe 8 "$dir/initrd" "$dir/console" >/dev/null; then
		echo kvm
	else
		echo tcg
	fi
	rm -rf "$dir"
}

# guest_initrd OUT PROGRAM [-m MODULE,…] [-f FILE[:PATH]]… [-d DIRECTORY]…
#
# -m takes modules by name, with all they depend on; they are loaded in this order before PROGRAM.
# -f takes a file, at the same path or PATH in the guest, a program with its shared libraries;
# -d a directory as it is.  Errors end the test: they are ours.
guest_initrd() {
	local out=$1 program=$2 root
	shift 2
	root=$(mktemp -d "${TMPDIR:-/tmp}/lunfs-initrd-XXXXXX")
	(
		set -e
		mkdir -p "$root"/{bin,sbin,dev,proc,sys,tmp,run,var/lib,etc,mnt,root,usr/bin,usr/sbin,usr/lib}
		chmod 1777 "$root/tmp"
		printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' \
			>"$root/etc/passwd"
		printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
		printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
		cp "$(command -v busybox)" "$root/bin/busybox"
		for applet in $(busybox --list | grep -vx busybox); do
			ln -s busybox "$root/bin/$applet"
		done
		cp "$guest_top/tests/guest/in_guest.sh" "$root/init"
		cp "$program" "$root/test"
		chmod 755 "$root/init" "$root/test"
		: >"$root/etc/modules"
		while [ $# -gt 0 ]; do
			case $1 in
			-m) guest_add_modules "$root" "${2//,/ }" ;;
			-f) guest_add_file "$root" "${2%%:*}" "${2#*:}" ;;
			-d) mkdir -p "$root$2" && cp -a "$2/." "$root$2/" ;;
			*) echo "guest_initrd: $1?" >&2; exit 2 ;;
			esac
			shift 2
		done
		(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null) >"$out"
	) || { rm -rf "$root"; echo "FAIL: guest_initrd $out"; exit 1; }
	rm -rf "$root"
}

guest_add_file() {	# guest_add_file ROOT FILE PATH
	local lib
	[ -e "$2" ] || { echo "guest_initrd: no $2" >&2; return 1; }
	mkdir -p "$1$(dirname "$3")"
	cp -L "$2" "$1$3"
	for lib in $(ldd "$2" 2>/dev/null | grep -o '/[^ ]*'); do
		[ -e "$1$lib" ] || { mkdir -p "$1$(dirname "$lib")" && cp -L "$lib" "$1$lib"; }
	done
}

# A module with what it needs, needs first; one built into the kernel is there already.
guest_add_modules() {	# guest_add_modules ROOT NAME…
	local name path line root=$1
	shift
	# shellcheck disable=SC2048
	for name in $*; do
		line=$(grep -E "(^|/)$(echo "$name" | sed 's/[-_]/[-_]/g')\.ko[^:]*:" "$GUEST_MODULES/modules.dep" | head -n 1)
		if [ -z "$line" ]; then
			grep -qE "/$(echo "$name" | sed 's/[-_]/[-_]/g')\.ko" "$GUEST_MODULES/modules.builtin" &&
				continue
			echo "guest_initrd: the kernel $GUEST_RELEASE has no module $name" >&2
			return 1
		fi
		# modules.dep names what a module needs in the order of removal.
		for path in $(echo "${line#*:}" | tr ' ' '\n' | tac) "${line%%:*}"; do
			grep -qx "/lib/modules/$path" "$root/etc/modules" && continue
			mkdir -p "$root/lib/modules/$(dirname "$path")"
			cp "$GUEST_MODULES/$path" "$root/lib/modules/$path"
			echo "/lib/modules/$path" >>"$root/etc/modules"
		done
	done
}

# guest_run NAME SECONDS INITRD CONSOLE [QEMU-ARGUMENT…]
#
# Boots and waits.  CONSOLE receives all that the guest says.  Its results are printed with NAME before
# them; 0 if there is at least one PASS, no FAIL, and the guest came to its end by itself.  The
# environment may set GUEST_MEMORY (512M), GUEST_CPUS (1), GUEST_APPEND (kernel arguments).
#
# no_timer_check: the kernel counts timer interrupts for 10 ms, and panics ("IO-APIC + timer doesn't
# work") where an emulated processor got no turn in that time, which a busy machine does to it.
guest_run() {
	local name=$1 seconds=$2 initrd=$3 console=$4 accel cpu=max status
	shift 4
	accel=$(guest_accel)
	[ "$accel" != kvm ] || cpu=host
	# Only a guest that hangs takes so long: an emulated one has what others leave of this machine.
	[ "$accel" = kvm ] || [ "$seconds" -gt 800 ] || seconds=$((seconds < 200 ? seconds * 4 : 800))
	timeout "$seconds" qemu-system-x86_64 -accel "$accel" -cpu $cpu -m "${GUEST_MEMORY:-512M}" \
		-smp "${GUEST_CPUS:-1}" -nodefaults -no-user-config -display none -no-reboot \
		-kernel "$GUEST_KERNEL" -initrd "$initrd" \
		-append "console=ttyS0 quiet panic=-1 no_timer_check ${GUEST_APPEND:-}" \
		-serial "file:$console" "$@" </dev/null >"$console.qemu" 2>&1
	status=$?
	guest_results "$name" "$console" "$status" "$seconds"
}

# guest_wait SECONDS JOB COMMAND…: until it succeeds.  JOB is the process of a guest_run in the background, or
# empty.  Time in which its QEMU wanted a processor of this machine and got none is not counted: other work
# beside a test makes it slow, and hangs nothing.  A QEMU that has ended is not waited for.  $GUEST_WAITED says
# how long it took, and of what; $GUEST_MS is what counts of it.
guest_wait() {
	local begin=$EPOCHREALTIME limit=$1 job=${2:-0} qemu= before="0 0" now="0 0" late=0
	shift 2
	while ! "$@"; do
		[ -n "$qemu" ] || qemu=$(pgrep -P "$(pgrep -P "$job" timeout || echo "$job")" qemu || true)
		[ "$before" != "0 0" ] || before=$(guest_times "$qemu")
		if [ -n "$qemu" ] && ! [ -e "/proc/$qemu/schedstat" ]; then
			"$@" && break
			echo "  note: its QEMU has ended"
			late=1
			break
		fi
		now=$(guest_times "$qemu")
		guest_waited "$begin" "$before" "$now" "$limit" >/dev/null || { late=1; break; }
		sleep 0.2
	done
	read -r GUEST_MS GUEST_WAITED <<<"$(guest_waited "$begin" "$before" "$now" "$limit")"
	[ $late -eq 0 ] || guest_used "$qemu" "$GUEST_WAITED"
	return $late
}

# Prints the milliseconds that count, and what was waited in words; whether that is within the limit.
guest_waited() {	# guest_waited BEGIN TIMES-BEFORE TIMES-NOW LIMIT
	awk -v begin="$1" -v now="$EPOCHREALTIME" -v before="$2" -v after="$3" -v limit="$4" 'BEGIN {
		split(before, b, " "); split(after, a, " ")
		starved = a[1] > b[1] ? a[1] - b[1] : 0
		used = a[2] > b[2] ? a[2] - b[2] : 0
		printf "%d %.1f s, %.1f s of it without the processor that it wanted, %.1f s with one",
			(now - begin - starved) * 1000, now - begin, starved, used
		exit !(now - begin - starved < limit) }'
}

# guest_used PID WAITED: what tells a guest that stands still from one that spins, when it is given up
guest_used() {
	[ -z "$1" ] || echo "  note: not there after $2; processor had and waited for by QEMU's threads, in seconds:$(
		cat /proc/"$1"/task/*/schedstat 2>/dev/null | awk '{ printf " %.0f/%.0f", $1 / 1e9, $2 / 1e9 }')"
}

# guest_times PID: for how many seconds the process' thread that has waited longest was runnable, and did not
# run; and how long all of them have run
guest_times() {
	[ -z "$1" ] || cat /proc/"$1"/task/*/schedstat 2>/dev/null |
		awk '$2 > max { max = $2 } { run += $1 } END { printf "%.3f %.3f\n", max / 1e9, run / 1e9 }'
}

guest_results() {	# guest_results NAME CONSOLE STATUS SECONDS
	local lines bad=0
	lines=$(tr -d '\r' <"$2" | sed -n 's/^.*GUEST-RESULT: \(PASS\|FAIL\|SKIP\): /\1: '"$1"' /p')
	[ -z "$lines" ] || echo "$lines"
	if ! tr -d '\r' <"$2" | grep -q 'GUEST-DONE 0$'; then
		echo "FAIL: $1 the guest came to its end (QEMU's exit status $3, limit $4 s)"
		bad=1
	elif ! echo "$lines" | grep -q '^PASS:'; then
		echo "FAIL: $1 the guest proved something"
		bad=1
	fi
	if [ $bad -ne 0 ] || echo "$lines" | grep -q '^FAIL:'; then
		echo "== console"
		tail -n 40 "$2"
		tail -n 5 "$2.qemu"
		return 1
	fi
}
