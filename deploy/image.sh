#!/usr/bin/env bash
# Makes the image from a static binary that cargo builds on this machine: no base image is pulled.
#
#   deploy/image.sh [NAME]               what users run; NAME defaults to triad:dev
#   deploy/image.sh --testing [NAME]     with faults on demand on the admin port, for tests alone;
#                                        NAME defaults to triad:testing
#
# The image is the one of deploy/Dockerfile: its last stage is used as it stands, only the files it
# copies come from here. A second run after no change takes a few seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

name=triad:dev
features=()
if [ "${1:-}" = --testing ]; then
    shift
    name=triad:testing
    features=(--features triad/testing)
fi
name="${1:-$name}"
host="$(rustc -vV | sed -n 's/^host: //p')"
target="${CARGO_TARGET_DIR:-target}"

# The same build as in deploy/Dockerfile. Nothing but the option above turns the feature `testing` on.
RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_DEBUG=none \
    cargo build --release --locked --bin triad --target "$host" ${features[@]+"${features[@]}"}

context="$(mktemp -d)"
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/image/data"
cp "$target/$host/release/triad" "$context/image/triad"
# From the last FROM on, with the files of the build stage taken from the context instead.
awk '/^FROM /{stage=""} {stage=stage $0 "\n"} END{printf "%s", stage}' deploy/Dockerfile \
    | sed 's| --from=build||; s| /image/| image/|' >"$context/Dockerfile"

docker build --quiet --tag "$name" "$context"
echo "made $name ($(docker image inspect --format '{{.Size}}' "$name" | awk '{printf "%.1f MB", $1 / 1e6}'))"
