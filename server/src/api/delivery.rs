//! The body of a delivered bundle. A devbox that does not read holds the bundle's memory, and its
//! share of the bytes in flight, for a limited time only, and until it asks again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Bytes, Frame, SizeHint};
use thiserror::Error;
use tokio::task::AbortHandle;

use crate::registry::Delivery;

/// Longest frame, in bytes: so many are copied at a time. A shorter bundle is handed over whole.
const FRAME_LEN: usize = 64 * 1024;

/// How long a devbox may take to read its bundle.
const TIME_TO_READ: Duration = Duration::from_secs(60);

/// The bundle was not read in time, or the devbox has sent a newer request; the connection closes.
#[derive(Debug, Error)]
#[error("the devbox did not read its bundle in time")]
struct TooSlow;

#[derive(Debug)]
struct Sending {
    bundle: Arc<Mutex<Option<Delivery>>>,
    len: usize,
    sent: usize,
    expiry: AbortHandle,
}

pub(super) fn body(bundle: Delivery) -> Body {
    if bundle.len() <= FRAME_LEN {
        return Body::from(Bytes::copy_from_slice(&bundle));
    }
    Body::new(Sending::new(bundle, TIME_TO_READ))
}

impl Sending {
    fn new(bundle: Delivery, time: Duration) -> Self {
        let len = bundle.len();
        let ended = bundle.ended();
        let bundle = Arc::new(Mutex::new(Some(bundle)));
        let expiring = Arc::clone(&bundle);
        // A body is polled only while its connection takes bytes, so that the expiry needs a task
        // of its own.
        let expiry = tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = ended => {}
            }
            expiring.lock().unwrap_or_else(PoisonError::into_inner).take();
        });
        Self { bundle, len, sent: 0, expiry: expiry.abort_handle() }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.expiry.abort();
    }
}

impl hyper::body::Body for Sending {
    type Data = Bytes;
    type Error = TooSlow;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TooSlow>>> {
        if self.sent == self.len {
            return Poll::Ready(None);
        }
        let end = self.len.min(self.sent + FRAME_LEN);
        let frame = match &*self.bundle.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bundle) => Bytes::copy_from_slice(&bundle[self.sent..end]),
            None => return Poll::Ready(Some(Err(TooSlow))),
        };
        self.sent = end;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.len
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.len - self.sent) as u64)
    }
}
