//! The join token that comes with `POST /resume`: read into one buffer that is wiped.

use devbox_secrets_proto::join_token::{InvalidJoinToken, JoinToken, MAX_TOKEN_LEN};
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use thiserror::Error;
use zeroize::Zeroizing;

/// Longest body, in bytes: a token with white space around it.
const MAX_LEN: usize = MAX_TOKEN_LEN + 64;

/// Why a body has no token. It never quotes the body.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    #[error("the join token is incomplete: try again")]
    Broken,
    #[error("the body is longer than any join token: send the token alone")]
    TooLong,
    #[error("the body is not a join token")]
    Invalid(#[from] InvalidJoinToken),
}

pub(super) async fn receive<B>(mut body: B) -> Result<Option<JoinToken>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_LEN));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| BodyError::Broken)?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > MAX_LEN - text.len() {
            return Err(BodyError::TooLong);
        }
        text.extend_from_slice(data);
    }
    if text.is_empty() { Ok(None) } else { Ok(Some(JoinToken::parse(&text)?)) }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn received(text: &str) -> Result<Option<JoinToken>, BodyError> {
        receive(Full::new(Bytes::copy_from_slice(text.as_bytes()))).await
    }

    #[tokio::test]
    async fn a_token_is_bounded_and_an_error_does_not_repeat_it() {
        let token = format!("dbx_1.hunter2.{}\n", "a5".repeat(32));
        assert_eq!(received(&token).await.unwrap().unwrap().devbox_id(), "dbx_1");
        assert!(received("").await.unwrap().is_none());
        for text in ["hunter2", &"hunter2".repeat(1_000)] {
            let error = received(text).await.unwrap_err();
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
    }
}
