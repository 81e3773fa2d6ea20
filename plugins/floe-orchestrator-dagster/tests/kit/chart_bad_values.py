"""Values that the chart rejects, each with the key that the message must name."""

from __future__ import annotations

from typing import Any

SHOP = {"name": "shop", "image": {"repository": "shop", "tag": "1"}}


def code(**changes: Any) -> dict[str, Any]:
    return {"dagster-user-code": {"deployments": [{**SHOP, **changes}]}}


def web(**changes: Any) -> dict[str, Any]:
    return {"dagster-webserver": changes}


def memory(amount: object) -> dict[str, Any]:
    return {"resources": {"limits": {"memory": amount}}}


BAD_VALUES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key at the top": ({"webserver": {}}, "webserver"),
    "the official chart's key": ({"dagsterWebserver": {"replicaCount": 2}}, "dagsterWebserver"),
    "misspelt replicas": (web(replicas=2), "replicas"),
    "a daemon has no replicas": ({"dagster-daemon": {"replicaCount": 2}}, "replicaCount"),
    "two servers per product": ({"dagster-user-code": {"replicaCount": 2}}, "replicaCount"),
    "negative replicas": (web(replicaCount=-1), "replicaCount"),
    "replicas in words": (web(replicaCount="two"), "replicaCount"),
    "enabled in words": (web(enabled="yes"), "enabled"),
    "unit Gib": (web(**memory("1Gib")), "memory"),
    "unit GB": (web(**memory("1GB")), "memory"),
    "memory without a unit": (web(**memory("512")), "memory"),
    "memory as a number": (web(**memory(512)), "memory"),
    "no memory": (web(**memory("0Mi")), "memory"),
    "cpu with a comma": (web(resources={"limits": {"cpu": "0,5"}}), "cpu"),
    "cpu in words": (web(resources={"limits": {"cpu": "half"}}), "cpu"),
    "limit for limits": (web(resources={"limit": {"cpu": "1"}}), "limit"),
    "memory misspelt": (web(resources={"limits": {"mem": "1Gi"}}), "mem"),
    "request over its limit": (
        web(resources={"requests": {"memory": "2Gi"}, "limits": {"memory": "512Mi"}}),
        "dagster-webserver.resources: the memory request 2Gi is more than the limit 512Mi",
    ),
    "cpu request over its limit": (
        {"runs": {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}}},
        "runs.resources: the cpu request 2 is more than the limit 1500m",
    ),
    "a product's request over its limit": (
        code(runResources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        "deployments[shop].runResources",
    ),
    "port 0": (web(service={"port": 0}), "port"),
    "port 70000": (web(service={"port": 70000}), "port"),
    "port as text": (web(service={"port": "80"}), "port"),
    "a privileged port of a server": (code(port=443), "port"),
    "unknown type of service": (web(service={"type": "NodeBalancer"}), "type"),
    "ingress without a host": (web(ingress={"enabled": True}), "host"),
    "ingress host with a scheme": (
        web(ingress={"enabled": True, "host": "https://dagster.example.com"}),
        "host",
    ),
    "unknown path type": (web(ingress={"pathType": "prefix"}), "pathType"),
    "path prefix without a slash": (web(pathPrefix="dagster"), "pathPrefix"),
    "minimum of webservers over the maximum": (
        web(autoscaling={"enabled": True, "minReplicas": 9}),
        "minReplicas is more than maxReplicas",
    ),
    "load of 200 percent": (
        web(autoscaling={"targetCPUUtilizationPercentage": 200}),
        "targetCPUUtilizationPercentage",
    ),
    "unknown probe": (web(probes={"alive": {}}), "alive"),
    "probe without time": (web(probes={"startup": {"timeoutSeconds": 0}}), "timeoutSeconds"),
    "external database without a host": (
        {"postgresql": {"enabled": False, "external": {"existingSecret": "db"}}},
        "host",
    ),
    "external database without a secret": (
        {"postgresql": {"enabled": False, "external": {"host": "db"}}},
        "existingSecret",
    ),
    "a password in the values": ({"postgresql": {"password": "hunter2"}}, "password"),
    "a password of the external database": (
        {"postgresql": {"external": {"password": "hunter2"}}},
        "password",
    ),
    "unknown ssl mode": ({"postgresql": {"external": {"sslMode": "on"}}}, "sslMode"),
    "size of a volume": ({"postgresql": {"persistence": {"size": "8 Gi"}}}, "size"),
    "PostgreSQL as root": ({"postgresql": {"runAsUser": 0}}, "runAsUser"),
    "Dagster as root": ({"podSecurity": {"runAsUser": 0}}, "runAsUser"),
    "privileged pods": ({"podSecurity": {"privileged": True}}, "privileged"),
    "a product without a name": (
        {"dagster-user-code": {"deployments": [{"image": SHOP["image"]}]}},
        "name",
    ),
    "a product without an image": (
        {"dagster-user-code": {"deployments": [{"name": "shop"}]}},
        "image",
    ),
    "an image without tag and digest": (code(image={"repository": "shop"}), "tag"),
    "an empty tag": (code(image={"repository": "shop", "tag": ""}), "tag"),
    "a short digest": (code(image={"repository": "shop", "digest": "sha256:abc"}), "digest"),
    "a product's name in capitals": (code(name="Shop"), "name"),
    "two products with one name": (
        {"dagster-user-code": {"deployments": [SHOP, SHOP]}},
        'two products are named "shop"',
    ),
    "a file and a module": (code(definitionsFile="a.py", module="a"), "deployments"),
    "a server's unknown key": (code(replicas=1), "replicas"),
    "env as a list": (code(env=[{"name": "A", "value": "b"}]), "env"),
    "env with a number": (code(env={"A": 1}), "env"),
    "env name with a hyphen": ({"env": {"A-B": "c"}}, "A-B"),
    "a secret in env": (code(env={"PGPASSWORD": "hunter2"}), "PGPASSWORD"),
    "a token in env": ({"runs": {"env": {"API_TOKEN": "abc"}}}, "API_TOKEN"),
    "name of a secret": ({"envSecrets": ["My_Secret"]}, "envSecrets"),
    "unknown log format": ({"logFormat": "xml"}, "logFormat"),
    "unknown log level": ({"logLevel": "verbose"}, "logLevel"),
    "pull policy in small letters": ({"image": {"pullPolicy": "always"}}, "pullPolicy"),
    "credentials in a URL": ({"openlineage": {"url": "http://a:b@marquez:5000"}}, "url"),
    "URL without a scheme": ({"opentelemetry": {"endpoint": "otel:4317"}}, "endpoint"),
    "unknown OTLP protocol": ({"opentelemetry": {"protocol": "http"}}, "protocol"),
    "attribute with a comma": (
        {"opentelemetry": {"resourceAttributes": {"a": "b,c"}}},
        "resourceAttributes",
    ),
    "unknown access mode": ({"lineageSpool": {"accessMode": "ReadWriteAll"}}, "accessMode"),
    "relative mount path": ({"lineageSpool": {"mountPath": "spool"}}, "mountPath"),
    "a limit without a key": (
        {"concurrency": {"tagConcurrencyLimits": [{"limit": 1}]}},
        "key",
    ),
    "unknown granularity": ({"concurrency": {"poolGranularity": "step"}}, "poolGranularity"),
    "a negative number of runs": ({"concurrency": {"maxConcurrentRuns": -2}}, "maxConcurrentRuns"),
    "retention of zero days": ({"retention": {"scheduleDays": 0}}, "scheduleDays"),
    "an address without a mask": (
        {"networkPolicy": {"kubernetesApiCidrs": ["10.0.0.1"]}},
        "kubernetesApiCidrs",
    ),
    "an empty peer": ({"networkPolicy": {"webserverFrom": [{}]}}, "webserverFrom"),
    "unknown peer": (
        {"networkPolicy": {"webserverFrom": [{"pods": {"app": "x"}}]}},
        "pods",
    ),
    "toleration misspelt": (
        {"runs": {"tolerations": [{"key": "a", "operater": "Exists"}]}},
        "operater",
    ),
    "unknown toleration effect": (
        {"runs": {"tolerations": [{"key": "a", "effect": "NoRun"}]}},
        "effect",
    ),
}
