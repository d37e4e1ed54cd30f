"""The endpoints of `hunmin_contracts.products`."""

import asyncio

from fastapi import APIRouter
from hunmin_contracts.products import DESCRIBE, LIST, SAMPLE, Product, ProductList, ProductRequest, SampleFile
from hunmin_contracts.schema import Empty
from hunmin_kit.web import serve

from hunmin_tuning.products.catalogue import all_products, find_product, sample_path


def routes() -> APIRouter:
    """Mount every endpoint on the products that ship."""
    router = APIRouter()

    @serve(router, LIST)
    async def list_all(_: Empty) -> ProductList:
        return ProductList(data=list(await asyncio.to_thread(all_products)))

    @serve(router, DESCRIBE)
    async def describe(request: ProductRequest) -> Product:
        return await asyncio.to_thread(find_product, request.name)

    @serve(router, SAMPLE)
    async def sample(request: ProductRequest) -> SampleFile:
        product = await asyncio.to_thread(find_product, request.name)
        content = await asyncio.to_thread(sample_path(product).read_text, encoding="utf-8")
        return SampleFile(filename=product.sample.filename, content=content)

    return router
