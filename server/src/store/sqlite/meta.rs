//! Facts of the whole state, and noticing others' writes.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};
use tokio::time::{MissedTickBehavior, interval};

use super::SqliteStore;
use crate::store::{Meta, MetaKey, StoreError};

/// How often to look whether somebody wrote.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A connection of its own: `PRAGMA data_version` changes there when any other connection, of this process or another,
/// has written.
#[derive(Debug)]
pub(super) struct Watcher {
    connection: SqliteConnection,
    seen: Option<i64>,
}

impl Watcher {
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self { connection, seen: None }
    }

    async fn has_changed(&mut self) -> Result<bool, StoreError> {
        let row = sqlx::query("PRAGMA data_version").fetch_one(&mut self.connection).await?;
        let version = Some(row.try_get(0)?);
        let changed = version != self.seen;
        self.seen = version;
        Ok(changed)
    }
}

#[async_trait]
impl Meta for SqliteStore {
    async fn meta(&self, key: MetaKey) -> Result<Option<Vec<u8>>, StoreError> {
        let query = sqlx::query("SELECT value FROM meta WHERE key = ?").bind(key.as_str());
        let row = query.fetch_optional(&self.readers).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    async fn insert_meta(&self, facts: &[(MetaKey, &[u8])]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        for (key, value) in facts {
            let query = sqlx::query("INSERT INTO meta (key, value) VALUES (?, ?)");
            query.bind(key.as_str()).bind(*value).execute(&mut *write).await?;
        }
        Ok(write.commit().await?)
    }

    async fn changed(&self) -> Result<(), StoreError> {
        let mut watcher = self.watcher.lock().await;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if watcher.has_changed().await? {
                return Ok(());
            }
        }
    }
}
