"""A project is parsed again for each reason that dbt has, and for no other."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from floe_orchestrator_dagster.dbt.project import read_project
from floe_orchestrator_dagster.product import freshness
from floe_orchestrator_dagster.product.freshness import (
    Parsed,
    fingerprint,
    read_stamp,
    write_stamp,
)
from floe_orchestrator_dagster.product.profiles import Profile

FILES = {
    "dbt_project.yml": "name: shop\ntest-paths: [checks]\n",
    "packages.yml": "packages: [{local: vendor/common}]\n",
    "selectors.yml": "selectors: []\n",
    "models/a.sql": "select 1 as id",
    "models/deep/p.py": "def model(dbt, session): ...",
    "models/a.yml": "models: [{name: a}]",
    "models/a.md": "{% docs a %}{% enddocs %}",
    "seeds/s.csv": "id\n1\n",
    "snapshots/s.sql": "select 1 as id",
    "macros/m.sql": "{% macro m() %}{% endmacro %}",
    "analyses/n.sql": "select 1 as id",
    "functions/f.sql": "1",
    "checks/t.sql": "select 1 as id",
    "checks/generic/g.sql": "{% test g(model) %}{% endtest %}",
    "checks/fixtures/f.csv": "id\n1\n",
    "target/manifest.json": "{}",
    "logs/dbt.log": "",
    "README.md": "",
    "vendor/common/dbt_project.yml": "name: common\n",
    "vendor/common/models/b.sql": "select 1 as id",
    "vendor/common/integration_tests/target/manifest.json": "{}",
}
OUTPUT = {"type": "duckdb", "path": "x.duckdb", "password": "{{ env_var('DBT_ENV_SECRET_P') }}"}


@dataclass
class Shop:
    """A project with a linked package, and the inputs of its parse."""

    root: Path
    variables: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    profile: Profile = field(default_factory=lambda: Profile("shop", {"dev": OUTPUT}, ("dev",)))
    executable: str | None = None

    def write(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def fingerprint(self) -> str:
        project = read_project(self.root, self.variables, self.environment)
        return fingerprint(Parsed(project, self.profile, self.executable))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A project on disk."""
    made = Shop(tmp_path / "shop")
    for name, content in FILES.items():
        made.write(name, content)
    (made.root / "dbt_packages").mkdir()
    (made.root / "dbt_packages" / "common").symlink_to(made.root / "vendor" / "common")
    return made


READ = [
    *(name for name in FILES if not name.startswith(("target", "logs", "README", "vendor"))),
    "vendor/common/dbt_project.yml",
    "vendor/common/models/b.sql",
]


@pytest.mark.parametrize("name", READ)
def test_a_file_that_dbt_reads_was_edited(shop: Shop, name: str) -> None:
    before = shop.fingerprint()
    shop.write(name, FILES[name] + "\n# edited\n")
    assert shop.fingerprint() != before


@pytest.mark.parametrize("name", [name for name in FILES if name not in READ])
def test_a_file_that_dbt_does_not_read_was_edited(shop: Shop, name: str) -> None:
    before = shop.fingerprint()
    shop.write(name, FILES[name] + "edited")
    assert shop.fingerprint() == before


@pytest.mark.parametrize(
    "name",
    [
        "models/new.sql",
        "models/new/new.yml",
        "vendor/common/models/new.sql",
        "vendor/common/macros/new.sql",
        ".dbtignore",
        "dependencies.yml",
        "package-lock.yml",
        "catalogs.yml",
    ],
)
def test_a_file_was_added(shop: Shop, name: str) -> None:
    before = shop.fingerprint()
    shop.write(name, "# new\n")
    assert shop.fingerprint() != before


@pytest.mark.parametrize("name", ["models/a.sql", "vendor/common/models/b.sql", "packages.yml"])
def test_a_file_was_removed(shop: Shop, name: str) -> None:
    before = shop.fingerprint()
    (shop.root / name).unlink()
    assert shop.fingerprint() != before


def test_a_file_was_edited_and_got_its_old_time_and_size(shop: Shop) -> None:
    path = shop.root / "models/a.sql"
    os.utime(path, ns=(0, 0))
    before = shop.fingerprint()
    path.write_text("select 2 as id")
    os.utime(path, ns=(0, 0))
    assert shop.fingerprint() != before


@pytest.mark.parametrize("name", ["models/.a.sql.swp", "models/#a.sql#", "models/~a.sql"])
def test_temporary_files_of_editors_are_ignored_as_by_dbt(shop: Shop, name: str) -> None:
    before = shop.fingerprint()
    shop.write(name, "half of it")
    assert shop.fingerprint() == before


def test_files_in_dbtignore_are_ignored(shop: Shop) -> None:
    shop.write(".dbtignore", "a.*\ndeep/\n")
    before = shop.fingerprint()
    shop.write("models/a.sql", "select 2 as id")
    shop.write("models/deep/q.py", "")
    assert shop.fingerprint() == before
    shop.write("models/b.sql", "select 2 as id")
    assert shop.fingerprint() != before


def test_a_package_was_added_or_removed(shop: Shop) -> None:
    before = shop.fingerprint()
    shop.write("vendor/more/dbt_project.yml", "name: more\n")
    (shop.root / "dbt_packages" / "more").symlink_to(shop.root / "vendor" / "more")
    added = shop.fingerprint()
    assert added != before
    (shop.root / "dbt_packages" / "more").unlink()
    assert shop.fingerprint() == before


def test_a_package_may_hold_the_project_that_uses_it(shop: Shop) -> None:
    shop.write("vendor/common/integration_tests/dbt_project.yml", "name: tests\n")
    outer = shop.root / "vendor/common"
    inner = replace(shop, root=outer / "integration_tests")
    (inner.root / "dbt_packages").mkdir()
    (inner.root / "dbt_packages" / "common").symlink_to(outer)
    before = inner.fingerprint()
    inner.write("target/run_results.json", "{}")
    assert inner.fingerprint() == before
    (outer / "models/b.sql").write_text("select 2 as id")
    assert inner.fingerprint() != before


def test_folders_follow_the_settings(shop: Shop) -> None:
    shop.write("dbt_project.yml", "name: shop\nmodel-paths: [\"{{ env_var('M', 'models') }}\"]\n")
    before = shop.fingerprint()
    shop.write("other/c.sql", "select 1 as id")
    assert shop.fingerprint() == before
    shop.environment["M"] = "other"
    assert shop.fingerprint() != before


def _vars(shop: Shop) -> None:
    shop.variables["day"] = "2026-01-01"


def _output(shop: Shop) -> None:
    shop.profile = replace(shop.profile, outputs={"dev": {**OUTPUT, "schema": "other"}})


def _profile(shop: Shop) -> None:
    shop.profile = replace(shop.profile, name="other")


def _full_refresh(shop: Shop) -> None:
    shop.environment["DBT_FULL_REFRESH"] = "1"


def _warn_error(shop: Shop) -> None:
    shop.environment["DBT_ENGINE_WARN_ERROR_OPTIONS"] = '{"error": "all"}'


@pytest.mark.parametrize("change", [_vars, _output, _profile, _full_refresh, _warn_error])
def test_another_input_of_the_parse_was_changed(shop: Shop, change: Callable[[Shop], None]) -> None:
    before = shop.fingerprint()
    change(shop)
    assert shop.fingerprint() != before


def test_nothing_was_changed(shop: Shop) -> None:
    before = shop.fingerprint()
    shop.environment["DBT_LOG_FORMAT"] = "json"
    shop.environment["UNUSED"] = "1"
    shop.variables = {}
    assert shop.fingerprint() == before


@pytest.mark.parametrize("name", ["dbt-core", "dbt-adapters", "dbt-duckdb"])
def test_a_version_was_changed(shop: Shop, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shop.fingerprint()
    real = importlib.metadata.version
    monkeypatch.setattr(
        freshness, "version", lambda package: "99.0" if package == name else real(package)
    )
    assert shop.fingerprint() != before


def test_another_dbt_was_replaced(shop: Shop, tmp_path: Path) -> None:
    program = tmp_path / "dbt2"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    shop.executable = str(program)
    before = shop.fingerprint()
    program.write_text("#!/bin/sh\nexit 0\n")
    assert shop.fingerprint() != before


def stamped(shop: Shop, folder: Path, *, other_dbt: bool = False) -> freshness.Stamp:
    project = read_project(shop.root, shop.variables, shop.environment)
    parsed = Parsed(project, shop.profile, "dbt2" if other_dbt else None)
    write_stamp(folder, parsed, "x", shop.environment)
    stamp = read_stamp(folder)
    assert stamp is not None
    return stamp


def test_variables_that_dbt_read_for_nodes_are_checked_again(shop: Shop, tmp_path: Path) -> None:
    kept = {"env_vars": {"AREA": "north", "UNSET": "DBT_DEFAULT_PLACEHOLDER"}, "nodes": {"a": [1]}}
    (tmp_path / freshness.PARTIAL_PARSE).write_bytes(msgspec.msgpack.encode(kept))
    shop.environment = {"AREA": "north"}
    stamp = stamped(shop, tmp_path)
    assert set(stamp.environment) == {"AREA", "UNSET"}
    assert stamp.unwatched == frozenset()
    assert stamp.changed({"AREA": "north", "OTHER": "1"}) == set()
    assert stamp.changed({"AREA": "south"}) == {"AREA"}
    assert stamp.changed({"AREA": "north", "UNSET": ""}) == {"UNSET"}
    assert stamp.changed({}) == {"AREA"}


@pytest.mark.parametrize(
    "name", ["dbt_project.yml", "packages.yml", "selectors.yml", "vendor/common/dbt_project.yml"]
)
@pytest.mark.parametrize(
    "template",
    [
        "more: [{here: \"{{ env_var('AREA', 'north') }}\"}]\n",
        "more: '{{ env_var(''AREA'') }}'\n",
        'more: "{{ env_var(\\"AREA\\") }}"\n',
        "more: >\n  {{ env_var(\n  'AREA'\n  ) }}\n",
    ],
)
def test_variables_of_settings_are_checked_again(
    shop: Shop, tmp_path: Path, name: str, template: str
) -> None:
    shop.write(name, FILES[name] + template)
    (tmp_path / freshness.PARTIAL_PARSE).write_bytes(msgspec.msgpack.encode({"env_vars": {}}))
    stamp = stamped(shop, tmp_path)
    assert stamp.unwatched == {"AREA"}
    assert stamp.changed({"AREA": "south"}) == {"AREA"}


def test_variables_of_a_profile_are_checked_again_but_not_its_secrets(
    shop: Shop, tmp_path: Path
) -> None:
    output = {**OUTPUT, "schema": "{{ env_var('AREA') }}"}
    shop.profile = replace(shop.profile, outputs={"dev": output})
    assert set(stamped(shop, tmp_path).environment) == {"AREA"}


def test_every_named_variable_is_checked_again_for_another_dbt(shop: Shop, tmp_path: Path) -> None:
    shop.write("models/a.sql", "select '{{ env_var('AREA') }}' as area")
    shop.write("vendor/common/models/b.sql", "select '{{ env_var('ZONE') }}' as zone")
    assert set(stamped(shop, tmp_path, other_dbt=True).environment) == {"AREA", "ZONE"}


def test_a_stamp_contains_no_value(shop: Shop, tmp_path: Path) -> None:
    shop.write("dbt_project.yml", FILES["dbt_project.yml"] + "more: \"{{ env_var('AREA') }}\"\n")
    shop.environment = {"AREA": "canary-north"}
    first = stamped(shop, tmp_path)
    path = tmp_path / freshness.STAMP
    assert "canary" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    # Without a salt, a table of digests could reveal the value.
    assert stamped(shop, tmp_path).environment["AREA"] != first.environment["AREA"]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"inputs": 1}'])
def test_a_stamp_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / freshness.STAMP).write_bytes(content)
    assert read_stamp(tmp_path) is None
