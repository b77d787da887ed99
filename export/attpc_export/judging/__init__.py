"""How good a model is: scores, tables, pictures, reports."""
