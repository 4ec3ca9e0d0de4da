#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random operations on files, compared byte for byte with a model in memory.

exerciser.py DIRECTORY SEED OPERATIONS: a failing run prints the seed and the last operations.
"""
import ctypes
import mmap
import os
import random
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
SIZE_MAX = 3 << 20
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 0x10


class File:
    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
        self.model = bytearray()

    def reopen(self):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def extend(self, size):
        if size > len(self.model):
            self.model.extend(bytes(size - len(self.model)))


def place(rng):
    """An offset and a length, often at the edges where bugs live."""
    kind = rng.random()
    unit = rng.choice((1, 512, 4096, 65536, 262144))
    off = rng.randrange(0, SIZE_MAX) // unit * unit
    length = rng.choice((1, 7, 511, 512, 4095, 4096, 4097, 65536, 262144, 300000))
    if kind < 0.3:
        off = max(0, off + rng.randrange(-3, 4))
    if kind < 0.15:
        length = rng.randrange(1, 400000)
    return off, min(length, SIZE_MAX - off) or 1


def op_write(f, rng):
    off, n = place(rng)
    data = rng.randbytes(n)
    done = os.pwrite(f.fd, data, off)
    assert done == n, "short write %d of %d" % (done, n)
    f.extend(off + n)
    f.model[off:off + n] = data
    return "write %d +%d" % (off, n)


def op_read(f, rng):
    off, n = place(rng)
    got = os.pread(f.fd, n, off)
    want = bytes(f.model[off:off + n])
    if got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        raise AssertionError("read %d +%d: differs at %d (lengths %d, %d)" % (
            off, n, off + at, len(got), len(want)))
    return "read %d +%d" % (off, n)


def op_truncate(f, rng):
    size = place(rng)[0]
    os.ftruncate(f.fd, size)
    del f.model[size:]
    f.extend(size)
    return "truncate %d" % size


def op_punch(f, rng):
    off, n = place(rng)
    assert libc.fallocate(f.fd, PUNCH_HOLE | KEEP_SIZE, off, n) == 0, "punch"
    end = min(off + n, len(f.model))
    if end > off:
        f.model[off:end] = bytes(end - off)
    return "punch %d +%d" % (off, n)


def op_zero(f, rng):
    off, n = place(rng)
    assert libc.fallocate(f.fd, ZERO_RANGE, off, n) == 0, "zero range"
    f.extend(off + n)
    f.model[off:off + n] = bytes(n)
    return "zero %d +%d" % (off, n)


def op_allocate(f, rng):
    off, n = place(rng)
    keep = rng.random() < 0.5
    assert libc.fallocate(f.fd, KEEP_SIZE if keep else 0, off, n) == 0, "fallocate"
    if not keep:
        f.extend(off + n)
    return "allocate %d +%d%s" % (off, n, " keep" if keep else "")


def op_append(f, rng):
    data = rng.randbytes(rng.randrange(1, 5000))
    if len(f.model) + len(data) > SIZE_MAX:
        return "append skipped"
    fd = os.open(f.path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, data)
    os.close(fd)
    f.model += data
    return "append %d" % len(data)


def op_direct(f, rng):
    off, n = rng.randrange(0, SIZE_MAX // 4096 - 64) * 4096, rng.randrange(1, 64) * 4096
    buf = mmap.mmap(-1, n)
    data = rng.randbytes(n)
    buf.write(data)
    fd = os.open(f.path, os.O_RDWR | os.O_DIRECT)
    assert os.pwritev(fd, [buf], off) == n
    os.close(fd)
    f.extend(off + n)
    f.model[off:off + n] = data
    return "direct write %d +%d" % (off, n)


def op_mmap(f, rng):
    if not f.model:
        return "mmap skipped"
    off, n = rng.randrange(0, len(f.model)), rng.randrange(1, 20000)
    n = min(n, len(f.model) - off)
    data = rng.randbytes(n)
    m = mmap.mmap(f.fd, len(f.model))
    assert m[off:off + n] == bytes(f.model[off:off + n]), "mmap read %d +%d" % (off, n)
    m[off:off + n] = data
    m.flush()
    m.close()
    f.model[off:off + n] = data
    return "mmap write %d +%d" % (off, n)


def op_seek(f, rng):
    """Every byte outside what SEEK_DATA/SEEK_HOLE call data must be zero."""
    pos = 0
    while pos < len(f.model):
        try:
            data = os.lseek(f.fd, pos, os.SEEK_DATA)
        except OSError:
            data = len(f.model)
        assert not any(f.model[pos:data]), "SEEK_DATA skipped data in %d…%d" % (pos, data)
        if data >= len(f.model):
            break
        pos = os.lseek(f.fd, data, os.SEEK_HOLE)
        assert pos > data, "SEEK_HOLE does not move"
    return "seek"


def op_stat(f, rng):
    size = os.fstat(f.fd).st_size
    assert size == len(f.model), "size %d instead of %d" % (size, len(f.model))
    return "stat"


def op_fsync(f, rng):
    os.fsync(f.fd)
    return "fsync"


def op_reopen(f, rng):
    f.reopen()
    return "reopen"


def op_rename(f, rng):
    new = f.path + "'" if not f.path.endswith("'") else f.path[:-1]
    os.rename(f.path, new)
    f.path = new
    return "rename"


OPS = ([op_write] * 10 + [op_read] * 10 + [op_truncate] * 3 + [op_punch] * 2 + [op_zero] * 2 +
       [op_allocate] * 2 + [op_append] * 2 + [op_direct] * 3 + [op_mmap] * 2 + [op_seek] +
       [op_stat] * 2 + [op_fsync] + [op_reopen] * 2 + [op_rename])


def main():
    base, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    files = [File(os.path.join(base, "x%d" % i)) for i in range(4)]
    history = []
    for i in range(count):
        k = rng.randrange(len(files))
        op = rng.choice(OPS)
        try:
            history.append("%d: x%d %s" % (i, k, op(files[k], rng)))
        except (AssertionError, OSError) as e:
            print("\n".join(history[-30:]))
            print("seed %d operation %d on x%d (%s): %r" % (seed, i, k, op.__name__, e))
            return 1
    for f in files:
        os.close(f.fd)
        with open(f.path, "rb") as again:
            if again.read() != bytes(f.model):
                print("seed %d: %s differs at the end" % (seed, f.path))
                return 1
        os.unlink(f.path)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: exerciser.py DIRECTORY SEED OPERATIONS")
    sys.exit(main())
