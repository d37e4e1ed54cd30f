"""Finds personal data in Korean text by its form and its check digits. It knows no policy, and looks nothing up.

Digits are bounded by `(?<!\\d)…(?!\\d)`: `\\b` fails before a 조사, as in "01012345678로". `\\d` is any script's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal

PersonalDataKind = Literal["resident_number", "card", "phone", "email", "bank_account"]

_RESIDENT = re.compile(r"(?<!\d)(\d{2})(\d{2})(\d{2})[-\s]?([1-8])(\d{6})(?!\d)")
_RESIDENT_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
# From this day on the last digits of new numbers are drawn by lot, and none of them checks the others.
_UNCHECKED_FROM = date(2020, 10, 5)
_CARD = re.compile(r"(?<!\d)(?<!\d[- ])[3-69]\d{3}([- ]?)(?:\d{4}\1\d{4}\1\d{3,4}|\d{6}\1\d{5})(?![- ]?\d)")
_AREA = r"(?:1[016789]|2|3[1-3]|4[1-4]|5[0-5]|6[1-4]|70)"
_PHONE = re.compile(rf"(?<!\d)(?:\+?82[-. ]?\(?0?\)?|0){_AREA}(?:\)|[-. ])?\d{{3,4}}[-. ]?\d{{4}}(?!\d)")
_EMAIL = re.compile(r"(?<![\w.+-])[A-Z0-9][\w.+-]{0,63}@(?:[A-Z0-9-]{1,63}\.){1,8}[A-Z]{2,24}(?![A-Z])", re.A | re.I)
_ACCOUNT = re.compile(r"(?<![\d-])\d{2,6}(?:-\d{1,7}){2,3}(?![\d-])")
_BARE_ACCOUNT = re.compile(r"(?:은행|뱅크|농협|수협|신협|우체국|계좌)[^\d\n]{0,12}(\d{10,14})(?!\d)")
_ACCOUNT_DIGITS = range(10, 15)


@dataclass(frozen=True, slots=True)
class PersonalData:
    """A place in a text: characters `[start, end)`."""

    kind: PersonalDataKind
    start: int
    end: int


def find_personal_data(text: str) -> list[PersonalData]:
    """Return what looks like personal data, in order; of two that overlap, the one whose form says more."""
    found: list[PersonalData] = []
    if "@" in text:
        found += (PersonalData("email", *match.span()) for match in _EMAIL.finditer(text))
    if sum(map(str.isdigit, text)) >= 9:  # of a phone number: 02-345-6789
        for each in _numbers(text):
            if all(each.end <= other.start or other.end <= each.start for other in found):
                found.append(each)
    return sorted(found, key=lambda each: each.start)


def is_resident_number(digits: str) -> bool:
    """Say whether 13 digits are a resident registration number, or a foreigner's.

    The date must be one, and the check digit right where there is one (births before October 2020).
    """
    numbers = [int(digit) for digit in digits]
    century = {1: 1900, 2: 1900, 5: 1900, 6: 1900, 3: 2000, 4: 2000, 7: 2000, 8: 2000}.get(numbers[6])
    if len(numbers) != 13 or century is None:
        return False
    try:
        born = date(century + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    except ValueError:
        return False
    base = 13 if numbers[6] >= 5 else 11
    total = sum(weight * number for weight, number in zip(_RESIDENT_WEIGHTS, numbers, strict=False))
    return born >= _UNCHECKED_FROM or (base - total % 11) % 10 == numbers[12]


def passes_luhn(digits: str) -> bool:
    """Say whether the last digit checks the others, ISO/IEC 7812-1."""
    doubled = (2 * int(digit) if index % 2 else int(digit) for index, digit in enumerate(reversed(digits)))
    return sum(number - 9 if number > 9 else number for number in doubled) % 10 == 0


def _numbers(text: str) -> Iterator[PersonalData]:
    """Yield numbers, those with a check digit first."""
    for match in _RESIDENT.finditer(text):
        if is_resident_number(_digits(match[0])):
            yield PersonalData("resident_number", *match.span())
    for match in _CARD.finditer(text):
        if passes_luhn(_digits(match[0])):
            yield PersonalData("card", *match.span())
    for match in _PHONE.finditer(text):
        yield PersonalData("phone", *match.span())
    for match in _ACCOUNT.finditer(text):
        if len(_digits(match[0])) in _ACCOUNT_DIGITS:
            yield PersonalData("bank_account", *match.span())
    for match in _BARE_ACCOUNT.finditer(text):
        yield PersonalData("bank_account", *match.span(1))


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))
