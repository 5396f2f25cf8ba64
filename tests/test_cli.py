"""The command: what it answers, where it says so, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from rich.console import Console
from tables import PROJECT, Command, contents, opened, own_notebook, places, prodkit, stocked

from prodkit import cli
from prodkit.errors import ParameterError, StoreError
from prodkit.params import NOTEBOOKS
from prodkit.runs.runner import Run, _warn
from prodkit.settings import expand
from prodkit.store.registry import Store

__all__ = ["places", "prodkit"]  # fixtures

SIGNED = ("--name", "Ada", "--reason", "a test")


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    """The command is typed in the project's folder."""
    monkeypatch.chdir(PROJECT)


@pytest.fixture
def at(places, tmp_path):
    """Options that name the store of two versions."""
    return ("--out", tmp_path / "out", "--store", places["store"], "--artifacts", places["artifacts"])


@pytest.fixture
def ended(monkeypatch, tmp_path):
    """`prodkit run` without a kernel: the run ends with the result that the test says."""
    document = {
        **{"run_id": "score-1", "status": "succeeded", "outcome": "pass", "action": None},
        **{"reasons": ["all is well"], "params": {}},
    }
    run = Run(tmp_path, document)
    monkeypatch.setattr("prodkit.runs.runner.run_notebook", lambda *_, **__: run)
    return document


# Exit status


@pytest.mark.parametrize(
    ("status", "outcome", "action", "plain", "strict"),
    [
        ("succeeded", "pass", None, 0, 0),
        ("succeeded", "pass", "keep", 0, 0),
        ("succeeded", "fail", "watch", 0, 3),
        ("succeeded", "pass", "promote", 0, 3),
        ("succeeded", "fail", "rollback", 0, 3),
        ("succeeded", "fail", "hold", 0, 3),
        ("succeeded", "fail", None, 0, 3),
        ("succeeded", "inconclusive", "keep", 0, 4),
        ("succeeded", "inconclusive", None, 0, 4),
        ("succeeded", "error", None, 1, 1),
        ("failed", "error", None, 1, 1),
        ("interrupted", "pass", None, 1, 1),
    ],
)
def test_the_exit_status_says_what_came_of_it(
    prodkit: Command, ended, status, outcome, action, plain, strict
):
    """0 it ran, 1 it failed; with --exit-code also 3 (something is to be done) and 4 (it could not be told)."""
    ended |= {"status": status, "outcome": outcome, "action": action}
    assert prodkit("run", "score")[0] == plain
    assert prodkit("run", "score", "--exit-code")[0] == strict


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "scroe"], r"found scroe\. There are: drift, monitor, rollback, score"),
        (
            ["run", "score", "-p", "batch_row", "5"],
            r"batch_row is not a parameter.*Did you mean batch_rows\?",
        ),
        (
            ["run", "score", "-p", "batch_rows", "0"],
            r"batch_rows is wrong: .*greater than or equal to 1; found 0",
        ),
        (
            ["run", "score", "-f", "nowhere.yaml"],
            r"-f must name a file that can be read; found nowhere\.yaml",
        ),
        (["run", "score", "-p", "batch_rows"], "Option '-p' requires 2 arguments"),
        (["run"], "Missing argument 'NOTEBOOK'"),
        (["lifecycle", "-p", "no_such", "1"], "no_such is not a parameter"),
        (["models", "promote", "one", *SIGNED], "'one' is not a valid int"),
        (["models", "promote", "1"], "Missing option '--name'"),
        (["modles"], "No such command 'modles'"),
        (["run", "score", "--quick"], "No such option"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_clear_sentence(prodkit: Command, tmp_path, arguments, message):
    """A wrong name, value or option is said on stderr, ends with 2, and leaves nothing behind."""
    out = ["--out", tmp_path / "out"] if arguments[0] in ("run", "lifecycle") else []
    status, printed, told = prodkit(arguments[0], *out, *arguments[1:])
    assert (status, printed) == (2, "")
    assert re.search(message, told)
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()


def test_the_store_refuses_with_1(prodkit: Command, at):
    """What the store does not allow ends with 1 and the rule that forbids it."""
    status, printed, told = prodkit("models", "promote", "9", *SIGNED, *at)
    assert (status, printed) == (1, "")
    assert told == "prodkit: version 9 must be a registered one. Known are: 1, 2.\n"


def test_help_and_version_answer_on_stdout(prodkit: Command):
    """Whoever asks is told, and 0 is no error."""
    for arguments in (["--help"], ["models", "-h"], ["run", "--help"], ["--version"]):
        status, printed, told = prodkit(*arguments)
        assert (status, told) == (0, "")
        assert re.search(r"Usage|version", printed)


# stdout and stderr


def test_json_alone_stands_on_stdout_of_the_real_process(tmp_path):
    """`prodkit run --json` prints result.json alone, whatever the notebook and what it starts print."""
    path = own_notebook(
        tmp_path, "a = 1", "import os\nprint('to stdout')\nos.system('echo from a process')", "a + 1"
    )
    command = [sys.executable, "-c", "from prodkit.cli import main; main()", "run", path, "--json"]
    command += ["--exit-code", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4  # it recorded no result
    document = json.loads(done.stdout)
    kept = tmp_path / "out" / "runs" / document["run_id"] / "result.json"
    assert document == json.loads(kept.read_text())
    assert done.stderr == "from a process\n"


def test_without_json_the_answer_goes_to_people(prodkit: Command, ended):
    """The verdict, its first reasons and the page stand on stderr; stdout stays free."""
    status, printed, told = prodkit("run", "score")
    assert (status, printed) == (0, "")
    assert told.splitlines()[:2] == ["score-1: succeeded, pass", "all is well"]
    assert told.splitlines()[2].endswith("report.html")


@pytest.fixture
def short_life(monkeypatch, tmp_path):
    """A lifecycle of one month that is over at once."""
    rows = [{"window": "2013-04", "decision": "keep [a]"}]
    life = SimpleNamespace(table=lambda: rows, notes=["feed is silent"], tell=print)

    def live():
        life.tell("train 2013-04")
        life.tell("score 2013-04")
        return tmp_path / "index.html"

    life.live = live
    monkeypatch.setattr("prodkit.lifecycle.lifecycle", lambda *_, **__: life)


def test_progress_is_quiet_when_nobody_watches(prodkit: Command, short_life, tmp_path):
    """Without a terminal stderr stays empty; stdout ends with the table and the page to open."""
    status, printed, told = prodkit("lifecycle", "--out", tmp_path)
    assert (status, told) == (0, "")
    assert "keep [a]" in printed
    assert printed.splitlines()[-1] == f"open {tmp_path / 'index.html'}"


def test_progress_goes_to_stderr(prodkit: Command, short_life, tmp_path, monkeypatch):
    """On a terminal the steps are told on stderr, and stdout is the same as without."""
    monkeypatch.setattr("prodkit.console._stderr", Console(stderr=True, force_terminal=True, width=100))
    status, printed, told = prodkit("lifecycle", "--out", tmp_path)
    assert status == 0
    assert "score 2013-04" in told
    assert "\x1b" not in printed
    assert "score" not in printed


# Models


def test_list_shows_where_each_version_stands(prodkit: Command, at):
    """Champion, predecessor, what they learned from; the same as JSON, which alone goes to stdout."""
    status, printed, told = prodkit("models", "list", *at)
    assert (status, told) == (0, "")
    assert re.search(r"1 .*predecessor .*2024-01-01/2024-01-20", printed)
    assert re.search(r"2 .*champion .*2024-01-01/2024-01-27", printed)
    assert "champion: v2, generation 2" in printed
    document = json.loads(prodkit("models", "list", "--json", *at)[1])
    assert (document["champion"]["version"], document["champion"]["generation"]) == (2, 2)
    assert [(row["version"], row["standing"]) for row in document["versions"]] == [
        (1, "predecessor"),
        (2, "champion"),
    ]


def test_an_empty_store_is_listed_as_such(prodkit: Command, tmp_path):
    """Before the first training there is nothing yet, which is no error."""
    Store.open(f"sqlite:///{tmp_path}/out/store.db", f"{tmp_path}/out/artifacts").close()
    status, printed, told = prodkit("models", "list", "--out", tmp_path / "out")
    assert (status, told) == (0, "")
    assert "nothing yet" in printed
    assert "champion: none, generation 0" in printed


def test_show_tells_all_of_a_version(prodkit: Command, at):
    """One version as JSON: digest, schema, parameters, environment."""
    status, printed, _ = prodkit("models", "show", "2", *at)
    document = json.loads(printed)
    assert (status, document["number"], document["quarantined"]) == (0, 2, False)
    assert document["manifest"]["trained"] == "2024-01-01/2024-01-27"
    assert document["manifest"]["schema"]["classes"] == [0, 1]
    assert {"python", "scikit-learn"} <= document["manifest"]["environment"].keys()


def test_history_tells_all_events(prodkit: Command, at):
    """Every registration and promotion, oldest first, with who and why."""
    status, printed, _ = prodkit("models", "history", *at)
    assert status == 0
    assert [line.split()[3] for line in printed.splitlines() if re.match(r"│ \d", line)] == [
        *("register", "register", "promote", "promote")
    ]
    events = json.loads(prodkit("models", "history", "--json", *at)[1])
    assert [(event["number"], event["kind"], event["version"]) for event in events][-1] == (4, "promote", 2)


def test_check_finds_what_was_changed_by_hand(prodkit: Command, at, places):
    """A sound store ends with 0; a changed artifact with 1, and the version that it belongs to."""
    assert prodkit("models", "check", *at) == (0, "4 events, 0 problems\n", "")
    with opened(places) as store:
        location = store.version(1).location
    path = Path(places["artifacts"], location)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    status, printed, told = prodkit("models", "check", *at)
    assert (status, printed) == (1, "4 events, 1 problems\n")
    assert "version 1 must have the SHA-256" in told


def test_promote_and_rollback_move_the_champion(prodkit: Command, at):
    """By hand, with a name and a reason that the history keeps; what was rolled back needs force to return."""
    status, printed, _ = prodkit("models", "rollback", *SIGNED, *at)
    assert (status, printed) == (0, "champion: v1, generation 3\n")
    status, _, told = prodkit("models", "promote", "2", *SIGNED, *at)
    assert status == 1
    assert "version 2 must not be in quarantine" in told
    status, printed, _ = prodkit("models", "promote", "2", "--force", *SIGNED, *at)
    assert (status, printed) == (0, "champion: v2, generation 4\n")
    events = json.loads(prodkit("models", "history", "--json", *at)[1])
    assert [(event["kind"], event["actor"], event["reason"]) for event in events[4:]] == [
        ("rollback", "Ada", "a test"),
        ("quarantine", "Ada", "a test"),
        ("promote", "Ada", "a test"),
    ]


def test_freeze_stops_everybody_until_it_ends(prodkit: Command, at):
    """A frozen champion is neither promoted over nor rolled back, and thaws with --off."""
    assert prodkit("models", "freeze", *SIGNED, *at)[1] == "champion: v2, generation 2, frozen\n"
    for arguments in (["rollback"], ["promote", "1"]):
        status, _, told = prodkit("models", *arguments, *SIGNED, *at)
        assert (status, "champion must not be frozen" in told) == (1, True)
    assert prodkit("models", "freeze", "--off", *SIGNED, *at)[1] == "champion: v2, generation 2\n"
    assert prodkit("models", "rollback", *SIGNED, *at)[0] == 0


@pytest.fixture
def proposed(tmp_path):
    """A store in which a run has proposed to promote version 2; options that name it."""
    places = stocked(tmp_path, promoted=[1])
    with opened(places) as store:
        store.propose("validate-7", action="promote", version=2, generation=1, reason="better")
    return places, ("--out", tmp_path, "--store", places["store"], "--artifacts", places["artifacts"])


def test_approve_carries_out_what_a_run_proposed(prodkit: Command, proposed):
    """Once: a second approval, or that of an unknown run, is refused."""
    _, at = proposed
    status, printed, _ = prodkit("models", "approve", "validate-7", *SIGNED, *at)
    assert (status, printed) == (0, "champion: v2, generation 2\n")
    for run in ("validate-7", "validate-8"):
        status, _, told = prodkit("models", "approve", run, *SIGNED, *at)
        assert (status, f"run {run} must have a proposal" in told) == (1, True)


def test_reject_settles_a_proposal(prodkit: Command, proposed):
    """The champion stays, and nobody can approve any more."""
    _, at = proposed
    assert prodkit("models", "reject", "validate-7", *SIGNED, *at)[1] == "champion: v1, generation 1\n"
    assert prodkit("models", "approve", "validate-7", *SIGNED, *at)[0] == 1


def test_a_proposal_about_another_champion_is_refused(prodkit: Command, proposed):
    """If the champion changed since it was judged, an approval carries out nothing."""
    places, at = proposed
    with opened(places) as store:
        store.register(b"3", {}, run_id="train-3")
        store.promote(3, expected_generation=1, reason="meanwhile")
    before = contents(places)
    status, _, told = prodkit("models", "approve", "validate-7", *SIGNED, *at)
    assert status == 1
    assert "must still be that of generation 1, which was judged; found generation 2" in told
    assert contents(places) == before


def test_text_from_names_and_reasons_moves_no_cursor(prodkit: Command, at, places):
    """What the history holds is printed with its control characters as escapes, also those that turn text round."""
    with opened(places) as store:
        store.freeze(actor="Eve\x1b[2J", reason="all is \u202ewell\x9b")
    for arguments in (("history",), ("list",), ("promote", "1", *SIGNED)):
        _, printed, told = prodkit("models", *arguments, *at)
        assert not set("\x1b\x9b\u202e") & set(printed + told)
    assert "Eve\\x1b[2J" in prodkit("models", "history", *at)[1]


@pytest.mark.parametrize("text", ["a\x1b[2J", "a\nchampion: v9", "\udcff", "\u202eb", "  "])
@pytest.mark.parametrize("option", ["--name", "--reason"])
def test_a_name_or_a_reason_is_plain_text(prodkit: Command, at, option, text):
    """Control characters, line ends and bytes that are no UTF-8 are a wrong call, and nothing happens."""
    signed = {"--name": "Ada", "--reason": "a test", option: text}
    options = [word for pair in signed.items() for word in pair]
    status, printed, told = prodkit("models", "freeze", *options, *at)
    assert (status, printed) == (2, "")
    assert re.search("it must (be plain text|not be blank)", told)
    assert "frozen" not in prodkit("models", "list", *at)[1]


# README


DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "prodkit" / "help").glob("*.md"))]


def readme_commands() -> list[str]:
    """Each `prodkit ...` of README and help: lines of indented or fenced blocks, and code in sentences."""
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    lines = [line.strip().removeprefix("$ ") for line in text.splitlines() if line.startswith("    ")]
    for fence in re.findall(r"```\w*\n(.*?)```", text, flags=re.S):
        lines += [line.strip().removeprefix("$ ") for line in fence.splitlines()]
    pieces = [piece.strip() for line in lines for piece in re.split(r"&&|;|\|", line)]
    pieces += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    return [piece for piece in pieces if re.match(r"prodkit\s", piece)]


def parsed(command: str) -> click.Command:
    """The command that is named, read as click would before it runs it; raises what the user would see."""
    found: click.Command = cli.prodkit
    words = shlex.split(command, comments=True)[1:]
    while isinstance(found, click.Group) and words:
        context = click.Context(found)
        _, child, words = found.resolve_command(context, words)
        assert child is not None
        found = child
    if words:  # a bare name in a sentence is only a name
        found.make_context(found.name, words)
    return found


def leaves(group: click.Group, path: str = "prodkit") -> list[str]:
    """All commands, written out."""
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += leaves(command, f"{path} {name}")
        else:
            found.append(f"{path} {name}")
    return found


def test_the_readme_has_commands():
    """The main job and one of each group are shown."""
    shown = {" ".join(command.split()[:2]) for command in readme_commands()}
    assert {"prodkit lifecycle", "prodkit run", "prodkit models"} <= shown


@pytest.mark.parametrize("command", readme_commands())
def test_each_command_of_the_readme_is_one_that_there_is(command):
    """A command of the README is understood by the command line, options and all."""
    assert parsed(command) is not cli.prodkit or command.split() == ["prodkit"]


def test_each_command_is_in_the_readme():
    """The README names every command that there is, so that nobody has to find one by accident."""
    text = (PROJECT / "README.md").read_text()
    groups = {name.split()[1] for name in leaves(cli.prodkit)}
    assert [
        name for name in sorted(groups) if not re.search(rf"`(prodkit )?{name}\b|prodkit {name}\b", text)
    ] == []


def test_the_check_of_the_readme_finds_a_wrong_command():
    """A command or an option that does not exist would be found."""
    for wrong in ("prodkit modles list", "prodkit run score --quickly", "prodkit models approve RUN"):
        with pytest.raises(click.UsageError, match=r"No such|Missing parameter: name"):
            parsed(wrong)


def test_each_topic_of_the_help_is_there(prodkit: Command):
    """The list names every topic; each has a title and text, and a notebook's parameters have default and meaning."""
    names = re.findall(r"`prodkit help (\w+)`", prodkit("help")[1])
    assert {"decisions", "data", "serving", "store", "scheduling", "security", *NOTEBOOKS} <= set(names)
    for name in names:
        status, printed, _ = prodkit("help", name)
        assert (status, printed[:2]) == (0, "# "), name
    assert '- `label_delay`: how long until a label is known. Default: `"1d"`.' in prodkit("help", "train")[1]
    status, _, told = prodkit("help", "decision")
    assert (status, "Did you mean decisions?" in told) == (2, True)


@pytest.mark.parametrize("fault", [RuntimeError, StoreError, ParameterError])
def test_a_failure_does_not_show_what_was_read_from_the_environment(prodkit, monkeypatch, fault):
    """One sentence or a whole traceback: the name of the variable stands where its value was."""
    monkeypatch.setenv("SHOP_PASSWORD", "swordfish/é")

    def fail(*_, **__):
        address = expand("postgresql://me:${SHOP_PASSWORD}@db")
        raise (
            fault(address)
            if fault is RuntimeError
            else fault("store", rule="must be there", value=repr(address))
        )

    monkeypatch.setattr("prodkit.store.registry.Store.open", fail)
    status, printed, told = prodkit("models", "list")
    assert (status, printed) == (2 if fault is ParameterError else 1, "")
    assert "postgresql://me:${SHOP_PASSWORD}@db" in told
    assert "swordfish" not in told
    assert ("Traceback" in told) == (fault is RuntimeError)


# When things go wrong around it


@pytest.mark.parametrize("listener", ["closed", "pipe", "terminal"])
def test_nobody_who_listens_changes_no_exit_status(listener):
    """A wrong call ends with 2 also where standard error is closed, or its reader has gone."""
    reader, writer = os.openpty() if listener == "terminal" else os.pipe()
    os.close(reader)
    command = [shutil.which("prodkit"), "run", "no-such-notebook"]
    if listener == "closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, cwd=PROJECT, check=False)
    os.close(writer)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_warning_never_goes_to_stdout(prodkit: Command, monkeypatch, capsys):
    """Where standard error is closed, what the runner has to say is lost rather than mixed with the answer."""
    monkeypatch.setattr(sys, "stderr", None)
    _warn("something happened")
    assert capsys.readouterr().out == ""


def test_an_interrupt_is_no_failure(prodkit: Command, monkeypatch):
    """Ctrl-C ends with 130: 1 would say that a verification does not match, or that a check found something."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("prodkit.store.registry.Store.open", interrupt)
    assert prodkit("models", "check")[0] == 130


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_what_the_machine_refuses_is_one_sentence(prodkit: Command, monkeypatch, number):
    """A full disk or a folder that cannot be written to is no fault of the package: no traceback, but a next step."""

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), "/data/outputs")

    monkeypatch.setattr("prodkit.store.registry.Store.open", refuse)
    status, printed, told = prodkit("models", "check")
    assert (status, printed) == (1, "")
    assert told.startswith(f"prodkit: /data/outputs: {os.strerror(number)}. Make room or give access")


def test_the_report_leaves_out_what_cannot_be_read(prodkit: Command, tmp_path):
    """One damaged record costs its own line in the list of all runs, and is named."""
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "result.json").write_text("{half")
    Store.open(f"sqlite:///{tmp_path}/store.db", f"{tmp_path}/artifacts").close()
    status, _, told = prodkit("report", "--out", tmp_path)
    assert status == 0
    assert "broken/result.json cannot be read" in told
