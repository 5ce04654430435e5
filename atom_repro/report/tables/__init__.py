"""One file a table, or a family of tables that share their columns."""
