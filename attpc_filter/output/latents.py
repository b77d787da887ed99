"""Latents: what the encoder made of each event, one row an event, in a Parquet file.

Columns of version 2: ``run`` (int64), ``event`` (int64), ``latent`` (float32, a list of one length,
null where the event was not scored): the rows of the tag table, in its order. The file's metadata
are those of the tag table.
"""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from attpc_filter.errors import InputError, OutputError
from attpc_filter.output.tag_table import file_metadata
from attpc_filter.texts import one_line

#: Version of the file's layout.
LATENTS_VERSION = 2


class LatentWriter:
    """Writes latents batch by batch.

    Parameters
    ----------
    path : Path
        File to write.
    latent_size : int
        Numbers of a latent.
    metadata : dict
        What goes into the file's metadata: texts as they are, all else as JSON.
    """

    def __init__(self, path: Path, latent_size: int, metadata: dict[str, Any]) -> None:
        self._path = path
        self._n_rows = 0
        entries = {"latents_version": LATENTS_VERSION} | metadata
        self._type = pa.list_(pa.float32(), latent_size)
        schema = pa.schema(
            [("run", pa.int64()), ("event", pa.int64()), ("latent", self._type)],
            file_metadata(entries),
        )
        try:
            self._writer = pq.ParquetWriter(
                path, schema, compression="zstd", write_page_checksum=True
            )
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error

    def add(
        self,
        run: int,
        events: NDArray[np.int64],
        latents: NDArray[np.float32],
        scored: NDArray[np.bool_],
    ) -> None:
        """Add the rows of a batch; ``latents`` has shape (n_events, latent_size)."""
        rows = pa.FixedSizeListArray.from_arrays(
            pa.array(latents.reshape(-1)), type=self._type, mask=pa.array(~scored)
        )
        columns = [pa.array(np.full(len(events), run, np.int64)), pa.array(events), rows]
        try:
            self._writer.write_batch(pa.record_batch(columns, schema=self._writer.schema))
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        self._n_rows += len(events)

    def close(self) -> None:
        """Close the file and verify the number of rows."""
        try:
            self._writer.close()
            held = pq.read_metadata(self._path).num_rows
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error}") from error
        if held != self._n_rows:
            raise OutputError(f"{self._path}: holds {held} rows, {self._n_rows} were written")

    def abort(self) -> None:
        """Close the file as it is; the caller removes it."""
        with contextlib.suppress(OSError):
            self._writer.close()


def read_latents(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Read latents back.

    Returns
    -------
    events : ndarray of int64, shape (n_events,)
        Event numbers, in the order of the tag table.
    latents : ndarray of float32, shape (n_events, latent_size)
        NaN where the event was not scored.

    Raises
    ------
    InputError
        If the file holds no latents.
    """
    try:
        table = pq.read_table(path, columns=["event", "latent"], page_checksum_verification=True)
        rows = table.column("latent").combine_chunks()
        size = rows.type.list_size
    except (OSError, pa.ArrowInvalid, AttributeError) as error:
        raise InputError(f"{path}: no latents: {one_line(error)}") from error
    latents = np.full((len(rows), size), np.nan, np.float32)
    latents[rows.is_valid().to_numpy(zero_copy_only=False)] = (
        rows.drop_null().flatten().to_numpy().reshape(-1, size)
    )
    return table.column("event").to_numpy(), latents
