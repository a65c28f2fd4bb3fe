"""Files from outside: there is one place for one file, and it stays in memory."""

from io import BytesIO
from typing import Any

from django.core.exceptions import TooManyFilesSent
from django.core.files.uploadedfile import InMemoryUploadedFile
from django.core.files.uploadhandler import FileUploadHandler

from tenants.logos import LARGEST_FILE

TAKES_A_FILE = {"console_settings_look"}  # names of URLs


class LogoUpload(FileUploadHandler):
    """Keep one byte more than a logo may have, so that the form can say that it is too large; nothing is written to a disk. ASVS 5.2.1."""

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        match = self.request.resolver_match if self.request else None
        if match is None or match.url_name not in TAKES_A_FILE:
            raise TooManyFilesSent("No file is taken on this page.")
        super().new_file(*args, **kwargs)
        self.kept = BytesIO()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        self.kept.write(raw_data[: max(0, LARGEST_FILE + 1 - self.kept.tell())])

    def file_complete(self, file_size: int) -> InMemoryUploadedFile:
        size = self.kept.tell()
        self.kept.seek(0)
        return InMemoryUploadedFile(self.kept, self.field_name, self.file_name, self.content_type, size, self.charset)
