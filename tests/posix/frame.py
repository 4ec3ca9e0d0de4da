# SPDX-License-Identifier: Apache-2.0
"""What the tests of this directory share: each is a function whose name is the claim, run in a child as root in an
empty directory of its own.  On ext4 every test passes: that is how the tests themselves are checked.
"""
import ctypes
import errno
import os
import sys
import time
import traceback

libc = ctypes.CDLL(None, use_errno=True)
TESTS = []
ALICE, BOB, STAFF = 12001, 12002, 12100


def test(fn):
    TESTS.append(fn)
    return fn


def since(*version):
    """Through FUSE it takes this kernel; on an older one the test is skipped."""
    def note(fn):
        fn.since = version
        return fn
    return note


def lacks(fn):
    kernel = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])
    return kernel < getattr(fn, "since", (0, 0))


class Failure(Exception):
    pass


def expect(condition, text="expectation"):
    if not condition:
        raise Failure(text)


def refuses(err, fn, *args, **kwargs):
    """fn(...) must fail with errno err (or one of several)."""
    wanted = err if isinstance(err, tuple) else (err,)
    try:
        fn(*args, **kwargs)
    except OSError as e:
        if e.errno not in wanted:
            raise Failure("%s%r: %s instead of %s" % (
                fn.__name__, args, errno.errorcode.get(e.errno, e.errno),
                "/".join(errno.errorcode[w] for w in wanted)))
        return
    raise Failure("%s%r succeeded instead of %s" % (
        fn.__name__, args, "/".join(errno.errorcode[w] for w in wanted)))


def as_user(uid, gid, groups, fn):
    """Runs fn in a child with these credentials; its failure is ours."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            os.umask(0)
            fn()
        except BaseException:
            os.write(w, traceback.format_exc().encode()[-3000:])
            os._exit(1)
        os._exit(0)
    os.close(w)
    text = b""
    while True:
        piece = os.read(r, 4096)
        if not piece:
            break
        text += piece
    os.close(r)
    if os.waitpid(pid, 0)[1]:
        raise Failure("as uid %d gid %d groups %r: %s" % (uid, gid, groups, text.decode()))


def touch(path, mode=0o644, data=b""):
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.fchmod(fd, mode)
    if data:
        os.write(fd, data)
    os.close(fd)


def content(path):
    with open(path, "rb") as f:
        return f.read()


def times(path):
    s = os.lstat(path)
    return s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns


def later(paths, fn, which):
    """fn() must raise the times named in which ("mc" …) of every path."""
    before = {p: times(p) for p in paths}
    time.sleep(0.02)
    fn()
    for p in paths:
        now = times(p)
        for i, letter in enumerate("amc"):
            if letter in which:
                expect(now[i] > before[p][i], "%stime of %s did not move" % (letter, p))


def renameat2(a, b, flags):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), flags):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def run(base, wanted):
    passed = failed = 0
    for fn in TESTS:
        if wanted and fn.__name__ not in wanted:
            continue
        if lacks(fn):
            print("SKIP: posix %s: needs kernel %d.%d" % (fn.__name__, *fn.since))
            passed += 1
            continue
        d = os.path.join(base, fn.__name__[:60])
        os.mkdir(d)
        os.chmod(d, 0o755)
        pid = os.fork()
        if pid == 0:
            os.umask(0)
            os.chdir(d)
            try:
                fn(d)
            except BaseException:
                print("FAIL: posix %s" % fn.__name__)
                traceback.print_exc(file=sys.stdout)
                sys.stdout.flush()
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            failed += 1
        else:
            passed += 1
            print("PASS: posix %s" % fn.__name__, flush=True)
        os.system("rm -rf '%s'" % d)
    return passed, failed


def main(name):
    if len(sys.argv) < 2:
        sys.exit("usage: %s DIRECTORY [test …]" % name)
    p, f = run(os.path.abspath(sys.argv[1]), sys.argv[2:])
    sys.exit(1 if f or not p else 0)
