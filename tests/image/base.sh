#!/usr/bin/env bash
# Builds a base image with Python from Debian packages, for machines without an image registry.
# tests/image/base.sh NAME    then: make test-image PYTHON_IMAGE=NAME
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv stable "$folder/root"
ln -sf python3 "$folder/root/usr/bin/python"
rm -rf "$folder"/root/var/cache/apt/* "$folder"/root/var/lib/apt/lists/*
tar -C "$folder/root" -c . | docker import - "$1"
