# SPDX-License-Identifier: Apache-2.0
"""SIGHUP while initiators are at work: units go and come, initiators are turned out."""
import os
import signal
import struct
import time

from harness import DISK, LUN_BYTES, with_settings
from initiator import (FINAL, HOST, R2T, WRITE, check, clear_ua, equal, finish,
                       read_blocks, rw_cdb, scsi, send_bursts, write_blocks)

SOLICITED = [("InitialR2T", "Yes"), ("ImmediateData", "No")]
ASYNC_MESSAGE, LOGOUT_RESPONSE = 0x32, 0x26
OLD = bytes(range(256)) * 2
NO_UNIT, LUNS_CHANGED = (5, 0x25, 0), (6, 0x3f, 0x0e)


def luns(conn):
    data = scsi(conn, struct.pack(">BBxxxxIxx", 0xa0, 0, 256), read=256).data
    return [data[9 + 8 * n] for n in range(struct.unpack(">I", data[:4])[0] // 8)]


def times_read(t):
    with open(t.log) as f:
        return f.read().count("the configuration was read again")


def reload(t, conn, change, want):
    """SIGHUP with a configuration of which @change makes another; then REPORT LUNS says @want."""
    path, before = os.path.join(t.work, "conf"), times_read(t)
    with open(path) as f:
        conf = f.read()
    with open(path, "w") as f:
        f.write(change(conf))
    t.process.send_signal(signal.SIGHUP)
    end = time.time() + 60
    while times_read(t) == before:
        check(time.time() < end, "the configuration is not read again")
        time.sleep(0.01)
    equal(luns(conn), want, "the LUNs")


def unit_goes_and_comes_under_load(t):
    """Commands with data on the way, and reads, of a unit that goes; its memory goes with them."""
    conn, other = t.login(SOLICITED), t.login(isid=2)
    clear_ua(conn, lun=1)
    write_blocks(conn, 10, OLD * 8, lun=1)
    first, line = ("lun = %s/lun%d,size=%d\n" % (t.work, n, LUN_BYTES) for n in (0, 1))
    before = 0

    def come():
        reload(t, other, lambda conf: conf.replace(first, first + line), [0, 1])

    for n in range(12):
        if n == 4:
            before = t.rss()
        itt = conn.command(rw_cdb(True, 10, 8), WRITE | FINAL, 4096, lun=1)
        r2t = conn.expect(R2T)
        reload(t, other, lambda conf: conf.replace(line, ""), [0])
        # Half of the rounds the unit is there again, under the same number, when the data comes.
        if n % 2:
            come()
        send_bursts(conn, itt, r2t.ttt, bytes(4096), 0, 4096, 2048)
        equal(finish(conn, itt, 4096, seen=1).status, 0x40, "the status of the write")
        if not n % 2:
            equal(scsi(conn, bytes(6)).key(), LUNS_CHANGED, "the unit attention")
            equal(read_blocks(conn, 10, 1, lun=1).key(), NO_UNIT, "the sense of a unit that is gone")
            come()
        clear_ua(conn)
        clear_ua(conn, lun=1)
        equal(read_blocks(conn, 10, 8, lun=1).data, OLD * 8, "the blocks")
    t.check_memory(before, 32 << 10, 8)
    return 12


@with_settings("# of its own: it turns initiators out\n")
def who_may_stay_no_longer_is_asked_to_log_out(t):
    conn, stays = t.login(), t.login(initiator=HOST + "2", isid=2)
    lazy = t.login(isid=3)
    reload(t, stays, lambda conf: conf.replace("initiator = *\n", "initiator = %s2\n" % HOST, 1),
           [0, 1])
    for c in (conn, lazy):
        pdu = c.expect(ASYNC_MESSAGE)
        equal((pdu.raw[36], struct.unpack(">H", pdu.raw[42:44])[0]), (1, 3),
              "the event, and the seconds it is given")
    conn.logout()
    equal(conn.expect(LOGOUT_RESPONSE).b2, 0, "the response")
    conn.expect_closed()
    lazy.expect_closed()	# by itself, after those seconds
    equal(t.connect().login(DISK), 0x0202, "the status of its next login")
    stays.alive()
    reload(t, stays, lambda conf: conf.replace("initiator = %s2\n" % HOST, "initiator = *\n", 1),
           [0, 1])
    return 3


CASES = [unit_goes_and_comes_under_load, who_may_stay_no_longer_is_asked_to_log_out]
