"""What the two say to each other."""

from typing import Annotated, Literal

from hunmin_contracts.endpoint import Endpoint, StreamEndpoint, UploadEndpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.schema import Empty, Schema
from pydantic import Field, RootModel


class EchoRequest(Schema):
    text: str
    fail: str | None = None  # "expected", "unexpected"


class EchoResponse(Schema):
    text: str
    request_id: str
    caller_context: str


class CountRequest(Schema):
    n: int = Field(ge=0)
    before_s: float = 0
    pause_s: float = 0
    fail_at: int | None = None
    fail: str = "expected"
    pad: int = 0


class StateResponse(Schema):
    calls: int  # running now
    produced: int  # events so far


class Tick(Schema):
    type: Literal["tick"] = "tick"
    i: int
    text: str = ""


class Done(Schema):
    type: Literal["done"] = "done"


class CountEvent(RootModel[Annotated[Tick | Done, Field(discriminator="type")]]):
    pass


class NoteRequest(Schema):
    name: str
    fail: str | None = None  # "after", "commit"


class NoteResponse(Schema):
    count: int


class FileRequest(Schema):
    folder: str
    title: str
    tags: list[str] | None = None
    colours: dict[str, int] = {}
    fail: str | None = None


class FileResponse(Schema):
    request: FileRequest
    size: int
    sha256: str


class NotesRequest(Schema):
    folder: str
    limit: int = 10
    tags: list[str] = []


ECHO = Endpoint("POST", "/v1/echo", EchoRequest, EchoResponse, errors=(ErrorCode.CONFLICT,))
SLEEP = Endpoint("POST", "/v1/sleep", CountRequest, Done)
COUNT = StreamEndpoint("POST", "/v1/count", CountRequest, CountEvent)
WATCH = StreamEndpoint("POST", "/v1/watch", CountRequest, CountEvent, is_endless=True)
STATE = Endpoint("GET", "/v1/state", Empty, StateResponse)
NOTE = Endpoint("POST", "/v1/notes", NoteRequest, NoteResponse)
NOTES = Endpoint("GET", "/v1/notes", Empty, NoteResponse)
IN_FOLDER = Endpoint("GET", "/v1/folders/{folder}", NotesRequest, NotesRequest)
PUT_FOLDER = Endpoint("PUT", "/v1/folders/{folder}", NotesRequest, NotesRequest)
RELAY = Endpoint("POST", "/v1/relay", EchoRequest, EchoResponse)
RELAY_COUNT = StreamEndpoint("POST", "/v1/relay-count", CountRequest, CountEvent)
READ_FILE = StreamEndpoint("POST", "/v1/folders/{folder}/read", FileRequest, CountEvent, takes_file=True)
PUT_FILE = UploadEndpoint("PUT", "/v1/folders/{folder}/file", FileRequest, FileResponse)
