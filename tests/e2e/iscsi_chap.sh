#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names, secrets and digests against a target that is not ours: Debian's tgt.
. "$(dirname "$0")/lib.sh"
command -v tgtd >/dev/null || skip_all iscsi_chap "no tgtd"
[ "$(id -u)" -eq 0 ] || skip_all iscsi_chap "needs root"

control=$((RANDOM % 30000 + 100))
port=
tgtd_pid=
tgt() { tgtadm -C $control --lld iscsi "$@" >/dev/null 2>>"$work/tgtadm.err"; }
tgt_end() {
	[ -z "$tgtd_pid" ] || { kill -KILL "$tgtd_pid"; wait "$tgtd_pid"; } 2>/dev/null
	rm -f "/var/run/tgtd/socket.$control" "/var/run/tgtd/socket.$control.lock" \
		"/var/run/tgtd.ipc_abstract_namespace.$control"
	cleanup
}
trap tgt_end EXIT

for try in 1 2 3 4 5; do
	port=$((RANDOM % 20000 + 20000))
	tgtd -C $control --iscsi "portal=127.0.0.1:$port" -f >"$work/tgtd.out" 2>&1 &
	tgtd_pid=$!
	sleep 0.5
	wait_for 20 tgt --op show --mode target && break
	kill "$tgtd_pid" 2>/dev/null
	wait "$tgtd_pid" 2>/dev/null
	tgtd_pid=
done
[ -n "$tgtd_pid" ] || skip_all iscsi_chap "tgtd does not start here: $(tail -n 1 "$work/tgtd.out")"
truncate -s 256M "$work/tgt.img"
iqn=iqn.2026-11.org.lunfs.test:chap
tgt --op new --mode target --tid 1 -T $iqn || fail "tgt: new target"
tgt --op new --mode logicalunit --tid 1 --lun 1 -b "$work/tgt.img" || fail "tgt: new LUN"
tgt --op bind --mode target --tid 1 -I ALL || fail "tgt: bind"
tgt --op new --mode account --user kvm7 --password initiator-secret || fail "tgt: account"
tgt --op bind --mode account --tid 1 --user kvm7 || fail "tgt: bind account"
tgt --op new --mode account --user san1 --password targets-own-secret || fail "tgt: account"
tgt --op bind --mode account --tid 1 --user san1 --outgoing || fail "tgt: bind account"

url=iscsi://127.0.0.1:$port/$iqn/1

secrets() {	# secrets MODE LINE…
	local mode=$1
	shift
	printf '%s\n' "$@" >"$work/chap"
	chmod "$mode" "$work/chap"
}

# tgt has no COMPARE AND WRITE: who gets as far as that has logged in and read.
logs_in() {	# logs_in PARAMETERS
	"$bin/mkfs.lunfs" -n "$url$1" >"$work/out" 2>&1
	grep -q 'compare-and-write' "$work/out"
}
refused() {	# refused PARAMETERS TEXT
	"$bin/mkfs.lunfs" -n "$url$1" >"$work/out" 2>&1 && fail "was not refused: $1"
	grep -q -- "$2" "$work/out" || fail "said: $(cat "$work/out")"
}
with="?chap-file=$work/chap"

story "the right name and secret get in, one way and both ways"
secrets 600 'user = kvm7' 'password = initiator-secret'
logs_in "$with" || fail "CHAP: $(cat "$work/out")"
secrets 600 'user = kvm7' 'password = initiator-secret' 'mutual-user = san1' \
	'mutual-password = targets-own-secret'
logs_in "$with" || fail "mutual CHAP: $(cat "$work/out")"

story "nothing else gets in, and no secret is repeated"
refused "" 'login'
secrets 600 'user = kvm7' 'password = wrong-secret-12'
refused "$with" 'login refused: wrong name or secret'
grep -q 'wrong-secret-12' "$work/out" && fail "the secret is repeated"
secrets 600 'user = nobody' 'password = initiator-secret'
refused "$with" 'login refused: wrong name or secret'

story "a target that does not know its own secret is not believed"
secrets 600 'user = kvm7' 'password = initiator-secret' 'mutual-user = san1' \
	'mutual-password = something-different'
refused "$with" 'login'

story "a file of secrets that others may read is refused"
secrets 640 'user = kvm7' 'password = initiator-secret'
refused "$with" 'chmod 600'

story "header digests work, data digests are refused clearly"
secrets 600 'user = kvm7' 'password = initiator-secret'
logs_in "$with&header-digest=crc32c" || fail "header digest: $(cat "$work/out")"
refused "$with&data-digest=crc32c" 'data digests'

story "a LUN or target that is not there is told"
refused "${with/?/9?}" 'no such LUN'
url=${url/:chap/:other}
refused "$with" 'cannot log in through 127.0.0.1'
finish
