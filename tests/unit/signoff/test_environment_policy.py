"""A sign-off policy: what may stand in it, and whether the people who approved fill its roles."""

import pytest

from gateway.signoff.environment_policy import Person, parse_policy_toml, policy_digest, unfilled_role_places

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
GOOD = f"""
approvals = {{ approver = 1 }}
[[people]]
name = "ana@example.com"
roles = ["approver"]
ssh_keys = ["{KEY}"]
"""


def test_a_policy_is_read():
    policy = parse_policy_toml(GOOD)
    assert policy.valid_days == 14
    person = policy.person("ana@example.com")
    assert person is not None
    assert person.ssh_keys == (KEY,)
    assert policy.person("bea") is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("approver = 1", "approver = 2"), "2 people of the role approver are asked for, and 1 have it"),
        (("approver = 1", ""), "say how many of which role"),
        (("approver = 1", "approver = 0"), "leave it out"),
        (("ana@example.com", "ana,*"), "without blanks, commas or wildcards"),
        (("ana@example.com", "ana x"), "without blanks, commas or wildcards"),
        ((KEY, f"{KEY} ana"), "without its comment"),
        ((KEY, 'x\\" ssh-ed25519 AAAA'), "is not an SSH public key"),
        ((f'ssh_keys = ["{KEY}"]', ""), "nobody could prove to be this person"),
        (("approvals", "evidence = ['X y']\napprovals"), "'X y' is no sort of it"),
        (("approvals", "valid_days = 0\napprovals"), "valid_days must lie between"),
        (("roles", "role"), "unknown field `role`"),
        (("approvals = {", "approvals = "), "not valid TOML"),
        (("[[people]]", "[emergency]\npeople = ['bea']\n[[people]]"), "there is no bea among the people"),
        (
            ("[[people]]", '[[people]]\nname = "ana@example.com"\nssh_keys = []\n[[people]]'),
            "is listed twice",
        ),
        (("roles", "tokens = [{email = 'a@b', subject = '1'}]\nroles"), "give one of them"),
        (("roles", "tokens = [{email = 'a@b', issuer = 'http://x'}]\nroles"), "must begin with https://"),
    ],
)
def test_what_is_wrong_with_a_policy_is_told(change: tuple[str, str], told: str):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")):
        parse_policy_toml(GOOD.replace(*change))


def test_two_people_with_one_key_are_one_person():
    with pytest.raises(ValueError, match="two people have the key"):
        parse_policy_toml(
            GOOD + GOOD.partition("\n[[people]]")[2].join(["[[people]]", ""]).replace("ana", "bea")
        )


def test_an_address_in_other_letters_is_the_same_person():
    other = GOOD.partition("\n[[people]]")[2].replace("ana@example.com", "Ana@Example.com")
    with pytest.raises(ValueError, match=r"ana@example\.com is listed twice"):
        parse_policy_toml(f"{GOOD}\n[[people]]{other.replace('1aaa', '1bbb')}")


@pytest.mark.parametrize("token", ["{email = 'bea@x.org'}", "{email = 'Bea@X.org'}"])
def test_two_people_with_one_token_are_one_person(token: str):
    people = (("bea", "{email = 'bea@x.org'}"), ("bob", token))
    more = "".join(f'[[people]]\nname = "{name}"\ntokens = [{one}]\n' for name, one in people)
    with pytest.raises(ValueError, match=r"the token of .* for bea@x\.org is listed twice"):
        parse_policy_toml(GOOD + more)
    more = more.replace(token, "{email = 'bea@x.org', issuer = 'https://i.org'}", 1)
    assert len(parse_policy_toml(GOOD + more).people) == 3


def person(name: str, *roles: str) -> Person:
    return Person(name=name, roles=roles)


def test_each_person_fills_one_place():
    both, risk, plain = person("a", "approver", "risk"), person("b", "risk"), person("c", "approver")
    assert unfilled_role_places({"approver": 1, "risk": 1}, [both]) == ["risk"]
    assert unfilled_role_places({"approver": 1, "risk": 1}, [both, risk]) == []
    assert unfilled_role_places({"approver": 1, "risk": 1}, [both, plain]) == [], (
        "who has both roles makes room"
    )
    assert unfilled_role_places({"approver": 2}, [plain]) == ["approver"]
    assert unfilled_role_places({"approver": 1}, []) == ["approver"]


def test_a_digest_does_not_depend_on_the_order_of_fields():
    assert policy_digest({"a": 1, "b": {"c": 2, "d": 3}}) == policy_digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert policy_digest({"a": 1}) != policy_digest({"a": 2})
