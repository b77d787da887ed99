"""attpc-filter in Spyral's pipeline: two phases that keep the wanted events.

Free software under the GNU General Public License, version 3 or later, as Spyral is.
"""

from attpc_filter_spyral.phases import FilterPhase, TraceFilterPhase

__all__ = ["FilterPhase", "TraceFilterPhase"]
