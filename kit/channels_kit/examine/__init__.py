"""Run an application's own checks before it goes to a host, and name every obstacle at once.

``python -m channels_kit.examine`` reads a JSON object from standard input: what the cluster would
give the application (``Subject``), with the environment variables. It runs the application in child
processes that may not connect to anything and may write only to a temporary directory, and prints
one JSON object: what stops a deploy, what is worth knowing, and a message for the operator.
"""
