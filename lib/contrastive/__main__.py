"""The command line: `contrastive report` and `contrastive pretrain`."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, NoReturn

from .settings import PRESETS, Settings, UserError, make_settings, nearest


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Exit with the complaint."""
        sys.exit(complain(f"{message}. See {self.prog} --help."))


def complain(message: str) -> int:
    """Print one line on standard error; the exit code of a wrong request."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


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
    for command in (report, pretrain):
        command.add_argument("--preset", default="quick", help=f"{', '.join(PRESETS)} (default: quick)")
        command.add_argument("--dataset", metavar="NAME|PATH", help="auto, mnist, digits, or a folder of IDX files")
        command.add_argument(
            "-p", metavar="NAME=VALUE", action="append", default=[], dest="parameters", help="set a parameter"
        )
    report.add_argument("--only", metavar="NOTEBOOK", help="run this notebook only, such as 02_linear_eval")
    report.add_argument("--out", metavar="FOLDER", help="where the report goes (default: reports/<run name>)")
    return main


def given_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for on the command line, by name. Raises: UserError."""
    given: dict[str, Any] = {"preset": args.preset}
    if args.dataset is not None:
        given["dataset"] = args.dataset
    for text in args.parameters:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"-p {text}: write it as -p name=value.")
        if name not in Settings.model_fields:
            raise UserError(nearest(name, Settings.model_fields, "parameter"))
        given[name] = value
    return given


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0 all well, 1 something failed, 2 the request was wrong."""
    args = parser().parse_args(argv)
    try:
        given = given_parameters(args)
        settings = make_settings(**given)
        if args.command == "pretrain":
            from .data import load_images
            from .pretrain import pretrain

            if note := load_images(settings).note:
                print(f"NOTE: {note}", file=sys.stderr)
            print(pretrain(settings).folder)
            return 0
        from .report.runner import run_report

        return run_report(given, args.only, args.out)
    except UserError as mistake:
        return complain(str(mistake))
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
