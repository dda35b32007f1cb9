from whitenoise.storage import (  # type: ignore[import-untyped]
    CompressedManifestStaticFilesStorage,
)


class HashedStaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Names static files by their content, so that browsers may keep them for ever.

    Imports between JavaScript modules are rewritten too: else a page of a new release could run a
    module of the old one out of a browser's cache.
    """

    support_js_module_import_aggregation = True
