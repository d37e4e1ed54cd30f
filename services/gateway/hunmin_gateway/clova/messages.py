"""The messages of a chat, in both versions, and what is refused of them. Pure: no I/O."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.generation import Message
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic.alias_generators import to_camel

from hunmin_gateway.clova.envelope import TEXT_EMPTY, UNSUPPORTED_FUNCTION, clova_error
from hunmin_gateway.clova.parameters import CamelSchema
from hunmin_gateway.public_schema import said

Role = Literal["system", "user", "assistant"]


def unserved_but(*neutral: object) -> BeforeValidator:
    """Return the mark of a function that no model here has: null and the `neutral` values pass, as null.

    As `public_schema.only`, but for the code that it has in this dialect alone.
    """

    def check(value: object, info: ValidationInfo) -> None:
        if value is not None and value not in neutral:
            raise unserved(to_camel(str(info.field_name)))

    return BeforeValidator(check)


class TextMessage(CamelSchema):
    """One turn, in the first version."""

    role: Role
    content: str

    def message(self, place: str) -> Message:
        """The turn as the generation service takes it."""
        return Message(role=self.role, content=self.content)


class Part(CamelSchema):
    """A part of a turn. Images are not served."""

    type: Annotated[Literal["text", "image_url"], WithJsonSchema({"const": "text"})]
    text: str | None = None
    image_url: Annotated[Any, WithJsonSchema({"type": "null"})] = None
    data_uri: Annotated[Any, WithJsonSchema({"type": "null"})] = None


class PartedMessage(CamelSchema):
    """One turn, in the third version: a text, or parts that are joined without anything between them."""

    role: Role
    content: Annotated[str | list[Part], said('a string or a list of parts {"type": "text", "text": "…"}')]

    def texts(self, place: str) -> list[str]:
        """The text of each part; `place` is the path of the turn."""
        if isinstance(self.content, str):
            return [self.content]
        return [_text(part, f"{place}.content.{number}") for number, part in enumerate(self.content)]

    def message(self, place: str) -> Message:
        """The turn as the generation service takes it."""
        return Message(role=self.role, content="".join(self.texts(place)))


# That there is none is told by a code of its own (`chat_of`), not as a list that is too short.
TextMessages = Annotated[list[TextMessage], Field(json_schema_extra={"minItems": 1})]
PartedMessages = Annotated[list[PartedMessage], Field(json_schema_extra={"minItems": 1})]


class _Turn(Protocol):
    def message(self, place: str) -> Message: ...


def chat_of(messages: Sequence[_Turn]) -> list[Message]:
    """Return the chat, which has a text, and one message of the system at most."""
    chat = [message.message(f"messages.{number}") for number, message in enumerate(messages)]
    if not any(message.content for message in chat):
        raise clova_error(
            ErrorCode.INVALID_PARAMETER, TEXT_EMPTY, "Parameter messages: holds no text. Send some.", param="messages"
        )
    systems = [number for number, message in enumerate(chat) if message.role == "system"]
    if len(systems) > 1:
        param = f"messages.{systems[1]}.role"
        raise HunminError(
            ErrorCode.INVALID_PARAMETER,
            f"Parameter {param}: a chat has one message of the system at most. Join them.",
            param=param,
        )
    return chat


def unserved(param: str) -> HunminError:
    """Return the refusal of a function that no model here has."""
    return clova_error(
        ErrorCode.INVALID_PARAMETER,
        UNSUPPORTED_FUNCTION,
        f"Parameter {param}: this function is not served here. Leave it out.",
        param=param,
    )


def _text(part: Part, place: str) -> str:
    if part.type != "text" or part.image_url is not None or part.data_uri is not None:
        raise unserved(place)
    if part.text is None:
        raise HunminError(
            ErrorCode.INVALID_PARAMETER, f"Parameter {place}.text is missing. Add it.", param=f"{place}.text"
        )
    return part.text
