#!/usr/bin/env bash
# Prints the programs to deploy, as a JSON list: CHOSEN alone, or those whose image has changed since the last push to main
# whose run was successful. Since the last one, not since the last push: a change whose checks failed is still to be deployed.
# Needs gh, git and jq, and the whole history.
set -euo pipefail
IMAGE='services/__init__\.py|(shared|contracts|infra/docker)/.*|pyproject\.toml|infra/locks/build\.txt'
PIPELINE='\.github/(build|changed|release|run-task)\.sh|\.github/workflows/(main|deploy|release)\.yml'

list() { jq --raw-input . | jq --slurp --compact-output .; }

if [[ -n ${CHOSEN:-} ]]; then
    list <<< "$CHOSEN"
    exit
fi
last=$(gh run list --workflow main.yml --branch main --event push --status success --limit 1 --json headSha --jq '.[].headSha')
files=$(git diff --name-only "$last" "$GITHUB_SHA" 2> /dev/null || echo pyproject.toml) # no such run or commit: all of them
for program in ingestion remodelling loading operator; do
    if grep --quiet --extended-regexp "^($IMAGE|$PIPELINE|services/$program/.*|infra/locks/$program\.txt)$" <<< "$files"; then
        echo "$program"
    fi
done | list
