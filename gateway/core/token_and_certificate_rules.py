"""Access rules for callers with tokens or client certificates.

They say which of these are accepted, and what their callers may do.
"""

import re
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from gateway.core.model import network_and_quota_problems
from gateway.core.name_validation import check_team
from gateway.core.principal import CALLER_VERBS, Verb

Algorithm = Literal["RS256", "ES256"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_HEADER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_SUBJECT: Final = re.compile(r"[A-Za-z0-9._@+:/|=~-]{1,200}")
_VISIBLE: Final = re.compile(r"[!-~]{1,2000}")
_MAX_SKEW_S: Final = 300.0


class AccessRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An access rule: what its callers may do.

    It says which callers it is for, too. The first rule that matches a caller counts.
    """

    name: str  # callers are called NAME:SUBJECT in logs and limits
    subjects: tuple[str, ...]  # patterns of who is let in: "*@example.com"
    team: str = ""  # who pays for their calls, in `chips cost` and in budgets
    models: tuple[str, ...] = ("*",)
    verbs: tuple[Verb, ...] = CALLER_VERBS
    networks: tuple[str, ...] = ()  # where they may call from, besides being admitted
    requests_per_s: float | None = None  # these five: for each of them alone
    burst: int | None = None
    max_in_flight: int | None = None
    requests_per_day: int | None = None
    requests_per_month: int | None = None


class IssuerRule(AccessRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An access rule for the tokens of one issuer. Several rules may name the same issuer, for other subjects or groups."""

    audience: tuple[str, ...]  # what a token must be made for
    preset: Literal["", "google", "service-account", "iap"] = ""
    issuer: tuple[str, ...] = ()
    jwks: str = ""  # where its public keys are; empty: where its discovery document says
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256")
    header: str = "authorization"  # as a bearer token there; in any other header, the bare token
    claim: str = "sub"  # the claim that says who it is
    groups: tuple[str, ...] = ()  # patterns, of which one must be among its groups
    groups_claim: str = "groups"  # the claim that lists those: texts, or one text with spaces
    skew_s: float = 30.0  # by how much the clocks may differ


class ForwardedCertificateRule(AccessRule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An access rule for client certificates that a load balancer has verified. `subjects` match the identity in its header."""


_GOOGLE_ISSUERS: Final = ("https://accounts.google.com", "accounts.google.com")


def apply_preset(issuer: IssuerRule) -> IssuerRule:
    """`issuer` with the fields that its preset gives filled in."""
    fill = msgspec.structs.replace
    if issuer.preset == "google":  # users and service accounts alike: ID tokens that Google signs
        return fill(
            issuer,
            issuer=_GOOGLE_ISSUERS,
            jwks=issuer.jwks or "https://www.googleapis.com/oauth2/v3/certs",
            algorithms=("RS256",),
            claim="email",
        )
    if issuer.preset == "service-account":  # tokens that a service account signs itself
        account = issuer.issuer[0] if issuer.issuer else ""
        return fill(
            issuer,
            jwks=issuer.jwks or f"https://www.googleapis.com/service_accounts/v1/jwk/{account}",
            algorithms=("RS256",),
        )
    if issuer.preset == "iap":
        return fill(
            issuer,
            issuer=("https://cloud.google.com/iap",),
            jwks=issuer.jwks or "https://www.gstatic.com/iap/verify/public_key-jwk",
            algorithms=("ES256",),
            header="x-goog-iap-jwt-assertion",
            claim="email",
        )
    return issuer


def issuer_rule_problems(given: IssuerRule) -> list[str]:
    """Everything that is wrong with an issuer rule, a sentence each. The rule is an entry of `auth.issuers`."""
    issuer = apply_preset(given)
    problems = _check_rule(issuer)
    if not issuer.issuer or not all(issuer.issuer):
        problems.append("it names no issuer")
    if issuer.preset == "service-account" and len(issuer.issuer) != 1:
        problems.append("a service account is named by its address as the issuer")
    if not issuer.audience or not all(issuer.audience):
        problems.append("it names no audience, so that tokens made for anybody would do")
    if not issuer.algorithms:
        problems.append("it allows no algorithm")
    if not 0 <= issuer.skew_s <= _MAX_SKEW_S:
        problems.append(f"the clocks may differ by at most {_MAX_SKEW_S:.0f} seconds")
    if not _HEADER.fullmatch(issuer.header):
        problems.append(f"{issuer.header!r} is not a header's name in lower case")
    if issuer.groups and not all(issuer.groups):
        problems.append("it names a group that is empty")
    if issuer.jwks:
        if not is_trusted_jwks_url(issuer.jwks):
            problems.append("its keys (jwks) must be fetched with https://")
    elif len(issuer.issuer) != 1 or not is_trusted_jwks_url(issuer.issuer[0]) or "?" in issuer.issuer[0]:
        problems.append(
            "say where its keys are (jwks); only one issuer that is an https:// address says so itself"
        )
    return problems


def is_trusted_jwks_url(url: str) -> bool:
    """Whether keys from this URL can be trusted. Such a URL is https, or leads to this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or parts.fragment or not _VISIBLE.fullmatch(url):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK_HOSTS)


def certificate_rule_problems(certificate: ForwardedCertificateRule) -> list[str]:
    """Everything that is wrong with a certificate rule, a sentence each. The rule is an entry of `auth.certificates`."""
    return _check_rule(certificate)


def _check_rule(entry: AccessRule) -> list[str]:
    problems = network_and_quota_problems(entry)
    if not _NAME.fullmatch(entry.name):
        problems.append(f"{entry.name!r} cannot be its name: use 1 to 32 of a-z, 0-9 and -")
    if not entry.subjects or not all(entry.subjects):
        problems.append('it names no subjects; "*" would let in everybody that it vouches for')
    if not entry.models or not all(entry.models):
        problems.append("it names no models")
    if entry.team:
        try:
            check_team(entry.team)
        except ValueError as error:
            problems.append(str(error))
    return problems


def is_printable_subject(subject: str) -> bool:
    """Whether `subject` has only printable characters.

    Logs, headers and limits can hold them as they are. There are 200 at most.
    """
    return _SUBJECT.fullmatch(subject) is not None
