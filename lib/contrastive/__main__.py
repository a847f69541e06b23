"""The command line: `contrastive report`, `pretrain`, `sweep`, `verify` and `compare`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from .storage.files import mute, printable, say, tell
from .settings.model import PRESETS, RunError, Settings, UserError, make_settings, nearest
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


def parser() -> Parser:
    """The command line's definition."""
    listing = "\n".join(f"  {name:18} {field.description}" for name, field in Settings.model_fields.items())
    main = Parser(prog="contrastive", description=__doc__)
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    common: dict[str, Any] = dict(
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"parameters for -p:\n{listing}"
    )
    report = commands.add_parser("report", help="execute the notebooks and render them to HTML", **common)
    pretrain = commands.add_parser("pretrain", help="train one encoder, or resume it; prints its folder", **common)
    sweep = commands.add_parser("sweep", help="train and judge every point of a grid of settings", **common)
    verify = commands.add_parser("verify", help="make a report again and compare every number", **common)
    compare = commands.add_parser("compare", help="show on one page what differs between reports")
    compare.add_argument("reports", metavar="REPORT", nargs="+", help="reports' folders; the first is compared with")
    compare.add_argument("--out", metavar="FILE", help="the page (default: reports/comparison.html)")
    verify.add_argument("report", metavar="REPORT", help="a report's folder, or a file in it")
    sweep.add_argument("grid", metavar="GRID", help="a YAML file, or the name of one in notebooks/grids")
    sweep.add_argument(
        "--dry-run", action="store_true", help="list the runs and about how long they take, start nothing"
    )
    sweep.add_argument("--jobs", metavar="N", type=count, default=1, help="processes at once (default: 1)")
    sweep.add_argument("--reports", action="store_true", help="a report for each point, rather than bare runs")
    sweep.add_argument("--out", metavar="FOLDER", help="where the reports go (default: reports/<grid>)")
    sweep.add_argument("--dataset", metavar="NAME|PATH", help="auto, mnist, digits, or a folder or .npz file")
    for command in (report, pretrain):
        command.add_argument("--preset", default="quick", help=f"{', '.join(PRESETS)} (default: quick)")
        command.add_argument("--dataset", metavar="NAME|PATH", help="auto, mnist, digits, or a folder or .npz file")
    for command in (report, pretrain, sweep, verify):
        command.add_argument(
            "-p", metavar="NAME=VALUE", action="append", default=[], dest="parameters", help="set a parameter"
        )
    report.add_argument(
        "--only",
        metavar="NOTEBOOK",
        action="append",
        default=[],
        help="run this notebook only, such as 02_linear_eval; may be given several times",
    )
    report.add_argument("--out", metavar="FOLDER", help="where the report goes (default: reports/<run name>)")
    verify.add_argument("--out", metavar="FOLDER", help="where the new report goes (default: <REPORT>-verified)")
    for command in (report, compare):
        command.add_argument("--open", action="store_true", help="open the page in the browser")
    for command in (report, verify):
        command.add_argument(
            "--timeout", metavar="SECONDS", type=seconds, help="longest time for one cell of a notebook"
        )
    return main


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


def given_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for on the command line, by name. Raises: UserError."""
    given: dict[str, Any] = {name: getattr(args, name, None) for name in ("preset", "dataset")}
    given = {name: value for name, value in given.items() if value is not None}
    for text in args.parameters:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"-p {text}: write it as -p name=value.")
        known = [*Settings.model_fields, *(("seeds", "labels") if args.command == "sweep" else ())]
        if name not in known:
            raise UserError(nearest(name, known, "parameter"))
        given[name] = value
    return given


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0 all well, 1 something failed, 2 the request was wrong; and 128 and the
    signal's number when a signal stopped it, so 130 after Ctrl-C."""
    args = parser().parse_args(argv)
    for number in Stop.SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, terminate)
    try:
        if args.command == "compare":
            from .report.compare import write_comparison
            from .report.runner import open_page

            page = write_comparison([Path(report) for report in args.reports], args.out and Path(args.out))
            if args.open:
                open_page(page)
            return 0
        given = given_parameters(args)
        if args.command == "verify":
            from .report.verify import verify

            return verify(Path(args.report), given, args.out, args.timeout)
        if args.command == "sweep":
            from .sweeps.grids import OWN, REPORTED, load_grid
            from .sweeps.reports import check_nulls, report_grid
            from .settings.model import RUN_FIELDS
            from .sweeps.runner import dry_run, sweep

            if args.out and not args.reports:
                raise UserError("--out is where reports go: it needs --reports.")
            grid = load_grid(args.grid, given)
            of_use = {"preset", "checkpoint_seconds", "seeds", *RUN_FIELDS, *(REPORTED if args.reports else OWN)}
            for name in given.keys() - of_use:
                hint = " A report for each point shows what it does: --reports." if name in REPORTED else ""
                raise UserError(f"-p {name}={given[name]} changes nothing of this grid's points.{hint}")
            if args.reports:
                check_nulls(grid)
            if args.dry_run:
                dry_run(grid, args.jobs, args.reports)
                return 0
            if not args.reports:
                return sweep(grid, args.jobs)
            from .report.runner import reports_root, writable_folder

            folder = Path(args.out) if args.out else reports_root() / grid.name
            return report_grid(grid, args.jobs, writable_folder(folder, keep=False))
        settings = make_settings(**given)
        if args.command == "pretrain":
            from .data.images import load_images
            from .evaluation.diagnostics import LEAST_WAY
            from .training.runs import pretrain

            if note := load_images(settings).note:
                say(note)
            run = pretrain(settings)
            if run.way < LEAST_WAY and not run.settings.loss.endswith("semi_hard"):
                say("the loss stayed near chance: the network has collapsed, or hardly learned. Try a lower lr.")
            print(run.folder)
            return 0
        from .report.runner import run_report

        return run_report(given, args.only, args.out, args.timeout, args.open)[0]
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
