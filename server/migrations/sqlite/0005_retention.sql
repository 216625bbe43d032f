-- Rows of the audit are chained: `hash` is SHA-256 of the row before it and of the row itself. NULL: from before this schema.
ALTER TABLE audit ADD COLUMN hash BLOB;

-- Beneath the floor the audit may be deleted. `hash` is that of the last row beneath it, with which the chain goes on.
CREATE TABLE audit_floor (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    sequence INTEGER NOT NULL,
    hash     BLOB
) STRICT;
INSERT INTO audit_floor VALUES (1, 1, NULL);

DROP TRIGGER audit_is_never_deleted;
CREATE TRIGGER audit_is_deleted_beneath_the_floor_only BEFORE DELETE ON audit
WHEN OLD.sequence >= coalesce((SELECT sequence FROM audit_floor), 1)
BEGIN
    SELECT RAISE(ABORT, 'the audit table is append-only above its floor');
END;

-- The floor rises, with a row of the audit that names it, and does nothing else.
CREATE TRIGGER audit_floor_rises_with_its_row BEFORE UPDATE ON audit_floor
WHEN NEW.sequence <= OLD.sequence
    OR NOT EXISTS (SELECT 1 FROM audit WHERE action = 'audit.prune' AND object = CAST(NEW.sequence AS TEXT)
                   AND sequence = (SELECT max(sequence) FROM audit))
BEGIN
    SELECT RAISE(ABORT, 'the floor of the audit rises only with its newest row');
END;
CREATE TRIGGER audit_floor_is_never_deleted BEFORE DELETE ON audit_floor
BEGIN
    SELECT RAISE(ABORT, 'the floor of the audit only rises');
END;
CREATE TRIGGER audit_floor_is_never_replaced BEFORE INSERT ON audit_floor
BEGIN
    SELECT RAISE(ABORT, 'the floor of the audit only rises');
END;

-- For finding what has ended.
CREATE INDEX certificates_by_issue ON certificates (issue_time_ms);
CREATE INDEX devboxes_by_end ON devboxes (end_time_ms) WHERE end_time_ms IS NOT NULL;
CREATE INDEX join_tokens_by_expiry ON join_tokens (expire_time_ms);
