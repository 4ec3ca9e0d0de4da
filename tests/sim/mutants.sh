#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Deliberate breakages of the rules (base/mutant.h), one build of all, chosen at run time: each
# must be noticed by what mutants.list names for it.
#
#   mutants.sh			searches: how many seeds or states each takes
#   mutants.sh short		what is known to kill each, first; looks a little further if the code
#				has changed so much that it does not any more
#
# A kill counts only if the same seed, state or program finds nothing without the mutant.
set -u
cd "$(dirname "$0")/../.."

round=${1:-full}
tree=build-mutants
list=tests/sim/mutants.list
sim=$tree/tests/sim/lunfs_sim
cut=$tree/tests/sim/power_cut
out=$tree/mutants.out
bad=0
seeds=100 states=2500			# so far a search goes
[ "$round" != short ] || { seeds=12 states=400; }

mkdir -p $tree
units=$(awk '!/^#/ && $3 ~ /^unit:/ { sub("unit:", "", $3); print "'$tree'/" $3 }' $list | sort -u)
# shellcheck disable=SC2086
make -s -j"$(nproc)" B=$tree CPPFLAGS=-DLUNFS_MUTANTS sim_program power_cut $units \
	>$out 2>&1 || { tail -n 20 $out; exit 1; }

run() {		# run MUTANT COMMAND…
	LUNFS_MUTANT=$1 timeout 300 "${@:2}" >$out 2>&1
}

# The first complaint of the last run, or nothing.
complaint() {
	sed -n 's/^FAIL: //p' $out | head -n 1 | cut -c 1-160
}

# Each leaves in $how what noticed mutant $1, or fails; it begins at what $2 says is known.
by_sim() {
	local seed=$2 n=0 what
	while [ $n -lt $seeds ]; do
		run "$1" $sim --seed "$seed" --count 1
		what=$(complaint)
		n=$((n + 1))
		if [ -n "$what" ] && run none $sim --seed "$seed" --count 1 && [ -z "$(complaint)" ]; then
			how="by the simulator, after $n seeds ($what)"
			return 0
		fi
		[ "$round" = short ] || [ $n -gt 1 ] || seed=0
		seed=$((seed + 1))
	done
	return 1
}

by_known_cut() {
	run "$1" $cut -w "$2" -c "$3" -s "$4"
	[ $? -eq 1 ] || return 1
	how="by a power cut ($2, moment $3, subset $4)"
}

# A mutant may do other commands, so that its moments are not those of the code without it: of that
# a sample of the whole script must hold.
by_cut() {
	local workload moment state what
	IFS=: read -r workload moment state <<<"$2"
	run none $cut -w "$workload" -n 60 || return 1
	[ "$round" != short ] || ! by_known_cut "$1" "$workload" "$moment" "$state" || return 0
	run "$1" $cut -w "$workload" -n $states -f
	what=$(complaint)
	how="by power cuts: $what"
	# A sample of the states may lack the few that show it.
	[ -n "$what" ] || by_known_cut "$1" "$workload" "$moment" "$state"
}

by_unit() {
	if run none $tree/"$2" && ! run "$1" $tree/"$2"; then
		how="by $2"
		return 0
	fi
	return 1
}

mutants=$(grep -rhoE 'MUTANT\("[a-z-]+"\)' base fs lockd | sort -u | cut -d'"' -f2)
for mutant in $mutants; do
	grep -q "^$mutant	" $list || { echo "FAIL: mutant $mutant is not in $list"; bad=1; }
done
while read -r mutant rule killers; do
	case $mutant in '' | \#*) continue ;; esac
	if ! grep -qx "$mutant" <<<"$mutants"; then
		echo "FAIL: mutant $mutant of $list is not in the code"
		bad=1
		continue
	fi
	for killer in $killers; do
		if "by_${killer%%:*}" "$mutant" "${killer#*:}"; then
			echo "PASS: mutant $mutant ($rule) killed $how"
		else
			echo "FAIL: mutant $mutant ($rule) survives $killer"
			bad=1
		fi
		[ "$round" != short ] || break
	done
done <$list
exit $bad
