"""Input gradients of the Studio dialect: one answer, metered in backward tokens as they are computed."""

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.gradients import GRADIENTS, GradientBody, GradientProgress, GradientRequest, GradientResponse
from hunmin_kit.web import current_request_id
from starlette.responses import Response

from hunmin_gateway.authentication import CallerDep
from hunmin_gateway.exchange import Exchange, Tokens
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.studio.router import PREFIX, studio_router

router = studio_router()


@router.post("/gradients", response_model=GradientResponse, summary="Gradients at a soft prompt")
async def gradients(body: GradientBody, caller: CallerDep, parts: PartsDep) -> Response:
    """Return the loss of a batch and its gradient at the rows of a soft prompt.

    That is all that is needed to train a prompt encoder at home, without the model's weights. On request also the
    saliency of each prompt token, and the tokens that would lower the loss most at given positions.
    """
    exchange = Exchange(current_request_id(), caller, f"{PREFIX}/gradients", body.model)
    request = GradientRequest(account_id=caller.account_id, **dict(body))
    response: GradientResponse | None = None
    async with parts.pipeline.metered(exchange) as meter, parts.generation.stream(GRADIENTS, request) as events:
        async for event in events:
            if isinstance(event.root, GradientProgress):
                usage = event.root.usage
            else:
                response = event.root.response
                usage = response.usage
            meter.record(Tokens(prompt=usage.prompt_tokens, backward=usage.backward_tokens))
        if response is None:
            raise HunminError(ErrorCode.UNAVAILABLE, "The gradients were cut off before their end. Try again.")
    return Response(response.model_dump_json(), media_type="application/json")
