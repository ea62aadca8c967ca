"""A statement that somebody typed: one that only reads, its answer in types that Arrow holds."""

import re

import duckdb
from duckdb.sqltypes import DuckDBPyType

from quantstore.errors import RejectedQueryError

# What sandbox() asks for; the message ends at its first line or at the closing quote.
JSON_MESSAGE = re.compile(r'"exception_message":"(?P<message>(?:[^"\\]|\\[^n])*)')

NO_STATEMENT = "the query is empty"
ONE_SELECT = "run one SELECT at a time"
ONLY_SELECT = "only SELECT queries are allowed here"


def only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The one statement that the text holds; raises unless it only reads."""
    statements = connection.extract_statements(sql)
    if not statements:
        raise RejectedQueryError(NO_STATEMENT, "write one SELECT, for example: from model_summary")
    if len(statements) > 1:
        raise RejectedQueryError(f"these are {len(statements)} statements", ONE_SELECT)
    try:
        statement_type = statements[0].type
    except ValueError:
        # DuckDB parses statements, such as UPDATE EXTENSIONS, whose kind its Python client lacks.
        statement_type = duckdb.StatementType.EXTENSION
    # A PIVOT that must look up its columns first counts as several, whatever it is part of.
    if statement_type == duckdb.StatementType.MULTI:
        statement_type = _type_with_pivot(connection, statements[0].query)
    elif statement_type == duckdb.StatementType.SELECT:
        _require_no_writing_inside(connection, statements[0].query)
    if statement_type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise RejectedQueryError(ONLY_SELECT, ONE_SELECT)
    if statement_type == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains.
        only_select(connection, _explained(statements[0].query))
    return statements[0]


def _type_with_pivot(connection: duckdb.DuckDBPyConnection, query: str) -> duckdb.StatementType:
    """What a statement is that has a PIVOT somewhere: in a COPY as well, behind WITH or EXPLAIN."""
    encoded, offsets = _word_offsets(query)
    if encoded[offsets[0] :][:7].lower() == b"explain":
        return duckdb.StatementType.EXPLAIN
    if _writing_words(query):
        return duckdb.StatementType.MULTI
    end = next((at for at in offsets if encoded.startswith(b";", at)), len(encoded))
    try:
        # Only what reads may stand in parentheses.
        connection.extract_statements(f"from (\n{encoded[:end].decode()}\n)")
    except duckdb.ParserException:
        return duckdb.StatementType.MULTI
    return duckdb.StatementType.SELECT


def _require_no_writing_inside(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise where a table of WITH is a statement that writes: DuckDB calls the whole a SELECT."""
    if not _writing_words(query):
        return
    ((serialized,),) = connection.execute("select json_serialize_sql(?)", [query]).fetchall()
    nodes = set(_NODES.findall(serialized))
    if not nodes or not nodes <= _READING_NODES:
        raise RejectedQueryError(ONLY_SELECT, ONE_SELECT)


# What DuckDB writes into its tree of a statement. A text of the statement has its quotes escaped.
_NODES = re.compile(r'"type":"(\w+_NODE)"')
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}


def _writing_words(query: str) -> bool:
    """Whether a word of the statement begins one that writes, or is a name that reads like that."""
    encoded, offsets = _word_offsets(query)
    return any(_WRITES.match(encoded, at) for at in offsets)


_WRITES = re.compile(rb"(copy|insert|update|delete|merge|truncate)\b", re.IGNORECASE)


def _explained(query: str) -> str:
    """What comes behind EXPLAIN, ANALYZE and a list of options."""
    encoded, offsets = _word_offsets(query)
    depth = 0
    for at in offsets[1:]:
        is_closing = encoded.startswith(b")", at)
        depth += encoded.startswith(b"(", at) - is_closing
        is_option = depth > 0 or is_closing or encoded[at : at + 5].lower() == b"analy"
        if not is_option or _READS.match(encoded, at):
            return encoded[at:].decode()
    return ""


_READS = re.compile(rb"[\s(]*(pivot|pivot_wider|from|select|with|explain)\b", re.IGNORECASE)


def _word_offsets(query: str) -> tuple[bytes, list[int]]:
    """The statement in UTF-8, and where its words begin; remarks are no words."""
    encoded = query.encode()
    # DuckDB counts bytes.
    offsets = [at for at, _ in duckdb.tokenize(query)]
    return encoded, [at for at in offsets if not encoded.startswith((b"--", b"/*"), at)]


def relation(
    connection: duckdb.DuckDBPyConnection,
    statement: duckdb.Statement,
    parameters: list[object] | dict[str, object],
) -> duckdb.DuckDBPyRelation:
    """The statement as a relation; a mistake is reported with its place."""
    try:
        return connection.sql(statement, params=parameters or None)
    except duckdb.Error as error:
        if JSON_MESSAGE.search(str(error)) is None:
            # A relation does not say where a mistake is, a plain execution does. It binds first,
            # so it fails in the same way before it reads anything.
            connection.execute(statement, parameters)
        raise


def representable(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The relation with text for what neither Arrow nor pandas can hold, such as VARIANT or BIT."""
    if all(map(_is_representable, relation.types)):
        return relation
    columns = []
    for number, (name, column_type) in enumerate(
        zip(relation.columns, relation.types, strict=True), 1
    ):
        value = f"#{number}" if _is_representable(column_type) else f"cast(#{number} as varchar)"
        quoted = name.replace('"', '""')
        columns.append(f'{value} as "{quoted}"')
    return relation.project(", ".join(columns))


# The words for types that an Arrow table and a frame hold exactly. Not among them: UHUGEINT, whose
# upper half Arrow takes for negative numbers.
_PLAIN = frozenset(
    [
        *("boolean", "tinyint", "smallint", "integer", "bigint", "hugeint"),
        *("utinyint", "usmallint", "uinteger", "ubigint"),
        *("float", "double", "decimal", "varchar", "enum", "uuid", "null"),
    ]
)
# A column of times may hold infinity and the year 290000; inside a list, Python's own times do not.
_TIMES = frozenset(
    ["timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"]
)


def _is_representable(data_type: DuckDBPyType) -> bool:
    return data_type.id in _TIMES or _is_plain(data_type)


def _is_plain(data_type: DuckDBPyType) -> bool:
    if data_type.id in ("list", "array", "struct", "map"):
        member_types = [
            member_type
            for _, member_type in data_type.children
            if isinstance(member_type, DuckDBPyType)
        ]
        # The keys of a map become those of a dict.
        has_keys = data_type.id != "map" or member_types[0].id in _PLAIN
        return has_keys and all(map(_is_plain, member_types))
    return data_type.id in _PLAIN
