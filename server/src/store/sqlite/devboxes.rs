//! Devboxes of an account, their bindings, and what they may have.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rekeying::wrapped_key;
use super::rows::{self, secret_columns};
use super::{SqliteStore, budgets, receipts};
use crate::config::Limits;
use crate::crypto::id::{AccountId, DevboxId, SecretId};
use crate::store::{
    Answered, AuditRecord, BoundValue, BundleContents, Devbox, DevboxList, DevboxStatus, Devboxes,
    GatewayBinding, GrantFor, JoinTokenIssue, Page, RequestKey, StoreError, TimeMs,
};

#[async_trait]
impl Devboxes for SqliteStore {
    async fn insert_devbox(
        &self,
        account: &AccountId,
        devbox: &Devbox,
        join: &GrantFor<'_>,
        limits: &Limits,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<(), StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        let join = join(&wrapped_key(&mut write, account).await?).map_err(StoreError::Seal)?;
        insert_row(&mut write, account, devbox).await?;
        insert_bindings(&mut write, devbox).await?;
        insert_gateways(&mut write, devbox).await?;
        budgets::check_new_devbox(&mut write, account, devbox, limits).await?;
        sqlx::query("INSERT INTO join_tokens (devbox_id, hash, expire_time_ms) VALUES (?, ?, ?)")
            .bind(devbox.id.as_str())
            .bind(join.hash.as_bytes())
            .bind(join.expire_time_ms)
            .execute(&mut *write)
            .await?;
        let answer = Answered::Devbox(devbox.clone());
        receipts::insert(&mut write, account, request, audit.time_ms, &answer).await?;
        self.commit(write, audit).await
    }

    async fn devbox(&self, account: &AccountId, id: &DevboxId) -> Result<Option<Devbox>, StoreError> {
        find(&mut *self.readers.begin().await?, account, id).await
    }

    async fn devboxes(
        &self,
        account: &AccountId,
        list: &DevboxList,
    ) -> Result<Option<Page<Devbox>>, StoreError> {
        let mut read = self.readers.begin().await?;
        let Some(start) = cursor_at(&mut read, account, list.after.as_ref()).await? else {
            return Ok(None);
        };
        let mut found = rows_before(&mut read, account, &start, list).await?;
        let has_more = found.len() > list.limit as usize;
        found.truncate(list.limit as usize);
        let rows = read_devboxes(&mut read, &found).await?;
        let total_count = match list.counted {
            true => Some(count(&mut read, account, list.status).await?),
            false => None,
        };
        Ok(Some(Page { rows, has_more, total_count }))
    }

    async fn shutdown_devbox(
        &self,
        account: &AccountId,
        id: &DevboxId,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<Option<u64>, StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        let query = sqlx::query(
            "UPDATE devboxes SET status = 'shutdown', end_time_ms = ?
             WHERE account_id = ? AND id = ? AND status = 'running'",
        );
        let query = query.bind(audit.time_ms).bind(account.as_str()).bind(id.as_str());
        if query.execute(&mut *write).await?.rows_affected() == 0 {
            return Ok(None);
        }
        if let Some(devbox) = find(&mut write, account, id).await? {
            let answer = Answered::Devbox(devbox);
            receipts::insert(&mut write, account, request, audit.time_ms, &answer).await?;
        }
        self.commit_wake(write, account, audit).await.map(Some)
    }

    async fn replace_join(
        &self,
        account: &AccountId,
        issue: &JoinTokenIssue,
        join: &GrantFor<'_>,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<bool, StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        let join = join(&wrapped_key(&mut write, account).await?).map_err(StoreError::Seal)?;
        // The row of the page's last devbox may have been deleted by retention.
        let query = sqlx::query(
            "INSERT INTO join_tokens (devbox_id, hash, expire_time_ms)
             SELECT id, ?, ? FROM devboxes WHERE account_id = ? AND id = ? AND status = 'running'
             ON CONFLICT (devbox_id) DO UPDATE
             SET hash = excluded.hash, expire_time_ms = excluded.expire_time_ms, use_time_ms = NULL",
        );
        let query = query.bind(join.hash.as_bytes()).bind(join.expire_time_ms);
        let query = query.bind(account.as_str()).bind(issue.devbox.as_str());
        if query.execute(&mut *write).await?.rows_affected() == 0 {
            return Ok(false);
        }
        let answer = Answered::JoinToken(issue.clone());
        receipts::insert(&mut write, account, request, audit.time_ms, &answer).await?;
        self.commit(write, audit).await?;
        Ok(true)
    }

    async fn bundle_contents(
        &self,
        account: &AccountId,
        id: &DevboxId,
    ) -> Result<Option<BundleContents>, StoreError> {
        let query = sqlx::query(CONTENTS).bind(account.as_str()).bind(id.as_str());
        let found = query.fetch_all(&self.readers).await?;
        let Some(first) = found.first() else {
            return Ok(None);
        };
        let (revision, wrapped_key) =
            (rows::unsigned(first.try_get("revision")?)?, first.try_get("wrapped_key")?);
        let mut values =
            found.iter().filter_map(|row| bound_value(row).transpose()).collect::<Result<Vec<_>, _>>()?;
        values.sort_unstable_by(|one, other| one.env.cmp(&other.env));
        Ok(Some(BundleContents { revision, wrapped_key, values }))
    }
}

/// One statement, so that it reads one snapshot with one round trip to the database's thread. A
/// running devbox has at least one row, perhaps without a secret. Its values are sorted afterwards,
/// not with their bytes in SQLite's sorter.
const CONTENTS: &str = concat!(
    "SELECT revision, wrapped_key, secrets.name AS env, sealed, ",
    secret_columns!(),
    " FROM devboxes JOIN accounts ON accounts.id = devboxes.account_id
     LEFT JOIN secrets ON secrets.account_id = accounts.id
     WHERE accounts.id = ?1 AND devboxes.id = ?2 AND status = 'running' AND every_secret
     UNION ALL
     SELECT revision, wrapped_key, env, sealed, ",
    secret_columns!(),
    " FROM devboxes JOIN accounts ON accounts.id = devboxes.account_id
     LEFT JOIN bindings ON bindings.devbox_id = devboxes.id
     LEFT JOIN secrets ON secrets.account_id = accounts.id AND secrets.id = bindings.secret_id
     WHERE accounts.id = ?1 AND devboxes.id = ?2 AND status = 'running' AND NOT every_secret"
);

async fn find(
    read: &mut SqliteConnection,
    account: &AccountId,
    id: &DevboxId,
) -> Result<Option<Devbox>, StoreError> {
    let query = sqlx::query(
        "SELECT id, name, status, every_secret, create_time_ms, end_time_ms, metadata
         FROM devboxes WHERE account_id = ? AND id = ?",
    );
    let row = query.bind(account.as_str()).bind(id.as_str()).fetch_optional(&mut *read).await?;
    match row {
        Some(row) => read_devbox(read, &row).await.map(Some),
        None => Ok(None),
    }
}

async fn insert_row(
    write: &mut SqliteConnection,
    account: &AccountId,
    devbox: &Devbox,
) -> Result<(), StoreError> {
    let metadata = serde_json::to_string(&devbox.metadata).map_err(|_| StoreError::Damaged("metadata"))?;
    sqlx::query(
        "INSERT INTO devboxes (id, account_id, name, status, every_secret, create_time_ms, end_time_ms, metadata)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(devbox.id.as_str())
    .bind(account.as_str())
    .bind(&devbox.name)
    .bind(devbox.status.as_str())
    .bind(devbox.bindings.is_none())
    .bind(devbox.create_time_ms)
    .bind(devbox.end_time_ms)
    .bind(metadata)
    .execute(write)
    .await?;
    Ok(())
}

async fn insert_bindings(write: &mut SqliteConnection, devbox: &Devbox) -> Result<(), StoreError> {
    for (env, secret) in devbox.bindings.iter().flatten() {
        sqlx::query("INSERT INTO bindings (devbox_id, env, secret_id) VALUES (?, ?, ?)")
            .bind(devbox.id.as_str())
            .bind(env)
            .bind(secret.as_str())
            .execute(&mut *write)
            .await?;
    }
    Ok(())
}

async fn insert_gateways(write: &mut SqliteConnection, devbox: &Devbox) -> Result<(), StoreError> {
    for (prefix, binding) in &devbox.gateways {
        sqlx::query("INSERT INTO gateways (devbox_id, prefix, gateway, secret) VALUES (?, ?, ?, ?)")
            .bind(devbox.id.as_str())
            .bind(prefix)
            .bind(&binding.gateway)
            .bind(&binding.secret)
            .execute(&mut *write)
            .await?;
    }
    Ok(())
}

/// The position in the list, newest first, after which a page starts.
struct ListCursor {
    create_time_ms: TimeMs,
    id: String,
}

/// The cursor at `after`, or at the start of the list; `None` if the account has no such devbox.
async fn cursor_at(
    read: &mut SqliteConnection,
    account: &AccountId,
    after: Option<&DevboxId>,
) -> Result<Option<ListCursor>, StoreError> {
    let Some(after) = after else {
        return Ok(Some(ListCursor { create_time_ms: TimeMs::MAX, id: String::new() }));
    };
    let query = sqlx::query("SELECT create_time_ms FROM devboxes WHERE account_id = ? AND id = ?");
    let row = query.bind(account.as_str()).bind(after.as_str()).fetch_optional(read).await?;
    row.map(|row| Ok(ListCursor { create_time_ms: row.try_get(0)?, id: after.as_str().to_owned() }))
        .transpose()
}

async fn rows_before(
    read: &mut SqliteConnection,
    account: &AccountId,
    cursor: &ListCursor,
    list: &DevboxList,
) -> Result<Vec<SqliteRow>, StoreError> {
    let limit = i64::from(list.limit) + 1;
    let query = match list.status {
        None => sqlx::query(
            "SELECT id, name, status, every_secret, create_time_ms, end_time_ms, metadata FROM devboxes
             WHERE account_id = ? AND (create_time_ms, id) < (?, ?)
             ORDER BY create_time_ms DESC, id DESC LIMIT ?",
        )
        .bind(account.as_str()),
        Some(status) => sqlx::query(
            "SELECT id, name, status, every_secret, create_time_ms, end_time_ms, metadata FROM devboxes
             WHERE account_id = ? AND status = ? AND (create_time_ms, id) < (?, ?)
             ORDER BY create_time_ms DESC, id DESC LIMIT ?",
        )
        .bind(account.as_str())
        .bind(status.as_str()),
    };
    Ok(query.bind(cursor.create_time_ms).bind(&cursor.id).bind(limit).fetch_all(read).await?)
}

async fn count(
    read: &mut SqliteConnection,
    account: &AccountId,
    status: Option<DevboxStatus>,
) -> Result<u64, StoreError> {
    let query = match status {
        None => sqlx::query("SELECT count(*) FROM devboxes WHERE account_id = ?").bind(account.as_str()),
        Some(DevboxStatus::Running) => {
            sqlx::query("SELECT running_devboxes FROM accounts WHERE id = ?").bind(account.as_str())
        }
        Some(status) => sqlx::query("SELECT count(*) FROM devboxes WHERE account_id = ? AND status = ?")
            .bind(account.as_str())
            .bind(status.as_str()),
    };
    query.fetch_optional(read).await?.map_or(Ok(0), |row| rows::unsigned(row.try_get(0)?))
}

async fn read_devbox(read: &mut SqliteConnection, row: &SqliteRow) -> Result<Devbox, StoreError> {
    let mut read = read_devboxes(read, std::slice::from_ref(row)).await?;
    read.pop().ok_or(StoreError::Damaged("a devbox"))
}

/// Two statements for any number of rows.
async fn read_devboxes(read: &mut SqliteConnection, rows: &[SqliteRow]) -> Result<Vec<Devbox>, StoreError> {
    let ids: Vec<&str> = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, _>>()?;
    let ids = serde_json::to_string(&ids).map_err(|_| StoreError::Damaged("a list of ids"))?;
    let mut bindings = bindings_of(read, &ids).await?;
    let mut gateways = gateways_of(read, &ids).await?;
    let devbox = |row: &SqliteRow| {
        let id: String = row.try_get("id")?;
        let metadata: &str = row.try_get("metadata")?;
        let every: bool = row.try_get("every_secret")?;
        let bindings = bindings.remove(&id).unwrap_or_default();
        Ok(Devbox {
            name: row.try_get("name")?,
            status: rows::status(row.try_get("status")?)?,
            create_time_ms: row.try_get("create_time_ms")?,
            end_time_ms: row.try_get("end_time_ms")?,
            metadata: serde_json::from_str(metadata)
                .map_err(|_| StoreError::Damaged("a devbox's metadata"))?,
            bindings: if every { None } else { Some(bindings) },
            gateways: gateways.remove(&id).unwrap_or_default(),
            id: DevboxId::new(id),
        })
    };
    rows.iter().map(devbox).collect()
}

type OfDevbox<T> = BTreeMap<String, BTreeMap<String, T>>;

/// `ids` is a JSON array.
async fn bindings_of(read: &mut SqliteConnection, ids: &str) -> Result<OfDevbox<SecretId>, StoreError> {
    let query = sqlx::query(
        "SELECT devbox_id, env, secret_id FROM json_each(?) AS id JOIN bindings ON devbox_id = id.value",
    );
    let mut all = OfDevbox::new();
    for row in query.bind(ids).fetch_all(read).await? {
        let secret = SecretId::new(row.try_get::<String, _>(2)?);
        all.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, secret);
    }
    Ok(all)
}

/// `ids` is a JSON array.
async fn gateways_of(read: &mut SqliteConnection, ids: &str) -> Result<OfDevbox<GatewayBinding>, StoreError> {
    let query = sqlx::query(
        "SELECT devbox_id, prefix, gateway, secret FROM json_each(?) AS id
         JOIN gateways ON devbox_id = id.value",
    );
    let mut all = OfDevbox::new();
    for row in query.bind(ids).fetch_all(read).await? {
        let binding = GatewayBinding { gateway: row.try_get(2)?, secret: row.try_get(3)? };
        all.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, binding);
    }
    Ok(all)
}

/// `None` if the row has no secret.
fn bound_value(row: &SqliteRow) -> Result<Option<BoundValue>, StoreError> {
    if row.try_get::<Option<&[u8]>, _>("sealed")?.is_none() {
        return Ok(None);
    }
    Ok(Some(BoundValue { env: row.try_get("env")?, secret: rows::sealed_secret(row)? }))
}
