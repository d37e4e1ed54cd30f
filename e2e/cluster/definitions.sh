#!/usr/bin/env bash
# Puts into .tools/definitions the kinds of other people's that the chart can render: HTTPRoute, and ServiceMonitor, whose
# definition the operator's own generator makes from its types. Needs Go; takes some minutes, once.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$PWD/.tools/definitions
[[ -f $out/servicemonitors.yaml && -f $out/httproutes.yaml ]] && exit
command -v go > /dev/null || { echo "the definitions of HTTPRoute and ServiceMonitor are made by Go: install it, or have them in the cluster" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder"
export GOFLAGS=-mod=mod
operator=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring
generator=sigs.k8s.io/controller-tools/cmd/controller-gen
go mod init definitions 2> /dev/null
printf '//go:build definitions\n\npackage definitions\n\nimport (\n\t_ "%s/v1"\n\t_ "%s"\n)\n' "$operator" "$generator" > definitions.go
go get "$operator@v0.86.0" "$generator@v0.19.0" 2> /dev/null
go run "$generator" crd "paths=$operator/v1" output:crd:dir=made
routes=$(go mod download -json sigs.k8s.io/gateway-api@v1.4.0 | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
mkdir -p "$out"
cp "$routes/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml" "$out/httproutes.yaml"
cp made/monitoring.coreos.com_servicemonitors.yaml "$out/servicemonitors.yaml"
chmod u+w "$out"/*
