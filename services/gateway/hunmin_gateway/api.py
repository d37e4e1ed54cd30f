"""Everything that the gateway offers: a router per dialect, the page that describes them, errors in each dialect."""

from importlib.metadata import version

from fastapi import Depends, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from hunmin_contracts.errors import Problem
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from hunmin_gateway.authentication import check_declared
from hunmin_gateway.clova import api as clova_api
from hunmin_gateway.clova import envelope as clova_envelope
from hunmin_gateway.clova import openai_twin as clova_openai_api
from hunmin_gateway.clova import tools as clova_tools_api
from hunmin_gateway.clova import tuning as clova_tuning_api
from hunmin_gateway.clova.request_id import ClovaRequestId
from hunmin_gateway.clova.router import SERVICE_APP, TEST_APP, refuse_test_keys
from hunmin_gateway.idempotency.recorder import Recorder
from hunmin_gateway.login import api as login_api
from hunmin_gateway.login import pages as login_pages
from hunmin_gateway.openai import api as openai_api
from hunmin_gateway.openai import batches as batches_api
from hunmin_gateway.openai import files as files_api
from hunmin_gateway.openai import fine_tuning as fine_tuning_api
from hunmin_gateway.openai.errors import error_response
from hunmin_gateway.quotas.headers import QuotaHeaders
from hunmin_gateway.studio import account as account_api
from hunmin_gateway.studio import api as studio_api
from hunmin_gateway.studio import audit as audit_api
from hunmin_gateway.studio import batches as studio_batches_api
from hunmin_gateway.studio import datasets as datasets_api
from hunmin_gateway.studio import gradients as gradients_api
from hunmin_gateway.studio import keys as keys_api
from hunmin_gateway.studio import members as members_api
from hunmin_gateway.studio import operator as operator_api
from hunmin_gateway.studio import products as products_api
from hunmin_gateway.studio import quotas as quotas_api
from hunmin_gateway.studio import scoring as scoring_api
from hunmin_gateway.studio import soft_prompts as soft_prompts_api
from hunmin_gateway.studio import tuning as tuning_api
from hunmin_gateway.studio import usage as usage_api
from hunmin_gateway.tgi import api as tgi_api
from hunmin_gateway.tgi import errors as tgi_errors

UPLOAD_PATHS = tuple(  # of large files
    api.UPLOAD_PATH for api in (datasets_api, files_api, soft_prompts_api, studio_batches_api)
)
# What anybody may ask, without a key.
OPEN_PATHS = (
    frozenset({"/", "/docs", "/health", "/models/{name:path}/health", "/livez", "/readyz", "/metrics"})
    | login_api.OPEN_PATHS
)
DESCRIPTION = """
A Korean language-model studio of one's own. Every request carries an API key (`Authorization: Bearer hm_…`), an
access token of the identity provider, or the session of a browser (`/auth/login`).

* **OpenAI** (`/v1`): works with OpenAI's own clients; set their `base_url` to this server's `/v1`. Errors have
  OpenAI's shape.
* **TGI** (`/generate`, `/generate_stream`, `/`): works with `huggingface_hub`'s InferenceClient and with
  `text-generation`; a URL is `/` for the default model or `/models/NAME` for another. Errors have TGI's shape.
* **CLOVA Studio** (`/v1/chat-completions`, `/testapp/v1/…`, `/serviceapp/v1/…`, `/tuning/v2/tasks`, …): works with
  `langchain-community`, and below `/v1/openai` with `langchain-naver`. Errors have five digits, in NAVER's envelope.
* **Studio** (`/studio/v1`): tokenizers, datasets, products, tuning jobs, soft prompts, gradients, usage and
  quotas. Errors are problem documents (RFC 9457).

A `POST` may carry an `Idempotency-Key`, a text of your own: sent again with the same key, it is not made again, and
gets the same answer.

Every answer has the header `x-request-id`; name it when you report a problem. If your account has limits, answers to
metered calls also have OpenAI's `x-ratelimit-…`.
"""


class About(BaseModel):
    """What this server is, and where to go on."""

    name: str
    version: str
    links: dict[str, str]


def mount(app: FastAPI) -> None:
    """Put every route on `app`."""
    app.version = version("hunmin-gateway")
    app.description = DESCRIPTION
    app.add_middleware(Recorder)  # within the next: what is left of a limit is not that of an answer that is replayed
    app.add_middleware(QuotaHeaders)
    app.add_middleware(ClovaRequestId)
    app.include_router(openai_api.router)
    app.include_router(files_api.uploads)
    app.include_router(files_api.router)
    app.include_router(batches_api.router)
    app.include_router(fine_tuning_api.router)
    app.include_router(clova_openai_api.router)
    app.include_router(clova_tuning_api.router)
    for router in (clova_api.router, clova_tools_api.router):
        app.include_router(router)
        app.include_router(router, prefix=TEST_APP)
        app.include_router(router, prefix=SERVICE_APP, dependencies=[Depends(refuse_test_keys)])
    app.include_router(studio_api.router)
    app.include_router(account_api.router)
    app.include_router(members_api.router)
    app.include_router(keys_api.router)
    app.include_router(audit_api.router)
    app.include_router(operator_api.router)
    app.include_router(studio_batches_api.router)
    app.include_router(usage_api.router)
    app.include_router(quotas_api.router)
    app.include_router(gradients_api.router)
    app.include_router(scoring_api.router)
    app.include_router(soft_prompts_api.uploads)
    app.include_router(soft_prompts_api.router)
    app.include_router(datasets_api.uploads)
    app.include_router(datasets_api.router)
    app.include_router(tuning_api.router)
    app.include_router(products_api.router)
    app.include_router(login_api.router)
    app.include_router(tgi_api.health_router)
    app.include_router(tgi_api.router)
    app.include_router(tgi_api.named)
    app.mount("/docs/static", StaticFiles(packages=[("fastapi_swagger", "resources")]))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/docs/static/swagger-ui-bundle.js",
            swagger_css_url="/docs/static/swagger-ui.css",
            swagger_favicon_url="/docs/static/favicon-32x32.png",
            swagger_ui_parameters={"persistAuthorization": True},
        )

    @app.get("/", summary="What this server is", tags=["About"])
    async def about() -> About:
        """Name the server and its entrances. Needs no key."""
        links = {"docs": "/docs", "openapi": "/openapi.json", "models": "/v1/models", "usage": "/studio/v1/usage"}
        return About(name=app.title, version=app.version, links=links)

    check_declared(app.routes, open_paths=OPEN_PATHS)


def render_error(request: Request, problem: Problem) -> Response:
    """Answer in the dialect of the path."""
    path = request.url.path
    if path.startswith("/auth/") and "text/html" in request.headers.get("accept", ""):
        return login_pages.error_page(problem)
    if clova_envelope.is_clova(path):
        return clova_envelope.error_response(problem)
    if path.startswith("/v1/"):
        return error_response(problem, path)
    if tgi_errors.is_tgi(path):
        return tgi_errors.error_response(problem, path)
    return Response(problem.model_dump_json(), status_code=problem.status, media_type="application/problem+json")
