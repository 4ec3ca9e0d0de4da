# SPDX-License-Identifier: Apache-2.0
"""Logins: who gets in, how, and what the others hear."""
import struct
import time

from harness import ALGORITHM_NAMES, DISK, OUTGOING, SECRET, with_settings
from initiator import (DATA_OUT, FINAL, HOST, IMMEDIATE, LOGIN, NONE, NOP_OUT, REJECT, SCSI_COMMAND,
                       TEXT, Fail, chap_begin, chap_end, chap_response, check, equal, head,
                       parse_text, random_bytes, read_blocks, scsi, text, write_blocks)

NAMES = [("InitiatorName", HOST), ("SessionType", "Normal"), ("TargetName", DISK)]


def refused(t, pairs, status, stage=1, to=3, **how):
    conn = t.connect()
    pdu = conn.login_pdu(pairs, stage, to, **how)
    check(pdu is not None, "closed instead of refused")
    equal(conn.status(pdu), status, "the status")
    conn.expect_closed()
    conn.close()


def login_by_the_security_stage(t):
    conn = t.connect()
    equal(conn.login(DISK, stage=0), 0, "the status")
    conn.alive()


@with_settings("", ("[::1]:0",))
def login_and_data_over_IPv6(t):
    conn = t.login([("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")])
    data = random_bytes(8192)
    equal(write_blocks(conn, 9, data).status, 0, "a write's status")
    equal(read_blocks(conn, 9, 16).data, data, "what was written")


def wrong_names_are_refused_with_the_status_of_the_RFC(t):
    only_mine = [("InitiatorName", HOST), ("TargetName", DISK + "-mine")]
    cases = [
        ([], 0x0207), ([("InitiatorName", HOST)], 0x0207), ([("TargetName", DISK)], 0x0207),
        ([("InitiatorName", HOST), ("TargetName", DISK + "x")], 0x0203),
        ([("InitiatorName", HOST), ("TargetName", "x" * 300)], 0x0200),
        ([("InitiatorName", HOST), ("TargetName", "")], 0x0203),
        (only_mine, 0x0202), (NAMES + [("InitiatorName", HOST)], 0x0200),
        ([("InitiatorName", HOST), ("SessionType", "Other"), ("TargetName", DISK)], 0x0209),
        ([("InitiatorName", "a b"), ("TargetName", DISK)], 0x0200),
        ([("InitiatorName", ""), ("TargetName", DISK)], 0x0200),
        (NAMES + [("SendTargets", "All")], None),
    ]
    for pairs, status in cases:
        if status is not None:
            refused(t, pairs, status)
    conn = t.connect()
    equal(conn.login(DISK + "-mine", initiator="iqn.2026-01.example:only-me"), 0, "the status")
    return len(cases)


def what_is_no_login_is_refused(t):
    wrong_ahs = head(LOGIN | IMMEDIATE, 0x87, 0, words=(1 << 16, 1, 0))
    count = 0
    for opcode in list(range(0x40)):
        if opcode == LOGIN:
            continue
        conn = t.connect()
        conn.send(head(opcode, FINAL, 1))
        for pdu in conn.expect_closed():
            check(pdu.opcode == 0x23 and conn.status(pdu) == 0x020b, "%r" % pdu)
        conn.close()
        count += 1
    for bhs, how in ((wrong_ahs, {"ahs": bytes(8)}), (wrong_ahs, {"length": 8193}),
                     (wrong_ahs, {"length": 0xffffff})):
        conn = t.connect()
        conn.send(bhs, text(NAMES) if "ahs" in how else b"", **how)
        for pdu in conn.expect_closed():
            check(conn.status(pdu), "%r" % pdu)
        conn.close()
        count += 1
    return count


def stages_are_kept(t):
    wrong_flags = [0x80 | 2 << 2 | 3, 0x80 | 3 << 2 | 3, 0x80 | 1 << 2 | 1, 0x80 | 1 << 2,
                   0xc0 | 1 << 2 | 3, 0x80 | 1 << 2 | 2, 0x80 | 0 << 2 | 0, 0x80 | 2]
    for flags in wrong_flags:
        refused(t, NAMES, 0x0200, flags=flags)
    refused(t, NAMES, 0x0205, version=0x0101)
    refused(t, NAMES + [("AuthMethod", "None")], 0x0200)
    refused(t, NAMES + [("HeaderDigest", "None")], 0x0200, stage=0, to=1)
    for change in ("itt", "isid", "cid", "tsih", "stage"):
        conn = t.connect()
        equal(conn.status(conn.login_pdu(NAMES, 1, None)), 0, "the first step's status")
        how = {"itt": {"itt": 9}, "isid": {"isid": 9}, "cid": {"cid": 9}}.get(change, {})
        if change == "tsih":
            conn.tsih = 7
        pdu = conn.login_pdu([], 0 if change == "stage" else 1, 1 if change == "stage" else 3,
                             **how)
        equal(conn.status(pdu), 0x0200, "the status after another " + change)
        conn.expect_closed()
    return len(wrong_flags) + 8


def text_of_a_login_may_come_in_many_PDUs(t):
    raw = text(NAMES + [("HeaderDigest", "None"), ("X-com.example.a", "b" * 200),
                        ("MaxRecvDataSegmentLength", "8192"), ("ImmediateData", "Yes")])
    for size in (3, 7, 64):
        conn = t.connect()
        # All at the front that would take more than the target's bound of requests.
        cut = max(0, len(raw) - size * 40)
        pieces = [raw[:cut]] if cut else []
        pieces += [raw[i:i + size] for i in range(cut, len(raw), size)]
        for piece in pieces[:-1]:
            pdu = conn.login_pdu([], 1, None, flags=0x40 | 1 << 2, raw=piece)
            check(pdu is not None and not conn.status(pdu), "refused: %r" % pdu)
            equal(len(pdu.data), 0, "the length of an answer to a part")
        pdu = conn.login_pdu([], 1, 3, raw=pieces[-1])
        equal(conn.status(pdu), 0, "the status")
        answer = parse_text(pdu.data)
        equal(answer.get("X-com.example.a"), "NotUnderstood", "the answer to an unknown key")
        conn.enter(pdu, [], answer)
        conn.alive()
    # What never ends is ended.
    conn = t.connect()
    for _ in range(100000):
        pdu = conn.login_pdu([], 1, None, flags=0x40 | 1 << 2, raw=b"a" * 1000)
        if pdu is None or conn.status(pdu):
            return 4
    raise Fail("a login of 100 MB goes on")


def malformed_text_is_refused(t):
    for raw in (b"a", b"=b\0", b"a" * 64 + b"=b\0", text(NAMES) + b"no equals sign\0",
                text(NAMES) + b"\xff\xfe=\x01\0", text(NAMES)[:-1], b"\0" * 100 + b"x"):
        conn = t.connect()
        pdu = conn.login_pdu([], 1, 3, raw=raw)
        check(pdu is None or conn.status(pdu) in (0x0200, 0x0207), "%r to %r" % (pdu, raw))
        conn.expect_closed()
    return 7


def every_key_is_negotiated(t):
    """The result of each is the RFC's function of both offers."""
    cases = [
        ("HeaderDigest", "CRC32C", "CRC32C"), ("HeaderDigest", "None,CRC32C", "None"),
        ("HeaderDigest", "X-com.example,CRC32C,None", "CRC32C"), ("HeaderDigest", "MD5", "Reject"),
        ("DataDigest", "CRC32C,None", "CRC32C"), ("DataDigest", "", "Reject"),
        ("MaxConnections", "3", "3"), ("MaxConnections", "0", "Reject"),
        ("MaxConnections", "65536", "Reject"), ("InitialR2T", "No", "No"),
        ("InitialR2T", "Yes", "Yes"), ("InitialR2T", "Maybe", "Reject"),
        ("ImmediateData", "No", "No"), ("ImmediateData", "Yes", "Yes"),
        ("MaxBurstLength", "512", "512"), ("MaxBurstLength", "511", "Reject"),
        ("MaxBurstLength", "0x1000", "4096"), ("MaxBurstLength", "16777216", "Reject"),
        ("FirstBurstLength", "1024", "1024"), ("DefaultTime2Wait", "3", "3"),
        ("DefaultTime2Retain", "3600", "0"), ("MaxOutstandingR2T", "4", "4"),
        ("MaxOutstandingR2T", "-1", "Reject"), ("DataPDUInOrder", "No", "Yes"),
        ("DataSequenceInOrder", "No", "Yes"), ("ErrorRecoveryLevel", "2", "0"),
        ("ErrorRecoveryLevel", "3", "Reject"), ("IFMarker", "Yes", "No"),
        ("OFMarkInt", "2048", "Reject"), ("TaskReporting", "ResponseFence,FastAbort", "FastAbort"),
        ("iSCSIProtocolLevel", "2", "1"), ("TargetAlias", "x", "Reject"),
        ("X-com.example.key", "1", "NotUnderstood"),
    ]
    for key, offer, want in cases:
        conn = t.connect()
        equal(conn.login(DISK, [(key, offer)]), 0, "the status with %s=%s" % (key, offer))
        equal(conn.keys.get(key), want, "the answer to %s=%s" % (key, offer))
        if "Digest" not in key:
            conn.alive()
        conn.close()
    for pairs in ([("MaxRecvDataSegmentLength", "511")], [("MaxRecvDataSegmentLength", "0")],
                  [("MaxRecvDataSegmentLength", "16777216")], [("InitialR2T", "No")] * 2):
        refused(t, NAMES + pairs, 0x0200)
    return len(cases) + 4


# ---- discovery ----

def discovery_shows_each_initiator_its_targets(t):
    for initiator, mine in ((HOST, False), ("iqn.2026-01.example:only-me", True)):
        conn = t.connect()
        equal(conn.login(None, discovery=True, initiator=initiator), 0, "the status")
        conn.text(text([("SendTargets", "All")]))
        data = conn.expect(0x24).data
        names = [p[11:].decode() for p in data.split(b"\0") if p.startswith(b"TargetName=")]
        check(DISK in names, "the target is not listed: %r" % names)
        equal(DISK + "-mine" in names, mine, "whether the other's target is listed")
        address = "TargetAddress=%s:%d,1" % t.portal
        check(address.encode() in data.split(b"\0"), "%s is not listed" % address)
        conn.logout()
        conn.expect(0x26)
        conn.close()
    # What a discovery session cannot do.
    for bhs in (head(SCSI_COMMAND, FINAL, 5), head(2 | IMMEDIATE, 0x81, 5), head(DATA_OUT, FINAL)):
        conn = t.connect()
        equal(conn.login(None, discovery=True), 0, "the status")
        if bhs[0] == DATA_OUT:
            bhs[20:24] = struct.pack(">I", 77)
        conn.send(bhs)
        conn.expect_closed(reject=4)
    return 5


def long_lists_come_in_pieces(t):
    conn = t.connect()
    equal(conn.login(None, [("MaxRecvDataSegmentLength", 512)], discovery=True), 0, "the status")
    conn.text(text([("SendTargets", "All")]))
    whole, pieces = b"", 0
    while True:
        pdu = conn.expect(0x24)
        check(len(pdu.data) <= 512, "a piece of %d bytes" % len(pdu.data))
        whole, pieces = whole + pdu.data, pieces + 1
        if pdu.flags & FINAL:
            break
        check(pdu.ttt != NONE, "a part without a target transfer tag")
        conn.text(b"", itt=pdu.itt, ttt=pdu.ttt)
    equal(pdu.ttt, NONE, "the tag of the last piece")
    check(pieces > 1, "one piece only")
    equal(whole.count(b"TargetName="), 3 + len(ALGORITHM_NAMES), "the number of targets")


# ---- CHAP ----

def every_CHAP_algorithm_one_way_and_mutual(t):
    count = 0
    for algorithm, name in ALGORITHM_NAMES.items():
        for mutual in (False, True):
            conn = t.connect()
            begun = chap_begin(conn, DISK + "-" + name, "5,7,8,6" if mutual else str(algorithm))
            check(isinstance(begun, tuple), "%s: status %r" % (name, begun))
            equal(begun[0], algorithm, "the algorithm")
            check(len(begun[2]) >= 16, "a challenge of %d bytes" % len(begun[2]))
            pairs = [("CHAP_N", "alice"), ("CHAP_R", "0x" + chap_response(
                algorithm, begun[1], SECRET, begun[2]).hex())]
            ours = random_bytes(20)
            if mutual:
                pairs += [("CHAP_I", "77"), ("CHAP_C", "0x" + ours.hex())]
            status, answer = chap_end(conn, pairs)
            equal(status, 0, "the status of %s" % name)
            if mutual:
                equal(answer.get("CHAP_N"), "target", "the target's name")
                equal(bytes.fromhex(answer["CHAP_R"][2:]),
                      chap_response(algorithm, 77, OUTGOING, ours), "the target's response")
            else:
                check("CHAP_R" not in answer, "the target proves itself unasked")
            conn.alive()
            conn.close()
            count += 1
        conn = t.connect()
        others = ",".join(str(a) for a in ALGORITHM_NAMES if a != algorithm)
        equal(chap_begin(conn, DISK + "-" + name, others), 0x0201, "the status of other algorithms")
        count += 1
    return count


def challenged(t, target="-mutual"):
    conn = t.connect()
    begun = chap_begin(conn, DISK + target, "7")
    check(isinstance(begun, tuple), "status %r" % (begun,))
    return (conn,) + begun


def hexed(data):
    return "0x" + data.hex()


def wrong_CHAP_never_gets_in(t):
    def good(c):
        return hexed(chap_response(c[1], c[2], SECRET, c[3]))

    answers = [
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", hexed(random_bytes(32)))],
        lambda c: [("CHAP_N", "bob"), ("CHAP_R", good(c))],
        lambda c: [("CHAP_N", ""), ("CHAP_R", good(c))],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", good(c)[:-2])],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", good(c) + "00")],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", "0x")],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", "0x" + "00" * 1025)],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", "yes")],
        lambda c: [("CHAP_N", "alice")],
        lambda c: [("CHAP_R", good(c))],
        lambda c: [],
        lambda c: [("CHAP_A", "7")],
        lambda c: [("AuthMethod", "None")],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", good(c)), ("CHAP_R", good(c))],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", good(c)), ("CHAP_I", "1")],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", good(c)), ("CHAP_I", "256"), ("CHAP_C", "0x11")],
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", good(c)), ("CHAP_I", "1"), ("CHAP_C", "0x")],
        # Response to an older challenge, the outgoing secret as ours, our name as theirs.
        lambda c: [("CHAP_N", "alice"), ("CHAP_R", hexed(chap_response(c[1], c[2], SECRET,
                                                                       bytes(len(c[3])))))],
        lambda c: [("CHAP_N", "target"), ("CHAP_R", hexed(chap_response(c[1], c[2], OUTGOING,
                                                                        c[3])))],
    ]
    for n, answer in enumerate(answers):
        c = challenged(t)
        status, _ = chap_end(c[0], answer(c))
        check(status in (0x0200, 0x0201), "status %r of answer %d" % (status, n))
        c[0].expect_closed()
    return len(answers)


def reflected_challenge_is_refused(t):
    """RFC 7143, 9.2.1: our own challenge sent back, on this connection."""
    c = challenged(t)
    status, _ = chap_end(c[0], [("CHAP_N", "alice"),
                                ("CHAP_R", hexed(chap_response(c[1], c[2], SECRET, c[3]))),
                                ("CHAP_I", str(c[2])), ("CHAP_C", hexed(c[3]))])
    equal(status, 0x0201, "the status")
    # And one fetched on another connection yields no response that would be right there.
    a, b = challenged(t), challenged(t)
    status, answer = chap_end(b[0], [("CHAP_N", "alice"),
                                     ("CHAP_R", hexed(chap_response(b[1], b[2], SECRET, b[3]))),
                                     ("CHAP_I", str(a[2])), ("CHAP_C", hexed(a[3]))])
    equal(status, 0, "the status")
    status, _ = chap_end(a[0], [("CHAP_N", "alice"), ("CHAP_R", answer["CHAP_R"])])
    equal(status, 0x0201, "the status with the target's own response")
    return 2


def no_downgrade_to_AuthMethod_None(t):
    names = [("InitiatorName", HOST), ("TargetName", DISK + "-one-way")]
    refused(t, names, 0x0201)
    refused(t, names + [("AuthMethod", "None")], 0x0201, stage=0, to=1)
    refused(t, names + [("AuthMethod", "None,KRB5")], 0x0201, stage=0, to=1)
    refused(t, names, 0x0201, stage=0, to=1)
    refused(t, names, 0x0201, stage=0, to=3)
    conn = t.connect()
    pdu = conn.login_pdu(names + [("AuthMethod", "None,CHAP")], 0, 1)
    equal(parse_text(pdu.data).get("AuthMethod"), "CHAP", "AuthMethod")
    equal(pdu.flags & 0x80, 0, "the transit bit before CHAP is over")
    # Mutual CHAP of a target that has nothing to prove itself by.
    c = challenged(t, "-one-way")
    status, _ = chap_end(c[0], [("CHAP_N", "alice"),
                                ("CHAP_R", hexed(chap_response(c[1], c[2], SECRET, c[3]))),
                                ("CHAP_I", "5"), ("CHAP_C", "0x1122334455667788")])
    equal(status, 0x0201, "the status")
    return 7


# ---- sessions and connections ----

def login_after_the_login_ends_the_connection(t):
    conn = t.login()
    conn.send(head(LOGIN | IMMEDIATE, 0x87, 0, words=(1 << 16, 1, 0)), text(NAMES))
    conn.expect_closed(reject=4)


def same_name_and_ISID_stand_for_the_end_of_the_old_session(t):
    old = t.login(isid=7)
    new = t.login(isid=7)
    check(new.tsih != old.tsih, "the session goes on")
    old.expect_closed()
    new.alive()
    other = t.login(isid=8)
    new.alive()
    other.alive()


def unknown_session_has_no_further_connection(t):
    conn = t.login([("MaxConnections", 4)])
    for change in ("tsih", "isid", "name"):
        other = t.connect()
        other.tsih = conn.tsih + (100 if change == "tsih" else 0)
        equal(other.login(DISK, cid=2, isid=2 if change == "isid" else 1,
                          initiator=HOST + "2" if change == "name" else HOST), 0x020a,
              "the status with another " + change)
    conn.alive()
    return 3


@with_settings("max-connections = 12\nmax-connections-per-address = 10\nmax-sessions = 5\n")
def limits_of_sessions_and_connections_hold(t):
    before = t.descriptors()
    conns = [t.login(isid=i) for i in range(4)]
    last = t.login(isid=4)
    refused_one = t.connect()
    equal(refused_one.login(DISK, isid=5), 0x0302, "the status of one session too many")
    refused_one.close()
    last.logout()
    last.expect(0x26)
    last.expect_closed()
    last.close()
    # Its session ends a moment after its connection.
    end = time.time() + 60
    status = 0x0302
    while status == 0x0302 and time.time() < end:
        many = t.connect()
        status = many.login(DISK, [("MaxConnections", 8)], isid=6)
        if status:
            many.close()
    equal(status, 0, "the status once there is room again")
    joined = [many.join(DISK, cid, isid=6) for cid in range(2, 7)]
    over = t.connect()
    check(over.login_pdu(NAMES, 1, 3, isid=9) is None, "the eleventh connection of an address")
    for conn in conns + [many] + joined:
        conn.close()
    t.wait_descriptors(before)
    return 3


@with_settings("login-timeout = 3\n")
def login_that_dawdles_is_ended(t):
    silent, half, slow = t.connect(), t.connect(), t.connect()
    half.write(bytes(head(LOGIN | IMMEDIATE, 0x87, 0))[:20])
    for _ in range(3):
        slow.login_pdu([], 1, None, flags=0x40 | 1 << 2, raw=b"a")
    chap = challenged(t)[0]
    for conn in (silent, half, slow, chap):
        conn.expect_closed()
    return 4


def cut_off_at_every_byte_of_a_login(t):
    conn = t.connect()
    whole = conn.encode(head(LOGIN | IMMEDIATE, 0x87, 0, words=(1 << 16, 1, 0)), text(NAMES))
    conn.close()
    for at in range(0, len(whole), 3):
        conn = t.connect()
        conn.write(whole[:at])
        conn.close()
    return len(range(0, len(whole), 3))


def nothing_but_the_login_is_heard_before_it(t):
    """PDUs right behind the last login request wait for its answer."""
    conn = t.connect()
    bhs = head(LOGIN | IMMEDIATE, 0x87, 0, words=(1 << 16, 1, 0))
    bhs[8:14] = b"\x80\x01\x02\x03\x04\x01"
    nop = conn.encode(head(NOP_OUT | IMMEDIATE, FINAL, 5, words=(NONE, 1, 1)), b"early")
    conn.write(conn.encode(bhs, text(NAMES)) + nop)
    equal(conn.status(conn.expect(0x23)), 0, "the status")
    equal(conn.expect(0x20).data, b"early", "the data of a NOP-In")
    conn.send(head(TEXT | IMMEDIATE, FINAL, 6, words=(NONE, 1, 2)), text([("SendTargets", "All")]))
    pdu = conn.recv()
    check(pdu.opcode in (0x24, REJECT), "%r" % pdu)
    equal(scsi(conn, bytes([0x12, 0, 0, 0, 36, 0]), read=36).status, 0, "INQUIRY")


CASES = [
    login_by_the_security_stage, wrong_names_are_refused_with_the_status_of_the_RFC,
    what_is_no_login_is_refused, stages_are_kept, text_of_a_login_may_come_in_many_PDUs,
    malformed_text_is_refused, every_key_is_negotiated, discovery_shows_each_initiator_its_targets,
    long_lists_come_in_pieces, every_CHAP_algorithm_one_way_and_mutual, wrong_CHAP_never_gets_in,
    reflected_challenge_is_refused, no_downgrade_to_AuthMethod_None,
    login_after_the_login_ends_the_connection,
    same_name_and_ISID_stand_for_the_end_of_the_old_session,
    unknown_session_has_no_further_connection, cut_off_at_every_byte_of_a_login,
    nothing_but_the_login_is_heard_before_it, login_and_data_over_IPv6,
    limits_of_sessions_and_connections_hold, login_that_dawdles_is_ended,
]
