"""Traces to hits, against numpy's FFT and SciPy's ``find_peaks``."""

from dataclasses import fields, replace
from functools import cache
from typing import Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import find_peaks

from attpc_filter.rebuild.detector import Detector, ZCalibration, z_of_time_bucket
from attpc_filter.rebuild.hits import (
    HitSettings,
    baseline_taps,
    rebuild_hits,
    subtract_baseline,
)
from attpc_filter.rebuild.padplane import PadPlane, load_padplane
from attpc_filter.records import Hits, Record, join_hits
from tests import miniatures

SETTINGS = settings(max_examples=150, deadline=None)
PAD = int(miniatures.events()[0].points[0, 5])


def plain_plane(n_pads: int = 10240) -> PadPlane:
    """A plane without corrections and without a beam region."""
    numbers = np.arange(n_pads, dtype=np.float32)
    ones, zeros = np.ones(n_pads, np.float32), np.zeros(n_pads, np.float32)
    return PadPlane(numbers, -numbers, ones, ones, zeros, np.zeros(n_pads, np.bool_))


@cache
def shipped_plane() -> PadPlane:
    """The AT-TPC's."""
    return load_padplane()


def hits_of(samples: NDArray[np.int16], shown: HitSettings | None = None) -> Hits:
    """Hits of one trace, on a pad without corrections."""
    shown = shown or HitSettings()
    row = np.concatenate([[0, 0, 0, 0, PAD], samples]).astype(np.int16)
    return rebuild_hits([Record(0, "", traces=row[None])], Detector("", plain_plane()), shown)


def corrected_by_numpy(samples: NDArray[np.int16], window_scale: float) -> NDArray[np.float64]:
    """A trace less its baseline by Spyral's formula, with numpy's own FFT."""
    trace = samples.astype(np.float64)
    trace[0], trace[-1] = trace[1], trace[-2]
    base = trace.copy()
    above = base - base.mean() > 1.5 * base.std()
    base[above] = np.trunc(base[~above].mean())
    window = np.fft.ifftshift(np.sinc(np.arange(-256.0, 256.0) / window_scale))
    smooth = np.fft.ifft(np.fft.fft(base) * window).real
    corrected: NDArray[np.float64] = trace - smooth
    return corrected


@st.composite
def traces(draw: st.DrawFn) -> NDArray[np.int16]:
    """512 samples: noise, a drifting base, up to five pulses of any height and width, clipped."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    time = np.arange(512)
    samples = draw(st.integers(0, 1000)) + rng.normal(0, draw(st.sampled_from([0, 2, 10])), 512)
    samples = samples + draw(st.integers(0, 200)) * np.sin(time / draw(st.integers(20, 200)))
    for _ in range(draw(st.integers(0, 5))):
        centre, width = draw(st.integers(0, 511)), draw(st.floats(1.5, 14))
        samples = samples + draw(st.integers(10, 3000)) * np.exp(
            -0.5 * ((time - centre) / width) ** 2
        )
    return np.clip(samples.round(), 0, 4095).astype(np.int16)


class TestBaseline:
    """The moving average against Spyral's formula."""

    @SETTINGS
    @given(samples=traces(), scale=st.sampled_from([10.0, 20.0, 50.0, 100.0]))
    def test_is_the_fourier_transform_formula(
        self, samples: NDArray[np.int16], scale: float
    ) -> None:
        expected = corrected_by_numpy(samples, scale)
        found = subtract_baseline(samples, scale)
        tolerance = 1.0 + 0.005 * samples.std()  # 1: cut to integers
        assert np.abs(found - expected).max() <= tolerance + 0.5

    @SETTINGS
    @given(seed=st.integers(0, 2**32 - 1), low=st.integers(-32768, 32767))
    def test_over_the_whole_range_of_16_bits(self, seed: int, low: int) -> None:
        """No sum overflows, whatever the samples."""
        rng = np.random.default_rng(seed)
        samples = rng.integers(low, 32768, 512).astype(np.int16)
        expected = corrected_by_numpy(samples, 20.0)
        found = subtract_baseline(samples, 20.0)
        assert np.abs(found - expected).max() <= 2.0 + 0.01 * max(samples.std(), 1.0)

    @pytest.mark.parametrize("level", [-32768, -1, 0, 300, 4095, 32767])
    def test_a_flat_trace_is_its_own_baseline(self, level: int) -> None:
        found = subtract_baseline(np.full(512, level, np.int16), 20.0)
        assert np.abs(found).max() <= 1

    def test_noisy_ends_are_replaced(self) -> None:
        samples = np.full(512, 300, np.int16)
        samples[0], samples[-1] = 4000, -4000
        assert np.abs(subtract_baseline(samples, 20.0)).max() <= 1

    @pytest.mark.parametrize("scale", [5.0, 20.0, 77.7, 100.0])
    def test_taps_are_an_average(self, scale: float) -> None:
        taps = baseline_taps(scale, 512)
        assert taps[0] + 2 * taps[1:].sum() == pytest.approx(1.0, abs=1e-5)
        assert (len(taps) - 1) % 5 == 0
        assert taps[0] == pytest.approx(scale / 512, rel=0.1)


def peaks_by_scipy(signal: NDArray[np.int32], shown: HitSettings) -> list[tuple[int, int, int]]:
    """Position, amplitude and integral of the peaks that Spyral's settings keep."""
    at, properties = find_peaks(
        signal,
        distance=shown.peak_separation,
        prominence=shown.peak_prominence,
        width=(1.0, shown.peak_max_width),
        rel_height=0.95,
    )
    found = []
    for index, position in enumerate(at):
        if signal[position] > shown.peak_threshold:
            left = int(np.floor(properties["left_ips"][index]))
            right = int(np.ceil(properties["right_ips"][index]))
            integral = int(np.abs(signal[left:right]).sum())
            found.append((int(position), int(signal[position]), integral))
    return found


def is_clear_cut(signal: NDArray[np.int32], shown: HitSettings) -> bool:
    """Whether the peaks stay the same if samples and settings change a little.

    False for ties, whose order SciPy leaves to numpy's sort, and for peaks just at a limit, where
    one ADC count in the baseline decides.
    """
    expected = [(at, height) for at, height, _ in peaks_by_scipy(signal, shown)]
    time = np.arange(512)
    for at, height in expected:
        apart = np.abs(time - at)
        rivals = (apart > 1) & (apart <= shown.peak_separation + 1)
        if (signal[rivals] > height - 5 - 0.002 * height).any():
            return False
    near = [
        replace(shown, **{name: getattr(shown, name) * factor})
        for name in ("peak_separation", "peak_prominence", "peak_max_width", "peak_threshold")
        for factor in (0.93, 1.07)
    ]
    rng = np.random.default_rng(0)
    variants = [(signal, other) for other in near]
    variants += [(signal + rng.integers(-1, 2, 512), shown) for _ in range(6)]
    for changed, other in variants:
        found = peaks_by_scipy(changed.astype(np.int32), other)
        if len(found) != len(expected) or any(
            abs(one[0] - two[0]) > 1 for one, two in zip(found, expected, strict=True)
        ):
            return False
    return True


class TestPeaks:
    """``multi``: the peak search against SciPy on random traces, ties excluded."""

    @SETTINGS
    @given(
        samples=traces(),
        scale=st.sampled_from([20.0, 50.0]),
        separation=st.sampled_from([2.0, 12.5, 50.0]),
        prominence=st.sampled_from([5.0, 20.0, 200.0]),
        max_width=st.sampled_from([15.0, 50.0, 200.0]),
        threshold=st.sampled_from([15.0, 40.0, 400.0]),
    )
    def test_is_scipys(
        self,
        samples: NDArray[np.int16],
        scale: float,
        separation: float,
        prominence: float,
        max_width: float,
        threshold: float,
    ) -> None:
        shown = HitSettings(
            baseline_window_scale=scale,
            peak_separation=separation,
            peak_prominence=prominence,
            peak_max_width=max_width,
            peak_threshold=threshold,
        )
        signal = corrected_by_numpy(samples, scale).astype(np.int32)
        assume(is_clear_cut(signal, shown))
        expected = peaks_by_scipy(signal, shown)
        if len(expected) > shown.max_peaks:
            expected = []
        hits = hits_of(samples, shown)
        assert len(hits.x) == len(expected)
        for index, (at, amplitude, integral) in enumerate(expected):
            assert abs(hits.time_bucket[index] - at) <= 1
            assert abs(hits.charge[index] - amplitude) <= 2 + 0.02 * amplitude
            assert abs(hits.integral[index] - integral) <= 60 + 0.05 * integral

    @pytest.mark.parametrize("n_pulses", [1, 4, 5, 6, 8])
    def test_traces_of_too_many_peaks_are_dropped_whole(self, n_pulses: int) -> None:
        centres = 30 + 60 * np.arange(n_pulses)
        pulses = sum(miniatures.pulse(float(centre), 500.0) for centre in centres)
        hits = hits_of((300 + pulses).astype(np.int16))
        assert len(hits.x) == (n_pulses if n_pulses <= 5 else 0)
        if n_pulses <= 5:
            np.testing.assert_array_equal(hits.time_bucket, centres)

    @pytest.mark.parametrize("amplitude", [30, 60])
    def test_the_threshold(self, amplitude: int) -> None:
        samples = 300 + miniatures.pulse(200.0, float(amplitude))
        assert len(hits_of(samples.astype(np.int16)).x) == (amplitude > 40)

    @pytest.mark.parametrize("kind", ["zeros", "flat", "highest", "lowest", "ramp", "alternating"])
    def test_what_has_no_peak(self, kind: str) -> None:
        samples = {
            "zeros": np.zeros(512),
            "flat": np.full(512, 300),
            "highest": np.full(512, 32767),
            "lowest": np.full(512, -32768),
            "ramp": np.arange(512),
            "alternating": np.arange(512) % 2 * 30,
        }[kind]
        assert len(hits_of(samples.astype(np.int16)).x) == 0


class TestLargestSample:
    """``peak``: one hit a pad, the largest sample above the local base."""

    @SETTINGS
    @given(samples=traces(), threshold=st.sampled_from([10.0, 40.0, 400.0]))
    def test_is_the_largest_sample(self, samples: NDArray[np.int16], threshold: float) -> None:
        inner = samples[1:-1].astype(np.float64)
        base = np.trunc(inner[inner <= inner.mean() + 1.5 * inner.std()].mean())
        height = inner.max() - base
        assume(abs(height - threshold) > 1.5)
        # where the cut falls on a sample, rounding decides whether it belongs to the base
        cut = inner.mean() + 1.5 * inner.std()
        assume(np.abs(inner - cut).min() > 1e-3)
        hits = hits_of(samples, HitSettings(mode="peak", peak_threshold=threshold))
        if height <= threshold:
            assert len(hits.x) == 0
            return
        assert len(hits.x) == 1
        assert hits.time_bucket[0] == 1 + int(inner.argmax())
        assert abs(hits.charge[0] - height) <= 1

    def test_the_integral_is_that_of_the_pulse(self) -> None:
        samples = np.full(512, 300, np.int16)
        samples[100:110] += 50
        samples[105] += 50
        hits = hits_of(samples, HitSettings(mode="peak"))
        assert (hits.time_bucket[0], hits.charge[0], hits.integral[0]) == (105, 100, 550)


class TestPads:
    """Where hits are, and what the pad plane does to them."""

    @SETTINGS
    @given(
        pads=st.lists(
            st.one_of(
                st.integers(0, 10239), st.sampled_from([-32768, -2, -1, 10240, 10241, 32767])
            ),
            max_size=20,
        ),
        mode=st.sampled_from(["multi", "peak"]),
        drop=st.booleans(),
    )
    def test_pads_outside_the_plane_and_of_the_beam_give_no_hit(
        self, pads: list[int], mode: Literal["multi", "peak"], drop: bool
    ) -> None:
        pulse = np.round(300 + miniatures.pulse(200.0, 900.0))
        rows = np.array([[0, 0, 0, 0, pad, *pulse] for pad in pads], np.int16).reshape(-1, 517)
        table = miniatures.pad_table()
        kept = [
            pad
            for pad in pads
            if 0 <= pad < 10240 and not (drop and table["beam"][pad])
        ]  # fmt: skip
        shown = HitSettings(mode=mode, drop_beam_pads=drop)
        hits = rebuild_hits([Record(0, "", traces=rows)], Detector("", shipped_plane()), shown)
        assert list(hits.pad) == kept
        np.testing.assert_allclose(hits.x, table["x"][kept], rtol=1e-6)
        np.testing.assert_allclose(hits.y, table["y"][kept], rtol=1e-6)
        expected = 200 + table["time_offset"][kept]
        np.testing.assert_allclose(hits.time_bucket, expected, rtol=1e-6)

    def test_gains_multiply_charge_and_integral(self) -> None:
        samples = (300 + miniatures.pulse(200.0, 900.0)).astype(np.int16)
        row = np.concatenate([[0, 0, 0, 0, 7], samples]).astype(np.int16)[None]
        plane = plain_plane()
        doubled = replace(plane, gain=np.where(plane.x == 7, 2.5, 1).astype(np.float32))
        one, other = (
            rebuild_hits([Record(0, "", traces=row)], Detector("", p), HitSettings())
            for p in (plane, doubled)
        )
        np.testing.assert_allclose(other.charge, 2.5 * one.charge)
        np.testing.assert_allclose(other.integral, 2.5 * one.integral)

    def test_a_plane_of_fewer_pads(self) -> None:
        samples = (300 + miniatures.pulse(200.0, 900.0)).astype(np.int16)
        rows = np.array([[0, 0, 0, 0, pad, *samples] for pad in (0, 99, 100)], np.int16)
        record = Record(0, "", traces=rows)
        hits = rebuild_hits([record], Detector("", plain_plane(100)), HitSettings())
        assert list(hits.pad) == [0, 99]


class TestZ:
    """The z calibration: (window - tb) / (window - micromegas) x length."""

    @SETTINGS
    @given(
        micromegas=st.floats(0, 200),
        drift=st.floats(10, 400),
        length=st.floats(1, 5000),
        buckets=st.lists(st.floats(-100, 600, width=32), max_size=20),
    )
    def test_is_linear_between_its_references(
        self, micromegas: float, drift: float, length: float, buckets: list[float]
    ) -> None:
        window = micromegas + drift
        time_bucket = np.array(buckets, np.float32)
        calibration = ZCalibration(micromegas, window, length)
        z = z_of_time_bucket(time_bucket, calibration)
        assert z.dtype == np.float32
        expected = (window - time_bucket.astype(np.float64)) / (window - micromegas) * length
        np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-3 * length / drift)
        ends = z_of_time_bucket(np.array([window, micromegas], np.float32), calibration)
        np.testing.assert_allclose(ends, [0, length], atol=1e-3 * length)

    def test_reaches_hits_of_traces_and_of_points_without_z(self) -> None:
        calibration = ZCalibration(50.0, 250.0, 800.0)
        event = miniatures.events()[1]
        points = np.zeros((3, 7))
        points[:, 2], points[:, 3] = np.nan, [50, 150, 250]
        records = [Record(1, "", traces=event.traces), Record(2, "", points=points)]
        hits = rebuild_hits(
            records, Detector("", shipped_plane(), calibration=calibration), HitSettings()
        )
        np.testing.assert_allclose(hits.event(1).z, [800, 400, 0], atol=1e-3)
        first = hits.event(0)
        np.testing.assert_allclose(first.z, (250 - first.time_bucket) / 200 * 800, rtol=1e-5)

    def test_leaves_points_that_have_a_z_alone(self) -> None:
        points = np.arange(14.0).reshape(2, 7)
        hits = rebuild_hits(
            [Record(1, "", points=points)], Detector("", plain_plane()), HitSettings()
        )
        for column, name in enumerate(("x", "y", "z", "time_bucket", "charge", "integral", "pad")):
            np.testing.assert_array_equal(getattr(hits, name), points[:, column])


class TestBatches:
    """A batch gives what its events give one by one."""

    @settings(max_examples=25, deadline=None)
    @given(
        order=st.lists(st.sampled_from(range(9)), max_size=12),
        mode=st.sampled_from(["multi", "peak"]),
        cut=st.integers(0, 12),
    )
    def test_events_do_not_see_each_other(
        self, order: list[int], mode: Literal["multi", "peak"], cut: int
    ) -> None:
        events = miniatures.events()
        kinds = [Record(e.number, "", traces=e.traces) for e in events]
        kinds.append(Record(98, "", reason="damaged"))
        kinds.append(Record(99, "", points=np.random.default_rng(2).uniform(0, 9, (5, 7))))
        records = [kinds[index] for index in order]
        plane, shown = shipped_plane(), HitSettings(mode=mode)

        def rebuilt(part: list[Record]) -> Hits:
            return rebuild_hits(part, Detector("", plane), shown)

        whole = rebuilt(records)
        assert whole.n_events == len(records)
        single = [rebuilt([record]) for record in records]
        for index, hits in enumerate(single):
            of_batch = whole.event(index)
            for column in fields(Hits):
                np.testing.assert_array_equal(
                    getattr(of_batch, column.name), getattr(hits, column.name)
                )
        if len(records) > 1:
            joined = join_hits([rebuilt(records[:cut]), rebuilt(records[cut:])])
            for column in fields(Hits):
                one, other = getattr(joined, column.name), getattr(whole, column.name)
                np.testing.assert_array_equal(one, other)

    def test_rebuilding_leaves_the_traces_as_they_are(self) -> None:
        event = miniatures.events()[-1]
        traces = event.traces.copy()
        rebuild_hits([Record(1, "", traces=traces)], Detector("", shipped_plane()), HitSettings())
        np.testing.assert_array_equal(traces, event.traces)


class TestSamples:
    """Runs may have any number of samples; the loops go over as many as there are."""

    @pytest.mark.parametrize("n_samples", [32, 33, 64, 65, 96, 255, 256, 300, 511, 513, 1000, 1024])
    @pytest.mark.parametrize("seed", range(3))
    def test_peaks_are_those_of_scipy(self, n_samples: int, seed: int) -> None:
        """Peaks of the signal that the same baseline leaves, by SciPy's ``find_peaks``."""
        rng = np.random.default_rng(seed)
        time = np.arange(n_samples)
        samples = 300 + rng.normal(0, 2, n_samples)
        for at in rng.uniform(0, n_samples, 3):
            samples += rng.uniform(60, 900) * np.exp(-0.5 * ((time - at) / 4.0) ** 2)
        trace = samples.astype(np.int16)
        signal = subtract_baseline(trace, 20.0)
        expected, _ = find_peaks(
            signal,
            height=40.5,
            distance=50.0,
            prominence=20.0,
            width=(1.0, 50.0),
            rel_height=0.95,
        )
        row = np.concatenate([[0, 0, 0, 0, 7], trace]).astype(np.int16)
        record = Record(0, "", traces=row[None])
        hits = rebuild_hits([record], Detector("", plain_plane(), n_samples), HitSettings())
        assert hits.time_bucket.tolist() == sorted(expected.tolist())

    @pytest.mark.parametrize("mode", ["multi", "peak"])
    def test_one_pulse_is_one_hit_where_it_is(self, mode: Literal["multi", "peak"]) -> None:
        time = np.arange(256)
        trace = 300 + 500 * np.exp(-0.5 * ((time - 200) / 4.0) ** 2)
        row = np.concatenate([[0, 0, 0, 0, 7], trace]).astype(np.int16)
        detector = Detector("", plain_plane(), 256, ZCalibration(20.0, 240.0, 1100.0))
        hits = rebuild_hits([Record(0, "", traces=row[None])], detector, HitSettings(mode=mode))
        assert hits.time_bucket.tolist() == [200.0]
        np.testing.assert_allclose(hits.z, [40 / 220 * 1100])
        assert 480 < hits.charge[0] <= 500

    @pytest.mark.parametrize("n_samples", [0, 31, 4097, 8192])
    def test_others_are_refused(self, n_samples: int) -> None:
        with pytest.raises(ValueError, match="n_samples"):
            Detector("", plain_plane(), n_samples)


def test_the_checksum_of_a_detector_follows_all_that_decides_hits() -> None:
    one = Detector("one", plain_plane())
    assert replace(one, name="two").sha256 == one.sha256
    others = [
        replace(one, n_samples=256),
        replace(one, calibration=ZCalibration(window_time_bucket=300.0)),
        replace(one, plane=replace(one.plane, gain=one.plane.gain * np.float32(2))),
    ]
    assert len({detector.sha256 for detector in (one, *others)}) == 4
