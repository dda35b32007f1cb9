"""Has Ansible do a few things once that it does again and again; what it says stays the same."""

from pathlib import Path
from typing import Any

from ansible._internal._datatag._tags import Origin
from ansible._internal._templating._jinja_bits import AnsibleEnvironment, _TemplateCompileContext
from ansible.release import __version__
from jinja2 import FileSystemBytecodeCache

COMPILED = Path(__file__).parents[3] / ".staging" / "compiled-templates"

# What Jinja's compiler asks of an environment.
SETTINGS = (
    *("block_start_string", "block_end_string", "variable_start_string", "variable_end_string"),
    *("comment_start_string", "comment_end_string", "line_statement_prefix"),
    *("line_comment_prefix", "trim_blocks", "lstrip_blocks", "newline_sequence"),
    *("keep_trailing_newline", "optimized", "autoescape", "is_async"),
)


def compile_once() -> None:
    """Have the processes of all tests keep what they compile: Ansible forks one a task and host.

    Jinja's own cache keeps one text for each name, and asks for it only where a loader reads files.
    """
    compile_anew = AnsibleEnvironment.compile
    COMPILED.mkdir(parents=True, exist_ok=True)
    cache = FileSystemBytecodeCache(str(COMPILED))

    def compile_kept(
        self: AnsibleEnvironment, source: Any, name: Any = None, filename: Any = None, **more: Any
    ) -> Any:
        if more or not isinstance(source, str):
            return compile_anew(self, source, name, filename, **more)
        context = _TemplateCompileContext.current(optional=True)
        escape = context and context.escape_backslashes
        settings = [getattr(self, setting) for setting in SETTINGS]
        words = repr((str(source), name, settings, escape, __version__))
        bucket = cache.get_bucket(self, words, filename, source)
        if bucket.code is None:
            bucket.code = compile_anew(self, source, name, filename)
            cache.set_bucket(bucket)
        return bucket.code

    AnsibleEnvironment.compile = compile_kept


def copy_no_origin() -> None:
    """Have copies share what never changes: from which line of which file each value came."""
    Origin.__deepcopy__ = lambda self, memo: self
