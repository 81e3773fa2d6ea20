"""Settings of a dbt project are rendered as dbt renders them."""

from __future__ import annotations

from typing import Any

import pytest
from dbt.config.renderer import DbtProjectYamlRenderer
from dbt_common.context import set_invocation_context

from floe_orchestrator_dagster.dbt.jinja import environment_names, needs_target, render
from floe_orchestrator_dagster.errors import ProductError

VARIABLES = {"area": "north", "parts": ["a", "b"]}
ENVIRONMENT = {"PLACE": "build"}


@pytest.mark.parametrize(
    "template",
    [
        "target",
        7,
        None,
        "{{ env_var('PLACE') }}",
        "{{ env_var('NOWHERE', 'target') }}",
        "out/{{ env_var('PLACE') }}/{{ var('area') }}",
        "{{ var('area', 'south') | upper }}",
        "{{ 'one' if env_var('PLACE') == 'build' else 'two' }}",
        "{% if var('area') == 'north' %}up{% else %}down{% endif %}",
        "{{ var('unknown', 'fallback') }}",
        "{{ env_var('PLACE') | as_text }}",
        "{{ '/'.join(var('parts')) }}",
        "{{ modules.re.sub('u', 'o', env_var('PLACE')) }}",
    ],
)
def test_a_setting_is_rendered_as_dbt_renders_it(template: Any) -> None:
    set_invocation_context(ENVIRONMENT)
    expected = DbtProjectYamlRenderer(None, dict(VARIABLES)).render_value(template)
    assert render(template, "target-path", VARIABLES, ENVIRONMENT) == expected


def test_a_template_can_read_the_target() -> None:
    rendered = render("models_{{ target.name }}", "model-paths", {}, {}, {"name": "dev"})
    assert rendered == "models_dev"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ env_var('NOWHERE') }}", "Environment variable 'NOWHERE' is not set."),
        ("{{ var('nothing') }}", "Variable 'nothing' is not set."),
        ("{{ env_var('PLACE' }}", "unexpected '}'"),
    ],
)
def test_a_template_that_cannot_be_rendered_names_its_setting(template: str, reason: str) -> None:
    with pytest.raises(ProductError) as caught:
        render(template, "target-path of dbt_project.yml", {}, ENVIRONMENT)
    message = str(caught.value)
    assert message.startswith(f"Cannot render target-path of dbt_project.yml: {template!r}. ")
    assert reason in message
    assert message.endswith("Correct the template, or set the variable that it reads.")


def test_only_a_template_that_reads_the_target_needs_it() -> None:
    assert needs_target(["models", "{{ target.name }}"])
    assert needs_target("{% if target.type == 'duckdb' %}a{% endif %}")
    assert not needs_target("{{ env_var('PLACE', 'target') }}")
    assert not needs_target("target")
    assert not needs_target(None)


def test_the_variables_that_a_text_names_are_returned() -> None:
    text = "{{ env_var('A') }} {{ env_var( \"B\", 'x') }} {{ env_vars('C') }} {{ my_env_var('D') }}"
    assert environment_names(text) == {"A", "B"}
