"""`nas-ray check`: a file of a person's own is judged as a candidate is, and every mistake is told in one message."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from candidate_programs import GOOD

from jobs.check import MAX_LINE
from jobs.cli import main
from nas_ray.config import BudgetConfig, DatasetConfig, ProtocolConfig
from nas_ray.datasets import load_dataset
from nas_ray.judgement import judge_program
from nas_ray.outcome import Outcome, Stage
from nas_ray.program import parse_completion, read_program
from nas_ray.sandbox import Sandbox
from nas_ray.sandbox.launcher import ZygoteLost

LEARN = """
    def train_setup(self, prm):
        self.optimiser = torch.optim.SGD(self.parameters(), lr=prm["lr"])

    def learn(self, train_data):
        for images, labels in train_data:
            self.optimiser.zero_grad()
            F.cross_entropy(self(images), labels).backward()
            self.optimiser.step()


def supported_hyperparameters():
    return {"lr"}
"""
PROGRAMS = {
    "good.py": (GOOD, "valid"),
    "shape.py": (GOOD.replace("8 * in_shape[2]", "9 * in_shape[2]"), "shape_error"),
    "classes.py": (GOOD.replace("out_shape[0]", "7"), "invalid_output"),
    "syntax.py": (GOOD.replace("return self.head(", "return self.head(("), "syntax_error"),
    "prose.py": ("hello", "no_code"),
    "contract.py": (GOOD.replace("class Net", "class Other"), "contract_error"),
    "script.py": (GOOD + "\nraise SystemExit(0)\n", "build_error"),
    "exit.py": ("import os\n" + GOOD + "\nos._exit(3)\n", "crashed"),
}


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `nas-ray check` in this process."""
    with pytest.raises(SystemExit) as ended:
        main(["check", *map(str, arguments)])
    out, err = capsys.readouterr()
    code = ended.value.code
    return (0 if code is None else int(code)), out, err


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_every_file_has_one_line_in_order_and_the_walls_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write(tmp_path, name, text) for name, (text, _) in PROGRAMS.items()]
    code, out, err = call(capsys, *files, "--epochs", "1", "--unsafe")
    assert code == 0
    assert re.search(r"^walls: tier [A-D]: ", err, re.MULTILINE)
    lines = out.splitlines()
    assert len(lines) == len(files)
    for line, file, (_, outcome) in zip(lines, files, PROGRAMS.values(), strict=True):
        assert re.match(rf"{re.escape(str(file))} +\d+\.\d\d s  {outcome}: \S", line), line
    assert len({line.index(" s  ") for line in lines}) == 1
    assert re.search(r"valid: \d\d\.\d\d %$", lines[0])
    assert "build_error: SystemExit, line 18: 0" in out


def test_json_holds_the_judgement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path, name, PROGRAMS[name][0]) for name in ("good.py", "shape.py")]
    code, out, _ = call(capsys, *files, "--json", "--unsafe")
    good, shape = (json.loads(line) for line in out.splitlines())
    assert code == 0
    assert list(good) == ["file", "outcome", "detail", "accuracy", "seconds", "stage", "error_type"]
    assert (good["file"], good["outcome"], good["stage"]) == (str(files[0]), "valid", "train")
    assert good["accuracy"] > 0.8
    assert good["seconds"] > 0
    assert (shape["outcome"], shape["stage"], shape["error_type"]) == ("shape_error", "build", "RuntimeError")
    assert shape["accuracy"] is None
    assert "mat1 and mat2 shapes" in shape["detail"]


def test_a_program_may_train_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write(tmp_path, "own.py", GOOD + LEARN), write(tmp_path, "none.py", GOOD)]
    code, out, _ = call(capsys, *files, "--protocol", "candidate", "--epochs", "1", "--unsafe")
    assert code == 0
    own, none = out.splitlines()
    assert "  valid: " in own
    assert "  contract_error: ContractViolation, the program must define a function supported_hyperp" in none


def test_limits_are_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = write(tmp_path, "slow.py", GOOD + "\nimport time\ntime.sleep(60)\n")
    wide = write(tmp_path, "wide.py", GOOD + "\nkept = bytearray(3 << 30)\n")
    code, out, _ = call(capsys, slow, wide, "--time-limit", "2", "--memory-limit", "0.5", "--json", "--unsafe")
    outcomes = {Path(one["file"]).name: one for one in map(json.loads, out.splitlines())}
    assert code == 0
    assert outcomes["slow.py"]["outcome"] == "timeout"
    assert outcomes["slow.py"]["seconds"] < 10
    assert outcomes["wide.py"]["outcome"] == "out_of_memory"


def test_a_line_is_one_line_whatever_a_program_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "loud\x1b[31m.py", GOOD + "\nraise ValueError('\\x1b]0;title\\x07' + 'long ' * 1000)\n")
    code, out, _ = call(capsys, file, "--unsafe")
    assert code == 0
    (line,) = out.splitlines()
    assert line.isprintable()
    assert len(line.partition(" s  ")[2]) == MAX_LINE


def test_every_unreadable_file_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path, "good.py", GOOD)
    binary = tmp_path / "binary.py"
    binary.write_bytes(b"\xff\xfe\x00")
    code, out, err = call(capsys, good, tmp_path / "absent.py", binary, tmp_path, "--unsafe")
    assert (code, out) == (2, "")
    assert "Error: cannot read 3 files:" in err
    for part in ("absent.py: No such file", "binary.py: not UTF-8", f"{tmp_path}: Is a directory"):
        assert part in err


def test_every_wrong_option_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path, "good.py", GOOD)
    options = "--protocol own --epochs 0 --time-limit -1 --memory-limit 0 --set protocol.x=1"
    code, out, err = call(capsys, good, *options.split())
    assert (code, out) == (2, "")
    for part in ("protocol.kind = 'own'", "protocol.epochs = 0", "budget.train_seconds = -1", "budget.memory_gib = 0"):
        assert part in err
    assert "protocol.x: unknown key" in err
    code, out, err = call(capsys, good, "--dataset", "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere" in err


def test_an_engine_that_does_not_start_or_fails_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write(tmp_path, "good.py", GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "wait_until_ready", _lose)
        code, out, err = call(capsys, good, "--unsafe")
    assert (code, out) == (1, "")
    assert "Error: the sandbox could not start: it is gone" in err
    monkeypatch.setattr(Sandbox, "_run", _lose)
    code, out, _ = call(capsys, good, "--unsafe")
    assert code == 1
    assert "sandbox_error: ZygoteLost, it is gone" in out


def _lose(*arguments: object, **options: object) -> None:
    raise ZygoteLost("it is gone")


def test_a_set_key_wins_over_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "good.py", GOOD)
    _, out, _ = call(capsys, file, "--unsafe", "--set", "budget.parameters=100")
    assert "too_large: 5,226 parameters > 100 allowed" in out


def test_a_byte_order_mark_is_no_part_of_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mark.py"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert "  valid: " in call(capsys, file, "--epochs", "1", "--unsafe")[1]


def test_checking_imports_no_ray(tmp_path: Path) -> None:
    good = write(tmp_path, "good.py", GOOD)
    script = (
        "import sys\nfrom jobs.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print('imported:', [name for name in ('ray', 'vllm', 'transformers') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    command = [sys.executable, "-c", script, "check", str(good), "--epochs", "1", "--unsafe"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    assert "valid" in result.stdout
    assert "imported: []" in result.stdout


def test_a_judgement_names_the_stage_and_keeps_the_build() -> None:
    dataset = load_dataset(DatasetConfig())
    with Sandbox("cpu", dataset, ProtocolConfig(), BudgetConfig(memory_gib=1.0)) as sandbox:
        good = judge_program(read_program(GOOD), sandbox, dataset)
        broken = judge_program(parse_completion("no program"), sandbox, dataset)
        looks = GOOD.replace("return self.head", "open\n        return self.head")
        screened, walled = (judge_program(read_program(looks), sandbox, dataset, screens) for screens in (True, False))
    assert (good.outcome, good.stage) == (Outcome.VALID, Stage.TRAIN)
    assert good.build is not None
    assert good.build.parameters == 5226
    assert (broken.outcome, broken.stage, broken.build) == (Outcome.NO_CODE, Stage.PARSE, None)
    assert (screened.outcome, screened.stage) == (Outcome.FORBIDDEN, Stage.CONTRACT)
    assert walled.outcome is Outcome.VALID
