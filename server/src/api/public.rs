//! The public listener: one table of routes. A route is open or takes a bearer token, and the table
//! says which.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use devbox_secrets_proto::secret::SecretBytes;
use serde::Serialize;

use super::answer::Answer;
use super::connection::Connection;
use super::error::ApiError;
use super::host::require_host;
use super::observe::{CallerId, Observer, RouteTemplate, observe};
use super::{devboxes, openapi, secrets};
use crate::registry::{Caller, Refusal, RefusalKind, Registry, Scope};

/// The access to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// The caller sends an API token of this scope.
    Bearer(Scope),
}

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    /// Its method; a GET route answers HEAD too.
    pub method: Method,
    /// Its path, with `{parameters}`.
    pub path: &'static str,
    /// The access that a caller needs.
    pub access: Access,
    handler: MethodRouter<Registry>,
}

impl Route {
    fn new(method: Method, path: &'static str, access: Access, handler: MethodRouter<Registry>) -> Self {
        Self { method, path, access, handler }
    }
}

/// All routes of the public listener.
#[must_use]
pub fn routes() -> Vec<Route> {
    use Scope::{Devboxes, SecretsRead, SecretsWrite};
    let open = |path, handler| Route::new(Method::GET, path, Access::Open, handler);
    let read = |path, scope, handler| Route::new(Method::GET, path, Access::Bearer(scope), handler);
    let write = |path, scope, handler| Route::new(Method::POST, path, Access::Bearer(scope), handler);
    vec![
        open("/openapi.json", get(openapi::document)),
        open("/healthz", get(healthz)),
        write("/v1/secrets", SecretsWrite, post(secrets::create)),
        read("/v1/secrets", SecretsRead, get(secrets::list)),
        read("/v1/secrets/{name}", SecretsRead, get(secrets::get_by_name)),
        write("/v1/secrets/{name}", SecretsWrite, post(secrets::update_by_name)),
        write("/v1/secrets/{name}/delete", SecretsWrite, post(secrets::delete_by_name)),
        read("/v1/secrets/id/{id}", SecretsRead, get(secrets::get_by_id)),
        write("/v1/secrets/id/{id}/update", SecretsWrite, post(secrets::update_by_id)),
        write("/v1/secrets/id/{id}/delete", SecretsWrite, post(secrets::delete_by_id)),
        // The by-id routes would otherwise hide this one of a secret whose name is `id`.
        write("/v1/secrets/id/delete", SecretsWrite, post(secrets::delete_the_one_named_id)),
        write("/v1/devboxes", Devboxes, post(devboxes::create)),
        read("/v1/devboxes", Devboxes, get(devboxes::list)),
        read("/v1/devboxes/{id}", Devboxes, get(devboxes::get)),
        write("/v1/devboxes/{id}/shutdown", Devboxes, post(devboxes::shutdown)),
        write("/v1/devboxes/{id}/join_token", Devboxes, post(devboxes::join_token)),
    ]
}

pub(crate) fn router(registry: &Registry) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, route| {
        let handler = match route.access {
            Access::Open => route.handler,
            Access::Bearer(scope) => {
                route.handler.route_layer(from_fn_with_state((registry.clone(), scope), authorize))
            }
        };
        router.route(route.path, named(route.path, handler))
    });
    finish(router, "api", registry).with_state(registry.clone())
}

/// Leaves the route's template on each of its answers.
pub(super) fn named<S: Clone + Send + Sync + 'static>(
    path: &'static str,
    handler: MethodRouter<S>,
) -> MethodRouter<S> {
    handler.layer(from_fn(move |request: Request, next: Next| async move {
        let mut response = next.run(request).await;
        response.extensions_mut().insert(RouteTemplate(path));
        response
    }))
}

/// The layers of both listeners: unknown paths and methods, and the frame around every request.
pub(super) fn finish<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    listener: &'static str,
    registry: &Registry,
) -> Router<S> {
    let observer = Observer { listener, metrics: Arc::clone(registry.metrics()) };
    router
        .fallback(async || ApiError::unknown_route())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn(require_host))
        .layer(from_fn_with_state(observer, observe))
}

/// Authenticates the caller and checks the token's scope before the body is read.
async fn authorize(
    State((registry, scope)): State<(Registry, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(connection) = request.extensions().get::<Arc<Connection>>().cloned() else {
        return ApiError::internal().into_response();
    };
    let caller = match identify(&registry, request.headers_mut(), &connection).await {
        Ok(caller) => Arc::new(caller),
        Err(error) => return error.into_response(),
    };
    if let Err(refusal) = registry.check_scope(&caller, scope).await {
        return ApiError::from(refusal).into_response();
    }
    let id = CallerId(caller.account().to_string());
    let _slot = match connection.load.request(Some(id.0.clone())) {
        Ok(place) => place,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(id);
    response
}

async fn identify(
    registry: &Registry,
    headers: &mut HeaderMap,
    connection: &Connection,
) -> Result<Caller, ApiError> {
    let token = take_bearer(headers).ok_or_else(|| {
        ApiError::unauthenticated(
            "send an API token, once: `Authorization: Bearer dbs_...` (token create makes one)",
        )
    })?;
    let load = &connection.load;
    let remote = Some(connection.remote.ip());
    let _turn = match load.authenticating(remote, Some(&token)).await {
        Ok(turn) => turn,
        Err(_) if registry.expects_api_token(&token).await => None,
        Err(refusal) => return Err(refusal),
    };
    match registry.authenticate(&token, remote).await {
        Ok(caller) => {
            load.succeeded(&token);
            Ok(caller)
        }
        Err(refusal) => {
            // A token over its rate, or one that a busy database could not look up, still counts as
            // valid.
            if refusal.kind() == RefusalKind::Unauthenticated {
                load.forget(&token);
            }
            Err(failed(refusal, connection))
        }
    }
}

/// Counts a failed authentication.
pub(super) fn failed(refusal: Refusal, connection: &Connection) -> ApiError {
    if refusal.kind() == RefusalKind::Unauthenticated {
        connection.load.failed(Some(connection.remote.ip()));
    }
    refusal.into()
}

/// Takes the bearer token (RFC 6750 section 2.1) out of the headers, so that no later layer sees
/// it. `None` if there is no such header, or more than one.
pub(super) fn take_bearer(headers: &mut HeaderMap) -> Option<SecretBytes> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let token = match (values.next(), values.next()) {
        (Some(value), None) => bearer(value.as_bytes()),
        _ => None,
    };
    headers.remove(AUTHORIZATION);
    token
}

fn bearer(value: &[u8]) -> Option<SecretBytes> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    let known = scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty();
    known.then(|| SecretBytes::new(token.to_vec()))
}

async fn healthz() -> Answer<Health> {
    Answer(Health { status: "ok" })
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn token(values: &[&'static str]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        let token = take_bearer(&mut headers).map(|token| token.expose_secret().to_vec());
        assert!(headers.is_empty(), "no token stays behind");
        token
    }

    #[test]
    fn a_bearer_token_is_taken_out_of_the_headers() {
        assert_eq!(token(&["Bearer abc"]).unwrap(), b"abc");
        assert_eq!(token(&["bearer  abc "]).unwrap(), b"abc");
    }

    #[test]
    fn anything_else_is_no_token() {
        for values in
            [&[][..], &["Bearer"], &["Bearer "], &["Basic abc"], &["abc"], &["Bearer a", "Bearer a"]]
        {
            assert_eq!(token(values), None, "{values:?}");
        }
    }
}
