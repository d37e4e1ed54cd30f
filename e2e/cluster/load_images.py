"""`make cluster-images`: build every image of a studio with its small servers, and take them to the cluster's nodes.

Nodes of CLUSTER_TOOL pull nothing, so the public images that the chart names are made for them too (stand_ins.py).
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster import stand_ins
from images.build import build, chosen, image_name, report
from images.builder import Buildah, find_builder
from images.load import load


def main() -> None:
    """Build and load them, small ones first."""
    builder = find_builder()
    if "CLUSTER_TOOL" in os.environ:
        if missing := stand_ins.missing_tools():
            raise SystemExit(f"cluster-images: {', '.join(missing)} must be there")
        stand_ins.build("python")
        for server in stand_ins.SERVERS:
            load(Buildah("buildah"), stand_ins.build(server))
    for service in chosen():
        build(builder, service)
        load(builder, image_name(service))
    print(report(builder, chosen()))


if __name__ == "__main__":
    main()
