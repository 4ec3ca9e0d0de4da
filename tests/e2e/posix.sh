#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# POSIX semantics of a mount, for root and for ordinary users; random operations against a model.
. "$(dirname "$0")/lib.sh"
need_fuse posix

make_volume 4G
host_start alpha
host_mount alpha
a=$(mnt alpha)

mkdir "$a/posix" "$a/random"
chmod 755 "$a/posix"
for part in posix linux; do
	python3 -B "$top/tests/posix/$part.py" "$a/posix" || failures=$((failures + 1))
done

for seed in 1 2 $((RANDOM + 100)); do
	story "random operations match the model (seed $seed)"
	python3 "$top/tests/posix/exerciser.py" "$a/random" "$seed" "${EXERCISER_OPS:-1500}" ||
		fail "seed $seed: run tests/posix/exerciser.py with it"
done

story "a volume used like that is clean"
host_umount alpha
host_stop alpha || fail "lunfsd ended with $?"
check_volume
finish
