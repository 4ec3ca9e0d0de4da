# SPDX-License-Identifier: Apache-2.0
"""What the parts of `make bench` share."""
import os
import statistics
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(TOP, "build", "bin")
SMOKE = "--smoke" in sys.argv
ROUNDS = 1 if SMOKE else 5
SECONDS = 1 if SMOKE else 2
MIB = 1 << 20


def say(text=""):
    print(text, flush=True)


def run(*args, **kwargs):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          **kwargs).stdout.decode()


def median(values):
    return statistics.median(values)


def direct_works(path):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
        return 1
    except OSError:
        return 0


def fill(path, size):
    piece = os.urandom(MIB)
    with open(path, "wb") as f:
        for _ in range(size // MIB):
            f.write(piece)
        f.flush()
        os.fsync(f.fileno())
