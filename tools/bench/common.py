# SPDX-License-Identifier: Apache-2.0
"""What the parts of `make bench` share."""
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(TOP, "build", "bin")
SMOKE = "--smoke" in sys.argv
ROUNDS = 1 if SMOKE else 5
SECONDS = 0.3 if SMOKE else 2
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


class Host:
    """One lunfsd with one mount."""

    def __init__(self, work, name, lun, options=()):
        self.work, self.name, self.lun = work, name, lun
        self.run_dir = os.path.join(work, "run-" + name)
        self.dir = os.path.join(work, "mnt-" + name)
        for d in (self.run_dir, self.dir):
            os.makedirs(d, exist_ok=True)
        self.daemon, self.options = None, list(options)

    def start(self):
        log = open(os.path.join(self.work, self.name + ".log"), "ab")
        self.daemon = subprocess.Popen(
            [os.path.join(BIN, "lunfsd"), "--run-dir", self.run_dir, "--host-name", self.name] +
            self.options,
            stdout=log, stderr=log)
        end = time.time() + 10
        while subprocess.run([os.path.join(BIN, "lunfs"), "--run-dir", self.run_dir, "status"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            if time.time() > end:
                sys.exit("%s: lunfsd does not answer" % self.name)
            time.sleep(0.02)
        run(os.path.join(BIN, "mount.lunfs"), self.lun, self.dir, "-o", "run-dir=" + self.run_dir)

    def ctl(self, *args):
        """`lunfs` on this host; what it prints."""
        return run(os.path.join(BIN, "lunfs"), "--run-dir", self.run_dir, *args)

    def kill(self):
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()
        subprocess.run(["umount", "-l", self.dir], stderr=subprocess.DEVNULL)

    def stop(self):
        if self.daemon and self.daemon.poll() is None:
            subprocess.run(["umount", self.dir], stderr=subprocess.DEVNULL)
            self.daemon.terminate()
            self.daemon.wait()


def end_peer(process):
    """A peer is asked to end; one that does not is ended: qemu-storage-daemon sometimes hangs."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def lay_out(path, size):
    """Writes the whole file, so that it is LunFS that is measured and not the filesystem below
    it finding space: a flush of a file with new blocks commits that one's journal."""
    zeros = bytes(8 * MIB)
    with open(path, "wb") as f:
        for _ in range(size // len(zeros)):
            f.write(zeros)
        f.flush()
        os.fsync(f.fileno())


class Volume:
    """A formatted file and its hosts, gone at the end."""

    def __init__(self, base, size=2048 * MIB, hosts=("alpha",)):
        self.work = tempfile.mkdtemp(prefix="lunfs-bench-", dir=base)
        os.chmod(self.work, 0o755)
        os.environ["LUNFS_LOCK_DIR"] = os.path.join(self.work, "locks")
        self.lun = os.path.join(self.work, "lun.img")
        lay_out(self.lun, size)
        run(os.path.join(BIN, "mkfs.lunfs"), "-q", "-L", "bench", self.lun, "-K")
        self.hosts = [Host(self.work, h, self.lun) for h in hosts]

    def __enter__(self):
        for h in self.hosts:
            h.start()
        return self

    def __exit__(self, *exc):
        for h in self.hosts:
            h.stop()
        shutil.rmtree(self.work, ignore_errors=True)
