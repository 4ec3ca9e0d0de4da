#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What Linux's own filesystems do and few programs think of, but suites and attackers do (see frame.py).

linux.py DIRECTORY [test …]
"""
import ctypes
import errno
import mmap
import os
import stat
import struct
import time

from frame import (ALICE, STAFF, BOB, as_user, content, expect, libc, main, refuses, since, test, touch)

AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = 0x400, 0x1000
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)    # version 2, effective: CAP_NET_BIND_SERVICE


def page(byte):
    m = mmap.mmap(-1, 4096)
    m.write(byte * 4096)
    return m


def link_of(fd, path):
    """Gives what fd has open the name path."""
    if libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, path.encode(), AT_SYMLINK_FOLLOW):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


# ---- files without a name ----

@test
@since(6, 2)
def o_tmpfile_makes_a_file_without_a_name(d):
    os.umask(0o027)
    fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o666)
    s = os.fstat(fd)
    expect((stat.S_IMODE(s.st_mode), s.st_nlink) == (0o640, 0), "%o %d" % (s.st_mode, s.st_nlink))
    expect(os.listdir(".") == [], "it shows")
    os.write(fd, b"x" * 300000)
    expect(os.pread(fd, 10, 299990) == b"x" * 10)
    link_of(fd, "name")
    expect(os.fstat(fd).st_nlink == 1 and content("name") == b"x" * 300000)
    refuses(errno.EEXIST, link_of, fd, "name")
    os.close(fd)
    expect(os.listdir(".") == ["name"] and os.stat("name").st_size == 300000)


@test
@since(6, 2)
def o_tmpfile_follows_the_directory(d):
    """Group and default ACL as for a name; who may not write there may make none."""
    os.mkdir("g")
    os.chown("g", 0, STAFF)
    os.chmod("g", 0o2755)
    expect(os.system("setfacl -d -m u:%d:rw g" % ALICE) == 0)
    fd = os.open("g", os.O_TMPFILE | os.O_RDWR, 0o666)
    link_of(fd, "g/name")
    os.close(fd)
    expect(os.stat("g/name").st_gid == STAFF)
    expect("user:%d:rw" % ALICE in os.popen("getfacl -cpn g/name").read())
    as_user(BOB, BOB, [], lambda: refuses(errno.EACCES, os.open, "g", os.O_TMPFILE | os.O_RDWR, 0o600))


@test
@since(6, 2)
def o_tmpfile_gets_a_name_only_if_it_may_and_had_none(d):
    fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_EXCL, 0o600)
    refuses(errno.ENOENT, link_of, fd, "a")
    os.close(fd)
    fd = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600)
    link_of(fd, "b")
    os.unlink("b")
    refuses(errno.ENOENT, link_of, fd, "c")
    os.close(fd)
    expect(os.listdir(".") == [])


@test
def o_path_shows_what_has_no_name_any_more(d):
    touch("f", 0o640, b"12345")
    os.symlink("target", "l")
    touch("new")
    touch("replaced", 0o600, b"1")
    os.mkdir("dir")
    fds = [os.open(name, os.O_PATH | os.O_NOFOLLOW) for name in ("f", "l", "replaced", "dir")]
    os.unlink("f")
    os.unlink("l")
    os.rename("new", "replaced")
    os.rmdir("dir")
    for i in range(600):        # others come and go meanwhile
        touch("x%d" % i)
        os.unlink("x%d" % i)
    time.sleep(0.6)             # longer than anybody believes what he knew
    found = [(oct(s.st_mode), s.st_nlink, s.st_size) for s in map(os.fstat, fds[:3])]
    expect(found == [("0o100640", 0, 5), ("0o120777", 0, 6), ("0o100600", 0, 1)], repr(found))
    expect(stat.S_ISDIR(os.fstat(fds[3]).st_mode) and os.fstat(fds[3]).st_nlink == 0)


# ---- what a write takes away ----

@test
def file_capabilities_go_with_a_write(d):
    """Whatever way it takes, and whoever writes: else what is appended runs with them."""
    os.chmod(".", 0o777)

    def write(flags):
        fd = os.open("f", os.O_WRONLY | flags)
        os.writev(fd, [page(b"y")])
        os.close(fd)

    def user_writes(uid, flags):
        touch("f", 0o777, b"x" * 8192)
        os.setxattr("f", "user.other", b"stays")
        os.setxattr("f", "security.capability", CAPABILITY)
        as_user(uid, uid, [], lambda: write(flags))
        expect(os.listxattr("f") == ["user.other"], "uid %d flags %#o: %r" % (uid, flags, os.listxattr("f")))
        write(flags)        # again, by who knows that there are none
        os.setxattr("f", "security.capability", CAPABILITY)
        write(flags)
        expect(os.listxattr("f") == ["user.other"], "again")
    for uid in (0, ALICE):
        for flags in (0, os.O_APPEND, os.O_DIRECT, os.O_DSYNC, os.O_TRUNC, os.O_TRUNC | os.O_DIRECT):
            user_writes(uid, flags)
        os.unlink("f")
        touch("f", 0o777, b"x")
        os.setxattr("f", "security.capability", CAPABILITY)
        as_user(uid, uid, [], lambda: os.close(os.open("f", os.O_WRONLY | os.O_TRUNC)))
        expect(os.listxattr("f") == [], "truncated by uid %d" % uid)


@test
def an_acl_of_who_is_not_in_the_group_takes_setgid_away(d):
    """CVE-2016-7097."""
    acl = struct.pack("<IHHIHHIHHI", 2, 1, 7, 0xffffffff, 4, 5, 0xffffffff, 32, 5, 0xffffffff)

    def mode_after(uid, groups):
        touch("f")
        os.chown("f", ALICE, STAFF)
        os.chmod("f", 0o2755)
        as_user(uid, uid, groups, lambda: os.setxattr("f", "system.posix_acl_access", acl))
        return stat.S_IMODE(os.stat("f").st_mode)
    os.chmod(".", 0o777)
    expect(mode_after(ALICE, []) == 0o755, "no member")
    expect(mode_after(ALICE, [STAFF]) == 0o2755, "a member")
    expect(mode_after(0, []) == 0o2755, "root")
    os.setxattr("f", "user.a", b"1")
    expect(stat.S_IMODE(os.stat("f").st_mode) == 0o2755 and os.getxattr("f", "user.a") == b"1")


# ---- mappings ----

@test
@since(6, 6)
def files_opened_past_the_cache_can_be_mapped(d):
    for flags in (os.O_APPEND, os.O_DIRECT):
        touch("f", data=b"a" * 10000)
        fd = os.open("f", os.O_RDWR | flags)
        m = mmap.mmap(fd, 10000)
        expect(m[9999] == ord("a"))
        m[5000:5005] = b"hello"
        m.flush()
        expect(content("f")[4999:5006] == b"ahelloa", "flags %#o" % flags)
        m.close()
        os.close(fd)
        expect(content("f") == b"a" * 5000 + b"hello" + b"a" * 4995)


@test
@since(6, 6)
def a_mapping_and_direct_io_see_each_other(d):
    touch("f", data=b"a" * 65536)
    fd, direct = os.open("f", os.O_RDWR), os.open("f", os.O_RDWR | os.O_DIRECT)
    append = os.open("f", os.O_WRONLY | os.O_APPEND)
    m = mmap.mmap(fd, 65536)
    m[4096:4100] = b"DIRT"          # not flushed
    back = page(b"?")
    os.preadv(direct, [back], 4096)
    expect(back[:5] == b"DIRTa", repr(back[:5]))
    m[8192:8196] = b"lost"
    os.pwritev(direct, [page(b"W")], 8192)
    expect(m[8191:8194] == b"aWW" and os.pread(fd, 2, 8192) == b"WW", "written under a mapping")
    m[65535] = ord("z")
    os.write(append, b"tail")
    expect(os.pread(fd, 10, 65534) == b"aztail", repr(os.pread(fd, 10, 65534)))
    m.close()
    for each in (fd, direct, append):
        os.close(each)
    expect(content("f")[65534:] == b"aztail" and content("f")[4096:4100] == b"DIRT")


# ---- times ----

@test
def times_beyond_what_is_kept_do_not_wrap(d):
    """Stored as near as can be, like everywhere: not as another time of ours."""
    class Timespec(ctypes.Structure):
        _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]

    def set_times(sec):
        expect(libc.utimensat(-100, b"f", ctypes.byref((Timespec * 2)(Timespec(sec, 0), Timespec(sec, 0))), 0) == 0)
        return os.popen("stat -c '%X %Y' f").read().split()
    touch("f")
    for bits in (31, 32, 33):       # years 2038 to 2242
        expect(set_times(1 << bits) == [str(1 << bits)] * 2, "2^%d" % bits)
    for bits in (34, 35, 40, 62):
        for at in set_times(1 << bits):
            expect(1 << 33 <= int(at) <= 1 << bits, "2^%d became %s" % (bits, at))
        for at in set_times(-(1 << bits)):
            expect(-(1 << bits) <= int(at) <= -(1 << 31), "-2^%d became %s" % (bits, at))
    os.utime("f")
    expect(abs(os.stat("f").st_mtime - time.time()) < 60)


if __name__ == "__main__":
    main("linux.py")
