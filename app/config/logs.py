import logging


class WithoutQueryStrings(logging.Filter):
    """Cuts the query string off the paths in a server's log records: it may carry a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record's arguments and let it pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] if isinstance(arg, str) and arg.startswith("/") else arg
                for arg in record.args
            )
        return True
