"""Rules for manifests that a Kubernetes schema cannot express; each rule yields its breaches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from floe_orchestrator_dagster.deploy.sizes import quantity
from kit.chart_tools import pod_specs

Docs = Sequence[dict[str, Any]]
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
# https://kubernetes.io/docs/concepts/security/pod-security-standards, "Restricted".
VOLUME_KINDS = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*(spec.get("initContainers") or ()), *spec["containers"]]


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector matches the labels."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        value = labels.get(rule["key"])
        good = {
            "In": value in rule.get("values", ()),
            "NotIn": value not in rule.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[rule["operator"]]
        if not good:
            return False
    return True


def selectors_match_labels(docs: Docs) -> Iterator[str]:
    pods = [pod["metadata"].get("labels") or {} for _, pod in pod_specs(docs)]
    for doc in docs:
        name = f"{doc['kind']}/{doc['metadata']['name']}"
        spec = doc.get("spec", {})
        if doc["kind"] in {"Deployment", "StatefulSet"}:
            if not matches(spec["selector"], spec["template"]["metadata"]["labels"]):
                yield f"{name}: does not select its own pods"
            for rule in spec["template"]["spec"].get("topologySpreadConstraints") or ():
                if not matches(rule["labelSelector"], spec["template"]["metadata"]["labels"]):
                    yield f"{name}: spreads other pods"
        elif doc["kind"] == "Service":
            chosen = [
                labels for labels in pods if matches({"matchLabels": spec["selector"]}, labels)
            ]
            if len(chosen) != 1:
                yield f"{name}: selects {len(chosen)} kinds of pods"
        elif doc["kind"] == "PodDisruptionBudget" and not any(
            matches(spec["selector"], labels) for labels in pods
        ):
            yield f"{name}: selects no pod"


def named(docs: Docs, kind: str) -> dict[str, dict[str, Any]]:
    return {doc["metadata"]["name"]: doc for doc in docs if doc["kind"] == kind}


def services_lead_to_open_ports(docs: Docs) -> Iterator[str]:
    for name, service in named(docs, "Service").items():
        opened = {
            port.get("name")
            for _, pod in pod_specs(docs)
            if matches({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
            for container in pod["spec"]["containers"]
            for port in container.get("ports") or ()
        }
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in opened:
                yield f"Service/{name}: no container opens port {port['targetPort']}"


def ingresses_lead_to_services(docs: Docs) -> Iterator[str]:
    services = named(docs, "Service")
    for name, ingress in named(docs, "Ingress").items():
        for path in (path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]):
            service = path["backend"]["service"]
            target = services.get(service["name"])
            ports = target["spec"]["ports"] if target else ()
            if service["port"]["name"] not in [port["name"] for port in ports]:
                yield f"Ingress/{name}: its Service does not exist"


def scalers_have_a_target(docs: Docs) -> Iterator[str]:
    deployments = named(docs, "Deployment")
    for name, scaler in named(docs, "HorizontalPodAutoscaler").items():
        target = deployments.get(scaler["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield f"HorizontalPodAutoscaler/{name}: its target does not exist"
        elif "replicas" in target["spec"]:
            yield f"HorizontalPodAutoscaler/{name}: its target has a fixed number of replicas"


def accounts_exist(docs: Docs) -> Iterator[str]:
    accounts, roles = named(docs, "ServiceAccount"), named(docs, "Role")
    for name, binding in named(docs, "RoleBinding").items():
        if binding["roleRef"]["name"] not in roles:
            yield f"RoleBinding/{name}: no Role {binding['roleRef']['name']}"
        for subject in binding["subjects"]:
            if subject["name"] not in accounts:
                yield f"RoleBinding/{name}: no ServiceAccount {subject['name']}"
    for name, pod in pod_specs(docs):
        account = pod["spec"].get("serviceAccountName")
        if account and account not in accounts:
            yield f"{name}: no ServiceAccount {account}"


def mounts_have_volumes(docs: Docs) -> Iterator[str]:
    claims = {
        claim["metadata"]["name"]
        for doc in docs
        for claim in doc.get("spec", {}).get("volumeClaimTemplates") or ()
    }
    for name, pod in pod_specs(docs):
        listed = [volume["name"] for volume in pod["spec"].get("volumes") or ()]
        if len(listed) != len(set(listed)):
            yield f"{name}: two volumes with one name"
        volumes = set(listed) | (claims if name.startswith("StatefulSet/") else set())
        used: set[str] = set()
        for container in containers(pod["spec"]):
            mounts = container.get("volumeMounts") or ()
            used |= {mount["name"] for mount in mounts}
            if len(mounts) != len({mount["mountPath"] for mount in mounts}):
                yield f"{name}/{container['name']}: two mounts at one path"
        if used != volumes:
            yield f"{name}: mounts {sorted(used)}, has volumes {sorted(volumes)}"


def config_maps_exist(docs: Docs) -> Iterator[str]:
    ours = named(docs, "ConfigMap")
    for name, pod in pod_specs(docs):
        sources = {
            volume["name"]: volume["configMap"]["name"]
            for volume in pod["spec"].get("volumes") or ()
            if "configMap" in volume
        }
        mounts = [mount for c in containers(pod["spec"]) for mount in c.get("volumeMounts") or ()]
        for mount in (mount for mount in mounts if mount["name"] in sources):
            config_map = ours.get(sources[mount["name"]])
            if config_map is None or mount.get("subPath", "") not in {"", *config_map["data"]}:
                yield f"{name}: no {mount.get('subPath')} in ConfigMap {sources[mount['name']]}"


def quantities_hold(docs: Docs) -> Iterator[str]:
    for name, pod in pod_specs(docs):
        for container in containers(pod["spec"]):
            where = f"{name}/{container['name']}"
            resources = container.get("resources") or {}
            for kind in ("requests", "limits"):
                for item in ("cpu", "memory"):
                    if item not in (resources.get(kind) or {}):
                        yield f"{where}: no {item} in {kind}"
            for item, request in (resources.get("requests") or {}).items():
                limit = (resources.get("limits") or {}).get(item, request)
                if quantity(str(request)) > quantity(str(limit)):
                    yield f"{where}: {item} request {request} is over its limit {limit}"
                if quantity(str(limit)) <= 0:
                    yield f"{where}: {item} limit {limit}"


def names_are_legal(docs: Docs) -> Iterator[str]:
    seen = set()
    for doc in docs:
        key = (doc["apiVersion"], doc["kind"], doc["metadata"]["name"])
        if key in seen:
            yield f"{key}: twice"
        seen.add(key)
        if not LABEL.fullmatch(doc["metadata"]["name"]):
            yield f"{key}: illegal name"
        template = doc.get("spec", {}).get("template") or {}
        labels = [doc["metadata"].get("labels"), template.get("metadata", {}).get("labels")]
        for label, value in (pair for each in labels for pair in (each or {}).items()):
            if len(value) > 63:
                yield f"{key}: label {label} has more than 63 characters"
    for name, pod in pod_specs(docs):
        for container in containers(pod["spec"]):
            variables = [item["name"] for item in container.get("env") or ()]
            if len(variables) != len(set(variables)):
                yield f"{name}/{container['name']}: an environment variable twice"


def ports_are_legal(docs: Docs) -> Iterator[str]:
    for name, pod in pod_specs(docs):
        for container in containers(pod["spec"]):
            where = f"{name}/{container['name']}"
            ports = container.get("ports") or ()
            for port in ports:
                if not PORT_NAME.fullmatch(port["name"]):
                    yield f"{where}: port name {port['name']}"
                if not 1024 <= port["containerPort"] <= 65535:
                    yield f"{where}: port {port['containerPort']}"
            opened = {value for port in ports for value in (port["name"], port["containerPort"])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind) or {}
                target = (probe.get("httpGet") or probe.get("grpc") or {}).get("port")
                if target and target not in opened:
                    yield f"{where}: {kind} uses the closed port {target}"


def pods_are_restricted(docs: Docs) -> Iterator[str]:
    for name, pod in pod_specs(docs):
        spec = pod["spec"]
        shared = spec.get("securityContext") or {}
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{name}: {key}"
        for volume in spec.get("volumes") or ():
            if not (volume.keys() - {"name"}) <= VOLUME_KINDS:
                yield f"{name}: volume {volume}"
        for container in containers(spec):
            own = container.get("securityContext") or {}
            both = {**shared, **own}
            where = f"{name}/{container['name']}"
            expected = {
                "runAsNonRoot": both.get("runAsNonRoot") is True,
                "runAsUser": both.get("runAsUser", 1) != 0,
                "seccompProfile": (both.get("seccompProfile") or {}).get("type")
                in {"RuntimeDefault", "Localhost"},
                "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
                "privileged": not own.get("privileged"),
                "drop": "ALL" in (own.get("capabilities") or {}).get("drop", ()),
                "add": set((own.get("capabilities") or {}).get("add") or ())
                <= {"NET_BIND_SERVICE"},
                "procMount": own.get("procMount", "Default") == "Default",
                "hostPort": not any(p.get("hostPort") for p in container.get("ports") or ()),
                # In addition to the standard: containers write only to volumes.
                "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            }
            yield from (f"{where}: {key}" for key, good in expected.items() if not good)


def tokens_are_given_to_few(docs: Docs) -> Iterator[str]:
    rules = {doc["metadata"]["name"]: doc["rules"] for doc in docs if doc["kind"] == "Role"}
    for name, pod in pod_specs(docs):
        token = pod["spec"].get("automountServiceAccountToken")
        account = pod["spec"].get("serviceAccountName", "")
        if token is not False and not rules.get(account):
            yield f"{name}: has an API token without any permission"
        role = pod["metadata"]["labels"].get("floe-dagster/role")
        if token is not False and role not in {"webserver", "daemon", "run"}:
            yield f"{name}: has an API token"
    for name, allowed in rules.items():
        for rule in allowed or ():
            if "*" in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]:
                yield f"Role/{name}: allows everything"
            if "secrets" in rule["resources"]:
                yield f"Role/{name}: reads Secrets"


def secrets_stay_in_secrets(docs: Docs) -> Iterator[str]:
    values = {
        value
        for doc in docs
        if doc["kind"] == "Secret"
        for value in [*(doc.get("data") or {}).values(), *(doc.get("stringData") or {}).values()]
    }
    for doc in docs:
        text = repr(doc)
        if doc["kind"] != "Secret" and any(value in text for value in values):
            yield f"{doc['kind']}/{doc['metadata']['name']}: has the value of a Secret"
        if doc["kind"] == "ConfigMap":
            for content in doc["data"].values():
                for line in content.splitlines():
                    if re.search(r"(?i)\b(password|token|api_?key|secret)\s*[:=]\s*\S", line):
                        yield f"ConfigMap/{doc['metadata']['name']}: {line.strip()}"


def policies_select_pods(docs: Docs) -> Iterator[str]:
    pods = [pod["metadata"].get("labels") or {} for _, pod in pod_specs(docs)]
    policies = [doc for doc in docs if doc["kind"] == "NetworkPolicy"]
    for doc in policies:
        name = doc["metadata"]["name"]
        if not any(matches(doc["spec"]["podSelector"], labels) for labels in pods):
            yield f"NetworkPolicy/{name}: selects no pod"
        for rule in [*(doc["spec"].get("ingress") or ()), *(doc["spec"].get("egress") or ())]:
            for peer in [*(rule.get("from") or ()), *(rule.get("to") or ())]:
                selector = peer.get("podSelector")
                if (
                    selector
                    and "namespaceSelector" not in peer
                    and not any(matches(selector, labels) for labels in pods)
                ):
                    yield f"NetworkPolicy/{name}: a peer selects no pod"
    for pod_name, pod in pod_specs(docs):
        labels = pod["metadata"].get("labels") or {}
        if policies and not any(matches(doc["spec"]["podSelector"], labels) for doc in policies):
            yield f"{pod_name}: no network policy selects it"


RULES: Sequence[Callable[[Docs], Iterator[str]]] = (
    selectors_match_labels,
    services_lead_to_open_ports,
    ingresses_lead_to_services,
    scalers_have_a_target,
    accounts_exist,
    mounts_have_volumes,
    config_maps_exist,
    quantities_hold,
    names_are_legal,
    ports_are_legal,
    pods_are_restricted,
    tokens_are_given_to_few,
    secrets_stay_in_secrets,
    policies_select_pods,
)


def breaches(docs: Docs) -> list[str]:
    """Return every breach of every rule."""
    return [f"{rule.__name__}: {breach}" for rule in RULES for breach in rule(docs)]


def allowed(docs: Docs, source: Mapping[str, str], target: Mapping[str, str], port: int) -> bool:
    """Return whether the network policies allow traffic from labels `source` to `target`."""

    def passes(labels: Mapping[str, str], peer: Mapping[str, str], direction: str) -> bool:
        kind, side = ("Ingress", "from") if direction == "ingress" else ("Egress", "to")
        here = [
            doc["spec"]
            for doc in docs
            if doc["kind"] == "NetworkPolicy"
            and kind in doc["spec"]["policyTypes"]
            and matches(doc["spec"]["podSelector"], labels)
        ]
        if not here:
            return True
        for rule in (rule for spec in here for rule in spec.get(direction) or ()):
            ports = [item["port"] for item in rule.get("ports") or ()]
            peers = rule.get(side)
            if ports and port not in ports:
                continue
            if not peers or any(
                "podSelector" in item and matches(item["podSelector"], peer) for item in peers
            ):
                return True
        return False

    return passes(source, target, "egress") and passes(target, source, "ingress")
