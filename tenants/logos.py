"""Logos: foreign pictures in, our own PNG out, so that nothing hidden in a file is ever served."""

import struct
import warnings
from io import BytesIO

from django.utils.translation import gettext as _
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST_FILE = 2 * 1024 * 1024  # bytes
MOST_PIXELS = 16_000_000
LONGEST_SIDE = 512  # pixels, of what is kept
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


class BadLogo(ValueError):
    """A file that is no usable logo; the text says why, and the cure."""


def encode(data: bytes) -> bytes:
    """The picture as a PNG of at most 512 pixels a side, without anything but its pixels. Raises BadLogo.

    Raster formats only: an SVG is a document with scripts. Size and pixel count are checked before anything is unpacked.
    """
    if len(data) > LARGEST_FILE:
        raise BadLogo(_("A logo has at most 2 MB. Save it smaller."))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > MOST_PIXELS:
                raise Image.DecompressionBombError
            picture = ImageOps.exif_transpose(picture)
            picture = picture.convert("RGBA")
    except UnidentifiedImageError:
        raise BadLogo(_("That is no picture in a format taken here: %(formats)s.") % {"formats": ", ".join(FORMATS)}) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadLogo(_("A logo has at most 16 million pixels. Scale it down; 512 pixels a side are enough.")) from None
    except (OSError, SyntaxError, ValueError, EOFError, AttributeError, TypeError, LookupError, ArithmeticError, struct.error):
        # What Pillow raises for a damaged file, and for one whose Exif data lie about their types.
        raise BadLogo(_("The picture is damaged. Save it anew.")) from None
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    bare = Image.new("RGBA", picture.size)  # pixels only: no comments, profiles or coordinates
    bare.paste(picture)
    out = BytesIO()
    bare.save(out, "PNG", optimize=True)
    return out.getvalue()
