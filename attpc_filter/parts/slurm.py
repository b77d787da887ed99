"""Scripts for Slurm: an array of jobs that does the parts, and a job that joins them."""

import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from attpc_filter.errors import OutputError, UsageError
from attpc_filter.execute.base import InProcess, tag_events
from attpc_filter.formats.registry import open_run
from attpc_filter.parts.parts_list import PartsList, parts_folder

ARRAY_NAME, JOIN_NAME, SUBMIT_NAME = "array.sh", "join.sh", "submit.sh"
#: Slurm's own default of MaxArraySize, which is one more than the largest index.
_MAX_ARRAY_SIZE = 1001
#: A task is told to end so long before its time limit [s].
_NOTICE_S = 60
#: Requeued no more often after its time limit: a part may take longer than the limit.
_MOST_RESTARTS = 10
_MEASURED_S = 1.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the jobs ask Slurm for.

    Attributes
    ----------
    time : str
        Time limit of a task, as Slurm writes it.
    account, partition, mem : str
        As of ``sbatch``; left out if empty.
    cpus : int
        Cores of a task.
    gpu : bool
        A GPU for each task.
    at_once : int
        Most tasks at the same time; 0: as many as the cluster lets run.
    max_array_size : int
        The cluster's MaxArraySize.
    """

    time: str
    account: str = ""
    partition: str = ""
    mem: str = ""
    cpus: int = 1
    gpu: bool = False
    at_once: int = 0
    max_array_size: int = _MAX_ARRAY_SIZE


def n_tasks(parts: PartsList, wishes: Wishes) -> int:
    """How many tasks the array has. With more parts than that, each task does several."""
    return min(len(parts.parts), wishes.max_array_size)


def write_scripts(parts: PartsList, out: Path, wishes: Wishes) -> Path:
    """Write the scripts into the folder of the parts; gives the one that submits the others.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    folder = parts_folder(out.absolute())
    submit = folder / SUBMIT_NAME
    scripts = {
        ARRAY_NAME: _array_script(parts, out.absolute(), wishes),
        JOIN_NAME: _join_script(out.absolute(), wishes),
        SUBMIT_NAME: _submit_script(folder),
    }
    try:
        (folder / "logs").mkdir(exist_ok=True)
        for name, text in scripts.items():
            (folder / name).write_text(text, encoding="utf-8")
            (folder / name).chmod(0o755)
    except OSError as error:
        raise OutputError(f"{error.filename}: cannot be written: {error.strerror}") from error
    return submit


def ask_max_array_size() -> int:
    """The cluster's MaxArraySize; Slurm's default where the cluster does not say."""
    try:
        command = ["scontrol", "show", "config"]
        text = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return _MAX_ARRAY_SIZE
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", text, re.MULTILINE)
    return int(match[1]) if match else _MAX_ARRAY_SIZE


def seconds_of(text: str) -> int:
    """Seconds of a time as Slurm writes it: ``90``, ``90:00``, ``1:30:00``, ``2-12``, ``2-12:30``.

    Raises
    ------
    UsageError
        If it is no such time.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise UsageError(f"--time {text}: not a time such as 90, 1:30:00 or 2-12:00")
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is not None:  # D-HH, D-HH:MM, D-HH:MM:SS
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:  # MM, MM:SS
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    return int(days or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds


def measure(parts: PartsList) -> float:
    """Filter for a second on one core of this machine; gives bytes of run file a second.

    Raises
    ------
    UsageError
        If no run of the list holds events.
    """
    plan = parts.make_plan(parts.make_config())
    root, channels = plan.config.root_options, plan.detector.channels
    n_bytes = seconds = 0.0
    is_warm = False
    with InProcess(plan.config) as executor:
        executor.load(plan)
        for listed in (run for run in parts.runs if not run.error):
            with (
                open_run(Path(listed.path), root, channels=channels) as run,
                tag_events(run, plan, executor) as batches,
            ):
                if not is_warm:  # the first batch loads and compiles
                    is_warm = next(batches, None) is not None
                n_events, began = 0, time.perf_counter()
                for batch in batches:
                    n_events += len(batch.records)
                    if seconds + time.perf_counter() - began >= _MEASURED_S:
                        break
                seconds += time.perf_counter() - began
                n_bytes += n_events * listed.fingerprint["bytes"] / max(1, len(run.events))
            if seconds >= _MEASURED_S:
                break
    if not n_bytes:
        raise UsageError("the runs hold too few events to measure how fast they are filtered")
    return n_bytes / seconds


def _head(out: Path, wishes: Wishes, name: str, log: str) -> list[str]:
    lines = ["#!/bin/bash", f"#SBATCH --job-name=attpc-{name}", f"#SBATCH --time={wishes.time}"]
    for option in ("account", "partition", "mem"):
        if value := getattr(wishes, option):
            lines.append(f"#SBATCH --{option}={value}")
    log_file = parts_folder(out) / "logs" / log
    return [*lines, "#SBATCH --ntasks=1", f'#SBATCH --output="{log_file}"']


def _array_script(parts: PartsList, out: Path, wishes: Wishes) -> str:
    tasks, last = n_tasks(parts, wishes), len(parts.parts) - 1
    at_once = f"%{wishes.at_once}" if wishes.at_once else ""
    device = ["--device", "cuda"] if wishes.gpu else []
    options = shlex.join(["--threads", str(wishes.cpus), *device])
    model = shlex.quote(parts.make_config().model)
    lines = [
        *_head(out, wishes, "filter", "%A_%a.log"),
        f"#SBATCH --array=0-{tasks - 1}{at_once}",
        f"#SBATCH --cpus-per-task={wishes.cpus}",
        *(["#SBATCH --gpus-per-task=1"] if wishes.gpu else []),
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --signal=B:TERM@{_NOTICE_S}",
        "set -u",
        f"attpc_filter=({_program()})",
        "# one place for compiled code: the first task on each kind of processor compiles",
        _cache_line(out),
        f'"${{attpc_filter[@]}}" warm-up --model {model} || exit',
        "# from there on the node's own disk serves, if there is one",
        "scratch=${SLURM_TMPDIR:-${TMPDIR:-}}",
        'if [ -n "$scratch" ] && local_cache=$(mktemp -d "$scratch/attpc-filter.XXXXXX"); then',
        "    trap 'rm -rf \"$local_cache\"' EXIT",
        '    cp -r "$NUMBA_CACHE_DIR/." "$local_cache" && export NUMBA_CACHE_DIR=$local_cache',
        "fi",
        "# SIGTERM comes to this script alone, and is passed on; the part under way is given up",
        f'"${{attpc_filter[@]}}" run --part "$SLURM_ARRAY_TASK_ID-{last}:{tasks}" {options}'
        f" {shlex.quote(str(out))} &",
        "task=$!",
        "trap 'kill -TERM \"$task\"' TERM",
        "while true; do",
        '    wait "$task"',
        "    status=$?",
        '    kill -0 "$task" 2> /dev/null || break  # else it was SIGTERM that ended the waiting',
        "done",
        "trap '' TERM  # a job that is queued again gets one, too",
        f'if [ "$status" -eq 130 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {_MOST_RESTARTS} ]; then',
        '    scontrol requeue "$SLURM_JOB_ID"  # goes on with the parts that are not done',
        "fi",
        'exit "$status"',
    ]
    return "\n".join(lines) + "\n"


def _join_script(out: Path, wishes: Wishes) -> str:
    lines = [
        *_head(out, wishes, "join", "join_%j.log"),
        _cache_line(out),
        f"exec {_program()} join {shlex.quote(str(out))}",
    ]
    return "\n".join(lines) + "\n"


def _submit_script(folder: Path) -> str:
    array, join = (shlex.quote(str(folder / name)) for name in (ARRAY_NAME, JOIN_NAME))
    lines = [
        "#!/bin/sh",
        "set -eu",
        f"array=$(sbatch --parsable {array})",
        "array=${array%%;*}  # the name of the cluster may follow",
        "# whatever became of the tasks: the join looks at each part, and says what is missing",
        f'join=$(sbatch --parsable --dependency=afterany:"$array" {join})',
        'echo "filter     $array"',
        'echo "join       ${join%%;*}"',
    ]
    return "\n".join(lines) + "\n"


def _cache_line(out: Path) -> str:
    """Compiled code lies in one folder for all tasks; the user's own, if one is set."""
    folder = shlex.quote(str(parts_folder(out) / "compiled"))
    return f"export NUMBA_CACHE_DIR=${{NUMBA_CACHE_DIR:-{folder}}}"


def _program() -> str:
    """The command of this program, whatever environment is active on the node."""
    return f"{shlex.quote(sys.executable)} -m attpc_filter.cli"
