#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make bench`: LunFS against the raw device and a peer, in one run, as medians and ratios.

bench.py [--smoke] [part …]     parts: fuse names locks takeover mkfs check iscsi vhost
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from bench_iscsi import part_iscsi
from bench_vhost import part_vhost
from common import (BIN, MIB, ROUNDS, SECONDS, SMOKE, TOP, Volume, direct_works, end_peer, fill, median, run,
                    say)


# ---- data through FUSE ----

CELLS = [
    ("sequential read 1 MiB", dict(rw="read", bs="1M", iodepth=4)),
    ("sequential write 1 MiB", dict(rw="write", bs="1M", iodepth=4)),
    ("random read 4 KiB, depth 1", dict(rw="randread", bs="4k", iodepth=1)),
    ("random write 4 KiB, depth 1", dict(rw="randwrite", bs="4k", iodepth=1)),
    ("random read 4 KiB, depth 32", dict(rw="randread", bs="4k", iodepth=32)),
    ("random write 4 KiB, depth 32", dict(rw="randwrite", bs="4k", iodepth=32)),
]


def fio(path, size, rw, bs, iodepth):
    direct = direct_works(path)
    out = run("fio", "--name=x", "--filename=" + path, "--size=%d" % size, "--rw=" + rw,
              "--bs=" + bs, "--iodepth=%d" % iodepth, "--ioengine=libaio",
              "--direct=%d" % direct, "--time_based", "--runtime=%dms" % (1000 * SECONDS),
              "--output-format=json", "--fallocate=none", "--allow_file_create=0",
              "--randrepeat=1", "--norandommap")
    job = json.loads(out[out.index("{"):])["jobs"][0]
    side = job["read"] if "read" in rw else job["write"]
    return side["iops"] if bs == "4k" else side["bw"] / 1024


class Peer:
    """qemu-storage-daemon's FUSE export of a raw file on the same backing."""

    def __init__(self, work, size):
        self.file = os.path.join(work, "peer.img")
        self.mount = os.path.join(work, "peer-export")
        fill(self.file, size)
        open(self.mount, "w").close()
        node = "driver=file,filename=%s,node-name=f0" % self.file
        if direct_works(self.file):
            node += ",cache.direct=on,aio=native"
        self.daemon = subprocess.Popen(
            ["qemu-storage-daemon", "--blockdev", node, "--export",
             "type=fuse,id=e0,node-name=f0,mountpoint=%s,writable=on" % self.mount],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.time() + 5
        while os.stat(self.mount).st_size != size:
            if self.daemon.poll() is not None or time.time() > end:
                self.stop()
                raise OSError("qemu-storage-daemon has no FUSE export here")
            time.sleep(0.05)

    def stop(self):
        end_peer(self.daemon)
        subprocess.run(["umount", "-l", self.mount], stderr=subprocess.DEVNULL)


def part_fuse():
    size = (64 if SMOKE else 512) * MIB
    for label, base in (("disk (/var/tmp)", "/var/tmp"), ("RAM (tmpfs)", "/dev/shm")):
        if SMOKE and base != "/dev/shm":
            continue
        with Volume(base) as v:
            raw = os.path.join(v.work, "raw.img")
            fill(raw, size)
            ours = os.path.join(v.hosts[0].dir, "disk.img")
            fill(ours, size)
            systems = [("raw", raw), ("LunFS", ours)]
            peer = None
            try:
                peer = Peer(v.work, size)
                systems.append(("qemu-storage-daemon", peer.mount))
            except OSError as e:
                say("SKIP: bench peer: %s" % e)
            say("FUSE data path on %s, O_DIRECT on the backing: %s, medians of %d rounds of %g s"
                % (label, "yes" if direct_works(v.lun) else "no", ROUNDS, SECONDS))
            table(systems, size)
            if peer:
                peer.stop()


def table(systems, size):
    say("  %-30s %s   LunFS/raw  LunFS/peer" % (
        "", " ".join("%20s" % name for name, _ in systems)))
    for title, cell in CELLS[::5] if SMOKE else CELLS:
        values = {name: [] for name, _ in systems}
        for i in range(ROUNDS):
            # In turn, each one first at times: whatever else the machine does hits all alike.
            for name, path in systems[i % len(systems):] + systems[:i % len(systems)]:
                values[name].append(fio(path, size, **cell))
        m = {name: median(values[name]) for name in values}
        unit = "IOPS" if cell["bs"] == "4k" else "MiB/s"
        peer = m.get("qemu-storage-daemon")
        say("  %-30s %s   %9.2f  %s" % (
            title, " ".join("%14.0f %-5s" % (m[name], unit) for name, _ in systems),
            m["LunFS"] / m["raw"], "%10.2f" % (m["LunFS"] / peer) if peer else "         -"))


# ---- names ----

def name_load(directory, count, out):
    os.makedirs(directory, exist_ok=True)
    rates, longest = {}, 0
    for what, fn in (("create", lambda p: os.close(os.open(p, os.O_CREAT | os.O_WRONLY))),
                     ("stat", os.stat), ("unlink", os.unlink)):
        start = time.time()
        for i in range(count):
            t = time.time()
            fn(os.path.join(directory, "f%d-%d" % (os.getpid(), i)))
            if what == "create":
                longest = max(longest, time.time() - t)
        rates[what] = count / (time.time() - start)
    out.append((rates, longest))


def in_processes(jobs):
    """Runs name_load() for each (directory, count) in a process of its own."""
    pipes = []
    for directory, count in jobs:
        r, w = os.pipe()
        if os.fork() == 0:
            out = []
            name_load(directory, count, out)
            os.write(w, json.dumps(out[0]).encode())
            os._exit(0)
        os.close(w)
        pipes.append(r)
    results = []
    for r in pipes:
        with os.fdopen(r) as f:
            results.append(json.loads(f.read()))
    for _ in jobs:
        os.wait()
    return results


def part_names():
    count = 300 if SMOKE else 3000
    with Volume("/var/tmp", hosts=("alpha", "beta")) as v:
        a, b = v.hosts
        say("Names, per second (disk, median of %d):" % ROUNDS)
        for title, jobs in (
                ("one host", [(a.dir + "/one", count)]),
                ("two hosts, own directories", [(a.dir + "/a", count), (b.dir + "/b", count)])):
            sums = {"create": [], "stat": [], "unlink": []}
            for _ in range(ROUNDS):
                results = in_processes(jobs)
                for what in sums:
                    sums[what].append(sum(r[0][what] for r in results))
            say("  %-30s create %8.0f   stat %8.0f   unlink %8.0f" % (
                title, median(sums["create"]), median(sums["stat"]), median(sums["unlink"])))
        os.makedirs(a.dir + "/both", exist_ok=True)
        time.sleep(1)
        results = in_processes([(a.dir + "/both", count // 10), (b.dir + "/both", count // 10)])
        say("  %-30s create %8.0f   longest wait %.2f s" % (
            "two hosts, one directory", sum(r[0]["create"] for r in results),
            max(r[1] for r in results)))


# ---- locks ----

def part_locks():
    program = os.path.join(TOP, "build", "tools", "bench", "lock_bench")
    if not os.path.exists(program):
        sys.exit("bench: build tools/bench/lock_bench first (make bench does)")
    for label, base in (("disk", "/var/tmp"), ("RAM", "/dev/shm")):
        work = tempfile.mkdtemp(prefix="lunfs-bench-", dir=base)
        os.environ["LUNFS_LOCK_DIR"] = os.path.join(work, "locks")
        lun = os.path.join(work, "lun.img")
        run(os.path.join(BIN, "mkfs.lunfs"), "-q", "-L", "bench", lun, "--size", "1G")
        say("Locks on %s: %s" % (label, run(program, lun, "200" if SMOKE else "5000").strip()))
        shutil.rmtree(work)


# ---- takeover ----

def takeover_once(victim, other, name):
    path = os.path.join(victim.dir, name)
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 4096)
    os.fsync(fd)
    victim.kill()
    start = time.time()
    while True:
        try:
            os.close(os.open(os.path.join(other.dir, name), os.O_RDWR))
            break
        except OSError:
            if time.time() - start > 30:
                sys.exit("bench: no takeover within 30 s")
            time.sleep(0.02)
    took = time.time() - start
    try:
        os.close(fd)
    except OSError:
        pass
    return took


def part_takeover():
    crashes = 1 if SMOKE else 20
    with Volume("/var/tmp", hosts=("alpha", "beta")) as v:
        times = []
        victim, other = v.hosts
        for i in range(crashes):
            times.append(takeover_once(victim, other, "disk%d" % i))
            victim.start()
            victim, other = other, victim
        say("Takeover after kill -9, %d crashes: min %.2f s, median %.2f s, max %.2f s" % (
            crashes, min(times), median(times), max(times)))
        if max(times) > 8:
            sys.exit("bench: a takeover took more than 8 s")


# ---- mkfs and fsck ----

def timed(*args):
    start = time.time()
    pid = os.spawnv(os.P_NOWAIT, args[0], list(args))
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit("bench: %s failed" % " ".join(args))
    return time.time() - start, usage.ru_maxrss / 1024


def part_mkfs():
    sizes = ["1G", "1T"] if SMOKE else ["1G", "16G", "256G", "4T", "64T"]
    work = tempfile.mkdtemp(prefix="lunfs-bench-", dir="/dev/shm")
    os.environ["LUNFS_LOCK_DIR"] = os.path.join(work, "locks")
    say("mkfs and fsck -n of an empty volume (sparse file on tmpfs):")
    for size in sizes:
        lun = os.path.join(work, "lun-" + size)
        mkfs = timed(os.path.join(BIN, "mkfs.lunfs"), "-q", "-L", "x", lun, "--size", size)
        fsck = timed("/bin/sh", "-c", "%s/fsck.lunfs -n %s >/dev/null" % (BIN, lun))
        say("  %-6s mkfs %.2f s, %3.0f MiB   fsck %.2f s, %3.0f MiB" % (size, *mkfs, *fsck))
        os.unlink(lun)
    shutil.rmtree(work)
    say("fsck -n against the number of files (disk):")
    for count in [1000] if SMOKE else [1000, 10000, 100000]:
        with Volume("/var/tmp") as v:
            d = os.path.join(v.hosts[0].dir, "many")
            os.mkdir(d)
            start = time.time()
            for i in range(count):
                os.close(os.open(os.path.join(d, "f%d" % i), os.O_CREAT | os.O_WRONLY))
            made = time.time() - start
            v.hosts[0].stop()
            fsck = timed("/bin/sh", "-c", "%s/fsck.lunfs -n %s >/dev/null" % (BIN, v.lun))
            say("  %6d files (%.0f creates/s): %.2f s, %.0f MiB" % (
                count, count / made, *fsck))


def check_bench(*args):
    program = os.path.join(TOP, "build", "tools", "bench", "check_bench")
    return json.loads(run_output(program, *args))


def run_output(*args):
    return subprocess.run(args, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout.decode() or "{}"


def part_check():
    """The check at scale: volumes that tools/bench/many.c works out."""
    many, few = (20000, 5000) if SMOKE else (10000000, 200000)
    for options, what in (([], "fsck -n"), (["--repair"], "fsck -y, two things to repair")):
        r = check_bench("plan", "--files", str(many), "--size", "64T", *options)
        say("%s, %d files over 64 TiB, worked out while they are read: %.0f s, peak %.0f MiB, "
            "%.1f GiB in %d reads, %.0f MiB/s" % (
                what, many, r["seconds"], r["peak_kib"] / 1024, r["read_bytes"] / 2**30,
                r["reads"], r["mib_per_second"]))
    for base, size in (("/dev/shm", "64T"), ("/var/tmp", "8T")):
        work = tempfile.mkdtemp(prefix="lunfs-bench-", dir=base)
        lun = os.path.join(work, "lun")
        try:
            run_output(os.path.join(TOP, "build", "tools", "bench", "check_bench"), "write", lun,
                       "--files", str(few), "--size", size)
            r = check_bench("raw", lun)
            say("fsck -n, %d files over %s, sparse file in %s: %.2f s, %.0f MiB/s; the same %d reads "
                "by libaio alone: %.2f s, %.0f MiB/s; ratio %.2f (aim 0.7)" % (
                    few, size, base, r["seconds"], r["mib_per_second"], r["reads"],
                    r["raw_seconds"], r["raw_mib_per_second"], r["ratio"]))
        finally:
            shutil.rmtree(work)


PARTS = {"fuse": part_fuse, "names": part_names, "locks": part_locks,
         "takeover": part_takeover, "mkfs": part_mkfs, "check": part_check, "iscsi": part_iscsi,
         "vhost": part_vhost}


def may_mount():
    """Root in a container may lack what mounting takes."""
    probe = tempfile.mkdtemp(prefix="lunfs-bench-")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "lunfs-probe", probe],
                             stderr=subprocess.DEVNULL).returncode == 0
    if mounted:
        subprocess.run(["umount", probe])
    os.rmdir(probe)
    return mounted


def main():
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")] or list(PARTS)
    if os.getuid() or not os.path.exists("/dev/fuse") or not may_mount():
        say("SKIP: bench: needs root, /dev/fuse and mounts")
        wanted = [w for w in wanted if w == "iscsi"]
    for name in wanted:
        start = time.time()
        PARTS[name]()
        if SMOKE:
            say("PASS: bench %s (%.0f s)" % (name, time.time() - start))
        say()


if __name__ == "__main__":
    main()
