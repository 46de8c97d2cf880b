"""A corpus of malformed files, each with what has to become of it: a message, or rows counted with a reason.

"a line that is cut short": Case("a.jsonl", b'…{"question": "2 +', unreadable={3: "no valid JSON: unexpected …"})
"an archive": Case("a.jsonl", b"PK\x03\x04…", refused="is a zip archive")
"""

from tests.finetuning.dataset.malformed_json import ELEMENTS, LINES
from tests.finetuning.dataset.malformed_rows import BAD_ROWS, CONVERSATIONS
from tests.finetuning.dataset.malformed_tables import CSV, TABLES
from tests.finetuning.dataset.odd_files import FILES, READ

CASES = {**LINES, **ELEMENTS, **CSV, **FILES, **TABLES, **READ, **BAD_ROWS, **CONVERSATIONS}
# Cases with one fault, which may share what is said of them.
ALIKE: list[set[str]] = [
    {
        "a line that is cut short",
        "a line without its closing brace",
        "an array that is cut short",
        "an array without its bracket",
        "an object of rows that is cut short",
        "a broken line of a .json file of lines",
    },
    {"single quotes", "no quotes around a key"},
    {"a comment", "plain text"},
    {"NaN", "Infinity", "NaN in an array"},
    {
        "a number out of range",
        "a number out of range in an array",
        "an integer of thousands of digits",
        "an integer of thousands of digits in an array",
    },
    {"a number as a row", "a number in an array"},
    {"a string as a row", "JSON within a string"},
    {"a null as a row", "a null in an array"},
    {"two objects on a line", "two objects with a comma", "a comma after the object"},
    {"a NUL byte in text", "a line of NUL bytes", "a NUL byte in a field", "a NUL byte in an array"},
    {"a control character", "a tab in text"},
    {"a leading surrogate alone", "a trailing surrogate alone", "a surrogate alone in an array"},
    {
        "UTF-8 broken in the middle",
        "UTF-8 broken at the end",
        "Latin-1",
        "an encoded surrogate",
        "an overlong encoding",
        "broken UTF-8 in an array",
        "Latin-1 in a field",
        "text that is no UTF-8 in a table",
    },
    {"deep nesting", "deep nesting of lists", "deep nesting without an end", "deep nesting in an array"},
    {"a line over the limit", "a field over the limit"},
    {"two arrays", "text after an array"},
    {"too few fields", "a semicolon instead of a comma"},
    {"text after a closing quote", "quotes escaped by backslashes"},
    {
        "a field of 200 KiB",
        "a row over max_length",
        "a field of 3 MB",
        "an answer of 1 MB of words",
        "two hundred turns",
    },
    {
        "an empty field",
        "a null in a table",
        "an empty answer",
        "an answer of spaces",
        "an answer of line breaks",
        "an answer of wide spaces",
        "an answer of line separators",
        "an answer of information separators",
        "an answer of invisible characters",
        "an answer that is empty",
        "content that is null",
        "content that is missing",
        "a value that is missing",
        "an output that is null",
    },
    {
        "only a header",
        "a file of nothing but white space",
        "a .json file of nothing but white space",
        "a byte order mark and nothing else",
        "an empty array",
        "an empty object",
        "a table without rows",
        "a table without columns",
    },
    {
        "an empty file",
        "an empty .json file",
        "an empty .csv file",
        "an empty table",
        "an empty gzip file",
        "no byte at all, named .gz",
    },
    {"several lists of rows", "several lists of rows, the name of one in Latin-1"},
    {"UTF-16 with a mark", "UTF-16, big end first, with a mark"},
    {"a zstd file that is damaged", "a zstd file that is cut short"},
    {"a link to nothing", "a link to itself"},
    {"calls that the template does not write", "tools that the template does not write"},
    {"a table that is cut short", "a table with another beginning"},
    {
        "an object without keys",
        "a column that is missing in one row",
        "a mapped column that is missing in one row",
        "rows of another format",
        "messages that are missing",
        "no output",
    },
    {"a column name of many letters", "a column name with control characters"},
    {"a question that is null", "a question of white space"},
    {"a role that is missing", "a role that is null", "a turn of sharegpt in messages", "a sender that is missing"},
    {"a system message in the middle", "two system messages"},
    {"an empty system message and nothing else", "no messages"},
    {"calls that are text", "a call that is text"},
    {
        "tools that are no JSON",
        "a tool that is text",
        "tools of deep nesting",
        "tools with a surrogate alone",
        "tools with NaN",
    },
]
