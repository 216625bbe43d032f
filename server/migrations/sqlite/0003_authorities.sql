-- The devbox CAs that are trusted: later ones have greater numbers. One issues; the others are trusted until their time.
CREATE TABLE authorities (
    number                INTEGER PRIMARY KEY AUTOINCREMENT,
    certificate           BLOB NOT NULL,
    wrapped_key           BLOB NOT NULL,
    -- NULL: it issues.
    trusted_until_time_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX one_authority_issues ON authorities ((1)) WHERE trusted_until_time_ms IS NULL;

INSERT INTO authorities (certificate, wrapped_key)
SELECT certificate.value, wrapped_key.value FROM meta AS certificate JOIN meta AS wrapped_key
WHERE certificate.key = 'devbox-ca-certificate' AND wrapped_key.key = 'devbox-ca-key';
DELETE FROM meta WHERE key IN ('devbox-ca-certificate', 'devbox-ca-key');
