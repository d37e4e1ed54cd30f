"""Scoring of the Studio dialect: how likely the model holds each of several continuations."""

from hunmin_contracts.generation import SCORE, ScoreBody, ScoreRequest, ScoreResponse
from hunmin_contracts.tenancy import Scope
from hunmin_kit.web import current_request_id

from hunmin_gateway.authentication import PrincipalDep, requires
from hunmin_gateway.exchange import Exchange, Tokens
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.studio.router import PREFIX, studio_router

router = studio_router()


@router.post("/score", summary="Log-likelihood of continuations", dependencies=[requires(Scope.GENERATE)])
async def score(body: ScoreBody, principal: PrincipalDep, parts: PartsDep) -> ScoreResponse:
    """Return the log-likelihood of each continuation after the prompt.

    The likeliest verbalizer classifies, the likeliest answer wins a multiple choice; `mean_logprob` does not favour
    short ones. The prompt is computed and counted once.
    """
    request = ScoreRequest(account_id=principal.account_id, **dict(body))
    exchange = Exchange(current_request_id(), principal, f"{PREFIX}/score", body.model, [request])
    async with parts.pipeline.metered(exchange) as meter:
        response = await parts.generation.call(SCORE, exchange.requests[0])
        meter.record(Tokens(prompt=response.prompt_tokens + response.continuation_tokens))
    return response
