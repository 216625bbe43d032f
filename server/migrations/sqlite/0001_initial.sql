-- Times are milliseconds since the Unix epoch. Nothing here is readable without the master key but names and times.

-- Facts of the whole state: the check of the master key, the devbox CA.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    id                TEXT PRIMARY KEY,
    name              TEXT NOT NULL UNIQUE,
    wrapped_key       BLOB NOT NULL,
    devbox_capability INTEGER NOT NULL,
    -- One more at each write of the account's secrets, devboxes or bindings, in the same transaction.
    revision          INTEGER NOT NULL DEFAULT 1,
    create_time_ms    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_tokens (
    id             TEXT PRIMARY KEY,
    account_id     TEXT NOT NULL REFERENCES accounts (id),
    hash           BLOB NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    create_time_ms INTEGER NOT NULL,
    expire_time_ms INTEGER,
    revoke_time_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX api_tokens_by_account ON api_tokens (account_id, create_time_ms);

CREATE TABLE secrets (
    account_id     TEXT NOT NULL REFERENCES accounts (id),
    id             TEXT NOT NULL UNIQUE,
    name           TEXT NOT NULL,
    version        INTEGER NOT NULL,
    sealed         BLOB NOT NULL,
    create_time_ms INTEGER NOT NULL,
    update_time_ms INTEGER NOT NULL,
    UNIQUE (account_id, name)
) STRICT;

CREATE TABLE devboxes (
    id             TEXT PRIMARY KEY,
    account_id     TEXT NOT NULL REFERENCES accounts (id),
    name           TEXT,
    status         TEXT NOT NULL CHECK (status IN ('running', 'shutdown')),
    -- Without a binding map a devbox gets every secret of the account under its own name.
    every_secret   INTEGER NOT NULL,
    create_time_ms INTEGER NOT NULL,
    end_time_ms    INTEGER,
    metadata       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX devboxes_by_account ON devboxes (account_id, create_time_ms, id);

-- A binding outlives its secret: it then gives nothing. Hence no foreign key on secret_id.
CREATE TABLE bindings (
    devbox_id TEXT NOT NULL REFERENCES devboxes (id),
    env       TEXT NOT NULL,
    secret_id TEXT NOT NULL,
    PRIMARY KEY (devbox_id, env)
) STRICT, WITHOUT ROWID;
CREATE INDEX bindings_by_secret ON bindings (secret_id);

CREATE TABLE gateways (
    devbox_id TEXT NOT NULL REFERENCES devboxes (id),
    prefix    TEXT NOT NULL,
    gateway   TEXT NOT NULL,
    secret    TEXT NOT NULL,
    PRIMARY KEY (devbox_id, prefix)
) STRICT, WITHOUT ROWID;

CREATE TABLE join_tokens (
    devbox_id      TEXT PRIMARY KEY REFERENCES devboxes (id),
    hash           BLOB NOT NULL,
    expire_time_ms INTEGER NOT NULL,
    use_time_ms    INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE certificates (
    serial            TEXT PRIMARY KEY,
    devbox_id         TEXT NOT NULL REFERENCES devboxes (id),
    issue_time_ms     INTEGER NOT NULL,
    not_after_time_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_devbox ON certificates (devbox_id);

CREATE TABLE audit (
    sequence       INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms        INTEGER NOT NULL,
    account_id     TEXT,
    actor_kind     TEXT NOT NULL,
    actor          TEXT NOT NULL,
    action         TEXT NOT NULL,
    object         TEXT NOT NULL,
    object_name    TEXT,
    outcome        TEXT NOT NULL CHECK (outcome IN ('done', 'refused')),
    reason         TEXT,
    remote_address TEXT
) STRICT;
CREATE INDEX audit_by_account ON audit (account_id, sequence);

CREATE TRIGGER audit_is_never_updated BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit table is append-only');
END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit table is append-only');
END;
