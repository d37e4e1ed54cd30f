"""The text of an API key, `hm_<32 of base62>_<6 of checksum>`, and its stored form. Pure: no I/O, no clock.

The checksum (CRC32 in base62, as GitHub's tokens) tells a typo from an unknown key without a look-up.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_LENGTH = 32  # 190 bits
CHECKSUM_LENGTH = 6  # 62 ** 6 > 2 ** 32
VISIBLE_LENGTH = len("hm_") + 6  # 36 of 190 bits are shown: enough to recognise a key, of no use to guess one

_KEY = re.compile(rf"(hm_[0-9A-Za-z]{{{SECRET_LENGTH}}})_([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})")


def new_key() -> str:
    """Return a fresh random key."""
    body = "hm_" + "".join(secrets.choice(BASE62) for _ in range(SECRET_LENGTH))
    return f"{body}_{checksum(body)}"


def checksum(body: str) -> str:
    """Return the CRC32 of `body` (all that stands before the checksum) in base62, padded with zeros to six digits."""
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return digits


def is_well_formed(key: str) -> bool:
    """Tell whether `key` has the shape of a key and the right checksum, whoever made it."""
    match = _KEY.fullmatch(key)
    return match is not None and checksum(match[1]) == match[2]


def visible_prefix(key: str) -> str:
    """Return the part of a key that may be shown and stored as it is."""
    return key[:VISIBLE_LENGTH]


def digest(key: str, *, pepper: bytes) -> bytes:
    """Return the HMAC-SHA256 (32 bytes) that stands for `key` in the database.

    Keys carry 190 random bits, so no slow hash is needed; the time of a look-up by digest tells nothing of the key.
    """
    return hmac.new(pepper, key.encode(), hashlib.sha256).digest()
