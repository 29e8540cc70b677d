"""What all tables share."""

from sqlalchemy import BigInteger, Double, Integer, LargeBinary, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase

# SQLite counts rows up only in a column that is exactly INTEGER.
COUNTED = BigInteger().with_variant(Integer, "sqlite")
DIGEST = String(71)
NAME = String(128)


class Table(DeclarativeBase):
    """The base of all tables; constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own way to say it
        float: Double,
        str: Text,
        bytes: LargeBinary,
    }
