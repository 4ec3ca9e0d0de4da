#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads LunFS volumes: a second implementation, written from docs/FORMAT.md alone.

It shows that the format is described completely, and gets files out where nothing else of LunFS
is at hand.  It takes no locks and writes nothing; journals count as if they had been replayed.
Names in capitals are those of FORMAT.md.
"""
import argparse
import os
import stat
import struct
import sys
import time

BLOCK = 4096
UNIT_BLOCKS = 64
SUPER_ADDR = 64 * 1024
DT = {1: 'p', 2: 'c', 4: 'd', 6: 'b', 8: '-', 10: 'l', 12: 's'}
INODE_INLINE, INODE_CHILDREN = 1, 32
META = {'SUPER': 0x53464e4c, 'TAIL': 0x4c544a4c, 'DESC': 0x43444a4c, 'COMMIT': 0x4d434a4c,
        'AG': 0x5047414c, 'BITMAP': 0x5041424c, 'ITABLE': 0x4254494c, 'INODE': 0x444f4e49,
        'MAP_NODE': 0x444e4d4c, 'MAP_LEAF': 0x464c4d4c, 'DIR_NODE': 0x444e444c,
        'DIR_LEAF': 0x464c444c, 'XATTR': 0x5441584c, 'ORPHAN': 0x4e504f4c}


class Damaged(Exception):
    """A block that cannot be believed."""


# ---- CRC32C (Castagnoli), eight bytes at a time ----

def _tables():
    first = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82f63b78 if n & 1 else 0)
        first.append(n)
    tables = [first]
    for _ in range(7):
        tables.append([first[n & 255] ^ n >> 8 for n in tables[-1]])
    return tables


T0, T1, T2, T3, T4, T5, T6, T7 = _tables()


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    whole = len(data) & ~7
    for low, high in struct.iter_unpack('<II', data[:whole]):
        low ^= crc
        crc = (T7[low & 255] ^ T6[low >> 8 & 255] ^ T5[low >> 16 & 255] ^ T4[low >> 24] ^
               T3[high & 255] ^ T2[high >> 8 & 255] ^ T1[high >> 16 & 255] ^ T0[high >> 24])
    for byte in data[whole:]:
        crc = crc >> 8 ^ T0[(crc ^ byte) & 255]
    return crc ^ 0xffffffff


# ---- blocks ----

class Header:
    def __init__(self, block):
        (self.magic, self.crc, self.length, self.birth, self.volume, self.addr, self.owner,
         self.version, self.zero) = struct.unpack_from('<IIII16sQQQ8s', block)


def verify(block, kind, volume, addr, owner, birth=0):
    h = Header(block)
    for what, found, want in (('type', h.magic, META[kind]), ('length', h.length, BLOCK),
                              ('volume', h.volume, volume or h.volume), ('address', h.addr, addr),
                              ('owner', h.owner, owner), ('birth', h.birth, birth),
                              ('zero', h.zero, bytes(8))):
        if found != want:
            raise Damaged(f'block {addr:#x}: {what} is {found!r}, expected {want!r} ({kind})')
    crc = crc32c(block[:4] + bytes(4) + block[8:])
    if h.crc != crc:
        raise Damaged(f'block {addr:#x}: checksum is {h.crc:#x}, expected {crc:#x}')
    return h


def pointer(p):
    """A block pointer: (byte address, birth stamp)."""
    return (p & (1 << 48) - 1) * BLOCK, p >> 48


class Super:
    FIELDS = struct.Struct('<IIQQQ16s64sQIIIIIIQQQQIIQQQQQQ16s16s128sQII')

    def __init__(self, block, addr):
        h = verify(block, 'SUPER', None, addr, 0)
        self.volume, self.version = h.volume, h.version
        (self.format_version, self.block_size, self.compat, self.ro_compat, self.incompat,
         self.volume_id, label, self.size, self.sector, self.caw, self.beat_ms, self.lease_ms,
         self.margin_ms, self.slot_count, self.lock_addr, self.scratch_addr, self.slots_addr,
         self.orphans_addr, self.orphan_blocks, self.ag_count, self.journals_addr,
         self.journal_size, self.ag_addr, self.ag_size, self.root, self.copy_addr, self.hash_key,
         self.machine_id, self.identity, self.created, self.extent_count,
         _) = self.FIELDS.unpack_from(block, 64)
        self.label = label.rstrip(b'\0').decode('utf-8', 'replace')
        if self.format_version != 1 or self.incompat & ~1:
            raise Damaged('the volume needs a newer reader')


class Volume:
    def __init__(self, path):
        self.file = open(path, 'rb', buffering=0)
        self.size = self.file.seek(0, os.SEEK_END)
        self.images = {}
        self.s = self.find_super()
        for slot in range(self.s.slot_count):
            self.read_journal(slot)

    def raw(self, addr, size=BLOCK):
        self.file.seek(addr)
        data = b''
        while len(data) < size:
            more = self.file.read(size - len(data))
            if not more:
                return data + bytes(size - len(data))
            data += more
        return data

    def read(self, addr):
        return self.images.get(addr) or self.raw(addr)

    def find_super(self):
        places = [SUPER_ADDR, self.size // BLOCK * BLOCK - BLOCK]
        places += [self.size // 2 // BLOCK * BLOCK + (i << 20) for i in range(6)]
        best, why = None, None
        for addr in places:
            try:
                s = Super(self.raw(addr), addr)
            except Damaged as e:
                why = why or e
                continue
            if best is None or (s.volume == best.volume and s.version > best.version):
                best = s
        if best is None:
            raise Damaged(f'no superblock: {why}')
        return best

    def block(self, kind, addr, owner, birth=0):
        data = self.read(addr)
        verify(data, kind, self.s.volume, addr, owner, birth)
        return data

    # -- journals --

    def read_journal(self, slot):
        start = self.s.journals_addr + slot * self.s.journal_size
        ring = self.s.journal_size // BLOCK - 2
        tails = []
        for i in (0, 1):
            tail = self.raw(start + i * BLOCK)
            try:
                h = verify(tail, 'TAIL', self.s.volume, start + i * BLOCK, slot)
                tails.append((h.version,) + struct.unpack_from('<QQ', tail, 64))
            except Damaged:
                pass
        if not tails:
            print(f'journal of slot {slot}: no tail can be believed', file=sys.stderr)
            return
        _, sequence, at = max(tails)

        def ring_addr(block):
            return start + (2 + block % ring) * BLOCK

        while True:
            images = self.transaction(slot, ring_addr, at, sequence)
            if images is None:
                return
            self.images.update(images)
            at += len(images.order) + 2
            sequence += 1

    class Images(dict):
        order = ()

    def transaction(self, slot, ring_addr, at, sequence):
        """The images of a transaction that counts, by home address; else None."""
        desc = self.raw(ring_addr(at))
        try:
            h = verify(desc, 'DESC', self.s.volume, ring_addr(at), slot)
            seq, count = struct.unpack_from('<QI', desc, 64)
            if h.version != sequence or seq != sequence or not 1 <= count <= 251:
                return None
            commit = self.raw(ring_addr(at + count + 1))
            h = verify(commit, 'COMMIT', self.s.volume, ring_addr(at + count + 1), slot)
            seq, again, desc_crc = struct.unpack_from('<QII', commit, 64)
            if (h.version, seq, again, desc_crc) != (sequence, sequence, count, crc32c(desc)):
                return None
        except Damaged:
            return None
        images = self.Images()
        images.order = range(count)
        for i in range(count):
            addr, crc = struct.unpack_from('<QI', desc, 80 + 16 * i)
            image = self.raw(ring_addr(at + 1 + i))
            if crc32c(image) != crc:
                return None
            images[addr] = image
        return images

    # -- groups --

    def inodes(self):
        """Every inode in use: its number."""
        for ag in range(self.s.ag_count):
            start = self.s.ag_addr + ag * self.s.ag_size
            head = self.block('AG', start + BLOCK, ag)
            p, = struct.unpack_from('<Q', head, 80)
            while p:
                addr, birth = pointer(p)
                index = self.block('ITABLE', addr, ag, birth)
                p, count = struct.unpack_from('<QI', index, 64)
                for i in range(count):
                    block, used, n = struct.unpack_from('<IHH', index, 80 + 8 * i)
                    for k in range(n):
                        if used >> k & 1:
                            yield start // BLOCK + block + 2 * k


# ---- inodes ----

class Inode:
    FIELDS = struct.Struct('<IIIIIIQQQqqqqQQQQQQIIQQI')

    def __init__(self, volume, ino_id):
        number = ino_id & (1 << 40) - 1
        self.v, self.id, self.number = volume, ino_id, number
        block = volume.block('INODE', (number + 1) * BLOCK, number)
        (self.generation, self.mode, self.uid, self.gid, self.nlink, self.flags, self.rdev,
         self.size, self.blocks, self.atime, self.mtime, self.ctime, self.btime, self.parent,
         self.xattr, self.entries, self.shrink_to, self.image_parent, self.birth_counter,
         self.depth, self.root_count, self.image_children, self.image_limit,
         self.image_rank) = self.FIELDS.unpack_from(block, 64)
        self.root = block[512:]
        if self.generation & 0xffffff != ino_id >> 40 or not self.mode:
            raise Damaged(f'inode {number}: is another one, or free')

    def is_dir(self):
        return stat.S_ISDIR(self.mode)

    # -- directories --

    def names(self):
        """(name, id, type) of each entry."""
        if self.flags & INODE_INLINE:
            yield from self.packed(self.root[:self.root_count])
            return
        yield from self.tree(self.root, self.root_count, self.depth)

    @staticmethod
    def packed(data):
        off = 0
        while off < len(data):
            ino_id, _, kind, length = struct.unpack_from('<QQBB', data, off)
            yield data[off + 18:off + 18 + length], ino_id, kind
            off += 18 + length

    def tree(self, entries, count, depth):
        for i in range(count):
            addr, birth = pointer(struct.unpack_from('<QQ', entries, 16 * i)[1])
            if depth == 1:
                leaf = self.v.block('DIR_LEAF', addr, self.id, birth)
                yield from self.packed(leaf[72:72 + struct.unpack_from('<I', leaf, 64)[0]])
            else:
                node = self.v.block('DIR_NODE', addr, self.id, birth)
                yield from self.tree(node[72:], struct.unpack_from('<I', node, 64)[0], depth - 1)

    # -- contents --

    def entry(self, unit):
        """(first block, blocks, detached, valid) of a unit."""
        data, at = self.root, unit
        if self.depth:
            below = 252 * 504 ** (self.depth - 1)
            if unit // below >= self.root_count:
                return 0, 0, False, 0
            p, = struct.unpack_from('<Q', self.root, 8 * (unit // below))
            at = unit % below
            for height in range(self.depth - 1, -1, -1):
                if not p:
                    return 0, 0, False, 0
                addr, birth = pointer(p)
                data = self.v.block('MAP_NODE' if height else 'MAP_LEAF', addr, self.id, birth)[64:]
                if height:
                    below //= 504
                    p, = struct.unpack_from('<Q', data, 8 * (at // below))
                    at %= below
        elif unit >= self.root_count:
            return 0, 0, False, 0
        word, valid = struct.unpack_from('<QQ', data, 16 * at)
        return word & (1 << 48) - 1, 1 << (word >> 48 & 15), bool(word >> 60 & 1), valid

    def block_at(self, unit, i):
        """Contents of block @i of @unit, None where they are zeros."""
        first, _, detached, valid = self.entry(unit)
        if valid >> i & 1:
            return self.v.raw((first + i) * BLOCK)
        if not self.image_parent or detached:
            return None
        off = (unit * UNIT_BLOCKS + i) * BLOCK
        if off >= self.image_limit:
            return None
        parent = Inode(self.v, self.image_parent)
        data = parent.block_at(unit, i)
        if data and off + BLOCK > parent.size:
            data = data[:max(0, parent.size - off)].ljust(BLOCK, b'\0')
        return data

    def leaves(self, data, count, height, unit):
        """The first unit of each leaf below; depth 0: of the root area."""
        if height == 0:
            yield unit
            return
        for i in range(count):
            p, = struct.unpack_from('<Q', data, 8 * i)
            at = unit + i * 252 * 504 ** (height - 1)
            addr, birth = pointer(p)
            if p and height > 1:
                node = self.v.block('MAP_NODE', addr, self.id, birth)
                yield from self.leaves(node[64:], 504, height - 1, at)
            elif p:
                yield at

    def units(self):
        """Units of which this image, or one below it, may have something."""
        found = set()
        if not self.flags & INODE_INLINE:
            for first in self.leaves(self.root, self.root_count, self.depth, 0):
                found.update(range(first, first + 252))
        if self.image_parent:
            found |= Inode(self.v, self.image_parent).units()
        return found

    def runs(self):
        """(offset, bytes) of everything that is not known to be zeros."""
        if self.flags & INODE_INLINE:
            yield 0, self.root[:self.size]
            return
        for unit in sorted(self.units()):
            if not self.image_parent and not self.entry(unit)[3]:
                continue
            for i in range(UNIT_BLOCKS):
                off = (unit * UNIT_BLOCKS + i) * BLOCK
                data = self.block_at(unit, i) if off < self.size else None
                if data:
                    yield off, data[:self.size - off]

    def contents(self):
        data = bytearray(self.size)
        for off, some in self.runs():
            data[off:off + len(some)] = some
        return bytes(data)

    def xattrs(self):
        if not self.xattr:
            return
        addr, birth = pointer(self.xattr)
        block = self.v.block('XATTR', addr, self.id, birth)
        off, end = 72, 72 + struct.unpack_from('<I', block, 64)[0]
        while off < end:
            value_len, name_len = struct.unpack_from('<HB', block, off)
            yield (block[off + 4:off + 4 + name_len].decode('utf-8', 'replace'),
                   block[off + 4 + name_len:off + 4 + name_len + value_len])
            off += 4 + name_len + value_len


# ---- commands ----

def lookup(v, path):
    ino = Inode(v, v.s.root)
    for part in [p for p in os.fsencode(path).split(b'/') if p]:
        for name, ino_id, _ in ino.names() if ino.is_dir() else ():
            if name == part:
                ino = Inode(v, ino_id)
                break
        else:
            raise SystemExit(f'lunfs-reader: {path}: {os.fsdecode(part)} is not there')
    return ino


def walk(v, ino, path, recursive):
    for name, ino_id, kind in sorted(ino.names()):
        child = Inode(v, ino_id)
        yield path + name, child, kind
        if recursive and child.is_dir():
            yield from walk(v, child, path + name + b'/', True)


def cmd_info(v, _):
    s = v.s
    print(f'label: {s.label}\nvolume: {s.volume_id.hex()}\nsize: {s.size} bytes\n'
          f'slots: {s.slot_count}\ngroups: {s.ag_count} of {s.ag_size} bytes\n'
          f'inodes: {sum(1 for _ in v.inodes())}\njournalled: {len(v.images)} blocks')


def cmd_ls(v, args):
    ino = lookup(v, args.path)
    for path, child, kind in walk(v, ino, b'', args.recursive):
        when = time.strftime('%Y-%m-%d %H:%M', time.gmtime(child.mtime / 1e9))
        print(f'{DT.get(kind, "?")}{child.mode & 0o7777:04o} {child.nlink} {child.uid} '
              f'{child.gid} {child.size} {when} {os.fsdecode(path)}')


def cmd_cat(v, args):
    sys.stdout.buffer.write(lookup(v, args.path).contents())


def save(ino, to):
    with open(to, 'xb') as f:
        for off, data in ino.runs():
            f.seek(off)
            f.write(data)
        f.truncate(ino.size)


def cmd_get(v, args):
    """A file, or a directory with everything below it."""
    ino = lookup(v, args.path)
    if not ino.is_dir():
        save(ino, args.to)
        return
    os.makedirs(args.to)
    for path, child, _ in walk(v, ino, b'', True):
        to = os.path.join(os.fsencode(args.to), path)
        if child.is_dir():
            os.mkdir(to)
        elif stat.S_ISREG(child.mode):
            save(child, to)
        elif stat.S_ISLNK(child.mode):
            os.symlink(child.contents(), to)
        else:
            print(f'{os.fsdecode(path)}: left out, it has no contents', file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(prog='lunfs-reader.py', description=__doc__.split('\n')[0])
    commands = parser.add_subparsers(dest='command', required=True)
    for name, fn, extra in (('info', cmd_info, ()), ('ls', cmd_ls, ('path',)),
                            ('cat', cmd_cat, ('path',)), ('get', cmd_get, ('path', 'to'))):
        sub = commands.add_parser(name, help=fn.__doc__)
        sub.add_argument('volume', help='file or block device')
        for arg in extra:
            sub.add_argument(arg, **({'nargs': '?', 'default': '/'} if name == 'ls' else {}))
        if name == 'ls':
            sub.add_argument('-R', '--recursive', action='store_true')
        sub.set_defaults(fn=fn)
    args = parser.parse_args()
    try:
        args.fn(Volume(args.volume), args)
    except Damaged as e:
        raise SystemExit(f'lunfs-reader: {args.volume}: {e}')
    except OSError as e:
        raise SystemExit(f'lunfs-reader: {e}')


if __name__ == '__main__':
    main()
