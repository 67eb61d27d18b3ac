"""The command `worldtrace`: mounts the commands of the rooms, and imports a room only when its command is run.

Every error that a user can cause ends as one line on stderr (what was found, where, what to do) and exit code 2;
`WORLDTRACE_DEBUG=1` shows the traceback instead.
"""

import difflib
import errno
import importlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

# name -> (where the command lives, the line that `worldtrace --help` shows)
COMMANDS: dict[str, tuple[str, str]] = {
    "render": ("cluster.cli:render", "Render 3D assets into a layered dataset, on a local or a running Ray cluster."),
    "cluster": (
        "cluster.commands:app",
        "Follow a render job, train on a Ray cluster, sample surfaces: report, train, surfaces.",
    ),
    "shards": ("shards.cli:app", "Look into a dataset: info, ls, show, verify, stats, export, order, view."),
    "train": ("train.cli:train", "Train a WT-DiT on a layered dataset."),
    "checkpoint": (
        "train.checkpoints.commands:app",
        "Look into the checkpoints of a run, check them, take the weights out: info, verify, export.",
    ),
    "predict": ("train.prediction.command:predict", "Predict the layered point cloud behind an image."),
    "eval": ("train.evaluation.command:evaluate", "Evaluate a trained run on a dataset, against baselines."),
    "voxelize": ("train.downstream.command:voxelize", "Turn a prediction into voxels for a mesh decoder (TRELLIS)."),
    "guidance": ("train.downstream.command:guidance", "Show a prediction from a moving camera: RGB and depth video."),
    "insert": ("train.downstream.command:insert", "Put a predicted object into a predicted scene, as one GLB."),
}


GROUPS = ("cluster", "shards")  # of commands


class Rooms(TyperGroup):
    """A group whose commands are named in COMMANDS and imported on use: `worldtrace shards` must not wait for torch."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, name: str) -> Any:
        """What `--help` lists: the name and its line, without the room behind it."""
        if name not in COMMANDS:
            return None
        entry = typer.Typer(add_completion=False)
        entry.command(name, help=COMMANDS[name][1])(lambda: None)
        return typer.main.get_command(entry)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str, Any, list[str]]:
        name, rest = args[0], args[1:]
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean `worldtrace {near[0]}`?" if near else f"the commands are {', '.join(COMMANDS)}"
            raise ValueError(f"no command {name!r}: {hint}")
        return name, _load(name), rest


def _load(name: str) -> Any:
    module, attribute = COMMANDS[name][0].split(":")
    command = getattr(importlib.import_module(module), attribute)
    if not isinstance(command, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name)(command)
        command = single
    return typer.main.get_command(command)


app = typer.Typer(cls=Rooms, no_args_is_help=True, add_completion=False)


@app.callback()
def _worldtrace() -> None:
    """3D assets in, layered ground truth out; layered ground truth in, a trained World Tracing model out.

    worldtrace render procedural:objects?count=64 --out data     then     worldtrace train tiny data.path=data
    """


def _sentence(error: Exception) -> str:
    """What an error says to people; of one of the system, the file and the reason in place of its number."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        remedy = ": make room, or choose another place" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return f"{error.filename}: {error.strerror}{remedy}"
    return str(error)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exits with the command's code; 2 for a user's error, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    named = arguments[: 2 if arguments[:1] and arguments[0] in GROUPS else 1]
    named = [word for word in named if not word.startswith("-")]
    called = " ".join(["worldtrace", *named]) if named and named[0] in COMMANDS else "worldtrace"
    try:
        code = app(args=arguments, prog_name="worldtrace", standalone_mode=False)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("WORLDTRACE_DEBUG"):
            raise
        usage = getattr(error, "format_message", None)  # the command line's own errors: unknown option, missing value
        if usage is None and not isinstance(error, ValueError | OSError | ModuleNotFoundError):
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(2)
        if usage and "No such command" in usage():
            called = called.rpartition(" ")[0]
        hint = f" (see `{called} --help`)" if usage else ""
        message = " ".join((usage() if usage else _sentence(error)).split())
        message = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in message
        )  # of strangers
        print(f"{called}: {message}{hint}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
