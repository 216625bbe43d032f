//! Identities of devboxes: join tokens and certificates.

use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{SqliteStore, rows};
use crate::crypto::TokenHash;
use crate::crypto::id::{AccountId, DevboxId};
use crate::store::{
    AdmissionState, AuditRecord, DevboxStatus, Identities, IssuedCertificate, JoinRefusal, Renewed,
    StoreError, TimeMs,
};

#[async_trait]
impl Identities for SqliteStore {
    async fn devbox_owner(&self, id: &DevboxId) -> Result<Option<(AccountId, DevboxStatus)>, StoreError> {
        owner(&mut *self.readers.acquire().await?, id).await
    }

    async fn admission_state(
        &self,
        id: &DevboxId,
        serial: &str,
    ) -> Result<Option<AdmissionState>, StoreError> {
        let query = sqlx::query(
            "SELECT account_id, status, devbox_capability, revision, wakes, not_after_time_ms,
                    CASE every_secret WHEN 0 THEN bundle_bytes ELSE every_bytes END AS bundle_bytes
             FROM devboxes JOIN accounts ON accounts.id = devboxes.account_id
             LEFT JOIN certificates ON certificates.serial = ?1 AND certificates.devbox_id = devboxes.id
             WHERE devboxes.id = ?2",
        );
        let row = query.bind(serial).bind(id.as_str()).fetch_optional(&self.readers).await?;
        row.as_ref().map(admission_state).transpose()
    }

    async fn check_join(
        &self,
        devbox: &DevboxId,
        hash: TokenHash,
        now_ms: TimeMs,
    ) -> Result<Result<(), JoinRefusal>, StoreError> {
        let mut read = self.readers.acquire().await?;
        check(&mut read, devbox, hash, now_ms).await
    }

    async fn redeem_join(
        &self,
        devbox: &DevboxId,
        hash: TokenHash,
        certificate: &IssuedCertificate,
        audit: &AuditRecord,
    ) -> Result<Result<Option<u64>, JoinRefusal>, StoreError> {
        let mut write = self.begin().await?;
        // The check is repeated under the write lock: of two concurrent requests with one token,
        // the second finds it used.
        if let Err(refusal) = check(&mut write, devbox, hash, audit.time_ms).await? {
            return Ok(Err(refusal));
        }
        let query = sqlx::query("UPDATE join_tokens SET use_time_ms = ? WHERE devbox_id = ?");
        query.bind(audit.time_ms).bind(devbox.as_str()).execute(&mut *write).await?;
        // A new enrolment supersedes every earlier machine. Its certificates end in the same
        // commit.
        let ended = end_certificates(&mut write, devbox).await?;
        insert_certificate(&mut write, devbox, certificate).await?;
        match owner(&mut write, devbox).await? {
            Some((account, _)) if ended => {
                self.commit_wake(write, &account, audit).await.map(|wakes| Ok(Some(wakes)))
            }
            _ => self.commit(write, audit).await.map(|()| Ok(None)),
        }
    }

    async fn insert_certificate(
        &self,
        devbox: &DevboxId,
        shown: &str,
        certificate: &IssuedCertificate,
        audit: &AuditRecord,
    ) -> Result<Option<Renewed>, StoreError> {
        let mut write = self.begin().await?;
        let query = sqlx::query(
            "SELECT account_id FROM devboxes JOIN certificates ON certificates.devbox_id = devboxes.id
             WHERE devboxes.id = ? AND status = 'running' AND serial = ? AND not_after_time_ms > ?",
        );
        let query = query.bind(devbox.as_str()).bind(shown).bind(audit.time_ms);
        let Some(row) = query.fetch_optional(&mut *write).await? else {
            return Ok(None);
        };
        let account = AccountId::new(row.try_get::<String, _>(0)?);
        // The response with an earlier successor was lost, or another machine received it.
        let query = sqlx::query(
            "UPDATE certificates SET not_after_time_ms = 0
             WHERE devbox_id = ? AND serial != ? AND not_after_time_ms > ?",
        );
        let query = query.bind(devbox.as_str()).bind(shown).bind(audit.time_ms);
        let ended = query.execute(&mut *write).await?.rows_affected();
        insert_certificate(&mut write, devbox, certificate).await?;
        if ended > 0 {
            let wakes = Some(self.commit_wake(write, &account, audit).await?);
            return Ok(Some(Renewed { wakes }));
        }
        self.commit(write, audit).await?;
        Ok(Some(Renewed { wakes: None }))
    }
}

async fn owner(
    connection: &mut SqliteConnection,
    id: &DevboxId,
) -> Result<Option<(AccountId, DevboxStatus)>, StoreError> {
    let query = sqlx::query("SELECT account_id, status FROM devboxes WHERE id = ?").bind(id.as_str());
    let Some(row) = query.fetch_optional(connection).await? else {
        return Ok(None);
    };
    Ok(Some((AccountId::new(row.try_get::<String, _>(0)?), rows::status(row.try_get(1)?)?)))
}

fn admission_state(row: &SqliteRow) -> Result<AdmissionState, StoreError> {
    Ok(AdmissionState {
        account: AccountId::new(row.try_get::<String, _>("account_id")?),
        status: rows::status(row.try_get("status")?)?,
        devbox_capability: row.try_get("devbox_capability")?,
        revision: rows::unsigned(row.try_get("revision")?)?,
        wakes: rows::unsigned(row.try_get("wakes")?)?,
        certificate_not_after_time_ms: row.try_get("not_after_time_ms")?,
        bundle_bytes: rows::unsigned(row.try_get("bundle_bytes")?)?,
    })
}

async fn check(
    connection: &mut SqliteConnection,
    devbox: &DevboxId,
    hash: TokenHash,
    now_ms: TimeMs,
) -> Result<Result<(), JoinRefusal>, StoreError> {
    let query = sqlx::query(
        "SELECT use_time_ms, expire_time_ms, status FROM join_tokens
         JOIN devboxes ON devboxes.id = join_tokens.devbox_id WHERE devbox_id = ? AND hash = ?",
    );
    let row = query.bind(devbox.as_str()).bind(hash.as_bytes()).fetch_optional(connection).await?;
    let Some(row) = row else {
        return Ok(Err(JoinRefusal::Unknown));
    };
    let used: Option<TimeMs> = row.try_get("use_time_ms")?;
    let expires: TimeMs = row.try_get("expire_time_ms")?;
    let status = rows::status(row.try_get("status")?)?;
    Ok(match (used, status) {
        (Some(_), _) => Err(JoinRefusal::Used),
        (None, DevboxStatus::Shutdown) => Err(JoinRefusal::Shutdown),
        (None, DevboxStatus::Running) if now_ms >= expires => Err(JoinRefusal::Expired),
        (None, DevboxStatus::Running) => Ok(()),
    })
}

/// Ends the devbox's certificates, by any clock: one that is set back brings none of them back.
/// Says whether there was one to end.
async fn end_certificates(write: &mut SqliteConnection, devbox: &DevboxId) -> Result<bool, StoreError> {
    let query = sqlx::query(
        "UPDATE certificates SET not_after_time_ms = 0 WHERE devbox_id = ? AND not_after_time_ms > 0",
    );
    let query = query.bind(devbox.as_str());
    Ok(query.execute(write).await?.rows_affected() > 0)
}

async fn insert_certificate(
    write: &mut SqliteConnection,
    devbox: &DevboxId,
    certificate: &IssuedCertificate,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO certificates (serial, devbox_id, issue_time_ms, not_after_time_ms) VALUES (?, ?, ?, ?)",
    )
    .bind(&certificate.serial)
    .bind(devbox.as_str())
    .bind(certificate.issue_time_ms)
    .bind(certificate.not_after_time_ms)
    .execute(write)
    .await?;
    Ok(())
}
