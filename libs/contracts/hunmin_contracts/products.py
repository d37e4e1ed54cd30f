"""Products: what can be made by tuning, each as a template with sample data and parameters to start from.

The paper shows three in section 5.2 (persona chatbot, data augmentation, event titles); sentiment is that of Table 4.
"""

from hunmin_contracts.datasets import DatasetFormat, DatasetName, Shares
from hunmin_contracts.endpoint import Endpoint
from hunmin_contracts.errors import ErrorCode
from hunmin_contracts.schema import Empty, Schema
from hunmin_contracts.tuning import Hyperparameters, TuningTemplate


class Sample(Schema):
    """A file of labelled rows that can be uploaded as a dataset as it is."""

    filename: str
    format: DatasetFormat
    columns: list[str]
    rows: int
    size_bytes: int
    license: str
    source: str


class ProductDescription(Schema):
    """What a product is. `trial`: fields of a prompt that is in no row, to try what was tuned with."""

    name: DatasetName
    title: str
    description: str
    template: TuningTemplate
    hyperparameters: Hyperparameters
    shares: Shares
    trial: dict[str, str]


class Product(ProductDescription):
    """A product with the sample that it ships with; the template's fields are the sample's columns."""

    sample: Sample


class ProductList(Schema):
    """All of them, by name."""

    data: list[Product]


class ProductRequest(Schema):
    """One product."""

    name: str


class SampleFile(Schema):
    """A sample's text."""

    filename: str
    content: str


LIST = Endpoint("GET", "/v1/products", Empty, ProductList)
DESCRIBE = Endpoint("GET", "/v1/products/{name}", ProductRequest, Product, errors=(ErrorCode.NOT_FOUND,))
SAMPLE = Endpoint("GET", "/v1/products/{name}/sample", ProductRequest, SampleFile, errors=(ErrorCode.NOT_FOUND,))
