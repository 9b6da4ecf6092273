"""The tables of the audit store, and the steps that lead to them. SQLite and PostgreSQL alike.

A step is never edited once it has been released: a change of the schema is a new step at the end.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, Table, Text, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.errors import ConfigError

METADATA = MetaData()

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("id", Text, primary_key=True),
    *(
        Column(name, Text, nullable=False)
        for name in (
            "request_id", "key", "endpoint", "policy", "policy_version", "weights", "decision", "label", "category",
            "route", "tier", "stage", "rail", "source", "error", "sha256",
        )
    ),
    *(Column(name, Float, nullable=False) for name in ("at", "score", "total_ms", "guard_ms", "upstream_ms")),
    Column("scores", JSON, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("text", Text),
)  # fmt: skip

FEEDBACK = Table(
    "feedback",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("decision_id", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("note", Text, nullable=False),
)

PROBES = Table(
    "probe_results",
    METADATA,
    Column("id", Text, primary_key=True),
    *(
        Column(name, Text, nullable=False)
        for name in (
            "run", "suite", "probe", "text", "expected", "observed", "label", "category", "route", "stage", "rail",
            "policy", "policy_version", "weights",
        )
    ),
    Column("at", Float, nullable=False),
    Column("score", Float, nullable=False),
)  # fmt: skip

COMPARISONS = Table(
    "comparisons",
    METADATA,
    Column("id", Text, primary_key=True),
    *(
        Column(name, Text, nullable=False)
        for name in (
            "decision_id", "policy", "policy_version", "weights", "live", "candidate", "label", "category", "route",
            "rail",
        )
    ),
    Column("at", Float, nullable=False),
    Column("score", Float, nullable=False),
)  # fmt: skip

VERSION = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE decisions (
            id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, request_id TEXT NOT NULL, key TEXT NOT NULL,
            endpoint TEXT NOT NULL, policy TEXT NOT NULL, policy_version TEXT NOT NULL, weights TEXT NOT NULL,
            decision TEXT NOT NULL, label TEXT NOT NULL, category TEXT NOT NULL, score DOUBLE PRECISION NOT NULL,
            scores JSON NOT NULL, route TEXT NOT NULL, tier TEXT NOT NULL, stage TEXT NOT NULL, rail TEXT NOT NULL,
            source TEXT NOT NULL, error TEXT NOT NULL, stream BOOLEAN NOT NULL, total_ms DOUBLE PRECISION NOT NULL,
            guard_ms DOUBLE PRECISION NOT NULL, upstream_ms DOUBLE PRECISION NOT NULL, sha256 TEXT NOT NULL, text TEXT
        )""",
        "CREATE INDEX decisions_at ON decisions (at)",
        "CREATE INDEX decisions_request_id ON decisions (request_id)",
        """CREATE TABLE feedback (
            id TEXT PRIMARY KEY, decision_id TEXT NOT NULL REFERENCES decisions (id) ON DELETE CASCADE,
            at DOUBLE PRECISION NOT NULL, verdict TEXT NOT NULL, category TEXT NOT NULL, note TEXT NOT NULL
        )""",
        "CREATE INDEX feedback_decision_id ON feedback (decision_id)",
    ),
    (
        """CREATE TABLE probe_results (
            id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, run TEXT NOT NULL, suite TEXT NOT NULL,
            probe TEXT NOT NULL, text TEXT NOT NULL, expected TEXT NOT NULL, observed TEXT NOT NULL,
            label TEXT NOT NULL, category TEXT NOT NULL, score DOUBLE PRECISION NOT NULL, route TEXT NOT NULL,
            stage TEXT NOT NULL, rail TEXT NOT NULL, policy TEXT NOT NULL, policy_version TEXT NOT NULL,
            weights TEXT NOT NULL
        )""",
        "CREATE INDEX probe_results_at ON probe_results (at)",
    ),
    (
        # No reference to decisions: a comparison may be written before the record of its decision.
        """CREATE TABLE comparisons (
            id TEXT PRIMARY KEY, at DOUBLE PRECISION NOT NULL, decision_id TEXT NOT NULL, policy TEXT NOT NULL,
            policy_version TEXT NOT NULL, weights TEXT NOT NULL, live TEXT NOT NULL, candidate TEXT NOT NULL,
            label TEXT NOT NULL, category TEXT NOT NULL, score DOUBLE PRECISION NOT NULL, route TEXT NOT NULL,
            rail TEXT NOT NULL
        )""",
        "CREATE INDEX comparisons_at ON comparisons (at)",
    ),
    # The newest refusals are few among many decisions.
    ("CREATE INDEX decisions_decision ON decisions (decision, id)",),
)

# Any number will do, as long as every gateway takes the same one.
_LOCK = 7_241_950_318


async def upgrade(engine: AsyncEngine) -> int:
    """Bring the database to the newest version, each step whole or not at all; several gateways may start at once.

    Returns the version. Raises `ConfigError` where the database is newer than this gateway.
    """
    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        if connection.dialect.name == "sqlite":
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await connection.exec_driver_sql("BEGIN")
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        try:
            await _steps(connection)
        except BaseException:
            await connection.exec_driver_sql("ROLLBACK")
            raise
        await connection.exec_driver_sql("COMMIT")
    return len(STEPS)


async def _steps(connection: AsyncConnection) -> None:
    await connection.execute(text("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY)"))
    found = (await connection.execute(text("SELECT max(version) FROM schema_version"))).scalar() or 0
    if found > len(STEPS):
        raise ConfigError(
            f"audit.url: the database has schema {found}, and this version of the gateway knows {len(STEPS)} at most"
        )
    for version, statements in enumerate(STEPS[found:], found + 1):
        for statement in statements:
            await connection.exec_driver_sql(statement)
        await connection.execute(text("INSERT INTO schema_version VALUES (:version)"), {"version": version})
