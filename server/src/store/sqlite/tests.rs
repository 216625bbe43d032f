//! Promises of this backend alone.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::store::{
    Action, Actor, AuditFloor, AuditLog, AuditPage, AuditRecord, Chain, Extent, Location as _, Meta, MetaKey,
    Outcome, Retention as _,
};

async fn open(state: &StateDirectory) -> Result<SqliteStore, StoreError> {
    match state.claim() {
        Ok(claim) => SqliteStore::set_up(state, &claim).await,
        Err(_) => SqliteStore::open(state).await,
    }
}

fn state() -> (tempfile::TempDir, StateDirectory) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(directory.path()).unwrap();
    state.touch_database().unwrap();
    (directory, state)
}

async fn store() -> (tempfile::TempDir, StateDirectory, SqliteStore) {
    let (directory, state) = state();
    let store = open(&state).await.unwrap();
    (directory, state, store)
}

fn record() -> AuditRecord {
    AuditRecord {
        time_ms: 1,
        account: None,
        actor: Actor::Server,
        action: Action::TokenUse,
        object: String::new(),
        object_name: None,
        outcome: Outcome::Done,
        reason: None,
        remote: None,
    }
}

async fn pragma(connection: impl sqlx::SqliteExecutor<'_>, query: &'static str) -> String {
    let row = sqlx::query(query).fetch_one(connection).await.unwrap();
    row.try_get::<String, _>(0).unwrap_or_else(|_| row.get::<i64, _>(0).to_string())
}

#[tokio::test]
async fn every_connection_is_durable_and_checks_references() {
    let (_directory, _, store) = store().await;
    for pool in [&store.writer, &store.readers] {
        assert_eq!(pragma(pool, "PRAGMA journal_mode").await, "wal");
        assert_eq!(pragma(pool, "PRAGMA synchronous").await, "2");
        assert_eq!(pragma(pool, "PRAGMA foreign_keys").await, "1");
    }
    let write = sqlx::query("DELETE FROM meta").execute(&store.readers).await;
    assert!(write.is_err(), "readers only read");
}

#[tokio::test]
async fn the_audit_table_is_append_only() {
    let (_directory, _, store) = store().await;
    store.record(&record()).await.unwrap();
    for change in ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"] {
        let refused = sqlx::query(change).execute(&store.writer).await.unwrap_err();
        assert!(refused.to_string().contains("append-only"), "{change}: {refused}");
    }
    assert_eq!(store.audit(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_audits_floor_rises_only_with_its_row_and_only_rows_beneath_it_are_deleted() {
    let (_directory, _, store) = store().await;
    for _ in 0..10 {
        store.record(&record()).await.unwrap();
    }
    for change in [
        "UPDATE audit_floor SET sequence = 5",
        "DELETE FROM audit_floor",
        "INSERT OR REPLACE INTO audit_floor VALUES (1, 5, NULL)",
        "DELETE FROM audit WHERE sequence = 1",
    ] {
        sqlx::query(change).execute(&store.writer).await.unwrap_err();
    }
    let prune = |row: &str| AuditRecord { action: Action::AuditPrune, object: row.to_owned(), ..record() };
    store.raise_audit_floor(5, &prune("6")).await.unwrap_err();
    assert!(store.raise_audit_floor(5, &prune("5")).await.unwrap());
    assert!(!store.raise_audit_floor(4, &prune("4")).await.unwrap(), "it never sinks");
    sqlx::query("DELETE FROM audit").execute(&store.writer).await.unwrap_err();
    assert_eq!(store.delete_audit_beneath_floor().await.unwrap(), 4);
    assert_eq!(store.delete_audit_beneath_floor().await.unwrap(), 0);
    let rows = store.audit(None, 100).await.unwrap();
    assert_eq!(rows.last().unwrap().sequence, 5);
    assert_eq!(rows[0].action, "audit.prune");
}

#[tokio::test]
async fn the_audits_chain_continues_over_batches_restarts_and_a_prune() {
    let (_directory, state) = state();
    for _ in 0..2 {
        let store = open(&state).await.unwrap();
        let mut writes = tokio::task::JoinSet::new();
        let store = std::sync::Arc::new(store);
        for _ in 0..50 {
            let store = store.clone();
            writes.spawn(async move { store.record(&record()).await.unwrap() });
        }
        writes.join_all().await;
        let floor = store.audit_floor().await.unwrap().sequence + 20;
        let prune = AuditRecord { action: Action::AuditPrune, object: floor.to_string(), ..record() };
        assert!(store.raise_audit_floor(floor, &prune).await.unwrap());
        let floor = store.audit_floor().await.unwrap();
        assert!(is_chained(&store, floor).await, "before the rows are deleted");
        assert!(store.delete_audit_beneath_floor().await.unwrap() > 0);
        assert!(is_chained(&store, floor).await);
    }
    let store = open(&state).await.unwrap();
    let floor = store.audit_floor().await.unwrap();
    for attack in
        ["UPDATE audit SET actor = 'nobody' WHERE sequence = 60", "DELETE FROM audit WHERE sequence = 60"]
    {
        sqlx::query("DROP TRIGGER IF EXISTS audit_is_never_updated").execute(&store.writer).await.unwrap();
        let trigger = "DROP TRIGGER IF EXISTS audit_is_deleted_beneath_the_floor_only";
        sqlx::query(trigger).execute(&store.writer).await.unwrap();
        sqlx::query(attack).execute(&store.writer).await.unwrap();
        assert!(!is_chained(&store, floor).await, "{attack}");
    }
}

#[tokio::test]
async fn the_audits_chain_continues_over_two_prunes_in_the_gap_of_a_restore() {
    let (_directory, _, store) = store().await;
    store.record(&record()).await.unwrap();
    store.advance_past_backup(&record()).await.unwrap();
    for floor in [500, 600] {
        let prune = AuditRecord { action: Action::AuditPrune, object: floor.to_string(), ..record() };
        assert!(store.raise_audit_floor(floor, &prune).await.unwrap());
        while store.delete_audit_beneath_floor().await.unwrap() > 0 {}
        let floor = store.audit_floor().await.unwrap();
        assert!(is_chained(&store, floor).await, "{floor:?}");
    }
}

async fn is_chained(store: &SqliteStore, floor: AuditFloor) -> bool {
    let page = AuditPage::OldestAfter(floor.sequence - 1);
    let rows = store.audit_page(None, page, 10_000).await.unwrap();
    let mut chain = Chain::after(floor.hash);
    rows.iter().all(|row| chain.follows(row))
}

#[tokio::test]
async fn every_file_of_the_state_is_private() {
    let (directory, _, store) = store().await;
    store.record(&record()).await.unwrap();
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
    assert!(files.len() >= 3, "the database, its log and its index");
    for file in files {
        assert_eq!(file.metadata().unwrap().mode() & 0o077, 0, "{:?}", file.path());
    }
}

#[tokio::test]
async fn a_state_of_a_newer_program_is_refused() {
    let (_directory, state, store) = store().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9000, 'to come', 1, x'00', 0)",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    drop(store);
    let refused = open(&state).await.unwrap_err();
    let newest = integrity::newest_schema();
    assert!(matches!(refused, StoreError::Newer { found: 9000, known } if known == newest), "{refused:?}");
    let refused = SqliteStore::open(&state).await.unwrap_err();
    assert!(matches!(refused, StoreError::Newer { found: 9000, known } if known == newest), "{refused:?}");
}

#[tokio::test]
async fn a_program_beside_an_older_server_leaves_the_schema_alone() {
    let (_directory, state, store) = store().await;
    let newest = integrity::newest_schema();
    let forget = sqlx::query("DELETE FROM _sqlx_migrations WHERE version = ?").bind(newest);
    forget.execute(&store.writer).await.unwrap();
    for refused in [
        SqliteStore::open(&state).await.unwrap_err(),
        SqliteStore::open_to_read(&state.database()).await.unwrap_err(),
    ] {
        let older = matches!(refused, StoreError::Older { found, known } if found < known && known == newest);
        assert!(older, "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains(&newest.to_string()) && text.contains("restart the server"), "{text}");
    }
}

/// Rows as years of audit leave them, without waiting for each.
async fn many_audit_rows(store: &SqliteStore, count: u32) {
    sqlx::query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
         INSERT INTO audit (time_ms, actor_kind, actor, action, object, outcome)
         SELECT i, 'server', '', 'devbox.bundle', 'dbx_' || i, 'done' FROM n",
    )
    .bind(count)
    .execute(&store.writer)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_start_looks_at_a_bounded_part_of_a_large_state() {
    let (_directory, state, store) = store().await;
    assert_eq!(examine_for_start(&state.database()).await.unwrap(), Extent::Whole);
    many_audit_rows(&store, 200_000).await;
    assert_eq!(examine_for_start(&state.database()).await.unwrap(), Extent::Part);
    examine(&state.database(), Depth::Full).await.unwrap();
}

#[tokio::test]
async fn two_programs_write_to_one_state() {
    let (_directory, state, one) = store().await;
    let other = open(&state).await.unwrap();
    let mut writes = tokio::task::JoinSet::new();
    for store in [one, other] {
        writes.spawn(async move {
            for _ in 0..50 {
                store.record(&record()).await.unwrap();
            }
            store
        });
    }
    let stores = writes.join_all().await;
    assert_eq!(stores[0].audit(None, 1000).await.unwrap().len(), 100);
}

#[tokio::test]
async fn writes_survive_closing_and_opening() {
    let (_directory, state) = state();
    open(&state).await.unwrap().create_state(b"kept", b"", b"").await.unwrap();
    let reopened = open(&state).await.unwrap();
    assert_eq!(reopened.meta(MetaKey::KeyCheck).await.unwrap().as_deref(), Some(&b"kept"[..]));
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_by_itself_costs_no_later_write() {
    let (_directory, _, store) = store().await;
    let mut write = store.begin().await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut *write).await.unwrap();
    assert!(store.commit(write, &record()).await.is_err());
    store.record(&record()).await.unwrap();
}

#[tokio::test]
async fn a_full_database_refuses_and_recovers() {
    let (_directory, _, store) = store().await;
    sqlx::query("PRAGMA max_page_count = 1").execute(&store.writer).await.unwrap();
    let big = AuditRecord { object: "x".repeat(1 << 20), ..record() };
    assert!(matches!(store.record(&big).await, Err(StoreError::Full(_))));
    sqlx::query("PRAGMA max_page_count = 1000000").execute(&store.writer).await.unwrap();
    store.record(&big).await.unwrap();
    assert_eq!(store.audit(None, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn writes_given_up_halfway_leave_the_writer_usable() {
    let (_directory, state) = state();
    let store = std::sync::Arc::new(open(&state).await.unwrap());
    for _ in 0..200 {
        let write = tokio::spawn({
            let store = store.clone();
            async move { store.record(&record()).await }
        });
        tokio::task::yield_now().await;
        write.abort();
    }
    store.record(&record()).await.unwrap();
}

#[tokio::test]
async fn the_space_of_deleted_rows_goes_back_to_the_disk_in_small_steps() {
    let (_directory, _, store) = store().await;
    many_audit_rows(&store, 100_000).await;
    let prune = AuditRecord { action: Action::AuditPrune, object: "99000".to_owned(), ..record() };
    assert!(store.raise_audit_floor(99_000, &prune).await.unwrap());
    while store.delete_audit_beneath_floor().await.unwrap() > 0 {}
    let pages = async || {
        let row = sqlx::query("PRAGMA page_count").fetch_one(&store.writer).await.unwrap();
        row.get::<u32, _>(0)
    };
    let mut before = pages().await;
    while store.shrink().await.unwrap() {
        let now = pages().await;
        assert!(now < before && before - now <= 300, "{before} → {now}");
        before = now;
        // Others write between two steps.
        store.record(&record()).await.unwrap();
    }
    assert!(before < 700, "{before} pages are left");
}

#[tokio::test]
async fn another_programs_commit_wakes_an_idle_watcher() {
    let (_directory, state, server) = store().await;
    let operator = open(&state).await.unwrap();
    server.changed().await.unwrap();
    for _ in 0..3 {
        let written = async {
            tokio::task::yield_now().await;
            operator.record(&record()).await.unwrap();
        };
        let noticed = tokio::time::timeout(std::time::Duration::from_secs(8), server.changed());
        // Without the doorbell the next look is ten seconds away.
        let (noticed, ()) = tokio::join!(noticed, written);
        noticed.expect("long before the idle look").unwrap();
    }
}

#[tokio::test]
async fn a_state_opened_to_read_stays_as_it_was_while_others_write_and_prune() {
    let (_directory, state, server) = store().await;
    for _ in 0..10 {
        server.record(&record()).await.unwrap();
    }
    let all = AuditPage::OldestAfter(0);
    let reader = SqliteStore::open_to_read(&state.database()).await.unwrap();
    let before = server.audit_page(None, all, 100).await.unwrap();
    let prune = AuditRecord { action: Action::AuditPrune, object: "5".to_owned(), ..record() };
    assert!(server.raise_audit_floor(5, &prune).await.unwrap());
    server.record(&record()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(reader.audit_floor().await.unwrap().sequence, 1);
        assert_eq!(reader.audit_page(None, all, 100).await.unwrap(), before);
    }
    reader.close().await.unwrap();
}

#[tokio::test]
async fn a_write_that_gets_no_connection_in_time_is_refused_as_busy() {
    let (_directory, _, store) = store().await;
    let all = store.writer.acquire().await.unwrap();
    assert!(matches!(store.record(&record()).await.unwrap_err(), StoreError::Busy(_)));
    drop(all);
    store.record(&record()).await.unwrap();
}

/// sqlx applies what is missing in the order of the numbers, whatever is there already: a state that got 5 from a branch
/// without 4 gets it later, and has the schema of every other.
#[tokio::test]
async fn a_migration_that_was_left_out_is_applied_later() {
    let schema = async |skipped: Option<i64>| {
        let (_directory, state) = state();
        let pool = pool(1).connect_with(options(&state.database())).await.unwrap();
        if let Some(skipped) = skipped {
            let kept = MIGRATIONS.iter().filter(|migration| migration.version != skipped).cloned();
            let partly =
                sqlx::migrate::Migrator { migrations: kept.collect(), ..sqlx::migrate::Migrator::DEFAULT };
            partly.run(&pool).await?;
        }
        MIGRATIONS.run(&pool).await?;
        let rows = sqlx::query("SELECT sql FROM sqlite_schema WHERE name NOT LIKE '_sqlx%' ORDER BY name");
        let rows = rows.fetch_all(&pool).await.unwrap();
        Ok::<_, MigrateError>(rows.iter().map(|row| row.get::<Option<String>, _>(0)).collect::<Vec<_>>())
    };
    assert_eq!(schema(Some(4)).await.unwrap(), schema(None).await.unwrap());
}
