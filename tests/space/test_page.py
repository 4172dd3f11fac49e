"""The page's handlers without a browser: sixty odd files, and what becomes of good ones."""

import re
import warnings
from pathlib import Path

import pytest
from native_files import write_desi, write_sdss
from odd_files import MARKUP, odd_files


gradio = pytest.importorskip("gradio", reason="the page needs gradio: pip install -c constraints.txt -e .[space]")
pytest.importorskip("plotly", reason="the page needs plotly: pip install -c constraints.txt -e .[space]")

import words  # noqa: E402
from loading import load_models  # noqa: E402
from page import Page, safe_name  # noqa: E402
from settings import Settings  # noqa: E402


SPEC = "spec-0001-55555-0007.fits"


@pytest.fixture(scope="module")
def page(saved_models, reference, reader):
    heads = tuple(str(saved_models[name]) for name in ("classes", "redshift"))
    settings = Settings(str(saved_models["model"]), heads, str(reference))
    return Page(settings, load_models(settings), reader, {})


def drop(page, folder: Path, *files: tuple[str, bytes]) -> dict:
    """What the page answers to files dropped together; they are gone afterwards."""
    uploads = []
    for number, (name, content) in enumerate(files):
        path = folder / f"upload-{number}" / "file"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        uploads.append((str(path), name))
    answer = page.receive(uploads)
    assert not any(Path(path).exists() or Path(path).parent.exists() for path, _ in uploads)
    return answer


def text_of(answer: dict, part) -> str:
    """What stands on the page, as plain text."""
    return re.sub(r"<[^>]*>", " ", answer[part])


# One test each would start the same processes seventy times over.
def test_every_odd_file_gets_a_message_and_the_page_stays_up(page, tmp_path):
    sign = tmp_path / "unpickled"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = odd_files(tmp_path, sign)
    assert len(files) >= 50
    wrong = {}
    for number, (what, (name, content)) in enumerate(files.items()):
        answer = drop(page, tmp_path / f"{number}", (name, content))
        said, has_rows = text_of(answer, page.recognised), bool(answer[page.rows])
        print(f"{what} | {' '.join(said.split())}")  # pytest -s shows what the page says
        is_told = has_rows or "ound" in said and "expected" in said or "left out" in said or "was stopped" in said
        is_leaking = "Traceback" in said or "in the log" in said or str(tmp_path) in said or "/tmp" in said
        if not is_told or is_leaking or answer[page.results]["visible"] != has_rows:
            wrong[what] = said
    assert not wrong
    assert not sign.exists()  # nothing was unpickled
    good = write_sdss(tmp_path / "good.fits").read_bytes()
    assert len(drop(page, tmp_path / "last", (SPEC, good))[page.rows]) == 1


def test_a_good_file_is_drawn_with_numbers_labels_and_neighbours(page, tmp_path):
    answer = drop(page, tmp_path, (SPEC, write_sdss(tmp_path / "a.fits", **{"CLASS": "QSO", "Z": 0.5}).read_bytes()))
    names = {trace.name for trace in answer[page.plot].data}
    assert {"flux", "± error", "model", "residual"} <= names and "straight lines" not in names
    assert "visible pixels, model" in answer[page.numbers]
    assert "GALAXY" in answer[page.labels] and "0.5000" in answer[page.labels]
    assert answer[page.bins]["visible"] and answer[page.neighbours].count("<tr>") == 6
    assert answer[page.chosen]["visible"] is False and answer[page.upload] is None


def test_hiding(page, tmp_path):
    rows = drop(page, tmp_path, (SPEC, write_sdss(tmp_path / "a.fits", flux=range(1, 401)).read_bytes()))[page.rows]
    answer = page.hide_range(rows, 0, 3900, 4000)
    assert {"straight lines", "hidden"} <= {trace.name for trace in answer[page.plot].data}
    assert "hidden pixels, straight lines" in answer[page.numbers] and "3900 to 4000 Å" in answer[page.numbers]
    assert "nor how bright they are" in answer[page.numbers]
    assert answer[page.notice] == ""
    answer = page.hide_random(rows, 0)
    assert "hidden pixels, model" in answer[page.numbers] and answer[page.low] < answer[page.high]
    assert "Nothing is hidden" in page.hide_nothing(rows, 0)[page.numbers]


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [(None, 4000, "found nothing to 4000"), (4000, 3900, "smaller one first"), (1, 2, "goes from"), (1, 9e9, "whole")],
)
def test_ranges_that_cannot_be_hidden_are_told(page, tmp_path, low, high, message):
    rows = drop(page, tmp_path, (SPEC, write_sdss(tmp_path / "a.fits").read_bytes()))[page.rows]
    answer = page.hide_range(rows, 0, low, high)
    assert message.lower() in text_of(answer, page.notice).lower() and page.plot not in answer


def test_several_spectra_can_be_chosen(page, tmp_path):
    content = write_desi(tmp_path / "a.fits", [1 << 60, -5, 3 << 60]).read_bytes()
    answer = drop(page, tmp_path, ("coadd-1.fits", content))
    assert [place for _, place in answer[page.chosen]["choices"]] == [0, 1]
    assert answer[page.chosen]["visible"] and "negative TARGETID 1" in text_of(answer, page.recognised)
    first, second = (page.choose(answer[page.rows], place)[page.plot].data[1].y for place in (0, 1))
    assert not (first == second).all()


def test_the_same_name_twice_and_too_many_files(page, tmp_path):
    good = write_sdss(tmp_path / "a.fits").read_bytes()
    answer = drop(page, tmp_path / "1", (SPEC, good), (SPEC, good))
    assert len(answer[page.rows]) == 1 and "a fibre that another file holds too" in text_of(answer, page.recognised)
    answer = drop(page, tmp_path / "2", *[(f"{number}.fits", b"") for number in range(17)])
    assert "17 files; expected at most 16" in answer[page.recognised] and not answer[page.rows]


def test_names_are_escaped(page, tmp_path):
    good = write_sdss(tmp_path / "a.fits").read_bytes()
    for name in (f"{MARKUP}.fits", "{{constructor}}${7*7}`.fits"):
        said = drop(page, tmp_path / str(len(name)), (name, good))[page.recognised]
        assert "<img" not in said and "${" not in said and "{{" not in said
    assert words.escape("<b>${a}") == "&lt;b&gt;&#36;&#123;a&#125;"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "passwd"),
        ("a\\b.fits", "b.fits"),
        ("..", "file"),
        ("", "file"),
        ("a\n\0b", "ab"),
        ("x" * 300, "x" * 200),
    ],
)
def test_safe_names(name, safe):
    assert safe_name(name) == safe


def test_a_fault_of_the_page_is_told_without_a_traceback(page, monkeypatch):
    monkeypatch.setattr(page.reader, "read", lambda files: 1 / 0)
    monkeypatch.setattr(page, "examples", {"one": ["a"]})
    answer = page.receive_example("one")
    assert "in the log" in answer[page.recognised] and "ZeroDivision" not in answer[page.recognised]


def test_a_spectrum_that_no_model_can_see_is_told_of(page, tmp_path):
    content = write_sdss(tmp_path / "a.fits", ivar=[4.0, 0, 0, 0] * 16).read_bytes()
    said = text_of(drop(page, tmp_path, (SPEC, content)), page.recognised)
    assert "no patch of 32 pixels of which half are usable" in said


def test_without_a_model_files_are_still_recognised_and_drawn(page, tmp_path):
    bare = Page(Settings(), load_models(Settings()), page.reader, {})
    answer = drop(bare, tmp_path, (SPEC, write_sdss(tmp_path / "a.fits").read_bytes()))
    assert {trace.name for trace in answer[bare.plot].data} == {"± error", "flux"}
    assert "MODEL" in words.header(bare.models)


def test_examples_are_simulated_files_of_every_survey(page, tmp_path):
    from examples import make_examples

    examples = make_examples(tmp_path)
    surveys = {name.split(":")[0].lower() for name in examples}
    assert surveys == {"sdss", "desi", "galah", "apogee"} and all("(simulated)" in name for name in examples)
    page.examples = examples
    for name in {each.split(":")[0]: each for each in examples}.values():
        answer = page.receive_example(name)
        assert answer[page.rows] and "simulated" in text_of(answer, page.recognised), name
