"""The compiled loops of rebuilding: one pass a trace, no temporary arrays, no Python loop.

Not typed: numba compiles each for the arrays that its caller hands over. All release the GIL.
"""

import numpy as np

from attpc_filter.rebuild.detector import DEFAULT_SAMPLES
from attpc_filter.rebuild.peak_kernels import find_peaks, largest_sample
from attpc_filter.rebuild.signal_kernels import entry, inline, subtract_baseline
from attpc_filter.records import N_HARDWARE_COLUMNS, PAD_COLUMN

USUAL_SAMPLES = DEFAULT_SAMPLES

# The entries. Each is compiled when it is first called: a mode or a number of samples that the
# model does not use costs no time.


def _make_multi_hits(known_samples):
    """Make the entry for all hits of traces of a known number of samples; 0: of any number."""

    @entry
    def fill_in(
        scratch,
        traces,
        first_rows,
        plane_x,
        plane_y,
        gain,
        time_offset,
        beam,
        drop_beam_pads,
        threshold,
        pad_out,
        columns,
        offsets,
        taps,
        width,
        separation,
        prominence,
        max_width,
        max_peaks,
    ):
        """Fill in the hits of a batch; its events begin at ``first_rows`` of the traces."""
        n_samples = known_samples if known_samples else len(scratch.kept)
        signal = scratch.blocks.reshape(-1)
        used = 0
        offsets[0] = 0
        for event in range(len(first_rows) - 1):
            for row in range(first_rows[event], first_rows[event + 1]):
                pad = traces[row, PAD_COLUMN]
                if pad < 0 or pad >= plane_x.shape[0] or (drop_beam_pads and beam[pad]):
                    continue
                trace = traces[row, N_HARDWARE_COLUMNS : N_HARDWARE_COLUMNS + n_samples]
                if not subtract_baseline(trace, n_samples, taps, width, threshold, scratch):
                    continue
                n = find_peaks(
                    signal, n_samples, separation, prominence, max_width, threshold, scratch
                )
                if n > max_peaks:
                    continue
                for k in range(n):
                    _fill_in_hit(
                        scratch,
                        signal,
                        k,
                        pad,
                        plane_x,
                        plane_y,
                        gain,
                        time_offset,
                        pad_out,
                        columns,
                        used,
                    )
                    used += 1
            offsets[event + 1] = used

    return fill_in


multi_hits_of_traces = _make_multi_hits(0)
#: A known length makes it a quarter faster.
multi_hits_of_usual_traces = _make_multi_hits(USUAL_SAMPLES)


def _make_peak_hits(known_samples):
    """Make the entry for the largest hit of each trace; ``known_samples`` as above."""

    @entry
    def fill_in(
        scratch,
        traces,
        first_rows,
        plane_x,
        plane_y,
        gain,
        time_offset,
        beam,
        drop_beam_pads,
        threshold,
        pad_out,
        columns,
        offsets,
    ):
        """Fill in the largest hit of each trace; events begin at ``first_rows`` of the traces."""
        n_samples = known_samples if known_samples else len(scratch.kept)
        signal = scratch.blocks.reshape(-1)
        used = 0
        offsets[0] = 0
        for event in range(len(first_rows) - 1):
            for row in range(first_rows[event], first_rows[event + 1]):
                pad = traces[row, PAD_COLUMN]
                if pad < 0 or pad >= plane_x.shape[0] or (drop_beam_pads and beam[pad]):
                    continue
                trace = traces[row, N_HARDWARE_COLUMNS : N_HARDWARE_COLUMNS + n_samples]
                if largest_sample(trace, n_samples, threshold, scratch):
                    _fill_in_hit(
                        scratch,
                        signal,
                        0,
                        pad,
                        plane_x,
                        plane_y,
                        gain,
                        time_offset,
                        pad_out,
                        columns,
                        used,
                    )
                    used += 1
            offsets[event + 1] = used

    return fill_in


peak_hits_of_traces = _make_peak_hits(0)
peak_hits_of_usual_traces = _make_peak_hits(USUAL_SAMPLES)


@inline
def _fill_in_hit(
    scratch, signal, peak, pad, plane_x, plane_y, gain, time_offset, pad_out, columns, row
):
    """Fill in a row: the hit of a trace's peak number ``peak``."""
    at = scratch.peaks[peak]
    part = signal[scratch.left[peak] : scratch.right[peak]]
    total = np.int32(0)  # at most 4096 samples of at most 65535 each
    for i in range(len(part)):
        total = np.int32(total + abs(part[i]))
    pad_out[row] = pad
    columns[0, row] = plane_x[pad]
    columns[1, row] = plane_y[pad]
    columns[3, row] = at + time_offset[pad]
    columns[4, row] = signal[at] * gain[pad]
    columns[5, row] = total * gain[pad]
