#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A load whose acknowledged fsyncs can be checked after a crash.

verify_load.py write DIRECTORY LEDGER SEED SECONDS
    Writes stamped blocks into files of DIRECTORY, renames and deletes some, and notes in LEDGER
    (which lies elsewhere) each attempt before it and each acknowledgement after it.  Ends
    quietly when the mount dies under it.
verify_load.py check DIRECTORY LEDGER
    What was acknowledged must be there; what was only attempted may be; nothing else may.
"""
import os
import random
import struct
import sys
import time
import zlib

BLOCK = 4096
FILES = 6
BLOCKS = 64


def stamp(name, block, seq):
    body = struct.pack("<16sQQ", name.encode(), block, seq) * 128
    body = body[:BLOCK - 4]
    return body + struct.pack("<I", zlib.crc32(body))


def read_stamp(data, name, block):
    """The sequence number in a block; 0 for zeros; AssertionError for anything else."""
    if not any(data):
        return 0
    assert len(data) == BLOCK, "%s block %d: short" % (name, block)
    assert zlib.crc32(data[:-4]) == struct.unpack("<I", data[-4:])[0], \
        "%s block %d: torn or foreign" % (name, block)
    got_name, got_block, seq = struct.unpack("<16sQQ", data[:32])
    assert got_name.rstrip(b"\0").decode() == name and got_block == block, \
        "%s block %d: holds %r block %d" % (name, block, got_name, got_block)
    return seq


def write_load(directory, ledger, seed, seconds):
    rng = random.Random(seed)
    log = open(ledger, "w", buffering=1)
    seq = 0
    end = time.time() + seconds
    while time.time() < end:
        name = "f%d" % rng.randrange(FILES)
        path = os.path.join(directory, name)
        blocks = rng.sample(range(BLOCKS), rng.randrange(1, 5))
        seq += 1
        for b in blocks:
            log.write("try %s %d %d\n" % (name, b, seq))
        fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        for b in blocks:
            os.pwrite(fd, stamp(name, b, seq), b * BLOCK)
        os.fsync(fd)
        os.close(fd)
        for b in blocks:
            log.write("ack %s %d %d\n" % (name, b, seq))
        # Names: made, renamed over each other and removed, and durable by fsync of the file.
        if rng.random() < 0.3:
            extra = os.path.join(directory, "n%d" % rng.randrange(10))
            with open(extra, "w") as f:
                f.write("n%d" % seq)
                f.flush()
            if rng.random() < 0.5:
                os.rename(extra, os.path.join(directory, "n%d" % rng.randrange(10)))
            elif rng.random() < 0.5:
                os.unlink(extra)
    log.write("end\n")


def check(directory, ledger):
    acked, tried = {}, {}
    with open(ledger) as f:
        for line in f:
            word = line.split()
            if len(word) == 4:
                key = (word[1], int(word[2]))
                (acked if word[0] == "ack" else tried)[key] = int(word[3])
    blocks = 0
    for name in sorted({k[0] for k in tried}):
        path = os.path.join(directory, name)
        if not os.path.exists(path):
            assert not any(k[0] == name for k in acked), "%s is gone" % name
            continue
        with open(path, "rb") as f:
            data = f.read()
        for b in range(BLOCKS):
            piece = data[b * BLOCK:(b + 1) * BLOCK]
            got = read_stamp(piece, name, b) if piece else 0
            low, high = acked.get((name, b), 0), tried.get((name, b), 0)
            assert low <= got <= high, "%s block %d: has write %d, acknowledged %d, tried %d" % (
                name, b, got, low, high)
            blocks += 1
    print("checked %d blocks, %d acknowledged writes" % (blocks, len(acked)))


def main():
    if sys.argv[1] == "write":
        try:
            write_load(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
        except OSError as e:
            print("ended by: %s" % e)
            return 3
        return 0
    check(sys.argv[2], sys.argv[3])
    return 0


if __name__ == "__main__":
    sys.exit(main())
