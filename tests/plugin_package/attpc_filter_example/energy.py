"""An output of a graph: an energy and its interval, three numbers an event.

A contract that names the output ``energy_band`` need not say its columns: the row here does.
"""

from attpc_filter import Contract, Output

COLUMNS = ("band_energy", "band_low", "band_high")


def _shape(contract: Contract) -> tuple[int | None, ...]:
    return (len(COLUMNS),)


def _is_declared(contract: Contract) -> bool:
    return "energy_band" in contract.outputs


def _columns(contract: Contract) -> tuple[str, ...]:
    return COLUMNS


ENERGY_BAND = Output("energy_band", _shape, _is_declared, _columns)
