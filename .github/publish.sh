#!/usr/bin/env bash
# Publishes the version of a tag: publish.sh TAG. Needs docker with buildx, logged in to ghcr.io, gh, and the tag's checkout with its environment on the PATH.
set -euo pipefail
TAG=$1
export VERSION=${TAG#v}

refuse() {
    echo "publish: $*" >&2
    exit 1
}

grep --quiet --line-regexp "version = \"$VERSION\"" pyproject.toml || refuse "pyproject.toml has another version than the tag $TAG"
awk -v heading="## $VERSION" '/^## / { inside = index($0 " ", heading " ") == 1; next } inside' CHANGELOG.md > notes.md
grep --quiet . notes.md || refuse "CHANGELOG.md has no section '## $VERSION'"

uv build --quiet --wheel --no-build-isolation --python "$(command -v python)" # with the locked setuptools
for program in ingestion remodelling loading operator; do
    .github/build.sh "$program" --platform linux/arm64 --sbom=true --push --tag "ghcr.io/${GITHUB_REPOSITORY,,}/$program:$VERSION"
    .github/build.sh "$program" --platform linux/arm64 --sbom=true --output "type=local,dest=images/$program" # the same bytes
    mv "images/$program/sbom.spdx.json" "dist/starlift-$program-$VERSION.spdx.json"
done
gh release create "$TAG" --verify-tag --title "Starlift $VERSION" --notes-file notes.md dist/starlift-*
