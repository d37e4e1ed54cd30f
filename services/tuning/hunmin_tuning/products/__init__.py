"""Products that ship: a folder each, with `product.json` and its sample. They know no torch and no database."""
