//! Commits audit rows of many callers in one transaction.

use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};

use super::{audit, begin};
use crate::store::{AuditRecord, StoreError};

/// Most rows of one transaction.
const BATCH: usize = 256;

/// Rows that wait for the writer, at most; callers beyond wait for room.
const QUEUE: usize = 4 * BATCH;

type Caller = oneshot::Sender<Result<(), StoreError>>;

struct Waiting {
    row: AuditRecord,
    done: Caller,
}

/// The one task that writes such rows. It ends with its store.
#[derive(Debug)]
pub(super) struct Recorder(mpsc::Sender<Waiting>);

impl Recorder {
    pub(super) fn new(writer: SqlitePool) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run(writer, receiver));
        Self(sender)
    }

    /// Returns once the row is on disk.
    pub(super) async fn record(&self, row: AuditRecord) -> Result<(), StoreError> {
        let (done, written) = oneshot::channel();
        let gone = |_| StoreError::from(sqlx::Error::WorkerCrashed);
        self.0.send(Waiting { row, done }).await.map_err(|_| gone(()))?;
        written.await.map_err(|_| gone(()))?
    }
}

/// While one batch is being written, the next one gathers.
async fn run(writer: SqlitePool, mut receiver: mpsc::Receiver<Waiting>) {
    let mut batch = Vec::with_capacity(BATCH);
    while receiver.recv_many(&mut batch, BATCH).await > 0 {
        let (rows, callers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|waiting| (waiting.row, waiting.done)).unzip();
        if rows.len() == 1 {
            write_each(&writer, rows, callers).await;
        } else if write(&writer, &rows).await.is_ok() {
            callers.into_iter().for_each(|caller| tell(caller, Ok(())));
        } else {
            // A single row may be at fault, or the disk may have room for some of them.
            write_each(&writer, rows, callers).await;
        }
    }
}

async fn write_each(writer: &SqlitePool, rows: Vec<AuditRecord>, callers: Vec<Caller>) {
    for (row, done) in rows.into_iter().zip(callers) {
        tell(done, write(writer, &[row]).await);
    }
}

/// The receiver may have been dropped by a caller that gave up.
fn tell(caller: Caller, result: Result<(), StoreError>) {
    let _ = caller.send(result);
}

async fn write(writer: &SqlitePool, rows: &[AuditRecord]) -> Result<(), StoreError> {
    let mut write = begin(writer).await?;
    audit::insert_all(&mut write, rows).await?;
    Ok(write.commit().await?)
}
