# SPDX-License-Identifier: Apache-2.0
"""`make bench`, part vhost: virtual disks served by lunfsd, beside qemu-storage-daemon and raw
libaio on the same backing.

The client is lunfs-vhost-bench for all servers.  Modes:
event     both sides sleep until they are told
adaptive  the servers as they come: they look for work a while before they sleep (lunfsd 50 µs,
          qemu-storage-daemon 32 µs), while the client sleeps, as a guest does
poll      the client looks for work all the time as well
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

from bench_iscsi import Raw
from common import (BIN, MIB, ROUNDS, SMOKE, Host, direct_works, end_peer, fill, lay_out, median, run, say)

CLIENT = os.path.join(BIN, "lunfs-vhost-bench")
SECONDS = 0.2 if SMOKE else 1
SIZE = (32 if SMOKE else 512) * MIB
FILLING = (64 if SMOKE else 1024) * MIB
FILL_ROUNDS = min(ROUNDS, 3)
SNAPSHOTS = 4 if SMOKE else 32
MODES = {"event": "event-driven", "adaptive": "adaptive: servers by default, a client that sleeps",
         "poll": "both sides poll"}

# title, bytes, depth, write, sequential
CELLS = [("4 KiB random %s, depth %d" % ("write" if w else "read", d), 4096, d, w, False)
         for d in (1, 8, 32, 128) for w in (False, True)] + [
    ("128 KiB sequential read, depth 8", 131072, 8, False, True),
    ("128 KiB sequential write, depth 8", 131072, 8, True, True),
]
FILL_CELL = ("4 KiB random write, depth 32, filling", 4096, 32, True, False)


class Served:
    """A vhost-user-blk socket and whose processor time counts for it."""

    def __init__(self, name, socket, pids, wait):
        self.name, self.socket, self.pids, self.wait = name, socket, pids, wait

    def client(self, *args):
        return json.loads(run(CLIENT, "--json", "--wait", self.wait, "--runtime", str(SECONDS),
                              "--server-pid", ",".join(str(p) for p in self.pids), *args,
                              self.socket))

    def measure(self, length, depth, write, sequential, *more):
        rw = ("" if sequential else "rand") + ("write" if write else "read")
        out = self.client("--rw", rw, "--bs", str(length), "--iodepth", str(depth), *more)
        if out["errors"]:
            sys.exit("bench: %s: %d errors" % (self.name, out["errors"]))
        side = out["write" if write else "read"]
        return {"iops": side["iops"], "p50_us": side["latency_us"]["p50"],
                "p99_us": side["latency_us"]["p99"],
                "client_us": out["own_cpu"]["us_per_request"],
                "server_us": out["server_cpu"]["us_per_request"]}

    def idle(self):
        return self.client("--idle")["server_cpu"]["percent"]


def wait_for_socket(path, process):
    end = time.time() + 10
    while not os.path.exists(path):
        if process.poll() is not None or time.time() > end:
            process.kill()
            raise OSError("does not serve %s" % path)
        time.sleep(0.02)


def client_wait(mode):
    return "poll" if mode == "poll" else "event"


class Qemu:
    """qemu-storage-daemon with one export."""

    def __init__(self, work, name, path, fmt, mode):
        self.socket = os.path.join(work, name.replace(" ", "-") + ".sock")
        node = "driver=file,filename=%s,node-name=f0" % path
        if direct_works(path):
            node += ",cache.direct=on,aio=native"
        polling = 0 if mode == "event" else 32768
        args = ["qemu-storage-daemon", "--object", "iothread,id=i0,poll-max-ns=%d" % polling,
                "--blockdev", node]
        top = "f0"
        if fmt != "raw":
            args += ["--blockdev", "driver=%s,file=f0,node-name=n0" % fmt]
            top = "n0"
        self.process = subprocess.Popen(
            args + ["--export", "type=vhost-user-blk,id=e0,node-name=%s,addr.type=unix,"
                    "addr.path=%s,writable=on,iothread=i0" % (top, self.socket)],
            stdout=subprocess.DEVNULL, stderr=open(os.path.join(work, "qsd.log"), "ab"))
        wait_for_socket(self.socket, self.process)
        self.served = Served(name, self.socket, [self.process.pid], client_wait(mode))

    def stop(self):
        end_peer(self.process)
        if os.path.exists(self.socket):
            os.unlink(self.socket)


class Store:
    """A volume with one host that serves its disks."""

    def __init__(self, work, lun, mode):
        config = os.path.join(work, "lunfsd.conf")
        with open(config, "w") as f:
            f.write("poll-us = 0\n" if mode == "event" else "")
        self.host = Host(work, "alpha", lun, ["--config", config])
        self.wait = client_wait(mode)
        self.host.start()
        with open("/proc/%d/task/%d/children" % (2 * (self.host.daemon.pid,))) as f:
            self.worker = int(f.read().split()[0])
        self.pids = [self.host.daemon.pid, self.worker]

    def create(self, path, size, thick=False):
        self.host.ctl("disk", "create", "bench:" + path, "--size", str(size),
                      "--thick" if thick else "--thin")

    def serve(self, name, path):
        return Served(name, self.host.ctl("disk", "attach", "bench:" + path).strip(), self.pids,
                      self.wait)

    def unserve(self, path):
        self.host.ctl("disk", "detach", "--force", "bench:" + path)

    def resident(self):
        with open("/proc/%d/status" % self.worker) as f:
            return [int(line.split()[1]) / 1024 for line in f if line.startswith("VmRSS")][0]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.host.stop()


def fill_served(served, rw="write", bs="128K", runtime=None):
    args = ["--once"] if runtime is None else ["--runtime", str(runtime)]
    run(CLIENT, "--rw", rw, "--bs", bs, *args, served.socket)


def make_disks(store):
    """Filled disks: thick, thin, and thin under snapshots, each layer with some of the blocks."""
    store.create("/thick", SIZE, thick=True)
    for name in "thin", "snap1", "snap32":
        store.create("/" + name, SIZE)
    for name in "thick", "thin", "snap1", "snap32":
        fill_served(store.serve(name, "/" + name))
        store.unserve("/" + name)
    for name, layers in ("snap1", 1), ("snap32", SNAPSHOTS):
        for i in range(layers):
            store.host.ctl("disk", "snapshot", "create", "bench:/" + name, "s%d" % i)
            # Half of the blocks above one snapshot, a 32nd above each of 32.
            part = SIZE // 2 // layers // (256 * 1024)
            for k in range(4):
                offset = (i * 4 + k) * part // 4 * 256 * 1024
                served = store.serve(name, "/" + name)
                run(CLIENT, "--rw", "write", "--bs", "128K", "--once", "--offset", str(offset),
                    "--size", str(max(part // 4, 1) * 256 * 1024), served.socket)
            store.unserve("/" + name)


# ---- tables ----

def measure_cell(systems, cell):
    values = {s.name: [] for s in systems}
    for i in range(ROUNDS):
        # In turn, each one first at times: whatever else the machine does hits all alike.
        for s in systems[i % len(systems):] + systems[:i % len(systems)]:
            values[s.name].append(s.measure(*cell))
    return {name: {k: median([v[k] for v in values[name]]) for k in values[name][0]}
            for name in values}


class RawLibaio(Raw):
    def measure(self, length, depth, write, sequential):
        return super().measure(length, depth, write, sequential, 1)


def print_table(results, names):
    raw = names[0]
    say("    %-36s %s" % ("IOPS (of raw)", " ".join("%16s" % n for n in names)))
    for title, m in results:
        say("    %-36s %s" % (title, " ".join("%9.0f (%4.2f)" % (
            m[n]["iops"], m[n]["iops"] / m[raw]["iops"]) for n in names)))
    say("    %-36s %s" % ("CPU µs a request: server + client", " ".join("%16s" % n for n in names)))
    for title, m in results:
        say("    %-36s %s" % (title, " ".join("%7.2f + %6.2f" % (
            m[n]["server_us"], m[n]["client_us"]) for n in names)))
    say("    %-36s %s" % ("latency µs: p50 / p99", " ".join("%16s" % n for n in names)))
    for title, m in results:
        say("    %-36s %s" % (title, " ".join("%7.1f / %6.0f" % (
            m[n]["p50_us"], m[n]["p99_us"]) for n in names)))


def measure_filling(store, qcow2):
    """Thin disks that are written for the first time, beside a thick one of that size.  None is
    deleted before the end: its space would be punched out of the file below, and be found anew
    there by whoever gets it next."""
    m = {"thick": [], "thin": [], "qcow2": []}
    cell = FILL_CELL[1:]
    store.create("/thick-filled", FILLING, thick=True)
    thick = store.serve("thick", "/thick-filled")
    fill_served(thick)
    for i in range(FILL_ROUNDS):
        name = "/filling%d" % i
        store.create(name, FILLING)
        m["thin"].append(store.serve("thin filling", name).measure(*cell))
        store.unserve(name)
        m["thick"].append(thick.measure(*cell))
        if qcow2:
            q = qcow2()
            m["qcow2"].append(q.served.measure(*cell))
            q.stop()
    m = {k: {f: median([v[f] for v in m[k]]) for f in m[k][0]} for k in m if m[k]}
    say("    %s: %s" % (FILL_CELL[0], ", ".join("%s %.0f IOPS, %.2f µs of server" % (
        k, m[k]["iops"], m[k]["server_us"]) for k in m)))
    say("    thin filling / thick: %.2f%s" % (m["thin"]["iops"] / m["thick"]["iops"],
        "; / qcow2 filling: %.2f" % (m["thin"]["iops"] / m["qcow2"]["iops"]) if "qcow2" in m
        else ""))


def measure_mode(work, store, raw, mode):
    peers, path, systems = [], os.path.join(work, "raw.img"), [raw]
    for name in "thick", "thin", "snap1", "snap32":
        systems.append(store.serve(name, "/" + name))
    if shutil.which("qemu-storage-daemon"):
        peers = [Qemu(work, "qsd raw", path, "raw", mode),
                 Qemu(work, "qsd qcow2", os.path.join(work, "peer.qcow2"), "qcow2", mode)]
        systems += [p.served for p in peers]
    else:
        say("SKIP: bench vhost peer: no qemu-storage-daemon")
    names = [s.name for s in systems]
    say("  " + MODES[mode])
    cells = CELLS[4:5] if SMOKE else CELLS
    print_table([(title, measure_cell(systems, cell)) for title, *cell in cells], names)
    say("    idle, a connection each: " + ", ".join("%s %.2f %% of a core" % (
        s.name, s.idle()) for s in systems[1:] if s.name in ("thin", "qsd raw")))
    for p in peers:
        p.stop()

    def fresh_qcow2():
        fresh = os.path.join(work, "fresh.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", fresh, str(FILLING))
        return Qemu(work, "qsd fresh", fresh, "qcow2", mode)

    measure_filling(store, fresh_qcow2 if peers else None)
    store.unserve("/thick-filled")
    for name in ["thick-filled"] + ["filling%d" % i for i in range(FILL_ROUNDS)]:
        os.unlink(os.path.join(store.host.dir, name))


def measure_place(label, base):
    work = tempfile.mkdtemp(prefix="lunfs-bench-", dir=base)
    os.chmod(work, 0o755)
    os.environ["LUNFS_LOCK_DIR"] = os.path.join(work, "locks")
    lun, path = os.path.join(work, "lun.img"), os.path.join(work, "raw.img")
    try:
        # Thick, thin, a disk under 1 snapshot and what is written above it, a disk under many,
        # half of it in the layers, and what is written above those; and metadata.
        lay_out(lun, 13 * SIZE // 2 + (FILL_ROUNDS + 1) * FILLING + 512 * MIB)
        fill(path, SIZE)
        run("qemu-img", "convert", "-O", "qcow2", path, os.path.join(work, "peer.qcow2"))
        run(os.path.join(BIN, "mkfs.lunfs"), "-q", "-L", "bench", lun, "-K")
        with Store(work, lun, "event") as store:
            make_disks(store)
        say("Virtual disks on %s, O_DIRECT there: %s; medians of %d rounds of %g s" % (
            label, "yes" if direct_works(path) else "no", ROUNDS, SECONDS))
        for mode in ("adaptive",) if SMOKE else MODES:
            with Store(work, lun, mode) as store:
                measure_mode(work, store, RawLibaio(path), mode)
    finally:
        shutil.rmtree(work)


def measure_memory():
    """The largest disk there is, and random I/O over all of it."""
    work = tempfile.mkdtemp(prefix="lunfs-bench-", dir="/dev/shm")
    os.chmod(work, 0o755)
    os.environ["LUNFS_LOCK_DIR"] = os.path.join(work, "locks")
    lun = os.path.join(work, "lun.img")
    run(os.path.join(BIN, "mkfs.lunfs"), "-q", "-L", "bench", lun, "--size", "64T")
    try:
        with Store(work, lun, "event") as store:
            before = store.resident()
            store.create("/huge", 62 << 40)
            served = store.serve("huge", "/huge")
            for rw, seconds in ("randwrite", 0.5 if SMOKE else 10), ("randrw", 0.5 if SMOKE else 10):
                fill_served(served, rw, "4K", seconds)
            after = store.resident()
            say("Memory: lunfsd idle %.1f MiB, with a 62 TiB disk open and random I/O over all of "
                "it %.1f MiB: %.1f MiB more" % (before, after, after - before))
            if after - before > 64:
                sys.exit("bench: that is more than 64 MiB")
    finally:
        shutil.rmtree(work)


def part_vhost():
    for label, base in ("disk (/var/tmp)", "/var/tmp"), ("RAM (tmpfs)", "/dev/shm"):
        if not SMOKE or base == "/dev/shm":
            measure_place(label, base)
    measure_memory()
