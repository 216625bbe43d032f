//! `GET /metrics` and `POST /reload`.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::Admin;
use super::reply::{json, refusal};
use super::report::State;
use super::status::state_of;
use crate::access::peer::Peer;
use crate::memory::Holding;
use crate::metrics::{MEDIA_TYPE, Present};
use crate::reload::Reload;
use crate::telemetry::{audit, stderr};

/// Every number, as it is now.
pub(super) fn metrics(admin: &Admin) -> Response<Full<Bytes>> {
    match admin.progress.metrics().text(present(admin)) {
        Ok(text) => {
            let mut response = Response::new(Full::new(Bytes::from(text)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            response
        }
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be written"),
    }
}

fn present(admin: &Admin) -> Present {
    let progress = admin.progress.snapshot();
    let common = Present {
        last_sync_age: progress.last_sync_age,
        failing: progress.failure.is_some(),
        certificate_end_ms: progress.certificate.map(|validity| validity.not_after_ms),
        bytes_locked: admin.memory.bytes_locked() as u64,
        connections: admin.launches.connections() as u64,
        look_ups: admin.launches.look_ups() as u64,
        audit_dropped: audit::dropped(),
        log_dropped: stderr::lost(),
        started_ms: admin.started_ms,
        ..Present::default()
    };
    match admin.vault.holding() {
        Holding::Ready { generation, lease_left } => Present {
            state: State::Ready,
            revision: Some(generation.revision()),
            names: generation.count() as u64,
            revision_age: Some(generation.age()),
            lease_left: Some(lease_left),
            ..common
        },
        Holding::Without(unavailable) => Present { state: state_of(unavailable.loss), ..common },
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
