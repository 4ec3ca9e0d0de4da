#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The simulator's part of `make check`: the same seed gives the same run, fifty seeds and those that
# once complained hold, and so do seeds that nobody has seen.  `make soak` runs more of these.
set -u
cd "$(dirname "$0")/../../.."
make -s sim_program || exit 1
sim=build/tests/sim/lunfs_sim
log=build/tests/sim/run.log
bad=0

claim() {	# claim NAME COMMAND…
	local name=$1
	shift
	if "$@" >"$log" 2>&1; then
		echo "PASS: sim $name ($(grep '^seeds' "$log" | tail -n 1))"
	else
		echo "FAIL: sim $name"
		grep -A1 '^FAIL' "$log"
		tail -n 3 "$log"
		bad=1
	fi
}

one=$($sim --seed 1 | tail -n 1)
two=$($sim --seed 1 | tail -n 1)
if [ -n "$one" ] && [ "$one" = "$two" ]; then
	echo "PASS: sim the same seed gives the same run ($one)"
else
	echo "FAIL: sim seed 1 gave $one and then $two"
	bad=1
fi
# What a lock or a recovery costs does not grow with the hosts (docs/PERFORMANCE.md has the table).
if $sim --costs >"$log" 2>&1 && awk '
	/^lock that is free/ { n++; bad += $(NF - 2) != $NF || $NF > 4 }
	/^recovery of a host: its slot/ { n++; bad += $NF > $(NF - 2) + 2 }
	/^recovery of a host: from/ { n++; bad += $NF > 8 }
	END { exit bad || n != 4 }' "$log"; then
	echo "PASS: sim locks and recoveries cost 64 hosts what they cost two"
else
	echo "FAIL: sim locks and recoveries cost 64 hosts more than two"
	cat "$log"
	bad=1
fi
# The seeds that the CHANGELOG names are among the first fifty; 60 and 121 have 64 hosts.
claim "seeds that are always run" $sim --seed 1 --count 150
kept() {
	local seed status=0
	for seed in $(grep -v '^#' tests/sim/cluster/seeds.txt); do
		$sim --seed "$seed" --count 1 || status=1
	done
	return $status
}
claim "seeds that once complained" kept
# A few, here; `make soak` is for many.
claim "fresh seeds" $sim --soak 15
exit $bad
