# SPDX-License-Identifier: Apache-2.0
# Machines of lunvm for tests: sourced after tests/e2e/lib.sh.

payload=$top/${BUILD:-build}/tests/kvm/payload.elf

# need_kvm TEST: the test guest runs under this machine's KVM.  Neither /dev/kvm nor the processor's
# flags say so: a KVM may interpret what others execute.
need_kvm() {
	[ "$(id -u)" -eq 0 ] || skip_all "$1" "needs root"
	[ -c /dev/kvm ] || skip_all "$1" "no /dev/kvm"
	chmod 755 "$work"
	timeout -s KILL 60 "$bin/lunvm" run --run-dir "$work/vm-probe" --name probe --memory 16M \
		--kernel "$payload" --cmdline op=off >"$work/kvm-probe" 2>&1 &&
		grep -q "done bad=0" "$work/kvm-probe" ||
		skip_all "$1" "this machine's KVM runs no guest: $(tail -n 1 "$work/kvm-probe")"
}

# vm HOST lunvm-arguments…: as on that host
vm() {
	local host=$1
	shift
	timeout -s KILL "${VM_SECONDS:-120}" "$bin/lunvm" --run-dir "$work/vm-$host" \
		--daemon-dir "$work/run-$host" "$@"
}

# vm_run HOST NAME lunvm-arguments…: what it says is in $work/vm-NAME.out; its exit status
vm_run() {
	local host=$1 name=$2
	shift 2
	vm "$host" run --name "$name" --memory 32M --on-reset exit --kernel "$payload" "$@" \
		>"$work/vm-$name.out" 2>&1
}

declare -A runner_of

# Goes on beside it, as runner_of[NAME].  What the last of this name said must not be taken for its words.
vm_start() {
	: >"$work/vm-$2.out"
	vm_run "$@" &
	runner_of[$2]=$!
}

# expect_exit STATUS TEXT HOST NAME lunvm-arguments…
expect_exit() {
	local status=$1 text=$2 got
	shift 2
	vm_run "$@"
	got=$?
	[ $got -eq "$status" ] || fail "exit status $got, not $status: $(tail -n 3 "$work/vm-$2.out")"
	grep -q "$text" "$work/vm-$2.out" || fail "does not say \"$text\": $(cat "$work/vm-$2.out")"
}

# Instead of cleanup: machines that are detached do not end with their test, which may have failed.
vms_leave() {
	local socket
	for socket in "$work"/vm-*/*.sock; do
		[ ! -e "$socket" ] || timeout -s KILL 60 "$bin/lunvm" --run-dir "${socket%/*}" kill \
			"$(basename "$socket" .sock)" 2>/dev/null
	done
	cleanup
}

vm_says() {	# vm_says SECONDS NAME TEXT
	wait_for "$1" grep -q "$3" "$work/vm-$2.out"
}

vm_rounds() {	# vm_rounds NAME: of a stress so far
	grep -c "payload: round" "$work/vm-$1.out"
}

vm_pid() {	# vm_pid HOST NAME FIELD
	vm "$1" status "$2" --json | sed -n "s/^  \"$3\": \([0-9]*\),*/\1/p"
}
