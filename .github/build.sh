#!/usr/bin/env bash
# Builds one program's image: build.sh PROGRAM [OPTION ...], with options of `docker buildx build`.
set -euo pipefail
program=$1
shift
exec docker buildx build --file infra/docker/Dockerfile --build-arg "SERVICE=$program" --build-arg "VERSION=${VERSION:-$GITHUB_SHA}" \
    --build-arg "REVISION=$GITHUB_SHA" --build-arg "SOURCE=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY" --provenance=false "$@" .
