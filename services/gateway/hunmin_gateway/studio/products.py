"""Products of the Studio dialect: templates, sample data and parameters that the tuning service ships with."""

from hunmin_contracts.products import DESCRIBE, LIST, SAMPLE, Product, ProductList, ProductRequest
from hunmin_contracts.schema import Empty
from hunmin_contracts.tenancy import Scope
from starlette.responses import Response

from hunmin_gateway.authentication import requires
from hunmin_gateway.parts import PartsDep
from hunmin_gateway.studio.router import studio_router

router = studio_router()

_MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "tsv": "text/tab-separated-values; charset=utf-8",
    "jsonl": "application/jsonl",
}


@router.get("/products", summary="List what can be made by tuning", dependencies=[requires(Scope.READ)])
async def page(parts: PartsDep) -> ProductList:
    """List the products that ship: each a template, parameters to start from, and a sample."""
    return await parts.tuning.call(LIST, Empty())


@router.get("/products/{name}", summary="Describe a product", dependencies=[requires(Scope.READ)])
async def describe(name: str, parts: PartsDep) -> Product:
    """Describe one product."""
    return await parts.tuning.call(DESCRIBE, ProductRequest(name=name))


@router.get(
    "/products/{name}/sample",
    response_class=Response,
    summary="Read a product's sample",
    dependencies=[requires(Scope.READ)],
)
async def sample(name: str, parts: PartsDep) -> Response:
    """Return the sample as a file, which can be uploaded as a dataset as it is."""
    found = await parts.tuning.call(SAMPLE, ProductRequest(name=name))
    ending = found.filename.rpartition(".")[2]
    headers = {"Content-Disposition": f'attachment; filename="{found.filename}"'}
    return Response(found.content.encode(), media_type=_MEDIA_TYPES[ending], headers=headers)
