"""Chapters become notebooks: reproducibly, completely, or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext", reason="the book's packages are missing: make .venv/.book")
import nbformat  # noqa: E402

from nodelib.publish import render  # noqa: E402
from nodelib.publish.render import RenderError  # noqa: E402

HEAD = """---
jupytext:
  formats: md:myst,ipynb
  notebook_metadata_filter: nodelib
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
    jupytext_version: 1.19.6
kernelspec:
  display_name: Python 3
  language: python
  name: python3
nodelib:
  inputs: [%s]
---

# A question?

```{code-cell} ipython3
:tags: [parameters, remove-cell]

scale = "full"
steps = 3
```

"""
PAGES = [path for path, _ in render.pages()]


@pytest.fixture
def chapter(tmp_path):
    """A function that writes a chapter with one more code cell, in a folder of its own."""
    def write(code: str, inputs: str = "", text: str = "") -> Path:
        path = tmp_path / "book" / "00-chapter.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(HEAD % inputs + f"```{{code-cell}} ipython3\n{code}\n```\n{text}")
        return path
    return write


@pytest.mark.parametrize("path, parameters", render.pages(), ids=lambda value: getattr(value, "stem", None) or
                         (value.get("run", "") if isinstance(value, dict) else None))
def test_the_pairs_are_equal(path, parameters):
    published = nbformat.read(render._target(path, None, parameters), as_version=4)
    prepared = render.prepare(path, parameters)
    assert render.same_cells(published, prepared), f"make book would execute {path.name} again"
    if not parameters:
        assert jupytext.writes(published, fmt="md:myst") == path.read_text()


@pytest.mark.parametrize("path", sorted(set(PAGES)), ids=lambda path: path.stem)
def test_text_halves_are_as_jupytext_writes_them(path):
    assert render.tidy_text(path) == path.read_text(), f"run: python -m nodelib render --tidy {path}"


@pytest.mark.parametrize("path, parameters", render.pages(), ids=lambda value: getattr(value, "stem", None) or
                         (value.get("run", "") if isinstance(value, dict) else None))
def test_published_notebooks_are_up_to_date_with_their_inputs(path, parameters):
    target = render._target(path, None, parameters)
    prepared = render.prepare(path, parameters)
    assert not render._changed(prepared, target), f"make book would execute {path.name} again"


@pytest.mark.parametrize("path, parameters", render.pages(), ids=lambda value: getattr(value, "stem", None) or
                         (value.get("run", "") if isinstance(value, dict) else None))
def test_published_notebooks_ran_from_top_to_bottom_without_error(path, parameters):
    notebook = nbformat.read(render._target(path, None, parameters), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]


def test_a_second_execution_changes_no_byte(chapter):
    path = chapter("import sys\nprint('one', flush=True)\nprint('two')\nprint(object())\nprint('noise' * 2, "
                   "file=sys.stderr)\n{'a': 1}")
    first = render.render(path)
    content = first.path.read_bytes()
    again = render.render(path, force=True)
    assert first.executed and again.executed
    assert again.path.read_bytes() == content
    assert b"one\\n" in content and b"noisenoise" not in content and b"0x..." in content


def test_jupytext_finds_the_published_pair_in_sync(chapter):
    path = chapter("print(steps)")
    target = render.render(path).path
    text, content = path.read_text(), target.read_bytes()
    for newer in (path, target):
        os.utime(newer, (os.path.getmtime(newer) + 10,) * 2)
        subprocess.run([sys.executable, "-m", "jupytext", "--sync", str(newer)], check=True,
                       capture_output=True)
        assert path.read_text() == text
        assert target.read_bytes() == content


def test_an_unchanged_chapter_is_not_executed_again(chapter, tmp_path):
    path = chapter(f"open({str(tmp_path / 'count')!r}, 'a').write('x')")
    assert [render.render(path).executed, render.render(path).executed] == [True, False]
    assert (tmp_path / "count").read_text() == "x"
    path.write_text(path.read_text().replace("A question?", "Another question?"))
    assert render.render(path).executed
    assert render.render(path, force=True).executed
    assert (tmp_path / "count").read_text() == "xxx"


def test_the_list_says_what_the_same_command_would_execute(chapter, tmp_path, capsys):
    path = chapter("print(steps)")
    render.render(path)
    for options, said in (([], "up to date"), (["--force"], "would be executed"),
                          (["--out", str(tmp_path / "out")], "would be executed")):
        assert render.main([str(path), "--list", *options]) == 0
        assert said in capsys.readouterr().out
    path.write_text(path.read_text() + "\nMore.\n")
    assert render.main([str(path), "--list"]) == 0 and "would be executed" in capsys.readouterr().out
    assert render.main([str(path), "--list", "--scale", "smoke"]) == 1  # as without --list
    assert "name a folder for it (--out)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_changed_input_executes_the_chapter_again(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "values.json").write_text("[1]")
    path = chapter("1 + 1", inputs="data/values.json")
    assert [render.render(path).executed, render.render(path).executed] == [True, False]
    (tmp_path / "data" / "values.json").write_text("[2]")
    assert render.render(path).executed


def test_a_changed_module_executes_the_chapters_that_import_it(chapter, tmp_path, monkeypatch):
    module = tmp_path / "nodelib" / "used.py"
    module.parent.mkdir()
    module.write_text("x = 1")
    monkeypatch.setattr(render, "ROOT", tmp_path)
    monkeypatch.setattr(render, "source_files", lambda code: [module] if "used" in code else [])
    digests = {}
    for text in ("x = 1", "x = 2"):
        module.write_text(text)
        for name in ("used", "other"):
            prepared = render.prepare(chapter(f"from nodelib import {name}"), {})
            digests[name, text] = prepared.metadata[render.RECORD]["digest"]
    assert digests["used", "x = 1"] != digests["used", "x = 2"]
    assert digests["other", "x = 1"] == digests["other", "x = 2"]


def test_ipython_commands_are_no_imports_and_broken_code_is_an_error(chapter):
    render.prepare(chapter("%matplotlib inline\nif True:\n    !ls\nfrom nodelib import book"), {})
    with pytest.raises(RenderError, match="is no Python"):
        render.prepare(chapter("from nodelib import"), {})


@pytest.mark.parametrize("inputs, message", [
    ("inputs: data/seed.json", "must be a list"), ("inputs: {data: seed.json}", "must be a list"),
                                             ("inputs: ['']", "is no input"),
    ("inputs: [/data]", "is no input"), ("inputs: [../data]", "is no input"), ("inputs: [.]", "is no input"),
                                             ("inputs: [3]", "is no input"),
    ("inputs: [nodelib/publish/table.py]", "found from its imports"),
                                             ("inputs: ['data/runs/{small-11}-seed0']",
                                              "declared input data/runs/{small-11}-seed0: .*'small-11'"),
])
def test_inputs_that_are_not_paths_of_data_are_refused(chapter, inputs, message):
    path = chapter("1")
    path.write_text(path.read_text().replace("inputs: []", inputs))
    with pytest.raises(RenderError, match=message):
        render.prepare(path, {})


def test_runs_are_declared_by_name_or_group_and_a_folder_of_any_name_may_hold_the_data(tmp_path, monkeypatch):
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path / "elsewhere"))
    for run in ("small-10-seed0", "small-10-seed1", "large-100-seed0", "resnet-6-seed0"):
        (tmp_path / "elsewhere" / "runs" / run).mkdir(parents=True)
        (tmp_path / "elsewhere" / "runs" / run / "metrics.csv").write_text("[]")

    def names(*declared):
        return [name.split("/")[2] for name, _ in render._input_files(list(declared))]

    assert names("data/runs/{rows}-seed0") == ["large-100-seed0", "small-10-seed0"]
    assert names("data/runs/{resnet-6,small-10}-seed*/*.csv", "data/runs/small-10-seed0") == [
        "resnet-6-seed0", "small-10-seed0", "small-10-seed1"]


@pytest.mark.parametrize("path", sorted(set(PAGES)), ids=lambda path: path.stem)
def test_every_declared_input_of_the_book_is_there(path):
    for declared in render._declared(jupytext.read(path), path):
        for pattern in render._runs_named(render._fill(declared, {"run": "small-10", "seed": 0})):
            assert list(render._input_files([pattern])) or pattern.startswith("data/runs/"), pattern


def test_a_missing_figure_executes_the_chapter_again(chapter):
    path = chapter("1 + 1", text="\n```{figure} figures/missing.svg\n:alt: nothing\n\nNothing.\n```\n")
    assert [render.render(path).executed, render.render(path).executed] == [True, True]


def test_a_missing_input_is_an_error(chapter):
    with pytest.raises(RenderError, match="data/nothing.json does not exist"):
        render.render(chapter("1", inputs="data/nothing.json"))


@pytest.mark.parametrize("code, message", [
    ("raise KeyError('lost')", "a cell failed"),
    ("import os\nos.kill(os.getpid(), 9)", "kernel|cell"),
    ("import os\nos._exit(0)", "kernel|cell"),
    ("from IPython.display import Image, display\nimport io, PIL.Image\nb = io.BytesIO()\nPIL.Image.new('L', "
     "(2, 2)).save(b, 'png')\ndisplay(Image(b.getvalue(), format='png'))",
     "no alternative text"),
    (f"print({str(render.ROOT)!r})", "a path of this machine"),
], ids=["failed cell", "killed kernel", "kernel that ends itself", "image without alternative text",
        "machine's path"])
@pytest.mark.fault("killed", "a chapter whose cell fails or whose kernel dies", "the old notebook stays")
def test_what_is_not_fit_to_publish_leaves_the_old_notebook(chapter, code, message):
    target = render.render(chapter("print('good')")).path
    content = target.read_bytes()
    with pytest.raises(RenderError, match=message):
        render.render(chapter(code))
    assert target.read_bytes() == content
    assert [p.name for p in target.parent.iterdir() if p.suffix not in (".md",)] == [target.name]


def test_an_unknown_parameter_is_an_error_that_lists_the_known_ones(chapter):
    path = chapter("print(steps)")
    with pytest.raises(ValueError, match="no parameter 'stpes'; it has 'scale', 'steps'"):
        render.render(path, parameters={"stpes": 4})
    assert not path.with_suffix(".ipynb").exists()


@pytest.mark.parametrize("value", [None, "", str(render.ROOT / "data")])
def test_the_smoke_scale_refuses_the_published_data(chapter, tmp_path, monkeypatch, value):
    monkeypatch.delenv("NODELIB_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("NODELIB_DATA", value)
    with pytest.raises(ValueError, match="must not write to the published data"):
        render.render(chapter("1"), scale="smoke", out=tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_parameters_reach_the_code_and_the_smoke_scale_never_the_book(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path / "data"))
    path = chapter("print(scale, steps)")
    with pytest.raises(ValueError, match="must not replace a published one"):
        render.render(path, scale="smoke")
    done = render.render(path, scale="smoke", out=tmp_path / "scratch", parameters={"steps": 7})
    assert "smoke 7" in done.path.read_text()
    assert not path.with_suffix(".ipynb").exists()


@pytest.mark.parametrize("parameters, message", [
    ({"scale": "zzz"}, "scale is 'zzz'"), ({"scale": "smoke"}, "must not replace a published one"),
    ({"steps": 4}, "with another steps than the chapter's own"),
])
def test_what_a_parameter_changes_is_not_published(chapter, tmp_path, monkeypatch, parameters, message):
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path / "data"))
    path = chapter("print(scale, steps)")
    with pytest.raises(ValueError, match=message):
        render.render(path, parameters=parameters)
    (name, value), = parameters.items()
    assert render.main([str(path), "-p", name, str(value)]) == 1
    assert not path.with_suffix(".ipynb").exists()


def test_the_scale_can_be_given_as_a_parameter(chapter, tmp_path, monkeypatch):
    path = chapter("print(scale, steps)")
    monkeypatch.setenv("NODELIB_DATA", str(render.ROOT / "data"))
    with pytest.raises(ValueError, match="must not write to the published data"):
        render.render(path, out=tmp_path / "scratch", parameters={"scale": "smoke"})
    monkeypatch.setenv("NODELIB_DATA", str(tmp_path / "data"))
    assert "smoke 3" in render.render(path, out=tmp_path / "scratch",
                                      parameters={"scale": "smoke"}).path.read_text()


DRAW = "from nodelib.publish.page import figure_path, save_bytes\nsave_bytes(%r, 'a-figure.gif')\n"


@pytest.mark.fault("killed", "a chapter whose cell fails or whose kernel dies",
                   "the old notebook stays", times=2)
def test_figures_are_replaced_only_when_the_notebook_passed(chapter, tmp_path):
    out = tmp_path / "out"
    render.render(chapter(DRAW % b"old"), out=out)
    assert (out / "figures" / "a-figure.gif").read_bytes() == b"old"
    for fault in ("raise KeyError('lost')", f"print({str(render.ROOT)!r})"):
        with pytest.raises(RenderError):
            render.render(chapter(DRAW % b"new" + fault), out=out)
    assert (out / "figures" / "a-figure.gif").read_bytes() == b"old"
    render.render(chapter(DRAW % b"new"), out=out)
    figures = [(path.name, path.read_bytes()) for path in (out / "figures").iterdir()]
    assert figures == [("a-figure.gif", b"new")]


def test_papermill_alone_draws_figures_at_smoke_scale_into_a_scratch_folder(chapter, tmp_path, monkeypatch):
    import papermill

    for value in (None, str(render.BOOK / "figures")):
        monkeypatch.delenv("NODELIB_FIGURES", raising=False)
        if value is not None:
            monkeypatch.setenv("NODELIB_FIGURES", value)
        notebook = jupytext.read(chapter("from nodelib.publish.page import "
                                         "figure_path\nprint(figure_path('a-figure.gif').parent)"))
        folders = {}
        for scale in ("full", "smoke"):
            done = papermill.execute_notebook(notebook, None, {"scale": scale}, kernel_name="python3",
                                              progress_bar=False)
            folders[scale] = {o.name: o.text.strip() for o in done.cells[-1].outputs}
        assert Path(folders["full"]["stdout"]) == render.BOOK / "figures" and "stderr" not in folders["full"]
        assert render.BOOK not in Path(folders["smoke"]["stdout"]).parents
        assert folders["smoke"]["stdout"] in folders["smoke"]["stderr"]


def test_progress_of_a_notebook_is_shown_while_it_executes(chapter, monkeypatch, capsys):
    monkeypatch.setattr(render, "ALIVE_SECONDS", 0.05)
    render.render(chapter("import sys, time\nprint('step 1 of 2', file=sys.stderr, "
                          "flush=True)\ntime.sleep(0.3)"))
    error = capsys.readouterr().err
    assert error.index("step 1 of 2") < error.rindex("executing for")


def test_the_page_of_another_seed_has_a_name_and_figures_of_its_own(tmp_path):
    page = render.prepare(render.TEMPLATE, {"run": "small-10", "seed": 1})
    text = "\n".join(cell.source for cell in page.cells)
    assert "# The run small-10-seed1" in text
    assert render.shown_figures(text) == ["../figures/run-small-10-seed1-training.svg"]
    target = render._target(render.TEMPLATE, tmp_path, {"run": "small-10", "seed": 1})
    assert target.name == "small-10-seed1.ipynb"
    with pytest.raises(ValueError, match="must not replace a published one"):
        render.render(render.TEMPLATE, parameters={"run": "small-10", "seed": 1})


def test_a_parameters_cell_that_computes_is_an_error(chapter):
    path = chapter("1")
    path.write_text(path.read_text().replace("steps = 3", "steps = 1 + 2"))
    with pytest.raises(RenderError, match="literals only"):
        render.render(path)


def test_an_unknown_scale_and_a_missing_chapter_are_errors(chapter, tmp_path):
    with pytest.raises(ValueError, match="scale is 'huge'; it must be one of 'smoke', 'full'"):
        render.render(chapter("1"), scale="huge")
    with pytest.raises(RenderError, match="does not exist"):
        render.render(tmp_path / "nothing.md")


def test_one_failing_chapter_does_not_stop_the_others(chapter, tmp_path, capsys):
    good = chapter("print('good')")
    bad = good.with_name("01-bad.md")
    bad.write_text(good.read_text().replace("print('good')", "raise ValueError('bad')"))
    assert render.main([str(bad), str(good)]) == 1
    assert good.with_suffix(".ipynb").exists() and not bad.with_suffix(".ipynb").exists()
    assert "bad" in capsys.readouterr().err


def test_the_page_of_a_run_has_its_own_title_and_labels():
    page = render.prepare(render.TEMPLATE, {"run": "large-100"})
    text = "\n".join(cell.source for cell in page.cells)
    assert "# The run large-100" in text and "fig-run-large-100" in text and "run = 'large-100'" in text
    assert "@" not in "".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    other = render.prepare(render.TEMPLATE, {"run": "large-10"})
    assert page.cells[0].id != other.cells[0].id


@pytest.mark.more
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.fault("killed", "the execution of a chapter interrupted or killed", "the old notebook stays")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_execution_that_is_stopped_leaves_the_old_notebook(number, chapter, tmp_path):
    target = render.render(chapter("print('good')")).path
    content, begun = target.read_bytes(), tmp_path / "begun"
    path = chapter(f"import time\nopen({str(begun)!r}, 'w').close()\ntime.sleep(20)")
    process = subprocess.Popen(  # a shell's background jobs ignore SIGINT, and so would what they start
        [sys.executable, "-m", "nodelib", "render", str(path)], cwd=render.ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not begun.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() != 0
    assert target.read_bytes() == content
    assert {p.name for p in target.parent.iterdir()} == {path.name, target.name}
    assert render.render(chapter("print('better')")).executed


@pytest.mark.more
@pytest.mark.fault("together", "two executions of one chapter at once",
                   "both end, and a whole notebook is left")
def test_two_that_execute_one_chapter_leave_one_whole_notebook(chapter):
    path = chapter("import time\ntime.sleep(2)\nprint('one')")
    processes = [subprocess.Popen([sys.executable, "-m", "nodelib", "render", str(path)], cwd=render.ROOT)
                 for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert not render.render(path).executed
    assert {p.suffix for p in path.parent.iterdir()} == {".md", ".ipynb"}
