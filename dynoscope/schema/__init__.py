"""The metric registry, the tables, and the layout of a run folder.

Everything that names, types, explains or draws a quantity reads it from here.
"""

from dynoscope.schema.folder import SCHEMA_VERSION
from dynoscope.schema.registry import TABLES, Metric, Table, metric

__all__ = ["SCHEMA_VERSION", "TABLES", "Metric", "Table", "metric"]
