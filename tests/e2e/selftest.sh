#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# lunfs selftest, as an administrator uses it before he trusts an array: it passes a good target, finds a
# broken one, and harms nobody's data.
. "$(dirname "$0")/lib.sh"

broken_pid=
trap '[ -z "$broken_pid" ] || kill "$broken_pid"; cleanup' EXIT

json() { jq -r "$1" "$work/json"; }
selftest() { "$bin/lunfs" selftest "$@" >"$work/out" 2>&1; }

story "a good target passes, everything tried by one host"
target_start
"$bin/lunfs" selftest "$lun" --seconds 1 --json >"$work/json" || fail "$(cat "$work/json")"
[ "$(json '[.properties[] | select(.verdict == "pass")] | length')" = 6 ] || fail "$(cat "$work/json")"
note "$(json '[.properties[].figures | to_entries[] | select(.key | test("abort_|succeeded|landed")) |
	"\(.key) \(.value)"] | join(", ")')"

story "two hosts meet on the LUN and agree"
selftest "$lun" --hosts 2 --seconds 1 &
other=$!
"$bin/lunfs" selftest "$lun" --hosts 2 --seconds 1 --json >"$work/json" 2>"$work/errors"
status=$?
wait $other && [ $status -eq 0 ] || fail "this one: $(cat "$work/json" "$work/errors") the other: $(cat "$work/out")"
[ "$(json '.hosts')$(json '.properties[3].verdict')" = 2pass ] || fail "$(cat "$work/json")"

story "they leave nothing behind"
qemu-io -f raw -c 'read -P 0 4092M 4M' "$lun" | grep -q "Pattern verification failed" && fail "they do"

story "a LUN that holds data is refused, without a place and force"
qemu-io -f raw -c 'write -P 0x77 0 64k' "$lun" >/dev/null || fail "qemu-io"
selftest "$lun" --seconds 1 && fail "it is not"
grep -q "holds data" "$work/out" || fail "$(cat "$work/out")"
selftest "$lun" --seconds 1 --force && fail "force without a place"
selftest "$lun" --seconds 1 --force --offset 1G || fail "$(cat "$work/out")"
qemu-io -f raw -c 'read -P 0x77 0 64k' "$lun" | grep -q "Pattern verification failed" && fail "it is gone"

story "on a volume in use only its scratch block is tried"
make_lun_volume -f
need_fuse "selftest on a volume in use"
host_start alpha
host_mount alpha
echo precious >"$(mnt alpha)/file"
"$bin/lunfs" selftest "$lun" --seconds 1 --json >"$work/json" || fail "$(cat "$work/json")"
[ "$(json '[.properties[] | .verdict] | join(" ")')" = "pass pass pass skipped skipped skipped" ] ||
	fail "$(cat "$work/json")"
json '.properties[5].text' | grep -q "not on a volume" || fail "$(cat "$work/json")"
selftest "$lun" --hosts 2 && fail "more is tried there"
echo more >>"$(mnt alpha)/file" && sync "$(mnt alpha)/file" || fail "the host is disturbed"
"$bin/lunfs" --run-dir "$work/run-alpha" status | grep -q "belongs to no slot" && fail "its key stays behind"
host_umount alpha
host_stop alpha
check_volume

story "a LUN that hosts are registered on is refused, though it holds nothing"
fallocate --punch-hole --offset 0 --length 4G "$target_file" || fail "the file keeps its contents"
selftest "$lun" --seconds 1 && fail "it is not"
grep -q "hosts are registered on it" "$work/out" || fail "$(cat "$work/out")"

broken() {	# broken [caw]
	: >"$work/broken.out"
	"$top/${BUILD:-build}/tests/tools/broken_target" "$@" >"$work/broken.out" 2>&1 &
	broken_pid=$!
	wait_for 60 test -s "$work/broken.out" || fail "it does not start"
	read -r url <"$work/broken.out"
}

broken_end() {
	kill $broken_pid
	wait $broken_pid 2>/dev/null
	broken_pid=
}

story "a target whose compare-and-write is not atomic is found out"
broken caw
selftest "$url" --seconds 1 && fail "it is not: $(cat "$work/out")"
grep -q "caw-against-caw *FAIL" "$work/out" || fail "$(cat "$work/out")"

story "mkfs.lunfs makes no volume on it"
"$bin/mkfs.lunfs" -f "$url" >"$work/out" 2>&1 && fail "it does"
grep -q "must not hold a volume" "$work/out" || fail "$(cat "$work/out")"
broken_end
broken
"$bin/mkfs.lunfs" -q --slots 2 "$url" >"$work/out" 2>&1 || fail "the same target, not broken: $(cat "$work/out")"
broken_end

story "mkfs.lunfs --selftest says what it found"
"$bin/mkfs.lunfs" -f --selftest "$lun" >"$work/out" 2>&1 || fail "$(cat "$work/out")"
grep -q "fencing *pass" "$work/out" || fail "$(cat "$work/out")"

story "wrong usage is said"
for args in "" "--hosts 99 $lun" "--offset 5 $lun" "--seconds 0 $lun" "--nonsense $lun"; do
	# shellcheck disable=SC2086
	"$bin/lunfs" selftest $args >/dev/null 2>&1
	[ $? -eq 2 ] || fail "\"$args\""
done
selftest /dev/null && fail "/dev/null"
finish
