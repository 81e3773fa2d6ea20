"""The configuration of the plugin has defaults, and an error names each wrong key."""

from __future__ import annotations

from typing import Any

import pytest

from floe_orchestrator_dagster.config import parse_config
from floe_orchestrator_dagster.errors import ConfigError, FloeDagsterError


def refusal(raw: Any) -> str:
    with pytest.raises(ConfigError) as error:
        parse_config(raw)
    text = str(error.value)
    before, after = (
        "Cannot use plugins.orchestrator.config of the platform manifest: ",
        ". Fix manifest.yaml and compile again.",
    )
    assert text.startswith(before)
    assert text.endswith(after)
    return text.removeprefix(before).removesuffix(after)


def test_an_empty_configuration_gives_the_defaults() -> None:
    defaults = parse_config(None)
    assert parse_config({}) == defaults
    assert defaults.model_dump() == {
        "project_dir": None,
        "vars": {},
        "default_schedule": None,
        "default_timezone": "UTC",
        "computes": {},
        "isolation": "product",
        "retries": 0,
        "row_counts": True,
        "lineage": "best_effort",
        "workload_size": "small",
        "url": None,
        "ca_bundle": None,
    }


def test_the_documented_section_is_read() -> None:
    section = {
        "default_schedule": "0 8 * * MON-FRI",
        "computes": {
            "spark": {"target": "prod", "pool": "spark", "pool_limit": 2, "resources": "large"},
            "pg": {"resources": {"requests": {"cpu": "1"}}, "output": {"type": "postgres"}},
        },
        "isolation": "compute",
        "retries": 2,
        "lineage": "required",
        "workload_size": "medium",
        "url": "http://dagster-webserver:3000",
    }
    config = parse_config(section)
    assert config.model_dump(exclude_unset=True) == section
    assert config.computes["spark"].resources == "large"


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_config({}).retries = 1


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"lineag": "required"}, "lineag: unknown key (Did you mean 'lineage'?)"),
        ({"RETRIES": 1}, "RETRIES: unknown key (Did you mean 'retries'?)"),
        (
            {"zzz": 1},
            (
                "zzz: unknown key (known: ca_bundle, computes, default_schedule, "
                "default_timezone, isolation, lineage, project_dir, retries, "
                "row_counts, url, vars, workload_size)"
            ),
        ),
        (
            {"computes": {"s": {"targt": "x"}}},
            "computes.s.targt: unknown key (Did you mean 'target'?)",
        ),
        (
            {"computes": {"s": {"zzz": "x"}}},
            (
                "computes.s.zzz: unknown key "
                "(known: dbt_executable, output, pool, pool_limit, resources, target)"
            ),
        ),
        ({"computes": {"s": None}}, "computes.s: expected keys with values"),
        ({"computes": {"s": "x"}}, "computes.s: expected keys with values"),
        ({"computes": [1]}, "computes: input should be a valid dictionary"),
        (
            {"computes": {"s": {"resources": "huge"}}},
            (
                "computes.s.resources: expected small, medium, large, or {requests: {cpu: '1', "
                "...}, "
                "limits: {...}}"
            ),
        ),
        (
            {"computes": {"s": {"resources": {"requests": {"cpu": 1}}}}},
            (
                "computes.s.resources: expected small, medium, large, or {requests: {cpu: '1', "
                "...}, "
                "limits: {...}}"
            ),
        ),
        (
            {"computes": {"s": {"target": ""}}},
            "computes.s.target: string should have at least 1 character",
        ),
        (
            {"computes": {"s": {"pool_limit": 0}}},
            "computes.s.pool_limit: input should be greater than or equal to 1",
        ),
        ({"isolation": "model"}, "isolation: input should be 'product' or 'compute'"),
        ({"retries": -1}, "retries: input should be greater than or equal to 0"),
        ({1: 2}, "1: keys should be strings"),
        ([1], "(the whole section): expected keys with values"),
        ("text", "(the whole section): expected keys with values"),
        ([], "(the whole section): expected keys with values"),
    ],
)
def test_an_error_names_the_wrong_key(raw: Any, words: str) -> None:
    assert refusal(raw) == words


def test_one_error_lists_every_wrong_key() -> None:
    message = refusal({"retries": "x", "lineag": 1, "workload_size": "huge"})
    assert message == (
        "retries: input should be a valid integer, unable to parse string as an integer; "
        "workload_size: input should be 'small', 'medium' or 'large'; "
        "lineag: unknown key (Did you mean 'lineage'?)"
    )


def test_an_error_does_not_contain_values() -> None:
    assert "hunter2" not in refusal(
        {"retries": "hunter2", "computes": {"s": {"pool": ["hunter2"]}}}
    )


def test_a_config_error_is_an_error_of_this_package_and_a_value_error() -> None:
    assert issubclass(ConfigError, FloeDagsterError)
    assert issubclass(ConfigError, ValueError)
