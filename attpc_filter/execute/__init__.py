"""Who does the tagging: this process, or several."""
