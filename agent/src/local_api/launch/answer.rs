//! Sends one answer straight from locked pages: by descriptor if possible, else inline.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use devbox_launch_proto::{Answer, AnswerHeader, HEADER_LEN, marked_len};
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::select;
use tokio::time::sleep;
use tracing::debug;

use super::LaunchState;
use super::refusal::{Failure, Refusal};
use super::report::report_inline;
use super::selection::Selection;
use super::slots::LaunchSlot;
use super::stream::{Stream, send, send_now};
use super::unread::Content;
use crate::memory::{Generation, Vault};

/// Time that a launcher has to read an answer after its secrets were replaced or lost.
pub(super) const GRACE: Duration = Duration::from_millis(500);
/// Most slices of one system call (`UIO_MAXIOV`, sendmsg(2)).
const MAX_SLICES: usize = 1_024;

pub(super) struct Reply<'a> {
    pub(super) generation: &'a Arc<Generation>,
    pub(super) selection: &'a Selection<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhyInline {
    /// The launcher asked for it, or there are no variables.
    Asked,
    /// Locked memory with a descriptor is unavailable.
    Memory,
    /// The user's unread answers take its share of locked memory.
    Share,
    /// The kernel sends no more descriptors (`ETOOMANYREFS`).
    InFlight,
}

impl WhyInline {
    pub(super) const ALL: [Self; 4] = [Self::Asked, Self::Memory, Self::Share, Self::InFlight];

    /// A stable word for metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Memory => "memory",
            Self::Share => "share",
            Self::InFlight => "in_flight",
        }
    }
}

enum Unsent {
    Inline(WhyInline),
    Failed(Failure),
}

impl Reply<'_> {
    pub(super) async fn send_names(&self, stream: &Stream, vault: &Vault) -> Result<Answer, Failure> {
        let names = self.selection.names(self.generation);
        let len = names.iter().map(|name| name.len() + 1).sum();
        let header = header(Answer::Names, names.len(), len)?.encode();
        // One buffer, so that one system call usually sends it.
        let mut message = Vec::with_capacity(HEADER_LEN + len);
        message.extend_from_slice(&header);
        for name in names {
            message.extend_from_slice(name);
            message.push(0);
        }
        self.send_bytes(stream, &mut [IoSlice::new(&message)], vault).await?;
        Ok(Answer::Names)
    }

    /// Sends variables by descriptor, or inline if the launcher wants that or no descriptor is
    /// available.
    pub(super) async fn send(
        &self,
        stream: &Stream,
        inline: bool,
        slot: &mut LaunchSlot,
        state: &LaunchState,
    ) -> Result<(Answer, Content), Failure> {
        let (count, len) = (self.selection.count(self.generation), self.selection.len(self.generation));
        let why = if inline || len == 0 {
            WhyInline::Asked
        } else {
            match self.send_pages(stream, header(Answer::Descriptor, count, len)?, slot, state).await {
                Ok(content) => return Ok((Answer::Descriptor, content)),
                Err(Unsent::Failed(failure)) => return Err(failure),
                Err(Unsent::Inline(why)) => {
                    slot.release();
                    why
                }
            }
        };
        // The way to this point may have waited for pages, while a secret was deleted.
        self.check_current(state)?;
        report_inline(&state.metrics, &state.seldom, why);
        self.send_inline(stream, header(Answer::Inline, count, len)?, &state.vault).await?;
        Ok((Answer::Inline, Content::Inline))
    }

    fn check_current(&self, state: &LaunchState) -> Result<(), Failure> {
        let is_current = state.freshness.is_still_current(self.generation, &state.vault);
        if is_current { Ok(()) } else { Err(Failure::Outdated) }
    }

    async fn send_pages(
        &self,
        stream: &Stream,
        header: AnswerHeader,
        slot: &mut LaunchSlot,
        state: &LaunchState,
    ) -> Result<Content, Unsent> {
        let len = header.len as usize;
        // Answers that were read a moment ago may still be counted.
        let has_room = slot.hold(len) || (state.unread.make_room(&state.metrics) && slot.hold(len));
        if !has_room {
            return Err(Unsent::Inline(WhyInline::Share));
        }
        let mut pages = state.pool.take(marked_len(len)).await.map_err(|error| {
            debug!(%error, "this launch is answered inline");
            Unsent::Inline(WhyInline::Memory)
        })?;
        // Large pages are made by a thread, which may take long while many launches wait for it.
        self.check_current(state).map_err(Unsent::Failed)?;
        self.selection.copy_to(self.generation, pages.bytes_mut());
        let send = async |descriptor: BorrowedFd<'_>| send_descriptor(stream, header, descriptor).await;
        let sent = pages.hand_over(len, send).await?;
        Ok(Content::pages(sent, self.generation))
    }

    async fn send_inline(&self, stream: &Stream, header: AnswerHeader, vault: &Vault) -> Result<(), Failure> {
        let header = header.encode();
        // Straight from the locked pages: a buffer between would be an unlocked copy.
        let mut slices = self.selection.slices(self.generation);
        slices.insert(0, IoSlice::new(&header));
        self.send_bytes(stream, &mut slices, vault).await
    }

    /// Stops soon after the secrets are replaced or lost, so that a slow reader does not keep them
    /// in memory, not even a reader of names: they are in the same generation.
    async fn send_bytes(
        &self,
        stream: &Stream,
        slices: &mut [IoSlice<'_>],
        vault: &Vault,
    ) -> Result<(), Failure> {
        let mut changes = vault.changes();
        let outlived = async {
            // The vault outlives its launches, so this is a change and never the end of the channel.
            let _ = changes.changed().await;
            sleep(GRACE).await;
        };
        select! {
            biased;
            written = write_all(stream, slices) => {
                written?;
                end(stream);
                Ok(())
            }
            () = outlived => Err(Failure::Slow("its answer is no longer current")),
        }
    }
}

/// Sends a refusal and closes the sending side. It fits the socket's buffer; if that is full, the
/// peer does not read.
pub(super) fn send_refusal(stream: &Stream, refusal: &Refusal) {
    let Ok(header) = header(Answer::Error(refusal.code), 0, refusal.text().len()) else { return };
    let header = header.encode();
    // It fails only if the peer has gone.
    let _ = send_now(stream, &[IoSlice::new(&header), IoSlice::new(refusal.text().as_bytes())], &[]);
    end(stream);
}

/// Closes the sending side. The connection stays open until the answer is read, so that a launcher
/// that reads to the end gets all of it.
pub(super) fn end(stream: &Stream) {
    // It fails only if the peer has gone.
    let _ = shutdown(stream.as_raw_fd(), Shutdown::Write);
}

fn header(answer: Answer, count: usize, len: usize) -> Result<AnswerHeader, Refusal> {
    match (u32::try_from(count), u32::try_from(len)) {
        (Ok(count), Ok(len)) => Ok(AnswerHeader { answer, count, len }),
        _ => Err(Refusal::invalid("the launch has more than 4 GiB of variables: select fewer by --only")),
    }
}

async fn send_descriptor(
    stream: &Stream,
    header: AnswerHeader,
    descriptor: BorrowedFd<'_>,
) -> Result<(), Unsent> {
    let header = header.encode();
    match send(stream, &[IoSlice::new(&header)], &[descriptor.as_raw_fd()]).await {
        Ok(HEADER_LEN) => Ok(()),
        Err(error) if error.raw_os_error() == Some(Errno::ETOOMANYREFS as i32) => {
            Err(Unsent::Inline(WhyInline::InFlight))
        }
        // A fresh socket's buffer has room for a header, so this peer is no launcher.
        _ => Err(Unsent::Failed(Failure::Gone)),
    }
}

async fn write_all(stream: &Stream, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        let written = send(stream, &slices[..slices.len().min(MAX_SLICES)], &[]).await?;
        IoSlice::advance_slices(&mut slices, written);
        // A reader that keeps up must not block the event loop.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}
