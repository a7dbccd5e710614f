"""Execute the book's chapters: MyST text half -> papermill -> tidy, reproducible notebook.

A chapter is a pair. `book/NN-name.md` (MyST, edited by people) is its text half; `book/NN-name.ipynb`
beside it is what papermill made of it, with all outputs, and what Jupyter Book shows. The notebook is
a function of the text half and of the declared inputs: executing an unchanged chapter again on the same
machine changes no byte of it.

**Front matter.** Below the usual `jupytext` and `kernelspec` entries a chapter says which data it reads:

    nodelib:
      inputs:                     # files, folders or globs, relative to the repository root
        - data/seed.json
        - data/runs/{rows,small-10-tight}-seed*/metrics.csv

In braces stand names of runs or of their groups, see `nodelib.experiment.configs.GROUPS`. A run's
`config.json` holds the hash of its weights and changes with them. Which files of the library a chapter
depends on is not declared: its imports are followed (`nodelib.publish.dependencies`).

A chapter counts as changed when its text, one of these inputs or source files, or a parameter differs from
what the notebook records, when the notebook's cells are not the text's, or when a figure that the text shows
does not exist.

**Parameters.** A chapter with code has one cell tagged `parameters` which assigns literals only, at
least `scale = "full"`. Other values are put in a cell of their own after it, and an unknown name is an
error. What is published has none: with others, notebook and figures go to a folder of their own.
`scale="smoke"` is what the tests run, with NODELIB_DATA naming a scratch copy of the data: notebooks train
runs and record values there.

**Run pages.** `book/templates/run.md` is executed once per run into `book/runs/<run>.ipynb`. Words such
as `@run@` in its text (not in its code) stand for the parameter of that name, and `@page@` for the run's
name, with the seed where that is not 0, so that every page has its own title, labels and figures.

**Figures** are written to a folder of their own while a notebook executes, and replace the old ones just
before the notebook does.
"""

import argparse
import ast
import contextlib
import glob
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nodelib.experiment import checksums
from nodelib.experiment.artifacts import write_atomic
from nodelib.experiment.configs import NAMES, SCALES, named
from nodelib.experiment.paths import PUBLISHED, data_dir
from nodelib.experiment.progress import say
from nodelib.publish.dependencies import source_files
from nodelib.solver.errors import InputError, NodelibError

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
TEMPLATE = BOOK / "templates" / "run.md"
RECORD = "nodelib_render"  # the notebook's own entry: jupytext does not copy it to the text half
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,16}")
ALIVE_SECONDS = 30.0  # between two lines that say that a notebook still executes
_SENTINEL = "nodelib: every cell has run"


class RenderError(NodelibError, RuntimeError):
    """A chapter could not be executed or published; the notebook that was there is untouched."""


class Rendered(NamedTuple):
    """The notebook's path, and whether it was executed now (False: it was up to date)."""

    path: Path
    executed: bool


def render(chapter: str | Path, force: bool = False, scale: str = "full", out: str | Path | None = None,
           parameters: dict[str, Any] | None = None) -> Rendered:
    """Execute a chapter if it changed, and publish its notebook.

    The notebook is published only if papermill returned without error, every code cell has its execution
    count, no output is an error and a sentinel cell at the end has run; then it replaces the old one
    in one step. Otherwise the old one stays as it was.

    Args:
        chapter: the text half, a `.md` file.
        force: execute even if nothing changed.
        scale: "full" (published) or "smoke" (seconds to minutes).
        out: folder for the notebook and its figures, into which a chapter is executed even if nothing
            changed; by default the notebook lies beside its text half and figures go to `book/figures`.
            Required with parameters.
        parameters: values for names that the cell tagged `parameters` assigns. `scale` may be among them;
            `run` is what a page of the book is for.

    Raises:
        InputError: unknown scale or parameter, parameters without `out`, or smoke scale on the published
        data.
        RenderError: a cell failed, the kernel died, or the result is not fit to publish.
    """
    import nbformat

    chapter = Path(chapter).resolve()
    notebook, target, needed = _planned(chapter, force, scale, out, parameters)
    if not needed:
        return Rendered(target, False)
    figures = target.parent / "figures" if out is not None else BOOK / "figures"
    with tempfile.TemporaryDirectory(prefix="nodelib-figures-") as drawn:
        done = _execute(notebook, chapter, target.parent if out is None else chapter.parent, Path(drawn))
        nbformat.validate(done)
        content = (nbformat.writes(done).rstrip("\n") + "\n").encode()
        for figure in sorted(Path(drawn).iterdir()):  # before the notebook, which says that all is up to date
            write_atomic(figures / figure.name, figure.read_bytes())
    write_atomic(target, content)
    return Rendered(target, True)


def _planned(chapter: Path, force: bool, scale: str, out: str | Path | None,
             parameters: dict[str, Any] | None) -> tuple[Any, Path, bool]:
    """The notebook that `render` would execute, where it goes, and whether it must be executed at all."""
    parameters = {"scale": scale, **(parameters or {})}
    scale = parameters["scale"]
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}; it must be one of {', '.join(map(repr, SCALES))}")
    if scale == "full":
        del parameters["scale"]
    notebook = prepare(chapter, parameters)
    if out is None and (other := sorted(set(parameters) - ({"run"} if chapter == TEMPLATE else set()))):
        raise InputError(f"with another {other[0]} than the chapter's own a notebook must not replace a "
                         "published one: name a folder for it (--out)")
    if scale != "full" and data_dir().resolve() == PUBLISHED:
        raise InputError(f"smoke-scale notebooks must not write to the published data in {PUBLISHED}: set "
                         "the environment variable NODELIB_DATA to a scratch copy of it")
    target = _target(chapter, out, parameters)
    return notebook, target, force or out is not None or _changed(notebook, target)


def prepare(chapter: Path, parameters: dict[str, Any]) -> Any:
    """The notebook of a chapter before execution: stable cell ids, parameters in place, digest recorded."""
    import jupytext

    if not chapter.is_file():
        raise RenderError(f"{chapter} does not exist; chapters are the .md files below {BOOK}")
    notebook = jupytext.read(chapter)
    known, position = _parameters_cell(notebook, chapter)
    if unknown := sorted(set(parameters) - set(known)):
        raise InputError(f"{chapter.name} has no parameter {', '.join(map(repr, unknown))}; it has "
                         f"{', '.join(map(repr, sorted(known))) or 'none'}")
    values = {**known, **parameters}
    if "run" in values:
        values["page"] = _page(values)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _fill(cell.source, values)
    if parameters:
        import nbformat.v4

        source = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
        notebook.cells.insert(position + 1, cell)
    _set_ids(notebook)
    notebook.metadata.get("jupytext", {}).pop("text_representation", None)  # describes the text half alone
    declared = [_fill(i, values) for i in _declared(notebook, chapter)]
    digest = _digest(notebook, [*_input_files(declared), *_sources(notebook, chapter)])
    notebook.metadata[RECORD] = {"digest": digest, "inputs": declared}
    if "scale" in values:
        notebook.metadata[RECORD]["scale"] = values["scale"]
    return notebook


def _declared(notebook: Any, chapter: Path) -> list[str]:
    """The inputs of the front matter; RenderError unless they are paths inside the repository, none of them
    of the library.
    """
    inputs = notebook.metadata.get("nodelib", {}).get("inputs", [])
    if not isinstance(inputs, list):
        raise RenderError(f"{chapter.name}: inputs is {inputs!r}; it must be a list, such as [{inputs}]")
    for declared in inputs:
        parts = Path(declared).parts if isinstance(declared, str) else ()
        if not parts or Path(declared).is_absolute() or ".." in parts:
            raise RenderError(f"{chapter.name}: {declared!r} is no input; it must be a path relative to the "
                              "repository root, such as data/seed.json")
        if parts[0] == "nodelib":
            raise RenderError(f"{chapter.name}: {declared!r} is no input; which source files a chapter "
                              "depends on is found from its imports")
    return inputs


def _sources(notebook: Any, chapter: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of the library's files that the code of a chapter depends on."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    code = re.sub(r"^(\s*)[%!].*$", r"\1pass", code, flags=re.MULTILINE)  # commands of IPython
    try:
        files = source_files(code)
    except SyntaxError as error:
        raise RenderError(f"{chapter.name}: the code is no Python ({error})") from error
    return ((str(path.relative_to(ROOT)), path) for path in files)


def _page(parameters: dict[str, Any]) -> str:
    """The name of a run's page."""
    return parameters["run"] + (f"-seed{parameters['seed']}" if parameters.get("seed") else "")


def _fill(text: str, values: dict[str, Any]) -> str:
    return re.sub(r"@(\w+)@", lambda m: str(values.get(m[1], m[0])), text)


def _parameters_cell(notebook: Any, chapter: Path) -> tuple[dict[str, Any], int]:
    """Names and literals of the cell tagged `parameters`, and its position."""
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", []):
            try:
                values = {statement.targets[0].id: ast.literal_eval(statement.value)
                          for statement in ast.parse(cell.source).body}
            except (AttributeError, ValueError) as error:
                raise RenderError(f"{chapter.name}: the cell tagged 'parameters' must assign literals only"
                                  ) from error
            if "scale" not in values:
                raise RenderError(f"{chapter.name}: the cell tagged 'parameters' must assign scale = "
                                  "\"full\"")
            return values, position
    if any(cell.cell_type == "code" for cell in notebook.cells):
        raise RenderError(f"{chapter.name}: a chapter with code needs a cell tagged 'parameters' (scale = "
                          "\"full\")")
    return {}, -1


def _set_ids(notebook: Any) -> None:
    """Ids from the cells' content: random ones would change at every execution."""
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        name = hashlib.sha256(cell.source.encode()).hexdigest()[:10]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"


def _digest(notebook: Any, files: list[tuple[str, Path]]) -> str:
    """SHA-256 over the cells and over names and content of the files that a chapter depends on."""
    digest = hashlib.sha256()
    for cell in notebook.cells:
        digest.update(json.dumps([cell.cell_type, cell.source, cell.metadata], sort_keys=True).encode())
    for name, path in files:
        digest.update(f"\n{name} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def run_folders(inputs: list[str]) -> list[Path]:
    """Folders of the runs of which declared inputs name a file, sorted."""
    return sorted({path.parent for name, path in _input_files(inputs) if name.startswith("data/runs/")})


def _input_files(inputs: list[str]) -> Iterator[tuple[str, Path]]:
    """Name, relative to the repository root, and path of every file that is declared, once."""
    found: dict[str, Path] = {}
    for declared in (each for pattern in inputs for each in _runs_named(pattern)):
        in_data = declared.startswith("data/")
        base, below = (data_dir(), declared.removeprefix("data/")) if in_data else (ROOT, declared)
        tops = [base / name for name in glob.glob(below, root_dir=base)]
        # a run may come later
        if not tops and not glob.has_magic(declared) and not declared.startswith("data/runs/"):
            raise RenderError(f"the declared input {declared} does not exist below {base}")
        for top in tops:
            for path in (p for p in top.rglob("*") if p.is_file()) if top.is_dir() else [top]:
                name = path.relative_to(base)
                hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
                # a run that trains just now, or the state from which one at a constant rate can go on
                unfinished = path.name == "checkpoint.safetensors" or (
                    (path.parent / "checkpoint.safetensors").exists()
                    and not all((path.parent / name).exists() for name in ("snapshots.csv", "config.json")))
                if not hidden and not unfinished and path.name != checksums.NAME:  # which no page reads
                    found["data/" + name.as_posix() if in_data else name.as_posix()] = path
    yield from sorted(found.items())


def _runs_named(pattern: str) -> list[str]:
    """A pattern without braces for every run that stands in its braces, by its name or its group's."""
    before, brace, rest = pattern.partition("{")
    if not brace:
        return [pattern]
    inside, _, after = rest.partition("}")
    try:
        return [before + name + after for name in named([inside])]
    except InputError as error:
        raise RenderError(f"the declared input {pattern}: {error}") from None


def _target(chapter: Path, out: str | Path | None, parameters: dict[str, Any]) -> Path:
    is_run = "run" in parameters and chapter.parent.name == "templates"
    name = f"{_page(parameters)}.ipynb" if is_run else f"{chapter.stem}.ipynb"
    if out is not None:
        return Path(out).resolve() / name
    return chapter.parent.parent / "runs" / name if is_run else chapter.with_name(name)


def stale(chapter: Path, parameters: dict[str, Any] | None = None, out: Path | None = None, *,
          force: bool = False, scale: str = "full") -> bool:
    """Whether `render`, of the same arguments, would execute a page: it is asked to, by `force` or `out`, or
    the notebook beside the page is missing or of other text, inputs or source.

    Raises:
        InputError: what `render` would refuse.
    """
    return _planned(chapter.resolve(), force, scale, out, parameters)[2]


def _changed(prepared: Any, target: Path) -> bool:
    import nbformat

    try:
        old = nbformat.read(target, as_version=4)
    except (FileNotFoundError, ValueError):
        return True
    if old.metadata.get(RECORD) != prepared.metadata[RECORD] or not same_cells(old, prepared):
        return True
    shown = shown_figures("\n".join(cell.source for cell in prepared.cells))
    return not all((target.parent / figure).exists() for figure in shown)


def shown_figures(text: str) -> list[str]:
    """The files that the figure directives of a MyST text show."""
    return re.findall(r"^[`:]{3,}\{figure\}\s+(\S+)", text, re.MULTILINE)


def same_cells(one: Any, other: Any) -> bool:
    """Whether two notebooks hold the same cells, outputs aside."""
    def key(notebook: Any) -> list:
        return [(c.cell_type, c.source, {**c.metadata}) for c in notebook.cells]

    return key(one) == key(other)


def _execute(notebook: Any, chapter: Path, folder: Path, figures: Path) -> Any:
    import nbclient.exceptions
    import nbformat.v4
    import papermill
    import traitlets.config

    if not any(cell.cell_type == "code" for cell in notebook.cells):
        return notebook
    started = json.loads(json.dumps(notebook))
    notebook.cells.append(nbformat.v4.new_code_cell(f"print({_SENTINEL!r})"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # sockets of its own instead of open ports; by default they would lie in the kernel's folder
        with (_environment(chapter, figures), tempfile.TemporaryDirectory(prefix="nodelib-") as sockets,
              _alive(chapter.name)):
            done = papermill.execute_notebook(
                notebook, None, kernel_name="python3", cwd=str(folder), start_timeout=300,
                progress_bar=sys.stderr.isatty(), log_output=False, stderr_file=_Stderr(),
                config=traitlets.config.Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}))
    except papermill.PapermillExecutionError as error:
        raise RenderError(f"{chapter.name}: a cell failed\n{_plain(str(error))}") from None
    except (nbclient.exceptions.DeadKernelError, nbclient.exceptions.CellTimeoutError, RuntimeError) as error:
        raise RenderError(f"{chapter.name}: the kernel stopped before the last cell ({error})") from error
    _check_complete(done, chapter)
    done.cells.pop()
    _tidy(done, chapter)
    if not same_cells(done, nbformat.from_dict(started)):
        raise RenderError(f"{chapter.name}: the executed cells are not the chapter's")
    return done


class _Stderr:
    """Warnings and progress of the kernel, as they come; the notebook does not keep them."""

    def write(self, text: str) -> None:
        say(text, sys.stderr, end="")

    def flush(self) -> None:
        """Nothing is kept back."""


@contextlib.contextmanager
def _alive(name: str) -> Iterator[None]:
    """Say now and then that a notebook still executes."""
    ended, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not ended.wait(ALIVE_SECONDS):
            say(f"{name}: executing for {time.monotonic() - began:.0f} s", sys.stderr)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


@contextlib.contextmanager
def _environment(chapter: Path, figures: Path) -> Iterator[None]:
    """The kernel's environment: this interpreter's kernel, no pop-up figures, one fixed thread count."""
    values = {"NODELIB_FIGURES": str(figures), "MPLBACKEND": "agg", "PYTHONHASHSEED": "0",
              "JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
              "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
    if chapter != TEMPLATE:  # sums depend on the thread count; training records its own
        values |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    old = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in old.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _check_complete(notebook: Any, chapter: Path) -> None:
    """Papermill's flags are not enough: after a killed kernel they say that cells were completed."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        if cell.source.strip() and cell.execution_count is None:
            raise RenderError(f"{chapter.name}: code cell {number} of {len(code)} was not executed")
        if any(output.output_type == "error" for output in cell.outputs):
            raise RenderError(f"{chapter.name}: code cell {number} of {len(code)} ended in an error")
    text = "".join(output.get("text", "") for output in code[-1].outputs)
    if _SENTINEL not in text:
        raise RenderError(f"{chapter.name}: the kernel ended before the last cell")


def _tidy(notebook: Any, chapter: Path) -> None:
    """Drop whatever differs from one execution to the next, or belongs to this machine."""
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3",
                                          "file_extension": ".py"}
    for cell in notebook.cells:
        for name in ("papermill", "execution"):
            cell.metadata.pop(name, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = list(_outputs(cell, chapter))


def _outputs(cell: Any, chapter: Path) -> Iterator[Any]:
    last = None
    for output in cell.outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                continue
            if last is not None:  # where a stream is cut depends on timing
                last.text += _plain(output.text)
                continue
            last = output
            output.text = _plain(output.text)
        else:
            last = None
            output.data.pop("application/vnd.jupyter.widget-view+json", None)
            if not output.data:
                continue
            if any(kind.startswith("image/") for kind in output.data):
                raise RenderError(f"{chapter.name}: a cell shows an image in its output, where it has no "
                                  "alternative text; save it with nodelib.publish.page.save_figure and show "
                                  "it with a figure directive")
            for kind, value in output.data.items():
                if isinstance(value, str):
                    output.data[kind] = _plain(value)
        text = json.dumps(output)
        if str(ROOT) in text:
            raise RenderError(f"{chapter.name}: an output names a path of this machine ({ROOT})")
        yield output


def _plain(text: str) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return _ADDRESS.sub("0x...", text)


def tidy_text(chapter: Path) -> str:
    """The text half as jupytext itself would write it; kept so, a sync never touches the text."""
    import jupytext

    return jupytext.writes(jupytext.read(chapter), fmt="md:myst")


def pages() -> list[tuple[Path, dict[str, Any]]]:
    """Every executable page of the table of contents: its text half and its parameters, in order."""
    toc = (BOOK / "_toc.yml").read_text()
    names = map(Path, re.findall(r"(?:file|root):\s*(\S+\.ipynb)\s*$", toc, re.MULTILINE))
    return [(TEMPLATE, {"run": name.stem}) if name.parent.name == "runs" else
            (BOOK / name.with_suffix(".md"), {}) for name in names]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m nodelib render", formatter_class=argparse.RawDescriptionHelpFormatter, description=(
            "Execute the book's chapters with papermill and publish their notebooks. Without chapters: every "
            "page of the table of contents that changed."), epilog="""\
Only what no parameter changes is published. Everything else goes to a folder of its own, and at
smoke scale works on a copy of the data, where it trains runs and records values:

  cp -r data /tmp/try && rm -r /tmp/try/runs && mkdir /tmp/try/runs
  NODELIB_DATA=/tmp/try python -m nodelib render --run small-10 --scale smoke --out /tmp/try/book
""")
    parser.add_argument("chapters", nargs="*", type=Path, metavar="CHAPTER",
                        help="text halves, such as book/05-*.md")
    parser.add_argument("--run", action="append", default=[], choices=NAMES, metavar="RUN",
                        help="the page of a named run; trains it first if it is not stored")
    parser.add_argument("--force", action="store_true", help="execute unchanged chapters too")
    parser.add_argument("--scale", choices=SCALES, default="full",
                        help="smoke: seconds to minutes; needs --out, and a copy of the data in NODELIB_DATA")
    parser.add_argument("--out", type=Path, help="folder for notebooks and figures instead of the book's own")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="a value for the chapter's parameters cell, a Python literal or else a word; "
                        "needs --out")
    parser.add_argument("--list", action="store_true", help="say which pages would be executed, and stop")
    parser.add_argument("--tidy", action="store_true",
                        help="only rewrite text halves the way jupytext writes them")
    return parser


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def main(arguments: list[str] | None = None) -> int:
    """The command `python -m nodelib render`; returns the exit status."""
    options = parser().parse_args(arguments)
    given = {name: _literal(value) for name, value in options.parameter}
    wanted = [(path, dict(given)) for path in options.chapters]
    wanted += [(TEMPLATE, {"run": run, **given}) for run in options.run]
    if not wanted:
        wanted = [(path, {**own, **given}) for path, own in pages()]
    failures = 0
    for path, parameters in wanted:
        label = os.path.relpath(path, ROOT) + (f" [{parameters['run']}]" if "run" in parameters else "")
        started = time.monotonic()
        try:
            if options.tidy:
                write_atomic(path.resolve(), tidy_text(path).encode())
                continue
            if options.list:
                would = stale(path, parameters, options.out, force=options.force, scale=options.scale)
                say(f"{label}: {'would be executed' if would else 'up to date'}")
                continue
            done = render(path, options.force, options.scale, options.out, parameters)
        except NodelibError as error:
            failures += 1
            say(f"{label}: {error}", sys.stderr)
            continue
        took = f"executed in {time.monotonic() - started:.1f} s" if done.executed else "up to date"
        say(f"{label}: {took}")
    return 1 if failures else 0

