# SPDX-License-Identifier: Apache-2.0
"""Data: every way it may go, digests, lengths that disagree, and data that nobody asked for."""
import itertools
import struct
import time

from harness import DISK, with_settings
from initiator import (DATA_IN, DATA_OUT, FINAL, IMMEDIATE, NONE, NOP_IN, NOP_OUT, R2T, READ,
                       REJECT, SCSI_COMMAND, SCSI_RESPONSE, TEXT, WRITE, check, equal, finish, head,
                       parse_text, random_bytes, read_blocks, rw_cdb, scsi, send_bursts, text,
                       write_blocks)

BOTH_DIGESTS = [("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")]
CRC_ERROR = (0x0b, 0x47, 0x05)
OLD = bytes(range(256)) * 2		# a block of known contents


def keys(initial_r2t, immediate, first, burst, r2ts, dsl, digests=False):
    return [("InitialR2T", "Yes" if initial_r2t else "No"),
            ("ImmediateData", "Yes" if immediate else "No"), ("MaxBurstLength", burst),
            ("FirstBurstLength", first), ("MaxOutstandingR2T", r2ts),
            ("MaxRecvDataSegmentLength", dsl)] + (BOTH_DIGESTS if digests else [])


def data_goes_every_way_that_can_be_agreed(t):
    """Immediate, unsolicited, solicited; what was written comes back within all limits."""
    count = 0
    for initial_r2t, immediate, (first, burst), r2ts, dsl in itertools.product(
            (True, False), (True, False), ((512, 512), (1000, 4096), (8192, 65536)), (1, 4),
            (512, 8192)):
        conn = t.login(keys(initial_r2t, immediate, first, burst, r2ts, dsl, count % 4 == 3))
        # The target takes 256 KiB a PDU; sometimes it gets less.
        conn.keys["MaxRecvDataSegmentLength"] = (700, 4096, 262144)[count % 3]
        data = random_bytes(512 * (1, 17, 40)[count % 3])
        r = write_blocks(conn, 100, data, unsolicited=count % 5 != 4)
        equal(r.status, 0, "a write's status")
        unsolicited = 0
        if immediate:
            unsolicited = min(first, len(data), int(conn.keys["MaxRecvDataSegmentLength"]))
        if not initial_r2t and count % 5 != 4:
            unsolicited = max(unsolicited, min(first, len(data)))
        equal(sum(n for _, n in r.r2ts), len(data) - unsolicited, "what was asked for")
        r = read_blocks(conn, 100, len(data) // 512)
        check(r.status == 0 and r.data == data, "what was written does not come back")
        conn.close()
        count += 1
    return count


def outstanding_R2Ts_are_within_their_limit(t):
    count = 0
    for limit in (1, 2, 5, 100):
        conn = t.login(keys(True, False, 512, 4096, limit, 8192))
        data = random_bytes(64 * 1024)
        itt = conn.command(rw_cdb(True, 0, 128), WRITE | FINAL, len(data))
        waiting, done, at = [], 0, 0
        while done < len(data):
            while len(waiting) < min(limit, 8) and at < len(data):
                pdu = conn.expect(R2T)
                equal(pdu.w40, at, "the offset of an R2T")
                waiting.append(pdu)
                at += pdu.w44
            if len(waiting) >= limit:
                check(conn.silent(0.01), "more R2Ts outstanding than %d" % limit)
            pdu = waiting.pop(0)
            send_bursts(conn, itt, pdu.ttt, data, pdu.w40, pdu.w40 + pdu.w44, 1024)
            done = pdu.w40 + pdu.w44
        equal(conn.expect(SCSI_RESPONSE).b3, 0, "the status")
        equal(read_blocks(conn, 0, 128).data, data, "what was written")
        count += 1
    return count


# ---- digests ----

def all_combinations_of_digests(t):
    count = 0
    for header, data in itertools.product(("None", "CRC32C"), repeat=2):
        conn = t.login([("HeaderDigest", header), ("DataDigest", data)])
        for size in (512, 1536, 20480):
            payload = random_bytes(size)
            equal(write_blocks(conn, 7, payload).status, 0, "a write's status")
            equal(read_blocks(conn, 7, size // 512).data, payload, "what was written")
        for odd in range(6):
            itt = conn.nop(bytes(odd))
            pdu = conn.expect(NOP_IN)
            check(pdu.itt == itt and pdu.data == bytes(odd), "%r" % pdu)
        conn.close()
        count += 1
    return count


def wrong_header_digest_ends_the_connection_unexecuted(t):
    other = t.login(isid=9)
    write_blocks(other, 50, OLD)
    count = 0
    for kind in ("command", "data", "nop"):
        conn = t.login([("HeaderDigest", "CRC32C"), ("ImmediateData", "No")])
        if kind == "command":
            conn.command(rw_cdb(True, 50, 1), WRITE | FINAL, 512, bad_header=0x40)
        elif kind == "data":
            itt = conn.command(rw_cdb(True, 50, 1), WRITE | FINAL, 512)
            ttt = conn.expect(R2T).ttt
            conn.data_out(itt, ttt, 0, 0, bytes(512), bad_header=1)
        else:
            conn.nop(b"x", bad_header=0x80)
        conn.expect_closed()
        equal(read_blocks(other, 50, 1).data, OLD, "the block after a wrong header digest")
        count += 1
    return count


def wrong_data_digest_writes_nothing(t):
    other = t.login(isid=9)
    write_blocks(other, 60, OLD)
    # Of a command or another request: it cannot be asked for again at ErrorRecoveryLevel 0.
    for kind in ("command", "nop", "text"):
        conn = t.login(BOTH_DIGESTS)
        if kind == "command":
            conn.command(rw_cdb(True, 60, 1), WRITE | FINAL, 512, bytes(512), bad_data=1)
        elif kind == "nop":
            conn.nop(b"data", bad_data=2)
        else:
            conn.text(text([("X", "y")]), bad_data=4)
        conn.expect_closed(reject=2)
    # Of Data-Out: that command fails, when all of it is there; the connection goes on.
    for which in (0, 1, 2):
        conn = t.login(BOTH_DIGESTS + keys(True, False, 512, 1536, 1, 8192))
        itt = conn.command(rw_cdb(True, 60, 3), WRITE | FINAL, 1536)
        ttt = conn.expect(R2T).ttt
        for n in range(3):
            conn.data_out(itt, ttt, n, n * 512, bytes(512), n == 2, bad_data=n == which)
        equal(conn.expect(REJECT).b2, 2, "the reason of the Reject")
        r = finish(conn, itt, 1536, seen=1)
        equal((r.status, r.key()), (2, CRC_ERROR), "status and sense")
        conn.alive()
        equal(write_blocks(conn, 63, OLD).status, 0, "the next write's status")
    equal(read_blocks(other, 60, 1).data, OLD, "the block after wrong data digests")
    return 6


# ---- residuals ----

def residuals_tell_what_was_too_much_or_too_little(t):
    conn = t.login()
    block = random_bytes(2048)
    write_blocks(conn, 20, block)
    under, over = 2, 4
    for edtl, blocks, want_flags, want_residual, moved in (
            (2048, 4, 0, 0, 2048), (4096, 4, under, 2048, 2048), (512, 4, over, 1536, 512),
            (100, 1, over, 412, 100), (513, 1, under, 1, 512), (1, 1, over, 511, 1)):
        itt = conn.command(rw_cdb(False, 20, blocks), READ | FINAL, edtl)
        r = finish(conn, itt, edtl)
        equal((r.status, r.flags, r.residual), (0, want_flags, want_residual), "EDTL %d" % edtl)
        equal(r.data, block[:moved], "the data")
    for edtl, blocks, want_flags, want_residual in (
            (512, 1, 0, 0), (1024, 1, under, 512), (512, 2, over, 512), (8192, 1, under, 7680)):
        data = random_bytes(edtl)
        itt = conn.command(rw_cdb(True, 30, blocks), WRITE | FINAL, edtl, data)
        r = finish(conn, itt, edtl, data)
        equal((r.status, r.flags, r.residual), (0, want_flags, want_residual), "EDTL %d" % edtl)
        equal(read_blocks(conn, 30, 1).data, data[:512], "the data")
    # A command that moves nothing, where data was announced; none where some was wanted.
    for flags, edtl in ((READ, 512), (WRITE, 512)):
        itt = conn.command(bytes(6), flags | FINAL, edtl, bytes(edtl) if flags == WRITE else b"")
        r = finish(conn, itt, edtl)
        equal((r.status, r.flags, r.residual), (0, under, 512), "TEST UNIT READY")
    itt = conn.command(rw_cdb(False, 20, 1), FINAL, 0)
    r = finish(conn, itt)
    check(r.flags == over and r.residual == 512 and not r.data, "a read without room for it")
    # Read announced as write and the other way round: no data in the wrong direction.
    itt = conn.command(rw_cdb(False, 20, 1), WRITE | FINAL, 512, bytes(512))
    check(not finish(conn, itt, 512).data, "data-in of a command that announced data-out")
    write_blocks(conn, 40, OLD)
    itt = conn.command(rw_cdb(True, 40, 1), READ | FINAL, 512)
    finish(conn, itt, 512)
    equal(read_blocks(conn, 40, 1).data, OLD, "the block")
    return 15


def any_length_may_be_expected_of_a_short_answer(t):
    """4 GiB allocated and expected: the answer is as long as it is, the rest residual."""
    most = b"\xff\xff\xff\xff"
    cdbs = [b"\x9e\x10" + bytes(8) + most + bytes(2),		# READ CAPACITY(16)
            b"\x9e\x12" + bytes(8) + most + bytes(2),		# GET LBA STATUS
            b"\x84\x03" + bytes(8) + most + bytes(2),		# RECEIVE COPY PARAMETERS
            b"\xa3\x0a" + bytes(4) + most + bytes(2),		# REPORT TARGET PORT GROUPS
            b"\xa3\x0c" + bytes(4) + most + bytes(2),		# REPORT OPERATION CODES
            b"\xa3\x0d" + bytes(4) + most + bytes(2),		# REPORT TASK MANAGEMENT FUNCTIONS
            b"\xb7\0" + bytes(4) + most + bytes(2),		# READ DEFECT DATA(12)
            b"\xa0\0" + bytes(4) + most + bytes(2),		# REPORT LUNS
            b"\x5e\0" + bytes(5) + b"\xff\xff\0",		# PERSISTENT RESERVE IN
            b"\x12\0\0\xff\xff\0", b"\x5a\0\x3f" + bytes(4) + b"\xff\xff\0"]
    conn = t.login()
    for cdb in cdbs:
        pdu, got = None, 0
        conn.command(cdb + bytes(16 - len(cdb)), READ | FINAL, NONE)
        while pdu is None or not pdu.flags & 1:
            pdu = conn.expect(DATA_IN)
            got += len(pdu.data)
        check(0 < got < 65536, "%d bytes" % got)
        equal((pdu.b3, pdu.flags & 6, pdu.w44), (0, 2, NONE - got), "status and residual")
    return len(cdbs)


def commands_that_fail_swallow_their_data(t):
    """What follows the data of a refused command is the next header."""
    conn = t.login(keys(False, True, 8192, 16384, 1, 8192))
    beyond = 1 << 40
    for lba, cdb in ((beyond, None), (0, bytes([0xff] * 16))):
        cdb = cdb or rw_cdb(True, lba, 16)
        itt = conn.command(cdb, WRITE, 8192, bytes(1024))
        send_bursts(conn, itt, NONE, bytes(8192), 1024, 8192, 2048)
        r = finish(conn, itt, 8192)
        equal(r.status, 2, "the status")
        check(not r.r2ts, "data asked for that is not needed")
        conn.alive()
    return 2


# ---- what breaks the rules ----

def breaks(t, login_keys, act, reject=4, old=70):
    """@act breaks the protocol: Reject, the end of the connection, and nothing written."""
    other = t.login(isid=9)
    write_blocks(other, old, OLD)
    conn = t.login(login_keys)
    act(conn)
    conn.expect_closed(reject=reject)
    equal(read_blocks(other, old, 1).data, OLD, "the block")
    other.logout()
    other.close()


def asked(conn, blocks=1, lba=70):
    itt = conn.command(rw_cdb(True, lba, blocks), WRITE | FINAL, 512 * blocks)
    return itt, conn.expect(R2T)


def data_that_was_not_agreed_on_ends_the_connection(t):
    solicited = keys(True, False, 1024, 2048, 1, 8192)
    unsolicited = keys(False, True, 1024, 2048, 1, 8192)

    def command(flags, edtl, data):
        return lambda c: c.command(rw_cdb(True, 70, 1), flags, edtl, data)

    def data(offset=0, size=512, ttt=None, sn=0, final=True):
        def act(c):
            itt, pdu = asked(c)
            c.data_out(itt, pdu.ttt if ttt is None else ttt(pdu.ttt), sn, offset, bytes(size),
                       final)
        return act

    def too_much_unsolicited(c):
        itt = c.command(rw_cdb(True, 70, 4), WRITE, 2048, bytes(512))
        c.data_out(itt, NONE, 0, 512, bytes(1024))

    def after_its_end(c):
        itt = c.command(rw_cdb(True, 70, 4), WRITE, 2048)
        c.data_out(itt, NONE, 0, 0, bytes(512))
        c.data_out(itt, NONE, 1, 512, bytes(512))

    acts = [
        (solicited, command(WRITE | FINAL, 512, bytes(512))),	# immediate data, not agreed on
        (solicited, command(WRITE, 512, b"")),			# unsolicited, not agreed on
        (unsolicited, command(WRITE | FINAL, 4096, bytes(1025))),	# beyond FirstBurstLength
        (unsolicited, command(WRITE | FINAL, 256, bytes(512))),	# beyond the expected length
        (unsolicited, command(READ | FINAL, 512, bytes(512))),	# of a command that reads
        (unsolicited, command(READ, 512, b"")),			# a read that is not final
        (unsolicited, too_much_unsolicited),
        (unsolicited, after_its_end),
        (solicited, data(size=513)), (solicited, data(size=1024)),
        (solicited, data(offset=4)), (solicited, data(offset=0xffffff00)),
        (solicited, data(size=256, final=True)), (solicited, data(size=512, final=False)),
        (solicited, data(ttt=lambda n: n + 1000)), (solicited, data(ttt=lambda n: NONE)),
    ]
    for login_keys, act in acts:
        breaks(t, login_keys, act)
    return len(acts)


def wrong_DataSN_fails_the_command_only(t):
    conn = t.login(keys(True, False, 512, 2048, 1, 8192))
    write_blocks(conn, 80, OLD)
    for numbers in ((1, 2), (0, 0), (0, 2), (0, 0xffffffff)):
        itt, pdu = asked(conn, 2, 80)
        for n, sn in enumerate(numbers):
            conn.data_out(itt, pdu.ttt, sn, n * 512, bytes(512), n == 1)
        r = finish(conn, itt, 1024, seen=1)
        equal((r.status, r.key()), (2, CRC_ERROR), "status and sense of DataSN %r" % (numbers,))
    equal(read_blocks(conn, 80, 1).data, OLD, "the block")
    return 4


def late_data_of_a_task_that_is_gone_is_thrown_away(t):
    conn = t.login(keys(True, False, 512, 2048, 1, 8192))
    itt, pdu = asked(conn, 1, 90)
    conn.data_out(itt, pdu.ttt, 0, 0, OLD)
    equal(finish(conn, itt, 512, seen=1).status, 0, "the status")
    conn.data_out(itt, pdu.ttt, 0, 0, bytes(512))		# once more
    conn.data_out(itt + 999, NONE, 0, 0, bytes(512))		# of no task
    conn.alive()
    equal(read_blocks(conn, 90, 1).data, OLD, "the block")


def data_of_one_connection_on_another_ends_it(t):
    conn = t.login(keys(True, False, 512, 2048, 1, 8192) + [("MaxConnections", 2)])
    other = conn.join(DISK, 2)
    itt, pdu = asked(conn, 1, 95)
    other.data_out(itt, pdu.ttt, 0, 0, bytes(512))
    other.expect_closed(reject=4)
    # ErrorRecoveryLevel 0: the session ends with it.
    conn.expect_closed()


def headers_that_cannot_be_end_the_connection(t):
    long_cdb = struct.pack(">HBB", 17, 1, 0) + bytes(16)
    acts = [
        (4, lambda c: c.nop(b"", length=262145)),			# MaxRecvDataSegmentLength
        (4, lambda c: c.nop(b"", length=0xffffff)),
        (4, lambda c: c.nop(b"", ahs=bytes(4))),
        (4, lambda c: c.send(head(TEXT | IMMEDIATE, FINAL, 5), ahs=long_cdb)),
        (9, lambda c: c.command(bytes(16), ahs=struct.pack(">HBB", 0xffff, 1, 0))),
        (9, lambda c: c.command(bytes(16), ahs=struct.pack(">HBB", 0, 1, 0))),
        (9, lambda c: c.command(bytes(16), ahs=struct.pack(">HBBI", 5, 99, 0, 0))),
        (9, lambda c: c.command(bytes(16), ahs=long_cdb + long_cdb)),
        (9, lambda c: c.command(bytes(16), ahs=struct.pack(">HBB", 1000, 1, 0) + bytes(1016))),
        (4, lambda c: c.command(bytes(16), itt=NONE)),
        (4, lambda c: c.command(bytes(16), flags=0)),
        (4, lambda c: c.send(head(2 | IMMEDIATE, 0x81, NONE))),
        (4, lambda c: c.send(head(2 | IMMEDIATE, 0x81, 7), b"data")),
        (4, lambda c: c.send(head(6 | IMMEDIATE, 0x80, 7), b"data")),
        (4, lambda c: c.send(head(TEXT | IMMEDIATE, FINAL, NONE))),
        (9, lambda c: c.send(head(6 | IMMEDIATE, 0xff, 7, words=(0, c.cmd_sn)))),
    ]
    for reject, act in acts:
        conn = t.login()
        act(conn)
        conn.expect_closed(reject=reject)
        conn.close()
    known = (0, 1, 2, 3, 4, 5, 6, 0x10)
    for opcode in (o for o in range(0x40) if o not in known):
        conn = t.login()
        conn.send(head(opcode, FINAL, 7, words=(NONE, conn.cmd_sn)))
        conn.expect_closed(reject=5)
        conn.close()
    return len(acts) + 0x40 - len(known)


def extended_CDBs_arrive_whole(t):
    """READ(32) is not offered: that is said, and the connection goes on."""
    conn = t.login()
    cdb = bytearray(32)
    cdb[0], cdb[7], cdb[9] = 0x7f, 24, 9
    itt = conn.command(bytes(cdb), READ | FINAL, 512,
                       ahs=struct.pack(">HBB", 17, 1, 0) + bytes(cdb[16:32]))
    r = finish(conn, itt, 512)
    equal((r.status, r.key()), (2, (5, 0x20, 0)), "status and sense")
    conn.alive()


def SNACK_is_rejected_and_the_connection_goes_on(t):
    conn = t.login()
    for kind in range(4):
        conn.send(head(0x10, FINAL | kind, 5, words=(NONE, 0, conn.stat_sn, 0, 0, 0, 1)))
        equal(conn.expect(REJECT).b2, 3, "the reason")
        conn.alive()
    return 4


# ---- NOP and text ----

def NOP_Out_comes_back_as_it_was(t):
    conn = t.login([("MaxRecvDataSegmentLength", 1024)])
    for n in (0, 1, 4, 333, 1024):
        data = random_bytes(n)
        for immediate in (True, False):
            itt = conn.nop(data, immediate=immediate)
            pdu = conn.expect(NOP_IN)
            equal((pdu.itt, pdu.ttt, pdu.data), (itt, NONE, data), "the NOP-In")
    conn.nop(bytes(5000))
    equal(len(conn.expect(NOP_IN).data), 1024, "the length of an answer that does not fit")
    conn.nop(b"ping", itt=NONE)
    check(conn.silent(), "an answer to a NOP-Out that wants none")
    conn.alive()
    return 12


@with_settings("nop-interval = 1\nnop-timeout = 3\n")
def silent_initiators_are_asked_and_dead_ones_dropped(t):
    conn, dead = t.login(), t.login(isid=2)
    for _ in range(2):
        pdu = conn.expect(NOP_IN)
        equal(pdu.itt, NONE, "the ITT of a NOP-In that is no answer")
        check(pdu.ttt != NONE, "a NOP-In without a target transfer tag")
        conn.nop(itt=NONE, ttt=pdu.ttt)
    equal(dead.expect(NOP_IN).itt, NONE, "the ITT of a NOP-In")
    start = time.time()
    dead.expect_closed()
    check(time.time() - start < 20, "a dead initiator is kept")
    conn.queue.clear()
    equal(scsi(conn, bytes(6)).status, 0, "TEST UNIT READY")


def text_goes_over_several_PDUs(t):
    conn = t.login()
    raw = text([("X-com.example.%d" % i, "v" * 100) for i in range(8)])
    itt, ttt = conn.next_itt(), NONE
    for at in range(0, len(raw), 100):
        last = at + 100 >= len(raw)
        conn.text(raw[at:at + 100], FINAL if last else 0x40, itt, ttt)
        pdu = conn.expect(0x24)
        ttt = pdu.ttt
        if not last:
            check(ttt != NONE and not pdu.flags & FINAL and not pdu.data, "%r" % pdu)
    answer = parse_text(pdu.data)
    equal(set(answer.values()), {"NotUnderstood"}, "the answers")
    equal(len(answer), 8, "the number of answers")
    # A new one resets what was not finished; a tag of nobody is refused.
    conn.text(b"half", 0x40)
    conn.expect(0x24)
    conn.text(text([("MaxRecvDataSegmentLength", "4096")]))
    equal(conn.expect(0x24).data, b"", "the answer to a declaration")
    conn.keys["ours"] = 4096
    conn.text(b"", ttt=12345)
    equal(conn.expect(REJECT).b2, 9, "the reason")
    conn.text(text([("a", "b")]), FINAL | 0x40)
    equal(conn.expect(REJECT).b2, 4, "the reason")
    conn.text(b"a" * 5000)
    equal(conn.expect(REJECT).b2, 0x0a, "the reason")
    conn.alive()
    return 5


def cut_off_in_every_PDU_of_full_feature_phase(t):
    other = t.login(isid=9)
    write_blocks(other, 110, OLD)
    sent = [
        lambda c: c.command_bhs(rw_cdb(True, 110, 16), WRITE | FINAL, 8192),
        lambda c: head(NOP_OUT | IMMEDIATE, FINAL, 9, words=(NONE, c.cmd_sn)),
        lambda c: head(TEXT | IMMEDIATE, FINAL, 9, words=(NONE, c.cmd_sn)),
    ]
    count = 0
    for make in sent:
        for at in (1, 20, 47, 48, 50, 1000, 4000):
            conn = t.login(BOTH_DIGESTS)
            conn.write(conn.encode(make(conn), bytes(4000))[:at])
            conn.close()
            count += 1
    for at in (0, 1, 48, 300):
        conn = t.login(keys(True, False, 512, 2048, 1, 8192))
        itt, pdu = asked(conn, 1, 110)
        whole = conn.encode(head(DATA_OUT, FINAL, itt, words=(pdu.ttt,)), bytes(512))
        conn.write(whole[:at])
        conn.close()
        count += 1
    equal(read_blocks(other, 110, 1).data, OLD, "the block")
    return count


def noise_in_full_feature_phase(t):
    """Random headers: whatever they are taken for, the target lives on."""
    for n in range(150):
        conn = t.login(keys(False, True, 4096, 8192, 4, 8192))
        for _ in range(4):
            bhs = bytearray(random_bytes(48))
            if n % 2:		# something that is nearly right
                bhs[0] = (SCSI_COMMAND, DATA_OUT, TEXT, 2, 6, NOP_OUT)[n // 2 % 6] | bhs[0] & 0x40
                bhs[24:28] = struct.pack(">I", conn.cmd_sn)
                bhs[4] = 0
            try:
                conn.send(bhs, random_bytes(n * 4), ahs=b"" if n % 3 else bytes(8))
            except OSError:
                break
        conn.close()
    return 150


def slow_reader_costs_only_itself(t):
    """Reads of 32 MiB that nobody fetches: the target waits, others go on."""
    conn = t.login()
    for _ in range(128):
        conn.command(rw_cdb(False, 0, 512), READ | FINAL, 262144)
    before = t.rss()
    for _ in range(5):
        t.check_alive()
    t.check_memory(before, 64 << 20)
    got = 0
    while got < 128:
        pdu = conn.expect(DATA_IN)
        got += pdu.flags & 1
    return 1


CASES = [
    data_goes_every_way_that_can_be_agreed, outstanding_R2Ts_are_within_their_limit,
    all_combinations_of_digests, wrong_header_digest_ends_the_connection_unexecuted,
    wrong_data_digest_writes_nothing, residuals_tell_what_was_too_much_or_too_little,
    any_length_may_be_expected_of_a_short_answer,
    commands_that_fail_swallow_their_data, data_that_was_not_agreed_on_ends_the_connection,
    wrong_DataSN_fails_the_command_only, late_data_of_a_task_that_is_gone_is_thrown_away,
    data_of_one_connection_on_another_ends_it, headers_that_cannot_be_end_the_connection,
    extended_CDBs_arrive_whole, SNACK_is_rejected_and_the_connection_goes_on,
    NOP_Out_comes_back_as_it_was, text_goes_over_several_PDUs,
    cut_off_in_every_PDU_of_full_feature_phase, noise_in_full_feature_phase,
    slow_reader_costs_only_itself, silent_initiators_are_asked_and_dead_ones_dropped,
]
