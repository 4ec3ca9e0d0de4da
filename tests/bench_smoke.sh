#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A short round of every benchmark, so that none rots; its figures mean nothing.
cd "$(dirname "$0")/.." || exit 1
make -s bench_programs || exit 1
python3 tests/bench_lunvm.py --smoke || exit 1
exec python3 tools/bench/bench.py --smoke
