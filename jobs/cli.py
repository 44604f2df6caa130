"""The command line: `nas-ray COMMAND`.

In: arguments. Out: an exit code: 0; 1 where `check` could not judge a file; 2 for a mistake in the input, told in one
message; 130 after Ctrl-C. Each command is a function of its own module in this room, and its module is imported only
when it is called, so that `nas-ray --help` does not wait for Ray, torch and vLLM.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

OUR_PACKAGES = ("nas_ray", "actors", "jobs")


class Entry(NamedTuple):
    """Where a command is and what it is for."""

    name: str
    function: str  # "module:function"
    summary: str


ENTRIES = (
    Entry("search", "jobs.search:search_command", "Start a search from a configuration."),
    Entry("plan", "jobs.plan:plan_command", "Plan a search: what to set for a budget, and what to expect."),
    Entry("config", "jobs.config:config_command", "Print every configuration key with its default and purpose."),
    Entry("resume", "jobs.resume:resume_command", "Go on with a search that ended early."),
    Entry("status", "jobs.status:status_command", "Show how far a run is, cycle by cycle."),
    Entry("leaderboard", "jobs.leaderboard:leaderboard_command", "List the best candidates of a run."),
    Entry("show", "jobs.show:show_command", "Show one candidate: code, lineage, measurements."),
    Entry("export", "jobs.export:export_command", "Retrain a candidate and write it as files of its own."),
    Entry("transfer", "jobs.transfer:transfer_command", "Evaluate a run's elites on other data sets."),
    Entry("final", "jobs.final:final_command", "Train a run's best for longer; their test accuracy, once."),
    Entry("reliability", "jobs.reliability:reliability_command", "Re-train a random part of a run: how much was luck?"),
    Entry("diagnose", "jobs.diagnose:diagnose_command", "Is a run learning, memorising, starving, measuring noise?"),
    Entry("check", "jobs.check:check_command", "Check program files of your own: outcome and accuracy."),
    Entry("report", "jobs.report:report_command", "Write a run's report.html again."),
    Entry("lemur", "jobs.lemur:lemur_app", "Import programs of LEMUR, export elites to it."),
    Entry("finetune", "jobs.finetune:finetune_command", "Fine-tune the generator on a finished cycle by hand."),
    Entry("doctor", "jobs.doctor:doctor_command", "Check everything that a long run needs before it starts."),
    Entry("pretrain", "jobs.pretrain:command", "Train the seed model that the package carries."),
)


class LazyGroup(TyperGroup):
    """A group whose commands are known by name and summary, and imported when one of them is called."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for entry in ENTRIES:
            self.add_command(TyperCommand(entry.name, help=entry.summary, add_help_option=False))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The called command itself in place of its entry."""
        name, _entry, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name else None, rest


def load_command(name: str) -> Any:
    """Import the command, or the group of commands, called `name`."""
    module, _, function = next(entry.function for entry in ENTRIES if entry.name == name).partition(":")
    found = getattr(import_module(module), function)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    command_app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    command_app.command(name)(found)
    return typer.main.get_command(command_app)


app = typer.Typer(
    cls=LazyGroup,
    name="nas-ray",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Neural architecture search in which a language model writes the networks and learns from what worked.

    Example, three cycles of 16 candidates with everything that the package carries (about a minute on 2 quiet cores):

        nas-ray search --config examples/quickstart.yaml

    Every command shows an example of its own: nas-ray search --help
    """


def explain(error: BaseException) -> str | None:
    """The message for a person, if `error` is one that this project raises for people; None for any other.

    Every exception class of this project is for people; whatever Python, Ray or torch raise by themselves is a fault to
    be looked into, and keeps its traceback. An error that Ray brought from a worker counts as what it was there.
    """
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException) and cause is not error:
        return explain(cause)
    ours = any(kind.__module__.split(".")[0] in OUR_PACKAGES for kind in type(error).__mro__)
    return str(error) if ours else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    stderr = Console(stderr=True)
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="nas-ray")
    except KeyboardInterrupt:
        stderr.print("Stopped.")
        sys.exit(130)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        stderr.print(Text("Error: ", style="bold red").append(message, style="not bold default"), soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
