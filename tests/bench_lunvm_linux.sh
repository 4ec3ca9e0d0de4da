#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How long lunvm takes from its exec to the init of Debian's cloud kernel, with one and two processors: on this
# machine's KVM, or where that runs no Linux in a machine of QEMU's, whose emulated processor has nested paging.
# Then the takeover stories, with the figures that their tests note.  For `make bench`.
top=$(cd "$(dirname "$0")/.." && pwd)
. "$top/tests/guest/lib.sh"
bin=$top/build/bin
work=$(mktemp -d /var/tmp/lunvm-init-XXXXXX)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

guest_need && guest_kernel cloud || { echo "SKIP: bench lunvm to init: $GUEST_WHY"; exit 0; }
inner=$GUEST_KERNEL
echo 'echo "INNER-INIT $(nproc)"' >"$work/inner"
guest_initrd "$work/inner.initrd" "$work/inner"

# The clock is the one that is at hand in both places: seconds since the boot of who runs lunvm.
cat >"$work/measure" <<'IN'
for cpus in 1 2; do
	for _ in 1 2; do
		start=$(cut -d' ' -f1 /proc/uptime)
		$lunvm run --name init --memory 192M --cpus $cpus --kernel $kernel --initrd $initrd \
			--cmdline "console=ttyS0 quiet panic=-1 cryptomgr.notests" 2>/dev/null | while read -r line; do
			case $line in
			*INNER-INIT*) echo "INIT $cpus $start $(cut -d' ' -f1 /proc/uptime) ${line#*INNER-INIT }" ;;
			esac
		done
	done
done
IN
if [ "$(guest_accel)" = kvm ]; then
	where="this machine's KVM"
	lunvm="$bin/lunvm --run-dir $work/vm" kernel=$inner initrd=$work/inner.initrd
	. "$work/measure" >"$work/console"
else
	where="nested in QEMU's TCG"
	guest_kernel full || { echo "SKIP: bench lunvm to init: $GUEST_WHY"; exit 0; }
	{ echo 'lunvm=lunvm kernel=/vmlinuz initrd=/inner.initrd'; cat "$work/measure"; echo 'pass "ran"'; } >"$work/outer"
	guest_initrd "$work/outer.initrd" "$work/outer" -m kvm_amd -f "$bin/lunvm:/usr/sbin/lunvm" -f "$inner:/vmlinuz" \
		-f "$work/inner.initrd:/inner.initrd"
	GUEST_ACCEL=tcg GUEST_MEMORY=640M guest_run init 800 "$work/outer.initrd" "$work/console" -M q35 \
		-cpu EPYC,+svm,+npt >"$work/out" || { cat "$work/out"; exit 1; }
fi
tr -d '\r' <"$work/console" | awk -v where="$where" -v kernel="$(basename "$inner")" '
	sub(/.*INIT /, "") && NF == 4 { n[$1]++; s = $3 - $2; if (!($1 in best) || s < best[$1]) best[$1] = s; sum[$1] += s; cpus[$1] = $4 }
	END { for (c = 1; c <= 2; c++) {
		if (cpus[c] != c) { print "FAIL: bench: the guest has " cpus[c] " of " c " processors"; exit 1 }
		printf "exec of lunvm to init of %s, %d processor%s, %s: %.2f s at best, %.2f s mean of %d\n", kernel, c,
			(c > 1 ? "s" : ""), where, best[c], sum[c] / n[c], n[c] } }' || exit 1
for story in autostart linux; do
	"$top/tests/kvm/$story.sh" 2>&1 | grep -E '^(FAIL|SKIP)|^  note: .* ms after' | sed "s/^  note: /$story: /"
done
