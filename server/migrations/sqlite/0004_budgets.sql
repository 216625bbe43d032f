-- What an account uses of its budgets, kept by triggers: no write can forget to count, and no check has to.
-- 128 is the room in a bundle for an entry's lengths, ids and version.
ALTER TABLE accounts ADD COLUMN secret_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN value_bytes INTEGER NOT NULL DEFAULT 0;
-- A bundle of every secret of the account.
ALTER TABLE accounts ADD COLUMN every_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE accounts ADD COLUMN running_devboxes INTEGER NOT NULL DEFAULT 0;
-- Those of them that get every secret.
ALTER TABLE accounts ADD COLUMN every_devboxes INTEGER NOT NULL DEFAULT 0;
-- The bundle of a devbox that has bindings.
ALTER TABLE devboxes ADD COLUMN bundle_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE accounts SET
    secret_count = (SELECT count(*) FROM secrets WHERE account_id = accounts.id),
    value_bytes = (SELECT coalesce(sum(length(sealed)), 0) FROM secrets WHERE account_id = accounts.id),
    every_bytes = (SELECT coalesce(sum(128 + 2 * length(name) + length(sealed)), 0)
                   FROM secrets WHERE account_id = accounts.id),
    running_devboxes = (SELECT count(*) FROM devboxes WHERE account_id = accounts.id AND status = 'running'),
    every_devboxes = (SELECT count(*) FROM devboxes
                      WHERE account_id = accounts.id AND status = 'running' AND every_secret);
UPDATE devboxes SET bundle_bytes =
    (SELECT coalesce(sum(128 + length(env) + length(secrets.name) + length(sealed)), 0)
     FROM bindings JOIN secrets ON secrets.id = bindings.secret_id AND secrets.account_id = devboxes.account_id
     WHERE bindings.devbox_id = devboxes.id);

CREATE TRIGGER a_new_secret_is_counted AFTER INSERT ON secrets
BEGIN
    UPDATE accounts SET
        secret_count = secret_count + 1,
        value_bytes = value_bytes + length(NEW.sealed),
        every_bytes = every_bytes + 128 + 2 * length(NEW.name) + length(NEW.sealed)
    WHERE id = NEW.account_id;
END;
-- A rotation mostly keeps the length: then nothing moves.
CREATE TRIGGER a_longer_or_shorter_value_is_counted AFTER UPDATE OF sealed ON secrets
WHEN length(NEW.sealed) <> length(OLD.sealed)
BEGIN
    UPDATE accounts SET
        value_bytes = value_bytes + length(NEW.sealed) - length(OLD.sealed),
        every_bytes = every_bytes + length(NEW.sealed) - length(OLD.sealed)
    WHERE id = NEW.account_id;
    UPDATE devboxes SET bundle_bytes = bundle_bytes + (length(NEW.sealed) - length(OLD.sealed)) *
        (SELECT count(*) FROM bindings WHERE devbox_id = devboxes.id AND secret_id = NEW.id)
    WHERE account_id = NEW.account_id AND id IN (SELECT devbox_id FROM bindings WHERE secret_id = NEW.id);
END;
CREATE TRIGGER a_deleted_secret_is_counted AFTER DELETE ON secrets
BEGIN
    UPDATE accounts SET
        secret_count = secret_count - 1,
        value_bytes = value_bytes - length(OLD.sealed),
        every_bytes = every_bytes - 128 - 2 * length(OLD.name) - length(OLD.sealed)
    WHERE id = OLD.account_id;
    UPDATE devboxes SET bundle_bytes = bundle_bytes -
        (SELECT coalesce(sum(128 + length(env) + length(OLD.name) + length(OLD.sealed)), 0)
         FROM bindings WHERE devbox_id = devboxes.id AND secret_id = OLD.id)
    WHERE account_id = OLD.account_id AND id IN (SELECT devbox_id FROM bindings WHERE secret_id = OLD.id);
END;
-- Bindings are deleted with their devbox only, so that no trigger has to follow that.
CREATE TRIGGER a_new_binding_is_counted AFTER INSERT ON bindings
BEGIN
    UPDATE devboxes SET bundle_bytes = bundle_bytes +
        (SELECT coalesce(sum(128 + length(NEW.env) + length(name) + length(sealed)), 0) FROM secrets
         WHERE id = NEW.secret_id AND account_id = devboxes.account_id)
    WHERE id = NEW.devbox_id;
END;
CREATE TRIGGER a_new_devbox_is_counted AFTER INSERT ON devboxes WHEN NEW.status = 'running'
BEGIN
    UPDATE accounts SET running_devboxes = running_devboxes + 1, every_devboxes = every_devboxes + NEW.every_secret
    WHERE id = NEW.account_id;
END;
CREATE TRIGGER an_ended_devbox_is_counted AFTER UPDATE OF status ON devboxes
WHEN OLD.status = 'running' AND NEW.status <> 'running'
BEGIN
    UPDATE accounts SET running_devboxes = running_devboxes - 1, every_devboxes = every_devboxes - OLD.every_secret
    WHERE id = OLD.account_id;
END;
CREATE TRIGGER a_deleted_devbox_is_counted AFTER DELETE ON devboxes WHEN OLD.status = 'running'
BEGIN
    UPDATE accounts SET running_devboxes = running_devboxes - 1, every_devboxes = every_devboxes - OLD.every_secret
    WHERE id = OLD.account_id;
END;

-- Lists of one status.
CREATE INDEX devboxes_by_status ON devboxes (account_id, status, create_time_ms, id);
-- The newest end of all certificates, at a rotation of the devbox CA.
CREATE INDEX certificates_by_end ON certificates (not_after_time_ms);

-- What a token may do: words with a space between.
ALTER TABLE api_tokens ADD COLUMN scopes TEXT NOT NULL DEFAULT 'secrets:read secrets:write devboxes audit';
