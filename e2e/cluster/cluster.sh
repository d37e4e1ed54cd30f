#!/usr/bin/env bash
# The cluster that tests run on: the one of KUBECONFIG, or else that of $CLUSTER_TOOL, or else one of kind's where docker runs.
#
#   cluster.sh up            start it, unless it is somebody else's
#   cluster.sh load FILE…    give the archives of images to its nodes
#   cluster.sh tag OLD NEW   let the nodes have our images of the tag OLD under the tag NEW as well
#   cluster.sh env           print the shell lines that select it
#   cluster.sh down          stop it
#
# CLUSTER_TOOL is a command with `up`, `load FILE`, `env`, `shell COMMAND` on the node, and `down`.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=hunmin
operator="github.com/kubeflow/training-operator.git/manifests/overlays/standalone?ref=v1.9.3"
kind_kubeconfig=$PWD/.tools/kind.kubeconfig
containerd=(ctr --namespace k8s.io)

die() { echo "cluster: $*" >&2; exit 2; }

# Which of the three: tool, kind, or given. A tool's own kubeconfig may be selected already.
which_cluster() {
    if [[ -n ${CLUSTER_TOOL:-} ]]; then
        echo tool
    elif [[ -n ${KUBECONFIG:-} ]]; then
        echo given
    elif command -v kind > /dev/null && docker info > /dev/null 2>&1; then
        echo kind
    else
        die "set KUBECONFIG to the file of a cluster for tests, or CLUSTER_TOOL to a command that makes one, or install kind and docker"
    fi
}

selected() {
    case $1 in
        tool) "$CLUSTER_TOOL" env ;;
        kind) echo "export KUBECONFIG=$kind_kubeconfig" ;;
        given) echo "export KUBECONFIG=$KUBECONFIG" ;;
    esac
}

up_kind() {
    mkdir -p .tools
    kind get clusters 2> /dev/null | grep -qx "$name" || kind create cluster --name "$name" --wait 5m
    kind get kubeconfig --name "$name" > "$kind_kubeconfig"
    kubectl --kubeconfig "$kind_kubeconfig" apply --server-side -k "$operator"
}

up_tool() {
    "$CLUSTER_TOOL" up
    eval "$("$CLUSTER_TOOL" env)"
    if kubectl get storageclasses --output jsonpath='{.items[*].provisioner}' | grep -q kubernetes.io/host-path; then
        kubectl apply --filename e2e/cluster/open_volumes.yaml
    fi
}

tag() {
    local service on_node
    case $1 in
        tool) on_node=("$CLUSTER_TOOL" shell "${containerd[@]}" --address "$(dirname "$KUBECONFIG")/containerd.sock") ;;
        kind) on_node=(docker exec "$name-control-plane" "${containerd[@]}") ;;
        given) die "give the images the tag $3 yourself, and set E2E_PREVIOUS_TAG to it" ;;
    esac
    for service in gateway generation tokenizer tuning; do
        "${on_node[@]}" images tag --force "localhost/hunmin-$service:$2" "localhost/hunmin-$service:$3"
    done
}

began=$SECONDS
command=${1:-}
shift || true
cluster=$(which_cluster)
case $command/$cluster in
    up/tool) up_tool ;;
    up/kind) up_kind ;;
    up/given) echo "cluster: the one of KUBECONFIG is used" ;;
    load/tool) "$CLUSTER_TOOL" load "$@" ;;
    load/kind) for file in "$@"; do kind load image-archive "$file" --name "$name"; done ;;
    load/given) die "the cluster of KUBECONFIG is somebody else's: push the images to where its nodes find them" ;;
    tag/*) eval "$(selected "$cluster")" && tag "$cluster" "$@" > /dev/null ;;
    env/*) selected "$cluster" ;;
    down/tool) "$CLUSTER_TOOL" down ;;
    down/kind) kind delete cluster --name "$name" ;;
    down/given) echo "cluster: the one of KUBECONFIG is somebody else's" ;;
    *) die "cluster.sh up | load FILE… | tag OLD NEW | env | down" ;;
esac
case $command in up | load | down) echo "cluster: $command took $((SECONDS - began)) s" ;; esac
