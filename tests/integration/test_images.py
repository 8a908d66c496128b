from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = dict(
    re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM )", (ROOT / "infra/docker/Dockerfile").read_text(), re.MULTILINE | re.DOTALL)
)
MODULES = {
    "ingestion": "services.ingestion.__main__",
    "remodelling": "services.remodelling.__main__",
    "loading": "services.loading.__main__",
    "bootstrap": "infra.local.bootstrap, infra.local.ticker",
}


def copy_as_the_image_does(stage: str, target: Path) -> None:
    for arguments in re.findall(r"^COPY (?!--from)(.+)$", STAGES["runtime"] + STAGES[stage], re.MULTILINE):
        *sources, destination = arguments.split()
        for source in sources:
            place = target / destination / Path(source).name if destination.endswith("/") else target / destination
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place)
            else:
                shutil.copy(ROOT / source, place)


@pytest.mark.parametrize("image", MODULES)
def test_an_image_holds_every_module_that_its_program_imports(image: str, tmp_path: Path) -> None:
    copy_as_the_image_does(image, tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", f"import {MODULES[image]}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
