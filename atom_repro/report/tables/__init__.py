"""One module per table, or per family of tables with the same columns."""
