#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Power cuts at every moment of recorded scripts: a sample of the states of each, or with
# "full" so many that it takes ten minutes.
set -u
cd "$(dirname "$0")/../.."

states=120
[ "${1:-short}" = full ] && states=2500
make -s -j"$(nproc)" power_cut || exit 1
exec build/tests/sim/power_cut -n "$states"
