//! `GET /metrics` and `POST /reload`.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::Admin;
use super::reply::{json, refusal};
use crate::access::peer::Peer;
use crate::metrics::MEDIA_TYPE;
use crate::reload::Reload;

/// Every number, as it is now.
pub(super) fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    let summary = admin.status.summary(admin.launches.counts());
    match admin.status.progress.metrics().text(summary) {
        Ok(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            response
        }
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be written"),
    }
}

/// Takes up changed rules: how many there are now, or every mistake with its line.
pub(super) async fn reload(reload: &Reload, asker: Peer) -> Response<Full<Bytes>> {
    match reload.rules(Some(asker)).await {
        Ok(counts) => json(StatusCode::OK, &counts),
        Err(mistakes) => {
            let message = format!("{mistakes}\nThe old rules hold.");
            refusal(StatusCode::UNPROCESSABLE_ENTITY, "mistakes", &message)
        }
    }
}
