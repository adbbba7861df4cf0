"""Event files in batches: HDF5, ROOT, Parquet and npz, their columns matched by name to an interface record.

`open_events` is the door; memory stays flat whatever the size of the file.
"""

from modelhub.data.events import BLOCK, Batch, DataSpec, Events, open_events

__all__ = ["BLOCK", "Batch", "DataSpec", "Events", "open_events"]
