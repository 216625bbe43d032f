//! A connection without a task of its own: the requests over it drive it. So dropping its owner closes it and frees its keys and
//! buffers at once.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_rustls::client::TlsStream;

use super::reply::Reply;
use super::watched::Watched;

/// Size of the read buffer, which an idle connection keeps, and the longest header, in bytes.
const READ_BUFFER: usize = 16 * 1024;

type Connection = http1::Connection<TokioIo<TlsStream<Watched>>, Full<Bytes>>;

pub(super) struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection>>,
}

pub(super) enum Failure {
    Http(hyper::Error),
    TooLarge,
}

impl Link {
    pub(super) async fn new(stream: TlsStream<Watched>) -> Result<Self, hyper::Error> {
        let mut http = http1::Builder::new();
        let (sender, connection) = http.max_buf_size(READ_BUFFER).handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, connection: Box::pin(connection) })
    }

    /// Whether it can take another request: the peer may have closed it while it was idle.
    pub(super) async fn is_open(&mut self) -> bool {
        let Self { sender, connection } = self;
        let is_open = poll_fn(|context| Poll::Ready(connection.as_mut().poll(context).is_pending())).await;
        is_open && drive(connection, sender.ready()).await.is_ok()
    }

    /// Sends one request and reads the complete answer. `arrives` is called once the header has been read.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: usize,
        arrives: impl FnOnce(),
    ) -> Result<Reply, Failure> {
        let Self { sender, connection } = self;
        drive(connection, async {
            let response = sender.send_request(request).await.map_err(Failure::Http)?;
            arrives();
            let status = response.status();
            let body = collect(response, limit).await?;
            Ok(Reply { status, body })
        })
        .await
    }
}

/// Drives `connection` until `work` is done. A failure of the connection fails `work` by itself.
async fn drive<T>(connection: &mut Pin<Box<Connection>>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let mut is_over = false;
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        is_over = is_over || connection.as_mut().poll(context).is_ready();
        // `work` goes first, so that no other task runs between the arrival of an answer and its effect.
        work.as_mut().poll(context)
    })
    .await
}

/// Reads the body into one buffer of its announced length.
async fn collect(response: Response<Incoming>, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut incoming = response.into_body();
    let announced = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Failure::TooLarge);
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(Failure::Http)?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > limit - body.len() {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(data);
    }
    Ok(body)
}
