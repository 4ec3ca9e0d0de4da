#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make bench`: the whole of tools/bench/bench.py and tests/bench_lunvm*, or the parts named in PARTS.
cd "$(dirname "$0")/.." || exit 1
make -s bench_programs || exit 1
# The launcher's part needs KVM instead of hosts, and is a program of its own.
parts=" ${PARTS:-} "
case $parts in
"  "|*" lunvm "*) python3 tests/bench_lunvm.py && tests/bench_lunvm_linux.sh || exit 1 ;;
esac
parts=${parts/ lunvm / }
[ -z "${PARTS:-}" ] || [ -n "${parts// /}" ] || exit 0
# shellcheck disable=SC2086
exec python3 tools/bench/bench.py $parts
