"""The client library of Hunmin Studio. `hunmin.tuning`, which needs torch, is imported by itself."""

from hunmin_contracts.generation import Message
from hunmin_contracts.gradients import Candidates, GradientExample
from hunmin_contracts.tuning import Hyperparameters, TuningTemplate

from hunmin.client import AsyncClient, Client
from hunmin.errors import (
    ApiError,
    AuthenticationError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    MissingKeyError,
    NotFoundError,
    OverloadedError,
    ServerError,
    StudioError,
    UnavailableError,
    UnexpectedAnswerError,
    UnreachableError,
)
from hunmin.sending import Retries

__all__ = [
    "ApiError",
    "AsyncClient",
    "AuthenticationError",
    "Candidates",
    "Client",
    "ConflictError",
    "ForbiddenError",
    "GradientExample",
    "Hyperparameters",
    "InvalidRequestError",
    "Message",
    "MissingKeyError",
    "NotFoundError",
    "OverloadedError",
    "Retries",
    "ServerError",
    "StudioError",
    "TuningTemplate",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UnreachableError",
]
