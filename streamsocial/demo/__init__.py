"""`make demo`: run everything on this machine with one command, until Ctrl-C."""
