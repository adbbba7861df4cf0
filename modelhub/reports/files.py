"""Where reports are written: JUnit XML, Markdown, HTML, and a folder with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modelhub.errors import UsageError
from modelhub.files import atomic_write

if TYPE_CHECKING:
    from modelhub.equivalence.report import Report
    from modelhub.reports.view import Outcome

__all__ = ["Files"]


@dataclass(frozen=True)
class Files:
    """The files a user asked for."""

    junit: Path | None = None
    summary: Path | None = None
    html: Path | None = None
    folder: Path | None = None
    """Gets a report.json for each pair, named after it, and the page as index.html."""

    def __bool__(self) -> bool:
        return any((self.junit, self.summary, self.html, self.folder))

    def prepare(self) -> None:
        """Make the folder, and see that every file has one, before a long check is run. Raises `UsageError`."""
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(f"cannot make the folder {self.folder}: {error.strerror or error}") from error
        for path in filter(None, (self.junit, self.summary, self.html)):
            if path.is_dir():
                raise UsageError(f"{path} is a folder; give the name of a file")
            if not path.parent.is_dir():
                raise UsageError(f"cannot write {path}: there is no folder {path.parent}")

    def write(self, outcomes: Sequence[Outcome], reports: Mapping[str, Report]) -> None:
        """Write what was asked for, after `prepare`. `reports`: by the name of their files, without suffix."""
        from modelhub.reports.html import html
        from modelhub.reports.junit import junit
        from modelhub.reports.markdown import markdown

        if self.folder is not None:
            for name, report in reports.items():
                _write(self.folder / f"{name}.json", report.dumps())
            _write(self.folder / "index.html", html(outcomes))
        if self.junit is not None:
            _write(self.junit, junit(outcomes))
        if self.summary is not None:
            _write(self.summary, markdown(outcomes))
        if self.html is not None:
            _write(self.html, html(outcomes))


def _write(path: Path, text: str) -> None:
    """The text in one step; pipes and terminals, which nothing can replace, are written to as they are."""
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_text(text, encoding="utf-8")
        return
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
