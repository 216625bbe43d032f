//! A connection whose reads record in [`Freshness`] when answers arrived.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::freshness::Freshness;

/// A TCP connection, closed when it is dropped.
pub(super) struct Watched {
    tcp: TcpStream,
    freshness: Option<Arc<Freshness>>,
}

impl Watched {
    pub(super) fn new(tcp: TcpStream, freshness: Option<Arc<Freshness>>) -> Self {
        if let Some(freshness) = &freshness {
            freshness.connected(tcp.as_raw_fd());
        }
        Self { tcp, freshness }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(freshness) = &self.freshness {
            freshness.disconnected();
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.tcp).poll_read(context, room);
        if let Some(freshness) = &self.freshness {
            if read.is_ready() { freshness.is_heard() } else { freshness.is_silent() }
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
