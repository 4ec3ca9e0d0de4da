# SPDX-License-Identifier: Apache-2.0
"""`make bench`, part iscsi: lunfs-target, Debian's tgt and raw libaio, each on a file of its own
beside the others': what goes past the page cache and what goes through it must not share one.

The client is tools/bench/iscsi_bench.c for all targets, on the same machine: what it costs is
shown beside what the server costs.
"""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from common import BIN, MIB, ROUNDS, SMOKE, TOP, direct_works, end_peer, fill, median, run, say

IQN = "iqn.2026-01.org.lunfs:bench"
CLIENT = os.path.join(TOP, "build", "tools", "bench", "iscsi_bench")
SECONDS = 0.2 if SMOKE else 1

# title, bytes, depth, write, sequential
CELLS = [
    ("4 KiB random read, depth 1", 4096, 1, False, False),
    ("4 KiB random write, depth 1", 4096, 1, True, False),
    ("4 KiB random read, depth 32", 4096, 32, False, False),
    ("4 KiB random write, depth 32", 4096, 32, True, False),
    ("128 KiB sequential read, depth 8", 131072, 8, False, True),
    ("128 KiB sequential write, depth 8", 131072, 8, True, True),
]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, check, process):
    end = time.time() + 10
    while not check():
        if process.poll() is not None or time.time() > end:
            process.kill()
            raise OSError("%s does not start" % what)
        time.sleep(0.02)


def children(pid):
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(c) for c in f.read().split()]


class Target:
    """A target process; what it serves is LUN self.lun at self.port."""
    lun = 0
    path = None

    def stop(self):
        end_peer(self.process)

    def client(self, *args):
        out = run(CLIENT, *args, "-t", str(SECONDS), "-p", ",".join(str(p) for p in self.pids),
                  "127.0.0.1", str(self.port), IQN, str(self.lun))
        return json.loads(out.splitlines()[-1])

    def measure(self, length, depth, write, sequential, sessions):
        result = self.client("-b", str(length), "-q", str(depth), "-n", str(sessions),
                             *(["-w"] if write else []), *(["-s"] if sequential else []))
        # What it has only in the page cache is its own affair, but no load for the next one.
        with open(self.path, "rb") as f:
            os.fsync(f.fileno())
        return result

    def idle(self):
        return self.client("-q", "0", "-n", "4")["server_busy"]


class Ours(Target):
    name = "lunfs-target"

    def __init__(self, work, path):
        self.path = path
        self.port = free_port()
        out = open(os.path.join(work, "urls"), "w+b")
        self.process = subprocess.Popen(
            [os.path.join(BIN, "lunfs-target"), "--lun", path, "--iqn", IQN, "--portal",
             "127.0.0.1:%d" % self.port, "--state-dir", os.path.join(work, "state")],
            stdout=out, stderr=open(os.path.join(work, "target.log"), "wb"))
        wait_for("lunfs-target", lambda: os.path.getsize(out.name), self.process)
        self.pids = [self.process.pid] + children(self.process.pid)


class Tgt(Target):
    lun = 1
    controls = 90

    def __init__(self, work, path, kind):
        self.name = "tgt, " + kind
        self.path = path
        if not shutil.which("tgtd"):
            raise OSError("no tgtd")
        Tgt.controls += 1
        self.control = str(Tgt.controls + 100 * (os.getpid() % 300))
        self.port = free_port()
        self.process = subprocess.Popen(
            ["tgtd", "-f", "-C", self.control, "--iscsi", "portal=127.0.0.1:%d" % self.port],
            stdout=subprocess.DEVNULL, stderr=open(os.path.join(work, "tgtd.log"), "ab"))
        self.pids = [self.process.pid]
        new = ["--op", "new", "--tid", "1"]
        wait_for("tgtd", lambda: self.admin("--mode", "target", *new, "-T", IQN) == 0,
                 self.process)
        if self.admin("--mode", "logicalunit", *new, "--lun", "1", "-b", path, "--bstype", kind) \
                or self.admin("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL"):
            self.stop()
            raise OSError("tgtd refuses the file")

    def admin(self, *args):
        return subprocess.run(["tgtadm", "-C", self.control, "--lld", "iscsi", *args],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode

    def stop(self):
        # It does not end by a signal while it has targets.
        self.process.kill()
        self.process.wait()


class Raw:
    name = "raw libaio"

    def __init__(self, path):
        self.path = path

    def measure(self, length, depth, write, sequential, sessions):
        rw = {(False, False): "randread", (True, False): "randwrite",
              (False, True): "read", (True, True): "write"}[write, sequential]
        out = run("fio", "--name=x", "--filename=" + self.path, "--rw=" + rw, "--bs=%d" % length,
                  "--iodepth=%d" % depth, "--numjobs=%d" % sessions, "--group_reporting",
                  "--ioengine=libaio", "--direct=%d" % direct_works(self.path), "--time_based",
                  "--runtime=%dms" % (1000 * SECONDS), "--output-format=json", "--fallocate=none",
                  "--norandommap", "--lat_percentiles=1", "--clat_percentiles=0",
                  "--offset_increment=%d%%" % (100 // sessions))
        job = json.loads(out[out.index("{"):])["jobs"][0]
        side = job["write" if write else "read"]
        lat = side["lat_ns"]["percentile"]
        busy = (job["usr_cpu"] + job["sys_cpu"]) / 100 * sessions
        return {"iops": side["iops"], "mib_s": side["bw"] / 1024,
                "p50_us": lat["50.000000"] / 1000, "p99_us": lat["99.000000"] / 1000,
                "client_us": busy * 1e6 / side["iops"], "server_us": 0}


def measure_cell(systems, title, cell, sessions):
    values = {s.name: [] for s in systems}
    for i in range(ROUNDS):
        # In turn, each one first at times: whatever else the machine does hits all alike.
        for s in systems[i % len(systems):] + systems[:i % len(systems)]:
            values[s.name].append(s.measure(*cell, sessions))
    m = {name: {k: median([v[k] for v in values[name]]) for k in values[name][0]}
         for name in values}
    say("  %s, %d session%s" % (title, sessions, "s" if sessions > 1 else ""))
    for s in systems:
        v = m[s.name]
        say("    %-14s %8.0f IOPS %6.0f MiB/s  p50 %6.0f µs  p99 %6.0f µs  client %5.1f µs  "
            "server %5.1f µs  /raw %5.2f%s" % (
                s.name, v["iops"], v["mib_s"], v["p50_us"], v["p99_us"], v["client_us"],
                v["server_us"], v["iops"] / m["raw libaio"]["iops"],
                "  /tgt aio %5.2f" % (v["iops"] / m["tgt, aio"]["iops"])
                if s.name == "lunfs-target" and "tgt, aio" in m else ""))


def open_systems(work, size):
    def file(name):
        path = os.path.join(work, name + ".img")
        fill(path, size)
        return path

    systems = [Raw(file("raw")), Ours(work, file("lun"))]
    for kind in "aio", "rdwr":
        try:
            systems.append(Tgt(work, file(kind), kind))
        except OSError as e:
            say("SKIP: bench tgt %s: %s" % (kind, e))
    return systems


def measure_place(label, base):
    work = tempfile.mkdtemp(prefix="lunfs-bench-", dir=base)
    os.chmod(work, 0o755)
    systems = open_systems(work, (32 if SMOKE else 512) * MIB)
    try:
        say("iSCSI on %s, O_DIRECT there: %s; processor time is a command's; medians of %d rounds "
            "of %g s" % (label, "yes" if direct_works(systems[0].path) else "no", ROUNDS, SECONDS))
        for title, *cell in CELLS[2:3] if SMOKE else CELLS:
            for sessions in (1,) if SMOKE else (1, 4):
                measure_cell(systems, title, cell, sessions)
        say("  idle, 4 sessions: " + ", ".join("%s %.2f %% of a processor" % (
            s.name, 100 * s.idle()) for s in systems[1:]))
    finally:
        for s in systems[1:]:
            s.stop()
        shutil.rmtree(work)


def part_iscsi():
    if not os.path.exists(CLIENT):
        sys.exit("bench: build tools/bench/iscsi_bench first (make bench does)")
    for label, base in ("disk (/var/tmp)", "/var/tmp"), ("RAM (tmpfs)", "/dev/shm"):
        measure_place(label, base)
