"""Small documents of every kind that is read, and one with a key."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finetuning.knowledge.documents import DOCUMENTS, SCHEMA, Document
from tests.finetuning.test_secrets import MIXED, PLANTED

# Lines of a key file, each of which but the first looks like any other word.
KEY_LINES = "\n".join([PLANTED["Private Key"], *(MIXED[n:] + MIXED[:n] for n in range(8))])

HTML = b"""<!doctype html><html><head><title>Kettle</title><script>steal()</script><style>p {color: red}</style></head>
<body><nav><a href="/">Home</a> <a href="/shop">Shop</a></nav><main><article><h1>Kettle K7</h1>
<h2>Care</h2><p>Clean the kettle with vinegar once a month, and rinse it twice with fresh water afterwards.</p>
<p>Never put it into water: the base is not sealed, and what gets in does not come out again.</p>
</article></main><footer>All rights reserved</footer></body></html>"""


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    font = 3 + 2 * len(pages)
    for number, text in enumerate(pages):
        drawn = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {4 + 2 * number} 0 R "
            f"/Resources << /Font << /F1 {font} 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(drawn)} >>\nstream\n{drawn}\nendstream")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    return out + f"{end}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n".encode()


def write(folder: Path, documents: Sequence[Document]) -> Path:
    """The folder, in which these documents lie as the asset `documents` leaves them."""
    folder.mkdir(parents=True)
    columns = [pa.array(column) for column in zip(*documents, strict=True)]
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), folder / DOCUMENTS)
    return folder
