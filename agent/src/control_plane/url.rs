//! The control plane's address: exactly `https://HOST[:PORT]`.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Authority;
use rustls::pki_types::ServerName;
use thiserror::Error;

/// The port of a URL that names none (RFC 9110 section 4.2.2).
const HTTPS_PORT: u16 = 443;

/// The address of the control plane's devbox listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// A name or an address, an IPv6 one without its brackets.
    host: String,
    port: u16,
}

/// Why a text is not the control plane's URL. Never repeats the text, which could contain a password.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidUrl {
    #[error("not a URL: write https://HOST:PORT")]
    Form,
    #[error("secrets only travel over TLS: write https://HOST:PORT")]
    Scheme,
    #[error("the URL's port is a number from 1 to 65535: write https://HOST:PORT")]
    Port,
    #[error("the server's URL has a host and a port only: write https://HOST:PORT")]
    Extra,
    #[error("the URL's host is neither a DNS name nor an IP address")]
    Host,
}

impl ServerUrl {
    #[must_use]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    #[must_use]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The name that the server's certificate must be for.
    ///
    /// # Errors
    /// [`InvalidUrl::Host`].
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, InvalidUrl> {
        ServerName::try_from(self.host.clone()).map_err(|_| InvalidUrl::Host)
    }

    #[must_use]
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl FromStr for ServerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidUrl::Form)?;
        let authority = uri.authority().ok_or(InvalidUrl::Form)?;
        if uri.scheme_str() != Some("https") {
            return Err(InvalidUrl::Scheme);
        }
        // `Uri` drops a fragment.
        let has_fragment = text.contains('#');
        if has_fragment || authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() {
            return Err(InvalidUrl::Extra);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let url = Self { host, port: port(authority)? };
        url.server_name().map(|_| url)
    }
}

/// `Uri` accepts any characters as a port, and returns no port for invalid ones.
fn port(authority: &Authority) -> Result<u16, InvalidUrl> {
    let after_host = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if after_host.is_empty() {
        return Ok(HTTPS_PORT);
    }
    let digits = after_host.strip_prefix(':').filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0).ok_or(InvalidUrl::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found() {
        let cases = [
            ("https://secrets.example", "secrets.example", 443),
            ("https://secrets.example:8443/", "secrets.example", 8443),
            ("https://127.0.0.1:1", "127.0.0.1", 1),
            ("https://[::1]:2", "::1", 2),
        ];
        for (text, host, port) in cases {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port()), (host, port));
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn anything_but_https_host_and_port_is_refused() {
        let cases = [
            ("", InvalidUrl::Form),
            ("secrets.example", InvalidUrl::Scheme),
            ("http://secrets.example", InvalidUrl::Scheme),
            ("https://user:hunter2@secrets.example", InvalidUrl::Extra),
            ("https://secrets.example/v1", InvalidUrl::Extra),
            ("https://secrets.example/?a", InvalidUrl::Extra),
            ("https://secrets.example#a", InvalidUrl::Extra),
            ("https://secrets.example:8443/#", InvalidUrl::Extra),
            ("https://127.0.0.1:0", InvalidUrl::Port),
            ("https://127.0.0.1:65536", InvalidUrl::Port),
            ("https://127.0.0.1:99999", InvalidUrl::Port),
            ("https://127.0.0.1:abc", InvalidUrl::Port),
            ("https://127.0.0.1:-1", InvalidUrl::Port),
            ("https://127.0.0.1:+1", InvalidUrl::Port),
            ("https://127.0.0.1:", InvalidUrl::Port),
            ("https://[::1]:abc", InvalidUrl::Port),
            ("https://[::1]x", InvalidUrl::Port),
            ("https://secrets_example..", InvalidUrl::Host),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<ServerUrl>(), Err(error), "{text}");
        }
    }
}
