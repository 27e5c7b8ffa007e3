"""The files for Kubernetes, offline: what must hold of pods, volumes and the job, and the image they run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import tomllib
from types import ModuleType

import pytest
import yaml
from clusters.cluster_files import CLUSTERS, ROOT, loaded, pins

IMAGE_FILE = CLUSTERS / "Dockerfile"


def job() -> dict:
    return loaded("kuberay/rayjob.yaml")


def cluster() -> dict:
    return job()["spec"]["rayClusterSpec"]


def pods() -> list[dict]:
    """The spec of every pod that the files make."""
    (workers,) = cluster()["workerGroupSpecs"]
    _, files = yaml.safe_load_all((CLUSTERS / "kuberay/storage.yaml").read_text())
    return [cluster()["headGroupSpec"]["template"]["spec"], workers["template"]["spec"], files["spec"]]


@pytest.fixture(scope="module")
def validator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("validate_kuberay", CLUSTERS / "validate_kuberay.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_job_and_cluster_are_the_same_cluster() -> None:
    by_hand = loaded("kuberay/raycluster.yaml")
    assert (job()["apiVersion"], job()["kind"]) == ("ray.io/v1", "RayJob")
    assert (by_hand["apiVersion"], by_hand["kind"]) == ("ray.io/v1", "RayCluster")
    assert by_hand["spec"] == cluster()


def test_head_trains_nothing_and_workers_hold_the_gpus() -> None:
    head, worker, _ = pods()
    assert cluster()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in str(head)
    limits = worker["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == worker["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "1"
    assert head["nodeSelector"] != worker["nodeSelector"]
    asked = re.search(r"compute\.threads=(\d+)", job()["spec"]["entrypoint"])
    assert asked and int(asked[1]) <= int(limits["cpu"])  # a stage fits into a worker


def test_lost_workers_are_replaced() -> None:
    (workers,) = cluster()["workerGroupSpecs"]
    assert workers["minReplicas"] == workers["replicas"] == workers["maxReplicas"] > 0
    waits = re.search(r"readyWorkerReplicas}'=(\d+)", (CLUSTERS / "kuberay/raycluster.yaml").read_text())
    assert waits and int(waits[1]) == workers["replicas"]


def test_every_pod_shares_one_volume_at_one_path() -> None:
    claim, _ = yaml.safe_load_all((CLUSTERS / "kuberay/storage.yaml").read_text())
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods():
        volumes = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]}
        mounts = {m["mountPath"]: volumes[m["name"]] for m in pod["containers"][0]["volumeMounts"]}
        assert mounts["/shared"] == claim["metadata"]["name"]


def test_every_pod_runs_the_one_image_without_rights() -> None:
    assert len({pod["containers"][0]["image"] for pod in pods()}) == 1
    for pod in pods():
        assert not pod["containers"][0]["image"].endswith(":latest")
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert pod["containers"][0]["securityContext"] == {"allowPrivilegeEscalation": False}
        assert f"--uid {pod['securityContext']['runAsUser']} " in IMAGE_FILE.read_text()


def test_token_is_referred_to() -> None:
    assert cluster()["authOptions"]["mode"] == "token"
    secret = cluster()["authOptions"]["secretName"]
    assert f"kubectl create secret generic {secret} --from-literal=auth_token=" in (CLUSTERS / "README.md").read_text()
    assert "env" not in {key for pod in pods() for key in pod["containers"][0]}


def test_job_can_be_run_again() -> None:
    """It is the plain command, with results and store on the volume: what it finds there is not done twice."""
    spec = job()["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:2] == ["dermsearch", "run"] and words[words.index("--address") + 1] == "auto"
    assert words[words.index("--out") + 1].startswith("/shared/")
    assert any(word.startswith("compute.store=/shared/") for word in words)
    study = [m for m in pods()[0]["containers"][0]["volumeMounts"] if words[2].startswith(m["mountPath"])]
    assert [m["name"] for m in study] == ["study"]
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"]  # a new cluster per attempt, none afterwards


def test_validator_refuses_what_a_definition_does_not_know(validator: ModuleType) -> None:
    fields = {"size": {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}}
    names = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}
    spec = {"type": "object", "required": ["size"], "properties": {**fields, "parts": names}}
    top = {"type": "object", "properties": {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}, "spec": spec}}
    version = {"name": "v1", "served": True, "schema": {"openAPIV3Schema": top}}
    definition = {"spec": {"group": "ray.io", "names": {"kind": "Thing"}, "versions": [version]}}
    schema = validator.schemas(definition)["ray.io/v1", "Thing"]
    thing = {"apiVersion": "ray.io/v1", "kind": "Thing", "metadata": {"name": "a", "labels": {}}, "spec": {"size": "1"}}
    assert not validator.problems(thing, schema)
    (found,) = validator.problems({**thing, "spec": {"size": 1, "parts": [{"nam": "b"}]}}, schema)
    assert found.startswith("$.spec.parts[0]") and "'nam'" in found
    (found,) = validator.problems({**thing, "spec": {}}, schema)
    assert "'size' is a required property" in found


def test_validator_fails_where_nothing_was_checked(validator: ModuleType, capsys) -> None:
    assert validator.main([]) == 1
    assert "RayJob: not checked" in capsys.readouterr().out


# --- the image ------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", IMAGE_FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def test_image_is_pinned_and_not_root() -> None:
    (base,) = [rest for name, rest in instructions() if name == "FROM"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+", base)
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])
    assert version and least and tuple(map(int, version.groups())) >= tuple(map(int, least.groups()))
    assert instructions()[-2] == ("USER", "1000")
    (settings,) = [rest for name, rest in instructions() if name == "ENV"]
    assert {"RAY_USAGE_STATS_ENABLED=0", "RAY_AUTH_MODE=token", "RAY_CHDIR_TO_TRIAL_DIR=0"} <= set(settings.split())


def test_image_installs_with_the_pins() -> None:
    installs = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert len(installs) == 2 and all("-c constraints.txt" in rest for rest in installs)
    assert f"ray[default,tune,train]=={pins()['ray']}" in installs[0]
    assert not [name for name, _ in instructions() if name == "ADD"]
    for rest in [rest for name, rest in instructions() if name == "RUN"]:
        subprocess.run(["bash", "-n", "-c", rest], check=True)


def test_image_holds_what_the_wheel_is_built_from_and_nothing_else() -> None:
    copied = {word.rstrip("/") for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    built_from = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"], "pyproject.toml"}
    assert copied == built_from | {"constraints.txt", "LICENSE"}
    ignore = (CLUSTERS / "Dockerfile.dockerignore").read_text().split("\n")
    assert "*" in ignore and {line[1:] for line in ignore if line.startswith("!")} == copied
