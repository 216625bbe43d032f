//! The Host header of HTTP/1: exactly one (RFC 9112 section 3.2). With two hosts, a proxy and this
//! server could each believe a different one, which an attacker can use.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;

/// Refuses with 400 the requests that RFC 9112 requires a server to refuse.
pub(super) async fn require_host(request: Request, next: Next) -> Response {
    match fault(request.version(), request.headers()) {
        Some(message) => ApiError::invalid("invalid_host", message).into_response(),
        None => next.run(request).await,
    }
}

fn fault(version: Version, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Some("send one Host header, not several"),
        (None, _) if version == Version::HTTP_11 => Some("an HTTP/1.1 request has a Host header: send one"),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            Some("the Host header is no host name or address with an optional port")
        }
        _ => None,
    }
}

/// Empty, or a host and an optional port; no user information.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || (!value.contains(&b'@') && Authority::try_from(value).is_ok())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn refused(version: Version, hosts: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        fault(version, &headers).is_some()
    }

    #[test]
    fn one_well_formed_host_is_accepted() {
        for host in ["localhost", "secrets.example.com:8443", "10.0.0.5", "[::1]:80", ""] {
            assert!(!refused(Version::HTTP_11, &[host]), "{host}");
        }
        assert!(!refused(Version::HTTP_10, &[]) && !refused(Version::HTTP_2, &[]));
    }

    #[test]
    fn no_host_two_hosts_and_malformed_ones_are_refused() {
        for hosts in [&[][..], &["a", "a"], &["a", "b"], &["a b"], &["user@a"], &["a/b"]] {
            assert!(refused(Version::HTTP_11, hosts), "{hosts:?}");
        }
        assert!(refused(Version::HTTP_10, &["a", "b"]) && refused(Version::HTTP_2, &["a", "b"]));
    }
}
