//! The paths of the admin API and their handlers.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::reply::{json, refusal};
use super::{explain, token};
use crate::access::peer::Peer;
use crate::local_api::launch::LaunchState;
use crate::local_api::reload::Reload;
use crate::memory::Holding;
use crate::metrics::MEDIA_TYPE;
use crate::status::{Sources, State};
use crate::sync::Commands;
use crate::telemetry::chain;

/// Each path and its one method.
const ROUTES: [(&str, &str); 7] = [
    ("/healthz", "GET"),
    ("/status", "GET"),
    ("/explain", "GET"),
    ("/metrics", "GET"),
    ("/reload", "POST"),
    ("/quiesce", "POST"),
    ("/resume", "POST"),
];

#[derive(Debug)]
pub(crate) struct Admin {
    pub status: Sources,
    pub launches: Arc<LaunchState>,
    pub commands: Commands,
    pub reload: Reload,
}

impl Admin {
    pub(super) async fn answer(&self, asker: Peer, head: &Parts, body: Incoming) -> Response<Full<Bytes>> {
        match (head.uri.path(), &head.method) {
            ("/healthz", &Method::GET) => self.health(),
            ("/status", &Method::GET) => json(StatusCode::OK, &self.status.status(self.launches.counts())),
            ("/explain", &Method::GET) => self.explain(head.uri.query().unwrap_or_default()).await,
            ("/metrics", &Method::GET) => self.metrics(),
            ("/reload", &Method::POST) => self.reload(asker).await,
            ("/quiesce", &Method::POST) => self.quiesce(asker).await,
            ("/resume", &Method::POST) => self.resume(asker, body).await,
            (path, _) => not_found(path),
        }
    }

    async fn explain(&self, query: &str) -> Response<Full<Bytes>> {
        match explain::parse(query) {
            Some(peer) => json(StatusCode::OK, &self.launches.explain(peer).await),
            None => refusal(StatusCode::BAD_REQUEST, "query", "ask with pid, uid and gid, each a number"),
        }
    }

    async fn quiesce(&self, asker: Peer) -> Response<Full<Bytes>> {
        match self.commands.quiesce(asker).await {
            Ok(()) => json(StatusCode::OK, &serde_json::json!({"state": State::Quiesced})),
            Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, "quiesce", &chain(&error)),
        }
    }

    /// Returns when joining has started; its outcome is in `/status`.
    async fn resume(&self, asker: Peer, body: Incoming) -> Response<Full<Bytes>> {
        let resumed = match token::receive(body).await {
            Ok(token) => self.commands.resume(asker, token).await,
            Err(error) => return refusal(StatusCode::BAD_REQUEST, "token", &chain(&error)),
        };
        match resumed {
            Ok(()) => json(StatusCode::ACCEPTED, &serde_json::json!({"state": State::Starting})),
            Err(error) => refusal(StatusCode::CONFLICT, "resume", &chain(&error)),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let summary = self.status.summary(self.launches.counts());
        match self.status.progress.metrics().text(summary) {
            Ok(text) => {
                let mut response = Response::new(Full::new(Bytes::from(text)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                response
            }
            Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the metrics cannot be written"),
        }
    }

    /// Returns the number of rules, or every mistake with its line.
    async fn reload(&self, asker: Peer) -> Response<Full<Bytes>> {
        match self.reload.rules(Some(asker)).await {
            Ok(counts) => json(StatusCode::OK, &counts),
            Err(mistakes) => {
                let message = format!("{mistakes}\nThe old rules stay in force.");
                refusal(StatusCode::UNPROCESSABLE_ENTITY, "mistakes", &message)
            }
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        match self.status.vault.holding() {
            Holding::Ready { .. } => json(StatusCode::OK, &serde_json::json!({"state": State::Ready})),
            Holding::Without(unavailable) => {
                let state = State::from(unavailable.loss);
                let body = serde_json::json!({"state": state, "reason": &*unavailable.reason});
                json(StatusCode::SERVICE_UNAVAILABLE, &body)
            }
        }
    }
}

fn not_found(path: &str) -> Response<Full<Bytes>> {
    let Some((_, method)) = ROUTES.iter().find(|(served, _)| *served == path) else {
        let paths: Vec<&str> = ROUTES.iter().map(|(path, _)| *path).collect();
        return refusal(StatusCode::NOT_FOUND, "path", &format!("the paths are {}", paths.join(", ")));
    };
    let mut response =
        refusal(StatusCode::METHOD_NOT_ALLOWED, "method", &format!("only {method} is served here"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}
