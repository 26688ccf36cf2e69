"""The answer reader against h11, an independent implementation, with the bytes cut in every possible way."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import zlib

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.protocol.store.http1 import (
    CHUNK_LINE_BYTES_MAX,
    HEAD_BYTES_MAX,
    AnswerReader,
    MalformedAnswer,
    TruncatedAnswer,
)

names = st.text(alphabet="abcXYZ-09_", min_size=1, max_size=12).map(lambda name: f"x-{name}")
values = st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
statuses = st.sampled_from([200, 201, 400, 404, 409, 413, 429, 503])


def written_by_h11(status: int, headers: list[tuple[str, str]], parts: list[bytes], chunked: bool) -> bytes:
    server = h11.Connection(our_role=h11.SERVER)
    server.receive_data(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    while not isinstance(server.next_event(), h11.EndOfMessage):
        pass
    framing = ("transfer-encoding", "chunked") if chunked else ("content-length", str(sum(map(len, parts))))
    wire = server.send(h11.Response(status_code=status, headers=[*headers, framing]))
    for part in parts:
        wire += server.send(h11.Data(data=part))
    return wire + server.send(h11.EndOfMessage())


def read(wire: bytes, cuts: list[int], method: str = "GET") -> AnswerReader:
    reader = AnswerReader(method)
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        reader.feed(wire[begin:end])
    return reader


@given(
    statuses,
    st.lists(st.tuples(names, values), max_size=5),
    st.lists(st.binary(min_size=1, max_size=200), max_size=5),
    st.booleans(),
    st.lists(st.integers(min_value=0), max_size=20),
)
def test_reads_what_h11_writes_however_the_bytes_are_cut(
    status: int, headers: list[tuple[str, str]], parts: list[bytes], chunked: bool, cuts: list[int]
) -> None:
    reader = read(written_by_h11(status, headers, parts, chunked), cuts)
    assert reader.complete
    assert reader.status == status
    assert reader.body() == b"".join(parts)
    assert reader.keep_alive
    for name, value in headers:
        assert value.strip() in reader.headers[name.lower()]


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=5))
def test_arbitrary_bytes_are_an_answer_or_a_clear_error(wire: bytes, cuts: list[int]) -> None:
    with contextlib.suppress(MalformedAnswer):
        read(wire, cuts)


@given(st.data())
def test_a_mutilated_answer_is_an_answer_or_a_clear_error(data: st.DataObject) -> None:
    wire = bytearray(written_by_h11(200, [("x-a", "b")], [b"hello", b"world"], chunked=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        reader = read(bytes(wire), [data.draw(st.integers(0, 500))])
        reader.end()
        reader.body()
    except (MalformedAnswer, TruncatedAnswer):
        pass


@given(st.integers(min_value=0, max_value=200), st.booleans())
def test_an_answer_cut_short_is_truncated_and_never_a_shorter_answer(length: int, chunked: bool) -> None:
    wire = written_by_h11(200, [], [b"a" * 60, b"b" * 60], chunked)
    if length >= len(wire):
        length = len(wire) - 1
    reader = AnswerReader("GET")
    reader.feed(wire[:length])
    assert not reader.complete
    with pytest.raises(TruncatedAnswer):
        reader.end()


def test_interim_answers_are_skipped() -> None:
    reader = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", [30])
    assert reader.complete
    assert reader.status == 204
    assert reader.body() == b""


def test_an_answer_to_head_has_no_body_whatever_its_length_says() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", [], method="HEAD")
    assert reader.complete
    assert reader.keep_alive


def test_without_a_length_the_connection_says_the_end() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\n\r\nall of it", [])
    assert not reader.complete
    reader.end()
    assert reader.body() == b"all of it"
    assert not reader.keep_alive


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n", True),
    ],
)
def test_the_server_decides_whether_the_connection_lives(head: bytes, reusable: bool) -> None:
    assert read(head + b"content-length: 2\r\n\r\nok", []).keep_alive is reusable


def test_bytes_after_the_answer_end_the_trust_in_the_connection() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", [])
    assert reader.complete
    assert reader.body() == b"ok"
    assert not reader.keep_alive


def test_a_length_beside_chunks_is_read_as_chunks_and_not_reused() -> None:
    reader = read(
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nt: 1\r\n\r\n",
        [],
    )
    assert reader.body() == b"ok"
    assert not reader.keep_alive


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20x OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded: yes\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0x10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1_0\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * (CHUNK_LINE_BYTES_MAX + 1),
    ],
)
def test_what_is_no_answer_is_said_so(wire: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        read(wire, [])


def test_an_endless_body_is_bounded() -> None:
    reader = AnswerReader("GET", body_bytes_max=10)
    with pytest.raises(MalformedAnswer, match="larger than 10 bytes"):
        reader.feed(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11)


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_bodies_are_unpacked(coding: str, pack: object) -> None:
    packed = pack(b"plain" * 100)  # type: ignore[operator]
    wire = f"HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {len(packed)}\r\n\r\n".encode() + packed
    assert read(wire, [70]).body() == b"plain" * 100


def test_a_packed_bomb_and_a_broken_package_are_refused() -> None:
    bomb = gzip.compress(b"0" * 100_000)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
    reader = AnswerReader("GET", body_bytes_max=1_000)
    reader.feed(head + bomb)
    with pytest.raises(MalformedAnswer, match="larger than 1000 bytes"):
        reader.body()
    broken = read(head + b"x" * len(bomb), [])
    with pytest.raises(MalformedAnswer, match="broken"):
        broken.body()
