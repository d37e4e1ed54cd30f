#!/usr/bin/env bash
# Brings Helm 3 and Helm 4 into .tools, at the versions that the checks of the chart are made with. Needs Go, whose checksum
# database vouches for what it fetches; both builds take some minutes, once.
set -euo pipefail
cd "$(dirname "$0")/../.."

install() {  # MODULE VERSION
    local folder=$PWD/.tools/helm-$2
    [[ -x $folder/helm ]] && return
    command -v go >/dev/null || { echo "Helm $2 is built by Go: install Go 1.24 or newer" >&2; exit 2; }
    echo "building Helm $2 into .tools"
    CGO_ENABLED=0 GOBIN=$folder go install -trimpath "$1@v$2"
}

install helm.sh/helm/v3/cmd/helm 3.19.5
install helm.sh/helm/v4/cmd/helm 4.3.1
