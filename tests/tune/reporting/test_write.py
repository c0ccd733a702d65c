"""The report: what stands in it, what never does, and what it says when a run is partial or damaged."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from scipy import stats
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from macil.commands import cli
from macil.data import FeatureStore
from macil.io.command_line import from_any_folder
from macil.io.files import read_json, write_json_atomic
from tests.support.made_runs import epoch_rows, trial_rows
from tests.support.repository import REPORT_SCRIPT, ROOT
from tests.support.run_folders import RunFolder, edit_report
from tune.commands.report import report as command
from tune.reporting.figures.drawing import Drawing, save_drawing
from tune.reporting.figures.epochs import Group
from tune.reporting.figures.learning_curves import draw
from tune.reporting.pages.rendering import markdown
from tune.reporting.statistics.intervals import Estimate, estimate
from tune.reporting.statistics.sweep_rows import sweep_rows
from tune.reporting.tables.run_tables import leaderboard_table
from tune.reporting.tables.sweep_table import sweep_table
from tune.reporting.text.wording import NOT_MEASURED, duration, percent, value
from tune.reporting.write import write_report, write_reports
from tune.results.next_commands import replay_command, resume_command
from tune.results.run import load_run
from tune.storage.names import ACCESS_LOG

ROWS: list[tuple[str, float, dict[str, Any]]] = [
    ("two-stream", 71.37, {"contrast": False, "distill": False}),
    ("a|b $x$ <i>", 83.40, {}),
]


@pytest.fixture(scope="module")
def heldout(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with failures and a refit; read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout")
    run.begin(trials=4)
    run.add("0000", lambda_v2b=0.5)
    run.add("0001", "stopped", 2, lambda_v2b=2.0)
    run.add("0002", "failed", 1, error="ValueError: <script>alert(1)</script> | `x`")
    run.add("0003", "diverged", 1)
    run.add("seed0", kind="refit", epochs=2)
    run.add("seed1", kind="refit", epochs=2, seed=1)
    return run.path


@pytest.fixture(scope="module")
def sweep(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rows of three and two seeds, one of which failed; read only."""
    run = RunFolder(tmp_path_factory.mktemp("runs") / "sweep", demo_store, "published")
    run.begin(sweep="table3", trials=6, seeds=[0, 1, 2])
    plan: dict[str, Any] = {
        "sweep": "table3",
        "source": "Table 3 of the paper",
        "seeds": [0, 1, 2],
        "space": {},
        "stopping": None,
    }
    rows = [{"name": name, "changes": changes, "published_ap": ap} for name, ap, changes in ROWS]
    write_json_atomic(run.path / "plan.json", plan | {"rows": rows})
    for seed in (0, 1, 2):
        run.add(f"a-{seed}", row=ROWS[0][0], seed=seed, epochs=2, **ROWS[0][2])
    run.add("b-0", row=ROWS[1][0], seed=0, epochs=2)
    run.add("b-1", "failed", 1, row=ROWS[1][0], seed=1, epochs=2)
    return run.path


@pytest.fixture(scope="module")
def reported(heldout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The search with its report; read only."""
    run = Path(shutil.copytree(heldout, tmp_path_factory.mktemp("reported") / "search"))
    write_report(run)
    return run


@pytest.fixture(scope="module")
def reported_sweep(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep with its report; read only."""
    run = Path(shutil.copytree(sweep, tmp_path_factory.mktemp("reported") / "sweep"))
    write_report(run, figures=False)
    return run


@pytest.fixture
def copy(heldout: Path, tmp_path: Path) -> Path:
    """The search, to be changed and reported."""
    return Path(shutil.copytree(heldout, tmp_path / "runs" / "search"))


@pytest.fixture
def copied_sweep(sweep: Path, tmp_path: Path) -> Path:
    """The sweep, to be changed and reported."""
    return Path(shutil.copytree(sweep, tmp_path / "runs" / "sweep"))


def set_info(run: Path, **changes: object) -> None:
    write_json_atomic(run / "run.json", {**read_json(run / "run.json"), **changes})


def texts(run: Path) -> tuple[str, str]:
    """The report, written now without figures, as HTML and as Markdown."""
    write_report(run, figures=False)
    return written(run)


def written(run: Path) -> tuple[str, str]:
    """The report that is there, as HTML and as Markdown."""
    html, text = (
        (run / "report" / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")
    )
    return html, text


class _Page(HTMLParser):
    """What a browser would make of a page: its elements, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def run_command(*argv: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(command, argv)
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_every_file_is_there_whole_and_nothing_else(reported: Path) -> None:
    folder = reported / "report"
    expected = {"report.html", "report.md", "trials.parquet", "epochs.parquet", "trials.csv"}
    pictures = {path.stem for path in folder.glob("*.svg")}
    assert {"losses", "history"} <= pictures
    expected |= {f"{name}.{kind}" for name in pictures for kind in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == expected
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert b"</svg>" in (folder / "losses.svg").read_bytes()


def test_tables_are_those_of_the_results_and_name_their_format(reported: Path) -> None:
    folder = reported / "report"
    results = load_run(reported)
    for name, table in (("trials", results.trials), ("epochs", results.epochs)):
        stored = pyarrow.parquet.read_table(folder / f"{name}.parquet")
        assert stored.equals(table)
        assert stored.schema.metadata[b"format_version"] == b"1"
        assert name.encode() in stored.schema.metadata[b"table"]
    csv = pyarrow.csv.read_csv(folder / "trials.csv")
    assert csv.column_names == results.trials.column_names
    assert csv["ap"].to_pylist() == results.trials["ap"].to_pylist()


def test_the_page_needs_no_network_and_runs_nothing(reported: Path) -> None:
    page = _Page(written(reported)[0])
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "base", "form"}
    images = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert len(images) == len(list((reported / "report").glob("*.svg"))) >= 4
    assert all(source.startswith("data:image/") for source in images)
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    links = [attributes["href"] or "" for _, attributes in page.tags if "href" in attributes]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert len(links) > 5
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_names_from_data_are_shown_and_never_markup(copy: Path) -> None:
    name = "<script>alert('run')</script> | *x* [y](z)"
    set_info(copy, name=name, versions={"<img src=x onerror=alert(1)>": "1"})
    html, text = texts(copy)
    page = _Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert name in page.text
    assert "ValueError: <script>alert(1)</script> | `x`" in page.text
    assert all(attributes.get("src", "").startswith("data:") for tag, attributes in page.tags if tag == "img")  # type: ignore[union-attr]
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "<" not in prose.replace("&lt;", "")
    assert "&lt;script&gt;alert('run')&lt;/script&gt; \\| \\*x\\* \\[y\\](z)" in prose
    assert "&lt;script&gt;alert(1)&lt;/script&gt; \\| \\`x\\`" in prose


def test_markdown_tables_have_as_many_cells_as_headings(reported: Path, reported_sweep: Path) -> None:
    for run in (reported, reported_sweep):
        lines = written(run)[1].splitlines()
        tables = [index for index, line in enumerate(lines) if re.fullmatch(r"\|(---:?\|)+", line)]
        assert len(tables) >= 4
        for index in tables:
            columns = lines[index].count("|")
            rows = [lines[index - 1]]
            for line in lines[index + 1 :]:
                if not line.startswith("|"):
                    break
                rows.append(line)
            assert len(rows) > 1
            assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {columns}


def test_the_headline_is_the_refit_as_scikit_learn_measures_it(
    reported: Path, demo_store: FeatureStore
) -> None:
    html, text = written(reported)
    labels = demo_store.test_labels().frame_labels
    step, trapezoid = [], []
    for seed in (0, 1):
        scores = np.load(reported / f"refit/seed{seed}/checkpoint_000001/scores.npz")["last"]
        frames = np.repeat(scores, 16)
        precision, recall, _ = precision_recall_curve(labels, frames)
        step.append(average_precision_score(labels, frames))
        trapezoid.append(auc(recall, precision))
    for values, name in ((step, "step-wise"), (trapezoid, "trapezoidal")):
        number = f"{percent(float(np.mean(values)))} ({percent(values[0])} and {percent(values[1])}) %"
        assert number in html, name
        (line,) = [line for line in text.splitlines() if line.startswith(f"- AP, {name}")]
        for pattern in (
            "protocol refit",
            "last epoch",
            "2 seeds, both values: an interval needs three or more",
            "published definition|scikit-learn",
        ):
            assert re.search(pattern, line)
    for entry in (*step, *trapezoid):
        assert percent(entry) in html


def test_every_table_with_an_ap_says_what_it_is(reported: Path, reported_sweep: Path) -> None:
    for run, protocol, rule, seeds in (
        (reported, "heldout", "chosen epoch", "one seed, no interval"),
        (reported_sweep, "published", "last epoch", "up to 3 seeds a row"),
    ):
        html = written(run)[0]
        captions = re.findall(r'<p class="caption">(.*?)</p>', html, re.DOTALL)
        matching = [text for text in captions if protocol in text and rule in text and seeds in text]
        assert matching, captions
        assert "Trapezoidal" in html
        assert "Step-wise" in html


def test_what_was_not_measured_is_a_dash(copy: Path) -> None:
    write_report(copy, labels="closed", figures=False)
    assert not (copy / ACCESS_LOG).exists()
    table = leaderboard_table(load_run(copy))
    assert table is not None
    columns = [index for index, column in enumerate(table.columns) if column.group.startswith("Test AP")]
    assert columns
    assert {row[index] for row in table.rows for index in columns} == {NOT_MEASURED}
    html = (copy / "report/report.html").read_text()
    assert "not measured" in html
    assert "the test labels stay closed" in html
    assert "The test labels have not been opened." in html


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ("running", "Still running: what follows is partial"),
        (
            "interrupted",
            "Interrupted: what follows is partial. Go on with: ",
        ),
        ("failed", "The run failed: what follows is partial."),
    ],
)
def test_a_partial_run_says_so_first(copy: Path, status: str, message: str) -> None:
    set_info(copy, status=status)
    html, text = texts(copy)
    assert message in _Page(html).text
    assert message in text.replace("\\", "")
    with from_any_folder():
        go_on = resume_command(str(copy), None)
    assert (go_on in _Page(html).text) == (status == "interrupted")
    assert html.index(message.split(":")[0]) < html.index("<h2")
    # Whoever goes on with a run after looking at its test metrics would choose on the test set.
    assert (copy / ACCESS_LOG).exists() == (status == "failed")
    assert "2 of 4 trials failed" in html or status == "running"


def test_labels_can_be_opened_early_and_the_second_access_shows(copy: Path, demo_store: FeatureStore) -> None:
    set_info(copy, status="running")
    write_report(copy, labels="open", figures=False)
    assert "opened once" in (copy / "report/report.html").read_text()
    set_info(copy, status="finished")
    assert "opened once" in texts(copy)[0], "the same scores need no second opening"
    run = RunFolder(copy, demo_store, "heldout")
    run.add("0009", "stopped", 1)
    html = texts(copy)[0]
    assert "opened 2 times, on 2 different sets of scores" in html
    assert len((copy / ACCESS_LOG).read_text().splitlines()) == 2


def test_without_store_or_labels_the_report_comes_without_test_metrics(copy: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"data": str(tmp_path / "gone")}, "does not exist"),
        ({"data": None}, "does not say where the converted data lie"),
        ({"data": read_json(copy / "run.json")["data"], "store_hash": "0" * 32}, "not the data this run"),
    ):
        set_info(copy, **changes)
        html, text = texts(copy)
        assert "test metrics are absent" in html
        assert message in html
        assert message in text
        assert not (copy / ACCESS_LOG).exists()


def test_what_the_data_rest_on_stands_before_any_number(copy: Path) -> None:
    set_info(copy, data_notes=["gt.npy: the order is assumed", "each of the 24 training videos is alone"])
    html, text = texts(copy)
    for message in (
        "About the data: gt.npy: the order is assumed.",
        "About the data: each of the 24 training videos is alone.",
    ):
        assert message in _Page(html).text
        assert message in text.replace("\\", "")
    assert html.index("is alone.") < html.index("<h2")
    # As a version that noted nothing left it.
    info = read_json(copy / "run.json")
    del info["data_notes"]
    write_json_atomic(copy / "run.json", info)
    assert "did not note what the test labels and the split rest on" in texts(copy)[0]


def test_an_empty_run_has_a_report(tmp_path: Path, demo_store: FeatureStore) -> None:
    RunFolder(tmp_path / "empty", demo_store).begin("running", trials=3)
    html, text = texts(tmp_path / "empty")
    for content in (html, text):
        assert "No trial has a selection score yet." in content
        assert "3 of 3 trials have not started" in content
        assert "No trial has a result to replay yet." in content
    (tmp_path / "bare/trials").mkdir(parents=True)
    assert "run.json is missing" in texts(tmp_path / "bare")[0]


def test_a_sweep_stands_beside_the_paper_in_its_order(reported_sweep: Path) -> None:
    results = load_run(reported_sweep)
    rows = {row["trial_dir"]: row for row in results.trials.to_pylist()}
    table = sweep_table(results)
    assert table is not None
    assert [row[0] for row in table.rows] == [name for name, _, _ in ROWS]
    cells = [dict(zip([(c.group, c.title) for c in table.columns], row, strict=True)) for row in table.rows]
    for group, column in (
        ("Test AP (%), last epoch", "ap_trapezoid"),
        ("Best test epoch", "ap_trapezoid_best"),
    ):
        values = [rows[f"trials/a-{seed}"][column] for seed in (0, 1, 2)]
        low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
        expected = f"{percent(float(np.mean(values)))} [{percent(low)}, {percent(high)}]"
        assert cells[0][(group, "Trapezoidal")] == expected
        # One of the two seeds failed: it is shown, it does not shrink the mean, and one seed has no interval.
        assert cells[1][(group, "Trapezoidal")] == f"{percent(rows['trials/b-0'][column])} †"
    assert cells[1][("", "Seeds")] == "1/3 †, 1 failed, 1 not started"
    assert [cell[("Paper (one seed)", "AP (%)")] for cell in cells] == ["71.37", "83.40"]
    best = float(np.mean([rows[f"trials/a-{seed}"]["ap_trapezoid_best"] for seed in (0, 1, 2)]))
    difference = f"{100 * best - 71.37:+.2f}".replace("-", "−")
    assert cells[0][("Paper (one seed)", "Difference")].startswith(f"{difference} [")
    html, text = written(reported_sweep)
    assert "a|b $x$ <i>" in _Page(html).text
    assert "chosen on the test set" in html
    assert "Table 3 of the paper" in text


def test_a_published_search_shows_the_last_epoch_first_and_labels_the_best(
    demo_store: FeatureStore, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "published", demo_store, "published").begin(trials=1)
    run.add("0000", epochs=2)
    edit_report(run.path / "trials/0000", 1, ap_trapezoid=0.97, ap=0.96)
    html, text = texts(run.path)
    (row,) = load_run(run.path).trials.to_pylist()
    tiles = [line for line in text.splitlines() if line.startswith("- AP, ")]
    shown = [line.split("**")[1].replace("\\", "").split(" ")[0] for line in tiles]
    assert shown == [percent(row[name]) for name in ("ap_trapezoid", "ap", "ap_trapezoid_best")]
    assert all("protocol published" in line and "one seed" in line for line in tiles)
    assert ["bootstrap interval over the 10 test videos" in line for line in tiles] == [True, True, False]
    assert "last epoch" in tiles[0]
    assert "the published convention" in tiles[2]
    assert "97.00 %" in tiles[2]
    assert f"epoch {row['best_epoch']} chosen on the test set, which flatters" in html
    assert "None logged" in html
    assert not (run.path / ACCESS_LOG).exists()


def test_a_published_constant_moves_no_measured_number(copied_sweep: Path) -> None:
    before = sweep_rows(load_run(copied_sweep))
    plan: dict[str, Any] = read_json(copied_sweep / "plan.json")
    plan["rows"][0]["published_ap"] = 12.34
    write_json_atomic(copied_sweep / "plan.json", plan)
    after = sweep_rows(load_run(copied_sweep))
    for old, new in zip(before, after, strict=True):
        assert old.trials == new.trials
        assert old.estimate("ap_trapezoid_best") == new.estimate("ap_trapezoid_best")
    assert after[0].published == 12.34


def test_the_replay_command_and_the_digits_it_must_give(reported: Path) -> None:
    html, text = written(reported)
    rows = {row["trial_dir"]: row for row in load_run(reported).trials.to_pylist()}
    with from_any_folder():
        command = replay_command(str(reported), "refit/seed0")
    assert command in text
    assert command in html
    for name in ("ap", "ap_trapezoid"):
        assert repr(rows["refit/seed0"][name]) in html
        assert repr(rows["refit/seed0"][name]) in text


def test_the_record_of_the_run_is_in_the_report(reported: Path) -> None:
    text = written(reported)[1].replace("\\", "")
    info = read_json(reported / "run.json")
    for entry in (info["store_hash"], info["labels_hash"], "versions.ray", "tune/search.py", "torch_version"):
        assert str(entry) in text
    label_accesses = [json.loads(line) for line in (reported / ACCESS_LOG).read_text().splitlines()]
    assert label_accesses[0]["time"] in text


def test_the_command_writes_from_any_folder_as_a_script(reported: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPORT_SCRIPT), "search", "--storage", str(reported.parent), "--no-figures"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(reported / "report/report.html") in done.stdout


def test_commands_on_a_page_are_pasted_from_any_folder(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv/bin/python"))
    monkeypatch.chdir(ROOT)
    write_report(copy, figures=False)
    other = Path(shutil.copytree(copy, tmp_path / "other"))
    _, page, _ = write_reports([copy, other], out=os.path.relpath(tmp_path / "both"), figures=False)
    assert page is not None
    for markdown_file in (copy / "report/report.md", page.with_suffix(".md")):
        lines = [line for line in markdown_file.read_text().splitlines() if line.startswith("    /")]
        assert len(lines) >= 2
        for line in lines:
            program, script, *paths = shlex.split(line)
            assert (program, script.startswith(f"{ROOT}/tune/")) == (f"{ROOT}/.venv/bin/python", True)
            assert all(Path(path).is_absolute() for path in paths if str(tmp_path.name) in path)


def test_bad_input_is_one_line_and_a_status(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (copy / "report").write_text("in the way")
    cases = [
        (["missing", "--storage", str(tmp_path)], 2, "no run 'missing'"),
        ([str(tmp_path / "file")], 2, "is a file; expected the folder of a run"),
        ([str(tmp_path / "folder")], 1, "is not a run"),
        ([str(copy)], 2, "cannot write"),
        ([str(copy), "--nonsense"], 2, "No such option"),
        ([], 2, "Missing argument"),
    ]
    for argv, status, message in cases:
        assert run_command(*argv) == status, argv
        printed = capsys.readouterr()
        assert message in printed.err
        assert "Traceback" not in printed.err
    assert run_command(str(tmp_path / "folder"), "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interval_is_the_t_interval_and_needs_three_seeds() -> None:
    assert estimate([]) is None
    assert estimate([None]) is None
    assert estimate([0.5, None]) == Estimate(1, 0.5)
    assert estimate([0.5, 0.5]) == Estimate(2, 0.5, 0.0, values=(0.5, 0.5))
    assert estimate([0.5, 0.5, 0.5]) == Estimate(3, 0.5, 0.0, 0.5, 0.5)
    found = estimate([0.80, 0.82, 0.84])
    assert found is not None
    assert found.deviation == pytest.approx(0.02)
    # t(0.975, 2 degrees of freedom) = 4.30265, from any table
    assert (found.low, found.high) == pytest.approx(
        (0.82 - 4.30265 * 0.02 / 3**0.5, 0.82 + 4.30265 * 0.02 / 3**0.5)
    )


def test_numbers_are_written_for_people() -> None:
    assert [value(x) for x in (0.0004, 8e-5, 1.5, 128, True, None, 3.0)] == [
        "0.0004",
        "0.00008",
        "1.5",
        "128",
        "yes",
        "—",
        "3",
    ]
    assert [percent(x) for x in (None, 0.834, 1.0)] == ["—", "83.40", "100.00"]
    assert [duration(x) for x in (None, 2.34, 75, 600, 7500)] == [
        "—",
        "2.3 s",
        "75 s",
        "10 min",
        "2 h 05 min",
    ]


def test_a_figure_without_data_is_not_drawn_and_names_are_no_mathematics(tmp_path: Path) -> None:
    (trial,) = trial_rows([{"trial_dir": "trials/t"}])
    groups = [Group(r"$\frac{a}{$ <b> \x00", (trial,))]
    losses_of = [(1, 0.5), (2, 0.25)]
    rows = epoch_rows({"trial_id": trial.trial_id, "epoch": n, "loss_mil": loss} for n, loss in losses_of)
    epochs = {trial.key: rows}
    drawing = Drawing("t", "c", "a", lambda: draw(groups, epochs, "loss_mil", "a $ b"))
    drawn = save_drawing(drawing, tmp_path, "f")
    assert drawn is not None
    first = drawn.svg.read_bytes()
    again = save_drawing(drawing, tmp_path, "f")
    assert again is not None
    assert again.svg.read_bytes() == first
    empty = Drawing("t", "c", "a", lambda: draw(groups, {}, "loss_mil", "y"))
    assert save_drawing(empty, tmp_path, "g") is None
    assert not (tmp_path / "g.png").exists()


def test_a_template_that_misses_a_value_fails_loudly() -> None:
    with pytest.raises(Exception, match="no attribute"):
        markdown({"title": "x"})  # type: ignore[arg-type]
