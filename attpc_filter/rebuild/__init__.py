"""From traces to hits to projections: arrays in, arrays out, no files but the pad table."""
