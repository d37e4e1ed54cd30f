"""Rules for images."""

import re
from collections.abc import Iterator

from chart.checks.pods import tuning_jobs
from chart.rendering import Object, pods


def images(found: list[Object]) -> set[str]:
    """Return every image that is pulled, by pods of tuning jobs too."""
    own = {container["image"] for pod in pods(found) for container in pod.containers}
    return own | {job["image"] for _, job in tuning_jobs(found)}


def images_are_pinned(found: list[Object]) -> Iterator[str]:
    """Every image has a registry, and a tag other than `latest` or a digest."""
    for image in images(found):
        name, _, digest = image.partition("@")
        _, colon, tag = name.rpartition("/")[2].partition(":")
        if tag == "latest" or not (colon or digest.startswith("sha256:")):
            yield f"{image} may be another one tomorrow"
        if not re.match(r"[a-z0-9.-]+(:[0-9]+)?/", image):
            yield f"{image} comes from wherever a node looks"


def images_come_from(found: list[Object], registry: str) -> Iterator[str]:
    """All images come from one registry."""
    yield from sorted(image for image in images(found) if not image.startswith(f"{registry}/"))


def image_list_is_complete(found: list[Object], listed: str) -> Iterator[str]:
    """The list for air-gapped installations has every image, and no other."""
    lines = set(listed.split())
    yield from (f"{image} is not in the list" for image in sorted(images(found) - lines))
    yield from (f"{image} is in the list, and nothing runs it" for image in sorted(lines - images(found)))
