# SPDX-License-Identifier: Apache-2.0
"""A lunfs-target process for the cases, and the running of them."""
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

from initiator import Conn, Fail, check, clear_ua, equal, read_blocks

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
BIN = os.path.join(TOP, os.environ.get("BUILD", "build"), "bin")
SANITIZED = "build-" in BIN
DISK = "iqn.2026-01.example:disk"
LUN_BYTES = 64 << 20
SECRET, OUTGOING = b"incoming-secret-1", b"outgoing-secret-2"
ALGORITHM_NAMES = {5: "md5", 6: "sha1", 7: "sha256", 8: "sha3-256"}


class Target:
    """Serves DISK with two units to anybody, and further targets that ask for CHAP."""

    def __init__(self, settings="", portals=("127.0.0.1:0",)):
        self.work = tempfile.mkdtemp(prefix="lunfs-wire-",
                                     dir=os.environ.get("E2E_DIR", "/var/tmp"))
        os.chmod(self.work, 0o755)
        self.configure(settings, portals)
        self.log = os.path.join(self.work, "log")
        urls = os.path.join(self.work, "urls")
        self.process = subprocess.Popen(
            [os.path.join(BIN, "lunfs-target"), "--config", os.path.join(self.work, "conf")],
            stdout=open(urls, "wb"), stderr=open(self.log, "wb"))
        self.wait_started(urls)

    def configure(self, settings, portals):
        def put(name, content, mode=0o644):
            path = os.path.join(self.work, name)
            with open(path, "w") as f:
                f.write(content)
            os.chmod(path, mode)
            return path

        incoming = put("incoming", "incoming alice %s\n" % SECRET.decode(), 0o600)
        both = put("both", "incoming alice %s\noutgoing target %s\n" % (
            SECRET.decode(), OUTGOING.decode()), 0o600)
        lines = ["portal = " + p for p in portals] + ["state-dir = " + self.work + "/state",
                                                      settings]
        n = 0

        def target(name, *more, luns=1):
            nonlocal n
            lines.extend(["[target %s%s]" % (DISK, name), *(more or ("initiator = *",))])
            for _ in range(luns):
                lines.append("lun = %s/lun%d,size=%d" % (self.work, n, LUN_BYTES))
                n += 1

        target("", luns=2)
        target("-mine", "initiator = iqn.2026-01.example:only-me")
        target("-one-way", "initiator = *", "secrets = " + incoming)
        target("-mutual", "initiator = *", "secrets = " + both)
        for name in ALGORITHM_NAMES.values():
            target("-" + name, "initiator = *", "secrets = " + both, "chap-algorithms = " + name)
        put("conf", "\n".join(lines) + "\n")

    def wait_started(self, urls):
        end = time.time() + 60
        while not os.path.getsize(urls):
            if self.process.poll() is not None or time.time() > end:
                sys.stdout.write(open(self.log).read())
                raise Fail("lunfs-target does not start")
            time.sleep(0.02)
        self.portals = []
        for line in open(urls):
            where = line.split("/")[2]
            host, port = where.rsplit(":", 1)
            portal = (host.strip("[]"), int(port))
            if portal not in self.portals:
                self.portals.append(portal)
        self.portal = self.portals[0]
        task = "/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)
        self.worker = int(open(task).read().split()[0])

    def rss(self):
        """Of the worker, in bytes."""
        with open("/proc/%d/statm" % self.worker) as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def check_memory(self, before, most, count=1):
        """The worker has grown by no more than @most bytes for each of @count.  Sanitizers keep
        what was freed: their figures say nothing."""
        each = (self.rss() - before) / max(count, 1)
        check(each <= most or SANITIZED, "memory grows by %d KiB each" % (each / 1024))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.worker))

    def wait_descriptors(self, count):
        """Until the worker has no more than that open: connections end a moment after close()."""
        end = time.time() + 60
        while self.descriptors() > count:
            check(time.time() < end, "%d descriptors, %d before" % (self.descriptors(), count))
            time.sleep(0.01)

    def connect(self, **how):
        return Conn(self.portal, **how)

    def login(self, keys=(), target=DISK, **how):
        """A session that is ready for commands."""
        conn = self.connect()
        equal(conn.login(target, keys, **how), 0, "the status of a login")
        clear_ua(conn)
        return conn

    def check_alive(self):
        """A fresh login gets in and reads, before anything that keeps it out has timed out."""
        start = time.time()
        check(self.process.poll() is None, "lunfs-target is dead")
        conn = self.login(isid=0xfe)
        equal(read_blocks(conn, 0, 1).status, 0, "the status of a read")
        took = time.time() - start
        check(took < 10, "a fresh login and a read took %.1f s" % took)
        conn.logout()
        conn.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        log = open(self.log).read()
        shutil.rmtree(self.work)
        for complaint in "Sanitizer:", "runtime error:":
            check(complaint not in log, log[log.find(complaint):][:4000])
        equal(self.process.returncode, 0, "the exit status of lunfs-target")


class Suite:
    """Runs cases, each on a target of its settings; prints a line for each."""

    def __init__(self):
        self.passed = self.failed = self.checks = 0
        self.target = None
        self.settings = None

    def use(self, settings, portals):
        if self.settings == (settings, portals):
            return
        if self.target:
            self.stop()
        self.target = Target(settings, portals)
        self.settings = (settings, portals)

    def stop(self):
        target, self.target, self.settings = self.target, None, None
        if not target:
            return
        try:
            target.stop()
        except Fail as e:
            self.failed += 1
            print("FAIL: iscsi wire: the target's end: %s" % e, flush=True)

    def run(self, case):
        name = case.__name__.replace("_", " ")
        start = time.time()
        try:
            self.use(getattr(case, "settings", ""), getattr(case, "portals", ("127.0.0.1:0",)))
            count = case(self.target) or 1
            self.target.check_alive()
            self.checks += count
            self.passed += 1
            took = time.time() - start
            print("PASS: iscsi wire: %s%s%s" % (
                name, " (%d)" % count if count > 1 else "",
                " [%.1f s]" % took if took > 1 else ""), flush=True)
        except Exception as e:	# pylint: disable=broad-except
            self.failed += 1
            print("FAIL: iscsi wire: %s: %s" % (name, e), flush=True)
            if not isinstance(e, Fail):
                traceback.print_exc(file=sys.stdout)
            if self.target:
                print("".join(open(self.target.log).readlines()[-8:]))
            if self.target and self.target.process.poll() is not None:
                self.target = self.settings = None


def with_settings(settings, portals=("127.0.0.1:0",)):
    """Of a case: the target's settings; cases with the same ones share a process."""
    def mark(case):
        case.settings, case.portals = settings, portals
        return case
    return mark
