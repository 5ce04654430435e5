"""Editing clips of source videos into one movie: edit list, reader, writer, checks, subtitles."""
