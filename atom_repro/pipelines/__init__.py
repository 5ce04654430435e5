"""Video-language pipelines for users: caption once, then search, assemble, answer, summarise."""
