#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What POSIX and Linux promise of a filesystem, asked of the directory given as argument (see frame.py).

posix.py DIRECTORY [test …]
"""
import ctypes
import errno
import fcntl
import mmap
import os
import shutil
import socket
import stat
import time

from frame import (ALICE, BOB, STAFF, Failure, as_user, content, expect, later, libc, main, refuses,
                   renameat2, test, times, touch)


# ---- creation ----

@test
def open_creates_with_mode_and_umask(d):
    os.umask(0o027)
    fd = os.open("f", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o777)
    os.close(fd)
    os.mkdir("dir", 0o777)
    os.mkfifo("fifo", 0o777)
    os.umask(0)
    expect(stat.S_IMODE(os.stat("f").st_mode) == 0o750)
    expect(stat.S_IMODE(os.stat("dir").st_mode) == 0o750)
    expect(stat.S_IMODE(os.stat("fifo").st_mode) == 0o750)
    refuses(errno.EEXIST, os.open, "f", os.O_CREAT | os.O_EXCL)


@test
def new_objects_belong_to_their_maker(d):
    os.chmod(".", 0o777)

    def make():
        touch("f")
        os.mkdir("dir")
        os.symlink("x", "link")
    as_user(ALICE, STAFF, [], make)
    for name in ("f", "dir", "link"):
        s = os.lstat(name)
        expect((s.st_uid, s.st_gid) == (ALICE, STAFF), name)


@test
def setgid_directory_hands_its_group_down(d):
    os.mkdir("dir")
    os.chown("dir", 0, STAFF)
    os.chmod("dir", 0o2777)

    def make():
        touch("dir/f")
        os.mkdir("dir/sub")
    as_user(ALICE, ALICE, [], make)
    expect(os.stat("dir/f").st_gid == STAFF)
    expect(os.stat("dir/sub").st_gid == STAFF)
    expect(os.stat("dir/sub").st_mode & stat.S_ISGID)


@test
def creation_moves_times_of_parent(d):
    os.mkdir("p")
    later(["p"], lambda: touch("p/f"), "mc")
    later(["p"], lambda: os.mkdir("p/d"), "mc")
    later(["p"], lambda: os.symlink("x", "p/l"), "mc")
    later(["p"], lambda: os.mkfifo("p/fifo"), "mc")
    later(["p", "p/f"], lambda: os.link("p/f", "p/g"), "c")
    later(["p"], lambda: os.unlink("p/g"), "mc")
    later(["p/f"], lambda: os.link("p/f", "p/g"), "c")
    later(["p/f"], lambda: os.unlink("p/g"), "c")
    later(["p"], lambda: os.rmdir("p/d"), "mc")


@test
def device_nodes_fifos_and_sockets_keep_their_type(d):
    os.mknod("c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod("b", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    os.mkfifo("p")
    s = socket.socket(socket.AF_UNIX)
    s.bind("s")
    expect(stat.S_ISCHR(os.stat("c").st_mode) and os.stat("c").st_rdev == os.makedev(1, 3))
    expect(stat.S_ISBLK(os.stat("b").st_mode) and os.stat("b").st_rdev == os.makedev(7, 300))
    expect(stat.S_ISFIFO(os.stat("p").st_mode))
    expect(stat.S_ISSOCK(os.stat("s").st_mode))
    types = {e.name: e for e in os.scandir(".")}
    expect(sorted(types) == ["b", "c", "p", "s"])
    r = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    w = os.open("p", os.O_WRONLY)
    os.write(w, b"through")
    expect(os.read(r, 10) == b"through")
    for name in types:
        os.unlink(name)


@test
def names_are_bytes_up_to_255(d):
    for name in (b"x" * 255, b"\xff\xfe \n\t", "Ünï-☃".encode(), b"..."):
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
        expect(name in os.listdir(b"."), repr(name))
        os.unlink(name)
    long = "y" * 256
    refuses(errno.ENAMETOOLONG, os.open, long, os.O_CREAT | os.O_WRONLY)
    refuses(errno.ENAMETOOLONG, os.mkdir, long)
    refuses(errno.ENAMETOOLONG, os.symlink, "x", long)
    refuses(errno.ENAMETOOLONG, os.stat, long)
    touch("f")
    refuses(errno.ENAMETOOLONG, os.rename, "f", long)
    refuses(errno.ENAMETOOLONG, os.link, "f", long)
    refuses(errno.ENAMETOOLONG, os.unlink, long)


@test
def missing_and_wrong_components_are_told_apart(d):
    touch("f")
    for fn in (os.stat, os.mkdir, os.rmdir, os.unlink, os.listdir, os.readlink):
        refuses(errno.ENOENT, fn, "none/x")
        refuses(errno.ENOTDIR, fn, "f/x")
    refuses(errno.ENOENT, os.open, "none", os.O_RDONLY)
    refuses(errno.ENOTDIR, os.open, "f", os.O_RDONLY | os.O_DIRECTORY)
    refuses(errno.EISDIR, os.open, ".", os.O_WRONLY)
    refuses(errno.EINVAL, os.readlink, "f")


# ---- links and removal ----

@test
def hard_links_share_one_inode(d):
    touch("a", data=b"one")
    os.link("a", "b")
    sa, sb = os.stat("a"), os.stat("b")
    expect(sa.st_ino == sb.st_ino and sa.st_nlink == 2)
    with open("b", "ab") as f:
        f.write(b"two")
    expect(content("a") == b"onetwo")
    os.unlink("a")
    expect(os.stat("b").st_nlink == 1 and content("b") == b"onetwo")
    os.mkdir("dir")
    refuses(errno.EPERM, os.link, "dir", "dir2")
    refuses(errno.EEXIST, os.link, "b", "dir")
    refuses(errno.ENOENT, os.link, "none", "x")


@test
def links_of_links_survive_renames_of_each_name(d):
    os.mkdir("x")
    touch("a", data=b"z")
    os.link("a", "x/b")
    os.link("a", "c")
    os.rename("a", "x/a2")
    os.unlink("x/b")
    os.rename("c", "c2")
    expect(os.stat("c2").st_nlink == 2 and content("x/a2") == b"z")
    os.unlink("x/a2")
    os.unlink("c2")
    os.rmdir("x")
    expect(os.listdir(".") == [])


@test
def an_unlinked_open_file_lives_until_its_close(d):
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o600)
    os.write(fd, b"still here")
    os.unlink("f")
    expect(os.fstat(fd).st_nlink == 0)
    expect(os.pread(fd, 100, 0) == b"still here")
    os.pwrite(fd, b"x" * 300000, 1000000)
    expect(os.fstat(fd).st_size == 1300000)
    os.ftruncate(fd, 5)
    expect(os.pread(fd, 100, 0) == b"still")
    touch("f", data=b"new")
    expect(content("f") == b"new")
    os.close(fd)


@test
def unlink_and_rmdir_refuse_the_wrong_kind(d):
    os.mkdir("dir")
    touch("dir/f")
    refuses(errno.EISDIR, os.unlink, "dir")
    refuses(errno.ENOTDIR, os.rmdir, "dir/f")
    refuses((errno.ENOTEMPTY, errno.EEXIST), os.rmdir, "dir")
    refuses(errno.EINVAL, os.rmdir, "dir/.")
    refuses((errno.ENOTEMPTY, errno.EEXIST), os.rmdir, "dir/..")
    refuses(errno.ENOENT, os.unlink, "none")
    os.unlink("dir/f")
    os.rmdir("dir")


@test
def directory_link_count_counts_subdirectories(d):
    os.mkdir("p")
    expect(os.stat("p").st_nlink == 2)
    os.mkdir("p/a")
    os.mkdir("p/b")
    expect(os.stat("p").st_nlink == 4)
    os.mkdir("q")
    os.rename("p/a", "q/a")
    expect((os.stat("p").st_nlink, os.stat("q").st_nlink) == (3, 3))
    os.rmdir("p/b")
    expect(os.stat("p").st_nlink == 2)


@test
def what_is_open_keeps_its_attributes_without_a_name(d):
    """A shell's `mkfifo p; exec 3<>p; rm p`; a directory replaced by rename."""
    os.mkfifo("p", 0o640)
    os.mknod("c", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    fds = [os.open("p", os.O_RDWR), os.open("c", os.O_RDWR)]
    os.unlink("p")
    os.mknod("x", stat.S_IFREG)
    os.rename("x", "c")
    os.mkdir("old")
    os.mkdir("new")
    fds.append(os.open("old", os.O_RDONLY))
    os.rename("new", "old")
    time.sleep(0.6)     # longer than anybody believes what he knew
    kinds = [stat.S_IFMT(os.fstat(fd).st_mode) for fd in fds]
    expect(kinds == [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR], repr(kinds))
    expect([os.fstat(fd).st_nlink for fd in fds] == [0, 0, 0])
    expect(os.listdir(fds[2]) == [])
    refuses(errno.ENOENT, os.mkdir, "sub", dir_fd=fds[2])
    for fd in fds:
        os.close(fd)


@test
def a_removed_directory_takes_no_new_names(d):
    os.mkdir("dir")
    fd = os.open("dir", os.O_RDONLY)
    os.rmdir("dir")
    refuses(errno.ENOENT, os.open, "f", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
    refuses(errno.ENOENT, os.mkdir, "f", dir_fd=fd)
    expect(os.listdir(fd) == [])
    os.close(fd)


# ---- symbolic links ----

@test
def symlinks_keep_their_target_whatever_its_length(d):
    for n in (1, 59, 60, 61, 255, 1000, 3500, 3600, 4095):
        target = "t" * n
        os.symlink(target, "l%d" % n)
        expect(os.readlink("l%d" % n) == target, "length %d" % n)
        expect(os.lstat("l%d" % n).st_size == n)
        expect(stat.S_ISLNK(os.lstat("l%d" % n).st_mode))
    refuses(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "l")
    refuses(errno.EEXIST, os.symlink, "x", "l1")


@test
def symlink_loops_end_with_eloop(d):
    os.symlink("b", "a")
    os.symlink("a", "b")
    refuses(errno.ELOOP, os.stat, "a")
    refuses(errno.ELOOP, os.open, "a", os.O_RDONLY)
    refuses(errno.ELOOP, os.open, "a", os.O_RDONLY | os.O_NOFOLLOW)
    os.symlink(".", "self")
    expect(os.path.isdir("self/self/self"))


# ---- rename ----

@test
def rename_replaces_atomically_and_keeps_the_source(d):
    touch("a", data=b"A")
    touch("b", data=b"B")
    ino = os.stat("a").st_ino
    os.rename("a", "b")
    expect(os.stat("b").st_ino == ino and content("b") == b"A" and os.listdir(".") == ["b"])
    os.rename("b", "b")
    expect(content("b") == b"A")
    os.link("b", "c")
    os.rename("b", "c")
    expect(sorted(os.listdir(".")) == ["b", "c"], "same file: rename does nothing")


@test
def rename_refuses_wrong_kinds_and_loops(d):
    os.makedirs("d1/sub")
    os.mkdir("d2")
    os.mkdir("full")
    touch("full/f")
    touch("f")
    refuses(errno.EISDIR, os.rename, "f", "d2")
    refuses(errno.ENOTDIR, os.rename, "d2", "f")
    refuses((errno.ENOTEMPTY, errno.EEXIST), os.rename, "d2", "full")
    refuses(errno.EINVAL, os.rename, "d1", "d1/sub/x")
    refuses(errno.EINVAL, os.rename, "d1", "d1/x")
    refuses((errno.ENOTEMPTY, errno.EEXIST), os.rename, "d1/sub", "d1")
    refuses(errno.ENOENT, os.rename, "none", "x")
    refuses((errno.EBUSY, errno.EINVAL), os.rename, "d1/.", "x")
    os.rename("d1", "d2")
    expect(os.listdir("d2") == ["sub"])


@test
def rename_across_directories_moves_parents_and_dotdot(d):
    os.makedirs("p/child")
    os.mkdir("q")
    later(["p", "q"], lambda: os.rename("p/child", "q/child"), "mc")
    expect(os.stat("q/child/..").st_ino == os.stat("q").st_ino)
    touch("q/child/f")
    before = times("q/child/f")
    time.sleep(0.02)
    os.rename("q/child/f", "p/f")
    expect(times("p/f")[2] > before[2], "ctime of the renamed file")


@test
def rename_over_an_open_file_keeps_its_contents_for_the_opener(d):
    touch("old", data=b"old")
    touch("new", data=b"new")
    fd = os.open("old", os.O_RDONLY)
    os.rename("new", "old")
    expect(os.read(fd, 10) == b"old" and content("old") == b"new")
    os.close(fd)


@test
def rename_noreplace_and_exchange(d):
    touch("a", data=b"A")
    touch("b", data=b"B")
    os.mkdir("dir")
    refuses(errno.EEXIST, renameat2, "a", "b", 1)
    renameat2("a", "c", 1)
    renameat2("c", "b", 2)
    expect(content("c") == b"B" and content("b") == b"A")
    renameat2("c", "dir", 2)
    expect(os.path.isdir("c") and content("dir") == b"B")
    refuses(errno.ENOENT, renameat2, "b", "none", 2)


# ---- permissions ----

@test
def permission_bits_are_enforced_by_owner_group_and_other(d):
    os.chmod(".", 0o755)
    touch("f", 0o640, b"secret")
    os.chown("f", ALICE, STAFF)
    as_user(ALICE, ALICE, [], lambda: os.close(os.open("f", os.O_RDWR)))
    as_user(BOB, BOB, [STAFF], lambda: os.close(os.open("f", os.O_RDONLY)))
    as_user(BOB, BOB, [STAFF], lambda: refuses(errno.EACCES, os.open, "f", os.O_RDWR))
    as_user(BOB, BOB, [], lambda: refuses(errno.EACCES, os.open, "f", os.O_RDONLY))
    os.chmod("f", 0o004)
    as_user(ALICE, STAFF, [], lambda: refuses(errno.EACCES, os.open, "f", os.O_RDONLY))
    as_user(BOB, BOB, [], lambda: os.close(os.open("f", os.O_RDONLY)))


@test
def search_permission_is_needed_on_every_directory(d):
    os.makedirs("p/q")
    touch("p/q/f")
    os.chmod("p/q", 0o755)
    os.chmod("p", 0o744)
    as_user(ALICE, ALICE, [], lambda: refuses(errno.EACCES, os.stat, "p/q/f"))
    as_user(ALICE, ALICE, [], lambda: os.listdir("p"))
    os.chmod("p", 0o711)
    as_user(ALICE, ALICE, [], lambda: os.stat("p/q/f"))
    as_user(ALICE, ALICE, [], lambda: refuses(errno.EACCES, os.listdir, "p"))
    as_user(ALICE, ALICE, [], lambda: refuses(errno.EACCES, touch, "p/new"))
    as_user(ALICE, ALICE, [], lambda: refuses(errno.EACCES, os.unlink, "p/q/f"))


@test
def sticky_directory_protects_other_peoples_names(d):
    os.mkdir("tmp")
    os.chmod("tmp", 0o1777)
    as_user(ALICE, ALICE, [], lambda: (touch("tmp/a", 0o666), os.mkdir("tmp/ad", 0o777)))
    as_user(BOB, BOB, [], lambda: touch("tmp/b"))

    def bob():
        refuses((errno.EPERM, errno.EACCES), os.unlink, "tmp/a")
        refuses((errno.EPERM, errno.EACCES), os.rmdir, "tmp/ad")
        refuses((errno.EPERM, errno.EACCES), os.rename, "tmp/a", "tmp/stolen")
        refuses((errno.EPERM, errno.EACCES), os.rename, "tmp/b", "tmp/a")
        os.rename("tmp/b", "tmp/b2")
        os.unlink("tmp/b2")
    as_user(BOB, BOB, [], bob)
    as_user(ALICE, ALICE, [], lambda: os.unlink("tmp/a"))


@test
def only_owner_and_root_change_mode_owner_and_times(d):
    os.chmod(".", 0o777)
    touch("f", 0o666)
    os.chown("f", ALICE, ALICE)

    def bob():
        refuses(errno.EPERM, os.chmod, "f", 0o600)
        refuses(errno.EPERM, os.chown, "f", BOB, -1)
        refuses(errno.EPERM, os.utime, "f", (1, 1))
        os.utime("f")

    def alice():
        os.chmod("f", 0o606)
        refuses(errno.EPERM, os.chown, "f", BOB, -1)
        refuses(errno.EPERM, os.chown, "f", -1, BOB)
        os.chown("f", -1, STAFF)
        os.utime("f", ns=(5, 1234567890123456789))
    as_user(BOB, BOB, [], bob)
    as_user(ALICE, ALICE, [STAFF], alice)
    s = os.stat("f")
    expect((s.st_gid, stat.S_IMODE(s.st_mode), s.st_mtime_ns) ==
           (STAFF, 0o606, 1234567890123456789))


@test
def set_id_bits_are_cleared_by_write_and_chown(d):
    os.chmod(".", 0o777)
    touch("f", 0o777)
    os.chown("f", ALICE, STAFF)
    os.chmod("f", 0o6777)

    def write():
        fd = os.open("f", os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)
    as_user(BOB, BOB, [], write)
    expect(stat.S_IMODE(os.stat("f").st_mode) == 0o777, oct(os.stat("f").st_mode))
    os.chmod("f", 0o6777)
    as_user(BOB, BOB, [], lambda: os.truncate("f", 0))
    expect(stat.S_IMODE(os.stat("f").st_mode) == 0o777, "truncate")
    # Past the kernel's cache, too, and by the truncation of an open.
    page = mmap.mmap(-1, 4096)

    def past_cache(flags):
        fd = os.open("f", os.O_WRONLY | flags)
        os.writev(fd, [page])
        os.close(fd)
    for flags in (os.O_APPEND, os.O_DIRECT, os.O_DIRECT, os.O_TRUNC | os.O_DIRECT):
        os.chmod("f", 0o6777)
        as_user(BOB, BOB, [], lambda: past_cache(flags))
        expect(stat.S_IMODE(os.stat("f").st_mode) == 0o777, "flags %#o" % flags)
    os.chmod("f", 0o6777)
    as_user(BOB, BOB, [], lambda: os.close(os.open("f", os.O_RDONLY | os.O_TRUNC)))
    expect(stat.S_IMODE(os.stat("f").st_mode) == 0o777, "O_TRUNC")
    os.chmod("f", 0o6755)
    as_user(ALICE, ALICE, [STAFF, ALICE], lambda: os.chown("f", -1, STAFF))
    expect(not os.stat("f").st_mode & stat.S_ISUID, "chown")
    as_user(ALICE, ALICE, [], lambda: os.chmod("f", 0o2755))
    expect(not os.stat("f").st_mode & stat.S_ISGID, "setgid of a foreign group")


@test
def access_follows_supplementary_groups(d):
    os.mkdir("g")
    os.chown("g", 0, STAFF)
    os.chmod("g", 0o770)
    as_user(BOB, BOB, [STAFF], lambda: touch("g/f"))
    as_user(BOB, BOB, [], lambda: refuses(errno.EACCES, os.stat, "g/f"))
    as_user(ALICE, ALICE, [STAFF], lambda: os.unlink("g/f"))


@test
def posix_acls_grant_and_inherit(d):
    os.chmod(".", 0o755)
    touch("f", 0o600, b"x")
    if os.system("setfacl -m u:%d:rw f" % ALICE):
        raise Failure("setfacl")
    as_user(ALICE, ALICE, [], lambda: os.close(os.open("f", os.O_RDWR)))
    as_user(BOB, BOB, [], lambda: refuses(errno.EACCES, os.open, "f", os.O_RDONLY))
    expect(stat.S_IMODE(os.stat("f").st_mode) == 0o660, "mask shows as group bits")
    os.mkdir("dir", 0o700)
    expect(os.system("setfacl -d -m u:%d:rwx,g::- dir" % ALICE) == 0)
    os.umask(0o077)
    touch_fd = os.open("dir/new", os.O_CREAT | os.O_WRONLY, 0o666)
    os.close(touch_fd)
    os.mkdir("dir/sub", 0o777)
    os.umask(0)
    text = os.popen("getfacl -cpn dir/new").read()
    expect("user:%d:rw" % ALICE in text, "default ACL inherited: " + text)
    expect("default:user:%d:rwx" % ALICE in os.popen("getfacl -cpn dir/sub").read())


# ---- data ----

@test
def a_sparse_file_reads_zeros_and_takes_no_space(d):
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o600)
    os.pwrite(fd, b"end", 10 << 30)
    expect(os.pread(fd, 4096, 5 << 30) == bytes(4096))
    expect(os.pread(fd, 10, 10 << 30) == b"end")
    os.fsync(fd)
    expect(os.fstat(fd).st_blocks * 512 < 4 << 20, "blocks %d" % os.fstat(fd).st_blocks)
    expect(os.lseek(fd, 0, os.SEEK_DATA) in range(0, (10 << 30) + 1))
    expect(os.lseek(fd, 0, os.SEEK_HOLE) == 0)
    expect(os.lseek(fd, 10 << 30, os.SEEK_HOLE) == (10 << 30) + 3)
    refuses(errno.ENXIO, os.lseek, fd, 11 << 30, os.SEEK_DATA)
    os.close(fd)


@test
def truncate_cuts_and_extends_with_zeros(d):
    touch("f", data=bytes(range(256)) * 40)
    os.truncate("f", 5000)
    os.truncate("f", 9000)
    want = (bytes(range(256)) * 40)[:5000] + bytes(4000)
    expect(content("f") == want)
    os.truncate("f", 0)
    expect(os.stat("f").st_size == 0 and content("f") == b"")
    later(["f"], lambda: os.truncate("f", 10), "mc")
    refuses(errno.EINVAL, os.truncate, "f", -1)
    os.mkdir("d1")
    refuses(errno.EISDIR, os.truncate, "d1", 0)
    refuses(errno.ENOENT, os.truncate, "none", 0)


@test
def append_always_writes_at_the_end(d):
    a = os.open("f", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    b = os.open("f", os.O_WRONLY | os.O_APPEND)
    for i in range(50):
        os.write(a, b"a%02d\n" % i)
        os.write(b, b"b%02d\n" % i)
    lines = content("f").split()
    expect(len(lines) == 100 and lines[0] == b"a00" and lines[99] == b"b49")
    os.truncate("f", 2)
    os.write(a, b"zz")
    expect(content("f") == b"a0zz")
    os.close(a)
    os.close(b)


@test
def write_moves_mtime_and_ctime_read_neither(d):
    touch("f", data=b"12345")

    def write():
        with open("f", "r+b") as f:
            f.write(b"x")
    later(["f"], write, "mc")
    before = times("f")
    time.sleep(0.02)
    content("f")
    expect(times("f")[1:] == before[1:])
    later(["f"], lambda: os.chmod("f", 0o600), "c")


@test
def utimens_keeps_nanoseconds_and_negative_times(d):
    touch("f")
    os.utime("f", ns=(123456789987654321, 987654321123456789))
    expect(times("f")[:2] == (123456789987654321, 987654321123456789))
    os.utime("f", ns=(-5000000001, -1))
    expect(times("f")[:2] == (-5000000001, -1), repr(times("f")))
    os.symlink("f", "l")
    os.utime("l", ns=(7, 8), follow_symlinks=False)
    expect(times("l")[:2] == (7, 8))


@test
def punch_hole_and_zero_range_read_zeros(d):
    fd = os.open("f", os.O_CREAT | os.O_RDWR, 0o600)
    os.write(fd, b"A" * 1000000)
    fallocate = libc.fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
    expect(fallocate(fd, 3, 100000, 500001) == 0, "punch")
    expect(os.pread(fd, 500001, 100000) == bytes(500001))
    expect(os.pread(fd, 100000, 0) == b"A" * 100000)
    expect(os.pread(fd, 10, 600001) == b"A" * 10)
    expect(os.fstat(fd).st_size == 1000000)
    expect(fallocate(fd, 0x10, 0, 4097) == 0, "zero range")
    expect(os.pread(fd, 4098, 0) == bytes(4097) + b"A")
    expect(fallocate(fd, 0, 0, 3000000) == 0 and os.fstat(fd).st_size == 3000000)
    expect(os.pread(fd, 10, 2999990) == bytes(10))
    expect(fallocate(fd, 1, 0, 9000000) == 0 and os.fstat(fd).st_size == 3000000)
    hole = os.lseek(fd, 0, os.SEEK_HOLE)
    expect(hole >= 0)
    os.close(fd)


@test
def shared_mmap_is_the_file(d):
    touch("f", data=b"a" * 10000)
    fd = os.open("f", os.O_RDWR)
    m = mmap.mmap(fd, 10000)
    m[5000:5005] = b"hello"
    m.flush()
    expect(os.pread(fd, 5, 5000) == b"hello")
    os.pwrite(fd, b"world", 0)
    expect(m[0:5] == b"world")
    m.close()
    os.close(fd)
    expect(content("f")[5000:5005] == b"hello")
    fd = os.open("f", os.O_RDONLY)
    m = mmap.mmap(fd, 10000, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
    os.close(fd)
    expect(m[9999] == ord("a"))
    m.close()


@test
def a_program_runs_from_it(d):
    shutil.copy("/bin/true", "true")
    os.chmod("true", 0o755)
    expect(os.system("./true") == 0)
    with open("script", "w") as f:
        f.write("#!/bin/sh\nexit 7\n")
    os.chmod("script", 0o755)
    expect(os.waitstatus_to_exitcode(os.system("./script")) == 7)


@test
def locks_exclude_within_the_host(d):
    touch("f")
    a = os.open("f", os.O_RDWR)
    fcntl.flock(a, fcntl.LOCK_EX)
    b = os.open("f", os.O_RDWR)
    refuses(errno.EWOULDBLOCK, fcntl.flock, b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(a, fcntl.LOCK_UN)
    fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(a, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)

    def other():
        fd = os.open("f", os.O_RDWR)
        refuses((errno.EAGAIN, errno.EACCES), fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 20)
    as_user(0, 0, [], other)
    os.close(a)
    os.close(b)


@test
def direct_io_reads_and_writes(d):
    fd = os.open("f", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600)
    buf = mmap.mmap(-1, 65536)
    buf.write(b"D" * 65536)
    expect(os.pwritev(fd, [buf], 0) == 65536)
    back = mmap.mmap(-1, 65536)
    expect(os.preadv(fd, [back], 0) == 65536 and back[:] == buf[:])
    os.close(fd)
    expect(content("f") == b"D" * 65536)


# ---- directories ----

@test
def readdir_gives_each_name_once_also_while_names_come_and_go(d):
    for i in range(1500):
        touch("n%04d" % i)
    os.mkfifo("fifo")
    with os.scandir(".") as it:
        seen = []
        for i, e in enumerate(it):
            seen.append(e.name)
            if i == 100:
                for k in range(1000, 1100):
                    os.unlink("n%04d" % k)
                for k in range(50):
                    touch("late%d" % k)
    expect(len(seen) == len(set(seen)), "a name came twice")
    stable = {"n%04d" % i for i in range(1500) if not 1000 <= i < 1100}
    expect(stable <= set(seen), "missing: %r" % sorted(stable - set(seen))[:5])
    for name in os.listdir("."):
        os.unlink(name)
    expect(os.listdir(".") == [])


@test
def deep_paths_work(d):
    depth = 60
    cwd = os.open(".", os.O_RDONLY)
    for i in range(depth):
        os.mkdir("deep-directory-%d" % i)
        os.chdir("deep-directory-%d" % i)
    touch("f", data=b"bottom")
    expect(content("f") == b"bottom")
    os.fchdir(cwd)
    os.close(cwd)
    shutil.rmtree("deep-directory-0")


@test
def extended_attributes(d):
    touch("f")
    os.setxattr("f", "user.a", b"1")
    os.setxattr("f", "user.empty", b"")
    os.setxattr("f", "trusted.t", b"x" * 1000)
    os.setxattr("f", "security.s", b"s")
    expect(os.getxattr("f", "user.a") == b"1" and os.getxattr("f", "user.empty") == b"")
    expect(set(os.listxattr("f")) >= {"user.a", "user.empty", "trusted.t", "security.s"})
    as_user(ALICE, ALICE, [], lambda: expect(
        "trusted.t" not in os.listxattr("f") and "user.a" in os.listxattr("f"), "root's names"))
    refuses(errno.EEXIST, os.setxattr, "f", "user.a", b"2", os.XATTR_CREATE)
    refuses(errno.ENODATA, os.setxattr, "f", "user.z", b"2", os.XATTR_REPLACE)
    os.setxattr("f", "user.a", b"longer value", os.XATTR_REPLACE)
    expect(os.getxattr("f", "user.a") == b"longer value")
    os.removexattr("f", "user.a")
    refuses(errno.ENODATA, os.getxattr, "f", "user.a")
    refuses(errno.ENODATA, os.removexattr, "f", "user.a")
    refuses((errno.ENOSPC, errno.E2BIG, errno.ERANGE), os.setxattr, "f", "user.big", b"x" * 70000)
    expect(len(os.getxattr("f", "trusted.t")) == 1000)
    later(["f"], lambda: os.setxattr("f", "user.c", b"1"), "c")


@test
def many_links_up_to_a_limit_then_emlink(d):
    touch("f")
    for i in range(300):
        os.link("f", "l%d" % i)
    expect(os.stat("f").st_nlink == 301)
    for i in range(300):
        os.unlink("l%d" % i)
    expect(os.stat("f").st_nlink == 1)


@test
def links_across_filesystems_are_refused(d):
    touch("f")
    refuses(errno.EXDEV, os.link, "f", "/dev/shm/lunfs-posix-x")
    refuses(errno.EXDEV, os.rename, "f", "/dev/shm/lunfs-posix-x")


@test
def statvfs_adds_up(d):
    v = os.statvfs(".")
    expect(v.f_bsize >= 512 and 0 < v.f_bfree <= v.f_blocks and v.f_namemax == 255)
    touch("f", data=os.urandom(8 << 20))
    os.sync()
    time.sleep(2)
    after = os.statvfs(".")
    used = (v.f_bfree - after.f_bfree) * v.f_frsize
    expect(7 << 20 <= used <= 16 << 20, "8 MiB written, %d used" % used)


if __name__ == "__main__":
    main("posix.py")
