"""The command line: one file per verb. Importing it imports neither torch nor open_clip."""
