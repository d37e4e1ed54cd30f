"""The products' folders as the contract describes them. A sample is read as an upload would be, once."""

import json
from functools import cache
from pathlib import Path

from hunmin_contracts.errors import ErrorCode, HunminError
from hunmin_contracts.products import Product

from hunmin_tuning.datasets.bounds import Bounds
from hunmin_tuning.datasets.reading import Reading
from hunmin_tuning.datasets.source import inspect

_FOLDER = Path(__file__).parent


@cache
def all_products() -> tuple[Product, ...]:
    """Return every product, by name."""
    return tuple(_read(path.parent) for path in sorted(_FOLDER.glob("*/product.json")))


def find_product(name: str) -> Product:
    """Return a product; `not_found` where there is none of this name."""
    for product in all_products():
        if product.name == name:
            return product
    known = ", ".join(product.name for product in all_products())
    raise HunminError(ErrorCode.NOT_FOUND, f"There is no product {name[:60]!r}. There are {known}.")


def sample_path(product: Product) -> Path:
    """Return where a product's sample lies."""
    return _sample_in(_FOLDER / product.name)


def _sample_in(folder: Path) -> Path:
    (path,) = folder.glob("sample.*")
    return path


def _read(folder: Path) -> Product:
    described = json.loads((folder / "product.json").read_bytes())
    path, bounds = _sample_in(folder), Bounds()
    with path.open("rb") as file:
        source = inspect(file, bounds, filename=path.name)
        file.seek(0)
        reading = Reading(file, source, bounds)
        for _ in reading.rows():
            pass
    described["sample"] |= {
        "filename": f"{folder.name}{path.suffix}",
        "format": source.format,
        "columns": reading.columns,
        "rows": reading.count,
        "size_bytes": path.stat().st_size,
    }
    return Product.model_validate(described)
