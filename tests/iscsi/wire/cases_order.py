# SPDX-License-Identifier: Apache-2.0
"""Order: CmdSN and task tags, several connections, task management, logout; and crowds."""
import time

from harness import DISK, with_settings
from initiator import (CONTINUE, DATA_IN, FINAL, IMMEDIATE, LOGIN, LOGOUT_RESPONSE, NONE, NOP_IN,
                       R2T, READ, SCSI_RESPONSE, TMF_RESPONSE, WRITE, check, clear_ua, equal,
                       finish, head, random_bytes, read_blocks, rw_cdb, scsi, send_bursts,
                       write_blocks)

SOLICITED = [("InitialR2T", "Yes"), ("ImmediateData", "No"), ("MaxBurstLength", 4096),
             ("FirstBurstLength", 512)]
ABORT_TASK, ABORT_TASK_SET, CLEAR_ACA, CLEAR_TASK_SET, LUN_RESET, WARM_RESET = range(1, 7)
OLD = bytes(range(256)) * 2
READY = bytes(6)


# ---- CmdSN and task tags ----

def commands_wait_for_the_missing_one(t):
    """Numbers 2, 3, 1: nothing runs before 1 is there, then all do."""
    conn = t.login()
    first = conn.session.cmd_sn
    later = [conn.command(READY, cmd_sn=first + n) for n in (2, 1)]
    check(conn.silent(), "an answer before its turn")
    conn.alive()	# what is immediate does not wait
    conn.command(READY, cmd_sn=first)
    itts = [conn.expect(SCSI_RESPONSE) for _ in range(3)]
    equal([p.itt for p in itts][1:], later[::-1], "the order of the answers")
    equal(itts[2].exp_cmd_sn, first + 3, "ExpCmdSN")
    conn.session.cmd_sn = first + 3
    # With immediate data that has to be kept meanwhile.
    data = random_bytes(4096)
    first = conn.session.cmd_sn
    write = conn.command(rw_cdb(True, 5, 8), WRITE | FINAL, 4096, data, cmd_sn=first + 1)
    conn.command(READY, cmd_sn=first)
    equal(conn.expect(SCSI_RESPONSE).b3, 0, "the status")
    equal(finish(conn, write, 4096).status, 0, "the write's status")
    conn.session.cmd_sn = first + 2
    equal(read_blocks(conn, 5, 8).data, data, "what was written")
    return 2


def numbers_outside_the_window_are_ignored(t):
    conn = t.login()
    write_blocks(conn, 3, OLD)
    sn = conn.session.cmd_sn
    for wrong in (sn - 1, sn - 100, sn + 100000, sn + 0x7fffffff, sn + 0x80000000):
        conn.command(rw_cdb(True, 3, 1), WRITE | FINAL, 512, bytes(512), cmd_sn=wrong & NONE)
    check(conn.silent(), "an answer to a command outside the window")
    conn.alive()
    equal(read_blocks(conn, 3, 1).data, OLD, "the block")
    return 5


def number_that_is_there_already_is_ignored(t):
    conn = t.login()
    write_blocks(conn, 3, OLD)
    sn = conn.session.cmd_sn
    conn.command(rw_cdb(False, 0, 1), READ | FINAL, 512, cmd_sn=sn + 1)
    conn.command(rw_cdb(True, 3, 1), WRITE | FINAL, 512, bytes(512), cmd_sn=sn + 1)
    conn.command(READY, cmd_sn=sn)
    equal(conn.expect(SCSI_RESPONSE).b3, 0, "the status")
    equal(conn.expect(DATA_IN).flags & 1, 1, "the status bit")
    check(conn.silent(), "an answer to a number that came twice")
    conn.session.cmd_sn = sn + 2
    equal(read_blocks(conn, 3, 1).data, OLD, "the block")


def window_never_shrinks_and_is_kept(t):
    """MaxCmdSN is a promise; a whole window at once is served."""
    conn = t.login()
    itt = conn.nop()
    pdu = conn.expect(NOP_IN)
    equal(pdu.itt, itt, "the ITT")
    count = pdu.max_cmd_sn - pdu.exp_cmd_sn + 1
    check(count >= 32, "a window of %d" % count)
    highest = pdu.max_cmd_sn
    for _ in range(4):
        for _ in range(count):
            conn.command(rw_cdb(False, 0, 1), READ | FINAL, 512)
        for _ in range(count):
            pdu = conn.expect(DATA_IN)
            check((pdu.max_cmd_sn - highest & NONE) < 0x80000000, "MaxCmdSN goes back")
            highest = pdu.max_cmd_sn
    equal(highest - pdu.exp_cmd_sn + 1, count, "the window at the end")


def numbers_wrap_around(t):
    conn = t.connect()
    conn.cmd_sn = 0xfffffffe
    equal(conn.login(DISK), 0, "the status")
    clear_ua(conn)
    data = random_bytes(1024)
    for _ in range(4):
        equal(write_blocks(conn, 1, data).status, 0, "a write's status")
    equal(read_blocks(conn, 1, 2).data, data, "what was written")
    check(conn.cmd_sn < 100, "the number has not wrapped")


def task_tag_in_use_ends_the_connection(t):
    conn = t.login(SOLICITED)
    itt = conn.command(rw_cdb(True, 0, 1), WRITE | FINAL, 512)
    conn.expect(R2T)
    conn.command(READY, itt=itt)
    conn.expect_closed(reject=7)


def task_tag_is_free_once_its_status_is_there(t):
    conn = t.login()
    for _ in range(50):
        conn.command(rw_cdb(False, 0, 1), READ | FINAL, 512, itt=42)
        equal(finish(conn, 42, 512).status, 0, "the status")


def immediate_commands_are_bounded(t):
    """More than the target has room for: Reject, and the connection goes on."""
    conn = t.login(SOLICITED)
    for n in range(100):
        conn.command(rw_cdb(True, n, 1), WRITE | FINAL, 512, immediate=True)
    seen = []
    while len(seen) < 100:
        seen.append(conn.recv())
    r2ts = [p for p in seen if p.opcode == R2T]
    rejects = [p for p in seen if p.opcode == 0x3f]
    check(len(r2ts) >= 8 and rejects and len(r2ts) + len(rejects) == 100,
          "%d R2Ts, %d Rejects" % (len(r2ts), len(rejects)))
    equal({p.b2 for p in rejects}, {6}, "the reasons")
    for pdu in r2ts:
        conn.data_out(pdu.itt, pdu.ttt, 0, 0, bytes(512))
    for _ in r2ts:
        equal(conn.expect(SCSI_RESPONSE).b3, 0, "the status")
    conn.alive()


# ---- several connections ----

def several(t, n, keys=()):
    first = t.login(list(keys) + [("MaxConnections", 8)])
    return [first] + [first.join(DISK, cid) for cid in range(2, n + 1)]


def commands_are_in_order_over_connections(t):
    conns = several(t, 4)
    first = conns[0].session.cmd_sn
    # The latest first, each on another connection.
    itts = {}
    for n in (3, 2, 1):
        data = bytes([n]) * 512
        itts[n] = conns[n].command(rw_cdb(True, 12, 1), WRITE | FINAL, 512, data, cmd_sn=first + n)
        check(conns[n].silent(0.02), "an answer before its turn")
    itt = conns[0].command(rw_cdb(True, 12, 1), WRITE | FINAL, 512, bytes(512), cmd_sn=first)
    equal(finish(conns[0], itt, 512).status, 0, "the status")
    for n in (1, 2, 3):
        equal(finish(conns[n], itts[n], 512).status, 0, "the status on connection %d" % n)
    conns[0].session.cmd_sn = first + 4
    return 4


def data_stays_on_the_commands_connection(t):
    conns = several(t, 3, SOLICITED)
    data = {conn: random_bytes(20 * 512) for conn in conns}
    itts = {conn: conn.command(rw_cdb(True, 100 * n, 20), WRITE | FINAL, 10240)
            for n, conn in enumerate(conns)}
    for conn in reversed(conns):
        equal(finish(conn, itts[conn], 10240, data[conn]).status, 0, "the status")
    for n, conn in enumerate(conns):
        other = conns[n - 1]
        equal(read_blocks(other, 100 * n, 20).data, data[conn], "what was written")
    return 3


def one_connection_logs_out_and_the_rest_goes_on(t):
    conns = several(t, 3)
    itt = conns[2].command(rw_cdb(False, 0, 8), READ | FINAL, 4096)
    conns[2].logout(1, 3)
    r = finish(conns[2], itt, 4096)
    equal(r.status, 0, "the status of what was under way")
    equal(conns[2].expect(LOGOUT_RESPONSE).b2, 0, "the response")
    conns[2].expect_closed()
    equal(read_blocks(conns[1], 0, 1).status, 0, "a read's status")
    # Its number is free again; one may be logged out over another.
    conns[2] = conns[0].join(DISK, 3)
    equal(read_blocks(conns[2], 0, 1).status, 0, "a read's status")
    conns[0].logout(1, 2)
    equal(conns[0].expect(LOGOUT_RESPONSE).b2, 0, "the response")
    conns[1].expect_closed()
    conns[0].logout(1, 77)
    equal(conns[0].expect(LOGOUT_RESPONSE).b2, 1, "the response for a connection that is none")
    conns[0].alive()
    conns[2].alive()
    conns[0].logout(0)
    equal(conns[0].expect(LOGOUT_RESPONSE).b2, 0, "the response")
    conns[2].expect_closed()
    return 4


def nothing_is_recovered_at_level_0(t):
    conns = several(t, 2)
    conns[0].logout(2, 2)
    equal(conns[0].expect(LOGOUT_RESPONSE).b2, 2, "the response to a logout for recovery")
    conns[0].tmf(8, 5)	# TASK REASSIGN
    equal(conns[0].expect(TMF_RESPONSE).b2, 4, "the response to TASK REASSIGN")
    conns[1].sock.close()
    conns[0].expect_closed()
    return 3


def login_with_a_connections_number_stands_for_its_end(t):
    conns = several(t, 2)
    new = conns[0].join(DISK, 2)
    conns[1].expect_closed()
    equal(read_blocks(new, 0, 1).status, 0, "a read's status")
    conns[0].alive()


@with_settings("max-connections-per-session = 3\n")
def connections_of_a_session_are_bounded(t):
    conn = t.login([("MaxConnections", 8)])
    equal(conn.keys["MaxConnections"], "3", "MaxConnections")
    others = [conn.join(DISK, cid) for cid in (2, 3)]
    over = t.connect()
    over.tsih, over.cmd_sn = conn.tsih, conn.cmd_sn
    equal(over.login(DISK, cid=4), 0x0206, "the status of one too many")
    single = t.login(isid=5)
    over = t.connect()
    over.tsih, over.cmd_sn = single.tsih, single.cmd_sn
    equal(over.login(DISK, cid=2, isid=5), 0x0206, "the status where one was agreed on")
    for other in others:
        other.alive()
    return 2


# ---- task management ----

def tmf(conn, function, *args, want=0, **how):
    itt = conn.tmf(function, *args, **how)
    pdu = conn.expect(TMF_RESPONSE)
    equal((pdu.itt, pdu.b2), (itt, want), "ITT and response of function %d" % function)


def waiting_write(conn, lba=200, blocks=8):
    itt = conn.command(rw_cdb(True, lba, blocks), WRITE | FINAL, blocks * 512)
    return itt, conn.expect(R2T)


def abort_of_a_task_with_data_in_flight(t):
    conn = t.login(SOLICITED)
    write_blocks(conn, 200, OLD * 8)
    itt, pdu = waiting_write(conn)
    sn = conn.session.cmd_sn - 1
    ask = conn.tmf(ABORT_TASK, itt, sn)
    check(conn.silent(0.05), "an answer while its data is still on the way")
    send_bursts(conn, itt, pdu.ttt, bytes(4096), 0, 4096, 1024)
    response = conn.expect(TMF_RESPONSE)
    equal((response.itt, response.b2), (ask, 0), "ITT and response")
    equal(read_blocks(conn, 200, 8).data, OLD * 8, "the blocks")
    # Its tag is free again; and what has no task is told.
    conn.command(READY, itt=itt)
    equal(finish(conn, itt).status, 0, "the status")
    tmf(conn, ABORT_TASK, 123456, sn, want=1)
    tmf(conn, ABORT_TASK, itt, sn, want=1)
    # An initiator that sends the rest no more gets its answer all the same.
    itt, pdu = waiting_write(conn)
    conn.tmf(ABORT_TASK, itt, conn.session.cmd_sn - 1)
    equal(conn.expect(TMF_RESPONSE).b2, 0, "the response")
    send_bursts(conn, itt, pdu.ttt, bytes(4096), 0, 4096, 4096)	# late: nobody's
    conn.alive()
    equal(read_blocks(conn, 200, 8).data, OLD * 8, "the blocks")
    return 5


def sets_and_resets_with_data_in_flight(t):
    count = 0
    for function in (ABORT_TASK_SET, CLEAR_TASK_SET, LUN_RESET, WARM_RESET):
        conn, other = t.login(SOLICITED), t.login(SOLICITED, isid=2)
        write_blocks(conn, 200, OLD * 64)
        waiting = [waiting_write(conn, 200 + 8 * n) for n in range(4)]
        elsewhere = waiting_write(other, 260)
        ask = conn.tmf(function)
        check(conn.silent(0.02), "an answer while data is still on the way")
        for itt, pdu in waiting:
            send_bursts(conn, itt, pdu.ttt, bytes(4096), 0, 4096, 2048)
        if function != ABORT_TASK_SET:
            send_bursts(other, elsewhere[0], elsewhere[1].ttt, bytes(4096), 0, 4096, 4096)
        pdu = conn.expect(TMF_RESPONSE)
        equal((pdu.itt, pdu.b2), (ask, 0), "ITT and response of function %d" % function)
        if function == ABORT_TASK_SET:	# of this session only
            equal(after_data(other, elsewhere, OLD * 8), 0, "the other session's status")
        clear_ua(conn)
        equal(read_blocks(conn, 200, 32).data, OLD * 32, "the blocks after function %d" % function)
        conn.close()
        other.close()
        count += 1
    return count


def after_data(conn, waiting, data):
    itt, pdu = waiting
    send_bursts(conn, itt, pdu.ttt, data, 0, len(data), 4096)
    return finish(conn, itt, len(data), seen=1).status


def functions_on_what_is_not_there(t):
    conn = t.login()
    tmf(conn, LUN_RESET, lun=99, want=2)
    for function in (13, 99, 127):
        tmf(conn, function, want=5)
    tmf(conn, CLEAR_ACA, want=5)	# there is no ACA here
    conn.tmf(9, 4711)	# QUERY TASK
    equal(conn.expect(TMF_RESPONSE).b2, 0, "the response to QUERY TASK of no task")
    conn.alive()
    return 6


def abort_of_what_has_not_come_yet(t):
    """RFC 7143, 11.5.1: its number counts as received."""
    conns = several(t, 2)
    sn = conns[0].session.cmd_sn
    later = conns[0].command(READY, cmd_sn=sn + 1)
    conns[0].session.cmd_sn = sn + 2
    conns[0].tmf(ABORT_TASK, 8888, sn)
    # The one behind it runs; the answers may come in any order.
    answers = {p.opcode: p for p in (conns[0].recv(), conns[0].recv())}
    equal(answers[TMF_RESPONSE].b2, 0, "the response")
    equal((answers[SCSI_RESPONSE].itt, answers[SCSI_RESPONSE].b3), (later, 0), "ITT and status")
    # The aborted one now comes after all: outside the window.
    conns[1].command(rw_cdb(True, 0, 1), WRITE | FINAL, 512, bytes(512), itt=8888, cmd_sn=sn)
    check(conns[1].silent(), "an answer to a command that was aborted before it came")
    conns[1].alive()


def held_commands_can_be_aborted(t):
    conn = t.login()
    write_blocks(conn, 7, OLD)
    sn = conn.session.cmd_sn
    held = conn.command(rw_cdb(True, 7, 1), WRITE | FINAL, 512, bytes(512), cmd_sn=sn + 1)
    conn.session.cmd_sn = sn + 2
    tmf(conn, ABORT_TASK, held, sn + 1)
    conn.command(READY, cmd_sn=sn)
    equal(conn.expect(SCSI_RESPONSE).b3, 0, "the status")
    equal(read_blocks(conn, 7, 1).data, OLD, "the block")


# ---- logout ----

def logout_waits_for_what_is_under_way(t):
    conn = t.login()
    for _ in range(20):
        conn.command(rw_cdb(False, 0, 128), READ | FINAL, 65536)
    conn.logout()
    answers = 0
    while True:
        pdu = conn.recv()
        if pdu.opcode == LOGOUT_RESPONSE:
            break
        answers += pdu.flags & 1
    equal((pdu.b2, answers), (0, 20), "response, and reads that were answered before it")
    conn.expect_closed()
    waits = t.login(SOLICITED)
    waiting_write(waits)
    waits.logout()
    equal(waits.expect(LOGOUT_RESPONSE).b2, 0, "the response while data was asked for")
    after = t.login()
    after.write(after.encode(head(6 | IMMEDIATE, FINAL, 5, words=(0, after.cmd_sn))) +
                after.encode(head(IMMEDIATE, FINAL, 6, words=(NONE, after.cmd_sn)), b"late"))
    after.expect_closed()
    return 3


def reservation_ends_with_the_logout(t):
    """RESERVE(6) of a session is gone once its logout is answered, though it keeps its socket."""
    stays = t.login(isid=2)
    for reason in (0, 1):
        conn = t.login()
        equal(scsi(conn, bytes([0x16, 0, 0, 0, 0, 0])).status, 0, "the status of RESERVE(6)")
        equal(scsi(stays, READY).status, 0x18, "the status while it is reserved")
        conn.logout(reason)
        equal(conn.expect(LOGOUT_RESPONSE).b2, 0, "the response")
        equal(scsi(stays, READY).status, 0, "the status once the other one has logged out")
        conn.close()
    return 2


# ---- crowds ----

def login_part(conn):
    """The first PDU of a login that does not go on."""
    bhs = head(LOGIN | IMMEDIATE, CONTINUE | 1 << 2, 0, words=(1 << 16, 1, 0))
    conn.send(bhs, b"InitiatorName=")


def half_open_logins_keep_nobody_out(t):
    """400 of them, from one address and from many; memory is bounded, a good login gets in."""
    t.check_alive()
    before, fds = t.rss(), t.descriptors()
    crowd = []
    for n in range(400):
        conn = t.connect(source="127.0.%d.%d" % (1 + n % 7, 1 + n % 40) if n >= 100 else None)
        if n % 3:
            login_part(conn)
        crowd.append(conn)
        if n % 100 == 99:
            start = time.time()
            t.check_alive()
            check(time.time() - start < 10, "a good login takes %.1f s" % (time.time() - start))
    open_now = t.descriptors() - fds
    check(open_now <= 256 + 8, "%d half-open connections" % open_now)
    t.check_memory(before, 64 << 10, open_now)
    for conn in crowd:
        conn.close()
    t.wait_descriptors(fds)


def storm_of_logins_and_wrong_ones(t):
    """500 logins, right, refused and broken off; afterwards nothing is left of them."""
    t.check_alive()
    fds = t.descriptors()
    for n in range(500):
        conn = t.connect()
        if n % 5 == 0:
            equal(conn.login(DISK, isid=n % 250), 0, "the status")
        elif n % 5 == 1:
            equal(conn.login(DISK + "-one-way", isid=n % 250), 0x0201, "the status")
        elif n % 5 == 2:
            login_part(conn)
        elif n % 5 == 3:
            conn.write(random_bytes(48))
        conn.close()
    t.wait_descriptors(fds)
    before = t.rss()
    for n in range(200):
        conn = t.connect()
        equal(conn.login(DISK, isid=n % 100), 0, "the status")
        conn.close()
    t.wait_descriptors(fds)
    t.check_memory(before, 8 << 20)
    return 700


def memory_of_a_session_is_bounded(t):
    t.check_alive()
    before = t.rss()
    conns = [t.login(isid=n) for n in range(100)]
    t.check_memory(before, 512 << 10, len(conns))
    for conn in conns:
        equal(read_blocks(conn, 0, 1).status, 0, "a read's status")
        conn.close()


@with_settings("memory = 64M\nreactors = 1\n")
def data_buffers_are_bounded_and_nobody_keeps_them(t):
    """Two initiators ask for 256 MiB and send nothing: small commands go on at once, and a
    large one is served when one of them has been thrown out."""
    hoarders = [t.login(SOLICITED, isid=n) for n in range(2)]
    before = t.rss()
    for conn in hoarders:
        for _ in range(16):
            conn.command(rw_cdb(True, 0, 16384), WRITE | FINAL, 8 << 20)
    for _ in range(3):
        t.check_alive()
    t.check_memory(before, 64 << 20)
    conn = t.login([("MaxRecvDataSegmentLength", 262144)], isid=8)
    start = time.time()
    r = read_blocks(conn, 0, 8192)
    check(r.status == 0 and len(r.data) == 4 << 20, "status %d of a large read" % r.status)
    took = time.time() - start
    check(took < 20, "a large read takes %.1f s" % took)
    hoarders[0].expect_closed()


CASES = [
    commands_wait_for_the_missing_one, numbers_outside_the_window_are_ignored,
    number_that_is_there_already_is_ignored, window_never_shrinks_and_is_kept, numbers_wrap_around,
    task_tag_in_use_ends_the_connection, task_tag_is_free_once_its_status_is_there,
    immediate_commands_are_bounded, commands_are_in_order_over_connections,
    data_stays_on_the_commands_connection, one_connection_logs_out_and_the_rest_goes_on,
    nothing_is_recovered_at_level_0, login_with_a_connections_number_stands_for_its_end,
    abort_of_a_task_with_data_in_flight, sets_and_resets_with_data_in_flight,
    functions_on_what_is_not_there, abort_of_what_has_not_come_yet, held_commands_can_be_aborted,
    logout_waits_for_what_is_under_way, reservation_ends_with_the_logout,
    half_open_logins_keep_nobody_out,
    storm_of_logins_and_wrong_ones, memory_of_a_session_is_bounded,
    connections_of_a_session_are_bounded, data_buffers_are_bounded_and_nobody_keeps_them,
]
