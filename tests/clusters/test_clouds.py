"""The files for clouds, offline: Ray's schema and checks, and each cloud's own description of a machine."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
from clusters.cluster_files import CLUSTERS, declared, loaded, long_options, ray_command

CLOUDS = ["aws", "gcp", "azure"]
STORES = {"aws": "s3://", "gcp": "gs://", "azure": "abfss://"}


@pytest.fixture(params=CLOUDS)
def cloud(request) -> str:
    return request.param


def machines(cloud: str) -> tuple[dict, dict]:
    """The types of the head and of the workers."""
    types = dict(loaded(f"{cloud}.yaml")["available_node_types"])
    head = types.pop(loaded(f"{cloud}.yaml")["head_node_type"])
    (worker,) = types.values()
    return head, worker


def ray_folder() -> Path:
    import ray.autoscaler

    return Path(ray.autoscaler.__file__).parent


def test_rays_schema_and_own_checks_take_it(cloud: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = loaded(f"{cloud}.yaml")
    jsonschema.validate(config, json.loads((ray_folder() / "ray-schema.json").read_text()))
    prepared = prepare_config(config)
    validate_config(prepared)
    # Ray's defaults install a nightly of itself and old clients of the clouds: every list of commands is ours.
    commands = {key: value for key, value in prepared.items() if key.endswith("_commands")}
    assert "dev0" not in str(commands) and "conda" not in str(commands)
    ours = {key for key in commands if key not in config}
    assert not ours


def test_clouds_differ_in_machines_alone() -> None:
    """What is installed, sent and started is the same everywhere, also as on machines of one's own."""
    files = {name: loaded(f"{name}.yaml") for name in CLOUDS}
    for key in (
        "file_mounts",
        "rsync_exclude",
        "setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    ):
        assert files["aws"][key] == files["gcp"][key] == files["azure"][key], key
    onprem = loaded("onprem.yaml")
    assert files["aws"]["file_mounts"] == onprem["file_mounts"]
    assert files["aws"]["setup_commands"][1:] == onprem["setup_commands"][1:]
    # `ray status` would be turned away: it does not look for a token by itself, as `--address auto` does.
    assert "export RAY_AUTH_MODE=token" in onprem["setup_commands"][-1]
    for name, config in files.items():
        (extra,) = config["head_setup_commands"]
        assert extra.endswith(f"-c ~/dermsearch/constraints.txt ~/dermsearch[{name}]")


def test_head_is_stable_and_trains_nothing(cloud: str) -> None:
    head, worker = machines(cloud)
    assert head["resources"] == {"CPU": 0}
    assert not re.search("spot|preempt", str(head["node_config"]), re.IGNORECASE)
    assert re.search("spot", str(worker["node_config"]), re.IGNORECASE)
    assert worker["resources"]["GPU"] >= 1


def test_lost_workers_are_replaced(cloud: str) -> None:
    """The study sizes itself at its start, so the cluster keeps one size: as many as before join again."""
    _, worker = machines(cloud)
    config = loaded(f"{cloud}.yaml")
    assert worker["min_workers"] == worker["max_workers"] == config["max_workers"] > 0
    # The line that waits for them knows how many, and what their type is called.
    waits = re.search(r'grep "\^ (\d+) (\w+)"', (CLUSTERS / f"{cloud}.yaml").read_text())
    assert waits and int(waits[1]) == config["max_workers"] and waits[2] in config["available_node_types"]


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_starts_with_a_token_and_without_telemetry(cloud: str, key: str) -> None:
    stop, start = loaded(f"{cloud}.yaml")[key]
    words = shlex.split(start.split(";")[1])
    assert shlex.split(stop)[1:] == ["stop"]
    assert {"RAY_USAGE_STATS_ENABLED=0", "RAY_AUTH_MODE=token", "RAY_CHDIR_TO_TRIAL_DIR=0"} <= set(words)
    assert long_options(words) <= declared(ray_command("start"))
    assert ("--head" in words) == ("--num-cpus=0" in words) == key.startswith("head")


def test_commands_are_bash(cloud: str) -> None:
    config = loaded(f"{cloud}.yaml")
    commands = [line for key, lines in config.items() if key.endswith("_commands") for line in lines]
    assert len(commands) >= 8
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_a_machine_half_set_up_is_set_up_again(tmp_path: Path) -> None:
    """`python3 -m venv` leaves a python without pip where Ubuntu's package is missing."""
    bin_folder = tmp_path / "dermsearch-env" / "bin"
    bin_folder.mkdir(parents=True)
    (bin_folder / "python").touch(mode=0o755)
    for name in ("sudo", "python3"):
        program = tmp_path / name
        program.write_text(f'#!/bin/bash\necho {name} "$@" >> {tmp_path}/calls\n')
        program.chmod(0o755)
    first = loaded("aws.yaml")["setup_commands"][0]
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", "-c", first], env=environment, check=True)
    calls = (tmp_path / "calls").read_text()
    assert "install python3-venv" in calls.replace("-qy ", "") and f"venv --clear {tmp_path}/dermsearch-env" in calls
    (bin_folder / "pip").touch(mode=0o755)
    subprocess.run(["bash", "-c", first], env=environment, check=True)
    assert (tmp_path / "calls").read_text() == calls  # nothing more to do


def test_launcher_commands_in_the_files_exist(cloud: str) -> None:
    lines = re.findall(r"^#   ray (\S+) ([^#\n]*)", (CLUSTERS / f"{cloud}.yaml").read_text(), re.MULTILINE)
    assert {name for name, _ in lines} >= {"get-auth-token", "up", "exec", "attach", "rsync-down", "down"}
    for name, rest in lines:
        words = shlex.split(rest)
        assert long_options(words) <= declared(ray_command(name))
        assert name == "get-auth-token" or f"clusters/{cloud}.yaml" in words


def test_store_is_one_that_pyarrow_opens(cloud: str) -> None:
    from pyarrow.fs import FileSystem

    (store,) = re.findall(r"compute\.store=(\S+)", (CLUSTERS / f"{cloud}.yaml").read_text())
    assert store.startswith(STORES[cloud])
    if cloud == "aws":  # it would ask the network for the bucket's region
        store += "?region=eu-central-1"
    FileSystem.from_uri(store)


# --- what each cloud says of a machine ------------------------------------------------------------------


def test_aws_takes_the_machines() -> None:
    """Against the EC2 API as botocore carries it."""
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for machine in machines("aws"):
        asked = {**machine["node_config"], "MinCount": 1, "MaxCount": 1}
        assert not ParamValidator().validate(asked, shape).generate_report()
    wrong = {"InstanceMarketOptions": {"MarketTyp": "spot"}, "MinCount": 1, "MaxCount": 1}
    assert ParamValidator().validate(wrong, shape).has_errors()  # it does refuse something


def test_aws_starts_the_machines(monkeypatch, tmp_path: Path) -> None:
    """Ray's own launcher code against moto's EC2: keys, security group, roles, an on-demand head, spot workers."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.util import prepare_config

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("HOME", str(tmp_path))
    config = loaded("aws.yaml")
    region = config["provider"]["region"]
    with mock_aws():
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        ec2 = boto3.client("ec2", region)
        image = ec2.register_image(Name="ubuntu", RootDeviceName="/dev/sda1")["ImageId"]
        for kind in config["available_node_types"].values():
            kind["node_config"]["ImageId"] = image
            profile = kind["node_config"]["IamInstanceProfile"]["Name"]
            boto3.client("iam").create_instance_profile(InstanceProfileName=profile)
        ready = bootstrap_aws(prepare_config(config))
        provider = AWSNodeProvider(ready["provider"], ready["cluster_name"])
        for kind in ready["available_node_types"].values():
            provider.create_node(kind["node_config"], {}, 1)
        started = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    found = {
        (i["InstanceType"], i.get("InstanceLifecycle"), i["IamInstanceProfile"]["Arn"].split("/")[-1]) for i in started
    }
    assert found == {("m7i.xlarge", None, "dermsearch-head"), ("g6.2xlarge", "spot", "dermsearch-worker")}


def test_azure_takes_the_machines() -> None:
    """Against the template that Ray deploys: a parameter that it has not is an error there."""
    template = json.loads((ray_folder() / "_private/_azure/azure-vm-template.json").read_text())["parameters"]
    by_ray = {"vmName", "adminUsername", "publicKey", "vmTags", "vmCount", "msi", "nsg", "subnet"}
    needed = {name for name, about in template.items() if "defaultValue" not in about} - by_ray
    for machine in machines("azure"):
        assert needed <= set(machine["node_config"]["azure_arm_parameters"]) <= set(template)


def test_gcp_gives_workers_a_service_account_and_a_schedule_that_google_takes() -> None:
    _, worker = machines("gcp")
    (account,) = worker["node_config"]["serviceAccounts"]
    assert account["email"].split("@")[1].startswith(loaded("gcp.yaml")["provider"]["project_id"])
    assert worker["node_config"]["scheduling"]["onHostMaintenance"] == "TERMINATE"  # machines with GPUs cannot move
