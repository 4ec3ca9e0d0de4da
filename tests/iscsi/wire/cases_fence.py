# SPDX-License-Identifier: Apache-2.0
"""Fencing: a host that was preempted while it was stopped, with writes in its hands."""
import struct

from initiator import (FINAL, R2T, SCSI_RESPONSE, TMF_RESPONSE, WRITE, check, clear_ua, equal,
                       finish, read_blocks, rw_cdb, send_bursts, write_blocks)

# It is asked for the data of its writes, and stopped before it sends it.
KEYS = [("InitialR2T", "Yes"), ("ImmediateData", "Yes"), ("MaxBurstLength", 4096),
        ("FirstBurstLength", 4096)]
REGISTER, RESERVE, CLEAR, PREEMPT_AND_ABORT = 0, 1, 3, 5
SOLICITED = [("InitialR2T", "Yes"), ("ImmediateData", "No")]
CLEAR_TASK_SET, LUN_RESET = 4, 5
WEAR = 7	# write exclusive, all registrants
CHECK_CONDITION, CONFLICT, TASK_ABORTED = 0x02, 0x18, 0x40
OLD, NEW, LATE = b"o" * 512, b"n" * 512, b"l" * 512


def pr_out(conn, action, key, action_key):
    cdb = struct.pack(">BBBHIB", 0x5f, action, 0 if action == REGISTER else WEAR, 0, 24, 0)
    itt = conn.command(cdb, WRITE | FINAL, 24, struct.pack(">QQ8x", key, action_key))
    return finish(conn, itt).status


def write_status(conn, lba, data):
    itt = conn.command(rw_cdb(True, lba, len(data) // 512), WRITE | FINAL, len(data), data)
    return finish(conn, itt).status


def nothing_of_a_fenced_host_lands(t):
    victim, fencer = t.login(KEYS, isid=1), t.login(KEYS, isid=2)
    write_blocks(fencer, 300, OLD * 40)
    equal([pr_out(victim, REGISTER, 0, 0xa), pr_out(fencer, REGISTER, 0, 0xb),
           pr_out(fencer, RESERVE, 0xb, 0)], [0, 0, 0], "statuses of registering and reserving")
    waiting = []
    for n in range(4):
        itt = victim.command(rw_cdb(True, 300 + 8 * n, 8), WRITE | FINAL, 4096)
        waiting.append((itt, victim.expect(R2T)))

    equal(pr_out(fencer, PREEMPT_AND_ABORT, 0xb, 0xa), 0, "the status of the preempt")
    write_blocks(fencer, 300, NEW * 40)
    for itt, r2t in waiting:	# it goes on
        send_bursts(victim, itt, r2t.ttt, LATE * 8, 0, 4096, 1024)
    equal([finish(victim, itt, 4096, seen=1).status for itt, _ in waiting], [TASK_ABORTED] * 4,
          "statuses of what it had begun")
    # It is told once what has happened; then every write conflicts, and reading does not.
    equal([write_status(victim, 300 + n, LATE) for n in range(4)],
          [CHECK_CONDITION] + [CONFLICT] * 3, "statuses of its writes")
    equal(read_blocks(victim, 300, 40).data, NEW * 40, "the blocks")
    # Logging in anew makes no registrant of it.
    victim.close()
    victim = t.login(KEYS, isid=1)
    equal(write_status(victim, 300, LATE), CONFLICT, "the status of a write after a new login")
    equal(read_blocks(victim, 300, 40).data, NEW * 40, "the blocks")

    equal(pr_out(victim, REGISTER, 0, 0xc), 0, "the status of registering again")
    equal(write_status(victim, 300, LATE), 0, "the status of a write once it has registered")
    equal(pr_out(fencer, CLEAR, 0xb, 0), 0, "the status of clearing")
    victim.close()
    fencer.close()
    return 10


def block_of(n):
    return n.to_bytes(8, "big") + bytes([n & 0xff]) * 504


def compare_and_write_counts_once_whatever_is_reset(t):
    """Two hosts raise a counter, a third one resets the unit and its sessions, over and over: what
    was answered GOOD is counted once, what was not at most once, and no block is seen by halves."""
    hosts = [t.login(SOLICITED, isid=n + 1) for n in range(2)]
    breaker = t.login(isid=9)
    write_blocks(breaker, 400, block_of(0))
    good = unclear = 0
    for n in range(300):
        host = hosts[n % 2]
        clear_ua(host)
        at = int.from_bytes(read_blocks(breaker, 400, 1).data[:8], "big")
        itt = host.command(struct.pack(">BxQxxxBxx", 0x89, 400, 1), WRITE | FINAL, 1024)
        pdu = host.recv()
        if pdu.opcode == R2T:
            data = block_of(at) + block_of(at + 1)
            host.data_out(itt, pdu.ttt, 0, 0, data[:512], False)
            if n % 3 == 1:
                breaker.tmf(LUN_RESET if n % 2 else CLEAR_TASK_SET)
            host.data_out(itt, pdu.ttt, 1, 512, data[512:])
            if n % 3 == 2:
                breaker.tmf(LUN_RESET)
            pdu = host.expect(SCSI_RESPONSE)
            if n % 3:
                breaker.expect(TMF_RESPONSE)
        equal(pdu.opcode, SCSI_RESPONSE, "the opcode of the answer")
        good += pdu.b3 == 0
        unclear += pdu.b3 == TASK_ABORTED
        check(pdu.b3 in (0, CHECK_CONDITION, TASK_ABORTED), "status 0x%02x" % pdu.b3)
        clear_ua(breaker)
        block = read_blocks(breaker, 400, 1).data
        now = int.from_bytes(block[:8], "big")
        equal(block, block_of(now), "the block")
        # One that was aborted on its way to the device may have been done; one that miscompares not.
        check(now in {0: (at + 1,), TASK_ABORTED: (at, at + 1)}.get(pdu.b3, (at,)),
              "%d after %d, status 0x%02x" % (now, at, pdu.b3))
    check(good >= 100 and unclear >= 50, "%d good, %d aborted" % (good, unclear))
    return 300


CASES = [nothing_of_a_fenced_host_lands, compare_and_write_counts_once_whatever_is_reset]
