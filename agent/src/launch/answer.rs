//! Writes one answer: by descriptor where it can, inline where it must, always straight from locked pages.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use devbox_launch_proto::{Answer, AnswerHeader, HEADER_LEN};
use tokio::net::UnixStream;
use tokio::select;
use tokio::time::sleep;
use tracing::debug;

use super::at_once::{send, send_now};
use super::failure::Failure;
use super::refusal::Refusal;
use super::selection::Selection;
use crate::memory::{Generation, LaunchPages, MemoryError, Pool, Vault};

/// How long a slow reader may go on taking an inline answer from secrets that are no longer current.
const GRACE: Duration = Duration::from_millis(500);
/// As many slices as one system call takes (`UIO_MAXIOV`, sendmsg(2)).
const MAX_SLICES: usize = 1_024;

/// What is told, from what.
pub(super) struct Reply<'a> {
    pub(super) generation: &'a Generation,
    pub(super) selection: &'a Selection<'a>,
}

impl Reply<'_> {
    /// Names only, nothing secret.
    pub(super) async fn send_names(&self, stream: &UnixStream) -> Result<Answer, Failure> {
        let names = self.selection.names(self.generation);
        let len = names.iter().map(|name| name.len() + 1).sum();
        let header = header(Answer::Names, names.len(), len)?.encode();
        let mut message = Vec::with_capacity(HEADER_LEN + len);
        message.extend_from_slice(&header);
        for name in names {
            message.extend_from_slice(name);
            message.push(0);
        }
        write_all(stream, &mut [IoSlice::new(&message)]).await?;
        Ok(Answer::Names)
    }

    /// Variables: by descriptor, or inline where none is wanted or to be had.
    pub(super) async fn send(
        &self,
        stream: &UnixStream,
        inline: bool,
        pool: &Pool,
        vault: &Vault,
    ) -> Result<Answer, Failure> {
        let (count, len) = (self.selection.count(self.generation), self.selection.len(self.generation));
        if !inline && len > 0 {
            match self.fill(pool, len) {
                Ok(pages) => {
                    let header = header(Answer::Descriptor, count, len)?;
                    pages
                        .hand_over(async |descriptor| send_descriptor(stream, header, descriptor).await)
                        .await?;
                    return Ok(Answer::Descriptor);
                }
                Err(error) => debug!(%error, "this launch is answered inline"),
            }
        }
        self.send_inline(stream, header(Answer::Inline, count, len)?, vault).await?;
        Ok(Answer::Inline)
    }

    fn fill(&self, pool: &Pool, len: usize) -> Result<LaunchPages, MemoryError> {
        let mut pages = pool.take(len)?;
        self.selection.copy_to(self.generation, pages.bytes_mut());
        Ok(pages)
    }

    /// Ends early, and with it the hold on these secrets, when they are replaced or lost.
    async fn send_inline(
        &self,
        stream: &UnixStream,
        header: AnswerHeader,
        vault: &Vault,
    ) -> Result<(), Failure> {
        let mut changes = vault.changes();
        let header = header.encode();
        let mut slices = self.selection.slices(self.generation);
        slices.insert(0, IoSlice::new(&header));
        let outlived = async {
            // The vault outlives its launches, so this is a change and never the end of the channel.
            let _ = changes.changed().await;
            sleep(GRACE).await;
        };
        select! {
            biased;
            written = write_all(stream, &mut slices) => Ok(written?),
            () = outlived => Err(Failure::Slow("its answer is no longer current")),
        }
    }
}

/// Tells why not. It fits the socket's buffer; where that is full, nobody reads.
pub(super) fn send_refusal(stream: &UnixStream, refusal: &Refusal) {
    let Ok(header) = header(Answer::Error(refusal.code), 0, refusal.text().len()) else { return };
    let header = header.encode();
    // A peer that is gone cannot be told.
    let _ = send_now(stream, &[IoSlice::new(&header), IoSlice::new(refusal.text().as_bytes())], &[]);
}

fn header(answer: Answer, count: usize, len: usize) -> Result<AnswerHeader, Refusal> {
    match (u32::try_from(count), u32::try_from(len)) {
        (Ok(count), Ok(len)) => Ok(AnswerHeader { answer, count, len }),
        _ => Err(Refusal::invalid("the launch has more than 4 GiB of variables: select fewer by --only")),
    }
}

/// The header and the descriptor in one message.
async fn send_descriptor(
    stream: &UnixStream,
    header: AnswerHeader,
    descriptor: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let header = header.encode();
    match send(stream, &[IoSlice::new(&header)], &[descriptor.as_raw_fd()]).await? {
        HEADER_LEN => Ok(()),
        // A fresh socket's buffer has room for a header; one that has not is not a launcher's.
        _ => Err(Failure::Gone),
    }
}

async fn write_all(stream: &UnixStream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        let written = send(stream, &slices[..slices.len().min(MAX_SLICES)], &[]).await?;
        IoSlice::advance_slices(&mut slices, written);
        // A reader that keeps up shall not keep the event loop.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}
