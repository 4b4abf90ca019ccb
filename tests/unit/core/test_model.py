"""What a registry may hold: every mistake is named, and nothing that cannot be called gets in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.model import Backend, Model, Policy, check_backend_url, model_problems, parse_model
from gateway.core.model_updates import to_document


def model(**fields: Any) -> Model:
    backend = Backend(version="1", url="http://backend:8080")
    return Model(**{"name": "wine", "backends": (backend,), "traffic": {"1": 100}} | fields)


def backend(**fields: Any) -> Model:
    return model(backends=(Backend(**{"version": "1", "url": "http://backend"} | fields),))


def test_a_good_model_has_no_problem():
    assert model_problems(model()) == []
    assert model_problems(Model(name="wine")) == [], "one without backends yet"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (model(name="Wine"), "cannot be a model's name"),
        (model(traffic={"1": 99}), "adds up to 99 %"),
        (model(traffic={"1": 100, "2": 0}), "traffic goes to version 2, which has no backend"),
        (model(traffic={}), "adds up to 0 %"),
        (model(policy=Policy(timeout_s=0)), "time-out"),
        (model(policy=Policy(timeout_s=-1)), "time-out"),
        (model(policy=Policy(timeout_s=3601)), "time-out"),
        (model(policy=Policy(timeout_s=float("nan"))), "time-out"),
        (model(policy=Policy(timeout_s=float("inf"))), "time-out"),
        (model(policy=Policy(body_limit_bytes=0)), "body limit"),
        (model(policy=Policy(max_in_flight=0)), "in flight"),
        (backend(version="a b"), "cannot be a version"),
        (backend(url="http://backend/"), "must not end in /"),
        (backend(url="ftp://backend"), "must begin with http"),
        (backend(predict_path="predict"), "predict path"),
        (backend(predict_path="/a//b"), "predict path"),
        (backend(predict_path="/a/../b"), "predict path"),
        (backend(predict_path="/a?b"), "predict path"),
        (backend(predict_path="/a b"), "predict path"),
        (backend(predict_path="/a%2fb"), "predict path"),
        (backend(concurrency=0), "concurrency"),
    ],
)
def test_a_mistake_is_named(wrong: Model, says: str):
    problems = model_problems(wrong)
    assert any(says in problem for problem in problems), problems


def test_percentages_that_only_add_up_to_100_are_not_enough():
    one, two = Backend(version="1", url="http://a"), Backend(version="2", url="http://b")
    problems = model_problems(model(backends=(one, two), traffic={"1": 150, "2": -50}))
    assert problems == ["version 1: 150 is not a percentage", "version 2: -50 is not a percentage"]


def test_a_version_twice_is_named_once():
    twice = Backend(version="1", url="http://a")
    assert model_problems(model(backends=(twice, twice, twice))) == ["version 1 is listed twice"]


def test_all_mistakes_are_named_at_once():
    wrong = model(name="-", traffic={"1": 7}, policy=Policy(timeout_s=0, max_in_flight=0))
    with pytest.raises(ValueError, match=r"name.*7 %.*time-out.*in flight"):
        parse_model(to_document(wrong))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": 7},
        {"name": "wine", "traffic": "all"},
        {"name": "wine", "traffic": {"1": 0.5}},
        {"name": "wine", "backends": {}},
        {"name": "wine", "policy": {"access": "nobody"}},
        {"name": "wine", "backends": [{"version": "1"}]},
        {"name": "wine", "enabled": "no"},
    ],
)
def test_a_document_of_another_shape_is_refused(document: dict[str, Any]):
    with pytest.raises(ValueError, match=r"."):
        parse_model(document)


def test_what_a_newer_release_adds_is_ignored():
    document = to_document(model()) | {"labels": {"team": "cellar"}}
    document["backends"][0]["region"] = "europe-west1"
    assert parse_model(document) == model()


# -- addresses


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://backend", "http://backend"),
        ("http://backend/", "http://backend"),
        ("https://wine-abc-ew.a.run.app", "https://wine-abc-ew.a.run.app"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/base/", "http://[::1]:8080/base"),
        ("https://b/v1/wine", "https://b/v1/wine"),
        ("http://XN--BCHER-KVA.example", "http://XN--BCHER-KVA.example"),
    ],
)
def test_an_address_that_can_be_called(url: str, kept: str):
    assert check_backend_url(url) == kept


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "backend",
            "//backend",
            "http:/backend",
            "http://",
            "http:///x",
            "ftp://b",
            "file:///etc/passwd",
            "unix:/s",
        ),
        *(
            "http://b:0",
            "http://b:99999",
            "http://b:x",
            "http://b?x",
            "http://b/?",
            "http://b#",
            "http://b/#x",
        ),
        *(
            "http://u@b",
            "http://u:p@b",
            "http://@b",
            "http://:p@b",
            "http://a b",
            "http://b\n",
            "http://b\r\nX: y",
            "http://ba\nck",
            "http://b\tack",
        ),
        *(
            "http://a..b",
            "http://.b",
            "http://-b",
            "http://b-",
            f"http://{'a' * 64}",
            f"http://{'a.' * 130}b",
        ),
        *(
            "http://b//x",
            "http://b/../x",
            "http://b/./x",
            "http://b/a%2fb",
            "http://b/a b",
            "http://b\\x",
            "http://bü",
        ),
        *("http://[::1", "http://::1", "http://b/\x00", " http://b", "http://b,c"),
    ],
)
def test_an_address_that_cannot(url: str):
    with pytest.raises(ValueError, match=r"."):
        check_backend_url(url)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(ValueError, match="user name or a password") as caught:
        check_backend_url("http://ana:hunter2@backend")
    assert "hunter2" not in str(caught.value)


@given(st.text(max_size=60) | st.text(max_size=40).map("http://".__add__))
def test_what_is_accepted_is_stable(url: str):
    try:
        kept = check_backend_url(url)
    except ValueError:
        return
    assert check_backend_url(kept) == kept
    assert not kept.endswith("/")
