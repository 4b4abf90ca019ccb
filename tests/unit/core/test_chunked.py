import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.chunked import ChunkedDecoder, encode_chunk, encode_last_chunk

PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def read(raw: bytes, step: int) -> tuple[bytes, ChunkedDecoder]:
    dechunker = ChunkedDecoder()
    body = b""
    for i in range(0, len(raw), step):
        body += b"".join(dechunker.feed(raw[i : i + step]))
        if dechunker.done:
            dechunker.rest += raw[i + step :]
            break
    return body, dechunker


@given(PIECES, st.integers(1, 50), st.binary(max_size=20), st.booleans())
def test_what_was_chunked_is_read_whole_however_it_is_cut(
    pieces: list[bytes], step: int, rest: bytes, trailing: bool
):
    trailers = b"X-Sum: 7\r\n" if trailing else b""
    raw = b"".join(encode_chunk(piece) for piece in pieces) + encode_last_chunk(trailers)
    body, dechunker = read(raw + rest, step)
    assert body == b"".join(pieces)
    assert dechunker.done
    assert dechunker.trailers == trailers
    assert dechunker.rest == rest


@given(st.binary(max_size=60), st.integers(1, 20))
def test_anything_else_is_refused_and_nothing_else_is_raised(raw: bytes, step: int):
    try:
        body, dechunker = read(raw, step)
    except ValueError:
        return
    assert len(body) <= len(raw)
    assert not dechunker.done or b"0" in raw


@given(PIECES.filter(bool), st.integers(0, 400), st.binary(min_size=1, max_size=1))
def test_a_changed_byte_never_adds_to_the_body(pieces: list[bytes], at: int, byte: bytes):
    raw = b"".join(encode_chunk(piece) for piece in pieces) + encode_last_chunk(b"")
    at %= len(raw)
    try:
        body, _ = read(raw[:at] + byte + raw[at + 1 :], 7)
    except ValueError:
        return
    assert len(body) <= len(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"+5\r\n",
        b"-1\r\n",
        b"0x5\r\n",
        b"1_0\r\n",
        b"5\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\r0",
        b"\r\n",
        b"f" * 17 + b"\r\n",
        b"0" * 16 + b"5\r\n",
        b"5;a\nb\r\n",
        b"5;a\rb\r\n",
        b"5;" + b"a" * 300 + b"\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n x: folded\r\n\r\n",
        b"0\r\nX : y\r\n\r\n",
        b"0\r\nX: y\nZ: z\r\n\r\n",
        b"0\r\n" + b"X: y\r\n" * 3000,
        b"5\r\r\n",
        b"\x05\r\n",
    ],
)
def test_framings_that_two_programs_could_read_differently(raw: bytes):
    for step in (1, len(raw)):
        with pytest.raises(ValueError, match=r"chunk|trailer"):
            read(raw + b"0\r\n\r\n" * 100, step)


def test_trailers_that_frame_or_authenticate_are_left_out():
    raw = b"0\r\nX-Sum: 7\r\nContent-Length: 3\r\nHost: evil\r\nAuthorization: x\r\nX-Chips-Caller: root\r\n\r\n"
    _, dechunker = read(raw, 1000)
    assert dechunker.trailers == b"X-Sum: 7\r\n"


@pytest.mark.parametrize("end", [b"\x00", b"a", b" "])
def test_a_hostile_trailer_costs_no_more_than_its_length(end: bytes):
    """A pattern that backtracks over these spaces would take minutes, and so would this test."""
    raw = b"0\r\nX:" + b" " * 8000 + end + b"\r\n\r\n"
    dechunker = ChunkedDecoder()
    if end == b"\x00":
        with pytest.raises(ValueError, match="trailer"):
            dechunker.feed(raw)
    else:
        dechunker.feed(raw)
        assert dechunker.done


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"X-Goog-Authenticated-User-Email",
            b"X_Chips_Caller",
            b"X-Chips-Caller",
            b"X-Serverless-Authorization",
        ),
        *(b"X-Real-IP", b"X-Goog-IAP-JWT-Assertion", b"X-Request-Id", b"traceparent", b"X-Forwarded-For"),
        *(b"Authorization", b"X-Api-Key", b"chips-error", b"Content-Length", b"Transfer-Encoding"),
    ],
)
def test_what_a_head_may_not_say_a_trailer_may_not_say_either(name: bytes):
    dechunker = ChunkedDecoder()
    dechunker.feed(b"0\r\n" + name + b": x\r\nX-Checksum: 7\r\n\r\n")
    assert dechunker.trailers == b"X-Checksum: 7\r\n"
