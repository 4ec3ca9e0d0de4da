# SPDX-License-Identifier: Apache-2.0
"""An iSCSI initiator of single PDUs (RFC 7143): it sends what it is told to, wrong or right, and
checks everything that it receives."""
import hashlib
import os
import socket
import struct

NOP_OUT, SCSI_COMMAND, TMF, LOGIN, TEXT, DATA_OUT, LOGOUT, SNACK = 0, 1, 2, 3, 4, 5, 6, 0x10
NOP_IN, SCSI_RESPONSE, TMF_RESPONSE, LOGIN_RESPONSE, TEXT_RESPONSE, DATA_IN = range(0x20, 0x26)
LOGOUT_RESPONSE, R2T, ASYNC, REJECT = 0x26, 0x31, 0x32, 0x3f
IMMEDIATE, FINAL, READ, WRITE, CONTINUE = 0x40, 0x80, 0x40, 0x20, 0x40
NONE = 0xffffffff
HOST = "iqn.2026-01.example:host"
TIMEOUT = 60	# only what hangs takes that long, on whatever machine


class Fail(Exception):
    """What was claimed does not hold."""


def check(condition, what):
    if not condition:
        raise Fail(what)


def equal(got, want, what):
    if got != want:
        raise Fail("%s is %r, expected %r" % (what, got, want))


def _crc_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ (0x82f63b78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = _crc_table()


def crc32c(data):
    crc = 0xffffffff
    for b in data:
        crc = CRC_TABLE[(crc ^ b) & 0xff] ^ (crc >> 8)
    return struct.pack("<I", crc ^ 0xffffffff)


def pad(data):
    return data + bytes(-len(data) % 4)


def head(opcode, flags=FINAL, itt=NONE, lun=0, words=(), low=0):
    """A basic header segment: @low is bytes 2 and 3; @words those from byte 20 on."""
    words = list(words) + [0] * (7 - len(words))
    return bytearray(struct.pack(">BBH4xBB6xI7I", opcode, flags, low, lun >> 8, lun & 0xff, itt,
                                 *words))


class Pdu:
    """One that was received."""

    def __init__(self, raw, data):
        self.raw, self.data = raw, data
        self.opcode, self.flags, self.b2, self.b3 = raw[0], raw[1], raw[2], raw[3]
        self.itt, self.ttt, self.stat_sn, self.exp_cmd_sn, self.max_cmd_sn, self.w36, self.w40, \
            self.w44 = struct.unpack(">8I", raw[16:48])

    def __repr__(self):
        return "PDU 0x%02x flags 0x%02x %s" % (self.opcode, self.flags, self.raw.hex())

    def carries_status(self):
        if self.opcode == R2T or (self.opcode == NOP_IN and self.itt == NONE):
            return False
        return self.opcode != DATA_IN or self.flags & 1


def text(pairs):
    return b"".join(("%s=%s" % p).encode() + b"\0" for p in pairs)


def parse_text(data):
    pairs = [p.decode().split("=", 1) for p in data.split(b"\0") if p]
    check(all(len(p) == 2 for p in pairs), "the text %r is malformed" % data)
    return dict(pairs)


class Conn:
    """A connection.  Sequence numbers that several connections share are in self.session."""

    def __init__(self, portal, source=None):
        family = socket.AF_INET6 if ":" in portal[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(portal)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.portal = portal
        self.header_digest = self.data_digest = False
        self.cmd_sn, self.stat_sn, self.itt = 1, None, 1
        self.tsih = 0
        self.keys = {}		# as agreed: the answers of the target
        self.session = self
        self.queue = []		# received while something else was waited for

    def close(self):
        self.sock.close()

    # ---- bytes and PDUs ----

    def write(self, data):
        self.sock.sendall(data)

    def encode(self, bhs, data=b"", ahs=b"", length=None, bad_header=False, bad_data=False):
        bhs = bytearray(bhs)
        bhs[4] = len(ahs) // 4
        bhs[5:8] = struct.pack(">I", len(data) if length is None else length)[1:]
        out = bytes(bhs) + ahs
        if self.header_digest:
            crc = crc32c(out)
            out += bytes(b ^ bad_header for b in crc)
        out += pad(data)
        if self.data_digest and data:
            out += bytes(b ^ bad_data for b in crc32c(pad(data)))
        return out

    def send(self, bhs, data=b"", **how):
        self.write(self.encode(bhs, data, **how))

    def read(self, n):
        """n bytes, or None at the end of the stream."""
        parts = []
        while n:
            try:
                part = self.sock.recv(n)
            except ConnectionResetError:
                return None
            except socket.timeout:
                raise Fail("the target does not answer within %d s" % TIMEOUT)
            if not part:
                return None
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def recv(self):
        """The next PDU, or None if the target has closed the connection."""
        if self.queue:
            return self.queue.pop(0)
        raw = self.read(48)
        if raw is None:
            return None
        check(raw[4] == 0, "a target sends no additional header segments")
        if self.header_digest:
            equal(self.read(4), crc32c(raw), "the header digest")
        length = int.from_bytes(raw[5:8], "big")
        check(length <= int(self.keys.get("ours", 8192)), "a data segment of %d bytes" % length)
        data = self.read(length + -length % 4) if length else b""
        check(data is not None, "a PDU ends in the middle")
        if self.data_digest and length:
            equal(self.read(4), crc32c(data), "the data digest")
        pdu = Pdu(raw, data[:length])
        if self.stat_sn is not None and (pdu.opcode != DATA_IN or pdu.carries_status()):
            equal(pdu.stat_sn, self.stat_sn, "StatSN of %r" % pdu)
        if pdu.carries_status():
            self.stat_sn = pdu.stat_sn + 1 & NONE
        return pdu

    def expect(self, opcode):
        pdu = self.recv()
        check(pdu is not None, "closed, where opcode 0x%02x was expected" % opcode)
        check(pdu.opcode == opcode, "%r, where opcode 0x%02x was expected" % (pdu, opcode))
        return pdu

    def expect_closed(self, reject=None):
        """The target ends the connection; perhaps it says why with a Reject."""
        seen = []
        while True:
            pdu = self.recv()
            if pdu is None:
                break
            seen.append(pdu)
        if reject is not None:
            reasons = [p.b2 for p in seen if p.opcode == REJECT]
            check(reject in reasons, "no Reject 0x%02x before the end: %r" % (reject, seen))
        return seen

    def silent(self, seconds=0.05):
        """Nothing is received for that long."""
        if self.queue:
            return False
        self.sock.settimeout(seconds)
        try:
            return not self.sock.recv(1, socket.MSG_PEEK) and False
        except socket.timeout:
            return True
        finally:
            self.sock.settimeout(TIMEOUT)

    def next_itt(self):
        self.session.itt += 1
        return self.session.itt

    def next_cmd_sn(self):
        self.session.cmd_sn = self.session.cmd_sn + 1 & NONE
        return self.session.cmd_sn - 1 & NONE

    # ---- login ----

    def login_pdu(self, pairs, stage, to, cid=1, isid=1, flags=None, itt=0, version=0, raw=None):
        """One login request and its answer.  @to None: no transit."""
        bhs = head(LOGIN | IMMEDIATE, (stage << 2 | (0x80 | to if to is not None else 0))
                   if flags is None else flags, itt,
                   words=(cid << 16, self.cmd_sn, self.stat_sn or 0), low=version)
        bhs[8:16] = b"\x80\x01\x02\x03\x04" + bytes([isid]) + struct.pack(">H", self.tsih)
        self.send(bhs, text(pairs) if raw is None else raw)
        pdu = self.recv()
        if pdu is None:
            return None
        equal(pdu.opcode, LOGIN_RESPONSE, "the opcode of the answer to a login")
        return pdu

    @staticmethod
    def status(pdu):
        return pdu.w36 >> 16

    def login(self, target, keys=(), initiator=HOST, cid=1, isid=1, discovery=False, stage=1):
        """Straight to full feature phase.  Returns the status."""
        pairs = [("InitiatorName", initiator),
                 ("SessionType", "Discovery" if discovery else "Normal")]
        if target:
            pairs.append(("TargetName", target))
        keys = list(keys)
        if stage == 0:
            pairs.append(("AuthMethod", "None"))
            pdu = self.login_pdu(pairs, 0, 1, cid, isid)
            check(pdu is not None, "closed during login")
            if self.status(pdu):
                return self.status(pdu)
            equal(pdu.flags, 0x81, "the flags of the answer that leaves the security stage")
            pairs = []
        pdu = self.login_pdu(pairs + keys, 1, 3, cid, isid)
        check(pdu is not None, "closed during login")
        if self.status(pdu):
            return self.status(pdu)
        answer = parse_text(pdu.data)
        equal(pdu.flags, 0x87, "the flags of the last login response")
        self.enter(pdu, keys, answer)
        return 0

    def enter(self, pdu, keys, answer):
        """Full feature phase as agreed."""
        self.tsih = struct.unpack(">H", pdu.raw[14:16])[0]
        check(self.tsih, "a session without a TSIH")
        offered = dict(keys)
        self.keys = dict(answer)
        self.keys["ours"] = offered.get("MaxRecvDataSegmentLength", 8192)
        self.header_digest = answer.get("HeaderDigest") == "CRC32C"
        self.data_digest = answer.get("DataDigest") == "CRC32C"

    def value(self, key, preset):
        value = self.session.keys.get(key, preset)
        if isinstance(preset, bool):
            return value if isinstance(value, bool) else value == "Yes"
        return int(value) if value not in ("Irrelevant", "Reject") else preset

    def join(self, target, cid, **how):
        """A further connection of this one's session."""
        other = Conn(self.portal)
        other.tsih = self.tsih
        other.cmd_sn = self.cmd_sn
        equal(other.login(target, cid=cid, **how), 0, "the status of a further connection's login")
        other.session = self.session
        return other

    # ---- requests ----

    def command_bhs(self, cdb, flags, edtl, lun=0, itt=None, cmd_sn=None, immediate=False):
        itt = self.next_itt() if itt is None else itt
        if cmd_sn is None:
            cmd_sn = self.session.cmd_sn if immediate else self.next_cmd_sn()
        bhs = head(SCSI_COMMAND | (IMMEDIATE if immediate else 0), flags, itt, lun,
                   (edtl, cmd_sn, self.stat_sn or 0))
        bhs[32:48] = cdb[:16].ljust(16, b"\0")
        return bhs

    def command(self, cdb, flags=FINAL, edtl=0, data=b"", **how):
        """Sends a SCSI Command; returns its ITT."""
        pdu_how = {k: how.pop(k) for k in ("ahs", "length", "bad_header", "bad_data") if k in how}
        bhs = self.command_bhs(cdb, flags, edtl, **how)
        self.send(bhs, data, **pdu_how)
        return struct.unpack(">I", bhs[16:20])[0]

    def data_out(self, itt, ttt, sn, offset, data, final=True, **how):
        self.send(head(DATA_OUT, FINAL if final else 0, itt,
                       words=(ttt, 0, self.stat_sn or 0, 0, sn, offset)), data, **how)

    def nop(self, data=b"", itt=None, ttt=NONE, immediate=True, **how):
        itt = self.next_itt() if itt is None else itt
        sn = self.session.cmd_sn if immediate else self.next_cmd_sn()
        self.send(head(NOP_OUT | (IMMEDIATE if immediate else 0), FINAL, itt,
                       words=(ttt, sn, self.stat_sn or 0)), data, **how)
        return itt

    def tmf(self, function, ref_itt=NONE, ref_sn=0, lun=0):
        itt = self.next_itt()
        self.send(head(TMF | IMMEDIATE, FINAL | function, itt, lun,
                       (ref_itt, self.session.cmd_sn, self.stat_sn or 0, ref_sn)))
        return itt

    def logout(self, reason=0, cid=1):
        itt = self.next_itt()
        self.send(head(LOGOUT | IMMEDIATE, FINAL | reason, itt,
                       words=(cid << 16, self.session.cmd_sn, self.stat_sn or 0)))
        return itt

    def text(self, data, flags=FINAL, itt=None, ttt=NONE, **how):
        itt = self.next_itt() if itt is None else itt
        self.send(head(TEXT | IMMEDIATE, flags, itt,
                       words=(ttt, self.session.cmd_sn, self.stat_sn or 0)), data, **how)
        return itt

    def alive(self):
        """The connection still serves: a NOP comes back."""
        itt = self.nop(b"are you there")
        while True:
            pdu = self.recv()
            check(pdu is not None, "the connection is closed")
            if pdu.opcode == NOP_IN and pdu.itt == itt:
                equal(pdu.data, b"are you there", "the data of a NOP-In")
                return
            self.queue.append(pdu)
            check(len(self.queue) < 1000, "no answer to a NOP")


# ---- whole commands ----

def rw_cdb(write, lba, blocks):
    return struct.pack(">BxQIxx", 0x8a if write else 0x88, lba, blocks)


class Result:
    def __init__(self):
        self.status, self.data, self.sense, self.flags, self.residual = None, b"", b"", 0, 0
        self.r2ts = []

    def key(self):
        """Sense key, ASC and ASCQ."""
        if len(self.sense) < 14:
            return None
        return self.sense[2] & 0xf, self.sense[12], self.sense[13]


def send_bursts(conn, itt, ttt, data, at, end, most):
    sn = 0
    while at < end:
        n = min(most, end - at)
        conn.data_out(itt, ttt, sn, at, data[at:at + n], at + n == end)
        at, sn = at + n, sn + 1


def finish(conn, itt, edtl=0, data=b"", seen=0):
    """Collects a command's answers until its status, checking their order and limits.
    @seen: R2Ts that the caller has taken already."""
    r = Result()
    burst, data_sn, out_at = 0, seen, None
    burst_max = conn.value("MaxBurstLength", 262144)
    most = int(conn.keys.get("MaxRecvDataSegmentLength", 8192))
    while r.status is None:
        pdu = conn.recv()
        check(pdu is not None, "the connection is closed during a command")
        check(pdu.opcode in (DATA_IN, R2T, SCSI_RESPONSE), "%r during a command" % pdu)
        equal(pdu.itt, itt, "the ITT of an answer")
        if pdu.opcode == DATA_IN:
            equal(pdu.w36, data_sn, "DataSN")
            equal(pdu.w40, len(r.data), "the offset of Data-In")
            data_sn += 1
            r.data += pdu.data
            burst += len(pdu.data)
            check(burst <= burst_max, "a Data-In sequence longer than MaxBurstLength")
            check(len(r.data) <= edtl, "more data than there is room for")
            if burst == burst_max:
                check(pdu.flags & FINAL, "a full burst that is not final")
            burst = 0 if pdu.flags & FINAL else burst
            if pdu.flags & 1:
                check(pdu.flags & FINAL, "status with a Data-In that is not final")
                r.status, r.flags, r.residual = pdu.b3, pdu.flags & 6, pdu.w44
        elif pdu.opcode == R2T:
            equal(pdu.w36, data_sn, "R2TSN")
            check(0 < pdu.w44 <= burst_max, "an R2T for %d bytes" % pdu.w44)
            check(pdu.w40 + pdu.w44 <= edtl, "an R2T beyond the transfer")
            check(out_at is None or pdu.w40 == out_at, "an R2T out of order")
            data_sn += 1
            out_at = pdu.w40 + pdu.w44
            r.r2ts.append((pdu.w40, pdu.w44))
            send_bursts(conn, itt, pdu.ttt, data, pdu.w40, out_at, most)
        else:
            equal(pdu.w36, data_sn, "ExpDataSN")
            r.status, r.flags, r.residual = pdu.b3, pdu.flags & 6, pdu.w44
            equal(pdu.b2, 0, "the response code")
            if pdu.data:
                n = int.from_bytes(pdu.data[:2], "big")
                r.sense = pdu.data[2:2 + n]
    return r


def scsi(conn, cdb, read=0, write=None, lun=0, unsolicited=True):
    """A whole command, as an initiator that uses what was negotiated."""
    if write is None:
        itt = conn.command(cdb, FINAL | (READ if read else 0), read, lun=lun)
        return finish(conn, itt, read)
    edtl = len(write)
    most = int(conn.keys.get("MaxRecvDataSegmentLength", 8192))
    first = min(edtl, conn.value("FirstBurstLength", 65536))
    imm = min(first, most) if conn.value("ImmediateData", True) else 0
    more = unsolicited and not conn.value("InitialR2T", True) and imm < first
    itt = conn.command(cdb, WRITE | (0 if more else FINAL), edtl, write[:imm], lun=lun)
    if more:
        send_bursts(conn, itt, NONE, write, imm, first, most)
    return finish(conn, itt, edtl, write)


def clear_ua(conn, lun=0):
    for _ in range(8):
        if scsi(conn, bytes(6), lun=lun).status == 0:
            return
    raise Fail("the unit is not ready")


def write_blocks(conn, lba, data, **how):
    return scsi(conn, rw_cdb(True, lba, len(data) // 512), write=data, **how)


def read_blocks(conn, lba, blocks, **how):
    return scsi(conn, rw_cdb(False, lba, blocks), read=blocks * 512, **how)


# ---- CHAP ----

ALGORITHMS = {5: hashlib.md5, 6: hashlib.sha1, 7: hashlib.sha256, 8: hashlib.sha3_256}


def chap_response(algorithm, ident, secret, challenge):
    return ALGORITHMS[algorithm](bytes([ident]) + secret + challenge).digest()


def chap_begin(conn, target, algorithms, initiator=HOST, isid=1):
    """Up to the target's challenge.  Returns (algorithm, id, challenge), or the status."""
    pdu = conn.login_pdu([("InitiatorName", initiator), ("SessionType", "Normal"),
                          ("TargetName", target), ("AuthMethod", "CHAP")], 0, None, isid=isid)
    if conn.status(pdu):
        return conn.status(pdu)
    equal(parse_text(pdu.data).get("AuthMethod"), "CHAP", "AuthMethod")
    pdu = conn.login_pdu([("CHAP_A", algorithms)], 0, None, isid=isid)
    if conn.status(pdu):
        return conn.status(pdu)
    a = parse_text(pdu.data)
    return int(a["CHAP_A"]), int(a["CHAP_I"]), bytes.fromhex(a["CHAP_C"][2:])


def chap_end(conn, pairs, isid=1):
    """Answers the challenge and goes on to full feature phase.  Returns (status, answer)."""
    pdu = conn.login_pdu(pairs, 0, 1, isid=isid)
    if pdu is None or conn.status(pdu):
        return (conn.status(pdu) if pdu else None), {}
    answer = parse_text(pdu.data)
    equal(pdu.flags, 0x81, "the flags of the answer that leaves the security stage")
    pdu = conn.login_pdu([], 1, 3, isid=isid)
    if not conn.status(pdu):
        conn.enter(pdu, [], parse_text(pdu.data))
    return conn.status(pdu), answer


def random_bytes(n):
    return os.urandom(n)
