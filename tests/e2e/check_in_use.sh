#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A datastore is checked while two hosts use it: nothing whole is accused, what is damaged is named.
. "$(dirname "$0")/lib.sh"
need_fuse check_in_use

make_volume 2G
echo 'scrub-rate = 16M' >"$work/lunfsd.conf"
chmod 644 "$work/lunfsd.conf"
host_start alpha --config "$work/lunfsd.conf"
host_start beta --config "$work/lunfsd.conf"
host_mount alpha
host_mount beta
a=$(mnt alpha)
b=$(mnt beta)

scrub() {	# scrub HOST JQ-EXPRESSION
	lunfs "$1" --json status | jq -r ".datastores[0].scrub$2"
}

checked() {	# checked STATUS HOST [option…]: lunfs check ends with that
	local status=$1 host=$2
	shift 2
	lunfs "$host" check ds1 "$@" >"$work/check" 2>&1
	[ $? -eq "$status" ] || fail "check on $host did not end with $status: $(cat "$work/check")"
}

story "files that were made a moment ago are counted"
mkdir "$a/new"
for i in $(seq 1 30); do echo "$i" >"$a/new/file-$i"; done
[ "$(lunfs alpha --json check ds1 | jq -c '[.files, .directories]')" = "[30,2]" ] ||
	fail "$(lunfs alpha --json check ds1)"
rm -r "$a/new"

story "while two hosts change everything no check accuses anything, however slow it is"
mkdir "$a/storm" "$a/quiet"
for i in $(seq 1 30); do echo "$i" >"$a/quiet/file-$i"; done
python3 "$top/tests/e2e/storm.py" "$a/storm" 1 8 >"$work/storm-alpha" 2>&1 &
storm_alpha=$!
python3 "$top/tests/e2e/storm.py" "$b/storm" 2 8 >"$work/storm-beta" 2>&1 &
storm_beta=$!
checks=0
again=0
while kill -0 $storm_alpha 2>/dev/null || kill -0 $storm_beta 2>/dev/null; do
	host=alpha
	[ $((checks % 2)) = 0 ] || host=beta
	rate=
	[ $((checks % 3)) = 0 ] || rate=--rate=2M
	lunfs "$host" --json check ds1 $rate >"$work/check" 2>&1 ||
		fail "check $checks on $host: $(cat "$work/check")"
	again=$((again + $(jq .looked_again "$work/check")))
	checks=$((checks + 1))
done
wait $storm_alpha || fail "alpha's operations went wrong: $(cat "$work/storm-alpha")"
wait $storm_beta || fail "beta's operations went wrong: $(cat "$work/storm-beta")"
[ "$checks" -ge 3 ] || fail "only $checks checks"
note "$checks checks, $again objects looked at again"
[ "$(scrub alpha .bad)$(scrub beta .bad)" = 00 ] || fail "the scrub accuses: $(lunfs alpha status)"
checked 0 alpha
grep -q 'clean, as far as' "$work/check" || fail "$(cat "$work/check")"

story "damage of a volume in use is found, with its code and its file"
sync -f "$a"
sleep 1
inode=$(stat -c %i "$a/quiet/file-7")
python3 "$top/tests/e2e/patch_block.py" "$lun" $(((inode + 1) * 4096)) 80 05000000
leaf=$(stat -c %i "$a/quiet/file-8")
python3 "$top/tests/e2e/patch_block.py" "$lun" $(((leaf + 1) * 4096)) 400 5a5a --no-seal
checked 4 beta
grep -q "LUN-0506 inode-link-count-wrong at .*(/quiet/file-7)" "$work/check" ||
	fail "not found: $(cat "$work/check")"
grep -q "LUN-0501 inode-damaged at .*inode $leaf" "$work/check" ||
	fail "not found: $(cat "$work/check")"
lunfs alpha --json check ds1 >"$work/check" 2>/dev/null
[ "$(jq -r '.clean, .errors, (.findings | map(.code) | sort | join(" "))' "$work/check" | xargs)" = \
	"false 2 LUN-0501 LUN-0506" ] || fail "$(cat "$work/check")"
[ "$(jq -r '.findings[] | select(.code == "LUN-0506") | .path' "$work/check")" = /quiet/file-7 ] ||
	fail "$(cat "$work/check")"

story "the scrub finds it by itself, and says so once"
found() { [ "$(scrub alpha .bad)" = 1 ]; }
wait_for 60 found || fail "scrub: $(scrub alpha '')"
passes=$(scrub alpha .passes)
more() { [ "$(scrub alpha .passes)" -gt "$passes" ]; }
wait_for 60 more || fail "no second pass: $(scrub alpha '')"
[ "$(grep -c 'scrub: LUN-0501' "$work/alpha.log")" = 1 ] || fail "not logged once"
lunfs alpha status | grep -q 'scrub .*16.0 MiB/s by 2 hosts; last complete pass: 20.*bad: 1' ||
	fail "status: $(lunfs alpha status)"
lunfs alpha metrics | grep -q '^lunfs_scrub_bad{datastore="ds1"} 1$' || fail "metrics"

story "what cannot be checked is refused with its reason"
refused 8 'nowhere' alpha check nowhere
refused 2 'wrong number' alpha check
refused 2 'not a size' alpha check ds1 --rate x
finish
