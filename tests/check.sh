#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make check`: every part, its time, and one line of totals at the end.
#
# A part is a command that prints "PASS: name", "FAIL: name" and "SKIP: name: why" lines; one
# that exits non-zero counts as a failure even if it printed none.
#
# Most end-to-end tests wait, for leases and suspicions to end, and what is compiled and computed
# waits for nothing.  So there are two lanes that run side by side.  "waits" has the end-to-end tests,
# three at a time; "works" has the others, with a lower priority, so that it takes what
# those that wait leave, and their time-outs hold.  Each lane has room for a number of units, which
# its parts take up while they run.  What the parts print comes in the order below, whoever ends first.
#
#	check.sh [PATTERN…]	only parts whose name one of these is, as the shell matches: 'e2e/*'
set -u
cd "$(dirname "$0")/.."

log=build/check.log
out=build/check		# of each part: NAME.out, and NAME.end with exit status and seconds
rm -rf $out
mkdir -p $out
: >$log
declare -A room=([waits]=3 [works]=2)
# Seconds: a part that hangs is named, and the others are run.  What gives way to others has no
# bound of its own.
declare -A limit=([waits]=900 [works]=2400)
names=() lanes=() units=() commands=()
declare -A part_of=()	# process: index of the part
running=()		# index: process, of those that run
shown=0
failed_parts=()

wanted=("$@")

is_wanted() {	# is_wanted NAME
	local pattern
	[ ${#wanted[@]} -gt 0 ] || return 0
	for pattern in "${wanted[@]}"; do
		# shellcheck disable=SC2053
		[[ $1 != $pattern ]] || return 0
	done
	return 1
}

part() {	# part LANE UNITS NAME COMMAND…
	is_wanted "$3" || return
	lanes+=("$1")
	units+=("$2")
	names+=("$3")
	commands+=("${*:4}")
}

file_of() { echo "$out/${names[$1]//\//-}"; }

run() {		# run INDEX: in the background
	local i=$1 file lane=${lanes[$1]} first=
	file=$(file_of "$i")
	[ "$lane" = waits ] || first="nice -n 10"
	# A shell's background jobs are started deaf to an interrupt; some tests send one.
	(
		start=$SECONDS
		# shellcheck disable=SC2086
		env --default-signal=INT,QUIT timeout -k 10 "${limit[$lane]}" $first ${commands[$i]} >"$file.out" 2>&1
		echo "$? $((SECONDS - start))" >"$file.end"
	) &
	running[i]=$!
	part_of[$!]=$i
	room[$lane]=$((room[$lane] - units[i]))
}

# Those that are ended and have none before them that is not.
show() {
	local file status seconds
	while [ "$shown" -lt ${#names[@]} ]; do
		file=$(file_of "$shown")
		[ -z "${running[shown]:-}" ] && [ -e "$file.end" ] || return
		read -r status seconds <"$file.end"
		echo "--- ${names[shown]} ($seconds s)"
		{ echo "--- ${names[shown]}"; cat "$file.out"; } >>$log
		grep -E '^(PASS|FAIL|SKIP):|^  note:' "$file.out"
		if [ "$status" -ne 0 ]; then
			failed_parts+=("$shown")
			echo "FAIL: part ${names[shown]} (exit status $status)" | tee -a $log
		fi
		shown=$((shown + 1))
	done
}

stop() {
	trap - INT TERM
	local pid
	for pid in "${running[@]}"; do
		pkill -TERM -P "$pid"	# its time-out, which ends all that is below
	done
	wait
	exit 130
}
trap stop INT TERM

# Each that has room is started, in order; one that has none is passed over by smaller ones.
run_all() {
	local next=("${!names[@]}") i pid
	while [ ${#next[@]} -gt 0 ] || [ ${#running[@]} -gt 0 ]; do
		for i in "${!next[@]}"; do
			if [ "${units[next[i]]}" -le "${room[${lanes[next[i]]}]}" ]; then
				run "${next[i]}"
				unset "next[$i]"
			fi
		done
		wait -n -p pid "${running[@]}"
		i=${part_of[$pid]}
		unset "running[$i]"
		room[${lanes[i]}]=$((room[${lanes[i]}] + units[i]))
		show
	done
}

# The whole plain tree, once: those below that build something of it find it there.
start=$SECONDS
echo "--- build"
if ! make -s -j"$(nproc)" all unit_programs nomem_programs bench_programs sim_program power_cut wreck \
	build/tests/vhost/serve build/tests/vhost/guest_load >$out/build.out 2>&1; then
	cp $out/build.out $log
	grep -v '^  \(CC\|LD\) ' $out/build.out | tail -n 60
	echo "FAIL: part build"
	exit 1
fi
build_seconds=$((SECONDS - start))

part works 2 unit               tests/unit.sh build
part works 2 unit-asan-ubsan    tests/unit.sh build-address-undefined
part works 2 unit-tsan          tests/unit.sh build-thread
part works 1 sim                tests/sim/cluster/run.sh
part works 1 fuzz               tests/fuzz/run.sh
part works 1 mutants            tests/sim/mutants.sh short
part works 1 powercut           tests/sim/powercut.sh
part works 2 static             tests/static.sh
part works 1 man                tests/man.sh
part works 1 completion         tests/completion.sh
part works 1 install            tests/install.sh
part works 1 model              tests/model.sh
part works 1 golden             tests/golden/run.sh
part works 2 fsck               tests/fsck/run.sh
part works 2 fsck-killed        tests/fsck/killed.sh
part works 1 fsck-scale         tests/fsck/scale.sh
part works 2 bench              tests/bench_smoke.sh
part works 2 iscsi-threads      tests/iscsi/threads.sh
# Those that work as well, emulated guests and loads, take two units and come first: when one of them
# ends, the next one fits, and the others fill what is left.
units_of() {
	case $1 in
	*/kvm/linux.sh | */guest/* | */vhost/guest_* | */front_ends.sh | */load_generator.sh) echo 2 ;;
	*) echo 1 ;;
	esac
}
for n in 2 1; do
	for script in tests/{kvm,guest,vhost,e2e}/*.sh; do
		case $script in */lib*.sh | */in_guest.sh | */guests.sh | */facts.sh) continue ;; esac
		name=${script#tests/}
		[ "$(units_of "$script")" != $n ] || part waits $n "${name%.sh}" "$script"
	done
done
part waits 1 iscsi              tests/iscsi/conformance.sh short
part waits 1 iscsi-wire         tests/iscsi/wire/run.py
part waits 1 core-over-iscsi    tests/iscsi/core_tests.sh short
run_all

passed=$(grep -c '^PASS:' $log)
failed=$(grep -c '^FAIL:' $log)
skipped=$(grep -c '^SKIP:' $log)
echo "--- seconds of each part, which ran side by side; build $build_seconds, all $SECONDS"
for i in "${!names[@]}"; do
	read -r _ seconds <"$(file_of "$i").end"
	printf '%-34s %4d\n' "${names[i]}" "$seconds"
done | paste -d' ' - - - | sed 's/^/  /'
grep '^SKIP:' $log
# Once more, and last: of a long log the end is kept.
for i in "${failed_parts[@]}"; do
	echo "--- ${names[i]} failed; the end of its output, $(file_of "$i").out:"
	tail -n 15 "$(file_of "$i").out" | cut -c 1-300
	grep '^FAIL:' "$(file_of "$i").out" | cut -c 1-1000
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
