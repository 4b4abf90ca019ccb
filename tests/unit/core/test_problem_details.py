"""Every error of ours becomes one shape, and tells no more than its detail."""

import json

import pytest

from gateway.core import errors
from gateway.core.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowed,
    Overloaded,
    PayloadTooLarge,
    Unauthenticated,
)
from gateway.core.problem_details import render_problem


def leaves(kind: type[GatewayError]) -> list[type[GatewayError]]:
    children = kind.__subclasses__()
    return [kind] if not children else [leaf for child in children for leaf in leaves(child)]


def make(kind: type[GatewayError]) -> GatewayError:
    if kind is MethodNotAllowed:
        return MethodNotAllowed("Use GET.", allow="GET")
    if kind is PayloadTooLarge:
        return PayloadTooLarge(10)
    return InternalError() if kind is InternalError else kind('Something with "quotes" and ünïcode.')


ALL = leaves(GatewayError)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_a_problem_document(kind: type[GatewayError]):
    error = make(kind)
    answer = render_problem(error, "r-1")
    headers = dict(answer.headers)
    assert answer.status == kind.status
    assert headers[b"Content-Type"] == b"application/problem+json"
    assert headers[b"chips-error"] == kind.code.encode()
    assert headers[b"Cache-Control"] == b"no-store"
    assert json.loads(answer.body) == {
        "type": "about:blank",
        "title": kind.title,
        "status": kind.status,
        "code": kind.code,
        "detail": error.detail,
        "request_id": "r-1",
    }


def test_codes_are_unique_and_kebab_case_and_in_the_list_at_the_top():
    codes = [kind.code for kind in ALL]
    assert len(set(codes)) == len(codes)
    for kind in ALL:
        assert kind.code == kind.code.lower().replace("_", "-")
        assert f"{kind.status} {kind.code}" in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (make(Unauthenticated), b"WWW-Authenticate"),
        (make(MethodNotAllowed), b"Allow"),
        (make(Overloaded), b"Retry-After"),
        (make(errors.RegistryUnavailable), b"Retry-After"),
    ],
    ids=lambda value: value.code if isinstance(value, GatewayError) else "",
)
def test_what_http_asks_of_a_status_is_there(error: GatewayError, name: bytes):
    assert name in dict(render_problem(error, "r").headers)


def test_the_open_inference_protocol_finds_its_member():
    body = json.loads(render_problem(make(errors.ModelNotFound), "r", add_open_inference_error=True).body)
    assert body["error"] == body["detail"]


def test_the_cause_is_never_rendered():
    error = errors.BrokenUpstreamResponse("The backend broke off.")
    error.__cause__ = OSError("password=hunter2")
    assert b"hunter2" not in render_problem(error, "r").body
