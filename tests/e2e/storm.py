#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""storm.py DIRECTORY SEED SECONDS: random changes of names that another host changes too.

Ends with 0 if every operation ended as POSIX allows it for names that come and go, and none
hung; the end of the mount (its host was killed) ends it with 3.
"""
import errno
import os
import random
import sys
import time

ALLOWED = {errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR,
           errno.EBUSY, errno.EINVAL}
GONE = {errno.ENOTCONN, errno.ECONNABORTED}
LONGEST = 20.0	# more than twice a takeover and a lock that was cached: it hangs


def change(rng, top):
    def file():
        return "%s/s%d/n%d" % (top, rng.randrange(4), rng.randrange(40))

    def directory():
        return "%s/s%d/d%d" % (top, rng.randrange(4), rng.randrange(5))

    op = rng.randrange(9)
    if op <= 2:
        with open(file(), "w") as f:
            f.write("x" * rng.randrange(9000))
    elif op == 3:
        os.unlink(file())
    elif op == 4:
        os.rename(file(), file())
    elif op == 5:
        os.link(file(), file())
    elif op == 6:
        os.listdir(os.path.dirname(file()))
    elif op == 7:
        os.mkdir(directory())
    elif rng.randrange(2):
        os.rmdir(directory())
    else:
        os.rename(directory(), directory())


def main():
    top, rng = sys.argv[1], random.Random(int(sys.argv[2]))
    end = time.monotonic() + float(sys.argv[3])
    count, longest = 0, 0.0
    for i in range(4):
        os.makedirs("%s/s%d" % (top, i), exist_ok=True)
    while time.monotonic() < end:
        start = time.monotonic()
        try:
            change(rng, top)
        except OSError as e:
            if e.errno in GONE:
                return 3
            if e.errno not in ALLOWED:
                print("unexpected:", e)
                return 1
        longest = max(longest, time.monotonic() - start)
        count += 1
    print("%d operations, longest %.2f s" % (count, longest))
    return longest > LONGEST


sys.exit(main())
