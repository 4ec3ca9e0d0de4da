#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Deliberate breakages of the rules: the simulator must notice each.  With "short" as argument each
# gets a few seeds (make check), else up to 100.
set -u
cd "$(dirname "$0")/../../.."
make -s B=build-mutants CPPFLAGS=-DLUNFS_MUTANTS sim_program >/dev/null || exit 1
count=100
[ "${1:-}" = short ] && count=6
bad=0
for mutant in $(grep -rhoE 'MUTANT\("[a-z-]+"\)' fs lockd | sort -u | cut -d'"' -f2); do
	# These need a rare moment: only the long run looks for it.
	case "$count $mutant" in "6 no-flush-"*|"6 no-lease-check") continue ;; esac
	seed=0
	killed=
	while [ $seed -lt $count ] && [ -z "$killed" ]; do
		seed=$((seed + 1))
		killed=$(LUNFS_MUTANT=$mutant build-mutants/tests/sim/lunfs_sim --seed $seed --count 1 2>&1 |
			sed -n 's/^FAIL: //p' | head -n 1)
	done
	if [ -n "$killed" ]; then
		echo "PASS: mutant $mutant killed after $seed seeds ($killed)"
	else
		echo "FAIL: mutant $mutant survived $count seeds"
		bad=1
	fi
done
exit $bad
