"""The ``format`` keyword of JSON Schema as patterns, each at least as strict as the specification that defines it.

llguidance has patterns of its own, which accept 29 February in every year and second 60 at any time. The patterns here
accept only texts that all checkers accept, even if the specification allows more. So second 60 does not exist (RFC 3339
allows it at 23:59 UTC of the days that the IERS names; most libraries read none of them), nor year 0000, and host names
have no empty or numeric last label.
"""

from __future__ import annotations

_YEAR = r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
_LEAP_YEAR = (
    r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"  # 0000 is not one of them
)
_DATE = (
    rf"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    rf"|02-(?:0[1-9]|1[0-9]|2[0-8]))|{_LEAP_YEAR}-02-29)"
)
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_NUMBER = r"(?:0|[1-9][0-9]{0,5})"
_CLOCK = rf"T(?:{_NUMBER}H(?:{_NUMBER}M(?:{_NUMBER}S)?)?|{_NUMBER}M(?:{_NUMBER}S)?|{_NUMBER}S)"
_DAYS = rf"(?:{_NUMBER}Y(?:{_NUMBER}M(?:{_NUMBER}D)?)?|{_NUMBER}M(?:{_NUMBER}D)?|{_NUMBER}D)"
# Host names have at most 253 characters: four labels of 59, or seven of 35. Two hyphens in a row are for other
# scripts.
_LABELS = tuple(
    (rf"[A-Za-z0-9](?:-?[A-Za-z0-9]){{0,{most}}}", rf"[A-Za-z](?:-?[A-Za-z0-9]){{0,{most}}}", counts)
    for most, counts in ((29, (0, 1, 2, 3)), (17, (4, 5, 6)))
)


def _host(least: int) -> str:
    """A host name with at least this many dots."""
    ways = (rf"(?:{label}\.){{{max(least, counts[0])},{counts[-1]}}}{top}" for label, top, counts in _LABELS)
    return f"(?:{'|'.join(ways)})"


_HOST = _host(0)
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_H = r"[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [rf"(?:{_H}:){{7}}{_H}", rf"(?:{_H}:){{6}}{_IPV4}", "::"]
    # `n` groups before the gap and at most 7 - n after it.
    + [rf"{_H}(?::{_H}){{{n - 1}}}::(?:{_H}(?::{_H}){{0,{6 - n}}})?" for n in range(1, 7)]
    + [rf"{_H}(?::{_H}){{6}}::", rf"::{_H}(?::{_H}){{0,6}}", rf"::(?:{_H}:){{0,5}}{_IPV4}"]
)
_PCHAR = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_PORT = r"(?:6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_USER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})+"
_AUTHORITY = rf"(?:{_USER}@)?(?:{_HOST}|{_IPV4})(?::{_PORT})?"
_URI = (
    rf"(?:file:///{_PCHAR}+(?:/{_PCHAR}*)*|[A-Za-z][A-Za-z0-9+.-]{{0,29}}:"
    rf"(?://{_AUTHORITY}(?:/{_PCHAR}*)*|{_PCHAR}+(?:/{_PCHAR}*)*))"
    rf"(?:\?(?:{_PCHAR}|[/?])*)?(?:#(?:{_PCHAR}|[/?])*)?"
)
_ATOM = r"[A-Za-z0-9_+-]"
ANYTHING = {"binary", "password", "path"}
"""Formats that describe the purpose of a text, not its spelling."""

FORMATS = {
    "byte": "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?",  # OpenAPI's base64
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}T{_TIME}",
    "duration": rf"P(?:[0-9]{{1,6}}W|{_DAYS}(?:{_CLOCK})?|{_CLOCK})",
    "email": rf"(?:{_ATOM}(?:\.?{_ATOM}){{0,31}}|{_ATOM}{{33,64}})@{_host(1)}",
    "hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uri": _URI,
    "uuid": r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
}
"""By name, a pattern that the whole text matches; read alike by Python and llguidance."""
