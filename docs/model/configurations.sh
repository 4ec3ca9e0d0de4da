# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What run.sh searches; README.md tells what each shows.
#
#   expect holds|breaks NAME SECONDS FLAGS…		faults not named are lockd.pml's defaults

none="CRASHES=0 FREEZES=0"
A="RUNG=1 LOCKS=1"
B="RUNG=2 LOCKS=1"
C="RUNG=3 LOCKS=1"

# shellcheck disable=SC2086
small() {
	expect holds  A-crash		60 $A CRASHES=1 FREEZES=0
	expect holds  A-crash-join	60 $A CRASHES=1 FREEZES=0 JOINS=1
	expect holds  A-crash-unclear	60 $A CRASHES=1 FREEZES=0 UNCLEAR=1
	expect holds  A-leave-join	60 $A $none JOINS=1 LEAVES=1
	expect holds  B-crash		60 $B CRASHES=1 FREEZES=0
	expect holds  A-shared-crash	60 $A CRASHES=1 FREEZES=0 SHARE=1
	expect holds  A-heir-crash	60 $A CRASHES=1 FREEZES=0 HEIR=1
	expect holds  live		60 $A $none LIVENESS
}

# Each takes one rule away.
# shellcheck disable=SC2086
variants() {
	expect breaks without-fencing	60 $C CRASHES=0 FREEZES=1
	expect breaks believed-miscompare 60 $A $none V_MISCOMPARE
	expect breaks same-generation	60 $A CRASHES=1 FREEZES=0 JOINS=1 LEAVES=1 V_SAME_GENERATION
	expect breaks freed-before-replay 60 $A CRASHES=1 FREEZES=0 V_FREE_FIRST
	expect breaks slot-read-first	60 $A CRASHES=1 FREEZES=0 JOINS=1 V_SLOT_FIRST
	expect breaks slot-read-first-loose 60 $A CRASHES=1 FREEZES=0 JOINS=1 V_SLOT_LOOSE
	expect breaks unsettled-release	60 $A CRASHES=1 FREEZES=0 V_NO_SETTLE
	expect breaks claimer-last	60 $A CRASHES=1 FREEZES=1 V_CLAIMER_LAST
	expect breaks without-margin	60 $B CRASHES=0 FREEZES=1 V_NO_MARGIN
	expect breaks without-bound	60 $B CRASHES=0 FREEZES=1 V_NO_BOUND
	expect breaks any-heir		60 $A $none HEIR=1 V_ANY_HEIR
	expect breaks left-is-held	60 $A $none HEIR=1 V_LEFT_IS_HELD
	expect breaks left-unsettled	60 $A CRASHES=1 FREEZES=0 HEIR=1 V_NO_SETTLE
}

# Liveness: each state is searched once for every process that fairness is owed to.
# shellcheck disable=SC2086
stuck() {
	expect breaks out-of-turn	60 $A $none LIVENESS V_OUT_OF_TURN
	expect breaks nobody-recovers	60 $A CRASHES=1 FREEZES=0 LIVENESS V_NO_RECOVERY
	expect breaks unclear-is-kept	60 $A $none UNCLEAR=1 LIVENESS V_UNCLEAR_KEPT
}

# shellcheck disable=SC2086
full() {
	small
	expect holds  A-crash-freeze-join 300 $A CRASHES=1 FREEZES=1 JOINS=1
	expect holds  A-all		600 $A CRASHES=1 FREEZES=1 JOINS=1 UNCLEAR=1 LEAVES=1
	expect holds  A-2-crashes-2-joins 600 $A CRASHES=2 FREEZES=1 JOINS=2
	expect holds  A-2-freezes	600 $A CRASHES=1 FREEZES=2 JOINS=1
	expect holds  B-all		300 $B CRASHES=1 FREEZES=1 JOINS=1 UNCLEAR=1
	expect holds  B-2-crashes-2-joins 300 $B CRASHES=2 FREEZES=1 JOINS=2
	expect holds  A-2-locks-join	600 RUNG=1 LOCKS=2 CRASHES=1 FREEZES=1 JOINS=1
	expect holds  A-2-locks-unclear	600 RUNG=1 LOCKS=2 CRASHES=1 FREEZES=1 UNCLEAR=1
	expect holds  B-2-locks		300 RUNG=2 LOCKS=2 CRASHES=1 FREEZES=1
	expect holds  2-locks-2-unclear	300 RUNG=1 LOCKS=2 $none UNCLEAR=2
	expect holds  A-shared		600 $A CRASHES=1 FREEZES=1 JOINS=1 UNCLEAR=1 SHARE=1
	expect holds  A-multi-join	300 $A CRASHES=1 FREEZES=1 JOINS=1 SHARE=2
	expect holds  A-heir		600 $A CRASHES=1 FREEZES=1 JOINS=1 UNCLEAR=1 HEIR=1
	expect holds  A-2-heirs-leave	600 $A CRASHES=0 FREEZES=1 JOINS=1 LEAVES=1 HEIR=2
	expect holds  B-heir		300 $B CRASHES=1 FREEZES=1 JOINS=1 HEIR=1
	expect holds  B-multi		300 $B CRASHES=1 FREEZES=1 SHARE=2
	expect breaks lease-from-answer	300 $B CRASHES=0 FREEZES=2 V_LEASE_FROM_ANSWER
	expect holds  live-unclear	300 $A $none UNCLEAR=1 LIVENESS
	expect holds  live-crash-join	600 $A CRASHES=1 FREEZES=0 JOINS=1 LIVENESS
	expect holds  live-freeze	600 $A CRASHES=0 FREEZES=1 LIVENESS
}

case $round in
small)	small; variants; stuck ;;
full)	full; variants; stuck ;;
*)	echo "model: no round named $round" >&2; bad=1 ;;
esac
