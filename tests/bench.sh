#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# `make bench`: the whole of tools/bench/bench.py, or the parts named in PARTS.
cd "$(dirname "$0")/.." || exit 1
make -s bench_programs || exit 1
# shellcheck disable=SC2086
exec python3 tools/bench/bench.py ${PARTS:-}
