#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Another portal of a target: forwards connections to PORT; killing it cuts them all.

usage: iscsi_proxy.py PORT        prints the port that it listens on
"""
import select
import socket
import sys


def main():
    target = int(sys.argv[1])
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    peer = {}
    while True:
        for s in select.select([listener] + list(peer), [], [])[0]:
            if s is listener:
                a, _ = listener.accept()
                try:
                    b = socket.create_connection(("127.0.0.1", target))
                except OSError:
                    a.close()
                    continue
                for c in (a, b):
                    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peer[a], peer[b] = b, a
                continue
            if s not in peer:
                continue
            try:
                data = s.recv(1 << 18)
                if data:
                    peer[s].sendall(data)
                    continue
            except OSError:
                pass
            other = peer.pop(s)
            peer.pop(other, None)
            s.close()
            other.close()


main()
