"""Says how a text that is not UTF-8 is converted, and names what it is in only where that is sure.

b"Z\\xfcrich" -> `iconv -f cp1252 -t UTF-8 OLD > NEW`: it is a letter in the midst of Latin ones, and the same one in
    all encodings of Latin letters
"""

import re

# Of Western Europe, Central Europe, Turkish and the Baltic. Where they agree on a letter, it is that one.
LATIN = ("cp1252", "cp1250", "cp1254", "cp1257")
# One letter before or after a Latin one; ä, ö and ü also before ß.
LETTER = re.compile(
    rb"(?<=[A-Za-z])[\xa0-\xff](?![\x80-\xff])|(?<![\x80-\xff])[\xa0-\xff](?=[A-Za-z])"
    rb"|(?<![\x80-\xff])[\xe4\xf6\xfc]\xdf(?![\x80-\xff])"
)
SAMPLE_BYTES = 1 << 20


def conversion(sample: bytes) -> str:
    """The command that converts a text, by some bytes of it.

    >>> conversion(b"Z\\xfcrich")
    '`iconv -f cp1252 -t UTF-8 OLD > NEW`'
    >>> conversion("Москва".encode("cp1251"))[:39]
    '`iconv -f ENCODING -t UTF-8 OLD > NEW`,'
    """
    if is_latin(sample):
        return f"`iconv -f {LATIN[0]} -t UTF-8 OLD > NEW`"
    return (
        "`iconv -f ENCODING -t UTF-8 OLD > NEW`, with the encoding that it was written in, such as cp1252 (Western "
        "Europe), cp1250 (Central Europe), cp1251 (Cyrillic), SHIFT_JIS or GB18030"
    )


def is_latin(sample: bytes) -> bool:
    """Whether all bytes beyond ASCII are single letters beside Latin ones that all encodings of these agree on."""
    strange = re.findall(rb"[\x80-\xff]+", sample)
    single = LETTER.findall(sample)
    if not strange or len(strange) != len(single):
        return False
    try:
        letters = {"".join(byte.decode(encoding) for byte in single) for encoding in LATIN}
    except UnicodeDecodeError:
        return False
    return len(letters) == 1 and next(iter(letters)).isalpha()
