"""Request targets: what is accepted has one meaning only, and what could have two is refused."""

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest, TargetTooLong
from gateway.core.request_target import MAX_TARGET_BYTES, parse_target


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/wine", ("wine", None, "", "")),
        ("/wine/", ("wine", None, "", "")),
        ("/wine/explain/shap?n=3", ("wine", None, "/explain/shap", "?n=3")),
        ("/wine?", ("wine", None, "", "?")),
        ("/wine?a=/../b%2f", ("wine", None, "", "?a=/../b%2f")),
        ("/w%69ne", ("w%69ne", None, "", "")),
        ("/wine/...", ("wine", None, "/...", "")),
        ("/wine/.hidden", ("wine", None, "/.hidden", "")),
        ("/v2/models/wine", ("wine", None, "/v2/models/wine", "")),
        ("/v2/models/wine/ready", ("wine", None, "/v2/models/wine/ready", "")),
        ("/v2/models/wine/infer", ("wine", None, "/v2/models/wine/infer", "")),
        ("/v2/models/wine/versions/3/infer", ("wine", "3", "/v2/models/wine/versions/3/infer", "")),
        ("/v2/models/wine/versions/3", ("wine", "3", "/v2/models/wine/versions/3", "")),
    ],
)
def test_a_target_names_model_version_and_rest(target: str, expected: tuple[object, ...]):
    split = parse_target(target)
    assert (split.model, split.version, split.rest, split.query) == expected
    assert split.open_inference == target.startswith("/v2/")


@pytest.mark.parametrize(
    ("target", "infers"),
    [
        ("/v2/models/wine/infer", True),
        ("/v2/models/wine/versions/3/infer", True),
        ("/v2/models/infer/infer", True),
        ("/v2/models/infer/versions/infer/infer", True),
        ("/v2/models/infer", False),
        ("/v2/models/infer/ready", False),
        ("/v2/models/infer/versions/infer", False),
        ("/v2/models/wine/versions/infer", False),
        ("/infer", False),
        ("/wine/infer", False),
    ],
)
def test_what_asks_for_a_score_is_told_from_what_is_called_infer(target: str, infers: bool):
    assert parse_target(target).infers is infers


@pytest.mark.parametrize(
    "target", ["/", "/?a=b", "/-", "/-/ready", "/v2", "/v2/health/live", "/v2/models/", "/v2/models/a/other"]
)
def test_what_is_the_gateways_own_names_no_model(target: str):
    assert parse_target(target).model == ""


@pytest.mark.parametrize(
    "path",
    [
        *("//", "//wine", "/wine//x", "/wine/..", "/wine/../x", "/./wine", "/wine/.", "/..", "/."),
        *("/wine/%2e%2e/x", "/wine/%2E.", "/wine/.%2e", "/wine/%2e", "/%2e%2e/wine"),
        *("/wine%2fx", "/wine/%2F", "/wine%5cx", "/wine\\x", "/wine%00", "/wine\x00", "/wine%0d%0aX: y"),
        *("/wine%7f", "/wine%1f", "/wine x", "/wine\tx", "/wine#x", "/wi%ne", "/wine%", "/wine%2", "/wïne"),
        *('/wine"', "/wine<", "/wine{", "/wine|", "/wine^", "/wine`", "/wine\x7f", "/wine?a b", "/wine?a#b"),
        *("/wine?\x00", "/wine?%zz", "/wine?\u2028"),
    ],
)
def test_what_two_programs_could_read_differently_is_refused(path: str):
    with pytest.raises(BadRequest):
        parse_target(path)


@pytest.mark.parametrize("target", ["", "*", "wine", "chips:80", "example.org/wine", "?a=b", "http:/wine"])
def test_other_forms_are_refused(target: str):
    with pytest.raises(BadRequest):
        parse_target(target, host="chips")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("http://chips/wine?a=b", "/wine"),
        ("HTTP://Chips/wine", "/wine"),
        ("http://chips", "/"),
        ("http://chips?a=b", "/"),
    ],
)
def test_the_absolute_form_of_this_very_host_is_the_same(target: str, path: str):
    assert parse_target(target, scheme="http", host="chips").path == path


@pytest.mark.parametrize(
    "target",
    ["http://other/wine", "http://chips.evil/wine", "http://chips@evil/wine", "http://chips:81/wine"],
)
def test_the_absolute_form_of_another_host_is_refused(target: str):
    with pytest.raises(BadRequest):
        parse_target(target, scheme="http", host="chips")


def test_the_absolute_form_of_another_scheme_or_without_a_host_is_refused():
    with pytest.raises(BadRequest):
        parse_target("https://chips/wine", scheme="http", host="chips")
    with pytest.raises(BadRequest):
        parse_target("http://chips/wine", scheme="http", host=None)


def test_the_longest_target_and_one_more():
    longest = "/" + "a" * (MAX_TARGET_BYTES - 1)
    assert parse_target(longest).model == longest[1:]
    with pytest.raises(TargetTooLong, match="longer than"):
        parse_target(longest + "a")


_pieces = st.sampled_from(
    [
        *("/", "//", "/.", "/..", "/%2e", "%2E", "%2f", "%5C", "%00", "%0a", "%7F", "%25", "%2525", "?", "#"),
        *("wine", "a", "..", ".", "-", "v2", "models", "versions", "infer", ":", "@", "\\", " ", "é", "\x00"),
    ]
)
targets = st.one_of(
    st.text(max_size=40), st.lists(_pieces, max_size=12).map("".join), st.lists(_pieces).map("/".join)
)


@given(targets)
def test_whatever_comes_is_split_or_refused_and_nothing_is_lost(target: str):
    try:
        split = parse_target(target)
    except BadRequest:
        return
    assert split.path + split.query == target
    assert split.path.startswith("/")
    if split.model and not split.open_inference:
        assert f"/{split.model}{split.rest}" in {split.path, split.path.removesuffix("/")}
    if split.open_inference and split.model:
        assert split.rest == split.path


@given(targets)
def test_what_is_accepted_reads_the_same_for_every_program(target: str):
    """Decoding, dot-segment removal, slash merging and control characters: none of them can change what it means."""
    try:
        path = parse_target(target).path
    except BadRequest:
        return
    assert urlsplit("http://h" + path).path == path
    decoded = unquote(path, encoding="latin-1")
    assert decoded.count("/") == path.count("/")
    assert not {".", ".."} & set(decoded.split("/"))
    assert "//" not in decoded
    assert "\\" not in decoded
    assert not any(ord(character) < 32 or ord(character) == 127 for character in decoded)


@given(targets)
def test_the_answer_does_not_depend_on_what_was_asked_before(target: str):
    def ask() -> object:
        try:
            return parse_target(target)
        except BadRequest as error:
            return str(error)

    assert ask() == ask()
