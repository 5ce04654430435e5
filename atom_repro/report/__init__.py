"""Tables and figures as pure functions of records and the paper's cells."""
