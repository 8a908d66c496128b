"""docs/first-day.md: a record of all its steps, no password that a person could see, and an end to all that it began."""

from __future__ import annotations

import re

from tests.infra.offline import aws_cli
from tests.infra.offline.tools import CHECKOUT

TEXT = (CHECKOUT / "docs/first-day.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^## (\d+\. .+)$", TEXT, re.MULTILINE)


def test_every_step_says_what_must_be_seen_and_has_a_line_in_the_record() -> None:
    assert [int(step.partition(".")[0]) for step in STEPS] == list(range(1, 1 + len(STEPS)))
    steps, _, record = TEXT.partition("## The record")
    assert re.findall(r"^\| (\d+\. .+?) \|", record, re.MULTILINE) == STEPS
    for section in re.split(r"^## \d+\. ", steps, flags=re.MULTILINE)[1:]:
        assert "*To be seen:* " in section, section.splitlines()[0]
        assert "```\n" in section


def test_the_costs_add_up() -> None:
    table = TEXT.partition("## What it costs")[2].partition("## 1.")[0]
    *costs, total = (float(cost) for cost in re.findall(r"(\d+\.\d\d)\*{0,2} \|$", table, re.MULTILINE))
    assert len(costs) >= 5
    assert abs(sum(costs) - total) < 0.005
    assert 5.5 < total < 6.5  # "about six dollars"
    prices = (CHECKOUT / "docs/deploy.md").read_text(encoding="utf-8")
    for counted in (r"\d+ interface endpoints", r"\d+ [^+] 0\.30", r"\(\d+ \+ \d+ \+ \d+ . \d+\) . 0\.10"):
        (found,) = set(re.findall(counted, table))
        assert found in prices


def test_no_password_is_on_a_command_line_or_the_terminal() -> None:
    assert "--master-user-password" not in TEXT
    assert "get-secret-value" not in re.sub(
        r"get-secret-value [^|]*--output text \|\n", "", TEXT
    )  # its answer goes into a pipe
    assert set(re.findall(r"--secret-string (\S+)", TEXT)) == {"file:///dev/stdin"}


def test_a_sentence_that_must_be_seen_is_one_that_is_written() -> None:
    (sentence,) = re.findall(r"one sentence, `the source (.+?)`", TEXT)
    assert f"the {{dependency}} {sentence}" in (CHECKOUT / "shared/postgres_errors.py").read_text(encoding="utf-8")


def test_every_database_that_is_created_is_deleted() -> None:
    created, deleted = (
        set(re.findall(rf"rds {verb}-db-instance --db-instance-identifier (\S+)", TEXT)) for verb in ("create", "delete")
    )
    assert created == deleted == {"starlift-source"}


def test_the_bad_image_is_not_the_one_that_an_apply_takes() -> None:
    section = TEXT.partition("## 8. ")[2].partition("## 9. ")[0]
    assert ":deployed" not in section
    assert section.index("terraform apply") > section.index("aws ecs wait services-stable")


def test_the_check_of_the_aws_cli_finds_mistakes() -> None:
    wrong = """
    aws ecs describe-service --cluster starlift
    aws ecs stop-task --cluster starlift \\
      --tasks 1
    aws ecs wait services-steady --cluster starlift
    aws ecz list-tasks
    aws ecs list-tasks --query 'taskArns[0'
    # aws ecs nothing
    aws ecs stop-task --cluster starlift --task $(aws ecs list-tasks --cluster starlift --service 1) --reason "--tasks"
    """
    *found, query = aws_cli.findings(wrong)
    assert query.startswith("--query taskArns[0 is not JMESPath: ")
    assert found == [
        "there is no `aws ecs describe-service`",
        "`aws ecs stop-task` has no --tasks",
        "there is no `aws ecs wait services-steady`",
        "there is no `aws ecz list-tasks`",
        "`aws ecs list-tasks` has no --service",
    ]
