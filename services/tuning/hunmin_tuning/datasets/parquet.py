"""Rows of a Parquet file, a few at a time. Its metadata is judged before anything is decompressed.

Text columns are read as dictionaries where the file has them so: a value that is repeated a million times is held once.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from hunmin_tuning.datasets.bounds import Bounds, refused
from hunmin_tuning.datasets.row import Row, checked_names

_BATCH_ROWS = 64


def read_parquet(file: BinaryIO, columns: list[str], bounds: Bounds) -> Iterator[Row]:
    """Yield rows, and put the names of the columns into `columns`; `invalid_request` where it cannot be read."""
    file.seek(0)
    number = 0
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        _check(parquet, bounds)
        texts = [field.name for field in parquet.schema_arrow if _is_text(field.type)]
        columns[:] = checked_names(parquet.schema_arrow.names, 1, bounds)
        file.seek(0)
        parquet = pq.ParquetFile(file, pre_buffer=False, read_dictionary=texts)
        for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            for index in range(batch.num_rows):
                number += 1
                values = (_text(column[index]) for column in batch.columns)
                yield Row(number, dict(zip(columns, values, strict=True)))
    except UnicodeDecodeError:
        raise refused("a text is not UTF-8, as Parquet demands. Write the file again.", line=number) from None
    except (pa.ArrowException, OSError) as error:
        what = str(error).partition("\n")[0][:200]
        raise refused(f"the Parquet file cannot be read ({what}). Write it again.", line=number + 1) from None


def _check(parquet: pq.ParquetFile, bounds: Bounds) -> None:
    metadata = parquet.metadata
    if metadata.num_rows > bounds.rows:
        raise refused(
            f"the file has {metadata.num_rows:,} rows; at most {bounds.rows:,} are taken.", line=bounds.rows + 1
        )
    sizes = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
    first = 1
    for number, size in enumerate(sizes):
        if size > bounds.row_group_bytes or sum(sizes[: number + 1]) > bounds.text_bytes:
            raise refused(
                f"a row group decompresses to {size:,} bytes, and all of them to {sum(sizes):,}; at most "
                f"{bounds.row_group_bytes:,} and {bounds.text_bytes:,} are taken. Write smaller row groups, or less.",
                line=first,
            )
        first += metadata.row_group(number).num_rows
    for field in parquet.schema_arrow:
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            raise refused(
                f"column {field.name[:100]!r} holds {field.type}. Columns are text, numbers, dates or true and false.",
                line=1,
            )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(value: Any) -> str:
    content = value.as_py()
    if isinstance(content, bool):
        return "true" if content else "false"
    return "" if content is None else str(content)
