"""Conversions and reports killed with SIGKILL at many points: the next start finishes, and says what it found."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from macil.data import FeatureStore, convert, resolve, write_demo
from macil.data.store.verification import verify_store
from macil.io.files import read_json
from tests.support.faults import DIE, MACIL, REPORT, SEARCH, contents, half_written, pause, run, start
from tests.support.run_folders import RunFolder
from tune.results.label_access import read_label_accesses

pytestmark = pytest.mark.nightly

VIDEOS = 34  # of the demo of the tests

FILES = 6  # of a video: five crops and the audio

# Every video is kept at once, not only after many megabytes.
KEEP = "import macil.data.store.writer; macil.data.store.writer._COMMIT_BYTES = 1"


def pause_converting(videos: int, go: Path | None = None) -> str:
    """Code that holds a conversion after so many videos."""
    return KEEP + pause("macil.data.store.writer:load_features", FILES * videos, go)


def pause_demo(videos: int, go: Path | None = None, *, draws: str = "generator:DemoGenerator") -> str:
    """Code that holds the making of a demo, the generated one or another, after so many videos."""
    return pause(f"macil.data.demo.{draws}.draw", videos, go)


MODULES = """
import importlib
convert, writer, folders = map(importlib.import_module, ("macil.data.store.conversion", "macil.data.store.writer",
"macil.io.folders"))
"""

DIE_AT_THE_NAME = """
replace = os.replace
os.replace = lambda a, b: die() if str(a).endswith(".partial") else replace(a, b)
"""

# Places of a conversion between which a kill is hardest to be taken up after.
MOMENTS = {
    "before the journal": "writer.StoreWriter._write_journal = die",
    "before the tables": "convert._write_index = die",
    "between the tables and meta.json": "convert.forget = die",
    "before its name": "convert._publish = die",
    "when only the name is missing": DIE_AT_THE_NAME,
    "before it tidies up": "folders.remove_replaced = die",
}

DEMO = ["--train-videos", 12, "--test-videos", 8, "--visual-dim", 64, "--audio-dim", 16]


def finished(partial: Path) -> int:
    journal = partial / "journal.jsonl"
    return len(journal.read_text().splitlines()) - 1 if journal.exists() else -1


def taken_up(output: str, what: str) -> int:
    """The video at which the process says it goes on."""
    found = re.search(rf"note: taking up {what} at video (\d+) of \d+", output)
    assert found, output
    return int(found.group(1))


@pytest.fixture(scope="module")
def undisturbed(demo_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(demo_layout, tmp_path_factory.mktemp("undisturbed") / "store")


@pytest.mark.parametrize("videos", [0, 1, 9, 21, 33])
def test_a_conversion_killed_after_some_videos_goes_on_there_and_says_so(
    videos: int, demo_layout: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, partial = tmp_path / "store", tmp_path / "store.partial"
    command = start(MACIL, "convert", demo_layout, out, logs=tmp_path, before=pause_converting(videos))
    command.kill_when(lambda: finished(partial) == videos)
    assert videos < VIDEOS
    assert not out.exists()

    ended = run(MACIL, "convert", demo_layout, out, logs=tmp_path).done()
    expected = f"note: taking up the conversion at video {videos + 1} of {VIDEOS} ({demo_layout})"
    if videos == 0:
        expected = "note: an earlier conversion was cut short before a video of it was kept; beginning anew"
    assert expected in ended.err
    assert contents(out) == contents(undisturbed)
    assert half_written(tmp_path) == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("replacing", [False, True])
def test_a_conversion_killed_between_two_steps_is_finished_by_the_next(
    moment: str, replacing: bool, demo_layout: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    flags = ["--overwrite"] if replacing else []
    if replacing:
        convert(demo_layout, out, dtype="float16")
    run(
        MACIL, "convert", demo_layout, out, *flags, logs=tmp_path, before=f"{DIE}{MODULES}{MOMENTS[moment]}"
    ).killed()

    ended = run(MACIL, "convert", demo_layout, out, *flags, logs=tmp_path).done()
    message = {
        "before the journal": "",
        "before it tidies up": "",
        "when only the name is missing": "finished but for its name",
    }.get(moment, f"taking up the conversion: all {VIDEOS} videos are there")
    assert message in ended.err
    assert contents(out) == contents(undisturbed)
    assert half_written(tmp_path) == []


def test_what_a_killed_conversion_left_damaged_is_converted_again(
    demo_layout: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A flipped bit in the rows, in the journal's hashes and a line cut short cost these videos, and nothing else."""
    out, partial = tmp_path / "store", tmp_path / "store.partial"
    command = start(MACIL, "convert", demo_layout, out, logs=tmp_path, before=pause_converting(12))
    command.kill_when(lambda: finished(partial) == 12)
    journal = partial / "journal.jsonl"
    lines = journal.read_text().splitlines()
    lines[3] = re.sub(r'"digest": ".', '"digest": "x', lines[3])
    lines[5] = lines[5].replace('"video"', '"vidfo"')
    journal.write_text("\n".join(lines)[:-20])
    with (partial / "visual.arrow").open("r+b") as file:  # in the rows of the first videos
        file.seek(5000)
        file.write(b"\xff")

    ended = run(MACIL, "convert", demo_layout, out, logs=tmp_path).done()
    assert "2 that it had finished are not what was written and are converted again" in ended.err
    assert contents(out) == contents(undisturbed)


def test_a_conversion_killed_twice_after_half_a_line_keeps_all_that_was_finished(
    demo_layout: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, partial = tmp_path / "store", tmp_path / "store.partial"
    for kept in (0, 10, 20):
        command = start(MACIL, "convert", demo_layout, out, logs=tmp_path, before=pause_converting(10))
        command.kill_when(lambda: finished(partial) == kept + 10)  # noqa: B023 (called at once)
        with (partial / "journal.jsonl").open("a") as journal:
            journal.write('{"video": 3, "sig')
    ended = run(MACIL, "convert", demo_layout, out, logs=tmp_path).done()
    assert taken_up(ended.err, "the conversion") == 31
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize("name", ["visual.arrow", "audio.arrow"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_killed_conversion_without_its_files_is_made_anew_and_says_why(
    name: str, damage: str, demo_layout: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, partial = tmp_path / "store", tmp_path / "store.partial"
    command = start(MACIL, "convert", demo_layout, out, logs=tmp_path, before=pause_converting(5))
    command.kill_when(lambda: finished(partial) == 5)
    path = partial / name
    path.write_bytes(path.read_bytes()[:3000]) if damage == "truncated" else path.unlink()

    ended = run(MACIL, "convert", demo_layout, out, logs=tmp_path).done()
    assert f"what an earlier conversion left in {partial} is damaged" in ended.err
    assert contents(out) == contents(undisturbed)


@pytest.mark.parametrize("videos", [1, 7, 15])
def test_a_demo_killed_while_it_is_made_goes_on_there_and_says_so(videos: int, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    audio = tmp_path / "demo.partial" / "vggish-features"
    command = start(MACIL, "demo", out, *DEMO, logs=tmp_path, before=pause_demo(videos))
    command.kill_when(lambda: len([*audio.glob("*/[!.]*")]) == videos)
    assert not out.exists()

    ended = run(MACIL, "demo", out, *DEMO, logs=tmp_path).done()
    assert f"note: taking up the demo at video {videos + 1} of 20" in ended.err
    sizes = {
        str(name).removeprefix("--").replace("-", "_"): size
        for name, size in zip(DEMO[::2], DEMO[1::2], strict=True)
    }
    assert contents(out) == contents(write_demo(tmp_path / "other", **sizes))  # type: ignore[arg-type]
    assert half_written(tmp_path) == []


@pytest.mark.ray
def test_a_search_killed_while_the_demo_is_made_and_while_it_is_converted_finishes_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    small = ["--hidden-dim", 16, "--feedforward-dim", 16, "--trials", 1, "--epochs", 1]
    environment = {"MACIL_CACHE": str(cache)}
    begin = ["--name", "x", "--storage", tmp_path / "runs", *small]
    resume = ["--resume", "x", "--storage", tmp_path / "runs"]

    command = start(
        SEARCH, *begin, logs=tmp_path, before=pause_demo(30, draws="digits:DigitsDemo"), **environment
    )
    command.kill_when(lambda: len([*cache.glob("demo-*.layout.partial/vggish-features/*/[!.]*")]) == 30)
    assert not [*cache.glob("demo-*.layout")]

    command = start(SEARCH, *resume, logs=tmp_path, before=pause_converting(30), **environment)
    command.kill_when(lambda: any(finished(partial) == 30 for partial in cache.glob("demo-*.partial")))
    assert taken_up(command.err.read_text(), "the demo") == 31
    assert not [path for path in cache.glob("demo-*") if (path / "meta.json").exists()]

    ended = run(SEARCH, *resume, logs=tmp_path, **environment).done()
    assert "the demo was written already, by a process that was killed" in ended.err
    assert taken_up(ended.err, "the conversion") == 31
    (store,) = cache.iterdir()
    assert verify_store(store) == []
    assert FeatureStore.open(store).content_hash == resolve(None).content_hash
    info = read_json(tmp_path / "runs/x/run.json")
    assert (info["status"], info["store_hash"]) == ("finished", resolve(None).content_hash)
    assert len([*(tmp_path / "runs/x/trials").glob("*/result.json")]) == 1


# Where a report is held, and what is new by then: nothing, a table, ...
REPORTS: dict[str, tuple[str, str | None]] = {
    "begun": (pause("tune.reporting.write:_with_labels", 0), None),
    "a table is new": (pause("tune.reporting.write:write_table", 1), "trials.parquet"),
    "all tables are new": (pause("tune.reporting.write:run_page", 0), "trials.csv"),
    "two figures are new": (pause("tune.reporting.figures.catalogue:save_drawing", 2), "*.svg"),
    "the text is new": (pause("tune.reporting.pages.rendering:html", 0), "report.md"),
}
DRAWN = ("two figures are new", "the text is new")


def is_begun(folder: Path) -> bool:
    """Whether the mark is signed; what was killed before that had written nothing."""
    mark = folder / ".writing"
    return mark.exists() and mark.stat().st_size > 0


def is_new(folder: Path, old: dict[str, int], pattern: str) -> bool:
    return any(path.stat().st_ino != old.get(path.name) for path in folder.glob(pattern))


@pytest.fixture(scope="module")
def searched(demo_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of three trials and a refit, without a report; read only."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "search", demo_store, "heldout").begin(trials=3)
    for number, value in enumerate((0.5, 1.0, 2.0)):
        folder.add(f"0000{number}", lambda_v2b=value)
    folder.add("seed0", kind="refit", epochs=2)
    return folder.path


@pytest.fixture
def copy(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "runs" / "search"))


@pytest.fixture(scope="module")
def complete(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the run, written without a disturbance."""
    logs = tmp_path_factory.mktemp("complete")
    target = Path(shutil.copytree(searched, logs / "runs" / "search"))
    run(REPORT, target, logs=logs).done()
    return target / "report"


def require_whole(folder: Path) -> None:
    """Every file that has its name is what its name says, to its end."""
    for path in folder.iterdir():
        if path.suffix == ".parquet":
            assert pyarrow.parquet.read_table(path).num_rows > 0
        elif path.suffix == ".csv":
            assert pyarrow.csv.read_csv(path).num_rows > 0
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".svg":
            ElementTree.parse(path)
        elif path.name == "report.html":
            assert path.read_text().rstrip().endswith("</html>")
        elif path.suffix == ".json":
            read_json(path)


def words(page: Path) -> list[str]:
    """A report without what differs from one writing to the next: times, paths, hashes of openings."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:+]+", "TIME", page.read_text())
    return [line for line in text.splitlines() if "/runs/search" not in line]


@pytest.mark.parametrize(
    ("point", "earlier"),
    [("begun", False), ("two figures are new", False), *((point, True) for point in REPORTS)],
)
def test_a_report_killed_while_it_is_written_leaves_only_whole_files_and_is_written_again(
    point: str, earlier: bool, copy: Path, complete: Path, tmp_path: Path
) -> None:
    folder = copy / "report"
    drawn = point in DRAWN
    code, pattern = REPORTS[point]
    arguments = [copy] if drawn else [copy, "--no-figures"]
    if earlier:
        run(REPORT, *arguments, logs=tmp_path).done()
    old = {path.name: path.stat().st_ino for path in folder.glob("*")}
    page = (folder / "report.html").read_bytes() if earlier else None

    command = start(REPORT, *arguments, logs=tmp_path, before=code)
    command.kill_when(lambda: is_new(folder, old, pattern) if pattern else is_begun(folder))
    assert (folder / ".writing").exists()
    require_whole(folder)
    if earlier:
        assert (folder / "report.html").read_bytes() == page, (
            "the older page stays until the new one is whole"
        )
    else:
        assert not (folder / "report.html").exists(), "the page comes last"

    ended = run(REPORT, *arguments, logs=tmp_path).done()
    assert "note: an earlier report was cut short; writing it again" in ended.err
    require_whole(folder)
    expected = {path.name for path in complete.iterdir() if drawn or path.suffix not in (".png", ".svg")}
    assert {path.name for path in folder.iterdir()} == expected
    assert half_written(copy) == []
    # What was read of the labels was logged, whatever became of it.
    label_accesses = len(read_label_accesses(copy, []))
    assert label_accesses in (1, 2)
    if drawn and label_accesses == 1:
        assert words(folder / "report.md") == words(complete / "report.md")


HALF = """
import os, signal, pathlib
write = pathlib.Path.write_text
def half(self, text, **named):
    if self.name.startswith(".report.html."):
        write(self, text[: len(text) // 2], **named)
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, text, **named)
pathlib.Path.write_text = half
"""


def test_half_a_page_never_gets_the_name_of_a_report(copy: Path, tmp_path: Path) -> None:
    run(REPORT, copy, "--no-figures", logs=tmp_path, before=HALF).killed()
    folder = copy / "report"
    (left,) = folder.glob(".report.html.*.tmp")
    assert left.stat().st_size > 1000
    assert not (folder / "report.html").exists()
    ended = run(REPORT, copy, "--no-figures", logs=tmp_path).done()
    assert "an earlier report was cut short" in ended.err
    assert not left.exists()
    require_whole(folder)
    assert "cut short" not in run(REPORT, copy, "--no-figures", logs=tmp_path).done().err


def test_a_report_waits_for_another_one_and_opens_no_label_twice(copy: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    held = pause("tune.reporting.write:_with_labels", 0, go)
    first = start(REPORT, copy, "--no-figures", logs=tmp_path, before=held)
    first.wait_for(lambda: (copy / "report" / ".writing").exists())
    other = start(REPORT, copy, "--no-figures", logs=tmp_path)
    other.wait_for(lambda: "waiting for it" in other.err.read_text())
    assert first.process.poll() is None
    go.touch()
    second = other.finish().done()
    first.finish().done()
    assert f"another process is writing {copy / 'report'}; waiting for it" in second.err
    assert "cut short" not in second.err
    assert len(read_label_accesses(copy, [])) == 1
    assert pyarrow.parquet.read_table(copy / "report/trials.parquet")["ap"].null_count == 0
