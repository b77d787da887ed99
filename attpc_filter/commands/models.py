"""``attpc-filter models``: the bundles at hand and their contracts."""

import argparse
from dataclasses import asdict

from rich.table import Table

from attpc_filter.commands import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", nargs="*", metavar="NAME|FILE", help="bundles; all that ship")


def act(options: argparse.Namespace, command: str) -> int:
    """Print the contract of each bundle."""
    from attpc_filter.score.bundle import load_bundle, shipped_bundles

    out = console.output()
    for name in options.model or shipped_bundles():
        bundle = load_bundle(name)
        contract = bundle.contract
        table = Table(title=f"{contract.name}: {contract.description}", title_justify="left")
        table.add_column("contract")
        table.add_column(f"version {contract.version}")
        table.add_row("file", f"{bundle.path} ({len(bundle.graph) / 1e6:.2f} MB)")
        table.add_row("sha256", bundle.sha256)
        for event_class in contract.classes:
            table.add_row(
                f"class {event_class.name}",
                f"PDG {event_class.pdg}, threshold {event_class.threshold:g}",
            )
        for part in ("projection", "points", "hits", "detector", "training", "versions"):
            value = getattr(contract, part)
            if value is None:
                continue
            entries = value if isinstance(value, dict) else asdict(value)
            for key, entry in entries.items():
                table.add_row(f"{part} {key}", str(entry))
        out.print(table, markup=False)
    return 0
