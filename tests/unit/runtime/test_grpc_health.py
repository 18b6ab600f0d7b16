"""grpc.health.v1.Health: both sides of a call without a network, and what answers mean."""

from __future__ import annotations

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podplane.runtime import grpc_health as grpc
from podplane.runtime.grpc_health import Check, Outcome, Serving

STATES = {"": grpc.SERVING, "ill": grpc.NOT_SERVING, "new": 3, "odd": 0, "later": 77}


def call(service: str, size: int = 1 << 16) -> Outcome:
    """A call between the two sides, in pieces of this size."""
    client, server = Check("10.0.0.1:5000", service, "kube-probe/1.36"), Serving(STATES.get)
    for _ in range(1000):
        if client.outcome is not None:
            return client.outcome
        for piece in pieces(client.pending(), size):
            assert server.receive(piece)
        for piece in pieces(server.pending(), size):
            client.receive(piece)
    raise AssertionError("it does not end")


def pieces(data: bytes, size: int) -> list[bytes]:
    """The data, cut."""
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 1 << 16])
@pytest.mark.parametrize(
    ("service", "failure"),
    [
        ("", ""),
        ("ill", 'service unhealthy (responded with "NOT_SERVING")'),
        ("new", 'service unhealthy (responded with "SERVICE_UNKNOWN")'),
        ("odd", 'service unhealthy (responded with "UNKNOWN")'),
        ("later", 'service unhealthy (responded with "77")'),
        ("other", "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
    ],
)
def test_a_call(service: str, failure: str, size: int) -> None:
    assert grpc.failure(call(service, size)) == failure


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_a_service_may_have_any_name(name: str) -> None:
    assert grpc.service_of(grpc.unframed(grpc.framed(grpc.request(name)))) == name


@given(st.integers(0, 2**31 - 1))
def test_a_status_survives(status: int) -> None:
    assert grpc.status_of(grpc.response(status)) == status


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for read in (grpc.service_of, grpc.status_of, grpc.unframed):
        try:
            read(data)
        except grpc.Malformed:
            pass


def test_fields_that_nobody_knows_are_passed_over() -> None:
    others = b"\x10\x05" + b"\x1a\x02hi" + b"\x21" + b"x" * 8 + b"\x2d" + b"x" * 4
    assert grpc.service_of(others + grpc.request("a")) == "a"


@given(st.binary(min_size=1, max_size=400))
def test_any_bytes_end_a_call_or_are_waited_for(data: bytes) -> None:
    client, server = Check("h", "", "x"), Serving(STATES.get)
    client.receive(data)
    client.receive(b"")
    assert client.outcome is not None
    server.receive(data)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/grpc.health.v1.Health/Watch", "unimplemented"),
        ("/grpc.health.v1.Health/List", "unknown method List for service grpc.health.v1.Health"),
        ("/other.Service/Check", "unknown service other.Service"),
    ],
)
def test_what_is_not_served_is_said(path: str, message: str) -> None:
    outcome = Serving(STATES.get).outcome(path, grpc.framed(b""))
    assert outcome == Outcome(grpc.UNIMPLEMENTED, message)
    begin = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
    assert grpc.failure(outcome) == begin + message


def test_a_request_that_is_none_is_refused() -> None:
    assert Serving(STATES.get).outcome(grpc.CHECK, b"nonsense").code == grpc.INTERNAL


@pytest.mark.parametrize(
    ("said", "data", "failure"),
    [
        ({":status": "404", "content-type": "text/plain"}, b"", "error: this server does not implement"),
        ({":status": "503"}, b"", "rpc error: code = Unavailable desc = unexpected HTTP status code received from server: 503"),
        ({":status": "200", "grpc-status": "16", "grpc-message": "log%20in"}, b"", "code = Unauthenticated desc = log in"),
        ({":status": "200", "grpc-status": "99"}, b"", "code = Code(99)"),
        ({":status": "200", "grpc-status": "0"}, b"\1\0\0\0\0", "code = Internal"),
        ({}, b"", "code = Unknown"),
        ({":status": "5" * 5000}, b"", "code = Unknown"),
        ({":status": "200", "grpc-status": "-1"}, b"", "code = Code(4294967295)"),
        ({":status": "200", "grpc-status": ""}, b"", 'code = Internal desc = transport: malformed grpc-status: ""'),
        (
            {":status": "200", "grpc-status": "2147483648"},
            b"",
            'code = Internal desc = transport: malformed grpc-status: "2147483648"',
        ),
        ({":status": "200", "grpc-status": "5" * 5000}, b"", f'desc = transport: malformed grpc-status: "{"5" * 80}"'),
    ],
)
def test_what_an_answer_means(said: dict[str, str], data: bytes, failure: str) -> None:
    assert failure in grpc.failure(grpc.answer(said, data))


def answered(headers: list[tuple[bytes, bytes]], data: bytes, trailers: list[tuple[bytes, bytes]]) -> tuple[Check, bytes]:
    """A call to a server that sends what it likes, and what it sent."""
    wild = h2.config.H2Configuration(
        client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding=None
    )
    client, server = Check("h", "", "x"), h2.connection.H2Connection(wild)
    server.initiate_connection()
    sent = server.data_to_send()
    server.receive_data(client.pending())
    client.receive(sent)
    server.receive_data(client.pending())
    server.send_headers(1, [(b":status", b"200"), *headers])
    server.send_data(1, data)
    server.send_headers(1, trailers or [(b"x", b"y")], end_stream=True)
    return client, server.data_to_send()


def test_a_header_that_is_no_utf_8() -> None:
    client, sent = answered([(b"x-odd", b"\xff\xfe")], b"", [(b"grpc-status", b"7"), (b"grpc-message", b"\xff")])
    client.receive(sent)
    assert client.outcome == Outcome(7, "\ufffd")
    server = Serving(STATES.get)
    asking = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    asking.initiate_connection()
    headers = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/\xff"), (b":authority", b"h")]
    asking.send_headers(1, [*headers, (b"content-type", b"application/grpc")], end_stream=True)
    assert server.receive(asking.data_to_send())


NAMES = st.sampled_from([b"grpc-status", b"grpc-message", b"content-type", b"content-length", b":status", b"te"])
FIELDS = st.lists(st.tuples(NAMES | st.binary(min_size=1, max_size=9), st.binary(max_size=20)), max_size=4)


@given(FIELDS, st.binary(max_size=20), FIELDS, st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3))
def test_any_answer_ends_a_call(
    headers: list[tuple[bytes, bytes]], data: bytes, trailers: list[tuple[bytes, bytes]], faults: list[tuple[int, int]]
) -> None:
    client, sent = answered(headers, data, trailers)
    changed = bytearray(sent)
    for at, byte in faults:
        changed[at % len(sent)] = byte
    client.receive(bytes(changed))
    client.receive(b"")
    assert client.outcome is not None
    assert isinstance(grpc.failure(client.outcome), str)


def test_a_server_that_speaks_http_1_is_never_connected() -> None:
    client = Check("h", "", "x")
    client.receive(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    client.receive(b"")
    assert not client.connected
    assert client.outcome is not None


def test_a_request_without_the_content_type_of_grpc() -> None:
    server = Serving(STATES.get)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    client.initiate_connection()
    headers = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h")]
    client.send_headers(1, headers, end_stream=True)
    assert server.receive(client.data_to_send())
    events = client.receive_data(server.pending())
    found = next(event for event in events if isinstance(event, h2.events.ResponseReceived))
    assert dict(found.headers)[":status"] == "415"  # type: ignore[index]  # text, as it was asked for


@pytest.mark.parametrize(
    "frame", ["000000040000000000", "000000040100000000", "000000ff0000000000"], ids=["settings", "acknowledged", "unknown"]
)
def test_frames_without_end_end_a_call(frame: str) -> None:
    check, settings = Check("10.0.0.1:5000", "", "kube-probe/1.36"), bytes.fromhex("000000040000000000")
    check.receive(settings)
    check.pending()
    check.receive(bytes.fromhex(frame) * 7000)
    assert check.outcome == Outcome(grpc.UNAVAILABLE, f"the answer has more than {grpc.MAX_EVENTS} frames")
    assert check.connected
    assert len(check.pending()) < 9 * (grpc.MAX_EVENTS + grpc.PIECE_BYTES), "what comes after that is not answered"
