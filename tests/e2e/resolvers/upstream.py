"""A name server for all names, by dnspython: `upstream.py ADDRESS` answers for a few, and says of all others that there are none."""

from __future__ import annotations

import itertools
import socketserver
import sys
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

ALIASES = [f"an-alias-with-a-name-as-long-as-clouds-have-{n}.corp.example." for n in range(7)]
RECORDS = {
    "db.corp.example.": {"A": ["192.0.2.7"]},
    "far.example.": {"A": ["192.0.2.8"]},
    "six.corp.example.": {"AAAA": ["2001:db8::7"]},
    "many.corp.example.": {"CNAME": ALIASES[:1]},
    **{name: {"CNAME": [target]} for name, target in itertools.pairwise(ALIASES)},
    ALIASES[-1]: {"A": [f"192.0.2.{n}" for n in range(100, 120)]},
}
SOA = "ns.example. hostmaster.example. 1 7200 1800 86400 60"


def answer(query: dns.message.Message) -> dns.message.Message:
    """The response, with aliases followed."""
    response = dns.message.make_response(query, recursion_available=True)
    question = query.question[0]
    type_ = dns.rdatatype.to_text(question.rdtype)
    name = question.name.to_text().lower()
    while own := RECORDS.get(name):
        kind = type_ if type_ in own else "CNAME"
        if kind not in own:
            break
        response.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, own[kind]))
        if kind == type_:
            return response
        name = own[kind][0]
    response.authority.append(dns.rrset.from_text(".", 60, "IN", "SOA", SOA))
    response.set_rcode(dns.rcode.NOERROR if name in RECORDS else dns.rcode.NXDOMAIN)
    return response


class Datagrams(socketserver.BaseRequestHandler):
    """A question of one datagram."""

    def handle(self) -> None:
        query = dns.message.from_wire(self.request[0])
        self.request[1].sendto(answer(query).to_wire(max_size=query.payload or 512), self.client_address)


class Connections(socketserver.StreamRequestHandler):
    """Questions of a connection."""

    def handle(self) -> None:
        while head := self.rfile.read(2):
            response = answer(dns.message.from_wire(self.rfile.read(int.from_bytes(head, "big")))).to_wire()
            self.wfile.write(len(response).to_bytes(2, "big") + response)


def main() -> None:
    """Serve by UDP and TCP."""
    where = (sys.argv[1], 53)
    connections = socketserver.ThreadingTCPServer(where, Connections)
    threading.Thread(target=connections.serve_forever, daemon=True).start()
    socketserver.ThreadingUDPServer(where, Datagrams).serve_forever()


if __name__ == "__main__":
    main()
