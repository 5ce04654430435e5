"""Reading video files: frame times, sampling, folders of files."""
