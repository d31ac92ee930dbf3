"""The commands as real processes. Planning and the data stage are real; the stage host is a fake one."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifacts.local import LocalStore
from launcher.commands.follow import _escaped
from launcher.pilots.local import LocalPilots
from tests.launcher.driving import wait_for

ROOT = Path(__file__).parents[2]
RECORD = '{"messages": [{"role": "user", "content": "%d?"}, {"role": "assistant", "content": "%d."}]}\n'


class Desk:
    """A working directory with a job in it, and the command line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder / ".slipway/store")
        self.work = folder / ".slipway/work"
        self.pilots = LocalPilots("local", self.store, self.work)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(ROOT),
            "FAKE_BEHAVIOUR": str(folder / "behaviour.json"),
        }
        self.behave()
        for split, count in (("train", 20), ("test", 4)):
            (folder / f"bot.{split}.jsonl").write_text("".join(RECORD % (i, i) for i in range(count)))
        (folder / "bot.yaml").write_text(
            "name: bot\nmodel:\n  twin: {}\ndata:\n  train: bot.train.jsonl\n  test: bot.test.jsonl\n"
            "training:\n  epochs: 1\n  max_length: 128\ncompute:\n  workers: 1\n"
        )

    def behave(self, **attempts: list[str]) -> None:
        (self.folder / "behaviour.json").write_text(json.dumps(attempts))

    def start(self, *argv: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "tests/launcher/fake_cli.py"), *argv],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # as a terminal starts it: a shell's background jobs, and what they start, ignore ^C
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def slipway(self, *argv: str, code: int = 0, **environment: str) -> str:
        """Run a command, check its exit code, and return what it said (errors after the rest)."""
        process = self.start(*argv, **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, out + err
        assert "Traceback" not in out + err or environment.get("SLIPWAY_DEBUG")
        return out + err

    def json(self, *argv: str) -> object:
        process = self.start(*argv, "--json")
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        return json.loads(out)

    def ledger(self) -> list[str]:
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        assert not [line for line in lines if line.startswith("OVERLAP")]
        return lines

    def wait_for_stage(self, kind: str) -> None:
        wait_for(lambda: kind in self.ledger(), 30)

    def pilot(self) -> int:
        """The process that drives the one run."""
        (run,) = self.pilots.alive_runs()
        rows = [json.loads(line) for i in self.store.list(f"runs/{run}/events") for line in self.lines(i.key)]
        return max((row for row in rows if row["stage"] == "run"), key=lambda row: row["time_s"])["pid"]

    def lines(self, key: str) -> list[bytes]:
        return self.store.read_bytes(key).splitlines()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    wait_for(lambda: not desk.pilots.alive_runs(), 60)  # no process outlives its test


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk whose run is complete, for commands that only look."""
    desk = Desk(tmp_path_factory.mktemp("done"))
    desk.said = desk.slipway("submit", "bot.yaml")  # type: ignore[attr-defined]
    return desk


def test_an_answer_gives_no_orders_to_the_terminal() -> None:
    assert _escaped("\x1b[2J[bold]a\nb") == "\N{REPLACEMENT CHARACTER}[2J\\[bold]a b"


# Help and imports ---------------------------------------------------------------------------------------


COMMANDS = (
    "init pin plan submit stage render status logs dashboard resume cancel runs fetch verify report gc data "
    "image schema clusters doctor merge quantize export predict publish compare chat serve"
)


def test_help_lists_every_command_and_the_exit_codes(done: Desk) -> None:
    text = done.slipway("--help")
    listed = re.findall(r"^  ([a-z]+) ", text.partition("Jobs:")[2], re.M)
    assert sorted(COMMANDS.split()) == sorted(listed)
    assert re.search(r"^Models.*:\n  merge +Make one model", text, re.M)
    assert "130" in text and "slipway init" in text


GROUPS = ("runs", "data", "image", "clusters")


@pytest.mark.parametrize("command", [c for c in COMMANDS.split() if c not in GROUPS])
def test_each_command_teaches_by_example(done: Desk, command: str) -> None:
    text = done.slipway(command, "--help")
    assert f"slipway {command}" in text.partition("Example")[2]


def test_the_command_line_loads_no_heavy_library() -> None:
    code = (
        "import sys, launcher.cli\n"
        "heavy = {'torch', 'ray', 'transformers', 'pydantic', 'rich', 'huggingface_hub', 'pyarrow'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_completion_offers_commands_and_runs(done: Desk) -> None:
    def complete(words: str) -> str:
        variables = {
            "_FAKE_CLI.PY_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        return done.slipway(**variables)

    assert "submit" in complete("slipway sub")
    assert "bot-" in complete("slipway status bo")


# A run from the job file to its results -----------------------------------------------------------------


def test_submit_ends_with_model_report_scores_and_answers(done: Desk) -> None:
    said = done.said  # type: ignore[attr-defined]
    assert re.search(
        r"started bot-[0-9a-f]{8} on local: data → model → prepare → train → merge → predict", said
    )
    assert re.search(r"train    complete · 6 steps · loss 0\.16", said)
    assert re.search(r"exact match +0\.0 +100\.0", said)
    assert said.count("noise") == 3 and "question 0?" in said
    assert re.search(rf"model   {done.store.root}/merged/[0-9a-f]{{64}}\n", said)


def test_the_time_of_a_run_leaves_out_pauses_between_its_drives(done: Desk) -> None:
    (before,) = done.json("runs")  # type: ignore[misc]
    time.sleep(1)
    done.slipway("submit", "bot.yaml")
    (after,) = done.json("runs")  # type: ignore[misc]
    assert before["driven_s"] < after["driven_s"] < before["driven_s"] + 1


def test_the_repeat_starts_no_host(done: Desk) -> None:
    began = time.monotonic()
    said = done.slipway("submit", "bot.yaml")
    assert "every stage is complete" in said and "exact match" in said
    assert time.monotonic() - began < 5
    assert len(done.ledger()) == 5
    (log,) = done.work.glob("runs/*/logs/host.log")
    assert time.time() - log.stat().st_mtime > 0.5


def test_what_the_commands_show(done: Desk) -> None:
    (run,) = done.json("runs")  # type: ignore[misc]
    assert (run["state"], run["stages_complete"]) == ("complete", 6)
    run_id = run["run_id"]
    assert run_id in done.slipway("runs", "ls")
    status = done.json("status", "bot")
    assert status["state"] == "complete" and len(status["checkpoints"]) == 6  # type: ignore[index]
    status = done.slipway("status")
    assert "complete" in status and "submitted by" in status
    assert "train: attempt 1" in done.slipway("logs", "bot", "--stage", "train")
    verified = done.json("verify", run_id)
    assert len(verified) == 12 and not any(verified.values())  # type: ignore[arg-type, attr-defined]
    assert "ok" in done.slipway("verify", next(iter(verified)))  # type: ignore[call-overload]
    assert done.json("submit", "bot.yaml")["scores"]["tuned"]["exact_match"] == 100  # type: ignore[index]
    assert "local" in done.slipway("clusters")
    assert done.json("gc", "--dry-run")["found"] == []  # type: ignore[index]
    assert done.slipway("cancel", "bot") == f"{run_id} is not running: complete\n"
    assert "every stage is complete" in done.slipway("resume", "bot")


def test_fetch_copies_what_verifies(done: Desk) -> None:
    said = done.slipway("fetch", "bot", "merged", "--to", "out")
    assert (done.folder / "out/made-by.txt").read_text() == "merge" and "as its manifest says" in said
    assert "is not an empty folder" in done.slipway("fetch", "bot", "--to", "out", code=2)
    assert "one of merged" in done.slipway("fetch", "bot", "nonsense", code=2)
    assert "add gguf to `after`" in done.slipway("fetch", "bot", "gguf", code=2)
    assert sorted(p.name for p in done.folder.glob(".out*")) == []


def test_damage_is_found_and_not_fetched(done: Desk) -> None:
    (key,) = (i.key for i in done.store.list("merged") if i.key.endswith("made-by.txt"))
    try:
        done.store.write_bytes(key, b"merge, not")
        said = done.slipway("verify", "bot", code=1)
        assert "BAD  merged/" in said and "made-by.txt: 10 bytes, 5 expected" in said
        assert "is damaged" in done.slipway("fetch", "bot", "--to", "damaged", code=1)
        assert not (done.folder / "damaged").exists()
        run_id = done.json("runs")[0]["run_id"]  # type: ignore[index]
        assert "--discard" in said and "BAD" in done.slipway("verify", f"runs/{run_id}", "--discard", code=1)
        assert "on local: merge\n" in done.slipway("submit", "bot.yaml")
        assert "BAD" not in done.slipway("verify", "bot")
    finally:
        done.store.write_bytes(key, b"merge")


def test_forgetting_a_run_and_collecting_what_it_left(desk: Desk) -> None:
    desk.slipway("submit", "bot.yaml")
    assert "nothing to remove" in desk.slipway("gc")
    desk.slipway("runs", "rm", "bot")
    assert "would be removed, 6 in all" in desk.slipway("gc", "--dry-run")
    assert "removed, 6 in all" in desk.slipway("gc")
    assert [path for path in desk.store.root.rglob("*") if path.is_file()] == []


def test_changing_predict_or_the_learning_rate_re_does_only_what_it_must(desk: Desk) -> None:
    desk.slipway("submit", "bot.yaml", "--set", "after=[]")
    assert desk.ledger() == ["model", "prepare", "train"]
    desk.slipway("submit", "bot.yaml", "--set", "after=[merge]")
    assert desk.ledger()[3:] == ["merge"]
    desk.slipway("submit", "bot.yaml")
    assert desk.ledger()[4:] == ["predict"]
    desk.slipway("submit", "bot.yaml", "--set", "predict.max_new_tokens=7")
    assert desk.ledger()[5:] == ["predict"]
    desk.slipway("submit", "bot.yaml", "--set", "training.learning_rate=1e-3")
    assert desk.ledger()[6:] == ["train", "merge", "predict"]
    desk.slipway("submit", "bot.yaml", "--fresh")
    assert desk.ledger()[9:] == ["train", "merge", "predict"]


# Attaching, detaching, killing ----------------------------------------------------------------------------


def test_two_submits_at_once_are_one_run(desk: Desk) -> None:
    desk.behave(train=["slow:1"])
    both = [desk.start("submit", "bot.yaml") for _ in range(3)]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0, 0]
    assert sum("started bot-" in err for _, err in said) == 1
    assert sum("attached to bot-" in err for _, err in said) == 2
    assert desk.ledger() == ["model", "prepare", "train", "merge", "predict"]


def test_interrupting_detaches_and_a_second_submit_attaches(desk: Desk) -> None:
    desk.behave(train=["slow:3"])
    first = desk.start("submit", "bot.yaml")
    desk.wait_for_stage("train")
    first.send_signal(signal.SIGINT)
    out, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert re.search(r"detached: (bot-[0-9a-f]{8}) goes on\n.*slipway status \1", err, re.S), out + err
    said = desk.slipway("submit", "bot.yaml")
    assert "attached to" in said and "exact match" in said
    assert desk.ledger().count("train") == 1


def test_detach_returns_at_once(desk: Desk) -> None:
    desk.behave(train=["slow:3"])
    said = desk.slipway("submit", "bot.yaml", "--detach")
    assert "slipway status bot-" in said
    (run,) = desk.json("runs")  # type: ignore[misc]
    assert run["state"] == "running"
    assert "it is running" in desk.slipway("runs", "rm", "bot", code=2)
    desk.wait_for_stage("train")
    follower = desk.start("logs", "bot", "-s", "train", "-f")
    assert "complete" in desk.slipway("status", "bot", "-f")
    assert "train: attempt 1" in follower.communicate(timeout=30)[0]


def test_following_the_logs_goes_from_stage_to_stage(desk: Desk) -> None:
    desk.behave(prepare=["slow:1"], train=["slow:1"])
    desk.slipway("submit", "bot.yaml", "--detach")
    said = desk.slipway("logs", "-f")
    assert re.findall(r"^(\w+): attempt 1", said, re.M)[-4:] == ["prepare", "train", "merge", "predict"]
    assert desk.json("runs")[0]["state"] == "complete"  # type: ignore[index]


def test_a_killed_pilot_is_told_and_the_next_submit_goes_on(desk: Desk) -> None:
    desk.behave(train=["slow:2"])
    first = desk.start("submit", "bot.yaml")
    desk.wait_for_stage("train")
    os.kill(desk.pilot(), signal.SIGKILL)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 1
    assert "the run failed: its pilot ended before the run did" in err and "`slipway resume" in err
    assert (desk.json("runs"))[0]["state"] == "interrupted"  # type: ignore[index]
    desk.slipway("submit", "bot.yaml")
    assert desk.ledger().count("merge") == 1


def test_a_run_goes_on_after_its_folder_was_moved(desk: Desk) -> None:
    desk.behave(merge=["fail:no|try again", "ok"])
    desk.slipway("submit", "bot.yaml", code=1)
    for name in ("store", "work"):
        (desk.folder / ".slipway" / name).rename(desk.folder / f"moved-{name}")
    (desk.folder / "moved.yaml").write_text("backend: local\nstore: moved-store\nwork: moved-work\n")
    assert "exact match" in desk.slipway("resume", "bot", "--cluster", "./moved.yaml")
    assert not desk.store.root.exists()


def test_cancel_saves_and_resume_goes_on_from_there(desk: Desk) -> None:
    desk.behave(train=["slow:6"])
    desk.slipway("submit", "bot.yaml", "--detach")
    desk.wait_for_stage("train")
    wait_for(lambda: any("COMPLETE" in info.key for info in desk.store.list("train")), 30)
    assert re.search(r"is drained, saved at step \d; `slipway resume bot-", desk.slipway("cancel", "bot"))
    assert "checkpoints: step 1 (complete" in desk.slipway("status", "bot")
    said = desk.slipway("resume", "bot")
    assert re.search(r"training goes on from step \d", said) and "exact match" in said
    assert desk.ledger().count("train") == 2


# What goes wrong --------------------------------------------------------------------------------------------


def test_a_failed_run_says_stage_cause_advice_and_evidence(desk: Desk) -> None:
    desk.behave(train=["fail:loss is NaN at step 3|lower training.learning_rate", "ok"])
    said = desk.slipway("submit", "bot.yaml", code=1)
    assert (
        "error: stage train failed: loss is NaN at step 3\n  advice: lower training.learning_rate\n" in said
    )
    evidence = Path(re.search(r"evidence: (.*)", said)[1])  # type: ignore[index]
    assert "train: attempt 1" in evidence.read_text()
    assert "loss is NaN" in desk.slipway("status", "bot")
    assert "train: attempt 1" in desk.slipway("logs", "bot")
    assert "exact match" in desk.slipway("submit", "bot.yaml")  # the next one goes on
    assert desk.ledger() == ["model", "prepare", "train", "train", "merge", "predict"]


def test_a_bad_record_is_a_user_error(desk: Desk) -> None:
    head = "".join(RECORD % (i, i) for i in range(3))
    (desk.folder / "bot.train.jsonl").write_text(head + '{"messages": [{"role": "user"}]}\n')
    assert "bot.train.jsonl" in desk.slipway("submit", "bot.yaml", code=2)
    assert desk.ledger() == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["submit", "none.yaml"], "none.yaml"),
        (["submit", "bot.yaml", "--set", "training.epoch=3"], "did you mean `epochs`"),
        (["submit", "bot.yaml", "--cluster", "prod"], "prod"),
        (["status", "nobody"], "nobody"),
        (["verify", "0123abcd"], "0123abcd"),
        (["logs", "bot", "--stage", "quantize"], "one of data, model, prepare, train, merge, predict"),
        (["logs", "bot", "--rank", "1"], "--rank 1: on this machine all ranks write one log"),
        (["stage", "bot.yaml"], "stage on cluster local: everything runs on this machine"),
        (["render", "bot.yaml"], "name a Kubernetes profile with --cluster"),
        (["dashboard", "bot"], "slipway status bot-"),
        (["frobnicate"], "frobnicate"),
        (["submit"], "JOB"),
        (["schema", "store"], "job or cluster"),
        (["cancel", ""], "run (empty name)"),
        (["fetch", "bot", "--to", "/proc/nowhere"], "/proc/nowhere: no such file or directory"),
        (["fetch", "bot", "report", "--to", "bot.yaml"], "bot.yaml: file exists"),
        (["data", "check", "none.jsonl"], "no such file; check the path"),
        (["init", "No Good"], "No Good"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_message_and_exit_code_2(done: Desk, argv: list[str], words: str) -> None:
    assert words in done.slipway(*argv, code=2)


def test_data_check_says_what_is_wrong_with_a_file(done: Desk) -> None:
    assert "20 good records, 0 bad" in done.slipway("data", "check", "bot.train.jsonl")
    assert done.json("data", "check", "bot.train.jsonl")["records"] == 20  # type: ignore[index]
    (done.folder / "bad.jsonl").write_text(RECORD % (1, 1) + "{nonsense\n")
    assert re.search(r"record 2.*byte", done.slipway("data", "check", "bad.jsonl", code=2))
    assert "--format tsv" in done.slipway("data", "check", "bad.jsonl", "--format", "tsv", code=2)


def test_nothing_is_written_for_a_job_that_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.slipway("submit", "bot.yaml", "--set", "training.epochs=-1", code=2)
    assert not (tmp_path / ".slipway").exists()


@pytest.mark.parametrize("field", ["store", "work"])
def test_a_store_or_work_folder_that_can_not_be_written_is_told_before_the_start(
    tmp_path: Path, field: str
) -> None:
    desk = Desk(tmp_path)
    (tmp_path / "closed.yaml").write_text(f"backend: local\n{field}: bot.yaml/inside\n")
    said = desk.slipway("submit", "bot.yaml", "--cluster", "./closed.yaml", code=2)
    assert said.startswith(f"error: {field} {tmp_path}/bot.yaml/inside: can't be written: not a directory")
    assert said.count("\n") == 1 and desk.pilots.alive_runs() == []


def test_a_pilot_that_could_not_write_its_events_says_why(desk: Desk) -> None:
    desk.behave(train=["slow:3"])
    first = desk.start("submit", "bot.yaml")
    desk.wait_for_stage("train")
    (log,) = desk.work.glob("runs/*/pilot.log")
    log.write_text("OSError: [Errno 28] No space left on device: '/store/runs'\n")
    os.kill(desk.pilot(), signal.SIGKILL)
    _, err = first.communicate(timeout=30)
    assert "its pilot ended before the run did: a disk is full" in err and "free space" in err
    desk.slipway("submit", "bot.yaml")


@pytest.mark.parametrize(
    ("redirection", "code", "words"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("> /dev/full", 3, "error: output: the disk is full; free space"),
        ("| cat > /dev/null", 0, ""),
    ],
)
def test_output_that_goes_nowhere(done: Desk, redirection: str, code: int, words: str) -> None:
    ended = subprocess.run(
        f"{sys.executable} {ROOT}/tests/launcher/fake_cli.py plan bot.yaml {redirection}",
        shell=True,
        cwd=done.folder,
        env=done.environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == code and ended.stderr.startswith(words)
    assert ended.stderr.count("\n") == bool(words)


def test_a_terminal_of_another_encoding_gets_question_marks(done: Desk) -> None:
    assert "bot-" in done.slipway("plan", "bot.yaml", PYTHONIOENCODING="ascii")


def test_debugging_shows_the_traceback(done: Desk) -> None:
    assert "Traceback" in done.slipway("status", "nobody", code=2, SLIPWAY_DEBUG="1")


def test_init_writes_a_job_once(desk: Desk) -> None:
    assert "slipway plan shop.yaml" in desk.slipway("init", "shop")
    assert "the file is there already" in desk.slipway("init", "shop", code=2)


def test_a_reader_that_goes_away_is_no_error(done: Desk) -> None:
    process = subprocess.run(
        f"{sys.executable} {ROOT}/tests/launcher/fake_cli.py schema job | head -1",
        shell=True,
        cwd=done.folder,
        env=done.environment,
        capture_output=True,
        text=True,
    )
    assert process.stdout == "{\n" and process.stderr == ""


# A terminal -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("stty") is None, reason="needs a terminal's tools")
def test_a_terminal_gets_the_live_table(desk: Desk) -> None:
    desk.behave(train=["slow:1"])
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/launcher/fake_cli.py"), "submit", "bot.yaml"],
        cwd=desk.folder,
        env={**desk.environment, "TERM": "xterm-256color", "COLUMNS": "120"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    screen = b""
    while select.select([master], [], [], 30)[0]:
        try:
            screen += os.read(master, 65536)
        except OSError:  # the other end is closed
            break
    assert process.wait(10) == 0
    text = screen.decode()
    for part in ("━", "tokens/s", "loss", "✓", "exact match"):
        assert part in text
    assert "\x1b[?25h" in text  # the cursor is back
