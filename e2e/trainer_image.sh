#!/usr/bin/env bash
# Makes the image localhost/hunmin-tuning:test, for a cluster without GPUs, and takes it to the nodes by $CLUSTER_TOOL.
# BUILD_OPTIONS go to the builder, such as "--network host" or a mount with the certificates of a package index.
set -euo pipefail
: "${CLUSTER_TOOL:?set TRAINER_IMAGE to an image that the nodes can get, or CLUSTER_TOOL to a command that loads one}"
name=localhost/hunmin-tuning:test
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
arguments=(--build-arg PACKAGE=hunmin-tuning --build-arg "SYNC=--no-install-package triton" --tag "$name" .)
read -ra options <<< "${BUILD_OPTIONS:-}"
if docker info > /dev/null 2>&1; then  # the client alone builds nothing
    docker build "${options[@]}" "${arguments[@]}"
    docker save --output "$folder/image.tar" "$name"
else
    buildah bud --layers=false "${options[@]}" "${arguments[@]}"
    buildah push "$name" "docker-archive:$folder/image.tar:$name"
fi
"$CLUSTER_TOOL" load "$folder/image.tar"
