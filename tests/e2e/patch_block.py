#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""patch_block.py DEVICE ADDRESS OFFSET HEX [--no-seal]: changes bytes of a metadata block and,
unless told not to, seals it again with a right checksum (FORMAT.md, "Block header")."""
import struct
import sys


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def main():
    path, addr, off = sys.argv[1], int(sys.argv[2], 0), int(sys.argv[3], 0)
    new = bytes.fromhex(sys.argv[4])
    with open(path, "r+b") as f:
        f.seek(addr)
        block = bytearray(f.read(4096))
        block[off:off + len(new)] = new
        if "--no-seal" not in sys.argv:
            length = struct.unpack_from("<I", block, 8)[0]
            block[4:8] = bytes(4)
            block[4:8] = struct.pack("<I", crc32c(block[:length]))
        f.seek(addr)
        f.write(block)


main()
