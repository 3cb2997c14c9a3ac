"""`make demo`: everything on this machine, with one command, and gone with Ctrl-C."""
