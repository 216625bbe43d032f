//! Devboxes of an account, their bindings, and what they may have.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rows::{self, secret_columns};
use super::{SqliteStore, count, receipts};
use crate::crypto::id::{AccountId, DevboxId, SecretId};
use crate::store::{
    Answered, AuditRecord, BoundValue, BundleContents, Devbox, Devboxes, GatewayBinding, JoinGrant,
    JoinTokenIssue, Page, RequestKey, StoreError, TimeMs,
};

#[async_trait]
impl Devboxes for SqliteStore {
    async fn insert_devbox(
        &self,
        account: &AccountId,
        devbox: &Devbox,
        join: JoinGrant,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<(), StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        insert_row(&mut write, account, devbox).await?;
        insert_bindings(&mut write, devbox).await?;
        insert_gateways(&mut write, devbox).await?;
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
        limit: u32,
        after: Option<&DevboxId>,
    ) -> Result<Option<Page<Devbox>>, StoreError> {
        let mut read = self.readers.begin().await?;
        let Some(start) = place_of(&mut read, account, after).await? else {
            return Ok(None);
        };
        let mut found = rows_before(&mut read, account, &start, i64::from(limit) + 1).await?;
        let has_more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let mut devboxes = Vec::with_capacity(found.len());
        for row in &found {
            devboxes.push(read_devbox(&mut read, row).await?);
        }
        let total_count =
            count("SELECT count(*) FROM devboxes WHERE account_id = ?", account, &mut read).await?;
        Ok(Some(Page { rows: devboxes, has_more, total_count }))
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
        join: JoinGrant,
        audit: &AuditRecord,
        request: Option<&RequestKey>,
    ) -> Result<bool, StoreError> {
        let mut write = self.begin_once(account, request, audit.time_ms).await?;
        let query = sqlx::query(
            "UPDATE join_tokens SET hash = ?, expire_time_ms = ?, use_time_ms = NULL WHERE devbox_id =
             (SELECT id FROM devboxes WHERE account_id = ? AND id = ? AND status = 'running')",
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

/// One statement: one moment, and one way to the database's thread and back. A running devbox has at least one row, perhaps
/// without a secret. Its values are sorted afterwards, not with their bytes in SQLite's sorter.
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

/// Where in the list, newest first, to go on.
struct Place {
    create_time_ms: TimeMs,
    id: String,
}

/// The place of `after`, or the beginning; `None` where the account has no such devbox.
async fn place_of(
    read: &mut SqliteConnection,
    account: &AccountId,
    after: Option<&DevboxId>,
) -> Result<Option<Place>, StoreError> {
    let Some(after) = after else {
        return Ok(Some(Place { create_time_ms: TimeMs::MAX, id: String::new() }));
    };
    let query = sqlx::query("SELECT create_time_ms FROM devboxes WHERE account_id = ? AND id = ?");
    let row = query.bind(account.as_str()).bind(after.as_str()).fetch_optional(read).await?;
    row.map(|row| Ok(Place { create_time_ms: row.try_get(0)?, id: after.as_str().to_owned() })).transpose()
}

async fn rows_before(
    read: &mut SqliteConnection,
    account: &AccountId,
    place: &Place,
    limit: i64,
) -> Result<Vec<SqliteRow>, StoreError> {
    let query = sqlx::query(
        "SELECT id, name, status, every_secret, create_time_ms, end_time_ms, metadata FROM devboxes
         WHERE account_id = ? AND (create_time_ms, id) < (?, ?)
         ORDER BY create_time_ms DESC, id DESC LIMIT ?",
    );
    let query = query.bind(account.as_str()).bind(place.create_time_ms).bind(&place.id).bind(limit);
    Ok(query.fetch_all(read).await?)
}

async fn read_devbox(read: &mut SqliteConnection, row: &SqliteRow) -> Result<Devbox, StoreError> {
    let id = DevboxId::new(row.try_get::<String, _>("id")?);
    let metadata: &str = row.try_get("metadata")?;
    let bindings = match row.try_get("every_secret")? {
        true => None,
        false => Some(read_bindings(read, &id).await?),
    };
    Ok(Devbox {
        name: row.try_get("name")?,
        status: rows::status(row.try_get("status")?)?,
        create_time_ms: row.try_get("create_time_ms")?,
        end_time_ms: row.try_get("end_time_ms")?,
        metadata: serde_json::from_str(metadata).map_err(|_| StoreError::Damaged("a devbox's metadata"))?,
        bindings,
        gateways: read_gateways(read, &id).await?,
        id,
    })
}

async fn read_bindings(
    read: &mut SqliteConnection,
    id: &DevboxId,
) -> Result<BTreeMap<String, SecretId>, StoreError> {
    let query = sqlx::query("SELECT env, secret_id FROM bindings WHERE devbox_id = ?").bind(id.as_str());
    let found = query.fetch_all(read).await?;
    found.iter().map(|row| Ok((row.try_get(0)?, SecretId::new(row.try_get::<String, _>(1)?)))).collect()
}

async fn read_gateways(
    read: &mut SqliteConnection,
    id: &DevboxId,
) -> Result<BTreeMap<String, GatewayBinding>, StoreError> {
    let query = sqlx::query("SELECT prefix, gateway, secret FROM gateways WHERE devbox_id = ?");
    let found = query.bind(id.as_str()).fetch_all(read).await?;
    let binding = |row: &SqliteRow| {
        Ok((row.try_get(0)?, GatewayBinding { gateway: row.try_get(1)?, secret: row.try_get(2)? }))
    };
    found.iter().map(binding).collect()
}

/// None where the row has no secret.
fn bound_value(row: &SqliteRow) -> Result<Option<BoundValue>, StoreError> {
    if row.try_get::<Option<&[u8]>, _>("sealed")?.is_none() {
        return Ok(None);
    }
    Ok(Some(BoundValue { env: row.try_get("env")?, secret: rows::sealed_secret(row)? }))
}
