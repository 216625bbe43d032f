//! Answers of the control plane.

use devbox_secrets_common::text::one_line;
use devbox_secrets_proto::devbox::ErrorBody;
use hyper::StatusCode;
use thiserror::Error;

/// Longest error text that a log line or `status` repeats, in characters.
const MAX_MESSAGE_CHARS: usize = 300;

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body.
    pub body: Vec<u8>,
}

/// The server's refusal, safe to log.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the server refused ({status}): {message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The server's error code; empty if the answer is not the server's.
    pub code: String,
    /// The server's message: one line, without control characters.
    pub message: String,
}

impl Refusal {
    /// Whether the same request will be refused again: a 4xx status that a retry cannot cure.
    #[must_use]
    pub(crate) fn is_permanent(&self) -> bool {
        let cured_by_waiting =
            [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
        self.status.is_client_error() && !cured_by_waiting.contains(&self.status)
    }
}

impl Reply {
    /// The body of a `200 OK`, else the refusal.
    ///
    /// # Errors
    /// [`Refusal`] for any other status.
    pub(crate) fn into_ok(self) -> Result<Vec<u8>, Refusal> {
        if self.status == StatusCode::OK { Ok(self.body) } else { Err(self.refusal()) }
    }

    #[must_use]
    pub(crate) fn refusal(&self) -> Refusal {
        let status = self.status;
        match serde_json::from_slice::<ErrorBody>(&self.body) {
            Ok(error) => Refusal { status, code: quoted(&error.code), message: quoted(&error.message) },
            Err(_) => {
                let message = "without a reason: does the URL name the server's devbox listener?".to_owned();
                Refusal { status, code: String::new(), message }
            }
        }
    }
}

/// Makes a foreign text safe for a log line.
fn quoted(text: &str) -> String {
    one_line(text).take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: StatusCode, body: &str) -> Reply {
        Reply { status, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn a_refusal_repeats_the_servers_message_on_one_line() {
        let body = r#"{"code":"used","message":"the join token was used\nalready\u001b[31m"}"#;
        let refusal = reply(StatusCode::UNAUTHORIZED, body).refusal();
        assert_eq!(refusal.message, "the join token was used already [31m");
        assert!(refusal.is_permanent());
    }

    #[test]
    fn an_endless_message_is_cut() {
        let body = format!(r#"{{"code":"x","message":"{}"}}"#, "y".repeat(10_000));
        assert_eq!(reply(StatusCode::FORBIDDEN, &body).refusal().message.len(), MAX_MESSAGE_CHARS);
    }

    #[test]
    fn a_refusal_that_a_retry_cures_is_not_permanent() {
        for status in
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY]
        {
            assert!(!reply(status, "").refusal().is_permanent(), "{status}");
        }
        assert!(reply(StatusCode::FORBIDDEN, "").refusal().is_permanent());
    }
}
