"""Change the code on purpose and see whether a test notices.

    python benchmarks/mutants/run.py --sample 400 --seed 1 --out benchmarks/mutants/report.md

Takes a random sample of all single changes ("mutants") that Cosmic Ray's operators, and one of
ours that removes a statement, can make in the modules of ``selection.toml``. Each mutant is put
into a copy of the tree; the tests that ``selection.toml`` names for the module run until one fails.
A mutant that no test notices is a survivor: a guard that no test has seen firing.

Modules with compiled kernels are left out: a mutant of one would be compiled anew for each test.
Survivors in ``equivalent.toml`` change nothing that can be seen; the reason stands beside each.

The exit status is 0 whatever the score: this is a report.
"""

import argparse
import fnmatch
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Keyword

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
#: Not copied: large, or another tree's.
IGNORED = shutil.ignore_patterns(
    ".venv*", ".git", ".mypy_cache", ".ruff_cache", "out", "*.egg-info"
)

#: Cosmic Ray's operators that make changes a person could make by mistake. "Equal" becomes "not
#: less" and "different" becomes "more" besides the opposite; bounds move by one.
OPERATORS = (
    *(
        f"core/ReplaceComparisonOperator_{change}"
        for change in (
            *("Eq_NotEq", "NotEq_Eq", "Eq_GtE", "NotEq_Gt", "Lt_LtE", "LtE_Lt", "Gt_GtE"),
            *("GtE_Gt", "Lt_GtE", "LtE_Gt", "Gt_LtE", "GtE_Lt", "Is_IsNot", "IsNot_Is"),
        )
    ),
    *(
        f"core/ReplaceBinaryOperator_{change}"
        for change in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "BitAnd_BitOr")
    ),
    *("core/ReplaceAndWithOr", "core/ReplaceOrWithAnd", "core/AddNot", "core/NumberReplacer"),
    *("core/ReplaceTrueWithFalse", "core/ReplaceFalseWithTrue", "core/ExceptionReplacer"),
    *("core/ReplaceBreakWithContinue", "core/ReplaceContinueWithBreak"),
    *("core/ReplaceUnaryOperator_Delete_Not", "core/ReplaceUnaryOperator_Delete_Invert"),
    *("core/ReplaceUnaryOperator_Delete_USub", "core/ZeroIterationForLoop"),
)


class RemoveStatement(Operator):
    """Replaces a call, a ``raise`` or an assignment to an attribute by ``pass``."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """The statement, where the node is one of these."""
        if node.type != "simple_stmt":
            return
        statement = node.children[0]
        is_call = statement.type == "atom_expr" and statement.children[-1].type == "trailer"
        is_set = statement.type == "expr_stmt" and statement.children[0].type == "atom_expr"
        if statement.type == "raise_stmt" or is_call or is_set:
            yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Put ``pass`` in the statement's place."""
        removed = node.children[0]
        prefix = removed.get_first_leaf().prefix
        node.children[0] = Keyword("pass", removed.start_pos, prefix)
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """What becomes of statements."""
        return (
            Example("check(books)\n", "pass\n"),
            Example("if wrong:\n    raise ValueError(1)\n", "if wrong:\n    pass\n"),
            Example("self.n = 0\n", "pass\n"),
        )


@dataclass(frozen=True)
class Place:
    """A place where an operator can change a module."""

    module: str
    operator: str
    occurrence: int
    line: int


@dataclass(frozen=True)
class Mutant:
    """A module with one change in it."""

    module: str
    line: int
    before: str
    after: str
    code: str

    @property
    def change(self) -> str:
        """The changed line, before and after; how ``equivalent.toml`` names the mutant."""
        return f"{self.before} -> {self.after}"


def operator(name: str) -> Operator:
    """An operator by its name."""
    made: Operator = RemoveStatement() if name == "remove" else get_operator(name)()
    return made


def places_of(module: str) -> list[Place]:
    """All places where operators can change a module."""
    nodes = list(ast_nodes(get_ast((ROOT / module).read_text(encoding="utf-8"))))
    return [
        Place(module, name, occurrence, line)
        for name in (*OPERATORS, "remove")
        for occurrence, ((line, _), _) in enumerate(
            at for node in nodes for at in operator(name).mutation_positions(node)
        )
    ]


def change(place: Place) -> Mutant | None:
    """Make the change; None if the operator can make none after all."""
    code = (ROOT / place.module).read_text(encoding="utf-8")
    try:
        changed = mutate_code(code, operator(place.operator), place.occurrence)
    except AttributeError:  # ExceptionReplacer knows no names with dots
        return None
    if changed is None or changed == code:
        return None
    both = zip(code.splitlines(), changed.splitlines(), strict=False)
    before, after = next((pair for pair in both if pair[0] != pair[1]), ("", ""))
    return Mutant(place.module, place.line, before.strip(), after.strip(), changed)


def take_sample(places: list[Place], size: int, seed: int) -> list[Mutant]:
    """Mutants at random, no two the same."""
    shuffled = random.Random(seed).sample(places, len(places))
    taken: dict[str, Mutant] = {}
    for place in shuffled:
        if len(taken) == size:
            break
        mutant = change(place)
        if mutant is not None:
            taken.setdefault(mutant.code, mutant)
    return list(taken.values())


def modules_and_tests() -> dict[str, list[str]]:
    """Modules to change, and the tests that should notice; the first pattern that fits counts."""
    selection = tomllib.loads((HERE / "selection.toml").read_text(encoding="utf-8"))
    modules: dict[str, list[str]] = {}
    for root in ("attpc_filter", "export/attpc_export"):
        for path in sorted((ROOT / root).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if any(fnmatch.fnmatch(name, pattern) for pattern in selection["left_out"]):
                continue
            fits = (t for p, t in selection["tests"].items() if fnmatch.fnmatch(name, p))
            if tests := next(fits, None):
                modules[name] = tests
    return modules


class Copy:
    """A copy of the tree in which one mutant at a time is tested."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        shutil.copytree(ROOT, self.tree, ignore=IGNORED, symlinks=True)
        if (ROOT.parent / "shared").exists():
            (folder / "shared").symlink_to(ROOT.parent / "shared")
        paths = os.pathsep.join(map(str, (self.tree, self.tree / "export")))
        self._environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}

    def notices(self, tests: list[str], limit: float | None) -> bool:
        """Whether a test fails, or takes longer than the limit [s]."""
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
        running = subprocess.Popen(
            command,
            cwd=self.tree,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return running.wait(limit) != 0
        except subprocess.TimeoutExpired:
            return True
        finally:  # processes that a mutant left behind too
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()

    def tries(self, mutant: Mutant, tests: list[str], limit: float) -> bool:
        """Whether a test notices a mutant."""
        path = self.tree / mutant.module
        original = path.read_text(encoding="utf-8")
        compiled = list((path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"))
        for file in compiled:
            file.unlink()
        try:
            path.write_text(mutant.code, encoding="utf-8")
            return self.notices(tests, limit)
        finally:
            path.write_text(original, encoding="utf-8")


def run(mutants: list[Mutant], tests: dict[str, list[str]], n_workers: int) -> list[bool]:
    """Whether each mutant is noticed."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(n_workers) as pool:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for index in range(n_workers):
            (Path(folder) / str(index)).mkdir()
            copies.put(Copy(Path(folder) / str(index)))
        limits: dict[tuple[str, ...], float] = {}
        for selected in {tuple(tests[mutant.module]) for mutant in mutants}:
            copy, began = copies.get(), time.monotonic()
            if copy.notices(list(selected), None):
                raise SystemExit(f"fail without any mutant: {' '.join(selected)}")
            copies.put(copy)
            limits[selected] = 3 * (time.monotonic() - began) + 30

        def attempt(mutant: Mutant) -> bool:
            copy = copies.get()
            try:
                selected = tests[mutant.module]
                noticed = copy.tries(mutant, selected, limits[tuple(selected)])
            finally:
                copies.put(copy)
            word = "noticed " if noticed else "survived"
            print(f"{word} {mutant.module}:{mutant.line}: {mutant.change}", flush=True)
            return noticed

        return list(pool.map(attempt, mutants))


def report(mutants: list[Mutant], noticed: list[bool], of: int, seed: int, took: float) -> str:
    """The report as a page."""
    known = tomllib.loads((HERE / "equivalent.toml").read_text(encoding="utf-8"))
    reasons = {(m, e["change"]): e["reason"] for m, list_ in known.items() for e in list_}
    rows: dict[str, list[int]] = {}
    survivors, equivalent = [], []
    for mutant, seen in zip(mutants, noticed, strict=True):
        row = rows.setdefault(mutant.module, [0, 0, 0])
        reason = reasons.get((mutant.module, mutant.change))
        row[0] += 1
        row[1] += seen
        row[2] += not seen and reason is not None
        line = f"- `{mutant.module}:{mutant.line}`: `{mutant.before}` -> `{mutant.after}`"
        if not seen:
            (survivors if reason is None else equivalent).append(
                line if reason is None else f"{line}: {reason}"
            )

    def score(row: list[int]) -> str:
        return f"{100 * row[1] / max(row[0] - row[2], 1):.0f}%"

    total = [sum(column) for column in zip(*rows.values(), strict=True)]
    cells = [(name, *row, score(row)) for name, row in sorted(rows.items())]
    cells.append(("all", *total, score(total)))
    table = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in cells)
    return f"""# Mutants: changes on purpose, and whether a test noticed

Made by `benchmarks/mutants/run.py`: a sample of {len(mutants)} of {of} possible changes,
seed {seed}, in {took / 60:.0f} minutes. Score: noticed, of those that are not equivalent.

| module | mutants | noticed | equivalent | score |
| --- | ---: | ---: | ---: | ---: |
{table}

## Survivors

{chr(10).join(survivors) or "None."}

## Equivalent: nothing that can be seen changes

{chr(10).join(equivalent) or "None."}
"""


def changed_since(revision: str) -> set[str]:
    """Files that differ from a revision, as far as it is there."""
    command = ["git", "diff", "--name-only", revision]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return set(done.stdout.splitlines())


def main() -> None:
    """Take the sample, test it, write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=400, help="mutants to test")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--workers", type=int, default=2, help="mutants tested at a time")
    parser.add_argument("--modules", nargs="+", default=["*"], help="patterns of modules")
    parser.add_argument("--changed", metavar="REV", help="only modules that differ from REV")
    parser.add_argument("--out", type=Path, help="report to write, else it is printed")
    args = parser.parse_args()
    tests = {
        name: selected
        for name, selected in modules_and_tests().items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in args.modules)
    }
    if args.changed:
        changed = changed_since(args.changed)
        tests = {name: selected for name, selected in tests.items() if name in changed}
    places = [place for module in tests for place in places_of(module)]
    sample = take_sample(places, args.sample, args.seed)
    if not sample:
        print("no module to change")
        return
    began = time.monotonic()
    noticed = run(sample, tests, args.workers)
    page = report(sample, noticed, len(places), args.seed, time.monotonic() - began)
    if args.out:
        args.out.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
