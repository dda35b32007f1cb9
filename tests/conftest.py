"""What every test needs."""

import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start, too;
# nohup has them ignore the end of the terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
