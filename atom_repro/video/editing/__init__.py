"""Cutting a movie out of clips: edit list, reader, writer, verification, subtitles."""
