"""The report of `make verify`: read, kept, and shown as text and as a page.

`make verify` writes one JSON file a run into `.verify/ENV/`. `report.py` reads it, `history.py`
keeps the directory, `findings.py` and `figures.py` say what is to be seen, `text.py` and `page.py`
show it.
"""
