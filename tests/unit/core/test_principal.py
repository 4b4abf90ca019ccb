import pytest

from gateway.core.principal import Principal


def test_what_a_caller_may_do_by_default():
    caller = Principal(id="k", models=("wine", "fraud-*"))
    assert caller.may("score", "wine")
    assert caller.may("metadata", "fraud-7")
    assert not caller.may("score", "beer")
    assert not caller.may("operate")


@pytest.mark.parametrize(
    ("models", "whole", "wine"), [(("*",), True, True), (("wine",), False, True), (("w*",), False, True)]
)
def test_the_whole_gateway_is_for_those_who_may_operate_every_model(models, whole, wine):
    operator = Principal(id="k", models=models, verbs=("operate",))
    assert operator.may("operate") is whole
    assert operator.may("operate", "wine") is wine
    assert not operator.may("score", "wine")


@pytest.mark.parametrize(
    ("patterns", "may", "may_not"),
    [
        (("*",), ["wine", "a"], []),
        (("wine",), ["wine"], ["wine2", "win", "WINE"]),
        (("fraud-*", "wine"), ["fraud-eu", "fraud-", "wine"], ["fraud", "xfraud-eu"]),
        (("[a-c]*",), ["abc", "c"], ["d"]),
        ((), [], ["wine"]),
    ],
)
def test_whom_a_principal_may_call(patterns: tuple[str, ...], may: list[str], may_not: list[str]):
    principal = Principal(id="x", models=patterns)
    assert all(principal.may("score", name) for name in may)
    assert not any(principal.may("score", name) for name in may_not)
