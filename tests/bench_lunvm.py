#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""lunvm measured: start, memory, size, and 4 KiB reads of the test guest through lunvm and lunfsd, beside the same
guest on qemu-storage-daemon, in interleaved rounds; the size of all programs.  tests/bench_lunvm.py [--smoke|ROUNDS];
needs root and a usable /dev/kvm."""
import json, os, re, shutil, subprocess, sys, tempfile, time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = TOP + "/build/bin/"
PAYLOAD = TOP + "/build/tests/kvm/payload.elf"
SMOKE = "--smoke" in sys.argv
ROUNDS = 1 if SMOKE else int(sys.argv[1]) if len(sys.argv) > 1 else 5
STARTS = 2 if SMOKE else 10
BLOCKS = 400 if SMOKE else 4000
DISK_MB = 64
procs = []


def lunvm(work, *args):
    return [BIN + "lunvm", "--run-dir", work + "/vm", "--daemon-dir", work + "/run", *args]


def guest(work, disk, cmdline):
    """Seconds between the guest's "begin" and "end"."""
    p = subprocess.Popen(lunvm(work, "run", "--name", "b", "--memory", "64M", "--kernel", PAYLOAD, "--cmdline", cmdline,
                               "--disk", disk), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    begin = end = None
    out = ""
    for line in p.stdout:
        out += line
        if line.startswith("payload: begin"):
            begin = time.monotonic()
        if line.startswith("payload: end"):
            end = time.monotonic()
    if p.wait() or end is None or "bad=0" not in out:
        sys.exit("the guest failed: " + out)
    return end - begin


def status(work):
    return json.loads(subprocess.check_output(lunvm(work, "status", "b", "--json")))


def own_kib(pid):
    """Resident memory of a process that is not the guest's, and what of it nobody shares."""
    rss = private = 0
    skip = False
    for line in open(f"/proc/{pid}/smaps"):
        if re.match(r"[0-9a-f]+-", line):
            skip = "guest-memory" in line
        elif not skip and line.startswith("Rss:"):
            rss += int(line.split()[1])
        elif not skip and line.startswith(("Private_Clean:", "Private_Dirty:")):
            private += int(line.split()[1])
    return rss, private


def start_and_memory(work):
    starts = []
    for _ in range(STARTS):
        p = subprocess.Popen(lunvm(work, "run", "--name", "b", "--memory", "64M", "--kernel", PAYLOAD, "--cmdline",
                                   "op=count"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        s = {}
        while not s.get("start_us"):
            time.sleep(0.05)
            try:
                s = status(work)
            except (subprocess.CalledProcessError, ValueError):
                s = {}
        starts.append(s["start_us"] / 1000)
        parent, worker = own_kib(s["pid"]), own_kib(s["worker_pid"])
        subprocess.run(lunvm(work, "kill", "b"), check=True)
        p.wait()
    starts.sort()
    print(f"exec to first guest instruction: {starts[0]:.1f} ms at best, {starts[len(starts) // 2]:.1f} ms median of {STARTS}")
    print(f"memory beyond the guest's: worker {worker[0]} KiB resident, {worker[1]} KiB of it its own; "
          f"parent {parent[0]} and {parent[1]} KiB")


def sizes():
    """What is installed, without symbols."""
    got = {}
    with tempfile.TemporaryDirectory() as d:
        for name in sorted(os.listdir(BIN)):
            subprocess.run(["strip", "-o", d + "/x", BIN + name], check=True)
            got[name] = os.path.getsize(d + "/x")
    print(f"programs, stripped: {sum(got.values()) / 1e6:.2f} MB together (goal: under 3): " +
          ", ".join(f"{name} {size // 1024} KiB" for name, size in got.items()))


def serve(work):
    """Two disks with the same contents: one of LunFS, one of qemu-storage-daemon."""
    lun, raw = work + "/lun", work + "/raw"
    subprocess.run([BIN + "mkfs.lunfs", "-q", "-L", "ds1", lun, "--size", "1G"], check=True)
    procs.append(subprocess.Popen([BIN + "lunfsd", "--run-dir", work + "/run"], stderr=subprocess.DEVNULL))
    lunfs = [BIN + "lunfs", "--run-dir", work + "/run"]
    subprocess.run(lunfs + ["attach", lun], check=True)
    subprocess.run(lunfs + ["disk", "create", "ds1:/b.disk", "--size", f"{DISK_MB}M"], check=True, stdout=subprocess.DEVNULL)
    os.truncate(os.open(raw, os.O_CREAT | os.O_RDWR), DISK_MB << 20)
    procs.append(subprocess.Popen(["qemu-storage-daemon", "--blockdev", f"driver=file,filename={raw},node-name=f,"
                                   "aio=native,cache.direct=on", "--export", "type=vhost-user-blk,id=e,node-name=f,"
                                   f"addr.type=unix,addr.path={work}/qsd,writable=on"]))
    while not os.path.exists(work + "/qsd"):
        time.sleep(0.05)
    return {"lunfsd": "ds1:/b.disk", "qemu-storage-daemon": f"unix:{work}/qsd"}


def iops(work):
    disks = serve(work)
    for disk in disks.values():
        guest(work, disk, f"op=write n={BLOCKS} qd=16")
    for depth, rounds in (1, 1), (32, 4):
        got = {name: [] for name in disks}
        for _ in range(ROUNDS):
            for name, disk in disks.items():
                s = guest(work, disk, f"op=read n={BLOCKS} qd={depth} rounds={rounds}")
                got[name].append(BLOCKS * rounds / s)
        best = {name: sorted(v)[len(v) // 2] for name, v in got.items()}
        print(f"4 KiB reads at depth {depth:2}: " + ", ".join(f"{n} {v:,.0f}/s" for n, v in best.items()) +
              f": {best['lunfsd'] / best['qemu-storage-daemon']:.2f} of it (medians of {ROUNDS} interleaved rounds)")


def main():
    work = tempfile.mkdtemp(prefix="lunvm-bench-", dir="/var/tmp")
    os.chmod(work, 0o755)
    os.environ["LUNFS_LOCK_DIR"] = work + "/locks"
    sizes()
    try:
        probe = subprocess.run(lunvm(work, "run", "--name", "b", "--memory", "16M", "--kernel", PAYLOAD, "--cmdline", "op=off"),
                               capture_output=True, text=True) if os.path.exists("/dev/kvm") else None
        if not probe or probe.returncode:
            print("SKIP: bench lunvm: this machine's KVM runs no guest")
            return
        start_and_memory(work)
        iops(work)
    finally:
        for p in procs:
            p.kill()
            p.wait()
        shutil.rmtree(work)


main()
