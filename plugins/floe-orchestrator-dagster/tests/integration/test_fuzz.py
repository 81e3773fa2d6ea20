"""Random files and random dbt output raise only errors of this package, or none."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floe_orchestrator_dagster.dbt.events import EventReader
from floe_orchestrator_dagster.errors import DbtError, FloeDagsterError
from floe_orchestrator_dagster.plan import plan_product, resolve_computes
from floe_orchestrator_dagster.product.artifacts import compiled_product, read_artifacts
from floe_orchestrator_dagster.product.opening import product_of_transforms
from floe_orchestrator_dagster.product.prepare import parse_manifest
from floe_orchestrator_dagster.product.spec import read_spec
from floe_orchestrator_dagster.schedules import product_schedule

# Loaded machines are slow, and the fixtures only provide a directory.
RELAXED = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

TEXT = st.text(max_size=20) | st.sampled_from(
    ["../../x", "/etc/passwd", "a\x00b", "{{ 1 }}", "${HOME}", "duckdb", "*", "\ud800", "é" * 50]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a JSON document."""
    if isinstance(document, dict):
        inner = [place for key, item in document.items() for place in places(item, (*path, key))]
    elif isinstance(document, list):
        inner = [
            place for index, item in enumerate(document) for place in places(item, (*path, index))
        ]
    else:
        inner = []
    return [path, *inner]


@st.composite
def broken(draw: st.DrawFn, document: Any) -> Any:
    """Return a document with one to three of its values replaced or removed."""
    changed = {"root": copy.deepcopy(document)}
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(changed)[1:]))
        holder: Any = changed
        for key in path[:-1]:
            holder = holder[key]
        if len(path) > 1 and draw(st.booleans()):
            del holder[path[-1]]
        else:
            holder[path[-1]] = draw(JSON)
    return changed["root"]


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode(errors="surrogatepass")


@RELAXED
@given(data=st.data())
def test_broken_artifacts_raise_our_errors(
    tmp_path: Path, compiled_template: dict[str, Any], data: st.DataObject
) -> None:
    path = tmp_path / "compiled_artifacts.json"
    path.write_bytes(dumped(data.draw(broken(compiled_template))))
    with suppress(FloeDagsterError):
        product_of_transforms(compiled_product(read_artifacts(path)))


MANIFEST: dict[str, Any] = {
    "metadata": {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
        "adapter_type": "duckdb",
    },
    "nodes": {
        "model.tiny.a": {
            "unique_id": "model.tiny.a",
            "name": "a",
            "resource_type": "model",
            "package_name": "tiny",
            "original_file_path": "models/a.sql",
            "config": {"materialized": "table", "meta": {"dagster": {"group": "g"}}},
            "columns": {"id": {"name": "id"}},
            "depends_on": {"nodes": ["source.tiny.raw.x"]},
        },
        "test.tiny.t": {
            "unique_id": "test.tiny.t",
            "name": "t",
            "resource_type": "test",
            "attached_node": "model.tiny.a",
            "depends_on": {"nodes": ["model.tiny.a"]},
            "test_metadata": {"name": "not_null", "kwargs": {"column_name": "id"}},
        },
    },
    "sources": {
        "source.tiny.raw.x": {
            "unique_id": "source.tiny.raw.x",
            "name": "x",
            "source_name": "raw",
            "resource_type": "source",
        }
    },
    "groups": {"group.tiny.g": {"name": "g", "owner": {"email": "a@b.c"}}},
}


@RELAXED
@given(manifest=broken(MANIFEST))
def test_a_broken_manifest_raises_our_errors(
    tmp_path: Path, compiled_template: dict[str, Any], manifest: Any
) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(dumped(manifest))
    compiled = compiled_product(compiled_template)
    computes, _ = resolve_computes(compiled, {"dev": "duckdb"})
    with suppress(FloeDagsterError):
        plan_product(compiled, computes, {"dev": parse_manifest(path, path.read_bytes())})


SPEC = {
    "metadata": {"name": "tiny", "owner": "a@b.c"},
    "schedule": {"cron": "0 6 * * *", "timezone": "UTC", "enabled": True},
}


@RELAXED
@given(spec=broken(SPEC) | st.binary(max_size=80) | TEXT)
def test_a_broken_floe_yaml_raises_our_errors(
    tmp_path: Path, compiled_template: dict[str, Any], spec: Any
) -> None:
    path = tmp_path / "floe.yaml"
    text = spec if isinstance(spec, bytes) else yaml.safe_dump(spec).encode(errors="replace")
    path.write_bytes(text)
    with suppress(FloeDagsterError):
        product_schedule(
            "tiny", read_spec(tmp_path / "floe.yaml"), compiled_product(compiled_template).config
        )


EVENTS: list[Any] = [
    {"info": {"name": "NodeStart", "msg": "", "level": "info"}, "data": {}},
    {"problem": "x"},
    {"done": {"success": True, "exception": None}},
]
LINES = st.one_of(
    st.binary(max_size=60), *(broken(event).map(dumped) for event in EVENTS), JSON.map(dumped)
)


@RELAXED
@given(line=LINES)
def test_any_line_from_dbt_is_read_or_rejected(line: bytes) -> None:
    with suppress(DbtError):
        for event in EventReader().read(line):
            assert isinstance(event, msgspec.Struct)


def test_the_error_of_an_unknown_line_contains_it() -> None:
    with pytest.raises(DbtError, match=r"Cannot decode a line .*: b'Hello'\. Does an adapter"):
        EventReader().read(b"Hello")
