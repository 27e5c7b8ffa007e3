"""The cluster files without a cluster: Ray's own schema and loader, pinned versions, commands that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
from clusters.cluster_files import CLUSTERS, ROOT, declared, loaded, long_options, pins, ray_command

FILES = sorted(path for path in CLUSTERS.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
TEXTS = [path for path in FILES if path.suffix not in (".py", ".dockerignore")]
SBATCH = CLUSTERS / "slurm.sbatch"
STUB = '#!/usr/bin/env bash\nprintf "%s\\n" "$(basename "$0")" "$@" >> "$CALLS"\n'


def onprem() -> dict:
    return loaded("onprem.yaml")


def sbatch_text() -> str:
    """The script with continued lines joined and comments left out."""
    lines = SBATCH.read_text().replace("\\\n", " ").splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("#"))


# --- versions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_versions_are_the_pinned_ones(path: Path) -> None:
    """Whatever a file pins itself, constraints.txt pins too: they cannot drift apart."""
    text = path.read_text()
    found = set(re.findall(r"([\w-]+)(?:\[[\w,]+\])?==([\w.]+)", text))
    assert found <= set(pins().items())
    assert set(re.findall(r"rayVersion: (\S+)", text)) <= {pins()["ray"]}
    assert set(re.findall(r"Ray (\d+\.\d+\.\d+)", text)) <= {pins()["ray"]}
    assert "nightly" not in re.sub(r"#.*", "", text) and "dev0" not in text and not re.search(r"ray-[\w.]+\.whl", text)
    from dermsearch import __version__

    assert set(re.findall(r"/dermsearch:([\w.]+)", text)) <= {__version__}


@pytest.mark.parametrize("name", ["onprem.yaml", "aws.yaml", "gcp.yaml", "azure.yaml", "slurm.sbatch", "Dockerfile"])
def test_ray_is_installed_with_every_pin(name: str) -> None:
    installs = re.findall(r"pip install [^\n]*ray\[[^\n]*", (CLUSTERS / name).read_text())
    assert installs
    for line in installs:
        assert re.search(r"-c \S*constraints\.txt", line) and f"]=={pins()['ray']}" in line


def test_extras_of_the_clouds_are_pinned() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for cloud in ("aws", "gcp", "azure"):
        assert set(extras[cloud]) <= set(pins())


def test_readme_knows_every_file() -> None:
    said = (CLUSTERS / "README.md").read_text()
    names = {str(path.relative_to(CLUSTERS)) for path in FILES} - {"README.md", "Dockerfile.dockerignore"}
    assert not {name for name in names if f"]({name})" not in said}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_secret_is_in_a_file(path: Path) -> None:
    """Nothing of the length and alphabet of a key or token, and no name of one with a value behind it."""
    text = re.sub(r"0{8}-0000-0000-0000-0{12}", "", path.read_text())
    assert not re.search(r"\b(AKIA[0-9A-Z]{16}|[0-9a-f]{32,}|gh[pousr]_\w{20,})\b|PRIVATE KEY-", text)
    assert not re.search(
        r"RAY_AUTH_TOKEN[=:] *[\"']?[A-Za-z0-9]|(password|AccountKey|secret_access_key)[=:]", text, re.I
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_placeholders_are_addresses_nobody_has(path: Path) -> None:
    """Only the range that RFC 5737 keeps for documentation, loopback and 'any'."""
    for address in re.findall(r"\b\d{1,3}(?:\.\d{1,3}){3}\b", path.read_text()):
        assert address.startswith(("192.0.2.", "127.0.", "0.0.0.0"))


# --- Ray's cluster launcher ---------------------------------------------------------------------------


def test_onprem_fits_the_schema_that_ray_ships() -> None:
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(onprem(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**onprem(), "worker_ips": []}, schema)  # the schema does refuse something


def test_onprem_passes_the_launchers_own_checks() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(onprem())
    validate_config(prepared)
    (node_type,) = prepared["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(onprem()["provider"]["worker_ips"])
    assert not any("dev0" in command for command in prepared["setup_commands"])  # not a default's nightly


def test_onprem_sends_what_the_checkout_has() -> None:
    mounts = onprem()["file_mounts"]
    for there, here in mounts.items():
        assert here == there if here.startswith("~") else (ROOT / here).exists(), here
    # What pip needs there: whatever the wheel is built from.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel.get("force-include", {}), project["project"]["readme"]}
    assert needed | {"pyproject.toml", "constraints.txt"} <= set(mounts.values())


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_onprem_starts_ray_with_a_token_and_without_telemetry(key: str) -> None:
    stop, start = onprem()[key]
    words = shlex.split(start.split(";")[1])
    assert shlex.split(stop)[1:] == ["stop"]
    assert {"RAY_USAGE_STATS_ENABLED=0", "RAY_AUTH_MODE=token", "RAY_CHDIR_TO_TRIAL_DIR=0"} <= set(words)
    assert long_options(words) <= declared(ray_command("start"))
    assert ("--head" in words) == key.startswith("head")
    # Ray 2.60's newer autoscaler takes the head for a worker and leaves one of the workers out.
    assert ("RAY_enable_autoscaler_v2=0" in words) == key.startswith("head")


# --- SLURM --------------------------------------------------------------------------------------------


def test_sbatch_is_bash() -> None:
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)


def test_sbatch_directives() -> None:
    asked = set(re.findall(r"^#SBATCH (\S+)$", SBATCH.read_text(), re.MULTILINE))
    assert {"--exclusive", "--requeue", "--signal=B:USR1@120", "--ntasks-per-node=1"} <= asked
    # SLURM reads no directive below the first command.
    first = SBATCH.read_text().index("\nset -euo pipefail")
    assert "#SBATCH --" not in SBATCH.read_text()[first:]


def test_options_of_symmetric_run_exist() -> None:
    found = re.search(r"ray symmetric-run (.*?) -- ", sbatch_text())
    assert found
    used = long_options(shlex.split(found[1]))
    own = declared(ray_command("symmetric-run"))
    assert {"--address", "--min-nodes"} <= used
    assert used <= own | declared(ray_command("start"))
    assert not used & {"--head", "--node-ip-address", "--port", "--block"}  # it refuses these


def slurm(folder: Path, *arguments: str, **programs: str) -> tuple[subprocess.Popen, Path]:
    """The batch script, started with stand-ins for SLURM, Ray and dermsearch noting their arguments."""
    bodies = {
        "hostname": "echo 192.0.2.7 192.0.2.8",
        "scontrol": STUB,
        "srun": STUB + 'while [[ $1 == --* ]]; do shift; done\n"$@"',
        "ray": STUB + 'while [[ $1 != -- ]]; do shift; done; shift\n"$@"',
        "dermsearch": STUB + 'echo "env $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN} $RAY_USAGE_STATS_ENABLED" >> "$CALLS"',
        **programs,
    }
    for name, body in bodies.items():
        path = folder / name
        path.write_text(body if body.startswith("#!") else f"#!/usr/bin/env bash\n{body}")
        path.chmod(0o755)
    job = {"SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "8", "SLURM_JOB_ID": "7"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "RAY_"))}
    environment = {**kept, **job, "CALLS": str(folder / "calls"), "PATH": f"{folder}:{os.environ['PATH']}"}
    process = subprocess.Popen(["bash", str(SBATCH), *arguments], env=environment, stderr=subprocess.PIPE)
    return process, folder / "calls"


def test_sbatch_runs_the_study_on_rays_head(tmp_path: Path) -> None:
    process, calls = slurm(tmp_path, "curriculum_three.yaml", "/a store", "search.budget=3")
    process.communicate(timeout=60)
    assert process.returncode == 0
    said = calls.read_text()
    assert "\n".join(["symmetric-run", "--address", "192.0.2.7:6379", "--min-nodes", "2"]) in said
    command = ["run", "curriculum_three.yaml", "--address", "192.0.2.7:6379", "compute.store=/a store"]
    assert "\n".join(["dermsearch", *command, "search.budget=3", "env token 64 0"]) in said


def test_sbatch_passes_a_failure_on(tmp_path: Path) -> None:
    process, _ = slurm(tmp_path, "curriculum_three.yaml", "/store", dermsearch="exit 3")
    process.communicate(timeout=60)
    assert process.returncode == 3


def test_sbatch_fails_where_ray_did_not_start(tmp_path: Path) -> None:
    """`ray symmetric-run` prints such a failure and ends with 0."""
    process, _ = slurm(tmp_path, "curriculum_three.yaml", "/store", ray="exit 0")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and b"did not run" in said


@pytest.mark.parametrize("limit", [20, 0])
def test_sbatch_requeues_before_its_time_is_up(tmp_path: Path, monkeypatch, limit: int) -> None:
    monkeypatch.setenv("MAX_RESTARTS", str(limit))
    started, over = tmp_path / "started", tmp_path / "over"
    study = f"touch {started}; until [ -e {over} ]; do sleep 0.05; done; exit 5"
    process, calls = slurm(tmp_path, "curriculum_three.yaml", "/store", dermsearch=study)
    while not started.exists():
        assert process.poll() is None
    process.send_signal(10)  # USR1
    assert process.stderr is not None and b"time is nearly up" in process.stderr.readline()
    if limit:
        process.wait(60)
    over.touch()
    process.communicate(timeout=60)
    requeued = "scontrol\nrequeue\n7" in calls.read_text()
    assert (requeued, process.returncode) == ((True, 0) if limit else (False, 5))


# --- our own command ----------------------------------------------------------------------------------


def run_commands() -> list[tuple[str, list[str]]]:
    """Every `dermsearch run ...` that a cluster file shows or runs, as words."""
    found = []
    for path in TEXTS:
        text = re.sub(r"\\\n#?", " ", path.read_text())
        for line in re.findall(r"dermsearch run ([^\n`)]+)", text):
            found.append((path.name, shlex.split(line)))
    return found


def test_dermsearch_run_understands_what_the_files_say() -> None:
    import typer

    from dermsearch.cli.main import app
    from dermsearch.study.load import load_study

    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    commands = [(name, words) for name, words in run_commands() if words and words[0][-1] not in "`,"]
    launched = {"onprem.yaml", "slurm.sbatch", "aws.yaml", "gcp.yaml", "azure.yaml", "raycluster.yaml", "rayjob.yaml"}
    assert launched <= {name for name, _ in commands}
    for name, words in commands:
        assert long_options(words) <= declared(command), name
        # Placeholders of the documentation aside, the words parse: study, settings and options in that order.
        plain = [word for word in words if "[" not in word and "]" not in word]
        context = command.make_context("run", plain, resilient_parsing=True)
        assert not context.args, f"{name}: {context.args} are left over"
        load_study("curriculum_three.yaml", [word for word in plain if re.match(r"compute\.\w+=[^$]", word)])
