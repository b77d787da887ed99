"""An experiment's folder: what its runs look like, its configurations, the step that comes next."""
