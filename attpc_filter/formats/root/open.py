"""ROOT files: which of the things that can be in one this one holds."""

from pathlib import Path
from typing import Any

from attpc_filter.errors import InputError
from attpc_filter.formats.root.attpcroot import branch_class, event_branches, find_attpcroot
from attpc_filter.formats.root.file import ROOT_ERRORS, RootFile, one_line
from attpc_filter.formats.root.plain import PlainRun
from attpc_filter.formats.root.run import RootRun
from attpc_filter.formats.root.stream import STREAM_COLUMNS, STREAM_TREE
from attpc_filter.formats.root.writer import read_label
from attpc_filter.root_options import RootOptions

_MOST_NAMES = 6


def open_root_run(path: Path, options: RootOptions | None = None) -> RootRun:
    """Open a ROOT file as a run: a stream of ours, ATTPCROOT's events, or a plain tree.

    Parameters
    ----------
    path : Path
        The file.
    options : RootOptions, optional
        What to read of it.

    Returns
    -------
    RootRun
        The open run.

    Raises
    ------
    InputError
        If the file is damaged or holds no events.
    """
    options = options or RootOptions()
    file = RootFile(path)
    try:
        label = read_label(file)
        if label is not None and options.tree != STREAM_TREE:  # a stream says itself what it is
            run = _open_stream(file, label)
        else:
            found = _open(file, options)
            if found is None:
                raise InputError(_nothing_found(file, options))
            run = found.opened_by(open_root_run, options)
    except BaseException:
        file.close()
        raise
    return run


def list_contents(path: Path) -> list[tuple[str, str]]:
    """What a ROOT file holds: each tree with its columns, then whatever else there is.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    file = RootFile(path)
    try:
        trees = file.names("TTree") + file.names("ROOT::RNTuple")
        held = [("holds", _describe_tree(file, name)) for name in trees]
        others = [f"{name} ({kind})" for name, kind in file.keys.items() if name not in trees]
        return held + ([("holds", _few(others))] if others else [])
    finally:
        file.close()


def _describe_tree(file: RootFile, name: str) -> str:
    """A tree, its entries, its columns and their types, in a line."""
    try:
        tree = file.tree(name)
        if file.keys[name] == "TTree":
            columns = [
                f"{branch.name} ({branch_class(file, branch) or branch.typename})"
                for branch in tree.branches
            ]
        else:
            fields = tree.header.field_records
            columns = [
                f"{field.field_name} ({field.type_name})"
                for index, field in enumerate(fields)
                if field.parent_field_id == index
            ]
        return f"tree {name}, {int(tree.num_entries)} entries: {', '.join(columns) or 'no columns'}"
    except (InputError, *ROOT_ERRORS) as error:
        return f"tree {name}, damaged: {one_line(error)}"


def _open(file: RootFile, options: RootOptions) -> RootRun | None:
    trees = [*file.names("TTree"), *file.names("ROOT::RNTuple")]
    if options.tree and options.tree not in trees:
        raise InputError(
            f"{file.path}: no tree {options.tree!r}; there are {_few(trees) or 'none'}"
        )
    if not options.columns:
        if options.tree and options.tree not in file.names("TTree"):
            return None
        return find_attpcroot(file, options.tree or None, options.branch or None)
    if not options.tree and len(trees) != 1:
        raise InputError(
            f"{file.path}: {len(trees)} trees ({_few(trees) or 'none'}); name the one with the"
            " columns with root_tree"
        )
    return PlainRun(file, options.tree or trees[0], options.columns)


def _open_stream(file: RootFile, label: dict[str, Any]) -> RootRun:
    """Open a stream that we wrote: what it holds, or the entries of its source that it lists."""
    if label.get("kind") != "stream":
        raise InputError(f"{file.path}: tags, not events")
    if label["mode"] == "copy":
        columns = STREAM_COLUMNS[label["holds"]]
        options = RootOptions(tree=STREAM_TREE, columns=columns)
        return PlainRun(file, STREAM_TREE, columns).opened_by(open_root_run, options)
    try:
        entries = {int(e) for e in file.tree(STREAM_TREE)["entry"].array(library="np")}
    except ROOT_ERRORS as error:
        raise InputError(f"{file.path}: damaged: {one_line(error)}") from error
    source = file.path.resolve().parent / label["source"]
    options = RootOptions(label["tree"], label["branch"], label["columns"])
    run = open_root_run(source, options)
    file.close()
    run.events = [(event, name) for event, name in run.events if int(name) in entries]
    return run


def _nothing_found(file: RootFile, options: RootOptions) -> str:
    """The one line that says what there is instead of events."""
    if options.branch:
        branches = [
            f"{name} of {event_class} in {tree}"
            for tree in file.names("TTree")
            for name, event_class in event_branches(file, tree)
        ]
        return (
            f"{file.path}: no branch {options.branch!r} of AtRawEvent or AtEvent; there are"
            f" {_few(branches) or 'none'}"
        )
    if not file.keys:
        return f"{file.path}: a ROOT file without anything in it"
    trees = file.names("TTree") + file.names("ROOT::RNTuple")
    if not trees:
        held = [f"{name} ({kind})" for name, kind in file.keys.items()]
        return f"{file.path}: a ROOT file without a tree; it holds {_few(held)}"
    described = []
    for name in trees[:2]:
        held = [str(key) for key in file.tree(name).keys(recursive=False)]  # no dict: uproot's own
        described.append(f"tree {name} with {_few(held) or 'nothing'}")
    return (
        f"{file.path}: no AtRawEvent and no AtEvent in it, but {'; '.join(described)}; if its"
        " columns are numbers, say which is what with root_columns"
    )


def _few(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
