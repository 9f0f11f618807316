"""The command line: one file a command. Nothing below prints, exits or owns a console."""
