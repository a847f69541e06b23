"""The command line: `contrastive report`, `pretrain`, `embed`, `export`, `sweep`, `compare` and `verify`."""

import argparse
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .settings import PRESETS, RunError, Settings, UserError, did_you_mean, parameters
from .storage.files import mute, printable, say, tell
from .storage.signals import Stop, terminate


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Exit with the complaint."""
        sys.exit(complain(f"{message}. See {self.prog} --help."))


def complain(message: str, code: int = 2) -> int:
    """Print one line on standard error. Returns the exit code, by default that of a wrong request."""
    tell("error: " + printable(" ".join(message.split())), sys.stderr)
    return code


# --- What the commands do -----------------------------------------------------------------------------------------
# Each takes what was given on the command line, and the parameters that were set, and returns the exit code.


def report(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Execute the notebooks and render them to HTML."""
    from .report.runner import run_report

    return run_report(given, args.only, args.out, args.timeout, args.open)[0]


def pretrain(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Train one encoder, or resume it; prints its folder."""
    from . import training
    from .evaluation import health

    settings, images = training.resolve(Settings(**given))
    if images.note:
        say(images.note)
    if (training.run_folder(settings) / "encoder.safetensors").is_file():
        say("this run was trained before, so it is loaded (its folder's name says by which settings)")
    run = training.pretrain(settings)
    for item in health(run, images.to_look_at(500)[0]):
        if not item["passed"]:
            seen = f"{item['name']}: {item['seen']}; expected: {item['expected']}"
            say(f"a check failed: {seen}. Try another lr, or more epochs.")
    print(run.folder)
    return 0


def embed(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Write the features of your own images by a trained encoder; prints the file."""
    from .evaluation.kept_probe import load_probe
    from .training.embed import embed_source

    out, source = Path(args.out).expanduser(), Path(args.run_folder)
    if (kept := load_probe(source)) is not None:
        few = "; its certainties are too high, since labels were too few to scale them"
        sure = few if kept.probe.temperature == 1 else ""
        say(f"with predictions of the linear probe on {kept.n_labels:,} labels that a report kept{sure}")
    predict = None if kept is None else kept.predict
    print(embed_source(args.images, source, out, args.skip_damaged, args.follow_links, predict))
    if kept is None:
        say("no report kept a probe beside this encoder (02_linear_eval does), so there are no predictions")
    return 0


def export(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Write a trained encoder for other programs, as .onnx or .safetensors; prints the file."""
    from .training.export import export_encoder

    out = Path(args.out).expanduser()
    encoder = export_encoder(Path(args.run_folder), out)
    if encoder.preparation is not None:
        say(f"it takes images prepared so: {encoder.preparation.in_words()}")
    print(out)
    return 0


def sweep(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Train and judge every point of a grid of settings."""
    from .report.runner import reports_root, writable_folder
    from .settings import decisive_parameters
    from .sweeps import command
    from .sweeps.grids import OWN, REPORTED, load_grid
    from .sweeps.reports import check_nulls, report_grid

    if args.out and not args.reports:
        raise UserError("--out is where reports go: it needs --reports.")
    grid = load_grid(args.grid, given)
    of_use = {"preset", "checkpoint_seconds", "seeds", *decisive_parameters(), *(REPORTED if args.reports else OWN)}
    for name in given.keys() - of_use:
        hint = " A report for each point shows what it does: --reports." if name in REPORTED else ""
        raise UserError(f"-p {name}={given[name]} changes nothing of this grid's points.{hint}")
    if args.reports:
        check_nulls(grid)
    if args.dry_run:
        command.dry_run(grid, args.jobs, args.reports)
        return 0
    if not args.reports:
        return command.sweep(grid, args.jobs)
    folder = Path(args.out) if args.out else reports_root() / grid.name
    return report_grid(grid, args.jobs, writable_folder(folder, keep=False))


def compare(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Show on one page what differs between reports."""
    from .report.comparison import write_comparison
    from .report.runner import open_page

    page = write_comparison([Path(path) for path in args.reports], args.out and Path(args.out))
    if args.open:
        open_page(page)
    return 0


def verify(args: argparse.Namespace, given: dict[str, Any]) -> int:
    """Make a report again and compare every number."""
    from .report.verify import make_again

    return make_again(Path(args.report), given, args.out, args.timeout)


# --- What they can be given ---------------------------------------------------------------------------------------


def seconds(text: str) -> float:
    """A positive number of seconds. Raises: ValueError."""
    if not 0 < float(text) < float("inf"):
        raise ValueError
    return float(text)


def count(text: str) -> int:
    """A positive whole number. Raises: ValueError."""
    if int(text) < 1:
        raise ValueError
    return int(text)


@dataclass(frozen=True)
class Command:
    """A command: what runs it, its own arguments, and which of the shared ones it has."""

    run: Callable[[argparse.Namespace, dict[str, Any]], int]
    arguments: dict[str, dict[str, Any]]
    shared: tuple[str, ...]


SHARED: dict[str, dict[str, Any]] = {
    "--preset": dict(help=f"{', '.join(PRESETS)} (default: quick)"),
    "--dataset": dict(metavar="NAME|PATH", help="auto, mnist, sklearn_digits, or a folder, archive or .npz file"),
    "-p": dict(metavar="NAME=VALUE", action="append", default=[], dest="parameters", help="set a parameter"),
    "--open": dict(action="store_true", help="open the page in the browser"),
    "--timeout": dict(metavar="SECONDS", type=seconds, help="longest time for one cell of a notebook"),
}
COMMANDS = {
    "report": Command(
        report,
        {
            "--only": dict(metavar="NOTEBOOK", action="append", default=[],
                           help="run this notebook only, such as 02_linear_eval; may be given several times"),
            "--out": dict(metavar="FOLDER", help="where the report goes (default: reports/<run name>)"),
        },
        ("--preset", "--dataset", "-p", "--open", "--timeout"),
    ),
    "pretrain": Command(pretrain, {}, ("--preset", "--dataset", "-p")),
    "embed": Command(
        embed,
        {
            "images": dict(metavar="IMAGES", help="a file or folder of images, a .zip or an .npz"),
            "--run": dict(metavar="RUN", required=True, dest="run_folder",
                          help="a finished run's folder, or its encoder.safetensors"),
            "--out": dict(metavar="FILE", required=True, help="the table: .npz, .csv or .parquet"),
            "--skip-damaged": dict(action="store_true", help="leave out images that cannot be read"),
            "--follow-links": dict(action="store_true", help="follow links that lead out of the folder"),
        },
        (),
    ),
    "export": Command(
        export,
        {
            "run_folder": dict(metavar="RUN", help="a finished run's folder, or its encoder.safetensors"),
            "--out": dict(metavar="FILE", required=True, help="the encoder: .onnx or .safetensors"),
        },
        (),
    ),
    "sweep": Command(
        sweep,
        {
            "grid": dict(metavar="GRID", help="a YAML file, or the name of one in notebooks/grids"),
            "--dry-run": dict(action="store_true",
                              help="list the runs and about how long they take, start nothing"),
            "--jobs": dict(metavar="N", type=count, default=1, help="processes at once (default: 1)"),
            "--reports": dict(action="store_true", help="a report for each point, rather than bare runs"),
            "--out": dict(metavar="FOLDER", help="where the reports go (default: reports/<grid>)"),
        },
        ("--dataset", "-p"),
    ),
    "verify": Command(
        verify,
        {
            "report": dict(metavar="REPORT", help="a report's folder, or a file in it"),
            "--out": dict(metavar="FOLDER", help="where the new report goes (default: <REPORT>-verified)"),
        },
        ("-p", "--timeout"),
    ),
    "compare": Command(
        compare,
        {
            "reports": dict(metavar="REPORT", nargs="+", help="reports' folders; the first is compared with"),
            "--out": dict(metavar="FILE", help="the page (default: reports/comparison.html)"),
        },
        ("--open",),
    ),
}  # fmt: skip


def parser() -> Parser:
    """The command line's definition."""
    listing = "\n".join(f"  {name:22} {description}" for name, description in parameters().items())
    main = Parser(prog="contrastive", description=__doc__)
    subparsers = main.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in COMMANDS.items():
        help_text = (command.run.__doc__ or "").rstrip(".")
        epilog = f"parameters for -p:\n{listing}" if "-p" in command.shared else None
        sub = subparsers.add_parser(
            name, help=help_text, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=epilog
        )
        for flag in command.shared:
            sub.add_argument(flag, **SHARED[flag])
        for flag, options in command.arguments.items():
            sub.add_argument(flag, **options)
    return main


def given_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for on the command line, by name. Raises: UserError."""
    given: dict[str, Any] = {name: getattr(args, name, None) for name in ("preset", "dataset")}
    given = {name: value for name, value in given.items() if value is not None}
    for text in getattr(args, "parameters", []):
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"-p {text}: write it as -p name=value.")
        if args.command == "sweep" and name not in (known := [*parameters(), "seeds", "labels"]):
            raise UserError(did_you_mean(name, known, "parameter"))
        given[name] = value
    return given


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0 all well, 1 something failed, 2 the request was wrong; and 128 and the
    signal's number when a signal stopped it, so 130 after Ctrl-C."""
    try:
        args = parser().parse_args(argv)
        for number in Stop.SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, terminate)
        return COMMANDS[args.command].run(args, given_parameters(args))
    except RunError as failure:
        return complain(str(failure), 1)
    except UserError as mistake:
        return complain(str(mistake))
    except KeyboardInterrupt as interruption:
        tell("interrupted; the same command goes on from the last checkpoint", sys.stderr)
        return 128 + getattr(interruption, "number", signal.SIGINT)
    except BrokenPipeError:  # the reader of our output has gone
        mute(sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
