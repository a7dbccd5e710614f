import errno
import importlib
import os
import re
import shutil
import subprocess
import sys
from itertools import product

import filelock
import pytest
from builders import tiny_config

from nodelib.__main__ import main
from nodelib.attacks import AttackError
from nodelib.experiment import (
    artifacts,
    checksums,
    distributed,
    evaluation,
    gradient_health,
    measure_states,
    overshoot,
    protocols,
    rescaling,
    solver_versions,
    training,
    two_gradients,
    verification,
)
from nodelib.experiment.records import metrics_csv
from nodelib.solver.errors import InputError, IntegrationError, NodelibError

COMMANDS = ("train", "evaluate", "measure", "health", "steps", "two-gradients",
            "solver-versions", "rescale", "table", "claims",
            "verify", "render", "bench", "memory", "tune", "live", "pdf")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "usage:" in text and "--help" in text


def test_the_module_lists_its_commands():
    done = subprocess.run([sys.executable, "-m", "nodelib", "--help"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0
    for command in COMMANDS:
        assert f"\n    {command}" in done.stdout


@pytest.mark.parametrize("error", [IntegrationError("too small", 1.0, 1e-9, 3.0),
                                   AttackError("left the ball"),
                                   training.DivergedError("the loss is nan"), ValueError("a bug"),
                                   ImportError("a bug")])
def test_an_error_with_a_known_reason_is_one_line_and_a_bug_a_traceback(
        error, tiny, tiny_run, tmp_path, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise error

    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    (tmp_path / tiny_run.path.name / "metrics.csv").unlink()
    monkeypatch.setattr(evaluation, "evaluate", fail)
    monkeypatch.setattr(training, "_step", fail)
    known = isinstance(error, NodelibError)
    for command in (["evaluate", "small-10"], ["train", "small-10", "--seed", "1"]):
        command += ["--root", str(tmp_path)]
        assert main(command) == 2
        said = capsys.readouterr().err
        assert said.splitlines()[-1].startswith("error: ") and str(error) in said.splitlines()[-1]
        assert ("Traceback" in said) != known
        command.append("--debug")
        with pytest.raises((type(error), evaluation.MeasurementError)):
            main(command)
        capsys.readouterr()


BUG = RuntimeError("out of memory on the card")
OF_RUNS = ("train", "evaluate", "measure", "health", "steps", "two-gradients", "solver-versions", "rescale")


@pytest.mark.parametrize("command", OF_RUNS)
def test_the_seeds_may_stand_before_the_names_as_the_usage_line_has_them(command, capsys, tmp_path,
                                                                         monkeypatch):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "[--seed SEED [SEED ...]]" in (said := capsys.readouterr().out)
    assert re.search(r"\brun \[run \.\.\.\]\s+\w", said)  # the last of the line
    made = importlib.import_module("nodelib.__main__").parser
    taken = []

    def parser():
        parser = made()
        parse = parser.parse_known_args
        parser.parse_known_args = lambda *a: taken.append(parse(*a)) or sys.exit(0)
        return parser

    monkeypatch.setattr("nodelib.__main__.parser", parser)
    for line in (["--seed", "0", "1", "small-10", "small-100"], ["small-10", "small-100", "--seed", "0", "1"],
                 ["small-10", "--seed", "0", "1", "small-100"],
                 ["--seed", "0", "1", "--", "small-10", "small-100"],
                 ["--seed", "4", "--root", "x", "--seed", "0", "1", "small-10", "small-100"]):
        with pytest.raises(SystemExit):
            main([command, *line])
        known, rest = taken.pop()
        assert (known.seed, known.run, rest) == ([0, 1], ["small-10", "small-100"], []), line


@pytest.mark.parametrize("seed", [["small-10"], ["one", "small-10"], ["0,1", "small-10"], []])
def test_a_seed_that_is_no_number_is_refused(seed, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "small-10", "--seed", *seed])
    assert stop.value.code == 2
    wrong = f"invalid int value: '{seed[0]}'" if seed else "expected at least one argument"
    assert f"argument --seed: {wrong}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, message", [
    (["train", "small-11"], "unknown run 'small-11'; the known runs are small-10"),
    (["train", "small-10", "--device", "cuda"], "use --device cpu"),
    (["train", "small-10", "--device", "meta"], "use 'cpu' or 'cuda'"),
    (["train", "small-10", "--seed", "-1"], "seed is -1"),
    (["evaluate", "nothing"], "unknown run 'nothing'"),
    (["evaluate", "small-10", "--protocol", "weak"],
     "unknown protocol 'weak'; the known protocols are table, strong"),
    (["evaluate", "small-10", "--images", "0"], "images is 0"),
    (["health", "all", "--images", "0"], "n is 0"),
    (["measure", "all", "--far-images", "0"], "far_images is 0; it must be an integer of at least 1"),
    (["measure", "all", "--far-images", "-5"], "far_images is -5"),
    (["measure", "all", "--log-time", "5"], "log time is 5"),
    (["measure", "all", "--part", "speed"], "unknown part 'speed'"),
    (["two-gradients", "all", "--steps", "0"], "steps is 0"),
    (["verify", "--sample", "0"], "sample is 0"),
    (["table", "--write", "nothing.md"], "nothing.md; name one that holds the marks"),
])
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["evaluate", "measure", "health", "steps", "two-gradients",
                                     "solver-versions", "rescale"])
def test_measuring_a_run_that_was_not_trained_says_how_to_train_it(command, capsys, tmp_path):
    assert main([command, "small-10", "--root", str(tmp_path)]) == 2
    assert "nodelib train small-10" in capsys.readouterr().err


def test_a_budget_stops_training_with_status_3_and_the_next_call_goes_on(tiny, capsys, tmp_path):
    command = ["train", "small-10", "--root", str(tmp_path)]
    assert main([*command, "--budget", "0"]) == 3
    assert "run the same command again" in capsys.readouterr().out
    assert main(command) == 0
    assert "6 steps" in capsys.readouterr().out
    assert main(command) == 0
    assert "stored already" in capsys.readouterr().out


@pytest.fixture
def tiny(monkeypatch):
    """Every named run is a tiny one, whatever its scale."""
    from nodelib.experiment import configs

    monkeypatch.setattr(configs, "get", lambda name, seed=0, scale="full": tiny_config(name=name, seed=seed))


def test_a_stored_run_is_evaluated_when_asked_for(tiny, tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    (tmp_path / tiny_run.path.name / "metrics.csv").unlink()
    assert main(["train", "small-10", "--evaluate", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "stored already" in out
    measured = artifacts.load_run(tmp_path / tiny_run.path.name).metrics
    assert [r["id"] for r in measured] == [r["id"] for r in tiny_run.metrics]
    assert all(r["id"] in out for r in measured)


@pytest.fixture
def keeping(tiny_run, tmp_path):
    """The folder of a copy of `tiny_run` that keeps its weights as those of its first epoch, too."""
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    shutil.copy(folder / "model.safetensors", folder / "weights-epoch1.safetensors")
    stored = artifacts.read_json(folder / "config.json")
    stored["provenance"] |= artifacts.kept_weights(folder)
    artifacts.write_json(folder / "config.json", stored)
    return folder


def test_earlier_weights_are_measured_by_name(tiny, tiny_run, keeping, tmp_path, capsys):
    line = ["evaluate", "small-10", "--root", str(tmp_path), "--kept"]
    assert main([*line, "epoch1"]) == 0
    [earlier] = artifacts.load_run(keeping).earlier
    assert [r["id"] for r in earlier.metrics] == [r["id"] for r in tiny_run.metrics]
    assert main([*line, "epoch9"]) == 2 and "name one after whole epochs" in capsys.readouterr().err


def test_earlier_weights_are_attacked_through_the_runs_beside_theirs(tiny, keeping, tmp_path, capsys):
    training.train(tiny_config(name="small-random", learning_rate=1e-3), tmp_path, progress=False)
    line = ["evaluate", "small-10", "--root", str(tmp_path), "--protocol", "transfer", "--images", "4"]
    for more, measured in (([], keeping), (["--kept", "epoch1"], keeping / "epoch1")):
        assert main([*line, *more]) == 0
        found = [r for r in artifacts.load_run(measured).metrics if r["source"] == "small-random-seed0"]
        assert [(r["attack"], r["n"]) for r in found] == [("transfer", 4)]


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_the_budget_bounds_the_evaluation_too(command, tiny, tiny_run, tmp_path, capsys):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    artifacts.write_atomic(folder / "metrics.csv", metrics_csv(tiny_run.metrics[:-2]))
    line = [command, "small-10", "--root", str(tmp_path), *(["--evaluate"] if command == "train" else [])]
    assert main([*line, "--budget", "0"]) == 3
    assert len(artifacts.load_run(folder).metrics) == len(tiny_run.metrics) - 2
    assert "2 of 8 records are missing" in capsys.readouterr().out
    assert main(line) == 0
    assert len(artifacts.load_run(folder).metrics) == len(tiny_run.metrics)


@pytest.mark.parametrize("command", ["health", "steps", "two-gradients", "solver-versions"])
def test_a_command_that_cannot_stop_on_the_way_takes_no_budget(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "small-10", "--budget", "60"])
    assert stop.value.code == 2 and "unrecognized arguments: --budget" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "soon"])
@pytest.mark.parametrize("call", [lambda *a: main(["train", "small-10", *a]),
                                  lambda *a: main(["evaluate", "small-10", *a]),
                                  lambda *a: main(["rescale", "small-10", *a]),
                                  lambda *a: main(["measure", "small-10", *a])],
                         ids=["train", "evaluate", "rescale", "measure"])
def test_a_budget_that_is_no_number_of_seconds_is_refused(call, value, capsys):
    with pytest.raises(SystemExit) as stop:
        call(f"--budget={value}")
    assert stop.value.code == 2 and "no budget" in capsys.readouterr().err


def test_a_protocol_is_measured_on_as_many_images_as_asked_for(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    assert main(["evaluate", "small-10", "--protocol", "tolerance", "--images", "4",
                 "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line for line in lines if line.startswith("small-10-seed0")]
    assert len(shown) == 6 and all("none-tolerance-" in line and "n =     4" in line for line in shown)


def test_verify_tells_a_sound_run_from_a_damaged_one(tiny_run, tmp_path, capsys):
    assert main(["verify", "--root", str(tiny_run.path.parent), "--sample", "64"]) == 0
    assert "1 runs, 0 faults" in capsys.readouterr().out
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    (tmp_path / tiny_run.path.name / "model.safetensors").write_bytes(b"nothing")
    assert main(["verify", "--root", str(tmp_path)]) == 1
    assert "is altered" in capsys.readouterr().out


@pytest.mark.fault("damaged", "one damaged run among sound ones", "named and left out; the others are read")
def test_verify_lists_a_run_that_cannot_be_read_and_goes_on(tiny_run, tmp_path, capsys, fault):
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    bad = tmp_path / "large-10-seed0"
    bad.mkdir()
    (bad / "config.json").write_text("{")
    assert main(["verify", "--root", str(tmp_path), "--sample", "64"]) == 1
    out = capsys.readouterr().out
    assert "config.json is not valid JSON" in out
    fault.tell(next(line for line in out.splitlines() if "config.json" in line))
    assert "small-10-seed0: ok" in out and "2 runs, 1 faults" in out


def test_verify_tells_a_run_of_which_a_solve_fails_and_goes_on(tiny_run, tmp_path, capsys, monkeypatch):
    for name in ("small-10-seed0", "small-10-seed1"):
        shutil.copytree(tiny_run.path, tmp_path / name)
    path = tmp_path / "small-10-seed1" / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    genuine = verification.problems

    def fails(run, sample):
        if run.seed == 0:
            raise IntegrationError("the step size is 0", 1.0, 0.0, 3.0)
        return genuine(run, sample)

    monkeypatch.setattr(verification, "problems", fails)
    assert main(["verify", "--root", str(tmp_path), "--sample", "8"]) == 1
    out = capsys.readouterr().out
    assert "the step size is 0" in out and "small-10-seed1" in out and "2 runs, " in out


def test_verify_takes_a_record_that_is_stored_meanwhile_for_no_fault(tiny_run, tmp_path, capsys, monkeypatch):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    genuine, checked = verification.problems, []

    def disturbed(run, sample):
        if not checked:
            evaluation.evaluate_run(folder, [evaluation.Measurement(2.0, 16)], progress=False)
        checked.append(list(genuine(run, sample)))
        return checked[-1]

    monkeypatch.setattr(verification, "problems", disturbed)
    assert main(["verify", "--root", str(tmp_path), "--sample", "8"]) == 0
    assert "no record none-t2" in checked[0][0] and checked[1:] == [[]]


def test_verify_names_a_folder_without_runs_and_strangers_among_them(tiny_run, tmp_path, capsys):
    assert main(["verify", "--root", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    (tmp_path / "rubbish").mkdir()
    assert main(["verify", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "rubbish holds no run" in out and "0 runs, 1 faults" in out
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    for name, first in (("large-10-seed0", "history.csv"), ("large-10-seed1", "checksums.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / first).touch()
    assert main(["verify", "--root", str(tmp_path), "--sample", "64"]) == 1
    out = capsys.readouterr().out
    assert "rubbish holds no run" in out and "large-10" not in out and "1 runs, 1 faults" in out


def test_verify_takes_names_of_runs(tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    bad = tmp_path / "large-10-seed0"
    bad.mkdir()
    (bad / "config.json").write_text("{")
    assert main(["verify", "small-10", "--root", str(tmp_path), "--sample", "64"]) == 0
    assert "1 runs, 0 faults" in capsys.readouterr().out
    assert main(["verify", "large-10", "--root", str(tmp_path)]) == 1
    assert main(["verify", "large-100", "--root", str(tmp_path)]) == 2
    assert "no finished run of large-100" in capsys.readouterr().err


def test_an_edit_is_accepted_when_it_is_sealed(tiny_run, tmp_path, capsys):
    folder = tmp_path / tiny_run.path.name
    shutil.copytree(tiny_run.path, folder)
    edited = [{**r, "seconds": r["seconds"] + 1} for r in tiny_run.metrics]
    artifacts.write_atomic(folder / "metrics.csv", metrics_csv(edited))
    line = ["verify", "--root", str(tmp_path), "--sample", "64"]
    assert main(line) == 1 and "metrics.csv was edited" in capsys.readouterr().out
    before = (folder / checksums.NAME).read_bytes()
    assert main([*line, "--seal"]) == 2 and "--seal" in capsys.readouterr().err
    assert (folder / checksums.NAME).read_bytes() == before
    assert main([*line, "all", "--seal"]) == 0
    out = capsys.readouterr().out
    assert f"{folder.name}: accepted metrics.csv\n" in out
    assert main([*line, "small-10", "--seal"]) == 0 == main(line)
    assert "metrics.csv" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["train", "table", "claims", "verify", "evaluate"])
def test_a_root_that_is_a_file_is_an_error_that_says_so(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    names = ["small-10"] if command in ("train", "evaluate") else []
    assert main([command, *names, "--root", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err


def test_measuring_that_ran_out_of_time_says_so_by_its_status(tiny_run, tmp_path):
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    line = ["measure", "small-10", "--root", str(tmp_path), "--part", "local"]
    assert main([*line, "--budget", "0"]) == 3
    assert main(line) == 0


@pytest.mark.parametrize("command", [["evaluate", "--protocol", "tolerance", "--images", "4"], ["measure"]])
def test_damaged_weights_are_refused_where_all_is_measured_already(command, tiny_run, tmp_path, capsys,
                                                                   monkeypatch):
    from nodelib.experiment import measure_states

    monkeypatch.setattr(measure_states, "pending", lambda run: [])
    shutil.copytree(tiny_run.path, tmp_path / tiny_run.path.name)
    line = [command[0], "small-10", *command[1:], "--root", str(tmp_path)]
    assert main(line) == 0
    (tmp_path / tiny_run.path.name / "model.safetensors").write_bytes(b"nothing")
    assert main(line) == 2 and "is altered" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["table", "claims", "verify", "evaluate"])
def test_a_root_that_does_not_exist_is_an_error(command, tmp_path, capsys):
    names = ["small-10"] if command == "evaluate" else []
    assert main([command, *names, "--root", str(tmp_path / "nothing")]) == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["table", "claims"])
@pytest.mark.fault("damaged", "one damaged run among sound ones",
                   "named and left out; the others are read", times=2)
def test_a_run_that_cannot_be_read_is_named_and_left_out(command, tmp_path, capsys, tiny_run):
    main([command, "--root", str(tiny_run.path.parent)])
    whole = capsys.readouterr().out
    shutil.copytree(tiny_run.path.parent, tmp_path / "runs")
    copied = (tiny_run.path / "config.json").read_text().replace('"seed": 0', '"seed": 4')
    for seed, content in ((3, "{"), (4, copied)):
        (tmp_path / "runs" / f"small-10-seed{seed}").mkdir()
        (tmp_path / "runs" / f"small-10-seed{seed}" / "config.json").write_text(content)
    assert main([command, "--root", str(tmp_path / "runs")]) == 1
    out, error = capsys.readouterr()
    assert "small-10-seed3/config.json" in error and "small-10-seed4 holds the weights of" in error
    assert out == whole
    page = tmp_path / "page.md"
    page.write_text(marked := f"<!-- {command}: begin -->\n<!-- {command}: end -->\n")
    assert main([command, "--root", str(tmp_path / "runs"), "--write", str(page)]) == 1
    assert page.read_text() == marked and "is left as it is" in capsys.readouterr().err


def test_the_smoke_scale_does_not_enter_the_published_runs(capsys, monkeypatch):
    from nodelib.experiment import mnist, paths

    monkeypatch.delenv("NODELIB_DATA", raising=False)
    monkeypatch.setattr(mnist, "load", lambda *a: pytest.fail("it began to train"))
    before = sorted(path.name for path in (paths.PUBLISHED / "runs").iterdir())
    for root, seed in product(([], ["--root", str(paths.PUBLISHED / "runs")]), ("0", "5")):
        line = ["train", "small-10", "--seed", seed, "--scale", "smoke", "--evaluate", *root]
        assert main(line) == 2
        error = capsys.readouterr().err  # of a seed that is stored, too
        assert "must not lie among the published ones" in error and "give another root (--root)" in error
    assert sorted(path.name for path in (paths.PUBLISHED / "runs").iterdir()) == before


def test_a_training_whose_reader_stops_early_trains_on(tmp_path):
    program = ("import sys; sys.path.insert(0, 'tests'); from builders import tiny_config; from "
               "nodelib.experiment import configs, progress; progress.LINE_SECONDS = 0; configs.get = lambda "
               "name, seed=0, scale='full': tiny_config(name=name, seed=seed); from nodelib.__main__ import "
               "main; sys.exit(main(['train', 'small-10', '--seed', '0', '1', '--root', "
               f"{str(tmp_path)!r}]))")
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, cwd=artifacts.__file__.rsplit("/", 3)[0])
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    stored = [(run.name, run.seed) for run in artifacts.find_runs(tmp_path)]
    assert stored == [("small-10", 0), ("small-10", 1)]


@pytest.fixture
def failing(tiny, monkeypatch):
    """A function after whose call training seed 1 raises an error; it gives the list of seeds begun."""
    def fail(error):
        genuine, begun = training.train, []

        def train(config, *arguments, **options):
            begun.append(config.seed)
            if config.seed == 1:
                raise error
            return genuine(config, *arguments, **options)

        monkeypatch.setattr(training, "train", train)
        return begun
    return fail


SEEDS = ["train", "small-10", "--seed", "0", "1", "2"]


@pytest.mark.parametrize("error", [training.DivergedError("small-10-seed1: the loss is nan"), BUG,
                                   artifacts.ArtifactError("damaged"), OSError(errno.EIO, "it is gone")])
def test_a_training_that_fails_is_told_and_the_other_runs_are_trained(error, failing, tmp_path, capsys):
    begun, line = failing(error), [*SEEDS, "--root", str(tmp_path)]
    assert main(line) == 2 and begun == [0, 1, 2]
    assert [run.seed for run in artifacts.find_runs(tmp_path)] == [0, 2]
    out, told = capsys.readouterr()
    *trace, reason, last = [line for line in told.splitlines() if ": step " not in line]
    own = str(error).removeprefix("small-10-seed1: ")
    known = isinstance(error, (NodelibError, OSError))
    assert reason == f"error: small-10-seed1: {own if known else f'RuntimeError: {own}'}"
    assert last == "error: 1 of 3 runs failed: small-10-seed1"
    assert ("Traceback" in told) != known and "small-10-seed2: 6 steps" in out
    with pytest.raises(type(error)):
        main(["--debug", *line])


def test_a_failed_training_is_named_where_the_time_is_up_for_another(failing, tmp_path, capsys, monkeypatch):
    failing(BUG)
    line = [*SEEDS[:-3], "1", "0", "2", "--root", str(tmp_path), "--budget", "0"]
    assert main(line) == 3
    out, told = capsys.readouterr()
    assert told.splitlines()[-1] == "error: 1 of 3 runs failed: small-10-seed1"
    assert "small-10-seed0: 1 of 6 steps" in out and "small-10-seed2" not in out


@pytest.mark.parametrize("stop, status", [(KeyboardInterrupt(), 130), (BrokenPipeError(), 0)])
def test_a_stop_ends_the_training_of_several_runs_at_once(stop, status, failing, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "dup2", lambda *descriptors: None)  # it silences the output for good
    begun = failing(stop)
    assert main([*SEEDS, "--root", str(tmp_path)]) == status and begun == [0, 1]


def test_several_processes_that_share_a_run_stop_at_the_first_that_fails(failing, tmp_path, monkeypatch):
    begun = failing(BUG)
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "leads", lambda: True)
    with pytest.raises(RuntimeError, match="out of memory"):
        main([*SEEDS[:-3], "1", "2", "--root", str(tmp_path)])
    assert begun == [1]


def test_a_seed_that_is_none_is_refused_before_any_run_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *a, **b: pytest.fail("it began to train"))
    assert main(["train", "small-10", "small-100", "--seed", "0", "-1", "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: seed is -1") and error.count("\n") == 1


def test_the_table_prints_the_posts_figures_and_blanks(tmp_path, capsys):
    assert main(["table", "--root", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "92.62" in text and "49.45" in text and "–" in text
    assert len([line for line in text.splitlines() if line.startswith(("small", "large"))]) == 24


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
def test_a_closed_output_and_one_of_few_letters_are_no_errors(tmp_path):
    line = f"'{sys.executable}' -m nodelib table --root '{tmp_path}'"
    closed = subprocess.run(["sh", "-c", f"{line} >&-"], capture_output=True, text=True, timeout=60)
    assert (closed.returncode, closed.stdout, closed.stderr) == (0, "", "")
    ascii_only = subprocess.run(["sh", "-c", line], capture_output=True, timeout=60,
                                env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0 and b"49.45" in ascii_only.stdout and ascii_only.stderr == b""


@pytest.mark.parametrize("place", ["a full disk", "a read-only disk", "a file"])
@pytest.mark.fault("refused", "a folder of runs that is a file, full or read-only", "an error of one line")
def test_a_folder_that_takes_no_files_is_one_line_with_a_way_out(place, tiny, tmp_path, capsys, monkeypatch,
                                                                 fault):
    code = errno.ENOSPC if place == "a full disk" else errno.EROFS

    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    (tmp_path / "a file").write_text("")
    if place != "a file":
        call = (os, "fsync") if place == "a full disk" else (filelock.FileLock, "acquire")
        monkeypatch.setattr(*call, refuse)
    root = tmp_path / "a file" if place == "a file" else tmp_path
    assert main(["train", "small-10", "--root", str(root), "--budget", "0"]) == 2
    error = capsys.readouterr().err
    fault.tell(error)
    assert error.startswith("error: ") and "--root" in error
    assert ("is a file" if place == "a file" else "cannot be written") in error
    assert error.count("\n") == 1


def test_a_reader_that_stops_early_is_no_error():
    process = subprocess.Popen([sys.executable, "-m", "nodelib", "table"], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdout.close()  # like `head` that has what it wants
    error = process.stderr.read()
    assert process.wait(timeout=60) == 0 and error == b""


@pytest.fixture
def two_runs(tiny_run, tmp_path):
    """A residual network and an ODE-net, both stored, in the order in which commands take them."""
    shutil.copytree(tiny_run.path, tmp_path / "small-10-seed0")
    return training.train(tiny_config(name="resnet-0", architecture="resnet"), tmp_path,
                          progress=False).path.parent


def test_a_run_that_does_not_suit_is_told_and_the_others_are_measured(two_runs, capsys):
    line = ["steps", "resnet-0", "small-10", "--images", "4", "--root", str(two_runs)]
    assert main(line) == 2
    out, error = capsys.readouterr()
    assert error == ("error: resnet-0-seed0: resnet-0 is a resnet; this is measured of networks with an ODE "
                     "block, such as small-10\n")
    assert out.startswith("small-10-seed0: ") and artifacts.load_run(two_runs / "small-10-seed0").measurements
    with pytest.raises(InputError, match="is a resnet"):
        main(["--debug", *line])


def test_weights_that_are_damaged_do_not_keep_other_runs_from_being_measured(two_runs, capsys):
    (two_runs / "resnet-0-seed0" / "model.safetensors").write_bytes(b"nothing")
    line = ["evaluate", "resnet-0", "small-10", "--images", "4", "--root", str(two_runs)]
    assert main(line) == 2
    assert "resnet-0-seed0" in (said := capsys.readouterr()).err and "is altered" in said.err
    assert "small-10-seed0  none-t1 " in said.out


@pytest.mark.parametrize("command, module, function, error", [
    ("evaluate", evaluation, "evaluate_run", BUG), ("measure", measure_states, "measure_run", BUG),
    ("health", gradient_health, "measure_run", BUG), ("two-gradients", two_gradients, "measure_run", BUG),
    ("solver-versions", solver_versions, "measure_run", BUG), ("rescale", rescaling, "measure_run", BUG),
    *(("steps", overshoot, "measure_run", error) for error in (
        BUG, MemoryError(), KeyError("label"), OSError(errno.EIO, "the disk is gone"),
        evaluation.MeasurementError("resnet-0-seed0: too stiff"))),
])
def test_a_run_that_fails_is_told_and_the_others_are_measured(command, module, function, error, two_runs,
                                                              capsys, monkeypatch):
    done = []

    def fail_first(folder, *arguments, **options):
        if folder.name == "resnet-0-seed0":
            raise error
        done.append(folder.name)
        return []

    monkeypatch.setattr(module, function, fail_first)
    monkeypatch.setattr(evaluation, "missing", lambda *arguments: [])
    line = [command, "resnet-0", "small-10", "--root", str(two_runs)]
    assert main(line) == 2 and done == ["small-10-seed0"]
    *trace, last = capsys.readouterr().err.splitlines()
    known = isinstance(error, (NodelibError, OSError))
    own = str(error).removeprefix("resnet-0-seed0: ")
    assert last == f"error: resnet-0-seed0: {own if known else f'{type(error).__name__}: {own}'}"
    assert not trace if known else trace[0].startswith("Traceback") and "fail_first" in "".join(trace)
    with pytest.raises(type(error)):
        main(["--debug", *line])


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_stop_ends_a_command_of_several_runs_at_once(stop, two_runs, monkeypatch):
    asked = []

    def end(folder, *arguments):
        asked.append(folder.name)
        raise stop

    monkeypatch.setattr(overshoot, "measure_run", end)
    line = ["steps", "resnet-0", "small-10", "--root", str(two_runs)]
    if stop is SystemExit:
        with pytest.raises(SystemExit):
            main(line)
    else:
        assert main(line) == 130
    assert asked == ["resnet-0-seed0"]


def test_a_run_is_measured_without_reading_those_of_other_names(two_runs, capsys, monkeypatch):
    read, load = [], artifacts.load_run
    monkeypatch.setattr(artifacts, "load_run", lambda path: read.append(path.name) or load(path))
    (two_runs / "large-10-seed0").mkdir()
    (two_runs / "large-10-seed0" / "config.json").write_text("{")
    assert main(["steps", "small-10", "--images", "4", "--root", str(two_runs)]) == 0
    assert set(read) == {"small-10-seed0"} and capsys.readouterr().err == ""
    assert main(["steps", "small-10", "--seed", "7", "--root", str(two_runs)]) == 2
    assert "no finished run of small-10 with that seed; stored are seeds 0;" in capsys.readouterr().err


@pytest.mark.parametrize("command, module, function, said", [
    ("health", gradient_health, "health", "of this one nothing; the same command measures all of them again"),
    ("steps", overshoot, "follow", "of this one nothing"),
    ("solver-versions", solver_versions, "left", "of this one nothing"),
    ("measure", measure_states, "local", "what was done is stored; the same command goes on"),
    ("rescale", evaluation, "evaluate", "what was done is stored; the same command goes on"),
])
def test_an_interrupt_says_what_became_of_the_work(command, module, function, said, two_runs, capsys,
                                                   monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, function, interrupt)
    monkeypatch.setattr(solver_versions, "OLDER", ())
    part = ["--part", "local"] if command == "measure" else []
    assert main([command, "small-10", "--root", str(two_runs), *part]) == 130
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("interrupted; ") and said in error
    assert not artifacts.load_run(two_runs / "small-10-seed0").measurements


def test_a_study_that_ran_out_of_time_says_what_is_missing_and_goes_on(two_runs, capsys, monkeypatch):
    monkeypatch.setattr(rescaling, "TABLE_T1", (1.0,))
    monkeypatch.setattr(protocols, "rescaling_protocol", lambda config, whole=protocols.rescaling_protocol:
                        whole(config)[:2])
    line = ["rescale", "small-10", "--root", str(two_runs)]
    assert main([*line, "--budget", "0"]) == 3
    said = capsys.readouterr().out
    assert "small-10-seed0: the time is up before rescaled-adjoint-s1-t1, 3 records are missing" in said
    assert not artifacts.load_run(two_runs / "small-10-seed0").measurements  # the gaps are not begun, either
    assert main(line) == 0 and "all records of the study are stored" in capsys.readouterr().out
    assert main([*line, "--budget", "0"]) == 0


@pytest.mark.parametrize("command", ["health", "steps", "two-gradients", "solver-versions", "rescale"])
def test_what_needs_an_ode_is_refused_of_a_residual_network(command, capsys):
    assert main([command, "resnet-1"]) != 0
    assert "resnet-1 is a resnet" in capsys.readouterr().err


def test_a_seed_that_is_not_stored_and_a_folders_name_are_told_what_to_ask_for(capsys):
    assert main(["evaluate", "small-10", "--seed", "7"]) != 0
    assert "seeds 0, 1, 2" in capsys.readouterr().err
    assert main(["evaluate", "small-10-seed0"]) != 0
    assert "the run is small-10 and its seed 0" in capsys.readouterr().err
