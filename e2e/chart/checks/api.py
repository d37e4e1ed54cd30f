"""Rules of Kubernetes' own: the models of its Python client know every field of every object."""

from collections.abc import Iterator

from chart.rendering import Object, title
from kubernetes import client
from pydantic import BaseModel, ValidationError

# Of operators: their definitions are in no client. A server-side dry run in a cluster checks them.
_FOREIGN = {"ServiceMonitor", "HTTPRoute"}
_QUANTITIES = {"limits", "requests"}  # which may be numbers, though the client wants texts


def fields_are_known(found: list[Object]) -> Iterator[str]:
    """No field is misspelt, none that must be there is missing, and none has another kind of value."""
    for item in found:
        if item["kind"] in _FOREIGN:
            continue
        model: type[BaseModel] = getattr(client, f"{item['apiVersion'].rpartition('/')[2].title()}{item['kind']}")
        try:
            model.model_validate(item, by_alias=True, by_name=False)
        except ValidationError as error:
            for each in error.errors():
                if not (_QUANTITIES & set(each["loc"]) and isinstance(each["input"], int | float)):
                    yield f"{title(item)}: {'.'.join(map(str, each['loc']))}: {each['msg']}"
