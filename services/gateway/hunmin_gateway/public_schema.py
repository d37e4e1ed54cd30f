"""What the bodies of every dialect are made of: strict JSON types, and marks for parameters that are not served."""

from typing import Any

from hunmin_contracts.schema import Schema
from pydantic import BeforeValidator, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError

NAME = r"^[^\x00-\x1f\x7f]*$"  # no control characters: a name is stored and logged


def only(*neutral: object) -> BeforeValidator:
    """Return the mark of a parameter that is not served: null and the `neutral` values pass, as null."""

    def check(value: object) -> None:
        if value is not None and not any(type(value) is type(one) and value == one for one in neutral):
            raise PydanticCustomError("unsupported_parameter", "not supported here, leave it out")

    return BeforeValidator(check)


def said(expected: str) -> WrapValidator:
    """Return the mark of a parameter of several shapes: a wrong one is answered by `expected` alone."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            raise PydanticCustomError("invalid_value", f"must be {expected}") from error

    return WrapValidator(check)


class PublicSchema(Schema):
    """A part of a public request: JSON types are taken as they are, and no number is infinite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


def absent(value: object) -> bool:
    """Tell that a field is left out of the answer rather than sent as null."""
    return value is None
