"""Mistakes in pipelines and images, and the check that finds each of them."""

from __future__ import annotations

import pytest

from tests.infra import checks, pipelines
from tests.infra.planting import Mistake, Plant, named

BY_ZIZMOR = Mistake(
    "unpinned action",
    ".github/workflows/checks.yml",
    "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0",
    "actions/checkout@v5",
    "unpinned-uses",
)
BY_THE_TABLE_OF_RUNTIMES = Mistake(
    "an action of a version that no runner starts",
    ".github/workflows/deploy.yml",
    "actions/upload-artifact@043fb46d1a93c77aae656e7c1c64a875d1fc6a0a # v7.0.1",
    "actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02 # v4.6.2",
    "deploy.yml: look up what runs actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02",
)
BY_THE_GATE = [
    Mistake(
        "a deployment beside the checks",
        ".github/workflows/main.yml",
        "needs: [checks, changed]",
        "needs: changed",
        "main.yml: deploy does not wait for the checks",
    ),
    Mistake(
        "a deployment after checks that failed",
        ".github/workflows/main.yml",
        "if: needs.changed.outputs.programs != '[]'",
        "if: ${{ always() && needs.changed.outputs.programs != '[]' }}",
        "main.yml: deploy runs although the checks have failed",
    ),
    Mistake(
        "a version published beside the checks",
        ".github/workflows/publish.yml",
        "    needs: checks\n",
        "",
        "publish.yml: publish does not wait for the checks",
    ),
]
BY_HADOLINT = Mistake("root container", "infra/docker/Dockerfile", "USER 10001:10001", "USER root", "DL3002")


def test_zizmor_finds_its_mistakes(planted: Plant) -> None:
    assert BY_ZIZMOR.words in checks.zizmor(planted(BY_ZIZMOR))


def test_hadolint_finds_its_mistakes(planted: Plant) -> None:
    assert BY_HADOLINT.words in checks.hadolint(planted(BY_HADOLINT))


def test_the_table_of_runtimes_finds_its_mistakes(planted: Plant) -> None:
    assert BY_THE_TABLE_OF_RUNTIMES.words in pipelines.unstartable(planted(BY_THE_TABLE_OF_RUNTIMES))


@pytest.mark.parametrize("mistake", BY_THE_GATE, ids=named)
def test_the_gate_finds_its_mistakes(mistake: Mistake, planted: Plant) -> None:
    assert pipelines.unchecked(planted(mistake)) == mistake.words
