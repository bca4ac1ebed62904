"""What handshake messages of TLS 1.3 tell beyond what ``ssl`` reports: group and signature scheme (RFC 8446). Pure.

Names are Postfix's in its summary line (tls_misc.c, tls_get_signature_params). Anything unknown is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SERVER_HELLO: Final = 2
CERTIFICATE_VERIFY: Final = 15
_KEY_SHARE: Final = 0x0033
_MAX_MESSAGE: Final = 1 << 14

_GROUPS: Final = {
    0x0017: "ECDHE (P-256)",
    0x0018: "ECDHE (P-384)",
    0x0019: "ECDHE (P-521)",
    0x001D: "X25519",
    0x001E: "X448",
    0x0100: "DHE (2048 bits)",
    0x0101: "DHE (3072 bits)",
    0x0102: "DHE (4096 bits)",
    0x0103: "DHE (6144 bits)",
    0x0104: "DHE (8192 bits)",
    0x11EB: "SecP256r1MLKEM768",
    0x11EC: "X25519MLKEM768",
    0x11ED: "SecP384r1MLKEM1024",
}
_GROUP_NAMES: Final = {
    "secp256r1": 0x0017,
    "prime256v1": 0x0017,
    "p-256": 0x0017,
    "secp384r1": 0x0018,
    "p-384": 0x0018,
    "secp521r1": 0x0019,
    "p-521": 0x0019,
    "x25519": 0x001D,
    "x448": 0x001E,
    "ffdhe2048": 0x0100,
    "ffdhe3072": 0x0101,
    "ffdhe4096": 0x0102,
    "ffdhe6144": 0x0103,
    "ffdhe8192": 0x0104,
    "secp256r1mlkem768": 0x11EB,
    "x25519mlkem768": 0x11EC,
    "secp384r1mlkem1024": 0x11ED,
}


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signature scheme: how the signature is called, and its digest (empty where it has none of its own)."""

    signature: str
    digest: str = ""

    def signed_with(self, key_bits: int) -> str:
        """The signature as the summary line has it: RSA with the size of the key, where that is known."""
        return f"{self.signature} ({key_bits} bits)" if self.signature == "RSA-PSS" and key_bits else self.signature


_SCHEMES: Final = {
    0x0403: ("ecdsa_secp256r1_sha256", Scheme("ECDSA (prime256v1)", "SHA256")),
    0x0503: ("ecdsa_secp384r1_sha384", Scheme("ECDSA (secp384r1)", "SHA384")),
    0x0603: ("ecdsa_secp521r1_sha512", Scheme("ECDSA (secp521r1)", "SHA512")),
    0x0804: ("rsa_pss_rsae_sha256", Scheme("RSA-PSS", "SHA256")),
    0x0805: ("rsa_pss_rsae_sha384", Scheme("RSA-PSS", "SHA384")),
    0x0806: ("rsa_pss_rsae_sha512", Scheme("RSA-PSS", "SHA512")),
    0x0807: ("ed25519", Scheme("ED25519")),
    0x0808: ("ed448", Scheme("ED448")),
    0x0809: ("rsa_pss_pss_sha256", Scheme("RSA-PSS", "SHA256")),
    0x080A: ("rsa_pss_pss_sha384", Scheme("RSA-PSS", "SHA384")),
    0x080B: ("rsa_pss_pss_sha512", Scheme("RSA-PSS", "SHA512")),
}
_BY_NAME: Final = dict(_SCHEMES.values())
UNKNOWN_SCHEME: Final = Scheme("")


def server_hello_group(message: bytes) -> int:
    """The group of a ServerHello's (or HelloRetryRequest's) key share; 0 if there is none or it cannot be read.

    :param message: the handshake message with its four octets of type and length.
    """
    if len(message) > _MAX_MESSAGE or message[:1] != bytes([SERVER_HELLO]):
        return 0
    at = 4 + 2 + 32
    if len(message) <= at:
        return 0
    at += 1 + message[at] + 2 + 1 + 2  # session id, cipher suite, compression, length of the extensions
    while at + 4 <= len(message):
        kind, length = int.from_bytes(message[at : at + 2], "big"), int.from_bytes(message[at + 2 : at + 4], "big")
        if kind == _KEY_SHARE:
            return int.from_bytes(message[at + 4 : at + 6], "big") if length >= 2 and at + 6 <= len(message) else 0
        at += 4 + length
    return 0


def certificate_verify_scheme(message: bytes) -> int:
    """The signature scheme of a TLS 1.3 CertificateVerify; 0 if it cannot be read."""
    if len(message) < 6 or message[0] != CERTIFICATE_VERIFY:
        return 0
    return int.from_bytes(message[4:6], "big")


def group_shown(group: int | str) -> str:
    """A group, by its number or by the name that OpenSSL has for it, in Postfix's words; empty if it is unknown."""
    return _GROUPS.get(group if isinstance(group, int) else _GROUP_NAMES.get(group.lower(), 0), "")


def scheme_of(scheme: int | str) -> Scheme:
    """A signature scheme by its number or by its name in the TLS registry."""
    if isinstance(scheme, int):
        return _SCHEMES[scheme][1] if scheme in _SCHEMES else UNKNOWN_SCHEME
    return _BY_NAME.get(scheme.lower(), UNKNOWN_SCHEME)
