"""The content of an image, built by the steps of its Dockerfile, without an engine, in a clean environment."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM )", DOCKERFILE, re.MULTILINE | re.DOTALL))
IMAGES = [name for name in STAGES if name not in {"base", "authorities", "wheel", "environment", "runtime"}]
# Without an environment each program says what it lacks, in one sentence.
SENTENCES = {
    "ingestion": "invalid settings: STARLIFT_REGION is missing",
    "remodelling": "invalid settings: STARLIFT_REGION is missing",
    "loading": "invalid settings: STARLIFT_REGION is missing",
    "operator": "the environment does not describe a Starlift",
    "bootstrap": "the set-up needs environment variables: set AWS_ENDPOINT_URL",
}

OTHER_PROGRAMS = {
    "loading": ["services.loading.migrate", "shared.health"],
    "operator": ["services.operator.local.totesys.__main__"],
    "bootstrap": ["infra.local.ticker", "shared.health"],
}


@dataclass(frozen=True, slots=True)
class Image:
    """`files` is its empty /srv, `python` the one of its environment."""

    name: str
    files: Path
    python: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program as a container would, but without its isolation."""
        variables = dict(re.findall(r"(STARLIFT_\w+)=(\S+)", STAGES["runtime"]))
        variables["PYTHONPYCACHEPREFIX"] = str(self.files.parent / "compiled")
        return subprocess.run(
            [self.python, *arguments], cwd=self.files, env=variables, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def wheel(place: Path) -> Path:
    """The wheel as the stage `wheel` builds it, from the files that the stage copies out of the build context."""
    source = place / "source"
    for arguments in re.findall(r"^COPY (?!--from)(?!infra/locks)(.+)$", STAGES["wheel"], re.MULTILINE):
        *sources, destination = arguments.split()
        for name in sources:
            target = source / destination / (name if destination.endswith("/") else "")
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__", "terraform", "docker"))
            else:
                shutil.copy(ROOT / name, target)
    build = [UV, "build", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable, "--wheel"]
    subprocess.run([*build, "--out-dir", place / "wheel", source], check=True)
    (built,) = (place / "wheel").glob("*.whl")
    return built


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest, place: Path, wheel: Path) -> Iterator[Image]:
    """One image after another, as its stages make it, in the same place, so that each module is compiled once."""
    name = str(request.param)
    (place / "srv").mkdir()
    install_as_the_image_does(name, wheel, place / "venv")
    yield Image(name, place / "srv", place / "venv/bin/python")
    shutil.rmtree(place / "srv")
    shutil.rmtree(place / "venv")


def install_as_the_image_does(name: str, wheel: Path, place: Path) -> None:
    """Exactly the lock, every hash compared, and the wheel; what the development environment has is not fetched again."""
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, str(place)], check=True)
    install = [UV, "pip", "sync", "--quiet", "--python", str(place / "bin/python"), "--require-hashes", str(lock_of(name))]
    if subprocess.run([*install, "--offline"], capture_output=True, check=False).returncode != 0:
        subprocess.run(install, check=True)
    add = [UV, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(place / "bin/python"), str(wheel)]
    subprocess.run(add, check=True)


def lock_of(name: str) -> Path:
    return ROOT / f"infra/locks/{name}.txt"


def locked(name: str) -> dict[str, str]:
    """Versions by package, of those that this machine needs."""
    lines = [line.rstrip(" \\") for line in lock_of(name).read_text().splitlines() if line[:1].isalnum()]
    found = [
        requirement for line in lines if (requirement := Requirement(line)).marker is None or requirement.marker.evaluate()
    ]
    return {canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==") for requirement in found}


def test_an_environment_has_exactly_the_packages_of_its_lock(image: Image) -> None:
    program = (
        "import json; from importlib import metadata; "
        "print(json.dumps({found.metadata['Name']: found.version for found in metadata.distributions()}))"
    )
    installed = json.loads(image.run("-I", "-c", program).stdout)
    del installed["starlift"]  # the wheel itself
    assert {canonicalize_name(name): version for name, version in installed.items()} == locked(image.name)


def test_a_program_starts_and_names_the_settings_it_lacks(image: Image) -> None:
    command = re.findall(r'^CMD \["python", (.+)\]$', STAGES[image.name], re.MULTILINE)[-1]
    arguments = [argument.strip().strip('"') for argument in command.split(",")]
    answer = image.run(*arguments)
    assert answer.returncode == 2, answer.stderr
    assert SENTENCES[image.name] in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "this is a bug" not in answer.stderr


def test_the_other_programs_of_an_image_can_import_everything(image: Image) -> None:
    for module in OTHER_PROGRAMS.get(image.name, ()):
        answer = image.run("-c", f"import {module}")
        assert answer.returncode == 0, answer.stderr


def test_no_start_compiles_what_the_image_could_hold_compiled() -> None:
    """Neither the standard library, of which the base image removes the byte code, nor the packages."""
    (python,) = re.findall(r"^FROM python:(\d+\.\d+)-slim@", DOCKERFILE, re.MULTILINE)
    compile_all = "python -m compileall -q -j 0 --invalidation-mode unchecked-hash"  # no file is looked at to see if it changed
    assert f"RUN {compile_all} -x '/tests?/' /usr/local/lib/python{python}\n" in STAGES["base"]
    assert STAGES["environment"].rstrip().endswith(f" && {compile_all} /opt/venv/lib")


def test_a_crash_in_c_leaves_a_traceback() -> None:
    assert "PYTHONFAULTHANDLER=1" in STAGES["runtime"]


def test_verify_full_knows_the_authorities_of_the_system_and_of_amazon() -> None:
    (checksum,) = re.findall(r"^ADD --checksum=sha256:([0-9a-f]{64}) \\$", STAGES["authorities"], re.MULTILINE)
    assert len(set(checksum)) > 8  # nobody's placeholder
    assert "cat /etc/ssl/certs/ca-certificates.crt /rds.pem > /authorities.pem" in STAGES["authorities"]
    (file,) = re.findall(r"^COPY --from=authorities /authorities\.pem (\S+)$", STAGES["runtime"], re.MULTILINE)
    assert f"PGSSLROOTCERT={file}" in STAGES["runtime"]


def test_packages_are_fetched_once_for_all_builds_of_a_machine() -> None:
    for stage in ("wheel", "environment"):
        for command in re.findall(r"^RUN (.*?)(?<!\\)$", STAGES[stage], re.MULTILINE | re.DOTALL):
            if "--requirement" in command:
                assert command.startswith("--mount=type=cache,target=/root/.cache/pip ")
    assert "--no-cache-dir" not in DOCKERFILE


@pytest.mark.parametrize("part", ["apt-get", "gcc", "build-essential", ":latest"])
def test_no_image_contains_more_than_declared(part: str) -> None:
    assert part not in DOCKERFILE


def test_a_container_runs_as_an_unprivileged_user() -> None:
    users = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["10001:10001"]
    assert STAGES["runtime"].index("USER 10001:10001") < STAGES["runtime"].index("HEALTHCHECK")


def test_an_image_is_labelled() -> None:
    for label in ("title", "description", "licenses", "version", "revision", "source"):
        assert f"org.opencontainers.image.{label}=" in STAGES["runtime"]


def test_every_program_starts_without_a_shell() -> None:
    assert not re.findall(r"^(?:CMD|ENTRYPOINT) (?!\[)", DOCKERFILE, re.MULTILINE)
    assert not re.findall(r"^HEALTHCHECK (?!NONE).*CMD (?!\[)", DOCKERFILE, re.MULTILINE)
