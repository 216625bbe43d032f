//! The daemons' routes, over TLS 1.3: a join token is exchanged for a certificate, and a
//! certificate authorizes its devbox's bundle.
//!
//! Messages are those of [`devbox_secrets_proto::devbox`].

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use devbox_secrets_proto::devbox::{
    BUNDLE_MEDIA_TYPE, BUNDLE_PATH, BundleRequest, Continuity, ENROLL_PATH, IssuedIdentity, RENEW_PATH,
};
use devbox_secrets_proto::secret::SecretBytes;
use serde::de::MapAccess;

use super::answer::Answer;
use super::body::JsonObject;
use super::connection::Connection;
use super::delivery;
use super::error::ApiError;
use super::json::{Field, Object};
use super::observe::CallerId;
use super::public::{failed, finish, named, take_bearer};
use crate::registry::{DevboxPeer, Registry};
use crate::shutdown::Shutdown;

/// Longest body of this listener, in bytes: a request for a certificate, or an X-Wing key in
/// base64.
const MAX_LEN: usize = 16 * 1024;

#[derive(Debug, Clone)]
struct RouteState {
    registry: Registry,
    shutdown: Shutdown,
}

/// The devbox listener's service. Bundle requests get 503 after `shutdown`.
pub(crate) fn router(registry: &Registry, shutdown: &Shutdown) -> Router {
    let router = Router::new()
        .route(ENROLL_PATH, named(ENROLL_PATH, post(enroll)))
        .route(RENEW_PATH, named(RENEW_PATH, post(renew)))
        .route(BUNDLE_PATH, named(BUNDLE_PATH, post(bundle)));
    let context = RouteState { registry: registry.clone(), shutdown: shutdown.clone() };
    finish(router, "devbox", registry).with_state(context)
}

#[derive(Default)]
struct Csr {
    csr: String,
}

impl Object for Csr {
    const FIELDS: &'static [Field] =
        &[Field { name: "csr", form: "a certificate signing request (PEM)", required: true }];
    const MAX_LEN: usize = MAX_LEN;

    fn read<'de, A: MapAccess<'de>>(&mut self, _: usize, map: &mut A) -> Result<(), A::Error> {
        self.csr = map.next_value()?;
        Ok(())
    }
}

struct Bundle(BundleRequest);

impl Default for Bundle {
    fn default() -> Self {
        let continuity = Continuity { boot: String::new(), after: None, step: String::new() };
        Self(BundleRequest { hpke_public_key: String::new(), known_revision: None, wait_ms: 0, continuity })
    }
}

impl Object for Bundle {
    const FIELDS: &'static [Field] = &[
        Field { name: "hpke_public_key", form: "an X-Wing public key in base64", required: true },
        Field { name: "known_revision", form: "a revision's number, or null", required: false },
        Field { name: "wait_ms", form: "a number of milliseconds", required: false },
        Field { name: "continuity", form: "an object with boot, after and step", required: true },
    ];
    const MAX_LEN: usize = MAX_LEN;

    fn read<'de, A: MapAccess<'de>>(&mut self, field: usize, map: &mut A) -> Result<(), A::Error> {
        match field {
            0 => self.0.hpke_public_key = map.next_value()?,
            1 => self.0.known_revision = map.next_value()?,
            2 => self.0.wait_ms = map.next_value()?,
            _ => self.0.continuity = map.next_value()?,
        }
        Ok(())
    }
}

/// The bearer token of enrolment, read before the body.
struct JoinBearer(SecretBytes);

impl FromRequestParts<RouteState> for JoinBearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &RouteState) -> Result<Self, ApiError> {
        let connection = parts.extensions.get::<Arc<Connection>>().cloned().ok_or_else(ApiError::internal)?;
        let token = take_bearer(&mut parts.headers);
        let checked = connection.load.check_failures(Some(connection.remote.ip()), None);
        let token = token.ok_or_else(|| {
            ApiError::unauthenticated("send the join token, once: `Authorization: Bearer <join token>`")
        });
        match (checked, token) {
            (Ok(()), token) => token.map(Self),
            (Err(_), Ok(token)) if context.registry.expects_join_token(&token).await => Ok(Self(token)),
            (Err(refusal), _) => Err(refusal),
        }
    }
}

/// The devbox of the client's certificate, read before the body.
struct Peer(DevboxPeer);

impl FromRequestParts<RouteState> for Peer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, context: &RouteState) -> Result<Self, ApiError> {
        let connection = parts.extensions.get::<Arc<Connection>>();
        let shown = connection.and_then(|connection| Some((connection, connection.certificate.as_ref()?)));
        let (connection, certificate) = shown.ok_or_else(|| {
            ApiError::unauthenticated(
                "show the devbox's certificate in the TLS handshake; enrolment issues one",
            )
        })?;
        let peer = context.registry.peer(certificate, Some(connection.remote.ip()))?;
        Ok(Self(peer.on(&connection.alive)))
    }
}

async fn enroll(
    State(context): State<RouteState>,
    Extension(connection): Extension<Arc<Connection>>,
    JoinBearer(token): JoinBearer,
    JsonObject(body): JsonObject<Csr>,
) -> Result<Answer<IssuedIdentity>, ApiError> {
    // The join token was in the header, so it is in the connection's buffer.
    connection.close_after_answer();
    let remote = Some(connection.remote.ip());
    let _turn = match connection.load.authenticating(remote, None).await {
        Ok(turn) => turn,
        Err(_) if context.registry.expects_join_token(&token).await => None,
        Err(refusal) => return Err(refusal),
    };
    let _slot = connection.load.request(None)?;
    let enrolled = context.registry.enroll(&token, &body.csr, remote).await;
    enrolled.map(Answer).map_err(|refusal| failed(refusal, &connection))
}

async fn renew(
    State(context): State<RouteState>,
    Extension(connection): Extension<Arc<Connection>>,
    Peer(peer): Peer,
    JsonObject(body): JsonObject<Csr>,
) -> Result<Answer<IssuedIdentity>, ApiError> {
    let _slot = connection.load.request(None)?;
    Ok(Answer(context.registry.renew(&peer, &body.csr).await?))
}

async fn bundle(
    State(context): State<RouteState>,
    Peer(peer): Peer,
    JsonObject(body): JsonObject<Bundle>,
) -> Result<Response, ApiError> {
    let bundle = tokio::select! {
        bundle = context.registry.bundle(&peer, &body.0) => bundle?,
        // An error, not "unchanged", which would renew the daemon's lease without a query of the
        // store.
        () = context.shutdown.requested() => return Err(ApiError::stopping()),
    };
    let mut response = match bundle {
        Some(bundle) => ([(CONTENT_TYPE, BUNDLE_MEDIA_TYPE)], delivery::body(bundle)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    response.extensions_mut().insert(CallerId(peer.devbox_id().to_string()));
    Ok(response)
}
