-- What a write answered under a caller's own request id, for a day: ids, names and times, and a keyed fingerprint of what
-- was asked. Nothing here can be turned back into a value.
CREATE TABLE receipts (
    account_id     TEXT NOT NULL REFERENCES accounts (id),
    request_id     TEXT NOT NULL,
    fingerprint    BLOB NOT NULL,
    answer         TEXT NOT NULL,
    create_time_ms INTEGER NOT NULL,
    PRIMARY KEY (account_id, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_by_time ON receipts (create_time_ms);

-- The audit learns a third outcome. SQLite changes no CHECK in place: the rows move, with their numbers.
CREATE TABLE audit_with_replays (
    sequence       INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms        INTEGER NOT NULL,
    account_id     TEXT,
    actor_kind     TEXT NOT NULL,
    actor          TEXT NOT NULL,
    action         TEXT NOT NULL,
    object         TEXT NOT NULL,
    object_name    TEXT,
    outcome        TEXT NOT NULL CHECK (outcome IN ('done', 'refused', 'replayed')),
    reason         TEXT,
    remote_address TEXT
) STRICT;
INSERT INTO audit_with_replays SELECT * FROM audit;
DROP TABLE audit;
ALTER TABLE audit_with_replays RENAME TO audit;
CREATE INDEX audit_by_account ON audit (account_id, sequence);

CREATE TRIGGER audit_is_never_updated BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit table is append-only');
END;
CREATE TRIGGER audit_is_never_deleted BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit table is append-only');
END;

-- One more whenever the account's held requests have to look again: at each revision, and when a devbox is shut down or the
-- capability changes, which is no news for the other devboxes.
ALTER TABLE accounts ADD COLUMN wakes INTEGER NOT NULL DEFAULT 1;
UPDATE accounts SET wakes = revision;
