"""The command line ``attpc-export``: nothing but arguments and messages."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attpc_export import __version__
from attpc_filter.errors import AttpcFilterError

_EXIT_ERROR = 2
_EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0, 2 on an error, 130 when interrupted."""
    options = _parser().parse_args(arguments)
    commands = {"train": _train, "export": _export, "evaluate": _evaluate, "head": _head}
    commands["novelty"] = _novelty
    commands |= {"fit-head": _fit_head, "suggest": _suggest, "pseudo-labels": _pseudo_labels}
    commands |= {"clusters": _clusters, "name-clusters": _name_clusters}
    commands |= {"compare": _compare, "report": _report, "search": _search, "half": _half}
    commands["traces"] = _traces
    try:
        commands[options.command](options)
    except AttpcFilterError as error:
        print(f"attpc-export: error: {error}", file=sys.stderr)
        return _EXIT_ERROR
    except KeyboardInterrupt:
        print("attpc-export: interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attpc-export", description="Train, judge and export the models of attpc-filter."
    )
    parser.add_argument("--version", action="version", version=f"attpc-export {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train a model and its head into a run folder")
    train.add_argument("config", type=Path, metavar="CONFIG.yaml")
    _add_runs(train)
    _add_labels(train, required=False)
    train.add_argument("--out", type=Path, required=True, metavar="RUN_FOLDER")
    _add_weights(train)
    train.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="keeps a frozen backbone's features"
    )
    train.add_argument("--seed", type=int, help="in place of the configuration's")
    train.add_argument(
        "--start", type=Path, metavar="RUN_FOLDER", help="whose encoder the training starts from"
    )
    train.add_argument(
        "--resume", action="store_true", help="go on from the run folder's last checkpoint"
    )
    _add_device(train)

    export = commands.add_parser(
        "export", help="write the bundle of a run folder, compared with PyTorch first"
    )
    export.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    export.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")

    evaluate = commands.add_parser("evaluate", help="judge bundles on labelled runs")
    evaluate.add_argument(
        "bundle", nargs="+", help="name of a bundle that ships, or path of an ONNX file"
    )
    _add_data(evaluate)
    evaluate.add_argument("--out", type=Path, metavar="FILE.csv", help="write the numbers too")
    _add_device(evaluate)

    report = commands.add_parser(
        "report", help="judge bundles on labelled runs: a page with pictures, and tables"
    )
    report.add_argument(
        "bundle", nargs="+", help="name of a bundle that ships, or path of an ONNX file"
    )
    _add_data(report)
    report.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    report.add_argument(
        "--run-folder",
        type=Path,
        metavar="RUN_FOLDER",
        help="a finished training whose reconstructions are shown too: bundles have no decoder",
    )
    _add_device(report)

    search = commands.add_parser(
        "search", help="train with many settings of a model; more trials go on from those there"
    )
    search.add_argument("config", type=Path, metavar="CONFIG.yaml")
    _add_data(search)
    search.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    search.add_argument(
        "--trials", type=int, required=True, metavar="N", help="that the folder shall hold"
    )
    search.add_argument(
        "--sampler", choices=["tpe", "random"], default="tpe", help="how settings are proposed"
    )
    _add_weights(search)
    _add_device(search)

    compare = commands.add_parser(
        "compare", help="train and judge the models of a plan, and make one table of them"
    )
    compare.add_argument("plan", type=Path, metavar="PLAN.yaml")
    compare.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER", help="what the plan's paths start at"
    )
    compare.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="run folders; resumes what is there",
    )
    compare.add_argument(
        "--tables", type=Path, required=True, metavar="FOLDER", help="accuracy.csv and accuracy.md"
    )
    compare.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="rows to train, of the table's"
    )
    _add_weights(compare)
    _add_device(compare)

    novelty = commands.add_parser(
        "novelty", help="give a bundle a sense of events unlike those that it was trained on"
    )
    novelty.add_argument("bundle", help="path of the ONNX file, or name of a bundle that ships")
    _add_data(novelty)
    novelty.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    novelty.add_argument(
        "--share",
        type=float,
        default=0.005,
        help="of the events kept back from training that may be called unlike (default: 0.005)",
    )

    half = commands.add_parser(
        "half", help="make a bundle's convolutions and products float16, if its tags stay the same"
    )
    half.add_argument("bundle", help="path of the ONNX file, or name of a bundle that ships")
    _add_runs(half)
    half.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    half.add_argument(
        "--most",
        type=float,
        default=0.001,
        help="share of the events whose tag may differ (default: 0.001)",
    )

    traces = commands.add_parser(
        "traces", help="put the making of hits and projections into a bundle's graph, for a GPU"
    )
    traces.add_argument("bundle", help="path of the ONNX file, or name of a bundle that ships")
    traces.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    traces.add_argument(
        "--events", type=int, default=64, metavar="N", help="that it reads at a time (default: 64)"
    )
    traces.add_argument(
        "--traces",
        type=int,
        default=16_384,
        metavar="N",
        help="of these events together, and so of the largest one (default: 16384)",
    )

    _add_without_labels(commands)

    head = commands.add_parser(
        "head", help="fit a new head on stored latents, for attpc-filter retag --head"
    )
    head.add_argument(
        "folder", type=Path, nargs="+", metavar="DIR", help="outputs of run --keep-latents"
    )
    _add_labels(head)
    head.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    head.add_argument(
        "--inverse-regularisation",
        type=float,
        default=1.0,
        metavar="C",
        help="of the logistic regression; smaller for few labels (default: 1)",
    )
    head.add_argument(
        "--group-column",
        default="",
        metavar="NAME",
        help="column of the labels whose equal numbers are copies of one physics event",
    )
    return parser


def _add_without_labels(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Commands for few labels and for none; each works on a bundle's latent."""
    bundle_help = "path of the ONNX file, or name of a bundle that ships"

    fit_head = commands.add_parser(
        "fit-head", help="give a bundle a head that a few labels make; its encoder stays"
    )
    fit_head.add_argument("bundle", help=bundle_help)
    _add_data(fit_head)
    fit_head.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")
    fit_head.add_argument(
        "--kind",
        choices=["kernel", "logistic"],
        default="kernel",
        help="kernel machine (the default), or logistic regression",
    )
    fit_head.add_argument(
        "--inverse-regularisation",
        type=float,
        metavar="C",
        help="(default: 20 for a kernel machine, 1 for a logistic regression)",
    )
    fit_head.add_argument(
        "--group-column",
        default="",
        metavar="NAME",
        help="column of the labels whose equal numbers are copies of one physics event",
    )

    suggest = commands.add_parser(
        "suggest", help="list the events whose labels would help a bundle most, with pictures"
    )
    suggest.add_argument("bundle", help=bundle_help)
    _add_runs(suggest)
    _add_labels(suggest, required=False)
    suggest.add_argument(
        "--events", type=int, default=48, metavar="N", help="to suggest (default: 48)"
    )
    suggest.add_argument(
        "--out", type=Path, required=True, metavar="FILE.csv", help="a picture stands beside it"
    )

    pseudo = commands.add_parser(
        "pseudo-labels", help="write the labels that a bundle is sure of, to train with"
    )
    pseudo.add_argument("bundle", help=bundle_help)
    _add_runs(pseudo)
    _add_labels(pseudo, required=False)
    pseudo.add_argument(
        "--share",
        type=float,
        default=0.8,
        help="of the events scored as a class, so many get its label (default: 0.8)",
    )
    pseudo.add_argument("--out", type=Path, required=True, metavar="FILE.csv")

    clusters = commands.add_parser(
        "clusters", help="find clusters in a bundle's latent, and show them so that you name them"
    )
    clusters.add_argument("bundle", help=bundle_help)
    _add_runs(clusters)
    clusters.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    clusters.add_argument(
        "--clusters", type=int, default=0, metavar="N", help="(default: as many as are stable)"
    )
    clusters.add_argument("--seed", type=int, default=1, help="of what is drawn (default: 1)")

    named = commands.add_parser(
        "name-clusters", help="make a bundle of clusters, once you have named them"
    )
    named.add_argument("bundle", help="the one whose latent was clustered")
    named.add_argument("folder", type=Path, metavar="FOLDER", help="output of clusters")
    _add_runs(named)
    named.add_argument("--out", type=Path, required=True, metavar="FILE.onnx")


def _add_data(parser: argparse.ArgumentParser) -> None:
    _add_runs(parser)
    _add_labels(parser)


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="RUN|FOLDER",
        help="run files and folders of run files, of any format that attpc-filter reads",
    )


def _add_labels(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        required=required,
        default=[],
        metavar="CSV",
        help="tables with the columns run, event, label, and optionally kind",
    )


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE|FOLDER",
        help="of a frozen backbone, in place of the configuration's; a folder: file of that name",
    )


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="cuda insists, auto (the default) takes CUDA where there is one",
    )


# Each command imports what it needs: PyTorch takes seconds, and --help should not wait for it.


def _train(options: argparse.Namespace) -> None:
    from attpc_export.config import load_config
    from attpc_export.models.backbone import with_weights
    from attpc_export.training.train import train

    config = load_config(options.config)
    if options.seed is not None:
        config = replace(config, seed=options.seed)
    if options.start:
        config = replace(config, fit=replace(config.fit, start=str(options.start)))
    if options.weights:
        config = replace(config, model=with_weights(config.model, options.weights))
    train(
        config,
        options.data,
        options.labels,
        options.out,
        options.device,
        options.resume,
        options.cache,
    )
    print(f"run folder: {options.out}")


def _export(options: argparse.Namespace) -> None:
    from attpc_export.bundles.export import export_bundle

    bundle = export_bundle(options.run_folder, options.out)
    print(f"bundle: {bundle} ({bundle.stat().st_size / 1e6:.2f} MB)")


def _evaluate(options: argparse.Namespace) -> None:
    from attpc_export.judging.evaluate import describe, evaluate, write_results

    results = evaluate(options.bundle, options.data, options.labels, options.device)
    print("\n\n".join(describe(result) for result in results))
    if options.out is not None:
        write_results(results, options.out)
        print(f"numbers: {options.out}")


def _compare(options: argparse.Namespace) -> None:
    from attpc_export.judging.compare import TABLE_NAME, compare

    compare(
        options.plan,
        options.data,
        options.out,
        options.tables,
        options.weights,
        options.device,
        options.only,
    )
    print(f"table: {options.tables / TABLE_NAME}")


def _novelty(options: argparse.Namespace) -> None:
    from attpc_export.bundles.novelty import add_novelty

    add_novelty(options.bundle, options.data, options.labels, options.out, options.share)
    print(f"bundle: {options.out}")


def _half(options: argparse.Namespace) -> None:
    from attpc_export.bundles.half import write_half

    flips = write_half(options.bundle, options.data, options.out, options.most)
    print(f"tags that differ: {flips.flipped} of {flips.events} events ({flips.share:.2%})")
    print(f"bundle: {options.out} ({options.out.stat().st_size / 1e6:.2f} MB)")


def _traces(options: argparse.Namespace) -> None:
    from attpc_export.bundles.traces import write_traces

    write_traces(options.bundle, options.out, options.events, options.traces)
    print(f"bundle: {options.out} ({options.out.stat().st_size / 1e6:.2f} MB)")


def _fit_head(options: argparse.Namespace) -> None:
    from attpc_export.bundles.new_head import fit_new_head

    fit = fit_new_head(
        options.bundle,
        options.data,
        options.labels,
        options.out,
        options.kind,
        options.inverse_regularisation,
        options.group_column,
    )
    print(fit.describe())
    print(f"bundle: {options.out}")


def _suggest(options: argparse.Namespace) -> None:
    from attpc_export.labels.suggest import suggest

    picture = suggest(options.bundle, options.data, options.labels, options.events, options.out)
    print(f"table: {options.out}\npicture: {picture}")


def _pseudo_labels(options: argparse.Namespace) -> None:
    from attpc_export.labels.suggest import write_pseudo_labels

    found = write_pseudo_labels(
        options.bundle, options.data, options.labels, options.out, options.share
    )
    print("labels: " + ", ".join(f"{count} {name}" for name, count in found.items()))
    print(f"table: {options.out}")


def _clusters(options: argparse.Namespace) -> None:
    from attpc_export.labels.name_clusters import NAMES_NAME, SHEET_NAME, write_clusters

    found = write_clusters(
        options.bundle, options.data, options.out, options.clusters, options.seed
    )
    print(found.describe())
    print(f"look at {options.out / SHEET_NAME}, then name them in {options.out / NAMES_NAME}")


def _name_clusters(options: argparse.Namespace) -> None:
    from attpc_export.labels.name_clusters import name_and_write

    name_and_write(options.bundle, options.folder, options.data, options.out)
    print(f"bundle: {options.out}")


def _report(options: argparse.Namespace) -> None:
    from attpc_export.judging.report import write_report

    page = write_report(
        options.bundle,
        options.data,
        options.labels,
        options.out,
        options.device,
        options.run_folder,
    )
    print(f"report: {page}")


def _search(options: argparse.Namespace) -> None:
    from attpc_export.config import load_config
    from attpc_export.models.backbone import with_weights
    from attpc_export.training.search import TABLE_NAME, search

    config = load_config(options.config)
    if options.weights:
        config = replace(config, model=with_weights(config.model, options.weights))
    best = search(
        config,
        options.data,
        options.labels,
        options.out,
        options.trials,
        options.sampler,
        options.device,
    )
    print(f"best: trial {best['trial']}, macro f1 {best['macro_f1']:.4f}: {best['settings']}")
    print(f"table: {options.out / TABLE_NAME}")


def _head(options: argparse.Namespace) -> None:
    from attpc_export.labels.fit_stored_latents import describe, refit_head

    refit = refit_head(
        options.folder,
        options.labels,
        options.out,
        options.inverse_regularisation,
        options.group_column,
    )
    print(describe(refit))
    print(f"head: {options.out}")


if __name__ == "__main__":
    sys.exit(main())
