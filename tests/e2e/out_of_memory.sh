#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Programs and a daemon at work whose allocations fail (tests/nomem/): an error message and an
# exit status, nothing acknowledged is lost, and when there is memory again all goes on.
. "$(dirname "$0")/lib.sh"
need_fuse out_of_memory

make -s -C "$top" nomem_programs >"$work/make.log" 2>&1 || { cat "$work/make.log"; fail "build"; }
sound=$bin
mkdir "$work/bin"
cp "$top"/build/nomem/bin/* "$work/bin" || fail "no programs to test"
load=$top/tests/e2e/verify_load.py

# each PROGRAM ARGUMENT…: with allocation 1, 2, 3 … failing, until none is left to fail.
each() {
	local n status program=$1
	shift
	for ((n = 1; n < 3000; n++)); do
		LUNFS_NOMEM=$n LUNFS_NOMEM_SITES=$work/sites timeout 60 "$work/bin/$program" "$@" \
			>"$work/out" 2>"$work/err"
		status=$?
		[ "$status" -lt 124 ] || fail "$program: status $status with allocation $n failing: $(cat "$work/err")"
		[ -s "$work/sites" ] || break
		[ "$status" -eq 0 ] || [ -s "$work/err" ] ||
			fail "$program: status $status and no message with allocation $n failing"
		failed=$((failed + 1))
	done
	[ "$status" -eq 0 ] || fail "$program: status $status when nothing fails: $(cat "$work/err")"
}

story "mkfs.lunfs and fsck.lunfs without memory say so"
failed=0
truncate -s 256M "$lun"
each mkfs.lunfs -f "$lun"
each fsck.lunfs -n "$lun"
note "$failed allocations failed, one in each run"

story "a daemon at work whose allocations fail loses nothing and goes on"
dd if=/dev/zero of="$work/bin/lunfsd.nomem" bs=4096 count=1 status=none
chmod 666 "$work/bin/lunfsd.nomem"
chmod 755 "$work" "$work/bin"
# every N: each N-th allocation of the daemon, in either half, fails; 0: none.
every() {
	python3 -c 'import struct, sys
with open(sys.argv[1], "r+b") as f:
    f.seek(24)
    f.write(struct.pack("<Q", int(sys.argv[2])))' "$work/bin/lunfsd.nomem" "$1"
}
bin=$work/bin
host_start alpha
bin=$sound
host_mount alpha
failed=0
each lunfs --run-dir "$work/run-alpha" status
each lunfs --run-dir "$work/run-alpha" df "$lun" --json
note "lunfs: $failed allocations failed, one in each run"
refused=0
for i in $(seq 1 ${ROUNDS:-24}); do
	mkdir "$(mnt alpha)/$i" || fail "mkdir"
	every $((3 + i * 7 % 60))
	"$load" write "$(mnt alpha)/$i" "$work/ledger-$i" "$i" 0.2 >"$work/load.out" 2>&1
	[ $? -ne 3 ] || refused=$((refused + 1))
	ls -lR "$(mnt alpha)" >/dev/null 2>&1
	"$bin/lunfs" --run-dir "$work/run-alpha" status >/dev/null 2>&1
	"$bin/lunfs" --run-dir "$work/run-alpha" ls ds1: >/dev/null 2>&1
	timeout 60 "$bin/lunfs" --run-dir "$work/run-alpha" check "$lun" >"$work/check.out" 2>&1
	[ $? -ne 4 ] || fail "round $i: accused without memory: $(cat "$work/check.out")"
	every 0
	ctl alpha status || fail "the daemon does not answer any more"
	"$load" check "$(mnt alpha)/$i" "$work/ledger-$i" >"$work/check.out" 2>&1 ||
		fail "round $i: $(cat "$work/check.out")"
done
hits=$(od -An -tu8 -j32 -N8 "$work/bin/lunfsd.nomem" | tr -d ' ')
note "$hits allocations failed in the daemon, $refused of $i loads were ended by one"
[ "$hits" -gt 100 ] || fail "only $hits allocations failed"
grep -q "leaves the volume" "$work/alpha.log" && fail "the daemon gave its slot up"

story "a disk is given to initiators, or is not and can be the next time"
lunfs alpha disk create "$lun:/export.disk" --size 16M || fail "disk create"
attached=0 portal=127.0.0.1:$(free_port)
for i in $(seq 1 ${ROUNDS:-24}); do
	every $((i * i * i / 20 + i))
	lunfs alpha disk attach "--iscsi=$portal" "$lun:/export.disk" >"$work/url" 2>"$work/err"
	status=$?
	if [ $status -eq 0 ]; then
		attached=$((attached + 1))
		timeout 60 iscsi-inq "$(head -n 1 "$work/url")" >/dev/null 2>&1
	else
		[ -s "$work/err" ] || fail "attach: status $status and no message"
	fi
	every 0
	ctl alpha status || fail "the daemon does not answer any more"
	[ $status -ne 0 ] || lunfs alpha disk detach "$lun:/export.disk" --force || fail "detach"
done
lunfs alpha disk attach "--iscsi=$portal" "$lun:/export.disk" >"$work/url" || fail "not with all memory"
iscsi-inq "$(head -n 1 "$work/url")" >/dev/null || fail "it serves nobody"
lunfs alpha disk detach "$lun:/export.disk" --force || fail "detach"
note "$attached of $i attachments were made"
[ "$attached" -gt 0 ] && [ "$attached" -lt "$i" ] || fail "that shows nothing"

story "what was written is there for the next host, and the volume is clean"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"
host_start alpha
host_mount alpha
for i in $(seq 1 ${ROUNDS:-24}); do
	"$load" check "$(mnt alpha)/$i" "$work/ledger-$i" >"$work/check.out" 2>&1 ||
		fail "$(cat "$work/check.out")"
done
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"
check_volume
finish
