"""Labels AT-TPC events by eye: a server on this machine, and pages for a browser."""
