"""Sizes and Helm values have the expected content."""

from __future__ import annotations

from decimal import Decimal

import pytest

from floe_orchestrator_dagster.config import parse_config
from floe_orchestrator_dagster.deploy.official import official_values
from floe_orchestrator_dagster.deploy.sizes import (
    SIZES,
    USER_CODE_SIZES,
    quantity,
    run_resources,
)
from floe_orchestrator_dagster.deploy.values import (
    Database,
    DeployedProduct,
    Image,
    helm_values,
    image,
)

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250m", "0.25"),
        ("2", "2"),
        ("0.5", "0.5"),
        ("1Ki", "1024"),
        ("1k", "1000"),
        ("512Mi", str(512 * 2**20)),
        ("4Gi", str(4 * 2**30)),
        ("1G", str(10**9)),
    ],
)
def test_quantities_are_numbers(text: str, number: str) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "half", "1 Gi", "1GB", "-1", "Gi"])
def test_other_text_is_not_a_quantity(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is not a Kubernetes quantity. Write cores as"):
        quantity(text)


def test_every_size_requests_at_most_its_limit() -> None:
    for size in SIZES:
        resources = USER_CODE_SIZES[size].as_kubernetes()
        for name, request in resources["requests"].items():
            assert quantity(request) <= quantity(resources["limits"][name])


def test_a_run_gets_the_maximum_that_any_compute_requests() -> None:
    assert run_resources("small", []) is None
    assert run_resources("small", ["medium", {"limits": {"memory": "5Gi"}}]) == {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": "2000m", "memory": "5Gi"},
    }
    assert run_resources("large", ["small"]) == USER_CODE_SIZES["large"].as_kubernetes()


def test_a_limit_is_raised_to_the_request() -> None:
    assert run_resources("small", [{"requests": {"memory": "6Gi"}}]) == {
        "requests": {"cpu": "250m", "memory": "6Gi"},
        "limits": {"cpu": "1000m", "memory": "6Gi"},
    }


def test_an_extended_resource_is_kept() -> None:
    resources = run_resources("small", [{"limits": {"example.com/gpu": "1"}}])
    assert resources is not None
    assert resources["limits"]["example.com/gpu"] == "1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop:1.4.0", Image("shop", "1.4.0")),
        ("team/shop:1", Image("team/shop", "1")),
        ("host:5000/team/shop:1", Image("host:5000/team/shop", "1")),
        (f"shop@{DIGEST}", Image("shop", "", DIGEST)),
        (f"shop:1@{DIGEST}", Image("shop", "1", DIGEST)),
    ],
)
def test_an_image_is_split_into_its_parts(text: str, expected: Image) -> None:
    assert image(text) == expected


@pytest.mark.parametrize("text", ["shop", "", "Shop:1", "shop:", "shop@sha256:abc", "a b:1"])
def test_an_image_needs_a_tag_or_a_digest(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an image with a tag or a digest\. Write"):
        image(text)


def test_small_brings_a_database_and_other_sizes_name_an_external_one() -> None:
    assert helm_values("small")["postgresql"] == {"enabled": True}
    for size in ("medium", "large"):
        assert helm_values(size)["postgresql"] == {
            "enabled": False,
            "external": {"host": "postgresql", "existingSecret": "floe-dagster-postgresql"},
        }
    named = helm_values("large", database=Database("db.example.com", "mine"))["postgresql"]
    assert named["external"] == {"host": "db.example.com", "existingSecret": "mine"}


@pytest.mark.parametrize("export", [helm_values, official_values])
def test_an_unknown_size_is_refused_with_the_known_ones(export: object) -> None:
    assert callable(export)
    with pytest.raises(ValueError, match=r"Unknown workload size 'huge'. Sizes: .*large"):
        export("huge")


def test_values_have_runs_only_if_a_compute_requests_resources() -> None:
    assert "runs" not in helm_values("small")
    computes = parse_config({"computes": {"spark": {"resources": "large"}}}).computes
    assert helm_values("small", computes)["runs"] == {
        "resources": USER_CODE_SIZES["large"].as_kubernetes()
    }
    launcher = official_values("small", computes)["runLauncher"]["config"]["k8sRunLauncher"]
    assert launcher["resources"] == USER_CODE_SIZES["large"].as_kubernetes()


def test_products_become_code_servers_in_both_charts() -> None:
    products = [DeployedProduct("shop", Image("team/shop", "1"))]
    assert helm_values("small", products=products)["dagster-user-code"]["deployments"] == [
        {"name": "shop", "image": {"repository": "team/shop", "tag": "1"}}
    ]
    [official] = official_values("small", products=products)["dagster-user-deployments"][
        "deployments"
    ]
    assert official["name"] == "shop"
    assert official["image"] == {
        "repository": "team/shop",
        "tag": "1",
        "pullPolicy": "IfNotPresent",
    }
    assert official["dagsterApiGrpcArgs"][:2] == ["--python-file", "/app/target/definitions.py"]


def test_two_parts_of_the_values_share_no_object() -> None:
    values = helm_values("small")
    values["dagster-webserver"]["resources"]["limits"]["memory"] = "1Ti"
    assert values["dagster-daemon"]["resources"]["limits"]["memory"] == "512Mi"
    assert helm_values("small")["dagster-webserver"]["resources"]["limits"]["memory"] == "512Mi"
