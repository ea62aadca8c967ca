"""What a store or a published folder holds, and its parts."""

from quantstore import store
from quantstore.store.parts import listing


def ask(path, sql, *parameters):
    with store.reading(path) as connection:
        return connection.rows(sql, parameters)


def contents(path):
    """The rows of every table and view, but for what says when the store was made."""
    with store.reading(path) as connection:
        names = connection.rows(
            "select table_name, string_agg(column_name, ', ' order by column_name)"
            " from duckdb_columns() where not internal and schema_name = 'main'"
            " and table_name <> 'store_info' group by all"
        )
        return {
            table: sorted(connection.rows(f"select {columns} from {table}"), key=repr)
            for table, columns in names
        }


def parts(folder):
    """The names of the parts that count; the first one of a folder has no rows."""
    return [part.name for part in listing(folder).live]
