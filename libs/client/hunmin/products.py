"""`client.products`: what ships to begin with: templates with parameters and sample data."""

from hunmin_contracts.products import Product, ProductList

from hunmin.call import Call, content, model, segment
from hunmin.resource import Resource, SenderT, sends


class Products(Resource[SenderT]):
    """What can be made by tuning, each with a sample that can be uploaded as it is."""

    @sends
    def list(self) -> Call[ProductList]:
        """List every product."""
        return Call("GET", "products", model(ProductList))

    @sends
    def get(self, name: str) -> Call[Product]:
        """Describe one product."""
        return Call("GET", f"products/{segment(name)}", model(Product))

    @sends
    def sample(self, name: str) -> Call[bytes]:
        """Return a product's sample, a file called `sample.filename`."""
        return Call("GET", f"products/{segment(name)}/sample", content)
