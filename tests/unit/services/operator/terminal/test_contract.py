"""`starlift init` and `pull` refuse what they can't do before they connect."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.yaml_text import read_contract
from services.operator.terminal.app import starlift
from services.operator.terminal.harness import run_command
from tests.fixtures.delivered_contract import TEXT as DELIVERED

URL = "postgresql://reader@127.0.0.1:1/shop"


@pytest.fixture(autouse=True)
def no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STARLIFT_SOURCE_URL", "STARLIFT_SOURCE_SECRET"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "url",
    ["postgresql://reader:hunter2@db/shop", "postgresql://reader@db/shop?password=hunter2", f"{URL}?sslpassword=hunter2"],
)
@pytest.mark.parametrize("words", [["init", "--output", "-"], ["pull", "--contract", "./shop.yaml"]])
def test_a_url_with_a_password_is_refused_on_the_command_line(
    url: str, words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text("name: shop\n", encoding="utf-8")
    assert run_command(starlift(), [*words, url]) == 2
    printed = capsys.readouterr()
    assert printed.err == (
        "starlift: the source URL on the command line holds a password, which other users can read there; leave it out and "
        "type it when asked, or set STARLIFT_SOURCE_URL, or pass @FILE, a file that holds the URL\n"
    )
    assert printed.out == ""


@pytest.mark.parametrize("words", [["init", "--output", "-"], ["pull", "--contract", "./shop.yaml"]])
def test_without_a_source_both_name_the_variable(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text("name: shop\n", encoding="utf-8")
    assert run_command(starlift(), words) == 2
    assert "no source database configured: set STARLIFT_SOURCE_URL or STARLIFT_SOURCE_SECRET" in capsys.readouterr().err


def test_a_url_that_can_t_be_read_is_wrong_usage_and_never_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(starlift(), ["init", "--output", "-", "mysql://reader:hunter2@db/shop"]) == 2
    assert "hunter2" not in capsys.readouterr().err


def test_a_source_that_is_down_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(starlift(), ["init", "--output", "-", URL]) == 1
    assert "source" in capsys.readouterr().err


def test_init_does_not_replace_a_file_unless_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text("mine", encoding="utf-8")
    assert run_command(starlift(), ["init", "--output", str(path), URL]) == 2
    assert capsys.readouterr().err == f"starlift: '{path}' exists; choose another file, or pass --force to replace it\n"
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_star_s_name_has_at_most_63_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(starlift(), ["init", "--output", "-", "--name", "x" * 64, URL]) == 2
    assert "has more than 63 characters; pass a shorter name as --name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("totesys", "'totesys' is not a file; give the path of one, such as ./shop.yaml"),
        ("s3://bucket/shop.yaml", "'s3://bucket/shop.yaml' is not a file"),
        ("./missing.yaml", "'missing.yaml' can't be read (No such file or directory)"),
        ("./broken.yaml", "broken.yaml:2: it is not YAML"),
    ],
)
def test_pull_needs_a_file_that_it_can_rewrite(
    name: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text("a: [", encoding="utf-8")
    assert run_command(starlift(), ["pull", "--contract", name, URL]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("words", "name"), [(["--source", "rates"], "source 'rates'"), ([], "the source")])
def test_there_is_no_catalog_of_data_sets_to_pull(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, end = tmp_path / "delivered.yaml", DELIVERED.index("sources:")
    alone = "source: {api: {url: https://a.example}, tables: {t: {request: {path: /t}, key: a, columns: {a: integer}}}}\n"
    path.write_text(DELIVERED if words else DELIVERED[:end] + alone, encoding="utf-8")
    assert run_command(starlift(), ["pull", "--contract", str(path), *words, URL]) == 2
    message = f"starlift: {name} has data sets, for which there is no catalog to pull; edit them in '{path}' yourself\n"
    assert capsys.readouterr().err == message


def test_init_of_a_file_guesses_a_data_set(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text("currency;day;rate\nUSD;2026-01-02;1.1\nUSD;2026-01-03;1.2\nGBP;2026-01-02;0.9\n")
    path = tmp_path / "shop.yaml"
    assert run_command(starlift(), ["init", str(tmp_path / "rates.csv"), "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}: 1 fact, 0 dimensions; the comments say what was left out\n"
    contract = read_contract(path.read_text(encoding="utf-8"), "shop.yaml")
    assert (contract.name, contract.source_table("rates").key) == ("shop", ("currency", "day"))
    assert run_command(starlift(), ["init", str(tmp_path / "rates.csv"), "--output", "-", "--schema", "sales"]) == 2
    assert "is a file; --schema, --include and --exclude are for databases" in capsys.readouterr().err
    assert run_command(starlift(), ["init", str(tmp_path / "gone.csv"), "--output", "-"]) == 2
    assert "can't be read (No such file or directory)" in capsys.readouterr().err
