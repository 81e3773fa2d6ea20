"""Each of dbt's own environment variables and project flags has a verdict."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from dbt.cli.main import cli
from dbt.contracts.project import ProjectFlags

from floe_orchestrator_dagster.dbt.environment import (
    SETTINGS,
    adjusted,
    overruled,
    parsing_values,
    types_left_out,
    value_of,
)

DOCUMENT = Path(__file__).parents[5] / "docs" / "dbt-environment.md"
WHY = "The plugin reads the results, the manifest and the parsed project of each dbt run."
# Prefixes of flags that change dbt's behavior. They have no variable and no option: dbt reads them.
BEHAVIOR_PREFIXES = (
    "require_",
    "source_freshness_",
    "skip_nodes_",
    "state_modified_",
    "validate_",
)


def test_the_table_has_every_variable_that_dbt_knows() -> None:
    # dbt fills this list when its command line is imported.
    from dbt.env_vars import KNOWN_ENGINE_ENV_VARS

    decided = {name for setting in SETTINGS for name in setting.spellings}
    known = {
        name for variable in KNOWN_ENGINE_ENV_VARS for name in (variable.name, variable.old_name)
    }
    assert known - {None} == decided


def test_the_table_has_every_variable_of_an_option_of_build() -> None:
    decided = {name for setting in SETTINGS for name in setting.spellings}
    options = [*cli.params, *cli.commands["build"].params]
    named = [
        [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
        for option in options
    ]
    assert {name for names in named for name in names} <= decided


def test_the_table_has_every_flag_of_a_project() -> None:
    flags = {field.name for field in fields(ProjectFlags) if not field.name.startswith("_")}
    behaviors = {name for name in flags if name.startswith(BEHAVIOR_PREFIXES)}
    assert flags - behaviors <= {setting.flag for setting in SETTINGS}


def test_no_variable_has_two_verdicts() -> None:
    names = [setting.name for setting in SETTINGS]
    assert sorted(names) == sorted(set(names))


def test_the_document_shows_the_table() -> None:
    lines = DOCUMENT.read_text().splitlines()
    rows = {
        line.split("|")[1].strip(): line for line in lines if line.startswith(("| `DBT_", "|`DBT_"))
    }
    assert set(rows) == {f"`{setting.name}`" for setting in SETTINGS}
    for setting in SETTINGS:
        assert rows[f"`{setting.name}`"] == (
            f"| `{setting.name}` | {setting.verdict} | {setting.why} |"
        )


def test_the_newer_spelling_wins() -> None:
    assert value_of("DBT_STATE", {"DBT_STATE": "old", "DBT_ENGINE_STATE": "new"}) == "new"
    assert value_of("DBT_STATE", {"DBT_STATE": "old", "DBT_ENGINE_STATE": ""}) == "old"
    assert value_of("DBT_STATE", {}) == ""


@pytest.mark.parametrize(
    ("environment", "flags"),
    [
        ({}, ()),
        ({"DBT_DEFER": "1"}, ()),
        ({"DBT_DEFER": "1", "DBT_STATE": "prod"}, ("--defer-state", "prod")),
        ({"DBT_DEFER": "1", "DBT_ENGINE_STATE": "prod"}, ("--defer-state", "prod")),
        ({"DBT_ARTIFACT_STATE_PATH": "prod"}, ("--defer-state", "prod")),
        ({"DBT_STATE": "prod", "DBT_DEFER_STATE": "other"}, ()),
    ],
)
def test_a_state_for_deferral_is_kept_next_to_the_selection(
    environment: dict[str, str], flags: tuple[str, ...]
) -> None:
    assert adjusted(environment, {}, selects=True).flags == flags
    assert adjusted(environment, {}, selects=False).flags == ()


def test_the_older_state_variable_does_not_replace_the_selection() -> None:
    adjustment = adjusted({"DBT_ARTIFACT_STATE_PATH": "prod"}, {}, selects=True)
    assert adjustment.environment == {"DBT_ARTIFACT_STATE_PATH": ""}


def test_an_overruled_variable_does_not_reach_dbt_and_gets_a_warning() -> None:
    environment = {"DBT_WRITE_JSON": "0", "DBT_ENGINE_PROJECT_DIR": "/elsewhere", "DBT_DEBUG": "1"}
    adjustment = adjusted(environment, {}, selects=True)
    assert adjustment.environment == {"DBT_WRITE_JSON": "", "DBT_ENGINE_PROJECT_DIR": ""}
    assert overruled(environment, {}) == [
        "DBT_ENGINE_PROJECT_DIR is ignored. The product defines where its dbt project is.",
        f"DBT_WRITE_JSON is ignored. {WHY}",
    ]


def test_a_flag_of_the_project_is_overruled_like_its_variable() -> None:
    assert "--write-json" in adjusted({}, {"write_json": False}, selects=True).flags
    assert "--write-json" not in adjusted({}, {"write_json": True}, selects=True).flags
    [warning] = overruled({}, {"write_json": False})
    assert warning.startswith("`write_json` in flags of dbt_project.yml is ignored. ")


@pytest.mark.parametrize(
    ("environment", "left_out"),
    [
        ({}, set()),
        ({"DBT_EXCLUDE_RESOURCE_TYPES": "test"}, {"test"}),
        ({"DBT_EXCLUDE_RESOURCE_TYPES": "Test unit_test seed"}, {"test", "unit_test", "seed"}),
        ({"DBT_RESOURCE_TYPES": "model"}, {"test", "unit_test", "seed", "snapshot"}),
        ({"DBT_RESOURCE_TYPES": "all"}, set()),
        ({"DBT_RESOURCE_TYPES": "default", "DBT_EXCLUDE_RESOURCE_TYPES": "test"}, {"test"}),
    ],
)
def test_types_are_excluded_by_the_environment(
    environment: dict[str, str], left_out: set[str]
) -> None:
    assert types_left_out(environment) == left_out


def test_assets_that_are_excluded_by_type_are_built_with_a_warning() -> None:
    environment = {"DBT_EXCLUDE_RESOURCE_TYPES": "seed test"}
    assert overruled(environment, {}) == [
        "DBT_EXCLUDE_RESOURCE_TYPES is ignored for seed. Exclude assets from a run by selection."
    ]
    assert overruled({"DBT_EXCLUDE_RESOURCE_TYPES": "test"}, {}) == []
    assert adjusted(environment, {}, selects=True).environment == {"DBT_EXCLUDE_RESOURCE_TYPES": ""}


def test_variables_that_may_change_the_manifest_are_listed() -> None:
    environment = {"DBT_FULL_REFRESH": "1", "DBT_ENGINE_WARN_ERROR": "1", "DBT_QUIET": "1"}
    assert dict(parsing_values(environment)) == {"DBT_FULL_REFRESH": "1", "DBT_WARN_ERROR": "1"}
